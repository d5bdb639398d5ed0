//! What a database sink is to do with the rows of a run, and what must hold for them: checked while they pass, once for
//! all databases, so that a commit can't meet it when other sinks have committed.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use futures::{StreamExt, TryStreamExt};
use report_api::checked::{CheckedSink, DeleteBy, SinkMode};
use report_api::interval::Interval;
use report_api::sink::ReplaceBy;

use super::PreparedMode;
use super::latest::Latest;
use crate::error::{Code, Result, RunError};
use crate::observe::RowStream;

const DAY_MICROS: i64 = 86_400_000_000;

/// What becomes of a run's rows.
#[derive(Debug)]
pub(super) struct Load {
    /// How they take their place, as the manifest wants it.
    pub(super) mode: PreparedMode,
    /// The columns that are written.
    pub(super) written: SchemaRef,
    rules: Vec<Rule>,
    latest: Option<Latest>,
}

impl Load {
    /// Finds the columns that the mode names, and refuses those that can't be what the mode takes them for.
    pub(super) fn new(spec: &CheckedSink, schema: &SchemaRef, interval: &Interval) -> Result<Self> {
        let mut load =
            Self { mode: PreparedMode::Append, written: Arc::clone(schema), rules: Vec::new(), latest: None };
        let field = format!("{}.mode", spec.field);
        for column in &spec.primary_key {
            position(schema, column, &format!("{}.primaryKey", spec.field), spec)?;
        }
        for (n, index) in spec.indexes.iter().enumerate() {
            for column in index {
                position(schema, column, &format!("{}.indexes[{n}]", spec.field), spec)?;
            }
        }
        load.mode = match &spec.mode {
            SinkMode::Replace(ReplaceBy::Swap) => PreparedMode::Swap,
            SinkMode::Replace(ReplaceBy::Rows) => PreparedMode::ReplaceRows,
            SinkMode::Append => PreparedMode::Append,
            SinkMode::Merge { key, latest_by, only_if_newer, delete_when } => {
                let at = format!("{field}.merge.key");
                let key_positions = positions(schema, key, &at, spec)?;
                load.rules.push(Rule::not_null(at, format!("the key ({})", key.join(", ")), key_positions.clone()));
                for (option, column) in [("dedupe.latestBy", latest_by), ("onlyIfNewer", only_if_newer)] {
                    if let Some(column) = column {
                        let at = format!("{field}.merge.{option}");
                        let by = position(schema, column, &at, spec)?;
                        load.rules.push(Rule::not_null(at.clone(), column.clone(), vec![by]));
                        if option == "dedupe.latestBy" {
                            load.latest = Some(Latest {
                                field: at,
                                key: key.clone(),
                                by_name: column.clone(),
                                by,
                                key_positions: key_positions.clone(),
                            });
                        }
                    }
                }
                if let Some(column) = delete_when {
                    let at = format!("{field}.merge.deleteWhen");
                    let flag = position(schema, column, &at, spec)?;
                    let type_ = schema.field(flag).data_type();
                    if *type_ != DataType::Boolean {
                        let message = format!(
                            "{column} is {type_}, not boolean; compute it in a model, such as status = 'deleted' AS is_deleted"
                        );
                        return Err(RunError::at(Code::SqlInvalid, at, message));
                    }
                    load.rules.push(Rule::not_null(at, column.clone(), vec![flag]));
                    let others: Vec<_> =
                        schema.fields().iter().filter(|field| field.name() != column).cloned().collect();
                    load.written = Arc::new(Schema::new(others));
                }
                PreparedMode::Merge {
                    key: key.clone(),
                    only_if_newer: only_if_newer.clone(),
                    delete_when: delete_when.clone(),
                }
            }
            SinkMode::DeleteInsert(DeleteBy::Interval(column)) => {
                let at = format!("{field}.deleteInsert.interval");
                let position = position(schema, column, &at, spec)?;
                let inside = Inside::new(column, schema.field(position).data_type(), position, interval, at)?;
                let (from, to) = inside.texts();
                load.rules.push(Rule::Inside(inside));
                PreparedMode::DeleteInterval { column: column.clone(), from, to }
            }
            SinkMode::DeleteInsert(DeleteBy::Partition(columns)) => {
                let at = format!("{field}.deleteInsert.partition");
                let of = positions(schema, columns, &at, spec)?;
                load.rules.push(Rule::not_null(at, format!("the partition ({})", columns.join(", ")), of));
                PreparedMode::DeletePartitions { columns: columns.clone() }
            }
        };
        Ok(load)
    }

    /// The columns that are written.
    pub(super) fn columns(&self) -> Vec<String> {
        self.written.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The rows that are to be staged. They end with an error if some of them are not what the mode needs.
    pub(super) fn pass(self, rows: RowStream) -> RowStream {
        // The run's table is there, without rows.
        crate::crash::point("in_stage");
        let checked = if self.rules.is_empty() { rows } else { checked(rows, self.rules) };
        match self.latest {
            None => checked,
            Some(latest) => latest.of(checked),
        }
    }
}

/// The order in which the rows have to come.
pub(super) fn order(spec: &CheckedSink) -> Vec<String> {
    match &spec.mode {
        SinkMode::Merge { key, latest_by: Some(by), .. } => [key.as_slice(), std::slice::from_ref(by)].concat(),
        SinkMode::Merge { latest_by: None, .. }
        | SinkMode::Replace(_)
        | SinkMode::Append
        | SinkMode::DeleteInsert(_) => Vec::new(),
    }
}

fn position(schema: &SchemaRef, column: &str, field: &str, spec: &CheckedSink) -> Result<usize> {
    schema.index_of(column).map_err(|_| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let hint = report_api::problem::near(column, names.clone()).map_or_else(
            || format!("it has {}", names.collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near}?"),
        );
        RunError::at(Code::SqlInvalid, field, format!("{} has no column {column}; {hint}", spec.from))
    })
}

fn positions(schema: &SchemaRef, columns: &[String], field: &str, spec: &CheckedSink) -> Result<Vec<usize>> {
    columns.iter().map(|column| position(schema, column, field, spec)).collect()
}

/// What must hold for every row.
#[derive(Debug)]
enum Rule {
    NotNull { field: String, what: String, positions: Vec<usize>, nulls: u64 },
    Inside(Inside),
}

impl Rule {
    fn not_null(field: String, what: String, positions: Vec<usize>) -> Self {
        Self::NotNull { field, what, positions, nulls: 0 }
    }

    fn see(&mut self, batch: &RecordBatch) {
        match self {
            Self::NotNull { positions, nulls, .. } => {
                let columns: Vec<_> = positions.iter().map(|at| batch.column(*at)).collect();
                if columns.iter().any(|column| column.logical_null_count() > 0) {
                    let is_null = |row: &usize| columns.iter().any(|column| column.is_null(*row));
                    *nulls += (0..batch.num_rows()).filter(is_null).count() as u64;
                }
            }
            Self::Inside(inside) => inside.see(batch),
        }
    }

    fn failure(&self) -> Option<RunError> {
        match self {
            Self::NotNull { nulls: 0, .. } => None,
            Self::NotNull { field, what, nulls, .. } => Some(RunError::at(
                Code::KeyInvalid,
                field,
                format!(
                    "{nulls} rows have NULL in {what}; fill it in the model, leave them out, or name another column"
                ),
            )),
            Self::Inside(inside) => inside.failure(),
        }
    }
}

/// Counts rows outside of the run's interval.
#[derive(Debug)]
struct Inside {
    field: String,
    column: String,
    position: usize,
    interval: Interval,
    /// Days or microseconds since 1970: the first one inside, and the first one after.
    bounds: (i64, i64),
    kind: TimeKind,
    outside: u64,
    nulls: u64,
}

#[derive(Clone, Copy, Debug)]
enum TimeKind {
    Date,
    Local,
    Zoned,
}

impl Inside {
    fn new(column: &str, type_: &DataType, position: usize, interval: &Interval, field: String) -> Result<Self> {
        let kind = match type_ {
            DataType::Date32 => TimeKind::Date,
            DataType::Timestamp(TimeUnit::Microsecond, None) => TimeKind::Local,
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => TimeKind::Zoned,
            other => {
                let message = format!("{column} is {other}, not a date or timestamp; cast it in a model");
                return Err(RunError::at(Code::SqlInvalid, field, message));
            }
        };
        let bounds = (interval.start.as_microsecond(), interval.end.as_microsecond());
        let bounds = match kind {
            // The days whose midnight lies inside.
            TimeKind::Date => (day_at_or_after(bounds.0), day_at_or_after(bounds.1)),
            TimeKind::Local | TimeKind::Zoned => bounds,
        };
        let column = column.to_owned();
        Ok(Self { field, column, position, interval: *interval, bounds, kind, outside: 0, nulls: 0 })
    }

    /// The bounds as sinks write such values.
    fn texts(&self) -> (String, String) {
        let text = |at: i64| {
            let form = match self.kind {
                TimeKind::Date => "%Y-%m-%d",
                TimeKind::Local => "%Y-%m-%d %H:%M:%S%.6f",
                TimeKind::Zoned => "%Y-%m-%d %H:%M:%S%.6f+00:00",
            };
            let time = match self.kind {
                TimeKind::Date => i32::try_from(at).ok().and_then(date32_to_datetime),
                TimeKind::Local | TimeKind::Zoned => timestamp_us_to_datetime(at),
            };
            time.map(|time| time.format(form).to_string()).unwrap_or_default()
        };
        (text(self.bounds.0), text(self.bounds.1))
    }

    fn see(&mut self, batch: &RecordBatch) {
        let column = batch.column(self.position);
        let (from, to) = self.bounds;
        let is_outside = |value: i64| value < from || value >= to;
        self.nulls += column.logical_null_count() as u64;
        self.outside += match self.kind {
            TimeKind::Date => {
                let days = column.as_primitive::<Date32Type>();
                days.iter().flatten().filter(|day| is_outside(i64::from(*day))).count() as u64
            }
            TimeKind::Local | TimeKind::Zoned => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                times.iter().flatten().filter(|time| is_outside(*time)).count() as u64
            }
        };
    }

    fn failure(&self) -> Option<RunError> {
        let (column, interval) = (&self.column, &self.interval);
        let message = if self.outside > 0 {
            format!(
                "{} rows lie outside of the run's interval {interval} by {column}, and would be there twice after the \
                 next run; keep those of the interval in the model: WHERE {column} >= … AND {column} < …",
                self.outside
            )
        } else if self.nulls > 0 {
            format!(
                "{} rows have NULL in {column}, and so no place in the interval; fill it, or leave them out",
                self.nulls
            )
        } else {
            return None;
        };
        Some(RunError::at(Code::ValueInvalid, &self.field, message))
    }
}

fn day_at_or_after(micros: i64) -> i64 {
    micros.div_euclid(DAY_MICROS) + i64::from(micros.rem_euclid(DAY_MICROS) > 0)
}

fn checked(rows: RowStream, rules: Vec<Rule>) -> RowStream {
    futures::stream::try_unfold((rows, rules), |(mut rows, mut rules)| async move {
        match rows.try_next().await? {
            Some(batch) => {
                rules.iter_mut().for_each(|rule| rule.see(&batch));
                Ok(Some((batch, (rows, rules))))
            }
            None => rules.iter().find_map(Rule::failure).map_or(Ok(None), Err),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_lies_in_an_interval_if_its_midnight_does() {
        for (start, end, want) in [
            ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", ("2026-01-01", "2026-01-02")),
            ("2026-01-01T06:00:00Z", "2026-01-02T06:00:00Z", ("2026-01-02", "2026-01-03")),
            ("1969-12-31T06:00:00Z", "1970-01-01T00:00:00Z", ("1970-01-01", "1970-01-01")),
        ] {
            let interval = Interval { start: start.parse().unwrap(), end: end.parse().unwrap() };
            let inside = Inside::new("day", &DataType::Date32, 0, &interval, "f".into()).unwrap();
            assert_eq!(inside.texts(), (want.0.to_owned(), want.1.to_owned()), "{interval}");
        }
    }
}
