//! Format `parquet`: a Parquet file, with the columns of the contract or its own.
//!
//! With columns, only those are read; a type that is not the contract's has to fit into it without loss. Without, all
//! are read under their snake_case names, as the nearest of our types. A row with NULL in a required column is a bad
//! row; a value that can't be kept exactly ends the run: see `exact`. Memory: a page of each column and one batch.
//! Errors: `type_unsupported` by the column's name, `column_missing`, `value_invalid`.

mod exact;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use report_api::checked::{CheckedColumn, CheckedSource};
use report_api::column::ColumnType;

use super::contract::{self, Found, FoundType};
use super::rows::{Place, null};
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Decoder, arrow_type, input, names, schema};
use crate::error::{Code, Result, RunError};
use crate::logical::Logical;
use crate::rejected::SourceLog;
use crate::source::RawInput;

/// Opens a Parquet file.
pub(super) fn open(input: &RawInput, source: &CheckedSource, log: &Arc<SourceLog>) -> Result<Decoder> {
    let (file, gzip) = input::file(input, source)?;
    if gzip {
        let text = "a Parquet file can't be read through gzip; publish it as it is, its columns are compressed already";
        return Err(RunError::at(Code::InputMalformed, &source.field, text));
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| broken(source, error))?;
    let fields = builder.schema().fields().clone();
    if source.columns.is_empty() && log.known().is_none() {
        check_own_types(&fields, source)?;
    }
    let found: Vec<Found<'_>> =
        fields.iter().map(|field| Found { name: field.name(), type_: FoundType::Typed(own_type_of(field)) }).collect();
    let mut columns = contract::settle(source, &found, log, || Ok(Vec::new()))?;
    let file_names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let roots = names::find(&columns, &file_names, &source.field)?;
    for (column, root) in columns.iter_mut().zip(&roots) {
        if let (None, Some(root)) = (&column.description, root) {
            column.description = fields[*root].metadata().get("description").cloned();
        }
    }
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
        log: Arc::clone(log),
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
    log: Arc<SourceLog>,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = match self.reader.next() {
            Some(batch) => batch.map_err(|error| broken(&self.source, error)).and_then(|batch| self.convert(&batch)),
            None => {
                self.done = true;
                return self.log.verdict().err().map(Err);
            }
        };
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
        let arrays = self.without_nulls(arrays, batch)?;
        self.row += batch.num_rows() as u64;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| RunError::new(Code::Internal, "a batch does not fit its columns").caused_by(error))?;
        self.log.count(batch.num_rows());
        Ok(batch)
    }

    /// The rows without those that have NULL in a required column.
    fn without_nulls(&self, arrays: Vec<ArrayRef>, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut bad: BTreeMap<usize, &CheckedColumn> = BTreeMap::new();
        for (column, array) in self.columns.iter().zip(&arrays) {
            if column.required && array.null_count() > 0 {
                for row in (0..array.len()).filter(|row| array.is_null(*row)) {
                    bad.entry(row).or_insert(column);
                }
            }
        }
        if bad.is_empty() {
            return Ok(arrays);
        }
        let mut good = vec![true; batch.num_rows()];
        for (row, column) in bad {
            good[row] = false;
            let number = self.row + row as u64 + 1;
            let error = null(column, Place::Row(number));
            self.log.reject(number, Some(&column.name), error, || raw(batch, row))?;
        }
        let good = BooleanArray::from(good);
        let kept = arrays.iter().map(|array| filter(array, &good)).collect::<Result<_, _>>();
        kept.map_err(|error| RunError::new(Code::Internal, "bad rows can't be taken out").caused_by(error))
    }

    fn array(&self, column: &CheckedColumn, array: Option<&ArrayRef>, rows: usize) -> Result<ArrayRef> {
        let type_ = arrow_type(column.type_);
        let Some(array) = array else { return Ok(new_null_array(&type_, rows)) };
        exact::array(array, column.type_).map_err(|misfit| {
            let (name, type_) = (&column.name, column.type_);
            let place = match misfit.row {
                Some(row) => format!("row {}, column {name}", self.row + row as u64 + 1),
                None => format!("column {name}, after row {}", self.row),
            };
            let message = format!("{place}: a value is not {type_}{}; correct the input", misfit.words);
            let error = RunError::at(Code::ValueInvalid, &column.field, message);
            match misfit.cause {
                // The cause shows the value.
                Some(cause) if !self.log.masks().any() => error.caused_by(cause),
                Some(_) | None => error,
            }
        })
    }
}

/// A row as text: its values between bars, NULL as nothing.
fn raw(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let options = FormatOptions::default();
    let value = |array: &ArrayRef| {
        ArrayFormatter::try_new(array, &options).map(|array| array.value(row).to_string()).unwrap_or_default()
    };
    batch.columns().iter().map(value).collect::<Vec<_>>().join("|").into_bytes()
}

/// Refuses a file without a contract by the type of a column.
fn check_own_types(fields: &Fields, source: &CheckedSource) -> Result<()> {
    match fields.iter().find(|field| own_type_of(field).is_none()) {
        None => Ok(()),
        Some(field) => {
            let (name, type_) = (field.name(), field.data_type());
            Err(RunError::at(
                Code::TypeUnsupported,
                &source.field,
                format!("the column {name:?} has the type {type_}{REMEDY}, or list the columns to read without it"),
            ))
        }
    }
}

/// The nearest type of ours, if there is one without loss. Files of this program's own say what their texts are.
fn own_type_of(field: &Field) -> Option<ColumnType> {
    match (own_type(field.data_type())?, Logical::of(field)) {
        (ColumnType::String, Some(Logical::Uuid)) => Some(ColumnType::Uuid),
        (ColumnType::String, Some(Logical::Json)) => Some(ColumnType::Json),
        (type_, Some(_) | None) => Some(type_),
    }
}

/// The nearest type of ours, if there is one without loss. Nanoseconds are looked at value by value.
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
        DataType::Timestamp(_, None) => ColumnType::Timestamp,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampTz,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            ColumnType::Binary
        }
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
    let own = own_type(type_).map_or_else(|| REMEDY.to_owned(), |own| format!("; declare it as {own}"));
    let message = format!("column {}: the file has it as {type_}, which is not {}{own}", column.name, column.type_);
    Err(RunError::at(Code::TypeUnsupported, &column.field, message))
}

/// Whether every value of a file's type is one of ours.
pub(super) fn fits(type_: &DataType, want: ColumnType) -> bool {
    if let DataType::Dictionary(_, values) = type_ {
        return fits(values, want);
    }
    if *type_ == DataType::Null {
        return true;
    }
    match want {
        ColumnType::String | ColumnType::Json => {
            matches!(type_, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        }
        ColumnType::Uuid => *type_ == DataType::FixedSizeBinary(exact::UUID_BYTES) || fits(type_, ColumnType::String),
        ColumnType::Binary => own_type(type_) == Some(ColumnType::Binary),
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
        ColumnType::Timestamp => matches!(type_, DataType::Timestamp(_, None)),
        ColumnType::TimestampTz => matches!(type_, DataType::Timestamp(_, Some(_))),
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

const REMEDY: &str = ", which no column can have; have it written as another type";

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
