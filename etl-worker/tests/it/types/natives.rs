//! Types that a source has and a manifest has not: what a column of each becomes when nobody declares it.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, Date32Array, Date64Array, Decimal32Array, Decimal64Array, Decimal256Array,
    DictionaryArray, DurationSecondArray, FixedSizeBinaryArray, Float16Array, Int8Array, IntervalYearMonthArray,
    LargeBinaryArray, LargeStringArray, ListArray, NullArray, StringViewArray, StructArray, Time32SecondArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, TimeUnit, i256};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::harness::{Ended, World, parquet_rows};

/// The type of the lake's only column, as a manifest writes it.
async fn column_type(world: &World, lake: &str) -> String {
    let builder = ParquetRecordBatchReaderBuilder::try_new(lake_file(world, lake).await).unwrap();
    let field = builder.schema().field(0);
    if let Some(mark) = field.metadata().get("report:type") {
        return mark.clone();
    }
    match field.data_type() {
        DataType::Utf8 => "string".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Date32 => "date".into(),
        DataType::Binary => "binary".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        other => other.to_string().to_lowercase(),
    }
}

async fn lake_file(world: &World, lake: &str) -> bytes::Bytes {
    let manifest = world.lake_manifest(lake).await;
    let path = manifest["files"][0]["path"].as_str().unwrap();
    world.get(&format!("{lake}/{path}")).await.into()
}

fn manifest(given: &str, lake: &str) -> String {
    format!(
        "sources:\n  - {{name: given, {given}}}\nsinks:\n  - {{name: out, from: given, lake: {{url: '{{lake}}/{lake}'}}}}\n"
    )
}

/// Types of PostgreSQL, a value of each, and the column type or the error's code.
const POSTGRES: &[(&str, &str, Result<&str, &str>)] = &[
    ("boolean", "true", Ok("boolean")),
    ("smallint", "-32768", Ok("int16")),
    ("integer", "7", Ok("int32")),
    ("bigint", "9223372036854775807", Ok("int64")),
    ("real", "0.1", Ok("float32")),
    ("double precision", "-0.0", Ok("float64")),
    ("numeric(10,2)", "99999999.99", Ok("decimal(10,2)")),
    ("numeric(5,-2)", "1234500", Ok("decimal(7,0)")),
    ("numeric(2,5)", "0.00012", Ok("decimal(5,5)")),
    ("numeric(10,2)", "NaN", Err("value_invalid")),
    ("numeric", "1.5", Err("type_unsupported")),
    ("numeric(60,2)", "1.5", Err("type_unsupported")),
    ("text", "x", Ok("string")),
    ("varchar(5)", "x  ", Ok("string")),
    ("char(4)", "ab", Ok("string")),
    ("domain over text", "Ab", Ok("string")),
    ("enum", "ok", Ok("string")),
    ("domain over numeric(8,3)", "1.5", Ok("decimal(8,3)")),
    ("name", "x", Ok("string")),
    ("xml", "<a/>", Ok("string")),
    ("time", "23:59:59.999999", Ok("string")),
    ("timetz", "23:59:59.999999+02", Ok("string")),
    ("date", "0001-01-01", Ok("date")),
    ("date", "infinity", Err("value_invalid")),
    ("date", "0044-03-15 BC", Err("value_invalid")),
    ("timestamp", "9999-12-31 23:59:59.999999", Ok("timestamp")),
    ("timestamp", "-infinity", Err("value_invalid")),
    ("timestamp(0)", "2024-02-29 12:30:01", Ok("timestamp")),
    ("timestamptz", "2026-03-29 02:30:00.123456+02", Ok("timestamptz")),
    ("timestamptz", "infinity", Err("value_invalid")),
    ("bytea", "\\x00ff", Ok("binary")),
    ("uuid", "6BA7B810-9dad-11d1-80b4-00c04fd430c8", Ok("uuid")),
    ("json", "{\"a\": 1.50}", Ok("json")),
    ("jsonb", "{\"a\": 1.50}", Ok("json")),
    ("interval", "1 year 2 days 03:04:05.678", Err("type_unsupported")),
    ("integer[]", "{1,NULL,3}", Err("type_unsupported")),
    ("text[]", "{a,\"b c\"}", Err("type_unsupported")),
    ("int4range", "[1,5)", Err("type_unsupported")),
    ("tstzrange", "[2024-01-01,)", Err("type_unsupported")),
    ("inet", "10.0.0.1/8", Err("type_unsupported")),
    ("macaddr", "08:00:2b:01:02:03", Err("type_unsupported")),
    ("bit(3)", "101", Err("type_unsupported")),
    ("money", "12.34", Err("type_unsupported")),
    ("point", "(1,2)", Err("type_unsupported")),
    ("tsvector", "a:1 b:2", Err("type_unsupported")),
    ("oid", "7", Err("type_unsupported")),
];

/// The name of a type that the test makes.
fn made(type_: &str) -> &str {
    match type_ {
        "domain over text" => "{schema}.word",
        "enum" => "{schema}.mood",
        "domain over numeric(8,3)" => "{schema}.price",
        other => other,
    }
}

/// One column of each type, undeclared and as a string. Gives the table.
pub(super) async fn postgres() -> String {
    let world = World::new().await;
    world
        .sql(
            "CREATE TYPE {schema}.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN {schema}.price AS numeric(8,3);
             CREATE DOMAIN {schema}.word AS text CHECK (VALUE = trim(VALUE))",
        )
        .await;
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut refused: Vec<(String, String)> = Vec::new();
    for (at, (type_, value, want)) in POSTGRES.iter().enumerate() {
        let (table, value) = (format!("g{at}"), value.replace('\'', "''"));
        let native = made(type_);
        world
            .sql(&format!(
                "CREATE TABLE {{schema}}.{table} (it {native}); INSERT INTO {{schema}}.{table} VALUES ('{value}')"
            ))
            .await;
        let source = format!("postgres: {{{{db}}, table: '{{schema}}.{table}'}}");
        let lake = format!("out{at}");
        let ended = world.run(&world.manifest(&format!("p{at}"), &manifest(&source, &lake)));
        let at_type = format!("{type_} {value}");
        match want {
            Ok(_) => {
                ended.ok();
                let found = column_type(&world, &lake).await;
                assert_eq!(Ok(found.as_str()), *want, "{at_type}");
                rows.push((format!("`{type_}`"), found));
            }
            Err(code) => {
                let message = refusal(ended, code, &at_type);
                let what =
                    if *code == "value_invalid" { format!("`{type_}` with {value}") } else { format!("`{type_}`") };
                if *code == "type_unsupported" {
                    assert!(message.contains("under columns"), "{at_type}: {message}");
                }
                refused.push((what, (*code).to_owned()));
            }
        }
        let source =
            format!("postgres: {{{{db}}, table: '{{schema}}.{table}'}}, columns: [{{name: it, type: string}}]");
        let lake = format!("text{at}");
        world.run(&world.manifest(&format!("q{at}"), &manifest(&source, &lake))).ok();
        // Its own cast of char(n) to text cuts the spaces at the end.
        let text = if type_.starts_with("char(") {
            "it::bpchar(4)::varchar || repeat(' ', 4 - length(it))"
        } else {
            "it::text"
        };
        let wanted = server_text(&world, &format!("SELECT {text} FROM {{schema}}.{table}")).await;
        assert_eq!(parquet_rows(lake_file(&world, &lake).await), [[wanted]], "{at_type} as a string");
    }
    let mut out = "| PostgreSQL | undeclared | declared as string |\n|---|---|---|\n".to_owned();
    for (type_, code) in together(rows) {
        writeln!(out, "| {type_} | {code} | exact |").unwrap();
    }
    for (type_, code) in together(refused) {
        writeln!(out, "| {type_} | error `{code}` | exact |").unwrap();
    }
    out
}

/// A text as the server writes it, in UTC.
async fn server_text(world: &World, sql: &str) -> String {
    let mut connection = world.connection().await;
    sqlx::raw_sql("SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'").execute(&mut connection).await.unwrap();
    let sql = sql.replace("{schema}", &world.name);
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
}

fn refusal(ended: Ended, code: &str, what: &str) -> String {
    let message = ended.failed(12, code);
    assert!(message.contains("it"), "{what}: {message}");
    message
}

/// Types with one fate in one row.
fn together(rows: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut groups: Vec<(Vec<String>, String)> = Vec::new();
    for (type_, fate) in rows {
        match groups.iter_mut().find(|(_, known)| *known == fate) {
            Some((types, _)) if types.contains(&type_) => {}
            Some((types, _)) => types.push(type_),
            None => groups.push((vec![type_], fate)),
        }
    }
    groups.into_iter().map(|(types, fate)| (types.join(", "), fate)).collect()
}

struct Column {
    /// What the table calls it.
    name: &'static str,
    array: ArrayRef,
    want: Result<(&'static str, &'static str), &'static str>,
}

fn kept(name: &'static str, array: impl Array + 'static, type_: &'static str, text: &'static str) -> Column {
    Column { name, array: Arc::new(array), want: Ok((type_, text)) }
}

fn refused(name: &'static str, array: impl Array + 'static, code: &'static str) -> Column {
    Column { name, array: Arc::new(array), want: Err(code) }
}

fn columns() -> Vec<Column> {
    const SECOND: i64 = 1_709_209_800;
    let dictionary: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
    let struct_ = StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Date32, true)),
        Arc::new(Date32Array::from(vec![1])) as ArrayRef,
    )]);
    vec![
        kept("INT(8)", Int8Array::from(vec![i8::MIN]), "int16", "-128"),
        kept("UINT(8)", UInt8Array::from(vec![u8::MAX]), "int16", "255"),
        kept("UINT(16)", UInt16Array::from(vec![u16::MAX]), "int32", "65535"),
        kept("UINT(32)", UInt32Array::from(vec![u32::MAX]), "int64", "4294967295"),
        kept("UINT(64)", UInt64Array::from(vec![u64::MAX]), "decimal(20,0)", "18446744073709551615"),
        kept(
            "FLOAT16",
            Float16Array::from(vec![
                <arrow::datatypes::Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::from_f32(
                    -0.099_975_586,
                ),
            ]),
            "float32",
            "-0.099975586",
        ),
        kept(
            "DECIMAL on INT32",
            Decimal32Array::from(vec![-12_345]).with_precision_and_scale(9, 3).unwrap(),
            "decimal(9,3)",
            "-12.345",
        ),
        kept(
            "DECIMAL on INT64",
            Decimal64Array::from(vec![123_456_789_012_345_678]).with_precision_and_scale(18, 18).unwrap(),
            "decimal(18,18)",
            "0.123456789012345678",
        ),
        refused(
            "DECIMAL of more than 38 digits",
            Decimal256Array::from(vec![i256::from_i128(1)]).with_precision_and_scale(76, 2).unwrap(),
            "type_unsupported",
        ),
        kept("large STRING", LargeStringArray::from(vec!["é"]), "string", "é"),
        kept("STRING view", StringViewArray::from(vec!["é"]), "string", "é"),
        kept("dictionary of STRING", dictionary.slice(1, 1), "string", "b"),
        kept("BYTE_ARRAY", BinaryArray::from_vec(vec![b"\x00\xff"]), "binary", "00ff"),
        kept("large BYTE_ARRAY", LargeBinaryArray::from_vec(vec![b"\x00\xff"]), "binary", "00ff"),
        kept(
            "FIXED_LEN_BYTE_ARRAY",
            FixedSizeBinaryArray::try_from_iter([[0, 255, 7]].into_iter()).unwrap(),
            "binary",
            "00ff07",
        ),
        refused("DATE after the year 9999", Date32Array::from(vec![2_932_897]), "value_invalid"),
        refused("DATE before the year 1", Date32Array::from(vec![i32::MIN]), "value_invalid"),
        refused("DATE64", Date64Array::from(vec![86_400_000]), "type_unsupported"),
        kept(
            "TIMESTAMP(MILLIS, local)",
            TimestampMillisecondArray::from(vec![SECOND * 1000 + 7]),
            "timestamp",
            "2024-02-29T12:30:00.007",
        ),
        kept(
            "TIMESTAMP(MILLIS, UTC)",
            TimestampMillisecondArray::from(vec![SECOND * 1000 + 7]).with_timezone("UTC"),
            "timestamptz",
            "2024-02-29T12:30:00.007Z",
        ),
        kept(
            "TIMESTAMP(MICROS, UTC)",
            TimestampMicrosecondArray::from(vec![SECOND * 1_000_000 + 7]).with_timezone("Europe/Oslo"),
            "timestamptz",
            "2024-02-29T12:30:00.000007Z",
        ),
        kept(
            "TIMESTAMP(NANOS, local)",
            TimestampNanosecondArray::from(vec![SECOND * 1_000_000_000 + 7000]),
            "timestamp",
            "2024-02-29T12:30:00.000007",
        ),
        kept(
            "TIMESTAMP(NANOS, UTC)",
            TimestampNanosecondArray::from(vec![SECOND * 1_000_000_000 + 7000]).with_timezone("UTC"),
            "timestamptz",
            "2024-02-29T12:30:00.000007Z",
        ),
        refused(
            "TIMESTAMP(NANOS) finer than a microsecond",
            TimestampNanosecondArray::from(vec![SECOND * 1_000_000_000 + 7]),
            "value_invalid",
        ),
        refused(
            "TIMESTAMP after the year 9999",
            TimestampMillisecondArray::from(vec![253_402_300_800_000]),
            "value_invalid",
        ),
        refused(
            "TIMESTAMP beyond 64 bits of microseconds",
            TimestampMillisecondArray::from(vec![i64::MAX]),
            "value_invalid",
        ),
        kept("TIMESTAMP of seconds", TimestampSecondArray::from(vec![SECOND]), "timestamp", "2024-02-29T12:30:00"),
        refused("TIME(MILLIS)", Time32SecondArray::from(vec![1]), "type_unsupported"),
        refused("TIME(MICROS)", Time64MicrosecondArray::from(vec![1]), "type_unsupported"),
        refused("INTERVAL", IntervalYearMonthArray::from(vec![1]), "type_unsupported"),
        refused("duration", DurationSecondArray::from(vec![1]), "type_unsupported"),
        refused("LIST", list, "type_unsupported"),
        refused("struct", struct_, "type_unsupported"),
        refused("null", NullArray::new(1), "type_unsupported"),
    ]
}

/// One column of each type, undeclared. Gives the table.
pub(super) async fn parquet() -> String {
    let world = World::new().await;
    let (mut rows, mut not): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for (at, column) in columns().into_iter().enumerate() {
        let path = world.folder.path().join("given.parquet");
        super::given::parquet(&path, vec![("it".into(), Arc::clone(&column.array))]);
        let lake = format!("out{at}");
        let ended = world.run(&world.manifest(&format!("p{at}"), &manifest("file: {path: given.parquet}", &lake)));
        match column.want {
            Ok((type_, text)) => {
                ended.ok();
                assert_eq!(column_type(&world, &lake).await, type_, "{}", column.name);
                assert_eq!(parquet_rows(lake_file(&world, &lake).await), [[text]], "{}", column.name);
                rows.push((column.name.to_owned(), type_.to_owned()));
            }
            Err(code) => {
                refusal(ended, code, column.name);
                not.push((column.name.to_owned(), code.to_owned()));
            }
        }
    }
    // A UUID's bytes are one by declaration.
    let uuid = FixedSizeBinaryArray::try_from_iter([[0x6b_u8; 16]].into_iter()).unwrap();
    super::given::parquet(&world.folder.path().join("given.parquet"), vec![("it".into(), Arc::new(uuid))]);
    world
        .run(&world.manifest("p", &manifest("file: {path: given.parquet}, columns: [{name: it, type: uuid}]", "out")))
        .ok();
    assert_eq!(parquet_rows(lake_file(&world, "out").await), [["6b6b6b6b-6b6b-6b6b-6b6b-6b6b6b6b6b6b"]]);
    rows.push(("FIXED_LEN_BYTE_ARRAY(16), declared as uuid".into(), "uuid".into()));

    let mut out = "| Parquet | becomes |\n|---|---|\n".to_owned();
    for (type_, own) in together(rows) {
        writeln!(out, "| {type_} | {own} |").unwrap();
    }
    for (type_, code) in together(not) {
        writeln!(out, "| {type_} | error `{code}` |").unwrap();
    }
    out
}
