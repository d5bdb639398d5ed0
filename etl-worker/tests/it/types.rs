//! Every value survives: values of every type through the worker from each source into each sink, read back by another
//! client. What was seen is docs/types.md, which must be as it is written here: `UPDATE_DOCS=1 make test-worker
//! TEST_ARGS=types::` writes it.

mod given;
mod natives;
mod refused;
mod seen;
mod targets;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::thread::JoinHandle;

use self::given::Column;
use self::values::{Kind, kinds};
use crate::databases::Database;
use crate::harness::World;

/// A kind of source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Csv,
    Json,
    Ndjson,
    Parquet,
    Postgres,
}

impl Source {
    const ALL: [Self; 5] = [Self::Csv, Self::Json, Self::Ndjson, Self::Parquet, Self::Postgres];
}

/// A kind of sink.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Sink {
    Postgres,
    Mysql,
    Sqlite,
    Lake,
}

impl Sink {
    const ALL: [Self; 4] = [Self::Postgres, Self::Mysql, Self::Sqlite, Self::Lake];

    /// The sink `out` in a manifest.
    fn yaml(self) -> String {
        match self {
            Self::Postgres => Database::Postgres.sink("out"),
            Self::Mysql => Database::Mysql.sink("out"),
            Self::Sqlite => Database::Sqlite.sink("out"),
            Self::Lake => "lake: {url: '{lake}/out'}".into(),
        }
    }
}

fn manifest(source: &str, sink: Sink) -> String {
    format!("sources:\n  - {source}\nsinks:\n  - {{name: out, from: given, {}}}\n", sink.yaml())
}

/// Hexadecimal digits as bytes.
fn bytes(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(digit).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A time in ISO 8601 as microseconds since 1970, in UTC where it has no offset. A time zone library's own points in time
/// end some hours before the last ones here.
fn micros(text: &str) -> i64 {
    let (civil, offset) = match text.get(11..).and_then(|time| time.find(['Z', '+', '-'])) {
        Some(at) => text.split_at(11 + at),
        None => (text, "Z"),
    };
    let civil: jiff::civil::DateTime = civil.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    let offset_hours: i128 =
        offset.trim_end_matches('Z').split(':').next().map_or(0, |hours| hours.parse().unwrap_or(0));
    let since = civil.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0)).as_micros();
    i64::try_from(since - offset_hours * 3_600_000_000).unwrap()
}

/// For each column type, the type that a sink makes of it.
type SinkTypes = BTreeMap<&'static str, String>;

/// All values of all kinds that the sink takes, in one run. Gives the sink's types.
async fn all_that_is_kept(source: Source, sink: Sink) -> SinkTypes {
    let world = World::new().await;
    let kinds: Vec<Kind> = kinds().into_iter().filter(|kind| !kind.kept(source, sink).is_empty()).collect();
    let kept: Vec<Vec<&str>> =
        kinds.iter().map(|kind| kind.kept(source, sink).iter().map(|value| value.text.as_str()).collect()).collect();
    let wanted: Vec<Vec<&str>> =
        kinds.iter().map(|kind| kind.kept(source, sink).iter().map(|value| value.wanted(sink)).collect()).collect();
    // The last row has NULLs only.
    let rows = kept.iter().map(Vec::len).max().unwrap() + 1;
    let numbers: Vec<String> = (0..rows).map(|row| row.to_string()).collect();
    let n = numbers.iter().map(|number| Some(number.as_str())).collect();
    let mut columns = vec![Column { name: "n".into(), type_: "int32", postgres: "integer", values: n }];
    for (at, (kind, kept)) in kinds.iter().zip(&kept).enumerate() {
        let values = (0..rows).map(|row| kept.get(row).copied()).collect();
        columns.push(Column { name: format!("c{at}"), type_: kind.type_, postgres: kind.postgres, values });
    }
    let given = given::source(&world, source, &columns).await;
    let result = world.run(&world.manifest("p", &manifest(&given, sink))).ok();
    assert_eq!(result.rows_written, rows as u64);

    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let types: Vec<&str> = columns.iter().map(|column| column.type_).collect();
    let table = seen::table(&world, sink, &names, &types).await;
    assert_eq!(table.rows.len(), rows);
    for (row, found) in table.rows.iter().enumerate() {
        for ((at, column), found) in columns.iter().enumerate().zip(found) {
            let wanted = if at == 0 { column.values[row] } else { wanted[at - 1].get(row).copied() };
            let wanted = wanted.map(|text| seen::canonical(column.type_, text));
            let found = found.as_ref().map(|text| seen::canonical(column.type_, text));
            assert!(found == wanted, "{source:?} to {sink:?}, {}: {found:.200?}, not {wanted:.200?}", column.type_);
        }
    }
    columns.iter().map(|column| column.type_).zip(table.types).skip(1).map(|(t, n)| (leak(t), n)).collect()
}

/// The column types are constants, though a column does not say so.
fn leak(type_: &str) -> &'static str {
    kinds().into_iter().find(|kind| kind.type_ == type_).unwrap().type_
}

/// Each value that a sink refuses, in a run of its own, which must end with the error and leave nothing.
async fn each_that_is_refused(source: Source, sink: Sink) {
    let world = World::new().await;
    for kind in &kinds() {
        let whole = kind.refused_by.iter().find(|(by, _)| *by == sink).map(|(_, code)| *code);
        for value in kind.values.iter().filter(|value| !value.not_in.contains(&source)) {
            let Some(code) = whole.or(value.refused_by(sink)) else { continue };
            let values = vec![Some(value.text.as_str())];
            let column = Column { name: "it".into(), type_: kind.type_, postgres: kind.postgres, values };
            let given = given::source(&world, source, &[column]).await;
            let message = world.run(&world.manifest("q", &manifest(&given, sink))).failed(12, code);
            let place = format!("{source:?} to {sink:?}, {} {}: {message}", kind.type_, value.label);
            // PostgreSQL names the column only in what it says of the row's values, which nobody shows.
            assert!(message.contains("it") && message.starts_with("spec.sinks[0]"), "{place}");
            let left = match sink {
                Sink::Postgres => {
                    Database::Postgres.tables(&world).await.into_iter().filter(|t| t != "given").collect()
                }
                Sink::Mysql => Database::Mysql.tables(&world).await,
                Sink::Sqlite => Database::Sqlite.tables(&world).await,
                Sink::Lake => world.parquet_files("out").await,
            };
            assert!(left.iter().all(|table| table.starts_with("_report_")), "{place}: {left:?}");
        }
    }
}

/// Runs on a thread of its own: the worker's runs block, and a connection that is being opened must not wait for one.
fn beside<F: Future<Output: Send + 'static>>(work: impl FnOnce() -> F + Send + 'static) -> JoinHandle<F::Output> {
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
    })
}

#[test]
fn every_value_survives_and_the_documentation_says_how() {
    let sources = Source::ALL.map(|source| {
        beside(move || async move {
            let mut types = Vec::new();
            for sink in Sink::ALL {
                each_that_is_refused(source, sink).await;
                types.push((sink, all_that_is_kept(source, sink).await));
            }
            types
        })
    });
    let (parquet, postgres, refused) = (beside(natives::parquet), beside(natives::postgres), beside(refused::texts));
    let mut sinks: BTreeMap<Sink, SinkTypes> = BTreeMap::new();
    for source in sources {
        for (sink, types) in source.join().unwrap() {
            // Whatever the source, a type becomes the same.
            let known = sinks.entry(sink).or_insert_with(|| types.clone());
            assert_eq!(*known, types, "{sink:?}");
        }
    }
    let page = PAGE
        .replace("{{sinks}}", sink_table(&sinks).trim_end())
        .replace("{{values}}", value_table().trim_end())
        .replace("{{postgres}}", postgres.join().unwrap().trim_end())
        .replace("{{parquet}}", parquet.join().unwrap().trim_end())
        .replace("{{texts}}", refused.join().unwrap().trim_end());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/types.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/types.md is not what the tests have seen: run UPDATE_DOCS=1 make test-worker TEST_ARGS=types:: and commit it"
    );
}

fn sink_table(sinks: &BTreeMap<Sink, SinkTypes>) -> String {
    let mut out =
        "| type | PostgreSQL | MySQL, MariaDB | SQLite | lake (Parquet) |\n|---|---|---|---|---|\n".to_owned();
    for kind in kinds() {
        let cells = Sink::ALL.map(|sink| match kind.refused_by.iter().find(|(by, _)| *by == sink) {
            Some((_, code)) => format!("error `{code}`"),
            None => sinks[&sink][kind.type_].clone(),
        });
        writeln!(out, "| {} | {} |", kind.type_, cells.join(" | ")).unwrap();
    }
    out
}

/// The values of each type, those with one fate in all sinks together.
fn value_table() -> String {
    let mut out =
        "| type | values | PostgreSQL | MySQL, MariaDB | SQLite | lake |\n|---|---|---|---|---|---|\n".to_owned();
    for kind in kinds() {
        let mut fates: Vec<([String; 4], Vec<&str>)> = Vec::new();
        for value in &kind.values {
            let fate = Sink::ALL.map(|sink| {
                let whole = kind.refused_by.iter().find(|(by, _)| *by == sink).map(|(_, code)| *code);
                match whole.or(value.refused_by(sink)) {
                    Some(code) => format!("error `{code}`"),
                    None if value.wanted(sink) != value.text => format!("`{}`, which is equal", value.wanted(sink)),
                    None => "exact".to_owned(),
                }
            });
            match fates.iter_mut().find(|(known, _)| *known == fate) {
                Some((_, labels)) => labels.push(&value.label),
                None => fates.push((fate, vec![&value.label])),
            }
        }
        for (fate, labels) in fates {
            writeln!(out, "| {} | {} | {} |", kind.type_, labels.join(", ").replace('|', "\\|"), fate.join(" | "))
                .unwrap();
        }
    }
    out
}

const PAGE: &str = "<!-- Written by `UPDATE_DOCS=1 make test-worker TEST_ARGS=types::`: do not edit. -->
# Types, from each source to each sink

Nothing is rounded, cut or turned into NULL silently. What a source or sink can't hold ends the run with an error by name
before anything is committed. Below is what the tests have seen (`etl-worker/tests/it/types.rs`): each value went through
the worker from each source that can hold it (CSV, JSON, NDJSON, Parquet, PostgreSQL) into each sink, and was read back by
another client. MySQL was MariaDB.

## What a sink makes of a column type

{{sinks}}

A table that exists may have other types, as long as they hold every value of the rows' type; the error
`schema_mismatch` says which do not.

## What becomes of values

NULL is exact everywhere, and told apart from the empty text.

{{values}}

- A float that is written in digits becomes the nearest one, as everywhere; one too large, or too small and not zero, is
  an error.
- JSON is kept as the text that it came in, except in PostgreSQL's `jsonb`, which has its own order and spaces; numbers
  keep all digits.
- In a lake, `uuid` and `json` are marked in the Arrow schema (`report:type`), and a `parquet` source reads them as such.
- Times in SQL count microseconds. A model's column with a finer time, such as a text with nine digits cast to a timestamp,
  ends the run with `value_invalid`; `date_trunc` cuts it.
- Numbers in SQL are exact or end the run with `value_invalid`: what `+`, `-`, `*` and `sum` make of integers and decimals
  never wraps around. What cuts, toward zero: a cast of a decimal or a float to an integer (`CAST(1.5 AS bigint)` is 1; write
  `CASE` for another rule), a division of integers, and a quotient or an `avg` of decimals, which has 4 more digits after the
  point than what is divided.

## PostgreSQL as a source

A column without a declaration comes in the type that it has here; declared as `string`, any type comes as the text that
PostgreSQL writes.

{{postgres}}

## Parquet as a source

{{parquet}}

## CSV, JSON and NDJSON as sources

Values that are no value of the declared type make the row a bad one, by the rule of `onBadRow`. Among others:

{{texts}}

`binary` is base64 with its padding (RFC 4648, section 4). A `json` column of a JSON or NDJSON source has the value as it
stands there, a text with its quotes; of a CSV source the field's text, which has to be JSON.
";
