//! Format `parquet`: a Parquet file, with the columns of the contract or its own.
//!
//! With columns, only those are read; a type that is not the contract's has to fit into it without loss. Without, all
//! are read under their snake_case names, as the nearest of our types. Memory: a page of each column and one batch.
//! Errors: `type_unsupported` by the column's name, `column_missing`, `value_invalid` for a NULL in a required column.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Fields, SchemaRef, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use report_api::checked::{CheckedColumn, CheckedSource};
use report_api::column::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, ColumnType, snake_case};

use super::rows::{Place, null};
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Decoder, arrow_type, input, names, schema};
use crate::error::{Code, Result, RunError};
use crate::source::RawInput;

/// Opens a Parquet file.
pub(super) fn open(input: &RawInput, source: &CheckedSource) -> Result<Decoder> {
    let (file, gzip) = input::file(input, source)?;
    if gzip {
        let text = "a Parquet file can't be read through gzip; publish it as it is, its columns are compressed already";
        return Err(RunError::at(Code::InputMalformed, &source.field, text));
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| broken(source, error))?;
    let fields = builder.schema().fields().clone();
    let columns = match source.columns.is_empty() {
        true => own_columns(&fields, source)?,
        false => source.columns.clone(),
    };
    let file_names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let roots = match source.columns.is_empty() {
        true => (0..fields.len()).map(Some).collect(),
        false => names::find(&columns, &file_names, &source.field)?,
    };
    for (column, root) in columns.iter().zip(&roots) {
        if let Some(root) = root {
            check_type(column, fields[*root].data_type())?;
        }
    }

    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().flatten().copied());
    let rows = batch_rows(&builder, &mask);
    let reader = builder.with_projection(mask).with_batch_size(rows).build().map_err(|error| broken(source, error))?;
    let schema = schema(&columns);
    let batches = Batches {
        source: source.clone(),
        schema: Arc::clone(&schema),
        places: places(&roots),
        columns,
        reader,
        row: 0,
        done: false,
    };
    Ok(Decoder { schema, batches: Box::new(batches) })
}

struct Batches {
    source: CheckedSource,
    schema: SchemaRef,
    columns: Vec<CheckedColumn>,
    /// For each column its place among those that are read.
    places: Vec<Option<usize>>,
    reader: ParquetRecordBatchReader,
    /// Rows before this batch.
    row: u64,
    done: bool,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch =
            self.reader.next()?.map_err(|error| broken(&self.source, error)).and_then(|batch| self.convert(&batch));
        self.done = batch.is_err();
        Some(batch)
    }
}

impl Batches {
    fn convert(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let arrays = self
            .columns
            .iter()
            .zip(&self.places)
            .map(|(column, place)| self.array(column, place.map(|place| batch.column(place)), batch.num_rows()))
            .collect::<Result<Vec<_>>>()?;
        self.row += batch.num_rows() as u64;
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| RunError::new(Code::Internal, "a batch does not fit its columns").caused_by(error))
    }

    fn array(&self, column: &CheckedColumn, array: Option<&ArrayRef>, rows: usize) -> Result<ArrayRef> {
        let type_ = arrow_type(column.type_);
        let Some(array) = array else { return Ok(new_null_array(&type_, rows)) };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let array = cast_with_options(array, &type_, &options).map_err(|error| {
            let message = format!("column {}: after row {}, a value is not {}", column.name, self.row, column.type_);
            RunError::at(Code::ValueInvalid, &column.field, message).caused_by(error)
        })?;
        if column.required && array.null_count() > 0 {
            let index = (0..array.len()).find(|index| array.is_null(*index)).unwrap_or_default();
            return Err(null(column, Place::Row(self.row + index as u64 + 1)));
        }
        Ok(array)
    }
}

/// The columns of a file that has no contract.
fn own_columns(fields: &Fields, source: &CheckedSource) -> Result<Vec<CheckedColumn>> {
    let malformed = |message: String| RunError::at(Code::InputMalformed, &source.field, message);
    if fields.is_empty() || fields.len() > COLUMNS_MAX {
        return Err(malformed(format!("the file has {} columns; list those to read under columns", fields.len())));
    }
    let mut columns: Vec<CheckedColumn> = Vec::with_capacity(fields.len());
    for field in fields {
        let name = snake_case(field.name());
        if name.is_empty() || name.len() > COLUMN_NAME_BYTES_MAX {
            return Err(malformed(format!(
                "the column {:?} needs a name of 1 to {COLUMN_NAME_BYTES_MAX} bytes; give it one under columns, with from",
                field.name()
            )));
        }
        if let Some(other) = columns.iter().find(|column| column.name == name) {
            let (one, two) = (other.from.as_deref().unwrap_or_default(), field.name());
            return Err(malformed(format!(
                "the columns {one:?} and {two:?} both become {name}; name them under columns, with from"
            )));
        }
        let type_ = own_type(field.data_type()).ok_or_else(|| {
            let (name, type_) = (field.name(), field.data_type());
            RunError::at(
                Code::TypeUnsupported,
                &source.field,
                format!(
                    "the column {name:?} has the type {type_}{}, or list the columns to read without it",
                    remedy(type_)
                ),
            )
        })?;
        columns.push(CheckedColumn {
            field: source.field.clone(),
            name,
            from: Some(field.name().clone()),
            type_,
            required: false,
            description: field.metadata().get("description").cloned(),
        });
    }
    Ok(columns)
}

/// The nearest of our types, if there is one without loss.
fn own_type(type_: &DataType) -> Option<ColumnType> {
    Some(match type_ {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnType::String,
        DataType::Dictionary(_, values) => own_type(values)?,
        DataType::Boolean => ColumnType::Boolean,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => ColumnType::Int16,
        DataType::UInt16 | DataType::Int32 => ColumnType::Int32,
        DataType::UInt32 | DataType::Int64 => ColumnType::Int64,
        DataType::UInt64 => ColumnType::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 => ColumnType::Float32,
        DataType::Float64 => ColumnType::Float64,
        DataType::Date32 => ColumnType::Date,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => return None,
        DataType::Timestamp(_, None) => ColumnType::Timestamp,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampTz,
        _ => {
            let (precision, scale) = decimal(type_)?;
            let scale = u8::try_from(scale).ok().filter(|scale| precision <= 38 && *scale <= precision)?;
            ColumnType::Decimal { precision, scale }
        }
    })
}

fn check_type(column: &CheckedColumn, type_: &DataType) -> Result<()> {
    if fits(type_, column.type_) {
        return Ok(());
    }
    let own = own_type(type_).map_or_else(|| remedy(type_).to_owned(), |own| format!("; declare it as {own}"));
    let message = format!("column {}: the file has it as {type_}, which is not {}{own}", column.name, column.type_);
    Err(RunError::at(Code::TypeUnsupported, &column.field, message))
}

/// Whether every value of a file's type is one of ours.
fn fits(type_: &DataType, want: ColumnType) -> bool {
    if let DataType::Dictionary(_, values) = type_ {
        return fits(values, want);
    }
    if *type_ == DataType::Null {
        return true;
    }
    match want {
        ColumnType::String => matches!(type_, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        ColumnType::Boolean => *type_ == DataType::Boolean,
        ColumnType::Int16 => integer_bits(type_).is_some_and(|bits| bits <= 16),
        ColumnType::Int32 => integer_bits(type_).is_some_and(|bits| bits <= 32),
        ColumnType::Int64 => integer_bits(type_).is_some_and(|bits| bits <= 64),
        ColumnType::Float32 => {
            matches!(type_, DataType::Float16 | DataType::Float32) || integer_bits(type_).is_some_and(|bits| bits <= 16)
        }
        ColumnType::Float64 => type_.is_floating() || integer_bits(type_).is_some_and(|bits| bits <= 32),
        ColumnType::Decimal { precision, scale } => {
            let (precision, scale) = (i16::from(precision), i16::from(scale));
            let digits = match type_ {
                DataType::Int8 | DataType::UInt8 => Some((3, 0)),
                DataType::Int16 | DataType::UInt16 => Some((5, 0)),
                DataType::Int32 | DataType::UInt32 => Some((10, 0)),
                DataType::Int64 => Some((19, 0)),
                DataType::UInt64 => Some((20, 0)),
                _ => decimal(type_),
            };
            digits.is_some_and(|(digits, fraction)| {
                let (digits, fraction) = (i16::from(digits), i16::from(fraction));
                fraction <= scale && digits - fraction <= precision - scale
            })
        }
        ColumnType::Date => *type_ == DataType::Date32,
        ColumnType::Timestamp => matches!(type_, DataType::Timestamp(unit, None) if *unit != TimeUnit::Nanosecond),
        ColumnType::TimestampTz => matches!(type_, DataType::Timestamp(unit, Some(_)) if *unit != TimeUnit::Nanosecond),
    }
}

/// The bits of the smallest signed integer that holds every value.
fn integer_bits(type_: &DataType) -> Option<u8> {
    match type_ {
        DataType::Int8 => Some(8),
        DataType::UInt8 | DataType::Int16 => Some(16),
        DataType::UInt16 | DataType::Int32 => Some(32),
        DataType::UInt32 | DataType::Int64 => Some(64),
        DataType::UInt64 => Some(65),
        _ => None,
    }
}

fn decimal(type_: &DataType) -> Option<(u8, i8)> {
    match type_ {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

fn remedy(type_: &DataType) -> &'static str {
    match type_ {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => ", finer than a microsecond; have it written in microseconds",
        _ => ", which no column can have; have it written as another type",
    }
}

/// For each column its place in a batch: columns that are read come in the file's order, each once.
fn places(roots: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut read: Vec<usize> = roots.iter().flatten().copied().collect();
    read.sort_unstable();
    read.dedup();
    roots.iter().map(|root| root.and_then(|root| read.binary_search(&root).ok())).collect()
}

/// Rows of a batch, from what the file says of its columns' sizes.
fn batch_rows(builder: &ParquetRecordBatchReaderBuilder<File>, mask: &ProjectionMask) -> usize {
    let bytes_per_row = builder.metadata().row_groups().iter().filter(|group| group.num_rows() > 0).map(|group| {
        let leaves = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let bytes: i64 = leaves.map(|(_, column)| column.uncompressed_size().max(0)).sum();
        bytes / group.num_rows()
    });
    let widest = usize::try_from(bytes_per_row.max().unwrap_or(0)).unwrap_or(usize::MAX).max(1);
    (BATCH_BYTES_MAX / widest).clamp(1, BATCH_ROWS_MAX)
}

fn broken(source: &CheckedSource, error: impl std::error::Error + Send + Sync + 'static) -> RunError {
    RunError::at(Code::InputMalformed, &source.field, "the input is not a whole Parquet file").caused_by(error)
}
