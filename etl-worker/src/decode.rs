//! Decoders: make typed rows of an input. One file per format.
//!
//! [`input`] opens and decompresses, a format's file finds records, [`names`] finds the contract's columns among the
//! input's names, [`value`] reads a text as a type, and [`rows`] collects values into batches. [`contract`] compares an
//! input's columns with those of the last good run. A row that its contract doesn't allow is an error with its line, or
//! left out and counted where the manifest says so, never a guess: nothing is rounded, cut or replaced.
//! Errors: `input_malformed`, `encoding_invalid`, `column_missing`, `value_invalid`, `type_unsupported`.

mod blocks;
mod contract;
mod csv;
mod frame;
mod infer;
mod input;
mod json;
mod literal;
mod marked;
pub(crate) mod names;
mod ndjson;
mod object;
mod parallel;
mod parquet;
mod rows;
mod text;
mod value;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use report_api::checked::{CheckedColumn, CheckedSource, FormatKind};
use report_api::column::{ColumnType, ContractMode};

pub(crate) use self::contract::manifest_mark;
pub use self::contract::{RecordedColumn, RecordedColumns};
pub(crate) use self::literal::{literal, type_words};
use crate::error::{Code, Result, RunError};
use crate::logical;
use crate::mask::Masks;
use crate::rejected::SourceLog;
use crate::source::RawInput;

/// Most rows of a batch: what DataFusion works with by itself.
pub const BATCH_ROWS_MAX: usize = 8192;
/// About the most bytes of a batch. Several are in flight between a source and its sinks, in a pod of 256 MiB.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// The days that dates and times can have, from 1970: 0001-01-01 to 9999-12-31.
pub(crate) const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
/// The same in microseconds, to the last one.
pub(crate) const MICROS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// The most bytes that an input may have when decompressed, so that a small file can't keep a run busy for days.
pub const DECODED_BYTES_MAX: u64 = 200 << 30;

/// A source's rows as Arrow batches in the columns of its contract, in file order.
pub struct Decoder {
    /// The columns: those of the contract, in its order; without one, those of the input.
    pub schema: SchemaRef,
    /// The rows. After an error comes nothing more.
    pub batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Opens an input. Blocking: call it, and drive `batches`, on a blocking thread. Memory: one batch of at most
/// [`BATCH_ROWS_MAX`] rows and about [`BATCH_BYTES_MAX`] bytes, whatever the input's size, and for each thread that
/// [`parallel`] uses a few smaller ones.
pub fn open(input: &RawInput, source: &CheckedSource, log: &Arc<SourceLog>) -> Result<Decoder> {
    match &source.format {
        FormatKind::Csv(format) => csv::open(input, source, format, log),
        FormatKind::Json { path } => json::open(input, source, path, log),
        FormatKind::NdJson => ndjson::open(input, source, log),
        FormatKind::Parquet => parquet::open(input, source, log),
        FormatKind::Rows => {
            Err(RunError::at(Code::Internal, &source.field, "the rows of a database are no file to decode"))
        }
    }
}

/// Whether the columns that a source will have are known before its input is: not where the input brings its own.
pub fn has_known_columns(source: &CheckedSource) -> bool {
    !source.columns.is_empty() && source.contract != ContractMode::Evolve
}

/// The Arrow type of a column type.
pub fn arrow_type(t: ColumnType) -> DataType {
    match t {
        ColumnType::String | ColumnType::Uuid | ColumnType::Json => DataType::Utf8,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int16 => DataType::Int16,
        ColumnType::Int32 => DataType::Int32,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Float32 => DataType::Float32,
        ColumnType::Float64 => DataType::Float64,
        // Validation keeps both at most 38.
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        ColumnType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Binary => DataType::Binary,
    }
}

/// The columns that a source will have, as far as its contract says.
pub fn contract_schema(source: &CheckedSource) -> Result<SchemaRef> {
    Masks::keyless(source)?.schema(&schema(&source.columns))
}

/// The schema of a contract: required columns are not nullable, descriptions and what texts are is in the fields' metadata.
pub(crate) fn schema(columns: &[CheckedColumn]) -> SchemaRef {
    let field = |column: &CheckedColumn| {
        let metadata = logical::metadata(column.type_, column.description.as_deref());
        Field::new(&column.name, arrow_type(column.type_), !column.required).with_metadata(metadata)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
