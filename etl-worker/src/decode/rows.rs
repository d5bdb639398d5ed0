//! Collects values into batches of the contract's columns, and drives a text format's records.
//!
//! Memory: one batch under construction, of at most [`BATCH_ROWS_MAX`] rows; fewer where rows are wide, so that it stays
//! at about [`BATCH_BYTES_MAX`] bytes.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use report_api::checked::CheckedColumn;
use report_api::column::ColumnType;

use super::text::quoted;
use super::value::{self, Misfit};
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Decoder, arrow_type, schema};
use crate::error::{Code, Result, RunError};

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
pub(super) fn decoder(columns: &[CheckedColumn], records: impl Records) -> Decoder {
    let rows = Rows::new(columns);
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
        while !self.done && !self.rows.full() {
            match self.records.read(&mut self.rows) {
                Ok(more) => self.done = !more,
                Err(error) => {
                    self.done = true;
                    self.rows.rows = 0;
                    return Some(Err(error));
                }
            }
        }
        (self.rows.rows > 0).then(|| self.rows.take())
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
}

impl Rows {
    fn new(columns: &[CheckedColumn]) -> Self {
        let schema = schema(columns);
        let width = |column: &CheckedColumn| arrow_type(column.type_).primitive_width().unwrap_or(TEXT_BYTES_EXPECTED);
        let row_bytes = columns.iter().map(width).sum::<usize>().max(1);
        let rows_max = (BATCH_BYTES_MAX / row_bytes).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX);
        let builders = columns.iter().map(|column| Builder::new(column.type_, rows_max, 0)).collect();
        Self { columns: columns.to_vec(), schema, builders, rows: 0, rows_max, text_bytes: 0 }
    }

    /// Appends a column's value to the row: each column once a row, in any order. None is NULL. `place` is asked for
    /// only when there is something to say.
    pub(super) fn push(&mut self, column: usize, value: Option<&str>, place: impl FnOnce() -> Place) -> Result<()> {
        let builder = &mut self.builders[column];
        match value {
            Some(text) => {
                if matches!(builder, Builder::String(_)) {
                    self.text_bytes += text.len();
                }
                builder.append(text).map_err(|misfit| unfit(&self.columns[column], text, misfit, place()))
            }
            None if self.columns[column].required => Err(null(&self.columns[column], place())),
            None => {
                builder.append_null();
                Ok(())
            }
        }
    }

    /// Ends the row.
    pub(super) fn end(&mut self) {
        self.rows += 1;
    }

    fn full(&self) -> bool {
        self.rows >= self.rows_max || self.text_bytes >= BATCH_BYTES_MAX
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let arrays = self
            .builders
            .iter_mut()
            .zip(&self.columns)
            .map(|(builder, column)| {
                let next = Builder::new(column.type_, self.rows_max, builder.text_bytes());
                std::mem::replace(builder, next).finish()
            })
            .collect();
        (self.rows, self.text_bytes) = (0, 0);
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| RunError::new(Code::Internal, "a batch does not fit its columns").caused_by(error))
    }
}

/// A value that is not of its column's type.
fn unfit(column: &CheckedColumn, text: &str, misfit: Misfit, place: Place) -> RunError {
    let (name, value, type_) = (&column.name, quoted(text), column.type_);
    let message = format!(
        "{place}, column {name}: {value} is not {type_}{misfit}; correct the input, or make the column a string and cast it in a model"
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
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::String(builder) => builder.append_null(),
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
            Self::String(mut builder) => Arc::new(builder.finish()),
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
            Self::String(builder) => builder.values_slice().len().min(BATCH_BYTES_MAX),
            _ => 0,
        }
    }
}
