//! Arrow's types and values in SQLite's.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use crate::decode::{DAYS, MICROS};
use crate::logical::Logical;

/// Digits of a decimal that SQLite keeps exactly as a number: those of a 64-bit float.
const DECIMAL_DIGITS_MAX: usize = 15;

/// SQLite's functions know no other years, and texts of others would not sort.
const OUT_OF_RANGE: &str =
    "a date or time is outside of the years 1 to 9999; cast it to text, or turn it into NULL in the model";

/// The SQLite type of a column.
pub(super) fn type_name(type_: &DataType) -> Option<&'static str> {
    Some(match type_ {
        DataType::Boolean => "BOOLEAN",
        DataType::Int16 | DataType::Int32 | DataType::Int64 => "INTEGER",
        DataType::Float32 | DataType::Float64 => "REAL",
        DataType::Utf8 => "TEXT",
        DataType::Binary => "BLOB",
        DataType::Date32 => "DATE",
        DataType::Timestamp(..) => "DATETIME",
        DataType::Decimal128(..) => "NUMERIC",
        _ => return None,
    })
}

/// What SQLite makes of values in a column, by its type's name: <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Affinity {
    /// Numbers become texts, with 15 digits.
    Text,
    /// Texts that look like numbers become numbers.
    Numeric,
    /// Whole numbers, too, become floats.
    Real,
    /// Values stay what they are.
    None,
}

fn affinity(type_: &str) -> Affinity {
    let type_ = type_.to_ascii_uppercase();
    let has = |parts: &[&str]| parts.iter().any(|part| type_.contains(part));
    match () {
        () if has(&["INT"]) => Affinity::Numeric,
        () if has(&["CHAR", "CLOB", "TEXT"]) => Affinity::Text,
        () if type_.is_empty() || has(&["BLOB"]) => Affinity::None,
        () if has(&["REAL", "FLOA", "DOUB"]) => Affinity::Real,
        () => Affinity::Numeric,
    }
}

/// Whether a column of a type keeps every value of the rows' column.
pub(super) fn holds(type_: &str, field: &Field) -> bool {
    let affinity = affinity(type_);
    match field.data_type() {
        // A UUID, a date or a time never looks like a number.
        DataType::Utf8 => {
            matches!(affinity, Affinity::Text | Affinity::None) || Logical::of(field) == Some(Logical::Uuid)
        }
        DataType::Int64 => affinity != Affinity::Real,
        DataType::Float32 | DataType::Float64 => affinity != Affinity::Text,
        _ => true,
    }
}

/// Adds a value to a statement. Dates and times are text in ISO 8601, as SQLite's own functions take them.
pub(super) fn bind(arguments: &mut SqliteArguments, column: &ArrayRef, row: usize) -> std::result::Result<(), String> {
    let added = if column.is_null(row) {
        arguments.add(None::<i64>)
    } else {
        match column.data_type() {
            DataType::Boolean => arguments.add(column.as_boolean().value(row)),
            DataType::Int16 => arguments.add(i64::from(column.as_primitive::<Int16Type>().value(row))),
            DataType::Int32 => arguments.add(i64::from(column.as_primitive::<Int32Type>().value(row))),
            DataType::Int64 => arguments.add(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float32 => arguments.add(number(f64::from(column.as_primitive::<Float32Type>().value(row)))?),
            DataType::Float64 => arguments.add(number(column.as_primitive::<Float64Type>().value(row))?),
            DataType::Utf8 => arguments.add(column.as_string::<i32>().value(row).to_owned()),
            DataType::Binary => arguments.add(column.as_binary::<i32>().value(row).to_owned()),
            DataType::Date32 => {
                let day = Some(column.as_primitive::<Date32Type>().value(row)).filter(|day| DAYS.contains(day));
                let day = day.and_then(date32_to_datetime).ok_or(OUT_OF_RANGE)?;
                arguments.add(day.format("%Y-%m-%d").to_string())
            }
            DataType::Timestamp(_, zone) => {
                let time = column.as_primitive::<TimestampMicrosecondType>().value(row);
                let time = Some(time).filter(|time| MICROS.contains(time)).and_then(timestamp_us_to_datetime);
                let form = if zone.is_some() { "%Y-%m-%d %H:%M:%S%.6f+00:00" } else { "%Y-%m-%d %H:%M:%S%.6f" };
                arguments.add(time.ok_or(OUT_OF_RANGE)?.format(form).to_string())
            }
            DataType::Decimal128(_, scale) => {
                let value = column.as_primitive::<Decimal128Type>().value(row);
                arguments.add(decimal(value, *scale)?)
            }
            other => return Err(format!("SQLite can't hold the type {other}")),
        }
    };
    added.map_err(|error| error.to_string())
}

/// SQLite turns NaN into NULL without a word.
fn number(value: f64) -> std::result::Result<f64, String> {
    if value.is_nan() { Err("SQLite can't hold NaN; turn it into NULL in the model".into()) } else { Ok(value) }
}

/// A decimal as text that the column's NUMERIC affinity turns into a number without losing a digit.
fn decimal(value: i128, scale: i8) -> std::result::Result<String, String> {
    let digits = value.unsigned_abs().to_string();
    if digits.trim_end_matches('0').len() > DECIMAL_DIGITS_MAX {
        return Err(format!(
            "a decimal has more than {DECIMAL_DIGITS_MAX} digits, which SQLite would round; cast it to text in a model"
        ));
    }
    let scale = usize::try_from(scale).unwrap_or(0);
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::{decimal, holds};

    #[test]
    fn a_column_is_filled_only_if_it_keeps_every_value() {
        for (target, type_, want) in [
            ("TEXT", DataType::Utf8, true),
            ("varchar(10)", DataType::Utf8, true),
            ("STRING", DataType::Utf8, false),
            ("INTEGER", DataType::Utf8, false),
            ("", DataType::Utf8, true),
            ("BIGINT", DataType::Int64, true),
            ("DOUBLE", DataType::Int64, false),
            ("DOUBLE", DataType::Int32, true),
            ("TEXT", DataType::Int64, true),
            ("TEXT", DataType::Float64, false),
            ("NUMERIC", DataType::Float64, true),
            ("TEXT", DataType::Decimal128(38, 10), true),
            ("DATETIME", DataType::Date32, true),
            ("TEXT", DataType::Binary, true),
        ] {
            assert_eq!(holds(target, &Field::new("c", type_.clone(), true)), want, "{type_} into {target}");
        }
    }

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        for (value, scale, want) in [
            (1_228_663_323, 3, "1228663.323"),
            (-5, 3, "-0.005"),
            (0, 0, "0"),
            (123, 0, "123"),
            (999_999_999_999_999, 3, "999999999999.999"),
            (1_000_000_000_000_000_000, 3, "1000000000000000.000"),
        ] {
            assert_eq!(decimal(value, scale).as_deref(), Ok(want));
        }
        assert!(decimal(1_234_567_890_123_456, 3).is_err());
    }
}
