//! Tables that exist, with types of their own: rows come in exactly, or not at all.

use super::{Sink, manifest};
use crate::databases::Database;
use crate::harness::World;

const GIVEN: &str = "{name: given, file: {path: given.csv}, columns: [{name: n, type: int32}, {name: u, type: uuid}, {name: j, type: json}, {name: s, type: string}, {name: b, type: binary}]}";
const ROWS: &str = "n,u,j,s,b\n1,6BA7B810-9dad-11d1-80b4-00c04fd430c8,\"{\"\"a\"\": [1.50]}\",ok,AP8=\n2,,,,\n";
const READ: &str = "SELECT * FROM {schema}.out ORDER BY n";

/// Runs a pipeline that appends to `out`, twice.
fn append(source: &str, sink: Sink) -> String {
    manifest(source, sink).replace("from: given, ", "from: given, mode: {append: {}}, ")
}

#[tokio::test(flavor = "multi_thread")]
async fn uuid_and_json_fill_columns_that_hold_them() {
    for (database, sink, columns, want) in [
        (
            Database::Postgres,
            Sink::Postgres,
            "u uuid, j jsonb, s {schema}.mood, b bytea",
            "1|6ba7b810-9dad-11d1-80b4-00c04fd430c8|{\"a\": [1.50]}|ok|\\x00ff",
        ),
        (
            Database::Postgres,
            Sink::Postgres,
            "u varchar(36), j json, s varchar(2), b bytea",
            "1|6ba7b810-9dad-11d1-80b4-00c04fd430c8|{\"a\": [1.50]}|ok|\\x00ff",
        ),
        (
            Database::Mysql,
            Sink::Mysql,
            "u uuid, j json, s varchar(2), b varbinary(2)",
            "1|6ba7b810-9dad-11d1-80b4-00c04fd430c8|{\"a\": [1.50]}|ok|\u{0}ÿ",
        ),
        (
            Database::Sqlite,
            Sink::Sqlite,
            "u UUID, j TEXT, s VARCHAR(2), b BLOB",
            "1|6ba7b810-9dad-11d1-80b4-00c04fd430c8|{\"a\": [1.50]}|ok|00FF",
        ),
    ] {
        for mode in ["append", "replace"] {
            let world = World::new().await;
            if database == Database::Postgres {
                world.sql("CREATE TYPE {schema}.mood AS ENUM ('sad', 'ok')").await;
            }
            database.sql(&world, &format!("CREATE TABLE {{schema}}.out (n int, {columns})")).await;
            world.file("given.csv", ROWS);
            let spec = if mode == "append" { append(GIVEN, sink) } else { manifest(GIVEN, sink) };
            world.run(&world.manifest("p", &spec)).ok();
            let read = match database {
                // Bytes that are no text.
                Database::Mysql => READ.replace('*', "n, u, j, s, convert(b using latin1)"),
                Database::Sqlite => READ.replace('*', "n, u, j, s, hex(b)"),
                Database::Postgres => READ.into(),
            };
            let rows = database.rows(&world, &read).await;
            assert_eq!(rows[0], want, "{database:?} {columns} {mode}");
            assert!(rows[1].starts_with("2|∅|∅|∅|"), "{rows:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_column_would_change_is_refused() {
    for (database, sink, column, type_, value, code, want) in [
        (
            Database::Postgres,
            Sink::Postgres,
            "{schema}.mood",
            "string",
            "glad",
            "value_invalid",
            "invalid input value for enum",
        ),
        (Database::Postgres, Sink::Postgres, "varchar(2)", "string", "\"ab  \"", "value_invalid", "value too long"),
        (Database::Postgres, Sink::Postgres, "char(2)", "string", "a", "schema_mismatch", "it is character(2)"),
        (
            Database::Postgres,
            Sink::Postgres,
            "uuid",
            "string",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "schema_mismatch",
            "it is uuid",
        ),
        (
            Database::Postgres,
            Sink::Postgres,
            "timestamp(3)",
            "timestamp",
            "2024-01-01T00:00:00.000001",
            "schema_mismatch",
            "it is timestamp(3)",
        ),
        (Database::Postgres, Sink::Postgres, "real", "float64", "0.1", "schema_mismatch", "it is real"),
        (
            Database::Postgres,
            Sink::Postgres,
            "double precision",
            "int64",
            "9007199254740993",
            "schema_mismatch",
            "it is double precision",
        ),
        (
            Database::Postgres,
            Sink::Postgres,
            "numeric(10,1)",
            "decimal(10,2)",
            "0.01",
            "schema_mismatch",
            "it is numeric(10,1)",
        ),
        (Database::Mysql, Sink::Mysql, "enum('ok')", "string", "OK", "schema_mismatch", "it is enum"),
        (Database::Mysql, Sink::Mysql, "varchar(2)", "string", "abc", "value_invalid", "it"),
        (Database::Mysql, Sink::Mysql, "varchar(2)", "string", "\"ab  \"", "value_invalid", "it"),
        (Database::Mysql, Sink::Mysql, "varchar(9) character set latin1", "string", "😀", "value_invalid", "it"),
        (Database::Mysql, Sink::Mysql, "char(2)", "string", "a", "schema_mismatch", "it is char(2)"),
        (Database::Mysql, Sink::Mysql, "binary(4)", "binary", "AP8=", "schema_mismatch", "it is binary(4)"),
        (Database::Mysql, Sink::Mysql, "varbinary(1)", "binary", "AP8=", "value_invalid", "it"),
        (Database::Mysql, Sink::Mysql, "float", "float32", "16777216", "schema_mismatch", "it is float"),
        (
            Database::Mysql,
            Sink::Mysql,
            "datetime(3)",
            "timestamp",
            "2024-01-01T00:00:00.000001",
            "schema_mismatch",
            "it is datetime(3)",
        ),
        (
            Database::Mysql,
            Sink::Mysql,
            "timestamp(6) null",
            "timestamptz",
            "1960-01-01T00:00:00Z",
            "value_invalid",
            "it",
        ),
        (Database::Mysql, Sink::Mysql, "longtext check (json_valid(it))", "string", "{", "value_invalid", "json_valid"),
        (Database::Sqlite, Sink::Sqlite, "INTEGER", "string", "007", "schema_mismatch", "it is INTEGER"),
        (Database::Sqlite, Sink::Sqlite, "STRING", "string", "1e3", "schema_mismatch", "it is STRING"),
        (Database::Sqlite, Sink::Sqlite, "JSON", "json", "1.0", "schema_mismatch", "it is JSON"),
        (Database::Sqlite, Sink::Sqlite, "REAL", "int64", "9007199254740993", "schema_mismatch", "it is REAL"),
        (Database::Sqlite, Sink::Sqlite, "TEXT", "float64", "0.30000000000000004", "schema_mismatch", "it is TEXT"),
    ] {
        let world = World::new().await;
        if database == Database::Postgres {
            world.sql("CREATE TYPE {schema}.mood AS ENUM ('sad', 'ok')").await;
        }
        database.sql(&world, &format!("CREATE TABLE {{schema}}.out (it {column})")).await;
        world.file("given.csv", format!("it\n{value}\n"));
        let given = format!("{{name: given, file: {{path: given.csv}}, columns: [{{name: it, type: '{type_}'}}]}}");
        let message = world.run(&world.manifest("p", &append(&given, sink))).failed(12, code);
        assert!(message.contains(want), "{database:?} {column} {type_}: {message}");
        assert_eq!(database.rows(&world, "SELECT * FROM {schema}.out").await, Vec::<String>::new(), "{column}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_cuts_no_time_and_keeps_what_a_text_is() {
    let world = World::new().await;
    world.file("given.csv", ROWS);
    let spec = |sql: &str| {
        format!(
            "sources:\n  - {GIVEN}\nmodels:\n  - {{name: made, sql: \"{sql}\"}}\nsinks:\n  - {{name: out, from: made, {}}}\n",
            Sink::Postgres.yaml()
        )
    };
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '{schema}.out'::regclass AND attnum > 0 AND NOT attisdropped";
    world
        .run(&world.manifest(
            "p",
            &spec(
                "SELECT n, u AS id, j, concat(u, '') AS t, b, sha256(b) AS digest, now() AS at, CAST('2024-01-01T00:00:00.123456' AS timestamp) AS whole FROM given WHERE n < 9 ORDER BY n",
            ),
        ))
        .ok();
    assert_eq!(
        world.rows(types).await,
        ["integer, uuid, jsonb, text, bytea, bytea, timestamp without time zone, timestamp without time zone"]
    );
    assert_eq!(
        world.rows("SELECT digest = sha256(b), whole, at > now() AT TIME ZONE 'UTC' - interval '1 hour' FROM {schema}.out WHERE n = 1").await,
        ["true|2024-01-01T00:00:00.123456|true"]
    );
    world.sql("DROP TABLE {schema}.out").await;
    let message = world
        .run(
            &world.manifest("q", &spec("SELECT CAST('2024-01-01T00:00:00.123456789' AS timestamp) AS fine FROM given")),
        )
        .failed(12, "value_invalid");
    assert!(message.contains("fine") && message.contains("date_trunc"), "{message}");
    let cut = "date_trunc('microsecond', CAST('2024-01-01T00:00:00.123456789' AS timestamp))";
    world.run(&world.manifest("p", &spec(&format!("SELECT {cut} AS cut FROM given WHERE n = 1")))).ok();
    assert_eq!(world.rows("SELECT cut FROM {schema}.out").await, ["2024-01-01T00:00:00.123456"]);
    // Years that SQLite has no text for come from SQL only.
    let spec = spec("SELECT DATE '9999-12-31' + INTERVAL '1 day' AS late FROM given")
        .replace(&Sink::Postgres.yaml(), &Sink::Sqlite.yaml());
    let message = world.run(&world.manifest("s", &spec)).failed(12, "type_unsupported");
    assert!(message.contains("late") && message.contains("the years 1 to 9999"), "{message}");
}
