//! Values that stand in a manifest or a test, read exactly as the decoders read them in an input.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use report_api::column::ColumnType;

use super::text::quoted;
use super::{marked, value};

/// The column type of an Arrow type; None for one that a contract can't name.
fn column_type(type_: &DataType) -> Option<ColumnType> {
    Some(match type_ {
        DataType::Utf8 => ColumnType::String,
        DataType::Boolean => ColumnType::Boolean,
        DataType::Int16 => ColumnType::Int16,
        DataType::Int32 => ColumnType::Int32,
        DataType::Int64 => ColumnType::Int64,
        DataType::Float32 => ColumnType::Float32,
        DataType::Float64 => ColumnType::Float64,
        DataType::Decimal128(precision, scale @ 0..) => {
            ColumnType::Decimal { precision: *precision, scale: scale.unsigned_abs() }
        }
        DataType::Date32 => ColumnType::Date,
        DataType::Timestamp(TimeUnit::Microsecond, None) => ColumnType::Timestamp,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => ColumnType::TimestampTz,
        DataType::Binary => ColumnType::Binary,
        _ => return None,
    })
}

/// A type in the words of a contract.
pub(crate) fn type_words(type_: &DataType) -> String {
    column_type(type_).map_or_else(|| type_.to_string(), |type_| type_.to_string())
}

/// A text as a value of a type. The error says what it is not.
pub(crate) fn literal(text: &str, type_: &DataType) -> Result<ScalarValue, String> {
    let zone = match type_ {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let Some(column) = column_type(type_) else { return Err(format!("no value can be written of the type {type_}")) };
    let read = match column {
        // What a text is beyond that, Arrow's types don't say.
        ColumnType::String | ColumnType::Uuid | ColumnType::Json => Ok(ScalarValue::Utf8(Some(text.into()))),
        ColumnType::Binary => marked::binary(text).map(|value| ScalarValue::Binary(Some(value))),
        ColumnType::Boolean => value::boolean(text).map(|value| ScalarValue::Boolean(Some(value))),
        ColumnType::Int16 => value::integer(text).map(|value| ScalarValue::Int16(Some(value))),
        ColumnType::Int32 => value::integer(text).map(|value| ScalarValue::Int32(Some(value))),
        ColumnType::Int64 => value::integer(text).map(|value| ScalarValue::Int64(Some(value))),
        ColumnType::Float32 => value::float32(text).map(|value| ScalarValue::Float32(Some(value))),
        ColumnType::Float64 => value::float64(text).map(|value| ScalarValue::Float64(Some(value))),
        ColumnType::Decimal { precision, scale } => value::decimal(text, precision, scale)
            .map(|value| ScalarValue::Decimal128(Some(value), precision, scale as i8)),
        ColumnType::Date => value::day(text).map(|value| ScalarValue::Date32(Some(value))),
        ColumnType::Timestamp => {
            value::timestamp(text).map(|value| ScalarValue::TimestampMicrosecond(Some(value), None))
        }
        ColumnType::TimestampTz => {
            value::timestamptz(text).map(|value| ScalarValue::TimestampMicrosecond(Some(value), zone))
        }
    };
    read.map_err(|misfit| format!("{} is not {column}{misfit}", quoted(text)))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use super::literal;

    #[test]
    fn a_value_is_of_the_columns_type_or_refused() {
        let timestamptz = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (text, type_, want) in [
            ("0.10", DataType::Decimal128(10, 2), Ok("0.10")),
            (
                "0.001",
                DataType::Decimal128(10, 2),
                Err("\"0.001\" is not decimal(10,2), it has more digits after the point"),
            ),
            ("7", DataType::Int64, Ok("7")),
            ("7.5", DataType::Int64, Err("\"7.5\" is not int64, it has more digits after the point")),
            ("70000", DataType::Int16, Err("\"70000\" is not int16, it is out of range")),
            ("2024-02-30", DataType::Date32, Err("\"2024-02-30\" is not date")),
            ("2024-01-01T00:00:00Z", timestamptz.clone(), Ok("1704067200000000")),
            ("2024-01-01", timestamptz, Err("\"2024-01-01\" is not timestamptz")),
            ("AP8=", DataType::Binary, Ok("00FF")),
            ("x", DataType::Binary, Err("\"x\" is not binary, which is base64")),
            ("x", DataType::Float16, Err("no value can be written of the type Float16")),
        ] {
            let got = literal(text, &type_).map(|value| match value {
                datafusion::common::ScalarValue::Decimal128(Some(value), ..) => {
                    format!("{}.{:02}", value / 100, value % 100)
                }
                datafusion::common::ScalarValue::TimestampMicrosecond(Some(value), _) => value.to_string(),
                datafusion::common::ScalarValue::Binary(Some(value)) => {
                    value.iter().map(|byte| format!("{byte:02X}")).collect()
                }
                other => other.to_string(),
            });
            match want {
                Ok(want) => assert_eq!(got.as_deref(), Ok(want), "{text}"),
                Err(want) => assert!(got.as_ref().is_err_and(|got| got.starts_with(want)), "{text}: {got:?}"),
            }
        }
    }
}
