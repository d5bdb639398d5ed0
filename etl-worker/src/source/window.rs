//! What an incremental source reads: rows whose cursor is in `[start, bound)`, and the watermark that this leaves.
//!
//! # Guarantees
//! A row whose cursor lies at the bound is read by the next run, and by it alone: windows are half open. A watermark
//! never moves back. It is kept with the cursor's name, type and place, so that another cursor is an error and not a gap.
//!
//! Cursors are 64-bit counts here: whole numbers themselves, dates as days and timestamps as microseconds since 1970.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Date32Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use report_api::checked::{CheckedIncremental, CheckedSource, Late, PostgresRead, SourceKind};
use report_api::result::WatermarkResult;
use report_api::source::incremental::{Distance, Start};
use serde::{Deserialize, Serialize};

use super::Reading;
use crate::error::{Code, Result, RunError};

const DAY_SECONDS: i64 = 86_400;
const SECOND_MICROS: i64 = 1_000_000;

/// What a cursor's values are.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CursorType {
    /// A whole number.
    Integer,
    /// A day.
    Date,
    /// A time without a zone, taken as UTC.
    Timestamp,
    /// A point in time.
    TimestampTz,
}

/// The exclusive upper bound of the cursor values of a source that are committed, as the ledger keeps it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watermark {
    /// What was read: `postgres public.orders`, `http`.
    pub origin: String,
    /// The cursor's column.
    pub cursor: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub type_: CursorType,
    /// The bound, as text: 2026-01-01T00:00:00Z, 2026-01-01, 100.
    pub value: String,
}

/// What a run reads of an incremental source.
#[derive(Debug)]
pub struct Window {
    origin: String,
    cursor: String,
    type_: CursorType,
    /// The watermark before this run.
    after: Option<i64>,
    /// The first value that is read.
    start: Option<i64>,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    /// Known before the first row; None where there is no row yet.
    Fixed(Option<i64>),
    /// One above the greatest value, which shows only when all rows have passed.
    Greatest { any: AtomicBool, seen: AtomicI64 },
}

impl CursorType {
    /// The kind of cursor that a column can be.
    pub fn of(type_: &DataType) -> Option<Self> {
        match type_ {
            DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Self::Integer),
            DataType::Date32 => Some(Self::Date),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Some(Self::Timestamp),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Some(Self::TimestampTz),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Integer => "a whole number",
            Self::Date => "a date",
            Self::Timestamp => "a timestamp without a zone",
            Self::TimestampTz => "a timestamp with a zone",
        }
    }

    /// A count as text.
    pub fn text(self, count: i64) -> String {
        let time = match self {
            Self::Integer => return count.to_string(),
            Self::Date => count.checked_mul(DAY_SECONDS).and_then(|seconds| Timestamp::from_second(seconds).ok()),
            Self::Timestamp | Self::TimestampTz => Timestamp::from_microsecond(count).ok(),
        };
        // Only a value outside of the years that columns can have has none.
        let Some(time) = time else { return count.to_string() };
        let civil = time.to_zoned(TimeZone::UTC).datetime();
        match self {
            Self::Integer => count.to_string(),
            Self::Date => civil.date().to_string(),
            Self::Timestamp => civil.to_string(),
            Self::TimestampTz => time.to_string(),
        }
    }

    fn parse(self, text: &str) -> Option<i64> {
        match self {
            Self::Integer => text.parse().ok(),
            Self::Date => {
                let date: jiff::civil::Date = text.parse().ok()?;
                Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second() / DAY_SECONDS)
            }
            Self::Timestamp => {
                let time: jiff::civil::DateTime = text.parse().ok()?;
                Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
            }
            Self::TimestampTz => Some(text.parse::<Timestamp>().ok()?.as_microsecond()),
        }
    }

    /// A time as a count: of a date its day, which a time of that day is not before.
    fn of_time(self, time: Timestamp) -> Option<i64> {
        match self {
            Self::Integer => None,
            Self::Date => Some(time.as_microsecond().div_euclid(DAY_SECONDS * SECOND_MICROS)),
            Self::Timestamp | Self::TimestampTz => Some(time.as_microsecond()),
        }
    }

    fn of_distance(self, distance: Distance) -> Option<i64> {
        match (self, distance) {
            (Self::Integer, Distance::Count(count)) => i64::try_from(count).ok(),
            (Self::Date, Distance::Seconds(seconds)) => {
                // A part of a day is a day.
                Some((i64::try_from(seconds).ok()? + DAY_SECONDS - 1) / DAY_SECONDS)
            }
            (Self::Timestamp | Self::TimestampTz, Distance::Seconds(seconds)) => {
                i64::try_from(seconds).ok()?.checked_mul(SECOND_MICROS)
            }
            (Self::Integer, Distance::Seconds(_))
            | (Self::Date | Self::Timestamp | Self::TimestampTz, Distance::Count(_)) => None,
        }
    }
}

/// A cursor whose type is known, on its way to a [`Window`].
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    incremental: &'a CheckedIncremental,
    origin: String,
    /// What its values are.
    pub type_: CursorType,
    /// The watermark before this run.
    pub after: Option<i64>,
    /// The first value that is read.
    pub start: Option<i64>,
    /// How many numbers are left to the next run, where the cursor is a number.
    pub delay: i64,
}

impl<'a> Plan<'a> {
    /// Where reading goes on. `after` is what the ledger has of this source.
    pub fn new(
        source: &'a CheckedSource,
        incremental: &'a CheckedIncremental,
        type_: CursorType,
        after: Option<&Watermark>,
    ) -> Result<Self> {
        let origin = origin(source);
        let after = after.map(|watermark| known(watermark, &origin, type_, incremental)).transpose()?;
        let unlike = |option: &str, write: &str| {
            let message = format!("the cursor {} is {}; write {write}", incremental.cursor, type_.name());
            RunError::at(Code::ManifestInvalid, format!("{}.{option}", incremental.field), message)
        };
        let write = match type_ {
            CursorType::Integer => "a count, such as 1000",
            CursorType::Date | CursorType::Timestamp | CursorType::TimestampTz => "a span, such as 15m",
        };
        let (lag, delay) = match incremental.late {
            Late::Lag(lag) => (type_.of_distance(lag).ok_or_else(|| unlike("lag", write))?, 0),
            Late::Delay(delay) => (0, type_.of_distance(delay).ok_or_else(|| unlike("delay", write))?),
        };
        let initial = match incremental.initial {
            None => None,
            Some(Start::Number(number)) if type_ == CursorType::Integer => Some(number),
            Some(Start::Number(_)) => return Err(unlike("initial", "a time, such as 2024-01-01T00:00:00Z")),
            Some(Start::Time(time)) => Some(type_.of_time(time).ok_or_else(|| unlike("initial", "a whole number"))?),
        };
        let start = after.map(|after| after.saturating_sub(lag)).or(initial);
        Ok(Self { incremental, origin, type_, after, start, delay })
    }

    /// The bound by a clock, in microseconds since 1970.
    pub fn by_clock(&self, clock: i64) -> i64 {
        let delay = match self.incremental.late {
            Late::Delay(Distance::Seconds(seconds)) => i64::try_from(seconds).unwrap_or(i64::MAX),
            Late::Delay(Distance::Count(_)) | Late::Lag(_) => 0,
        };
        let time = clock.saturating_sub(delay.saturating_mul(SECOND_MICROS));
        match self.type_ {
            // A day is read when it is over.
            CursorType::Date => time.div_euclid(DAY_SECONDS * SECOND_MICROS),
            CursorType::Integer | CursorType::Timestamp | CursorType::TimestampTz => time,
        }
    }

    /// Fixes the bound. It never lies before what is committed, nor before where the first run starts.
    pub fn fixed(self, bound: Option<i64>) -> Window {
        let least = self.after.or(self.start);
        self.window(Bound::Fixed(bound.max(least)))
    }

    fn window(self, bound: Bound) -> Window {
        Window {
            origin: self.origin,
            cursor: self.incremental.cursor.clone(),
            type_: self.type_,
            after: self.after,
            start: self.start,
            bound,
        }
    }
}

/// What is read, so that a watermark is not taken for another table's.
fn origin(source: &CheckedSource) -> String {
    match &source.kind {
        SourceKind::Http(_) => "http".into(),
        SourceKind::File(_) => "file".into(),
        SourceKind::Postgres { read: PostgresRead::Table { schema, table }, .. } => {
            format!("postgres {schema}.{table}")
        }
        SourceKind::Postgres { read: PostgresRead::Query(_), .. } => "postgres query".into(),
    }
}

/// The watermark as a count, if it is this cursor's.
fn known(watermark: &Watermark, origin: &str, type_: CursorType, incremental: &CheckedIncremental) -> Result<i64> {
    const REMEDY: &str =
        "what is committed can't be told by it; set it back, or read everything again, once, by fullRefresh";
    let changed =
        |code, what: String| RunError::at(code, format!("{}.cursor", incremental.field), format!("{what}: {REMEDY}"));
    if watermark.cursor != incremental.cursor {
        let what = format!("the cursor was {} and now is {}", watermark.cursor, incremental.cursor);
        return Err(changed(Code::ManifestInvalid, what));
    }
    if watermark.origin != origin {
        let what = format!("the source was {} and now is {origin}", watermark.origin);
        return Err(changed(Code::ManifestInvalid, what));
    }
    if watermark.type_ != type_ {
        let what =
            format!("the cursor {} was {} and now is {}", watermark.cursor, watermark.type_.name(), type_.name());
        return Err(changed(Code::SchemaMismatch, what));
    }
    type_.parse(&watermark.value).ok_or_else(|| {
        RunError::at(Code::Internal, &incremental.field, "the ledger's watermark can't be read; use fullRefresh")
    })
}

impl Window {
    /// What of a decoded file is read. The bound is the end of the run's interval, or for numbers the greatest one.
    pub fn of_file(
        source: &CheckedSource,
        incremental: &CheckedIncremental,
        schema: &SchemaRef,
        reading: Reading<'_>,
    ) -> Result<Self> {
        let type_ = cursor_type(incremental, schema)?;
        let plan = Plan::new(source, incremental, type_, reading.watermarks.get(&source.name))?;
        if type_ == CursorType::Integer {
            if plan.delay > 0 {
                let message = "the newest rows of a file can't be left out: its greatest number is known only when it is read; write delay: 0, or lag";
                return Err(RunError::at(Code::ManifestInvalid, format!("{}.delay", incremental.field), message));
            }
            return Ok(plan.window(Bound::Greatest { any: AtomicBool::new(false), seen: AtomicI64::new(i64::MIN) }));
        }
        let bound = reading.until.map(|until| plan.by_clock(until.as_microsecond()));
        Ok(plan.fixed(bound))
    }

    /// The first value that is read.
    pub fn start(&self) -> Option<i64> {
        self.start
    }

    /// The first value that is not read any more, where it is known before the rows.
    pub fn bound(&self) -> Option<i64> {
        match &self.bound {
            Bound::Fixed(bound) => *bound,
            Bound::Greatest { .. } => None,
        }
    }

    /// What its values are.
    pub fn cursor_type(&self) -> CursorType {
        self.type_
    }

    /// The watermark that a commit leaves. `is_complete`: whether all rows were read, without which the greatest number
    /// is not known and the watermark stays.
    pub fn watermark(&self, is_complete: bool) -> Option<Watermark> {
        let value = self.end(is_complete)?;
        Some(Watermark {
            origin: self.origin.clone(),
            cursor: self.cursor.clone(),
            type_: self.type_,
            value: self.type_.text(value),
        })
    }

    /// What was read, for the run's result.
    pub fn result(&self, is_complete: bool) -> WatermarkResult {
        let text = |count| self.type_.text(count);
        WatermarkResult { from: self.start.map(text), to: self.end(is_complete).map(text) }
    }

    fn end(&self, is_complete: bool) -> Option<i64> {
        match &self.bound {
            Bound::Fixed(bound) => *bound,
            Bound::Greatest { any, seen } => {
                let seen = (is_complete && any.load(Ordering::Relaxed)).then(|| seen.load(Ordering::Relaxed));
                seen.map(|seen| seen.saturating_add(1)).max(self.after)
            }
        }
    }

    /// The rows of a batch that are in the window.
    fn filter(&self, batch: &RecordBatch, column: usize) -> Result<RecordBatch> {
        let internal = |error| RunError::new(Code::Internal, "rows can't be filtered by a cursor").caused_by(error);
        let counts = counts(batch.column(column)).ok_or_else(|| internal("its type has changed".into()))?;
        let (start, end) = (self.start.unwrap_or(i64::MIN), self.bound());
        let mask: BooleanArray =
            counts.iter().map(|count| Some(*count >= start && end.is_none_or(|end| *count < end))).collect();
        if let (Bound::Greatest { any, seen }, Some(greatest)) = (&self.bound, counts.iter().max()) {
            // A number that nothing can be above would never be left behind.
            if *greatest == i64::MAX {
                let message = format!("the cursor {} has its greatest possible value; correct the row", self.cursor);
                return Err(RunError::new(Code::ValueInvalid, message));
            }
            seen.fetch_max(*greatest, Ordering::Relaxed);
            any.store(true, Ordering::Relaxed);
        }
        filter_record_batch(batch, &mask).map_err(|error| internal(error.to_string()))
    }
}

/// Values of a column as counts; none may be NULL.
fn counts(array: &ArrayRef) -> Option<Vec<i64>> {
    Some(match CursorType::of(array.data_type())? {
        CursorType::Integer => match array.data_type() {
            DataType::Int16 => array.as_primitive::<Int16Type>().values().iter().map(|n| i64::from(*n)).collect(),
            DataType::Int32 => array.as_primitive::<Int32Type>().values().iter().map(|n| i64::from(*n)).collect(),
            _ => array.as_primitive::<Int64Type>().values().to_vec(),
        },
        CursorType::Date => array.as_primitive::<Date32Type>().values().iter().map(|n| i64::from(*n)).collect(),
        CursorType::Timestamp | CursorType::TimestampTz => {
            array.as_primitive::<TimestampMicrosecondType>().values().to_vec()
        }
    })
}

fn cursor_type(incremental: &CheckedIncremental, schema: &SchemaRef) -> Result<CursorType> {
    let field = format!("{}.cursor", incremental.field);
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    let Ok(column) = schema.field_with_name(&incremental.cursor) else {
        return Err(no_column(&incremental.cursor, names(), field));
    };
    CursorType::of(column.data_type()).ok_or_else(|| {
        let message = format!(
            "the column {} is of type {}, which can't be a cursor; take a timestamp, a date or a whole number",
            incremental.cursor,
            column.data_type()
        );
        RunError::at(Code::TypeUnsupported, field, message)
    })
}

/// A cursor that is no column.
pub(super) fn no_column<'a>(cursor: &str, names: impl Iterator<Item = &'a str> + Clone, field: String) -> RunError {
    let hint = report_api::problem::near(cursor, names.clone()).map_or_else(
        || format!("it has {}", names.collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean {near}?"),
    );
    RunError::at(Code::ColumnMissing, field, format!("there is no column {cursor}; {hint}"))
}

/// Rows whose cursor is NULL: no window would ever have them.
pub(super) fn null_cursors(count: u64, incremental: &CheckedIncremental) -> RunError {
    let message = format!(
        "{count} rows have NULL in the cursor {}, so that no run would read them; fill the column, or leave the rows out where they come from, such as by a query with IS NOT NULL",
        incremental.cursor
    );
    RunError::at(Code::ValueInvalid, format!("{}.cursor", incremental.field), message)
}

/// The batches of a file that are in a window. All rows are looked at, so that NULLs are counted.
pub(crate) struct Windowed {
    batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
    window: Arc<Window>,
    incremental: CheckedIncremental,
    column: usize,
    nulls: u64,
    done: bool,
}

impl Windowed {
    /// Filters the batches of this schema.
    pub(crate) fn new(
        batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
        window: Arc<Window>,
        incremental: &CheckedIncremental,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let column = schema
            .index_of(&incremental.cursor)
            .map_err(|error| RunError::at(Code::Internal, &incremental.field, "the cursor is gone").caused_by(error))?;
        Ok(Self { batches, window, incremental: incremental.clone(), column, nulls: 0, done: false })
    }
}

impl Iterator for Windowed {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let Some(batch) = self.batches.next() else {
                self.done = true;
                return (self.nulls > 0).then(|| Err(null_cursors(self.nulls, &self.incremental)));
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            self.nulls += batch.column(self.column).null_count() as u64;
            if self.nulls > 0 {
                continue;
            }
            match self.window.filter(&batch, self.column) {
                Ok(rows) if rows.num_rows() == 0 => {}
                Ok(rows) => return Some(Ok(rows)),
                Err(mut error) => {
                    self.done = true;
                    error.field = Some(format!("{}.cursor", self.incremental.field));
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::CursorType;

    #[test]
    fn watermarks_read_as_they_were_written() {
        for (type_, count, text) in [
            (CursorType::Integer, -5, "-5"),
            (CursorType::Date, 0, "1970-01-01"),
            (CursorType::Date, -1, "1969-12-31"),
            (CursorType::Timestamp, 1, "1970-01-01T00:00:00.000001"),
            (CursorType::TimestampTz, 1_767_225_600_000_000, "2026-01-01T00:00:00Z"),
            (CursorType::TimestampTz, -1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(type_.text(count), text);
            assert_eq!(type_.parse(text), Some(count), "{text}");
        }
    }
}
