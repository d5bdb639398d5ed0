//! Rows as each source has them: the values' texts, None for NULL.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use base64::Engine;

use super::{Source, bytes, micros};
use crate::harness::World;

/// A column and its values.
pub(super) struct Column<'a> {
    pub(super) name: String,
    pub(super) type_: &'a str,
    /// The type in PostgreSQL.
    pub(super) postgres: &'a str,
    pub(super) values: Vec<Option<&'a str>>,
}

/// Makes a source named `given` of these columns. Gives its part of the manifest.
pub(super) async fn source(world: &World, source: Source, columns: &[Column<'_>]) -> String {
    let declared: Vec<String> =
        columns.iter().map(|column| format!("{{name: {}, type: '{}'}}", column.name, column.type_)).collect();
    let declared = format!("columns: [{}]", declared.join(", "));
    match source {
        Source::Csv => {
            world.file("given.csv", csv(columns));
            format!("{{name: given, file: {{path: given.csv}}, {declared}}}")
        }
        Source::Json => {
            world.file("given.json", format!("[{}]", objects(columns).join(",\n")));
            format!("{{name: given, file: {{path: given.json}}, {declared}}}")
        }
        Source::Ndjson => {
            world.file("given.ndjson", objects(columns).join("\n"));
            format!("{{name: given, file: {{path: given.ndjson}}, {declared}}}")
        }
        Source::Parquet => {
            let arrays = columns.iter().map(|column| (column.name.clone(), array(column.type_, &column.values)));
            parquet(&world.folder.path().join("given.parquet"), arrays.collect());
            format!("{{name: given, file: {{path: given.parquet}}, {declared}}}")
        }
        Source::Postgres => {
            postgres(world, columns).await;
            // The columns bring their own types.
            "{name: given, postgres: {{db}, table: '{schema}.given'}}".into()
        }
    }
}

fn rows<'a>(columns: &'a [Column<'a>]) -> impl Iterator<Item = Vec<(&'a Column<'a>, Option<&'a str>)>> {
    (0..columns[0].values.len()).map(|row| columns.iter().map(|column| (column, column.values[row])).collect())
}

fn in_text(type_: &str, text: &str) -> String {
    if type_ == "binary" { base64::engine::general_purpose::STANDARD.encode(bytes(text)) } else { text.to_owned() }
}

fn csv(columns: &[Column<'_>]) -> String {
    let mut out = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(",");
    for row in rows(columns) {
        let fields = row.iter().map(|(column, value)| match value {
            Some(text) => format!("\"{}\"", in_text(column.type_, text).replace('"', "\"\"")),
            None => String::new(),
        });
        write!(out, "\n{}", fields.collect::<Vec<_>>().join(",")).unwrap();
    }
    out + "\n"
}

fn objects(columns: &[Column<'_>]) -> Vec<String> {
    let value = |type_: &str, text: &str| match type_ {
        "boolean" | "int16" | "int32" | "int64" | "json" => text.to_owned(),
        "float32" | "float64" if text.contains(['n', 'N']) => format!("\"{text}\""),
        _ if type_.starts_with("decimal") || type_.starts_with("float") => text.to_owned(),
        _ => serde_json::to_string(&in_text(type_, text)).unwrap(),
    };
    let object = |row: Vec<(&Column<'_>, Option<&str>)>| {
        let pairs = row.iter().filter_map(|(column, text)| {
            text.map(|text| format!("\"{}\": {}", column.name, value(column.type_, text)))
        });
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
    };
    rows(columns).map(object).collect()
}

async fn postgres(world: &World, columns: &[Column<'_>]) {
    let types: Vec<_> = columns.iter().map(|column| format!("{} {}", column.name, column.postgres)).collect();
    let literal = |column: &Column<'_>, text: &str| {
        let text = if column.type_ == "binary" { format!("\\x{text}") } else { text.replace('\'', "''") };
        format!("'{text}'")
    };
    let rows = rows(columns).map(|row| {
        let values = row.iter().map(|(column, value)| value.map_or("NULL".into(), |text| literal(column, text)));
        format!("({})", values.collect::<Vec<_>>().join(", "))
    });
    let rows = rows.collect::<Vec<_>>().join(",\n");
    let sql = format!(
        "DROP TABLE IF EXISTS {{schema}}.given; CREATE TABLE {{schema}}.given ({}); INSERT INTO {{schema}}.given VALUES {rows}",
        types.join(", ")
    );
    world.sql(&sql).await;
}

/// Writes a Parquet file of these columns.
pub(super) fn parquet(path: &Path, columns: Vec<(String, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Texts as an array, read by Rust's and jiff's parsers, not by the product's.
fn array(type_: &str, texts: &[Option<&str>]) -> ArrayRef {
    fn each<T>(texts: &[Option<&str>], read: impl Fn(&str) -> T) -> Vec<Option<T>> {
        texts.iter().map(|text| text.map(&read)).collect()
    }
    match type_ {
        "boolean" => Arc::new(BooleanArray::from(each(texts, |text| text == "true"))),
        "int16" => Arc::new(Int16Array::from(each(texts, |text| text.parse().unwrap()))),
        "int32" => Arc::new(Int32Array::from(each(texts, |text| text.parse().unwrap()))),
        "int64" => Arc::new(Int64Array::from(each(texts, |text| text.parse().unwrap()))),
        "float32" => Arc::new(Float32Array::from(each(texts, |text| text.parse().unwrap()))),
        "float64" => Arc::new(Float64Array::from(each(texts, |text| text.parse().unwrap()))),
        "date" => Arc::new(Date32Array::from(each(texts, |text| {
            i32::try_from(micros(&format!("{text}T00:00:00Z")).div_euclid(86_400_000_000)).unwrap()
        }))),
        "timestamp" => Arc::new(TimestampMicrosecondArray::from(each(texts, micros))),
        "timestamptz" => Arc::new(TimestampMicrosecondArray::from(each(texts, micros)).with_timezone("UTC")),
        "binary" => Arc::new(BinaryArray::from_iter(each(texts, bytes))),
        "string" | "uuid" | "json" => Arc::new(StringArray::from_iter(texts.iter().copied())),
        decimal => {
            let digits = decimal.trim_start_matches("decimal(").trim_end_matches(')');
            let (precision, scale) = digits.split_once(',').unwrap();
            let (precision, scale): (u8, i8) = (precision.parse().unwrap(), scale.parse().unwrap());
            let units = each(texts, |text| {
                let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
                format!("{whole}{fraction:0<width$}", width = usize::try_from(scale).unwrap()).parse::<i128>().unwrap()
            });
            Arc::new(Decimal128Array::from(units).with_precision_and_scale(precision, scale).unwrap())
        }
    }
}
