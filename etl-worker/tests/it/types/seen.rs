//! What is in a sink, read by another client, and a form of each value in which equal values are equal texts.

use std::collections::BTreeMap;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use mysql_async::prelude::Queryable;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, Column, Connection, Row, TypeInfo, ValueRef};

use super::{Sink, hexadecimal, micros};
use crate::databases::mysql;
use crate::harness::World;

/// A table: its columns' types, and its rows as texts.
pub(super) struct Table {
    pub(super) types: Vec<String>,
    pub(super) rows: Vec<Vec<Option<String>>>,
}

/// Reads the table or lake `out`, whose rows come in the order of the column `n`. `types` are those of the columns.
pub(super) async fn table(world: &World, sink: Sink, columns: &[String], types: &[&str]) -> Table {
    match sink {
        Sink::Postgres => postgres(world, columns).await,
        Sink::Mysql => mysql_table(world, columns, types).await,
        Sink::Sqlite => sqlite(world, columns, types).await,
        Sink::Lake => lake(world, columns).await,
    }
}

async fn postgres(world: &World, columns: &[String]) -> Table {
    let mut connection = world.connection().await;
    let types = format!(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
         WHERE attrelid = '{}.out'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        world.name
    );
    let types = sqlx::query_scalar(AssertSqlSafe(types)).fetch_all(&mut connection).await.unwrap();
    let texts: Vec<_> = columns.iter().map(|column| format!("{column}::text")).collect();
    let sql = format!("SELECT {} FROM {}.out AS t ORDER BY t.n", texts.join(", "), world.name);
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    let rows = rows.iter().map(|row| (0..columns.len()).map(|at| row.get(at)).collect()).collect();
    Table { types, rows }
}

async fn mysql_table(world: &World, columns: &[String], types: &[&str]) -> Table {
    let mut connection = mysql().await;
    let sql = format!(
        "SELECT column_type FROM information_schema.columns WHERE table_schema = '{}' AND table_name = 'out' ORDER BY ordinal_position",
        world.name
    );
    let native: Vec<String> = connection.query(sql).await.unwrap();
    let sql = format!("SELECT {} FROM {}.out ORDER BY n", columns.join(", "), world.name);
    let rows: Vec<mysql_async::Row> = connection.query(sql).await.unwrap();
    let text = |(value, type_): (mysql_async::Value, &&str)| match value {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(bytes) if *type_ == "binary" => Some(format!("\\x{}", hexadecimal(&bytes))),
        mysql_async::Value::Bytes(bytes) if *type_ == "float32" => {
            Some(narrow(String::from_utf8(bytes).unwrap().parse().unwrap()))
        }
        mysql_async::Value::Bytes(bytes) => Some(String::from_utf8(bytes).unwrap()),
        other => panic!("{other:?} is no text"),
    };
    let rows = rows.into_iter().map(|row| row.unwrap().into_iter().zip(types).map(text).collect()).collect();
    Table { types: native, rows }
}

async fn sqlite(world: &World, columns: &[String], types: &[&str]) -> Table {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.folder.path().join("r.db"));
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let native =
        sqlx::query_scalar("SELECT type FROM pragma_table_info('out')").fetch_all(&mut connection).await.unwrap();
    let sql = format!("SELECT {} FROM out ORDER BY n", columns.join(", "));
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    let text = |row: &sqlx::sqlite::SqliteRow, at: usize| {
        let raw = row.try_get_raw(at).unwrap();
        // The type of the value, not of the column.
        (!raw.is_null()).then(|| match raw.type_info().name() {
            "INTEGER" | "BOOLEAN" => row.get_unchecked::<i64, _>(at).to_string(),
            "REAL" if types[at] == "float32" => narrow(row.get_unchecked(at)),
            "REAL" => row.get_unchecked::<f64, _>(at).to_string(),
            "BLOB" => format!("\\x{}", hexadecimal(&row.get_unchecked::<Vec<u8>, _>(at))),
            "TEXT" | "DATE" | "DATETIME" => row.get_unchecked::<String, _>(at),
            other => panic!("{} is {other}", row.columns()[at].name()),
        })
    };
    let rows = rows.iter().map(|row| (0..columns.len()).map(|at| text(row, at)).collect()).collect();
    Table { types: native, rows }
}

async fn lake(world: &World, columns: &[String]) -> Table {
    let manifest = world.lake_manifest("out").await;
    let files = manifest["files"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    let content = world.get(&format!("out/{}", files[0]["path"].as_str().unwrap())).await;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(content)).unwrap();
    let types = builder.parquet_schema().columns().iter().map(|column| parquet_type(column)).collect();
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        for row in 0..batch.num_rows() {
            let text = |column: &arrow::array::ArrayRef| {
                let text = ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string();
                let is_bytes = matches!(column.data_type(), arrow::datatypes::DataType::Binary);
                (!column.is_null(row)).then(|| if is_bytes { format!("\\x{text}") } else { text })
            };
            rows.push(batch.columns().iter().map(text).collect::<Vec<_>>());
        }
    }
    let n = columns.iter().position(|column| column == "n").unwrap();
    rows.sort_by_key(|row: &Vec<Option<String>>| row[n].as_ref().map(|n| n.parse::<i64>().unwrap()));
    Table { types, rows }
}

/// A physical type and what it means.
fn parquet_type(column: &parquet::schema::types::ColumnDescriptor) -> String {
    use parquet::basic::{LogicalType, TimeUnit};
    let logical = match column.logical_type_ref() {
        None => return column.physical_type().to_string(),
        Some(LogicalType::Integer(int)) => format!("INTEGER({}, {})", int.bit_width, int.is_signed),
        Some(LogicalType::Decimal(decimal)) => format!("DECIMAL({},{})", decimal.precision, decimal.scale),
        Some(LogicalType::Timestamp(time)) => {
            assert_eq!(time.unit, TimeUnit::MICROS);
            format!("TIMESTAMP(MICROS, {})", if time.is_adjusted_to_u_t_c { "UTC" } else { "local" })
        }
        Some(LogicalType::Date) => "DATE".into(),
        Some(LogicalType::String) => "STRING".into(),
        Some(other) => panic!("{other:?}"),
    };
    format!("{}, {logical}", column.physical_type())
}

/// A float of 32 bits that is kept in 64.
fn narrow(value: f64) -> String {
    let narrow = value as f32;
    if value.is_nan() || f64::from(narrow) == value {
        format!("{narrow:?}")
    } else {
        format!("{value:?} is no float32")
    }
}

/// A text of a type in the one form that all of its equals have.
pub(super) fn canonical(type_: &str, text: &str) -> String {
    match type_ {
        "boolean" => match text {
            "true" | "t" | "1" => "true".into(),
            "false" | "f" | "0" => "false".into(),
            other => panic!("{other} is no boolean"),
        },
        "int16" | "int32" | "int64" => text.parse::<i64>().unwrap().to_string(),
        "float32" => text.parse::<f32>().map(|value| format!("{value:?}")).unwrap_or_else(|_| text.into()),
        "float64" => format!("{:?}", text.parse::<f64>().unwrap()),
        "date" => text.into(),
        // MySQL's have no offset, and are UTC.
        "timestamp" | "timestamptz" => micros(text).to_string(),
        "binary" => text.trim_start_matches("\\x").to_owned(),
        "json" => json(text),
        "string" | "uuid" => text.into(),
        // A number may be shown with zeros at its end.
        _ => match text.split_once('.') {
            None => text.into(),
            Some((whole, fraction)) => {
                let fraction = fraction.trim_end_matches('0');
                if fraction.is_empty() { whole.into() } else { format!("{whole}.{fraction}") }
            }
        },
    }
}

/// JSON without white space and with sorted keys; numbers digit by digit, but for a zero more or a changed exponent.
fn json(text: &str) -> String {
    let raw: &RawValue = serde_json::from_str(text.trim()).unwrap();
    match raw.get().as_bytes()[0] {
        b'{' => {
            let mut keys = BTreeMap::new();
            let pairs: Pairs<'_> = serde_json::from_str(raw.get()).unwrap();
            for (key, value) in pairs.0 {
                keys.entry(key).or_insert_with(Vec::new).push(json(value.get()));
            }
            format!("{keys:?}")
        }
        b'[' => {
            let values: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap();
            format!("{:?}", values.iter().map(|value| json(value.get())).collect::<Vec<_>>())
        }
        b'"' => format!("{:?}", serde_json::from_str::<String>(raw.get()).unwrap()),
        b'-' | b'0'..=b'9' => number(raw.get()),
        _ => raw.get().into(),
    }
}

/// A number's digits without the point, and the power of ten.
fn number(text: &str) -> String {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let exponent = exponent.parse::<i64>().unwrap() - fraction.len() as i64 + (digits.len() - significant.len()) as i64;
    format!("{}e{exponent}", significant.trim_start_matches('0'))
}

struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}
