//! How runs fail: by which code, at which field, with which remedy; that nothing changes; that the next good run heals it.

use std::process::Command;
use std::time::{Duration, Instant};

use report_api::check::Severity;

use crate::harness::{Ended, WRONG_PASSWORD, World, setting};

const SOURCE: &str = "file: {path: orders.csv}";
/// A table and a lake, so that every failure shows that neither has changed.
const SPEC: &str = "
sources:
  - name: orders
    <source>
    columns: [{name: id, type: int64, required: true}, {name: city, type: string}, {name: amount, type: 'decimal(10,2)'}]
models:
  - {name: paid, sql: 'SELECT * FROM orders WHERE amount IS NULL OR amount <> 0'}
sinks:
  - {name: table, from: paid, postgres: {{db}, table: '{schema}.orders'}}
  - {name: lake, from: orders, lake: {url: '{lake}/orders'}}
";

const GOOD: &str = "id,city,amount\n1,Oslo,1.50\n2,Bern,2\n";
const BETTER: &str = "id,city,amount\n1,Oslo,1.50\n3,Wien,3\n";

fn spec() -> String {
    SPEC.replace("<source>", SOURCE)
}

/// What readers have: the table, the lake, and no table of a run.
async fn seen(world: &World) -> (Vec<String>, Vec<String>, Vec<String>) {
    (
        world.rows("SELECT * FROM {schema}.orders ORDER BY id").await,
        world.lake_rows("orders").await,
        world.tables().await,
    )
}

/// A good run, then `failing`, which must fail like this and change nothing, then a good run, which must succeed.
#[track_caller]
fn check(name: &str, exit: i32, code: &str, field: &str, remedy: &str, failing: impl FnOnce(&mut World) -> Ended) {
    tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(async {
            let mut world = World::new().await;
            let manifest = world.manifest("p", &spec());
            world.file("orders.csv", GOOD);
            world.run(&manifest).ok();
            let before = seen(&world).await;

            let ended = failing(&mut world);
            assert_eq!(ended.code, Some(exit), "{name}: {}", ended.output);
            let failure = ended.failed(exit, code);
            assert!(failure.starts_with(&format!("{field}: ")), "{name}: at {failure}");
            assert!(failure.contains(remedy), "{name}: no remedy {remedy:?} in {failure}");
            assert_eq!(seen(&world).await, before, "{name}: a reader sees a change");

            let manifest = world.manifest("p", &spec());
            world.file("orders.csv", BETTER);
            world.set("SECRET_DB_URL", &setting("TEST_POSTGRES_URL"));
            world.set("AWS_ACCESS_KEY_ID", &setting("TEST_S3_ACCESS_KEY"));
            world.set("AWS_SECRET_ACCESS_KEY", &setting("TEST_S3_SECRET_KEY"));
            world.run(&manifest).ok();
            let (rows, lake, tables) = seen(&world).await;
            assert_eq!(
                (&rows[..], &tables[..]),
                (&["1|Oslo|1.50".to_owned(), "3|Wien|3.00".to_owned()][..], &["orders".to_owned()][..]),
                "{name}"
            );
            assert_eq!(lake, rows, "{name}");
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_input_ends_the_run_with_its_line() {
    for (name, content, code, field, words) in [
        (
            "a column that turned into text",
            "id,city,amount\n1,Oslo,1.50\n2,Bern,n/a\n",
            "value_invalid",
            "spec.sources[0].columns[2]",
            "line 3",
        ),
        (
            "a required column without a value",
            "id,city,amount\n,Oslo,1.50\n",
            "value_invalid",
            "spec.sources[0].columns[0]",
            "line 2",
        ),
        ("a ragged row", "id,city,amount\n1,Oslo\n", "input_malformed", "spec.sources[0]", "line 2"),
        ("an unclosed quote", "id,city,amount\n1,\"Oslo,1\n2,Bern,2\n", "input_malformed", "spec.sources[0]", "quote"),
        (
            "a required column that is gone",
            "ident,city,amount\n1,Oslo,1\n",
            "column_missing",
            "spec.sources[0].columns[0]",
            "id",
        ),
        (
            "text in another encoding",
            "id,city,amount\n1,K\u{0}ln,1\n",
            "encoding_invalid",
            "spec.sources[0].columns[1]",
            "format.csv.encoding",
        ),
        ("an empty file", "", "input_malformed", "spec.sources[0]", "first line should name the columns"),
        (
            "too many digits",
            "id,city,amount\n1,Oslo,123456789.00\n",
            "value_invalid",
            "spec.sources[0].columns[2]",
            "line 2",
        ),
    ] {
        check(name, 12, code, field, words, |world| {
            let bytes = content.bytes().map(|byte| if byte == 0 { 0xf6 } else { byte }).collect::<Vec<_>>();
            world.file("orders.csv", bytes);
            let manifest = world.manifest("p", &spec());
            world.run(&manifest)
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_can_not_be_had_says_why() {
    for (name, source, exit, code, field, words) in [
        (
            "503 for ever",
            "http: {url: '{data}/status/503'}",
            20,
            "source_unreachable",
            "spec.sources[0].http.url",
            "5 attempts",
        ),
        (
            "a port where nobody listens",
            "http: {url: 'http://127.0.0.1:9/orders.csv'}",
            20,
            "source_unreachable",
            "spec.sources[0].http.url",
            "can't reach 127.0.0.1:9",
        ),
        (
            "404",
            "http: {url: '{data}/status/404'}",
            12,
            "input_missing",
            "spec.sources[0].http.url",
            "correct the address",
        ),
        (
            "401",
            "http: {url: '{data}/status/401'}",
            11,
            "login_denied",
            "spec.sources[0].http.headers",
            "check the headers",
        ),
        (
            "a file that is not there",
            "file: {path: nothing.csv}",
            12,
            "input_missing",
            "spec.sources[0].file.path",
            "nothing.csv",
        ),
        (
            "a body that always breaks off",
            "http: {url: '{data}/cut/fixtures/doses_by_date.csv'}",
            20,
            "source_unreachable",
            "spec.sources[0].http.url",
            "broke off",
        ),
        (
            "a body over the limit",
            "http: {url: '{data}/generated/orders.csv?rows=100000', maxSize: 1Mi}",
            12,
            "input_too_large",
            "spec.sources[0].http.maxSize",
            "raise maxSize",
        ),
    ] {
        check(name, exit, code, field, words, |world| {
            let source = format!("{source}\n    format: {{csv: {{}}}}");
            let manifest = world.manifest("p", &SPEC.replace("<source>", &source));
            world.run(&manifest)
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_comes_at_last_is_read_once() {
    let world = World::new().await;
    for prefix in ["flaky/2", "flaky/1/slow/0.1"] {
        let manifest = world.manifest(
            "p",
            &format!(
                "sources: [{{name: t, http: {{url: '{{data}}/{prefix}/generated/orders.csv?rows=1000&token={{schema}}'}}, format: {{csv: {{}}}}, columns: [{{name: id, type: int64}}, {{name: customer, type: string}}, {{name: amount, type: 'decimal(10,2)'}}, {{name: day, type: date}}]}}]\n\
                 sinks: [{{name: t, from: t, postgres: {{{{db}}, table: '{{schema}}.t'}}}}]"
            ),
        );
        assert_eq!(world.run(&manifest).ok().rows_read, 1000);
        assert_eq!(world.rows("SELECT count(*), sum(id) FROM {schema}.t").await, ["1000|500500"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_let_us_in_says_why() {
    let url = setting("TEST_POSTGRES_URL");
    let (_, place) = url.split_once('@').unwrap();
    let reader = setting("TEST_POSTGRES_READER_URL");
    let field = "spec.sinks[0].postgres.connection";
    for (name, value, exit, code, words) in [
        (
            "a wrong password",
            format!("postgres://app:{WRONG_PASSWORD}@{place}"),
            11,
            "login_denied",
            "correct the user and password in the Secret",
        ),
        (
            "an unknown host",
            format!("postgres://app:{WRONG_PASSWORD}@no-such-host.invalid:5432/x"),
            20,
            "ledger_unreachable",
            "no-such-host.invalid:5432",
        ),
        (
            "a port where nobody listens",
            format!("postgres://app:{WRONG_PASSWORD}@127.0.0.1:9/x"),
            20,
            "ledger_unreachable",
            "127.0.0.1:9",
        ),
        ("an unknown database", format!("{}-gone", url), 10, "secret_invalid", "create the database"),
        ("a role that may only read", reader, 11, "permission_denied", "grant the right"),
        ("no URL", format!("app/{WRONG_PASSWORD}"), 10, "secret_invalid", "write postgres://user:password@host"),
        ("no value", String::new(), 10, "secret_invalid", "SECRET_DB_URL"),
    ] {
        check(name, exit, code, field, words, |world| {
            world.set("SECRET_DB_URL", &value);
            let manifest = world.manifest("p", &spec());
            world.run(&manifest)
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_database_that_can_not_be_reached_fails_before_anything_is_read() {
    let url = setting("TEST_POSTGRES_URL");
    let (_, place) = url.split_once('@').unwrap();
    for (value, exit, code) in [
        (format!("postgres://app:{WRONG_PASSWORD}@127.0.0.1:9/x"), 20, "sink_unreachable"),
        (format!("postgres://app:{WRONG_PASSWORD}@{place}"), 11, "login_denied"),
        (setting("TEST_POSTGRES_READER_URL"), 11, "permission_denied"),
    ] {
        check(code, exit, code, "spec.sinks[2]", "", |world| {
            world.set("SECRET_OTHER_URL", &value);
            let other = "  - {name: other, from: orders, postgres: {connection: {secretRef: {name: other}}, table: '{schema}.other'}}\n";
            let manifest = world.manifest("p", &format!("{}{other}", spec()));
            world.run(&manifest)
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_denies_the_put_says_so() {
    for (name, sink, variables, exit, code, words) in [
        (
            "a user who may only read",
            "",
            [
                ("AWS_ACCESS_KEY_ID", "TEST_S3_DENIED_ACCESS_KEY"),
                ("AWS_SECRET_ACCESS_KEY", "TEST_S3_DENIED_SECRET_KEY"),
            ],
            11,
            "permission_denied",
            "s3:PutObject",
        ),
        (
            "a bucket that is not there",
            "no-such-bucket",
            [("AWS_ACCESS_KEY_ID", "TEST_S3_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "TEST_S3_SECRET_KEY")],
            10,
            "manifest_invalid",
            "create it, or correct the name",
        ),
        (
            "an unknown key",
            "",
            [("AWS_ACCESS_KEY_ID", "TEST_S3_BUCKET"), ("AWS_SECRET_ACCESS_KEY", "TEST_S3_SECRET_KEY")],
            11,
            "login_denied",
            "AWS_ACCESS_KEY_ID",
        ),
        (
            "a wrong secret",
            "",
            [("AWS_ACCESS_KEY_ID", "TEST_S3_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "TEST_S3_DENIED_SECRET_KEY")],
            11,
            "login_denied",
            "AWS_SECRET_ACCESS_KEY",
        ),
    ] {
        check(name, exit, code, "spec.sinks[1].lake.url", words, |world| {
            for (variable, from) in variables {
                world.set(variable, &setting(from));
            }
            let spec = if sink.is_empty() { spec() } else { spec().replace("{lake}", &format!("s3://{sink}")) };
            let manifest = world.manifest("p", &spec);
            world.run(&manifest)
        });
    }
}

/// What the Parquet writer meets, as opposed to the fence: the rights end while a run is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_whose_folder_can_not_be_written_any_more_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    world.file("t.csv", "id\n1\n");
    let manifest = world.manifest("p", "sources: [{name: t, file: {path: t.csv}, columns: [{name: id, type: int64}]}]\nsinks: [{name: t, from: t, lake: {url: 'file://{folder}/lake'}}]");
    world.run(&manifest).ok();
    // A file where the run's folder should be: permissions do not stop root.
    let lake = world.folder.path().join("lake");
    let epoch = serde_json::from_slice::<serde_json::Value>(&std::fs::read(lake.join("_report/latest.json")).unwrap())
        .unwrap()["epoch"]
        .as_u64()
        .unwrap();
    let run = std::fs::read_dir(&lake)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with('r'))
        .unwrap();
    let next = run.replacen(&format!("{epoch:08}"), &format!("{:08}", epoch + 1), 1);
    std::fs::write(lake.join(&next), "in the way").unwrap();
    std::fs::set_permissions(lake.join(&next), std::fs::Permissions::from_mode(0o400)).unwrap();
    let message = world.run(&manifest).failed(20, "sink_unreachable");
    assert!(message.starts_with("spec.sinks[0].lake.url: file://"), "{message}");
    world.run(&manifest).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sql_is_refused_with_the_nearest_name() {
    for (name, model, exit, code, field, words) in [
        ("an unknown column", "SELECT cty FROM orders", 10, "sql_invalid", "spec.models[0].sql", "city"),
        ("an unknown table", "SELECT * FROM oders", 10, "manifest_invalid", "spec.models[0].sql", "orders"),
        ("an unknown function", "SELECT lenght(city) FROM orders", 10, "sql_invalid", "spec.models[0].sql", "length"),
        ("broken SQL", "SELEC * FROM orders", 10, "manifest_invalid", "spec.models[0].sql", "SELEC"),
        (
            "types that do not go together",
            "SELECT city + DATE '2026-01-01' AS x FROM orders",
            10,
            "sql_invalid",
            "spec.models[0].sql",
            "",
        ),
        (
            "a value that does not fit",
            "SELECT id, CAST(CAST(city AS int) AS text) AS city, amount FROM orders",
            12,
            "value_invalid",
            "spec.models[0].sql",
            "try_cast",
        ),
        (
            "a division by zero",
            "SELECT 1 / (id - 1) AS id, city, amount FROM orders",
            12,
            "value_invalid",
            "spec.models[0].sql",
            "",
        ),
    ] {
        check(name, exit, code, field, words, |world| {
            let manifest = world.manifest(
                "p",
                &spec().replace("SELECT * FROM orders WHERE amount IS NULL OR amount <> 0", &model.replace('\'', "''")),
            );
            let validated = world.worker(&["validate", manifest.to_str().unwrap()], &[]);
            assert_eq!(validated.code, Some(if exit == 10 { 10 } else { 0 }), "validate, {name}: {}", validated.output);
            world.run(&manifest)
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_check_publishes_nothing_or_only_warns() {
    for (name, check_, words) in [
        ("notNull", "from: orders, notNull: [city]", "1 of 3 rows of orders: city is NULL"),
        ("notNull of a model", "from: paid, notNull: [city, amount]", "1 of 3 rows of paid: city is NULL"),
        ("unique", "from: orders, unique: [id]", "2 of 3 rows of orders: 1 value occurs more than once in id"),
        ("rows", "from: orders, rows: {min: 4}", "orders has 3 rows, fewer than 4"),
        ("rows of a model", "from: paid, rows: {max: 2}", "paid has 3 rows, more than 2"),
        ("sql", "sql: 'SELECT id FROM paid WHERE amount > 100'", "2 rows should not be there"),
    ] {
        const BAD: &str = "id,city,amount\n1,Oslo,1.50\n2,,200\n2,Bern,300\n";
        check(name, 13, "check_failed", "spec.checks[0]", words, |world| {
            world.file("orders.csv", BAD);
            let manifest = world.manifest("p", &format!("{}checks: [{{name: wanted, {check_}}}]\n", spec()));
            world.run(&manifest)
        });
        let world = World::new().await;
        world.file("orders.csv", BAD);
        let manifest =
            world.manifest("p", &format!("{}checks: [{{name: wanted, {check_}, severity: warn}}]\n", spec()));
        let result = world.run(&manifest).ok();
        assert_eq!(result.checks.len(), 1, "{name}");
        let found = &result.checks[0];
        assert!(
            !found.passed && found.severity == Severity::Warn && found.message.as_deref() == Some(words),
            "{name}: {found:?}"
        );
        assert_eq!(world.rows("SELECT count(*) FROM {schema}.orders").await, ["3"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_past_its_timeout_ends_itself() {
    check("timeout", 14, "timeout_exceeded", "spec.timeout", "raise the timeout", |world| {
        let source = "http: {url: '{data}/slow/30/generated/orders.csv'}\n    format: {csv: {}}";
        let manifest = world.manifest("p", &format!("timeout: 1s\n{}", SPEC.replace("<source>", source).trim_start()));
        let started = Instant::now();
        let ended = world.run(&manifest);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        ended
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_stop_says_so_and_lets_go_of_the_lock() {
    for signal in ["TERM", "INT"] {
        check(signal, 143, "stopped", "", "asked to stop", |world| {
            let source = "http: {url: '{data}/slow/30/generated/orders.csv'}\n    format: {csv: {}}";
            let manifest = world.manifest("p", &SPEC.replace("<source>", source));
            let command = world.command(&["run", manifest.to_str().unwrap()], &[]);
            world.finish_after(command, |id| {
                std::thread::sleep(Duration::from_secs(2));
                assert!(
                    Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).status().unwrap().success()
                );
            })
        });
    }
}
