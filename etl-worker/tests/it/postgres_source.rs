//! A table or query of PostgreSQL as a source: every value as it is, and every failure by name.

use std::time::Duration;

use report_api::result::State;

use crate::harness::{World, setting};

/// A pipeline that reads `source` and appends to the table `out`.
fn spec(source: &str) -> String {
    format!(
        "sources:\n  - {{name: given, {source}}}\nsinks:\n  - {{name: out, from: given, postgres: {{{{db}}, table: '{{schema}}.out'}}, mode: {{append: {{}}}}}}\n"
    )
}

const TABLE: &str = "postgres: {{db}, table: '{schema}.given'}";

#[tokio::test(flavor = "multi_thread")]
async fn every_value_arrives_as_it_was() {
    let world = World::new().await;
    world
        .sql(
            "CREATE TYPE {schema}.mood AS ENUM ('sad', 'ok');
             CREATE DOMAIN {schema}.price AS numeric(8,3);
             CREATE TABLE {schema}.given (n int4 PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8,
               d numeric(38,10), e numeric(5,-2), p {schema}.price, t text, v varchar(9), c char(4), na name, day date,
               ts timestamp, tz timestamptz, tm time, u uuid, j json, jb jsonb, m {schema}.mood);
             INSERT INTO {schema}.given VALUES
              (1, true, 32767, 9223372036854775807, 'NaN', 'Infinity', 9999999999999999999999999999.9999999999, 9999900, 12345.678,
               E'a\\tb\\nü€😀 שלום', 'x', 'ab', 'n', '9999-12-31', '9999-12-31 23:59:59.999999', '2026-03-29 01:30:00.000001+01',
               '23:59:59.999999', '6ba7b810-9dad-11d1-80b4-00c04fd430c8', '{\"a\": 1.50}', '{\"b\":  [1]}', 'ok'),
              (2, false, -32768, -9223372036854775808, '-Infinity', 5e-324, -9999999999999999999999999999.9999999999, -100, -0.001, '', '',
               '', '', '0001-01-01', '0001-01-01', '0001-01-01 00:00:00+00', '00:00', '00000000-0000-0000-0000-000000000000', 'null', 'null', 'sad'),
              (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
              (4, NULL, 0, 0, '-0', 1.7976931348623157e308, 0.0000000001, 0, 10000, NULL, NULL, NULL, NULL, '1999-12-31', '1999-12-31 23:59:59.999999', NULL, NULL, NULL, NULL, NULL, NULL)",
        )
        .await;
    let manifest = world.manifest("p", &spec(TABLE));
    let result = world.run(&manifest).ok();
    assert_eq!((result.rows_read, result.rows_written), (4, 4));
    // As PostgreSQL itself writes both as text, column by column.
    for column in "n b i2 i8 f4 f8 d e p t v na day ts tz tm u j jb m".split(' ') {
        let differ = format!(
            "SELECT g.n, g.{column}::text, o.{column}::text FROM {{schema}}.given AS g JOIN {{schema}}.out AS o USING (n)
             WHERE CASE WHEN '{column}' IN ('d', 'e', 'p') THEN g.{column}::text::numeric::text IS DISTINCT FROM trim_scale(o.{column}::text::numeric)::text
                        AND g.{column}::text::numeric IS DISTINCT FROM o.{column}::text::numeric
                   ELSE g.{column}::text IS DISTINCT FROM o.{column}::text END"
        );
        assert_eq!(world.rows(&differ).await, Vec::<String>::new(), "{column}");
    }
    // char(n) keeps its spaces, which a cast to text would cut.
    assert_eq!(
        world.rows("SELECT '<' || c || '>' FROM {schema}.out WHERE n < 3 ORDER BY n").await,
        ["<ab  >", "<    >"]
    );
    assert_eq!(
        world.rows("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '{schema}.out'::regclass AND attname IN ('d', 'e', 'p', 'i2', 'f4') ORDER BY attname").await,
        ["numeric(38,10)", "numeric(7,0)", "real", "smallint", "numeric(8,3)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_widens_exactly_or_is_refused() {
    let world = World::new().await;
    world
        .sql(
            "CREATE TABLE {schema}.given (\"Small ID\" int2, big int8, free numeric, span interval, list int[], raw bytea, day date);
             INSERT INTO {schema}.given VALUES (1, 9223372036854775807, 1.25, '1 day 02:00', '{1,2}', '\\x00ff', '2026-01-01')",
        )
        .await;
    let columns = "columns: [{name: small_id, type: int64, required: true}, {name: large, from: big, type: 'decimal(19,0)'}, {name: free, type: 'decimal(5,2)'},
      {name: span, type: string}, {name: list, type: string}, {name: raw, type: string}, {name: gone, type: int32}]";
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, {columns}")));
    world.run(&manifest).ok();
    assert_eq!(
        world.rows("SELECT * FROM {schema}.out").await,
        ["1|9223372036854775807|1.25|1 day 02:00:00|{1,2}|\\x00ff|∅"]
    );
    for (columns, code, want) in [
        ("", "type_unsupported", "column free: the type numeric has no counterpart here; say how many digits it has"),
        (
            "columns: [{name: big, type: int32}]",
            "type_unsupported",
            "column big: it is bigint in the database, which does not fit into int32 without loss; declare it as int64",
        ),
        ("columns: [{name: big, type: 'decimal(18,0)'}]", "type_unsupported", "does not fit into decimal(18,0)"),
        ("columns: [{name: day, type: timestamp}]", "type_unsupported", "does not fit into timestamp"),
        (
            "columns: [{name: free, type: 'decimal(5,1)'}]",
            "value_invalid",
            "row 1, column free: a number has more than 1 digits after the point",
        ),
        ("columns: [{name: dya, type: date, required: true}]", "column_missing", "did you mean \"day\"?"),
    ] {
        let source = if columns.is_empty() { TABLE.to_owned() } else { format!("{TABLE}, {columns}") };
        let manifest = world.manifest("q", &spec(&source).replace(".out", ".other"));
        let message = world.run(&manifest).failed(12, code);
        assert!(message.contains(want), "{columns}: {message}");
    }
    for (value, want) in [
        ("NaN", "NaN is no decimal"),
        ("Infinity", "infinity is no value"),
        ("1000", "more than 3 digits before the point"),
    ] {
        world.sql(&format!("UPDATE {{schema}}.given SET free = '{value}'")).await;
        let manifest = world.manifest(
            "q",
            &spec(&format!("{TABLE}, columns: [{{name: free, type: 'decimal(5,2)'}}]")).replace(".out", ".other"),
        );
        let message = world.run(&manifest).failed(12, "value_invalid");
        assert!(message.contains(want), "{message}");
    }
    world.sql("UPDATE {schema}.given SET day = 'infinity'").await;
    let manifest =
        world.manifest("q", &spec(&format!("{TABLE}, columns: [{{name: day, type: date}}]")).replace(".out", ".other"));
    assert!(world.run(&manifest).failed(12, "value_invalid").contains("column day: infinity is no value"));
    world.sql("UPDATE {schema}.given SET day = '0044-03-15 BC'").await;
    assert!(world.run(&manifest).failed(12, "value_invalid").contains("outside of the years 1 to 9999"));
    assert_eq!(world.tables().await, ["given", "out"], "runs that fail leave nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_one_select_that_ends_where_it_ends() {
    let world = World::new().await;
    world.sql("CREATE TABLE {schema}.given (id int); INSERT INTO {schema}.given SELECT generate_series(1, 5)").await;
    let query = |text: &str| spec(&format!("postgres: {{{{db}}, query: \"{text}\"}}"));
    let good = world.manifest(
        "p",
        &query("WITH x AS (SELECT id, id * 2 AS twice FROM {schema}.given) SELECT * FROM x WHERE id > 3 -- the end ;"),
    );
    world.run(&good).ok();
    assert_eq!(world.rows("SELECT * FROM {schema}.out ORDER BY id").await, ["4|8", "5|10"]);
    for (text, exit, code, want) in [
        ("SELECT 1 AS a) AS x) TO PROGRAM 'true' --", 10, "sql_invalid", "syntax error"),
        ("SELECT 1 AS a; SELECT 2 AS b", 10, "sql_invalid", "multiple commands"),
        ("SELECT 1, 2 AS b", 10, "sql_invalid", "column 1 of the query has no name"),
        ("SELECT 1 AS a, 2 AS a", 10, "sql_invalid", "two columns of the query are called a"),
        ("SELECT 1 / (id - 1) AS a FROM {schema}.given", 12, "value_invalid", "division by zero"),
        (
            "SELECT ('x' || id)::int AS a FROM {schema}.given",
            12,
            "value_invalid",
            "invalid input syntax for type integer; correct",
        ),
        (
            "WITH x AS (DELETE FROM {schema}.given RETURNING id) SELECT id FROM x",
            10,
            "sql_invalid",
            "a source only reads",
        ),
        ("SELECT id FROM {schema}.gone", 12, "input_missing", "does not exist"),
        ("SELECT di FROM {schema}.given", 12, "column_missing", "does not exist"),
    ] {
        let manifest = world.manifest("q", &query(text).replace(".out", ".other"));
        let message = world.run(&manifest).failed(exit, code);
        assert!(message.contains(want) && message.starts_with("spec.sources[0].postgres.query: "), "{text}: {message}");
    }
    assert_eq!(world.rows("SELECT count(*) FROM {schema}.given").await, ["5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_says_why() {
    let mut world = World::new().await;
    let manifest =
        world.manifest("p", &spec("postgres: {connection: {secretRef: {name: source}}, table: '{schema}.given'}"));
    let url = setting("TEST_POSTGRES_URL");
    let reader = setting("TEST_POSTGRES_READER_URL");
    let wrong = url.replace("testpw", crate::harness::WRONG_PASSWORD);
    world.set("SECRET_SOURCE_URL", &wrong);
    world.run(&manifest).failed(11, "login_denied");
    world.set("SECRET_SOURCE_URL", &url);
    let message = world.run(&manifest).failed(12, "input_missing");
    assert!(message.starts_with("spec.sources[0].postgres.table: "), "{message}");
    let role = format!("{}_reader", world.name);
    world.sql(&format!("CREATE TABLE {{schema}}.given (id int); CREATE ROLE {role} LOGIN PASSWORD 'readerpw'; GRANT USAGE ON SCHEMA {{schema}} TO {role}")).await;
    world.set("SECRET_SOURCE_URL", &reader.replace("://reader:", &format!("://{role}:")));
    world.run(&manifest).failed(11, "permission_denied");
    world.sql(&format!("GRANT SELECT ON {{schema}}.given TO {role}; INSERT INTO {{schema}}.given VALUES (1)")).await;
    world.run(&manifest).ok();
    // A column of the contract that was dropped, and one whose type changed.
    let contract =
        world.manifest("q", &spec(&format!("{TABLE}, columns: [{{name: id, type: int32, required: true}}]")));
    world.sql("ALTER TABLE {schema}.given ALTER id TYPE text").await;
    assert!(world.run(&contract).failed(12, "type_unsupported").contains("it is text in the database"));
    world.sql("ALTER TABLE {schema}.given DROP id, ADD other int").await;
    world.run(&contract).failed(12, "column_missing");
    world.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_fails_the_run_as_transient_and_leaves_nothing() {
    let mut world = World::new().await;
    world.set("SECRET_SOURCE_URL", &format!("{}?options=-c%20statement_timeout%3D200ms", setting("TEST_POSTGRES_URL")));
    let source = "postgres: {connection: {secretRef: {name: source}}, query: 'SELECT n, pg_sleep(0.001)::text AS s FROM generate_series(1, {rows}) AS n'}";
    // The server's own limit does not end a read.
    let short = world.manifest("short", &spec(&source.replace("{rows}", "500")));
    assert_eq!(world.run(&short).ok().rows_read, 500);
    let long = world.manifest("long", &spec(&source.replace("{rows}", "100000")).replace(".out", ".other"));
    let (name, url) = (world.name.clone(), setting("TEST_POSTGRES_URL"));
    let killer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use sqlx::Connection;
            let mut connection = sqlx::postgres::PgConnection::connect(&url).await.unwrap();
            for _ in 0..200 {
                let killed: i64 = sqlx::query_scalar(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT \"n\"%100000%' AND state = 'active' AND pid <> pg_backend_pid() AND now() - query_start > interval '1 s'",
                )
                .fetch_one(&mut connection)
                .await
                .unwrap();
                if killed > 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("no reader of {name} to end");
        });
    });
    world.run(&long).failed(20, "source_unreachable");
    killer.join().unwrap();
    assert_eq!(world.tables().await, ["out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_of_one_connection_see_one_moment() {
    let world = World::new().await;
    world.sql("CREATE TABLE {schema}.a (n int); CREATE TABLE {schema}.b (n int); INSERT INTO {schema}.a VALUES (0); INSERT INTO {schema}.b VALUES (0)").await;
    let manifest = world.manifest(
        "p",
        "
sources:
  - {name: a, postgres: {{db}, table: '{schema}.a'}}
  - {name: wait, postgres: {{db}, query: \"SELECT n FROM {schema}.a\"}}
  - {name: b, postgres: {{db}, table: '{schema}.b'}}
models:
  - {name: both, sql: 'SELECT (SELECT max(n) FROM a) AS a, (SELECT max(n) FROM b) AS b, (SELECT max(n) FROM wait) AS w'}
sinks:
  - {name: out, from: both, lake: {url: '{lake}/both'}}
",
    );
    // Both tables change together, all the time.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut writer = world.connection().await;
    let sql = "BEGIN; UPDATE {schema}.a SET n = n + 1; UPDATE {schema}.b SET n = n + 1; COMMIT"
        .replace("{schema}", &world.name);
    let writing = tokio::spawn(async move {
        tokio::select! {
            _ = stopped => {}
            () = async { loop { sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&mut writer).await.unwrap(); } } => {}
        }
    });
    for run in 0..5 {
        world.run(&manifest).ok();
        let rows = world.lake_rows("both").await;
        let values: Vec<&str> = rows[0].split('|').collect();
        assert!(values[0] == values[1] && values[1] == values[2], "run {run}: {rows:?}");
    }
    stop.send(()).unwrap();
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_million_rows_pass_in_bounded_memory() {
    const ROWS: u64 = 5_000_000;
    let world = World::new().await;
    let query = format!(
        "SELECT n AS id, n % 1000 AS customer, ((n % 100000)::numeric / 4)::numeric(12,2) AS amount FROM generate_series(1, {ROWS}) AS n"
    );
    let columns =
        "columns: [{name: id, type: int64}, {name: customer, type: int32}, {name: amount, type: 'decimal(12,2)'}]";
    let manifest = world.manifest("p", &spec(&format!("postgres: {{{{db}}, query: \"{query}\"}}, {columns}")));
    let result = world.run(&manifest).ok();
    assert_eq!((result.state, result.rows_read, result.rows_written), (State::Succeeded, ROWS, ROWS));
    let peak = result.peak_memory_bytes.unwrap();
    println!("{} bytes with at most {} MiB", result.sources[0].bytes, peak >> 20);
    assert!(peak < 256 << 20, "{peak}");
    assert_eq!(
        world.rows("SELECT count(*), sum(id), sum(amount) FROM {schema}.out").await,
        world.rows(&format!("SELECT count(*), sum(id), sum(amount) FROM ({query}) AS q")).await
    );
    world.sql("DROP TABLE {schema}.out").await;
}
