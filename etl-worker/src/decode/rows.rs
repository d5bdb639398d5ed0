//! Collects values into batches of the contract's columns, and drives a text format's records.
//!
//! A bad row is completed with NULLs and taken out when its batch is done, so that good rows pay nothing for it.
//! Memory: one batch under construction, of at most [`BATCH_ROWS_MAX`] rows; fewer where rows are wide, so that it stays
//! at about [`BATCH_BYTES_MAX`] bytes.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use report_api::checked::{CheckedColumn, Written};
use report_api::column::ColumnType;
use uuid::fmt::Hyphenated;

use super::text::quoted;
use super::value::{self, Misfit};
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Decoder, arrow_type, marked, schema};
use crate::error::{Code, Result, RunError};
use crate::rejected::SourceLog;

/// What a text is taken to need, when the size of a batch is planned.
const TEXT_BYTES_EXPECTED: usize = 16;
/// Fewest rows that a batch is planned for, however many columns there are.
const BATCH_ROWS_MIN: usize = 64;

/// Where a value stands in its input, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// A line of the file.
    Line(u64),
    /// A row of the data.
    Row(u64),
}

impl Place {
    /// Its number.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Line(number) | Self::Row(number) => number,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// A format's records, one after another.
pub(super) trait Records: Send + 'static {
    /// Reads the next record into `rows`, which it ends there; false at the end of the input. It is not called again
    /// after that, nor after an error.
    fn read(&mut self, rows: &mut Rows) -> Result<bool>;
}

/// A decoder over records.
pub(super) fn decoder(columns: &[CheckedColumn], log: &Arc<SourceLog>, records: impl Records) -> Decoder {
    let rows = Rows::new(columns, Arc::clone(log));
    Decoder { schema: Arc::clone(&rows.schema), batches: Box::new(Batches { records, rows, done: false }) }
}

struct Batches<R> {
    records: R,
    rows: Rows,
    done: bool,
}

impl<R: Records> Iterator for Batches<R> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while !self.done && !self.rows.full() {
                match self.records.read(&mut self.rows) {
                    Ok(more) => self.done = !more,
                    Err(error) => {
                        self.done = true;
                        return Some(Err(self.rows.end_by(error)));
                    }
                }
            }
            if self.rows.rows == 0 {
                // The end. An error here is the last thing that is said.
                return (!self.rows.is_over).then(|| self.rows.verdict()).flatten().map(Err);
            }
            match self.rows.take() {
                // All of its rows were bad.
                Ok(batch) if batch.num_rows() == 0 => {}
                taken => return Some(taken),
            }
        }
    }
}

/// A batch under construction.
pub(super) struct Rows {
    columns: Vec<CheckedColumn>,
    schema: SchemaRef,
    builders: Vec<Builder>,
    rows: usize,
    rows_max: usize,
    text_bytes: usize,
    log: Arc<SourceLog>,
    /// What is wrong with the row that is under way.
    wrong: Option<Wrong>,
    /// The bad rows of this batch.
    bad: Vec<usize>,
    /// Where a number is put together that is written in another way.
    scratch: String,
    is_over: bool,
}

struct Wrong {
    place: Place,
    column: String,
    error: RunError,
}

impl Rows {
    /// A batch of these columns; without any, rows are only counted.
    pub(super) fn new(columns: &[CheckedColumn], log: Arc<SourceLog>) -> Self {
        let schema = schema(columns);
        let width = |column: &CheckedColumn| arrow_type(column.type_).primitive_width().unwrap_or(TEXT_BYTES_EXPECTED);
        let row_bytes = columns.iter().map(width).sum::<usize>().max(1);
        let rows_max = (BATCH_BYTES_MAX / row_bytes).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX);
        let builders = columns.iter().map(|column| Builder::new(column.type_, rows_max, 0)).collect();
        Self {
            columns: columns.to_vec(),
            schema,
            builders,
            rows: 0,
            rows_max,
            text_bytes: 0,
            log,
            wrong: None,
            bad: Vec::new(),
            scratch: String::new(),
            is_over: false,
        }
    }

    /// Whether no message may show a value.
    pub(super) fn is_masked(&self) -> bool {
        self.log.masks().any()
    }

    /// Appends a column's value to the row: each column once a row, in any order. None is NULL. `place` is asked for
    /// only when there is something to say.
    pub(super) fn push(&mut self, column: usize, value: Option<&str>, place: impl FnOnce() -> Place) -> Result<()> {
        let builder = &mut self.builders[column];
        let appended = match (value, &self.columns[column].written) {
            (Some(text), Written::Plain) => {
                if builder.has_text() {
                    self.text_bytes += text.len();
                }
                builder.append(text)
            }
            (Some(text), Written::Number { decimal, group }) => {
                value::number(text, *decimal, *group, &mut self.scratch).and_then(|()| builder.append(&self.scratch))
            }
            (Some(text), Written::Time(format)) => builder.append_time(text, format),
            (None, _) if self.columns[column].required => {
                let place = place();
                return self.bad(column, null(&self.columns[column], place), || place);
            }
            (None, _) => {
                builder.append_null();
                Ok(())
            }
        };
        appended.or_else(|misfit| {
            let place = place();
            let shown = value.filter(|_| !self.is_masked());
            let error = unfit(&self.columns[column], shown, misfit, place);
            self.bad(column, error, || place)
        })
    }

    /// Instead of `push`: the column's value is bad, and so is the row.
    pub(super) fn bad(&mut self, column: usize, error: RunError, place: impl FnOnce() -> Place) -> Result<()> {
        if self.log.fails() {
            return Err(error);
        }
        self.builders[column].append_null();
        if self.wrong.is_none() {
            self.wrong = Some(Wrong { place: place(), column: self.columns[column].name.clone(), error });
        }
        Ok(())
    }

    /// Ends the row. `raw` is what it was made of; it is asked for only where that is kept.
    pub(super) fn end(&mut self, raw: impl FnOnce() -> Vec<u8>) -> Result<()> {
        self.rows += 1;
        if let Some(wrong) = self.wrong.take() {
            self.bad.push(self.rows - 1);
            self.log.reject(wrong.place.number(), Some(&wrong.column), wrong.error, raw)?;
        }
        Ok(())
    }

    /// Instead of `end`, wherever the row is: the whole record is bad.
    pub(super) fn reject(&mut self, error: RunError, place: Place, raw: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let rows = self.rows;
        self.builders.iter_mut().filter(|builder| builder.rows() == rows).for_each(Builder::append_null);
        self.bad.push(rows);
        self.rows += 1;
        self.wrong = None;
        self.log.reject(place.number(), None, error, raw)
    }

    /// Forgets the rows, which nobody wants.
    pub(super) fn clear(&mut self) {
        (self.rows, self.wrong) = (0, None);
        self.bad.clear();
    }

    /// Nothing comes any more, since this has happened.
    fn end_by(&mut self, error: RunError) -> RunError {
        self.is_over = true;
        self.rows = 0;
        error
    }

    /// At the end: whether too many rows were bad.
    fn verdict(&mut self) -> Option<RunError> {
        self.is_over = true;
        self.log.verdict().err()
    }

    fn full(&self) -> bool {
        self.rows >= self.rows_max || self.text_bytes >= BATCH_BYTES_MAX
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = self
            .builders
            .iter_mut()
            .zip(&self.columns)
            .map(|(builder, column)| {
                let next = Builder::new(column.type_, self.rows_max, builder.text_bytes());
                std::mem::replace(builder, next).finish()
            })
            .collect();
        let misfit = |error| RunError::new(Code::Internal, "a batch does not fit its columns").caused_by(error);
        if !self.bad.is_empty() {
            let mut good = vec![true; self.rows];
            self.bad.drain(..).for_each(|row| good[row] = false);
            let good = BooleanArray::from(good);
            arrays = arrays.iter().map(|array| filter(array, &good)).collect::<Result<_, _>>().map_err(misfit)?;
        }
        (self.rows, self.text_bytes) = (0, 0);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(misfit)?;
        self.log.count(batch.num_rows());
        Ok(batch)
    }
}

/// A value that is not of its column's type; None for one of a masked source, which nobody may see.
fn unfit(column: &CheckedColumn, text: Option<&str>, misfit: Misfit, place: Place) -> RunError {
    let (name, type_) = (&column.name, column.type_);
    let value = text.map_or_else(|| "the value".to_owned(), quoted);
    let written = match &column.written {
        Written::Plain => String::new(),
        Written::Number { decimal, group: None } => format!(" with {decimal:?} before the fraction"),
        Written::Number { decimal, group: Some(group) } => {
            format!(" with {decimal:?} before the fraction and {group:?} between thousands")
        }
        Written::Time(format) => format!(" as {format}"),
    };
    let message = format!(
        "{place}, column {name}: {value} is not {type_}{written}{misfit}; correct the input, or make the column a string and cast it in a model"
    );
    RunError::at(Code::ValueInvalid, &column.field, message)
}

/// A NULL in a required column.
pub(super) fn null(column: &CheckedColumn, place: Place) -> RunError {
    let message = format!(
        "{place}, column {}: NULL in a required column; fill it in the input, or set required: false",
        column.name
    );
    RunError::at(Code::ValueInvalid, &column.field, message)
}

enum Builder {
    String(StringBuilder),
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal { builder: Decimal128Builder, precision: u8, scale: u8 },
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Binary(BinaryBuilder),
    Uuid(StringBuilder),
    Json(StringBuilder),
}

impl Builder {
    fn new(type_: ColumnType, rows: usize, text_bytes: usize) -> Self {
        match type_ {
            ColumnType::String => Self::String(StringBuilder::with_capacity(rows, text_bytes)),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            ColumnType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            ColumnType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            ColumnType::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            ColumnType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            ColumnType::Decimal { precision, scale } => {
                let builder = Decimal128Builder::with_capacity(rows).with_data_type(arrow_type(type_));
                Self::Decimal { builder, precision, scale }
            }
            ColumnType::Date => Self::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows)),
            ColumnType::TimestampTz => {
                let builder = TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(arrow_type(type_));
                Self::TimestampTz(builder)
            }
            ColumnType::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, text_bytes)),
            ColumnType::Uuid => Self::Uuid(StringBuilder::with_capacity(rows, text_bytes)),
            ColumnType::Json => Self::Json(StringBuilder::with_capacity(rows, text_bytes)),
        }
    }

    fn append(&mut self, text: &str) -> Result<(), Misfit> {
        match self {
            Self::String(builder) => builder.append_value(text),
            Self::Boolean(builder) => builder.append_value(value::boolean(text)?),
            Self::Int16(builder) => builder.append_value(value::integer(text)?),
            Self::Int32(builder) => builder.append_value(value::integer(text)?),
            Self::Int64(builder) => builder.append_value(value::integer(text)?),
            Self::Float32(builder) => builder.append_value(value::float32(text)?),
            Self::Float64(builder) => builder.append_value(value::float64(text)?),
            Self::Decimal { builder, precision, scale } => {
                builder.append_value(value::decimal(text, *precision, *scale)?);
            }
            Self::Date(builder) => builder.append_value(value::day(text)?),
            Self::Timestamp(builder) => builder.append_value(value::timestamp(text)?),
            Self::TimestampTz(builder) => builder.append_value(value::timestamptz(text)?),
            Self::Binary(builder) => builder.append_value(marked::binary(text)?),
            Self::Uuid(builder) => builder.append_value(marked::uuid(text, &mut [0; Hyphenated::LENGTH])?),
            Self::Json(builder) => {
                marked::json(text)?;
                builder.append_value(text);
            }
        }
        Ok(())
    }

    /// Appends a date or time that is written by a format of strptime.
    fn append_time(&mut self, text: &str, format: &str) -> Result<(), Misfit> {
        match self {
            Self::Date(builder) => builder.append_value(value::formatted_day(text, format)?),
            Self::Timestamp(builder) => builder.append_value(value::formatted_timestamp(text, format)?),
            Self::TimestampTz(builder) => builder.append_value(value::formatted_timestamptz(text, format)?),
            // Validation gives formats to dates and times only.
            Self::String(_)
            | Self::Boolean(_)
            | Self::Int16(_)
            | Self::Int32(_)
            | Self::Int64(_)
            | Self::Float32(_)
            | Self::Float64(_)
            | Self::Decimal { .. }
            | Self::Binary(_)
            | Self::Uuid(_)
            | Self::Json(_) => self.append(text)?,
        }
        Ok(())
    }

    /// How many values it holds.
    fn rows(&self) -> usize {
        match self {
            Self::String(builder) | Self::Uuid(builder) | Self::Json(builder) => builder.len(),
            Self::Binary(builder) => builder.len(),
            Self::Boolean(builder) => builder.len(),
            Self::Int16(builder) => builder.len(),
            Self::Int32(builder) => builder.len(),
            Self::Int64(builder) => builder.len(),
            Self::Float32(builder) => builder.len(),
            Self::Float64(builder) => builder.len(),
            Self::Decimal { builder, .. } => builder.len(),
            Self::Date(builder) => builder.len(),
            Self::Timestamp(builder) | Self::TimestampTz(builder) => builder.len(),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::String(builder) | Self::Uuid(builder) | Self::Json(builder) => builder.append_null(),
            Self::Binary(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Decimal { builder, .. } => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Timestamp(builder) | Self::TimestampTz(builder) => builder.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::String(mut builder) | Self::Uuid(mut builder) | Self::Json(mut builder) => Arc::new(builder.finish()),
            Self::Binary(mut builder) => Arc::new(builder.finish()),
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Int16(mut builder) => Arc::new(builder.finish()),
            Self::Int32(mut builder) => Arc::new(builder.finish()),
            Self::Int64(mut builder) => Arc::new(builder.finish()),
            Self::Float32(mut builder) => Arc::new(builder.finish()),
            Self::Float64(mut builder) => Arc::new(builder.finish()),
            Self::Decimal { mut builder, .. } => Arc::new(builder.finish()),
            Self::Date(mut builder) => Arc::new(builder.finish()),
            Self::Timestamp(mut builder) | Self::TimestampTz(mut builder) => Arc::new(builder.finish()),
        }
    }

    /// What the texts of this batch took: the next one will be like it.
    fn text_bytes(&self) -> usize {
        match self {
            Self::String(builder) | Self::Uuid(builder) | Self::Json(builder) => {
                builder.values_slice().len().min(BATCH_BYTES_MAX)
            }
            Self::Binary(builder) => builder.values_slice().len().min(BATCH_BYTES_MAX),
            _ => 0,
        }
    }

    /// Whether its values have a length of their own.
    fn has_text(&self) -> bool {
        matches!(self, Self::String(_) | Self::Binary(_) | Self::Uuid(_) | Self::Json(_))
    }
}
