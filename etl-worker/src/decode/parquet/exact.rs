//! Arrays of a Parquet file as arrays of a contract's types, with every value as it was, or none.
//!
//! Nanoseconds are fine as long as there are only whole microseconds, as in files of pandas; a UUID may be a text or its
//! 16 bytes; a JSON text is looked at.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::error::ArrowError;
use report_api::column::ColumnType;
use uuid::fmt::Hyphenated;

use crate::decode::{DAYS, MICROS, arrow_type, marked};

/// The bytes of a UUID.
pub(super) const UUID_BYTES: i32 = 16;
const UUID_CHARS: usize = Hyphenated::LENGTH;

/// A value that can't be kept as it is.
#[derive(Debug)]
pub(super) struct Misfit {
    /// Its place in the array, where that is known.
    pub(super) row: Option<usize>,
    /// What to add to "a value is not TYPE".
    pub(super) words: &'static str,
    pub(super) cause: Option<ArrowError>,
}

impl From<ArrowError> for Misfit {
    fn from(cause: ArrowError) -> Self {
        Self { row: None, words: "", cause: Some(cause) }
    }
}

/// The array as one of this type, which its own fits into.
pub(super) fn array(array: &ArrayRef, want: ColumnType) -> Result<ArrayRef, Misfit> {
    let array = match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values)?,
        _ => Arc::clone(array),
    };
    if let DataType::Timestamp(TimeUnit::Nanosecond, _) = array.data_type() {
        let times = array.as_primitive::<TimestampNanosecondType>();
        refuse(
            times.iter().position(|time| time.is_some_and(|time| time % 1000 != 0)),
            ", it is finer than a microsecond",
        )?;
    }
    if let (ColumnType::Uuid, DataType::FixedSizeBinary(UUID_BYTES)) = (want, array.data_type()) {
        let uuids = array.as_fixed_size_binary();
        return uuid_texts(
            uuids.len(),
            uuids.iter().map(|bytes| bytes.map(|bytes| uuid::Uuid::from_slice(bytes).ok())),
        );
    }
    let array = cast(&array, &arrow_type(want))?;
    match want {
        ColumnType::Date => {
            let days = array.as_primitive::<Date32Type>();
            refuse(days.iter().position(|day| day.is_some_and(|day| !DAYS.contains(&day))), YEARS)?;
        }
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            let times = array.as_primitive::<TimestampMicrosecondType>();
            refuse(times.iter().position(|time| time.is_some_and(|time| !MICROS.contains(&time))), YEARS)?;
        }
        ColumnType::Uuid => {
            let texts = array.as_string::<i32>();
            return uuid_texts(texts.len(), texts.iter().map(|text| text.map(|text| uuid::Uuid::try_parse(text).ok())));
        }
        ColumnType::Json => {
            let texts = array.as_string::<i32>();
            refuse(texts.iter().position(|text| text.is_some_and(|text| marked::json(text).is_err())), "")?;
        }
        ColumnType::String
        | ColumnType::Boolean
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Decimal { .. }
        | ColumnType::Binary => {}
    }
    Ok(array)
}

const YEARS: &str = ", it is outside of the years 1 to 9999";

fn cast(array: &ArrayRef, type_: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, type_, &CastOptions { safe: false, ..CastOptions::default() })
}

fn refuse(row: Option<usize>, words: &'static str) -> Result<(), Misfit> {
    match row {
        Some(_) => Err(Misfit { row, words, cause: None }),
        None => Ok(()),
    }
}

/// UUIDs as their texts. The inner None is one that is none.
fn uuid_texts(count: usize, uuids: impl Iterator<Item = Option<Option<uuid::Uuid>>>) -> Result<ArrayRef, Misfit> {
    let mut texts = StringBuilder::with_capacity(count, count * UUID_CHARS);
    let mut buffer = [0; UUID_CHARS];
    for (row, uuid) in uuids.enumerate() {
        match uuid {
            None => texts.append_null(),
            Some(Some(uuid)) => texts.append_value(uuid.hyphenated().encode_lower(&mut buffer)),
            Some(None) => return Err(Misfit { row: Some(row), words: "", cause: None }),
        }
    }
    Ok(Arc::new(texts.finish()))
}
