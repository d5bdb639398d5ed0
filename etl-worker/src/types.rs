//! The types that a model's columns may have on their way to sinks, and how others become one of them.
//!
//! Nothing is rounded or cut here: a cast that does not hold a value ends the run. Timestamps count microseconds. What SQL
//! itself cuts is the model's own wish: `CAST(1.5 AS bigint)` is 1, `avg` of decimals has 4 more digits. It never wraps
//! (`session/checked.rs`, `session/sums.rs`).

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::logical_expr::ExprSchemable;
use datafusion::prelude::{DataFrame, Expr};
use report_api::column::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX};

use crate::error::{Code, Result, RunError};
use crate::session::{sql_error, times};

/// The type that a sink gets for a column of a model, or None for a type that no sink knows.
pub(crate) fn settled(type_: &DataType) -> Option<DataType> {
    Some(match type_ {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Timestamp(TimeUnit::Microsecond, None)
        | DataType::Decimal128(_, 0..) => type_.clone(),
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale @ 0..) | DataType::Decimal64(precision, scale @ 0..) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(_, scale @ 0..=38) => DataType::Decimal128(38, *scale),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => settled(values)?,
        _ => return None,
    })
}

/// Gives a model's columns the types that sinks know, and refuses what has no such type or no usable name.
pub(crate) fn settle(frame: DataFrame, field: &str) -> Result<DataFrame> {
    let schema = frame.schema().clone();
    let field = format!("{field}.sql");
    if schema.fields().len() > COLUMNS_MAX {
        let message = format!("the SELECT has {} columns; the most is {COLUMNS_MAX}", schema.fields().len());
        return Err(RunError::at(Code::SqlInvalid, field, message));
    }
    let mut columns: Vec<Expr> = Vec::with_capacity(schema.fields().len());
    for (qualifier, column) in schema.iter() {
        let name = column.name();
        if name.len() > COLUMN_NAME_BYTES_MAX || name.contains(['(', ')', '.']) {
            return Err(RunError::at(
                Code::SqlInvalid,
                field,
                format!("the column {name} has no name that a table could have; give it one: … AS name"),
            ));
        }
        if columns.iter().any(|other| other.schema_name().to_string() == *name) {
            let message = format!("two columns are called {name}; give one another name: … AS other_{name}");
            return Err(RunError::at(Code::SqlInvalid, field, message));
        }
        let wanted = settled(column.data_type()).ok_or_else(|| {
            let remedy = match column.data_type() {
                DataType::Null => "NULL alone has no type: write CAST(NULL AS bigint)",
                DataType::Interval(_) | DataType::Duration(_) => "give a number of seconds, or cast it to text",
                _ => "cast it to text, or pick its parts",
            };
            let message = format!("the column {name} is of type {}, which no sink holds; {remedy}", column.data_type());
            RunError::at(Code::TypeUnsupported, field.clone(), message)
        })?;
        let expression = Expr::Column((qualifier, column.as_ref()).into());
        columns.push(if wanted == *column.data_type() {
            expression.alias(name)
        } else {
            let expression = match column.data_type() {
                DataType::Timestamp(TimeUnit::Nanosecond, _) => times::whole_microseconds(expression, &field, name),
                _ => expression,
            };
            expression.cast_to(&wanted, &schema).map_err(|e| sql_error(e, &field))?.alias(name)
        });
    }
    frame.select(columns).map_err(|e| sql_error(e, &field))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use super::settled;

    #[test]
    fn every_type_that_a_sink_gets_is_one_that_it_knows() {
        for (from, to) in [
            (DataType::UInt64, Some(DataType::Int64)),
            (DataType::Utf8View, Some(DataType::Utf8)),
            (DataType::Decimal256(76, 3), Some(DataType::Decimal128(38, 3))),
            (
                DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
                Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            ),
            (DataType::Null, None),
            (DataType::Decimal128(5, -2), None),
        ] {
            assert_eq!(settled(&from), to, "{from}");
            if let Some(to) = to {
                assert_eq!(settled(&to), Some(to.clone()), "{to} is settled");
            }
        }
    }
}
