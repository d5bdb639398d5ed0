//! A file of tests, and rows as people write them: in the file, or in a CSV, JSON or NDJSON file beside it.
//!
//! Values are read as the columns' types by the same rules as inputs. A column that no row names is NULL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::ScalarValue;
use report_api::interval::Interval;
use report_api::problem::near;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decode::literal;
use crate::error::{Code, Result, RunError};

/// Most tests of a file.
const TESTS_MAX: usize = 1000;
/// Most rows of one table of a test: tests are small, and their rows are held in memory.
const ROWS_MAX: usize = 10_000;
/// Largest file of tests or rows.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tests: Vec<Test>,
}

/// A model, what it reads, and what it should give.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    pub(super) name: String,
    #[expect(dead_code, reason = "for whoever reads the file")]
    #[serde(default)]
    description: Option<String>,
    pub(super) model: String,
    /// What `$interval_start` and `$interval_end` are. Default: the schedule's last interval.
    #[serde(default)]
    pub(super) interval: Option<Interval>,
    #[serde(default)]
    pub(super) given: Vec<Given>,
    pub(super) expect: Rows,
}

/// A source or model and its rows.
// Not with a flattened `Rows`: serde would then make floats of numbers, and let unknown fields pass.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    pub(super) table: String,
    #[serde(default)]
    rows: Option<Vec<Row>>,
    #[serde(default)]
    file: Option<String>,
}

impl Given {
    pub(super) fn rows(&self) -> Rows {
        Rows { rows: self.rows.clone(), file: self.file.clone() }
    }
}

/// Rows: written down, or in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rows {
    #[serde(default)]
    rows: Option<Vec<Row>>,
    #[serde(default)]
    file: Option<String>,
}

/// A row: each value as it is written, None for null.
type Row = BTreeMap<String, Option<String>>;

/// Rows that are read, not yet of a type.
pub(super) struct Loaded(Vec<Row>);

/// Reads a file of tests.
pub(super) fn read(path: &Path) -> Result<Vec<Test>> {
    let text = text(path, "the tests")?;
    let File { tests } = serde_yaml::from_str(&text)
        .map_err(|error| invalid(&path.display().to_string(), format!("these are no tests: {error}")))?;
    if tests.is_empty() || tests.len() > TESTS_MAX {
        return Err(invalid("tests", format!("{} tests; write 1 to {TESTS_MAX}", tests.len())));
    }
    let mut names = BTreeSet::new();
    for (n, test) in tests.iter().enumerate() {
        if !names.insert(&test.name) {
            return Err(invalid(&format!("tests[{n}].name"), format!("another test is called {} too", test.name)));
        }
    }
    Ok(tests)
}

impl Rows {
    /// Reads the rows, from the file if they are in one.
    pub(super) fn load(&self, folder: &Path, field: &str) -> Result<Loaded> {
        let rows = match (&self.rows, &self.file) {
            (Some(rows), None) => rows.clone(),
            (None, Some(file)) => from_file(&folder.join(file), &format!("{field}.file"))?,
            _ => return Err(invalid(field, "write rows or file, one of them".into())),
        };
        if rows.len() > ROWS_MAX {
            return Err(invalid(field, format!("{} rows are too many; the most is {ROWS_MAX}", rows.len())));
        }
        Ok(Loaded(rows))
    }
}

impl Loaded {
    /// The columns that the rows name.
    pub(super) fn columns(&self) -> BTreeSet<String> {
        self.0.iter().flat_map(|row| row.keys().cloned()).collect()
    }

    /// The rows as a table of these columns.
    pub(super) fn batch(&self, schema: &SchemaRef, field: &str) -> Result<RecordBatch> {
        let named = self.columns();
        let at = |row: usize, column: &str| format!("{field}.rows[{row}].{column}");
        if let Some(unknown) = named.iter().find(|name| schema.index_of(name).is_err()) {
            let row = self.0.iter().position(|row| row.contains_key(unknown)).unwrap_or_default();
            let names = || schema.fields().iter().map(|field| field.name().as_str());
            let remedy = near(unknown, names()).map_or_else(
                || format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            return Err(invalid(&at(row, unknown), format!("there is no column {unknown}; {remedy}")));
        }
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for column in schema.fields() {
            let (name, type_) = (column.name(), column.data_type());
            let null = ScalarValue::try_from(type_).map_err(|error| invalid(field, error.to_string()))?;
            let mut values = Vec::with_capacity(self.0.len());
            for (n, row) in self.0.iter().enumerate() {
                values.push(match row.get(name).and_then(Option::as_deref) {
                    Some(text) => literal(text, type_).map_err(|message| invalid(&at(n, name), message))?,
                    None if !column.is_nullable() && named.contains(name) => {
                        let message = "NULL in a required column; give it a value, or leave the column out of all rows";
                        return Err(invalid(&at(n, name), message.into()));
                    }
                    None => null.clone(),
                });
            }
            arrays.push(match values.is_empty() {
                true => arrow::array::new_empty_array(type_),
                false => ScalarValue::iter_to_array(values).map_err(|error| invalid(field, error.to_string()))?,
            });
            // A required column may be left out of a test that is not about it.
            fields.push(Field::new(name, type_.clone(), true));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.0.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| RunError::at(Code::Internal, field, "the rows don't fit").caused_by(error))
    }
}

fn from_file(path: &Path, field: &str) -> Result<Vec<Row>> {
    let content = text(path, "the rows").map_err(|error| RunError { field: Some(field.into()), ..error })?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let unreadable = |error: String| invalid(field, format!("{} can't be read: {error}", path.display()));
    match ending {
        "csv" => csv_rows(&content).map_err(|error| unreadable(error.to_string())),
        "json" => {
            let rows: Vec<BTreeMap<String, Box<RawValue>>> =
                serde_json::from_str(&content).map_err(|error| unreadable(error.to_string()))?;
            rows.into_iter().map(|row| json_row(row).map_err(|error| unreadable(error.to_string()))).collect()
        }
        "ndjson" | "jsonl" => content
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let row = serde_json::from_str(line).and_then(json_row);
                row.map_err(|error| unreadable(error.to_string()))
            })
            .collect(),
        _ => Err(invalid(field, format!("{} is no file of rows; write .csv, .json or .ndjson", path.display()))),
    }
}

/// An empty field is NULL.
fn csv_rows(content: &str) -> std::result::Result<Vec<Row>, csv::Error> {
    let mut reader = csv::Reader::from_reader(content.as_bytes());
    let names = reader.headers()?.clone();
    let row = |record: csv::StringRecord| {
        let values = record.iter().map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        names.iter().map(str::to_owned).zip(values).collect()
    };
    reader.records().map(|record| record.map(&row)).collect()
}

/// Numbers are taken by their digits, never through a float; objects and arrays as their JSON text.
fn json_row(row: BTreeMap<String, Box<RawValue>>) -> std::result::Result<Row, serde_json::Error> {
    row.into_iter()
        .map(|(name, value)| {
            let value = match value.get().as_bytes().first() {
                Some(b'n') => None,
                Some(b'"') => Some(serde_json::from_str(value.get())?),
                _ => Some(value.get().to_owned()),
            };
            Ok((name, value))
        })
        .collect()
}

fn text(path: &Path, what: &str) -> Result<String> {
    let name = path.display();
    let failed = |error: std::io::Error| {
        RunError::new(Code::ManifestInvalid, format!("{what} in {name} can't be read")).caused_by(error)
    };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let message = format!("{name} has {bytes} bytes; the most is {} MiB", FILE_BYTES_MAX >> 20);
        return Err(RunError::new(Code::ManifestInvalid, message));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn invalid(field: &str, message: String) -> RunError {
    RunError::at(Code::ManifestInvalid, field, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::{File, Loaded, Row, csv_rows, json_row};

    fn row(values: &[(&str, Option<&str>)]) -> Row {
        values.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn values_are_taken_as_they_are_written() {
        let yaml = "tests: [{name: t, model: m, expect: {rows: [{a: 12.10, b: '007', c: null, d: 12345678901234567890.12, e: true, f: ''}]}}]";
        let File { tests } = serde_yaml::from_str(yaml).unwrap();
        let want = row(&[
            ("a", Some("12.10")),
            ("b", Some("007")),
            ("c", None),
            ("d", Some("12345678901234567890.12")),
            ("e", Some("true")),
            ("f", Some("")),
        ]);
        assert_eq!(tests[0].expect.rows.as_deref(), Some(&[want][..]));
        assert_eq!(csv_rows("a,b\n1,\n").unwrap(), [row(&[("a", Some("1")), ("b", None)])]);
        let json = r#"{"a": 12345678901234567890.12, "b": null, "c": "x\ny", "d": [1]}"#;
        assert_eq!(
            json_row(serde_json::from_str(json).unwrap()).unwrap(),
            row(&[("a", Some("12345678901234567890.12")), ("b", None), ("c", Some("x\ny")), ("d", Some("[1]"))])
        );
    }

    #[test]
    fn rows_that_do_not_fit_say_where() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("day", DataType::Date32, true),
        ]));
        for (rows, want) in [
            (vec![row(&[("id", Some("1")), ("day", Some("2024-01-31"))])], Ok((1, 0))),
            (vec![row(&[("day", None)])], Ok((1, 1))),
            (vec![], Ok((0, 0))),
            (
                vec![row(&[("id", None)])],
                Err("t.rows[0].id: NULL in a required column; give it a value, or leave the column out of all rows"),
            ),
            (vec![row(&[]), row(&[("dya", None)])], Err("t.rows[1].dya: there is no column dya; did you mean day?")),
            (vec![row(&[("id", Some("x"))])], Err("t.rows[0].id: \"x\" is not int64")),
        ] {
            let got = Loaded(rows).batch(&schema, "t");
            let got = got.map(|batch| (batch.num_rows(), batch.column(0).null_count())).map_err(|e| e.to_string());
            assert_eq!(got, want.map_err(str::to_owned));
        }
    }
}
