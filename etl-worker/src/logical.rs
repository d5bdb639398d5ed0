//! What a text means beyond being a text: a mark in its Arrow field's metadata, by which sinks make a column of the type.
//!
//! A mark goes along with a column through SQL as long as the column is only passed on, renamed, filtered, sorted or
//! grouped by. It promises nothing: sinks look at values where it matters to them. It is our own and not one of Arrow's
//! extension types, whose storage would be another one than text.

use std::collections::HashMap;

use arrow::datatypes::Field;
use report_api::column::ColumnType;

/// The metadata's key.
const KEY: &str = "report:type";

/// What a text is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Logical {
    /// 36 characters in lower case.
    Uuid,
    /// A JSON value.
    Json,
}

impl Logical {
    /// What a column's texts are; None for a plain text and for other types.
    pub(crate) fn of(field: &Field) -> Option<Self> {
        match field.metadata().get(KEY)?.as_str() {
            "uuid" => Some(Self::Uuid),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn of_type(type_: ColumnType) -> Option<Self> {
        match type_ {
            ColumnType::Uuid => Some(Self::Uuid),
            ColumnType::Json => Some(Self::Json),
            ColumnType::String
            | ColumnType::Boolean
            | ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. }
            | ColumnType::Date
            | ColumnType::Timestamp
            | ColumnType::TimestampTz
            | ColumnType::Binary => None,
        }
    }
}

/// The metadata of a column of a contract.
pub(crate) fn metadata(type_: ColumnType, description: Option<&str>) -> HashMap<String, String> {
    let mark = Logical::of_type(type_).map(|_| (KEY.to_owned(), type_.to_string()));
    let description = description.map(|text| ("description".to_owned(), text.to_owned()));
    mark.into_iter().chain(description).collect()
}

/// A field whose texts are no longer what they were.
pub(crate) fn without_mark(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(KEY);
    field.with_metadata(metadata)
}
