//! `plan` and `test`: what they say, and that they write nothing.

use std::path::{Path, PathBuf};

use crate::harness::{World, sqlite_rows};

const SPEC: &str = "
sources:
  - name: orders
    file: {path: orders.csv}
    columns: [{name: id, type: int64, required: true, description: 'It''s the key'}, {name: city, type: string}, {name: amount, type: 'decimal(10,2)'}]
models:
  - {name: cities, sql: 'SELECT city, sum(amount) AS amount, count(*) AS orders FROM orders GROUP BY city'}
checks:
  - {name: keys, from: orders, unique: [id]}
  - {name: amounts, from: orders, notNull: [amount], errorIf: {ratio: 0.5}}
  - {name: some, from: cities, rows: {min: 1}, severity: warn}
sinks:
  - {name: orders, from: orders, postgres: {{db}, table: '{schema}_made.orders'}, primaryKey: [id]}
  - {name: cities, from: cities, sqlite: {path: '{folder}/out.db', table: cities}, primaryKey: [city]}
  - {name: lake, from: cities, lake: {url: '{lake}/cities'}}
  - {name: folder, from: cities, lake: {url: 'file://{folder}/cities'}}
";

/// Everything that a worker could write: tables and their rows, files, objects.
async fn everything(world: &World) -> Vec<String> {
    let schemas = format!("('{0}', '{0}_made')", world.name);
    let identity = format!("'{}/%'", world.name.replace('_', "-"));
    let mut all = Vec::new();
    for sql in [
        format!(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN {schemas} ORDER BY 1, 2"
        ),
        format!("SELECT nspname::text FROM pg_namespace WHERE nspname IN {schemas} ORDER BY 1"),
        format!("SELECT identity, version FROM report_operator.ledger WHERE identity LIKE {identity}"),
        format!("SELECT identity, epoch FROM report_operator.fences WHERE identity LIKE {identity}"),
        format!("SELECT identity, run_id FROM report_operator.runs WHERE identity LIKE {identity} ORDER BY 2"),
        format!(
            "SELECT identity, sink, epoch FROM report_operator.commits WHERE identity LIKE {identity} ORDER BY 1, 2, 3"
        ),
    ] {
        all.extend(world.rows(&sql).await);
    }
    all.extend(files(world.folder.path()));
    all.extend(world.all_objects().await);
    all
}

/// All files below a folder, with their sizes and times, except for a worker's own scratch.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let (path, about) = (entry.path(), entry.metadata().unwrap());
        if path.is_dir() && !path.ends_with("scratch") {
            found.push(path.display().to_string());
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(format!("{} {} {:?}", path.display(), about.len(), about.modified().unwrap()));
        }
    }
    found.sort();
    found
}

/// A run of another pipeline, which makes the operator's own tables where there are none yet.
fn another_run(world: &World) {
    let spec = "sources: [{name: t, file: {path: t.csv}, columns: [{name: id, type: int64}]}]\nsinks: [{name: t, from: t, postgres: {{db}, table: '{schema}.other'}}]";
    let manifest = world.manifest("other", spec);
    world.file("t.csv", "id\n1\n");
    world.run(&manifest).ok();
}

fn plan(world: &World, manifest: &Path) -> (Option<i32>, String) {
    let ended = world.worker(&["plan", manifest.to_str().unwrap()], &[]);
    (ended.code, ended.output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_a_run_would_do_and_writes_nothing() {
    let world = World::new().await;
    let schema = format!("{}_made", world.name);
    world.sql(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await;
    let manifest = world.manifest("p", SPEC);
    another_run(&world);
    let before = everything(&world).await;
    let (code, first) = plan(&world, &manifest);
    assert_eq!(code, Some(0), "{first}");
    assert_eq!(everything(&world).await, before, "a plan has written something");
    for words in [
        "the first one".to_owned(),
        "nothing yet, this is the first run".to_owned(),
        "orders: the file orders.csv, csv".to_owned(),
        "    id      int64, required".to_owned(),
        "    amount  decimal(10,2)".to_owned(),
        "cities: reads orders".to_owned(),
        "keys: unique on orders, by a query, error".to_owned(),
        "amounts: notNull on orders, as rows pass, error".to_owned(),
        "some: rows on cities, as rows pass, warn".to_owned(),
        format!("orders: replace {schema}.orders from orders"),
        "does not exist; the first commit makes it".to_owned(),
        format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\";"),
        "CREATE TABLE \"cities\" (\"city\" TEXT NOT NULL, \"amount\" NUMERIC, \"orders\" INTEGER, PRIMARY KEY (\"city\"));".to_owned(),
    ] {
        assert!(first.contains(&words), "no {words:?} in {first}");
    }

    // The statements make what a run makes.
    const LOOK: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(a.attrelid, a.attnum), NULL
        FROM pg_attribute a WHERE a.attrelid = '{schema}_made.orders'::regclass AND a.attnum > 0
        UNION ALL SELECT conname::text, pg_get_constraintdef(oid), NULL, NULL, NULL FROM pg_constraint WHERE conrelid = '{schema}_made.orders'::regclass
        ORDER BY 1";
    let statements: Vec<&str> =
        first.lines().map(str::trim).filter(|line| line.contains(&schema) && line.ends_with(';')).collect();
    assert!(statements.len() >= 4, "{statements:?}");
    world.sql(&statements.join("\n")).await;
    let planned = world.rows(LOOK).await;
    world.sql(&format!("DROP SCHEMA {schema} CASCADE")).await;
    world.file("orders.csv", "id,city,amount\n1,Oslo,1.50\n2,Bern,2\n");
    world.run(&manifest).ok();
    assert_eq!(world.rows(LOOK).await, planned);

    let before = everything(&world).await;
    let (code, second) = plan(&world, &manifest);
    assert_eq!(code, Some(0), "{second}");
    assert_eq!(everything(&world).await, before, "a plan has written something");
    for words in [
        "since the last committed one",
        ": committed up to 2",
        "exists and has rows",
        "by a new table that takes its name",
    ] {
        assert!(second.contains(words), "no {words:?} in {second}");
    }
    assert!(!second.contains("CREATE"), "{second}");
    world.sql(&format!("DROP SCHEMA {schema} CASCADE")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_ends_like_the_run_that_a_sink_would_refuse() {
    let world = World::new().await;
    another_run(&world);
    let spec = "sources: [{name: t, file: {path: t.csv}, columns: [{name: id, type: int64}]}]\nsinks: [{name: t, from: t, postgres: {{db}, table: '{schema}.t'}}]";
    let manifest = world.manifest("p", spec);
    for (table, exit, code) in [("id bigint", 10, "table_not_owned"), ("id smallint", 12, "schema_mismatch")] {
        world.sql(&format!("CREATE TABLE {{schema}}.t ({table}); INSERT INTO {{schema}}.t VALUES (1)")).await;
        let before = everything(&world).await;
        let (got, said) = plan(&world, &manifest);
        assert_eq!(got, Some(exit), "{said}");
        assert!(said.contains(&format!("a run would fail, {code}: spec.sinks[0]")), "{said}");
        assert_eq!(everything(&world).await, before);
        world.run(&manifest).failed(exit, code);
        world.sql("DROP TABLE {schema}.t").await;
    }
    // Without a password nothing can be told.
    let mut world = world;
    world.unset("SECRET_DB_URL");
    let (got, said) = plan(&world, &manifest);
    assert_eq!(got, Some(10), "{said}");
    assert!(said.contains("SECRET_DB_URL"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_a_folder_makes_none() {
    let world = World::new().await;
    let manifest = examples().join("quickstart/pipeline.yaml");
    let plan = || world.worker(&["plan", manifest.to_str().unwrap(), "--local", "out"], &[]);
    let ended = plan();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("CREATE TABLE \"sales\""), "{}", ended.output);
    assert!(!world.folder.path().join("out").exists());
    world.worker(&["run", manifest.to_str().unwrap(), "--local", "out"], &[]).ok();
    let before = files(world.folder.path());
    let ended = plan();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("exists and has rows"), "{}", ended.output);
    assert_eq!(files(world.folder.path()), before);
    let database = world.folder.path().join("out/reporting.db");
    assert_eq!(sqlite_rows(&database, "SELECT count(*) FROM report_operator_runs").await, ["1"]);
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tests_of_the_examples_pass() {
    let world = World::new().await;
    let mut count = 0;
    for folder in std::fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.join("pipeline.tests.yaml").exists() {
            let ended = world.worker(&["test", folder.join("pipeline.yaml").to_str().unwrap()], &[]);
            assert_eq!(ended.code, Some(0), "{}: {}", folder.display(), ended.output);
            assert!(ended.output.contains(" 0 failed"), "{}", ended.output);
            count += 1;
        }
    }
    assert!(count > 0);
}

const TESTED: &str = "
sources:
  - name: orders
    file: {path: orders.csv}
    columns: [{name: id, type: int64, required: true}, {name: city, type: string}, {name: amount, type: 'decimal(20,2)'}, {name: at, type: timestamptz}]
  - {name: cities, file: {path: c.json}, columns: [{name: city, type: string, required: true}, {name: country, type: string}]}
models:
  - {name: located, sql: 'SELECT o.*, c.country FROM orders AS o LEFT JOIN cities AS c USING (city)'}
  - {name: totals, sql: 'SELECT country, sum(amount) AS amount, count(*) AS orders FROM located GROUP BY country'}
sinks:
  - {name: totals, from: totals, postgres: {{db}, table: '{schema}.totals'}}
";

fn test(world: &World, tests: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let manifest = world.manifest("p", TESTED);
    world.file("p.tests.yaml", tests);
    let ended = world.worker(&[&["test", manifest.to_str().unwrap()], arguments].concat(), &[]);
    (ended.code, ended.output.replace("\\\"", "\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_show_missing_and_unexpected_rows() {
    let world = World::new().await;
    world.file("rows.csv", "id,city,amount\n1,Oslo,12345678901234567.89\n2,,1\n");
    world.file("cities.json", r#"[{"city": "Oslo", "country": "Norway"}, {"city": "Bern", "country": null}]"#);
    world.file(
        "totals.ndjson",
        "{\"country\": \"Norway\", \"amount\": 12345678901234567.89}\n{\"country\": null, \"amount\": 1}\n",
    );
    let tests = "
tests:
  - name: from-files
    model: totals
    given: [{table: orders, file: rows.csv}, {table: cities, file: cities.json}]
    expect: {file: totals.ndjson}
  - name: wrong
    model: totals
    given:
      - table: located
        rows: [{country: Norway, amount: 1}, {country: Norway, amount: 0.10}, {country: null, amount: 5}]
    expect:
      rows: [{country: Norway, amount: 1.11, orders: 2}, {country: null, amount: 5.00, orders: 1}]
  - name: no-rows
    model: totals
    given: [{table: located, rows: []}]
    expect: {rows: []}
";
    let (code, said) = test(&world, tests, &[]);
    assert_eq!(code, Some(13), "{said}");
    for words in [
        "ok      from-files",
        "FAILED  wrong: rows of totals: 1 missing (-), 1 unexpected (+)",
        "| - | Norway  | 1.11   | 2      |",
        "| + | Norway  | 1.10   | 2      |",
        "ok      no-rows",
        "tests: 2 passed, 1 failed",
        "1 of 3 tests failed",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert!(!said.contains("5.00"), "a row that is right is shown: {said}");
    assert_eq!(test(&world, tests, &["files"]).0, Some(0));
    let (code, said) = test(&world, tests, &["none-such"]);
    assert_eq!((code, said.contains("no test is called so")), (Some(10), true), "{said}");
    assert_eq!(world.tables().await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_test_says_where_and_what_to_write() {
    let world = World::new().await;
    let located = "given: [{table: orders, rows: []}, {table: cities, rows: []}], expect: {rows: []}";
    for (tests, field, words) in [
        (format!("[{{name: t, model: locatd, {located}}}]"), "tests[0].model", "no model is called locatd; did you mean located?"),
        ("[{name: t, model: located, given: [{table: orders, rows: []}], expect: {rows: []}}]".into(), "tests[0].given", "located reads cities, which is not given; write rows: [] if it has none"),
        ("[{name: t, model: totals, given: [{table: located, rows: []}, {table: orders, rows: []}], expect: {rows: []}}]".into(), "tests[0].given", "orders is given, and totals does not read it; leave it out"),
        ("[{name: t, model: located, given: [{table: ordres, rows: []}], expect: {rows: []}}]".into(), "tests[0].given[0].table", "did you mean orders?"),
        ("[{name: t, model: located, given: [{table: orders, rows: [{id: 1}, {id: x}]}, {table: cities, rows: []}], expect: {rows: []}}]".into(), "tests[0].given[0].rows[1].id", "\"x\" is not int64"),
        ("[{name: t, model: located, given: [{table: orders, rows: [{id: 1, amuont: 2}]}, {table: cities, rows: []}], expect: {rows: []}}]".into(), "tests[0].given[0].rows[0].amuont", "did you mean amount?"),
        ("[{name: t, model: located, given: [{table: orders, file: none.csv}, {table: cities, rows: []}], expect: {rows: []}}]".into(), "tests[0].given[0].file", "none.csv can't be read"),
        (format!("[{{name: t, model: located, {located}}}, {{name: t, model: located, {located}}}]"), "tests[1].name", "another test is called t too"),
        ("[{name: t, model: located, given: [{table: orders, rows: []}, {table: cities, rows: []}], expect: {}}]".into(), "tests[0].expect", "write rows or file, one of them"),
        ("[{name: t, model: located, gives: [], expect: {rows: []}}]".into(), "", "gives"),
        ("[]".into(), "tests", "0 tests"),
    ] {
        let (code, said) = test(&world, &format!("tests: {tests}"), &[]);
        assert_eq!(code, Some(10), "{tests}: {said}");
        assert!(said.contains(field) && said.contains(words), "{tests}: no {field:?} {words:?} in {said}");
    }
    let manifest = world.manifest("q", TESTED);
    let ended = world.worker(&["test", manifest.to_str().unwrap()], &[]);
    assert_eq!(ended.code, Some(10), "{}", ended.output);
    assert!(ended.output.contains("q.tests.yaml"), "{}", ended.output);
}
