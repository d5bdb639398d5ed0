//! What is special about tables in MySQL and MariaDB: their types, their way to load rows, and what depends on them.

use mysql_async::prelude::Queryable;

use super::{csv, day, spec};
use crate::databases::{Database, mysql};
use crate::harness::{Ended, WRONG_PASSWORD, World, setting, sqlite_rows};

const MYSQL: Database = Database::Mysql;
const ALL: &str = "SELECT id, city, amount FROM {schema}.orders ORDER BY id, city";
/// The comment tells the run that swapped the table in.
const COMMENT: &str =
    "SELECT table_comment FROM information_schema.tables WHERE table_schema = '{schema}' AND table_name = 'orders'";

fn table() -> String {
    MYSQL.sink("orders")
}

const TYPES: &str = "
sources:
  - name: t
    file: {path: t.csv}
    columns: [{name: n, type: int64, required: true}, {name: b, type: boolean}, {name: i16, type: int16}, {name: i32, type: int32}, {name: i64, type: int64},
      {name: f32, type: float32}, {name: f64, type: float64}, {name: num, type: 'decimal(38,10)'}, {name: d, type: date}, {name: ts, type: timestamp},
      {name: tz, type: timestamptz}, {name: s, type: string}]
sinks:
  - {name: t, from: t, mysql: {connection: {secretRef: {name: my}}, table: '{schema}.t'}}
";

fn types(world: &World, rows: &[&str]) -> Ended {
    world.file("t.csv", format!("n,b,i16,i32,i64,f32,f64,num,d,ts,tz,s\n{}\n", rows.join("\n")));
    world.run(&world.manifest("p", TYPES))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_arrives_as_it_was() {
    // With the server's permission to load a file, and without it.
    for local in ["ON", "OFF"] {
        let world = World::new().await;
        let mut admin = mysql().await;
        admin.query_drop(format!("SET GLOBAL local_infile = {local}")).await.unwrap();
        let ended = types(
            &world,
            &[
                "1,true,-32768,-2147483648,-9223372036854775808,0.1,1.7976931348623157e308,9999999999999999999999999999.9999999999,1000-01-01,1000-01-01 00:00:00.000001,2026-03-29T02:30:00.123456+02:00,\"tab\there \\N back\\slash \"\"quotes\"\" 'x' 😀 مرحبا\r\nline\"",
                "2,false,32767,2147483647,9223372036854775807,-3.4028235e38,-5e-324,-0.0000000001,9999-12-31,9999-12-31 23:59:59.999999,1970-01-01T00:00:00Z,\" space \"",
                "3,,,,,,,,,,,",
            ],
        );
        admin.query_drop("SET GLOBAL local_infile = ON").await.unwrap();
        assert_eq!(ended.output.contains("the rows go by INSERT"), local == "OFF", "{}", ended.output);
        ended.ok();
        let found: Vec<mysql_async::Row> = admin
            .query(format!("SELECT n, b, i16, i32, i64, f32, f64, num, d, ts, tz, s FROM {}.t ORDER BY n", world.name))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let found: Vec<Vec<String>> = found
            .into_iter()
            .map(|row| {
                let text = |value| match value {
                    mysql_async::Value::NULL => "∅".to_owned(),
                    mysql_async::Value::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
                    other => panic!("{other:?}"),
                };
                row.unwrap().into_iter().map(text).collect()
            })
            .collect();
        let numbers = |row: &[String]| -> (f64, f64) { (row[5].parse().unwrap(), row[6].parse().unwrap()) };
        assert_eq!(numbers(&found[0]), (f64::from(0.1_f32), f64::MAX), "{local}");
        assert_eq!(numbers(&found[1]), (f64::from(-3.402_823_5e38_f32), -5e-324), "{local}");
        let rest = |row: &[String]| [&row[..5], &row[7..]].concat();
        assert_eq!(
            rest(&found[0]),
            [
                "1",
                "1",
                "-32768",
                "-2147483648",
                "-9223372036854775808",
                "9999999999999999999999999999.9999999999",
                "1000-01-01",
                "1000-01-01 00:00:00.000001",
                "2026-03-29 00:30:00.123456",
                "tab\there \\N back\\slash \"quotes\" 'x' 😀 مرحبا\r\nline",
            ],
            "{local}"
        );
        assert_eq!(
            rest(&found[1]),
            [
                "2",
                "0",
                "32767",
                "2147483647",
                "9223372036854775807",
                "-0.0000000001",
                "9999-12-31",
                "9999-12-31 23:59:59.999999",
                "1970-01-01 00:00:00.000000",
                " space ",
            ],
            "{local}"
        );
        assert_eq!(found[2][1..], vec!["∅".to_owned(); 11], "{local}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mysql_can_not_hold_ends_the_run_by_name() {
    let world = World::new().await;
    for (row, words) in [
        ("1,,,,,,NaN,,,,,", "column f64: MySQL can't hold NaN"),
        ("1,,,,,-inf,,,,,,", "column f32: MySQL can't hold NaN or infinity"),
        ("1,,,,,,,,0999-12-31,,,", "column d: MySQL holds dates of the years 1000 to 9999 only"),
        ("1,,,,,,,,,0001-01-01 00:00:00,,", "column ts: MySQL holds dates"),
    ] {
        let message = types(&world, &[row]).failed(12, "type_unsupported");
        assert!(message.starts_with("spec.sinks[0].from: ") && message.contains(words), "{row}: {message}");
        assert_eq!(MYSQL.tables(&world).await, [""; 0], "{row}");
    }
}

/// With LOAD DATA LOCAL the server only warns of what it cuts or leaves out.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_too_long_are_never_cut() {
    let world = World::new().await;
    // The text of a key is a varchar(255).
    let manifest = world.manifest("p", &spec(&format!("{}, mode: {{merge: {{key: [city]}}}}", table())));
    day(&world, &manifest, 1, &[&format!("1,{},1", "ü".repeat(255))]).ok();
    let message = day(&world, &manifest, 2, &[&format!("1,{},1", "x".repeat(256))]).failed(12, "value_invalid");
    assert!(message.contains("'city'") && message.contains("widen the table's"), "{message}");
    assert_eq!(MYSQL.rows(&world, "SELECT char_length(city) FROM {schema}.orders").await, ["255"]);

    for (columns, code) in [
        ("id bigint, city varchar(3), amount decimal(10,2)", "value_invalid"),
        ("id bigint, city varchar(30) NOT NULL, amount decimal(10,2)", "value_invalid"),
        ("id bigint, city varchar(30), amount decimal(10,2), CHECK (amount > 5)", "value_invalid"),
        ("id int, city varchar(30), amount decimal(10,2)", "schema_mismatch"),
        ("id bigint, city char(30), amount decimal(10,2)", "schema_mismatch"),
        ("id bigint, city varchar(30), amount decimal(10,1)", "schema_mismatch"),
        ("id bigint unsigned, city varchar(30), amount decimal(10,2)", "schema_mismatch"),
        ("id bigint, city varchar(30), amount decimal(10,2), booked date NOT NULL", "schema_mismatch"),
        ("id bigint, city varchar(30)", "schema_mismatch"),
    ] {
        for mode in ["replace: {}", "append: {}"] {
            let world = World::new().await;
            MYSQL.sql(&world, &format!("CREATE TABLE {{schema}}.orders ({columns})")).await;
            let manifest = world.manifest("p", &spec(&format!("{}, mode: {{{mode}}}", table())));
            day(&world, &manifest, 1, &["1,Oslo,1", "2,,9"]).failed(12, code);
            assert_eq!(MYSQL.rows(&world, "SELECT count(*) FROM {schema}.orders").await, ["0"], "{columns} {mode}");
            assert_eq!(MYSQL.tables(&world).await, ["orders"], "{columns} {mode}");
        }
    }
}

/// Keys tell texts apart that many collations hold for the same.
#[tokio::test(flavor = "multi_thread")]
async fn keys_tell_case_accents_and_spaces_apart() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&format!("{}, mode: {{merge: {{key: [city]}}}}", table())));
    day(&world, &manifest, 1, &["1,oslo,1", "2,Oslo,2", "3,Oslö,3", "4,\"oslo \",4"]).ok();
    day(&world, &manifest, 2, &["5,Oslo,5"]).ok();
    assert_eq!(MYSQL.rows(&world, "SELECT id FROM {schema}.orders ORDER BY id").await, ["1", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_swaps_and_keeps_what_people_set_on_the_table() {
    let world = World::new().await;
    MYSQL
        .sql(
            &world,
            "CREATE TABLE {schema}.orders (id bigint NOT NULL, city varchar(30) DEFAULT 'Rom' COMMENT 'Where', amount decimal(10,2) CHECK (amount >= 0),
               PRIMARY KEY (id), UNIQUE KEY by_city (city, id)) COMMENT 'It''s \\\\ ours'",
        )
        .await;
    MYSQL.sql(&world, "CREATE VIEW {schema}.v AS SELECT sum(amount) AS total FROM {schema}.orders").await;
    let manifest = world.manifest("p", &spec(&table()));
    let create = "SHOW CREATE TABLE {schema}.orders";
    let before = MYSQL.rows(&world, create).await;
    let mut comments = Vec::new();
    for n in 1..4 {
        day(&world, &manifest, n, &["1,Oslo,1.50", "2,Bern,3"]).ok();
        let now = MYSQL.rows(&world, create).await;
        let comment = MYSQL.rows(&world, COMMENT).await.remove(0);
        assert!(comment.starts_with("It's \\ ours [report "), "{comment}");
        assert_eq!(now[0].replace(&comment[11..], ""), before[0], "run {n}");
        assert_eq!(MYSQL.rows(&world, ALL).await, ["1|Oslo|1.5", "2|Bern|3"]);
        assert_eq!(MYSQL.rows(&world, "SELECT total FROM {schema}.v").await, ["4.5"]);
        comments.push(comment);
    }
    comments.dedup();
    assert_eq!(comments.len(), 3, "the table was not swapped: {comments:?}");
    assert_eq!(MYSQL.tables(&world).await, ["orders", "v"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_table_survives_its_replacement() {
    let orders = "id bigint NOT NULL PRIMARY KEY, city varchar(30), amount decimal(10,2)";
    for (what, columns, after, look, want) in [
        (
            "a trigger",
            orders.to_owned(),
            "CREATE TRIGGER {schema}.note BEFORE INSERT ON {schema}.orders FOR EACH ROW SET NEW.amount = NEW.amount + 1",
            "SELECT sum(amount) FROM {schema}.orders",
            "6.5",
        ),
        (
            "a foreign key of its own",
            format!("{orders}, FOREIGN KEY (city) REFERENCES cities (city)"),
            "INSERT INTO {schema}.cities VALUES ('Oslo'), ('Bern')",
            "SELECT count(*) FROM information_schema.referential_constraints WHERE constraint_schema = '{schema}' AND table_name = 'orders'",
            "1",
        ),
        (
            "a counter",
            format!("{orders}, number int NOT NULL AUTO_INCREMENT UNIQUE"),
            "INSERT INTO {schema}.cities VALUES ('Oslo')",
            "SELECT min(number) > 2 FROM {schema}.orders",
            "1",
        ),
    ] {
        let world = World::new().await;
        MYSQL.sql(&world, "CREATE TABLE {schema}.cities (city varchar(30) PRIMARY KEY)").await;
        let create =
            format!("CREATE TABLE {{schema}}.orders ({})", columns.replace("REFERENCES ", "REFERENCES {schema}."));
        MYSQL.sql(&world, &create).await;
        MYSQL.sql(&world, after).await;
        let manifest = world.manifest("p", &spec(&table()));
        day(&world, &manifest, 1, &["1,Oslo,9", "2,Bern,9"]).ok();
        day(&world, &manifest, 2, &["1,Oslo,1.50", "2,Bern,3"]).ok();
        assert_eq!(MYSQL.rows(&world, look).await, [want], "{what}");
        assert_eq!(MYSQL.rows(&world, "SELECT id, city FROM {schema}.orders ORDER BY id").await, ["1|Oslo", "2|Bern"]);
    }
}

/// Deleting all rows to put most of them back would take the lines along.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_other_tables_refer_to_are_replaced_one_by_one() {
    for action in ["", "ON DELETE CASCADE", "ON DELETE SET NULL"] {
        let world = World::new().await;
        MYSQL
            .sql(&world, "CREATE TABLE {schema}.orders (id bigint PRIMARY KEY, city varchar(30), amount decimal(10,2))")
            .await;
        let lines = format!(
            "CREATE TABLE {{schema}}.order_lines (line int, id bigint, FOREIGN KEY (id) REFERENCES {{schema}}.orders (id) {action})"
        );
        MYSQL.sql(&world, &lines).await;
        let manifest = world.manifest("p", &spec(&table()));
        day(&world, &manifest, 1, &["1,Oslo,1", "2,Bern,2", "3,Rom,3"]).ok();
        MYSQL.sql(&world, "INSERT INTO {schema}.order_lines VALUES (1, 1), (2, 2)").await;
        day(&world, &manifest, 2, &["1,Oslo,10", "2,Bern,20", "4,Wien,4"]).ok();
        let orders = MYSQL.rows(&world, "SELECT id, amount FROM {schema}.orders ORDER BY id").await;
        assert_eq!(orders, ["1|10", "2|20", "4|4"], "{action}");
        let lines = MYSQL.rows(&world, "SELECT line, id FROM {schema}.order_lines ORDER BY line").await;
        assert_eq!(lines, ["1|1", "2|2"], "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_after_the_rows_were_staged_survives_the_commit() {
    let world = World::new().await;
    let first = format!("sinks:\n  - {{name: first, from: orders, {}}}", MYSQL.sink("first"));
    let manifest = world.manifest("p", &spec(&table()).replace("sinks:", &first));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    // Both are staged for a swap and one is committed; then somebody makes an index on the other.
    world.file("orders.csv", csv(&["2,Bern,2"]));
    let dead = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", "after_commit_0")]);
    assert_eq!(dead.code, None, "{}", dead.output);
    MYSQL.sql(&world, "CREATE INDEX later ON {schema}.orders (id)").await;
    world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
    assert_eq!(MYSQL.rows(&world, "SELECT id FROM {schema}.orders").await, ["2"]);
    let indexes = "SELECT index_name FROM information_schema.statistics WHERE table_schema = '{schema}' AND table_name = 'orders'";
    assert_eq!(MYSQL.rows(&world, indexes).await, ["later"]);
    assert_eq!(MYSQL.tables(&world).await, ["first", "orders"]);
}

/// A reader in a transaction holds the table: the swap waits for it a while, and tries again.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_waits_for_readers() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&table()));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    let mut reader = mysql().await;
    reader.query_drop("START TRANSACTION").await.unwrap();
    reader.query_drop(format!("SELECT count(*) FROM {}.orders", world.name)).await.unwrap();
    world.file("orders.csv", csv(&["2,Oslo,2"]));
    let command = world.command(
        &["run", manifest.to_str().unwrap()],
        &[("REPORT_RUN_ID", "run-2"), ("REPORT_INTERVAL_END", "2026-01-02T00:00:00Z")],
    );
    let runtime = tokio::runtime::Handle::current();
    let ended = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| world.finish(command));
            std::thread::sleep(std::time::Duration::from_secs(5));
            runtime.block_on(reader.query_drop("COMMIT")).unwrap();
            run.join().unwrap()
        })
    });
    ended.ok();
    assert_eq!(MYSQL.rows(&world, ALL).await, ["2|Oslo|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_and_a_missing_right_say_what_to_do() {
    let mut world = World::new().await;
    let manifest = world.manifest("p", &spec(&table()));
    let url = setting("TEST_MYSQL_URL");
    let port = url.rfind(':').unwrap() + 1;
    for (value, exit, code, words) in [
        (url.replace("testpw", WRONG_PASSWORD), 11, "login_denied", "correct the user and password"),
        (setting("TEST_MYSQL_READER_URL"), 11, "permission_denied", "grant the right"),
        (url.replace("/reporting", "/no_such_database"), 10, "secret_invalid", "create the database"),
        (url.replace("mysql://", "http://"), 10, "secret_invalid", "write mysql://user:password@host"),
        (format!("{}1{}", &url[..port], &url[port..]), 10, "secret_invalid", "no connection URL"),
    ] {
        world.set("SECRET_MY_URL", &value);
        let message = day(&world, &manifest, 1, &["1,Oslo,1"]).failed(exit, code);
        assert!(message.starts_with("spec.sinks[0]") && message.contains(words), "{code}: {message}");
    }
    let nobody = url.replace(&url[url.rfind(':').unwrap()..url.rfind('/').unwrap()], ":9");
    world.set("SECRET_MY_URL", &nobody);
    day(&world, &manifest, 1, &["1,Oslo,1"]).failed(20, "ledger_unreachable");
}

/// The table's database may be the URL's, and is made where it is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_database_is_in_that_of_the_url() {
    let mut world = World::new().await;
    MYSQL.sql(&world, "SELECT 1").await;
    world.set("SECRET_MY_URL", &setting("TEST_MYSQL_URL").replace("/reporting", &format!("/{}", world.name)));
    let manifest = world.manifest("p", &spec("mysql: {connection: {secretRef: {name: my}}, table: orders}"));
    let result = day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    assert_eq!(result.sinks[0].target, format!("{}.orders", world.name));
    assert_eq!(MYSQL.rows(&world, ALL).await, ["1|Oslo|1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_laptop_it_is_a_table_of_the_file() {
    let mut world = World::new().await;
    world.unset("SECRET_MY_URL");
    world.unset("SECRET_DB_URL");
    let first = format!("sinks:\n  - {{name: first, from: orders, {}}}", Database::Postgres.sink("orders"));
    let sink = format!("{}, description: A row, mode: {{merge: {{key: [id]}}}}", table());
    let manifest = world.manifest("p", &spec(&sink).replace("sinks:", &first));
    world.file("orders.csv", csv(&["1,Oslo,1"]));
    world.worker(&["run", manifest.to_str().unwrap(), "--local", "out"], &[]).ok();
    let file = world.folder.path().join("out/reporting.db");
    for table in ["orders".to_owned(), format!("{}_orders", world.name)] {
        assert_eq!(sqlite_rows(&file, &format!("SELECT id, city FROM {table}")).await, ["1|Oslo"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_keeps_rejected_rows_and_is_read_by_a_plan() {
    let world = World::new().await;
    let columns = "columns: [{name: id, type: int64, required: true}]";
    let spec = format!(
        "sources: [{{name: t, file: {{path: t.csv}}, {columns}, onBadRow: quarantine, maxBadRows: {{count: 9}}}}]\nsinks: [{{name: t, from: t, {}}}]",
        MYSQL.sink("t")
    );
    let manifest = world.manifest("p", &spec);
    for bad in ["1\nx\ny\n", "1\nz\n"] {
        world.file("t.csv", format!("id\n{bad}"));
        world.attempt(&manifest, "one", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", "after_stage")]);
    }
    world.attempt(&manifest, "one", "2026-01-01T00:00:00Z", &[]).ok();
    let rejected = format!(
        "SELECT run_id, source, line, column_name, code, raw FROM report_operator.rejected WHERE identity = '{}/p'",
        world.name.replace('_', "-")
    );
    assert_eq!(MYSQL.rows(&world, &rejected).await, ["one|t|3|id|value_invalid|z"]);
    let plan = world.worker(&["plan", manifest.to_str().unwrap()], &[]);
    assert!(plan.code == Some(0) && plan.output.contains("committed up to 2026-01-01T00:00:00Z"), "{}", plan.output);
}
