//! Arrow's types and values in MySQL's: every value as text, which MySQL turns into the column's type.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};

use crate::logical::Logical;
use crate::quote::ident;

/// Characters of a text in a key or index: three such columns fit into the 3,072 bytes that an index of InnoDB takes.
pub(super) const KEY_CHARS_MAX: usize = 255;
/// Most digits after the point: MySQL takes 30.
const SCALE_MAX: i8 = 30;
/// The days since 1970 that DATE and DATETIME hold: 1000-01-01 to 9999-12-31.
const DAYS: std::ops::RangeInclusive<i64> = -354_285..=2_932_896;
const DAY_MICROS: i64 = 86_400_000_000;

/// The MySQL type of a column. Text in a key needs a length.
pub(super) fn type_name(field: &Field, in_key: bool) -> Option<String> {
    Some(match field.data_type() {
        DataType::Boolean => "tinyint(1)".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        // FLOAT is shown with six digits.
        DataType::Float32 | DataType::Float64 => "double".into(),
        DataType::Utf8 if Logical::of(field) == Some(Logical::Uuid) => "char(36)".into(),
        DataType::Utf8 if in_key => format!("varchar({KEY_CHARS_MAX})"),
        DataType::Utf8 => "longtext".into(),
        DataType::Binary if in_key => format!("varbinary({KEY_CHARS_MAX})"),
        DataType::Binary => "longblob".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "datetime(6)".into(),
        DataType::Decimal128(precision, scale) if *scale <= SCALE_MAX => format!("decimal({precision},{scale})"),
        _ => return None,
    })
}

/// The rule that a new table has for a column besides its type. JSON is a text with this rule, as in MariaDB: MySQL's own
/// type would make floats of its numbers.
pub(super) fn rule(field: &Field) -> Option<String> {
    (Logical::of(field) == Some(Logical::Json)).then(|| format!("CHECK (json_valid({}))", ident(field.name())))
}

/// What makes the column's value of what [`write`] gave, as SQL, where that is not the value itself: bytes go as
/// hexadecimal digits, since they are no text in any encoding.
pub(super) fn unpacked(type_: &DataType, value: &str) -> Option<String> {
    (*type_ == DataType::Binary).then(|| format!("unhex({value})"))
}

/// Writes a value as text; false for NULL. The error says why MySQL can't hold it.
pub(super) fn write(into: &mut Vec<u8>, column: &ArrayRef, row: usize) -> Result<bool, String> {
    if column.is_null(row) {
        return Ok(false);
    }
    let written = match column.data_type() {
        DataType::Boolean => write!(into, "{}", u8::from(column.as_boolean().value(row))),
        DataType::Int16 => write!(into, "{}", column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write!(into, "{}", column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write!(into, "{}", column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => number(into, f64::from(column.as_primitive::<Float32Type>().value(row)))?,
        DataType::Float64 => number(into, column.as_primitive::<Float64Type>().value(row))?,
        DataType::Utf8 => into.write_all(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => column.as_binary::<i32>().value(row).iter().try_for_each(|byte| write!(into, "{byte:02x}")),
        DataType::Date32 => {
            let day = column.as_primitive::<Date32Type>().value(row);
            in_range(i64::from(day))?;
            let day = date32_to_datetime(day).ok_or("a date is out of range")?;
            write!(into, "{}", day.format("%Y-%m-%d"))
        }
        DataType::Timestamp(..) => {
            let time = column.as_primitive::<TimestampMicrosecondType>().value(row);
            in_range(time.div_euclid(DAY_MICROS))?;
            let time = timestamp_us_to_datetime(time).ok_or("a timestamp is out of range")?;
            write!(into, "{}", time.format("%Y-%m-%d %H:%M:%S%.6f"))
        }
        DataType::Decimal128(precision, scale) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            into.write_all(Decimal128Type::format_decimal(value, *precision, *scale).as_bytes())
        }
        other => return Err(format!("MySQL can't hold the type {other}")),
    };
    written.map_err(|error| error.to_string())?;
    Ok(true)
}

/// The shortest text that gives the same number again.
fn number(into: &mut Vec<u8>, value: f64) -> Result<std::io::Result<()>, String> {
    if value.is_finite() {
        Ok(write!(into, "{value:?}"))
    } else {
        Err("MySQL can't hold NaN or infinity; turn it into NULL in the model".into())
    }
}

fn in_range(day: i64) -> Result<(), String> {
    if DAYS.contains(&day) {
        Ok(())
    } else {
        Err("MySQL holds dates of the years 1000 to 9999 only; cast it to text, or turn it into NULL in the model"
            .into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Float32Array, Float64Array, TimestampMicrosecondArray};

    use super::*;

    fn text(column: ArrayRef) -> Result<String, String> {
        let mut into = Vec::new();
        write(&mut into, &column, 0).map(|_| String::from_utf8(into).unwrap())
    }

    #[test]
    fn values_are_written_exactly_or_refused() {
        let (first, last) = (*DAYS.start(), *DAYS.end());
        let date = |day: i64| -> ArrayRef { Arc::new(Date32Array::from(vec![i32::try_from(day).unwrap()])) };
        let time = |micros: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![micros])) };
        for (column, want) in [
            (date(first), Ok("1000-01-01")),
            (date(last), Ok("9999-12-31")),
            (date(first - 1), Err("the years 1000 to 9999")),
            (date(last + 1), Err("the years 1000 to 9999")),
            (time(first * DAY_MICROS), Ok("1000-01-01 00:00:00.000000")),
            (time((last + 1) * DAY_MICROS - 1), Ok("9999-12-31 23:59:59.999999")),
            (time(first * DAY_MICROS - 1), Err("the years 1000 to 9999")),
            (Arc::new(Float64Array::from(vec![1.797_693_134_862_315_7e308])), Ok("1.7976931348623157e308")),
            (Arc::new(Float64Array::from(vec![f64::NAN])), Err("NaN or infinity")),
            (Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])), Err("NaN or infinity")),
            (Arc::new(Float32Array::from(vec![0.1])), Ok("0.10000000149011612")),
            (
                Arc::new(Decimal128Array::from(vec![-5]).with_precision_and_scale(38, 30).unwrap()),
                Ok("-0.000000000000000000000000000005"),
            ),
        ] {
            match (text(column), want) {
                (Ok(found), Ok(want)) => assert_eq!(found, want),
                (Err(found), Err(want)) => assert!(found.contains(want), "{found}"),
                (found, want) => panic!("{found:?}, not {want:?}"),
            }
        }
    }
}
