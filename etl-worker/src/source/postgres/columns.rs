//! The columns of a table or query: what they are in PostgreSQL, and how each is asked for.
//!
//! A column comes in the type that it has, in a wider one that the contract names, or as the text that PostgreSQL
//! writes. The server does such casts, all of them exact. Errors: `type_unsupported` and `column_missing` by name.

use report_api::checked::{CheckedColumn, CheckedSource, Written};
use report_api::column::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, ColumnType, snake_case};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgColumn, PgConnection};
use sqlx::{Column, TypeInfo};

use crate::decode::names;
use crate::error::{Code, Result, RunError};
use crate::quote::ident;

/// A column that the table or query has.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its name there.
    pub(super) name: String,
    native: Native,
    /// Its type as PostgreSQL writes it.
    type_: String,
    /// Whether the table refuses NULL in it.
    pub(super) required: bool,
}

/// A column that is read, and the expression that gives it.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) column: CheckedColumn,
    pub(super) expression: String,
    /// Its place among the columns found, if it is there.
    pub(super) found: Option<usize>,
}

/// The types of PostgreSQL that have a type here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Native {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    /// Digits in all and after the point, where the column has them.
    Numeric(Option<(u8, u8)>),
    /// Sent as text by the server.
    Text,
    /// Not text on the wire, but nothing else than a text can hold it.
    AsText,
    Bytes,
    Uuid,
    Json,
    Date,
    Timestamp,
    TimestampTz,
    /// None: an array, an interval, a range, …
    Other,
}

/// What the server knows of the columns of a prepared statement.
const DETAILS: &str = "SELECT t.typname::text, n.nspname = 'pg_catalog', t.typtype::text,
           CASE WHEN a.atttypid = c.type THEN a.atttypmod
                WHEN d.typtype = 'd' AND d.typbasetype = c.type THEN d.typtypmod ELSE -1 END,
           coalesce(a.attnotnull AND r.relkind IN ('r', 'p'), false),
           format_type(c.type, CASE WHEN a.atttypid = c.type THEN a.atttypmod END)
    FROM unnest($1::oid[], $2::oid[], $3::int2[]) WITH ORDINALITY AS c(type, relation, number, place)
    JOIN pg_catalog.pg_type AS t ON t.oid = c.type
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.relation AND a.attnum = c.number
    LEFT JOIN pg_catalog.pg_class AS r ON r.oid = a.attrelid
    LEFT JOIN pg_catalog.pg_type AS d ON d.oid = a.atttypid
    ORDER BY c.place";

/// Asks for what a statement's description leaves out. `is_table`: its columns refuse NULL where the table does.
pub(super) async fn details(
    connection: &mut PgConnection,
    columns: &[PgColumn],
    is_table: bool,
) -> std::result::Result<Vec<Found>, sqlx::Error> {
    let none = Oid(0);
    let types: Vec<Oid> = columns.iter().map(|column| column.type_info().oid().unwrap_or(none)).collect();
    let relations: Vec<Oid> = columns.iter().map(|column| column.relation_id().unwrap_or(none)).collect();
    let numbers: Vec<i16> = columns.iter().map(|column| column.relation_attribute_no().unwrap_or(0)).collect();
    let rows: Vec<(String, bool, String, i32, bool, String)> =
        sqlx::query_as(DETAILS).bind(types).bind(relations).bind(numbers).fetch_all(connection).await?;
    if rows.len() != columns.len() {
        return Err(sqlx::Error::Protocol("a column's type is not in the catalog".into()));
    }
    let found = columns.iter().zip(rows).map(|(column, (type_name, own, kind, modifier, not_null, shown))| Found {
        name: column.name().to_owned(),
        native: native(&type_name, own, &kind, modifier),
        type_: if shown.is_empty() { column.type_info().name().to_owned() } else { shown },
        required: is_table && not_null,
    });
    Ok(found.collect())
}

fn native(name: &str, is_own: bool, kind: &str, modifier: i32) -> Native {
    match (name, is_own, kind) {
        (_, _, "e") | ("citext", false, _) => Native::AsText,
        ("bool", true, _) => Native::Boolean,
        ("int2", true, _) => Native::Int16,
        ("int4", true, _) => Native::Int32,
        ("int8", true, _) => Native::Int64,
        ("float4", true, _) => Native::Float32,
        ("float8", true, _) => Native::Float64,
        ("numeric", true, _) => Native::Numeric(digits(modifier)),
        // A cast of char(n) to text would cut the spaces at its end.
        ("text" | "varchar" | "bpchar" | "name", true, _) => Native::Text,
        ("xml" | "time" | "timetz", true, _) => Native::AsText,
        ("bytea", true, _) => Native::Bytes,
        ("uuid", true, _) => Native::Uuid,
        ("json" | "jsonb", true, _) => Native::Json,
        ("date", true, _) => Native::Date,
        ("timestamp", true, _) => Native::Timestamp,
        ("timestamptz", true, _) => Native::TimestampTz,
        _ => Native::Other,
    }
}

/// `numeric(p,s)`: since version 15 the scale may be below zero or above the precision.
fn digits(modifier: i32) -> Option<(u8, u8)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = packed >> 16 & 0xffff;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let (precision, scale) = (precision.max(scale) - scale.min(0), scale.max(0));
    let precision = u8::try_from(precision).ok().filter(|precision| (1..=38).contains(precision))?;
    Some((precision, u8::try_from(scale).ok()?))
}

/// What is read: the contract's columns, or without one all, under their snake_case names.
pub(super) fn reads(found: &[Found], source: &CheckedSource) -> Result<Vec<Read>> {
    match source.columns.is_empty() {
        true => own(found, source),
        false => contract(found, source),
    }
}

fn contract(found: &[Found], source: &CheckedSource) -> Result<Vec<Read>> {
    let names: Vec<&str> = found.iter().map(|column| column.name.as_str()).collect();
    let places = names::find(&source.columns, &names, &source.field)?;
    let read = |(column, place): (&CheckedColumn, Option<usize>)| {
        let expression = match place {
            None => format!("NULL::{}", wire(column.type_)),
            Some(place) => expression(&found[place], column.type_).ok_or_else(|| {
                let (column, found) = (column, &found[place]);
                let message = format!(
                    "column {}: it is {} in the database, which does not fit into {} without loss{}",
                    column.name,
                    found.type_,
                    column.type_,
                    own_type(found.native)
                        .map_or_else(String::new, |own| format!("; declare it as {own}, or cast it in a query"))
                );
                RunError::at(Code::TypeUnsupported, &column.field, message)
            })?,
        };
        Ok(Read { column: column.clone(), expression, found: place })
    };
    source.columns.iter().zip(places).map(read).collect()
}

fn own(found: &[Found], source: &CheckedSource) -> Result<Vec<Read>> {
    let malformed = |message: String| RunError::at(Code::InputMalformed, &source.field, message);
    if found.is_empty() || found.len() > COLUMNS_MAX {
        return Err(malformed(format!(
            "there are {} columns; the most is {COLUMNS_MAX}: list those to read under columns",
            found.len()
        )));
    }
    let mut reads: Vec<Read> = Vec::with_capacity(found.len());
    for (place, column) in found.iter().enumerate() {
        let name = snake_case(&column.name);
        if name.is_empty() || name.len() > COLUMN_NAME_BYTES_MAX {
            return Err(malformed(format!(
                "the column {:?} needs a name of 1 to {COLUMN_NAME_BYTES_MAX} bytes; give it one under columns, with from",
                column.name
            )));
        }
        if let Some(other) = reads.iter().find(|other| other.column.name == name) {
            let one = other.column.from.as_deref().unwrap_or_default();
            return Err(malformed(format!(
                "the columns {one:?} and {:?} both become {name}; name them under columns, with from",
                column.name
            )));
        }
        let type_ = own_type(column.native).ok_or_else(|| unsupported(column, &name, source))?;
        let expression = expression(column, type_).ok_or_else(|| unsupported(column, &name, source))?;
        let column = CheckedColumn {
            written: Written::default(),
            field: source.field.clone(),
            name,
            from: Some(column.name.clone()),
            type_,
            required: column.required,
            description: None,
        };
        reads.push(Read { column, expression, found: Some(place) });
    }
    Ok(reads)
}

fn unsupported(column: &Found, name: &str, source: &CheckedSource) -> RunError {
    let remedy = match column.native {
        Native::Numeric(_) => format!(
            "say how many digits it has: {{name: {name}, type: \"decimal(38,10)\"}} under columns, or a cast in a query"
        ),
        _ => format!("read it as text, {{name: {name}, type: string}} under columns, or {name}::text in a query"),
    };
    let message = format!("column {}: the type {} has no counterpart here; {remedy}", column.name, column.type_);
    RunError::at(Code::TypeUnsupported, &source.field, message)
}

fn own_type(native: Native) -> Option<ColumnType> {
    Some(match native {
        Native::Boolean => ColumnType::Boolean,
        Native::Int16 => ColumnType::Int16,
        Native::Int32 => ColumnType::Int32,
        Native::Int64 => ColumnType::Int64,
        Native::Float32 => ColumnType::Float32,
        Native::Float64 => ColumnType::Float64,
        Native::Numeric(digits) => {
            let (precision, scale) = digits?;
            ColumnType::Decimal { precision, scale }
        }
        Native::Text | Native::AsText => ColumnType::String,
        Native::Date => ColumnType::Date,
        Native::Timestamp => ColumnType::Timestamp,
        Native::TimestampTz => ColumnType::TimestampTz,
        Native::Bytes => ColumnType::Binary,
        Native::Uuid => ColumnType::Uuid,
        Native::Json => ColumnType::Json,
        Native::Other => return None,
    })
}

/// What gives the column in this type; None where a value could be lost.
fn expression(found: &Found, wanted: ColumnType) -> Option<String> {
    let name = ident(&found.name);
    let as_it_is = own_type(found.native) == Some(wanted);
    let cast = match (wanted, found.native) {
        (ColumnType::String, Native::Text) => false,
        (ColumnType::String, _) => true,
        // They come as texts. The server looks at those that are texts already, and keeps JSON's as they are.
        (ColumnType::Uuid, Native::Uuid) | (ColumnType::Json, Native::Json) => true,
        (ColumnType::Uuid, Native::Text) => return Some(format!("{name}::uuid::text")),
        (ColumnType::Json, Native::Text) => return Some(format!("{name}::json::text")),
        _ if as_it_is => false,
        (ColumnType::Int32, Native::Int16)
        | (ColumnType::Int64, Native::Int16 | Native::Int32)
        | (ColumnType::Float32, Native::Int16)
        | (ColumnType::Float64, Native::Int16 | Native::Int32 | Native::Float32) => true,
        // The digits of each value are looked at when it comes.
        (ColumnType::Decimal { .. }, Native::Numeric(None)) => false,
        (ColumnType::Decimal { precision, scale }, Native::Numeric(Some((has, after)))) => {
            if after > scale || has - after > precision - scale {
                return None;
            }
            false
        }
        (ColumnType::Decimal { precision, scale }, native) => {
            let digits = match native {
                Native::Int16 => 5,
                Native::Int32 => 10,
                Native::Int64 => 19,
                _ => return None,
            };
            if digits > precision - scale {
                return None;
            }
            true
        }
        _ => return None,
    };
    Some(if cast { format!("{name}::{}", wire(wanted)) } else { name })
}

/// The type of PostgreSQL in which a column comes.
fn wire(type_: ColumnType) -> &'static str {
    match type_ {
        ColumnType::String | ColumnType::Uuid | ColumnType::Json => "text",
        ColumnType::Boolean => "boolean",
        ColumnType::Int16 => "smallint",
        ColumnType::Int32 => "integer",
        ColumnType::Int64 => "bigint",
        ColumnType::Float32 => "real",
        ColumnType::Float64 => "double precision",
        // Without digits: a cast to numeric(p,s) would round.
        ColumnType::Decimal { .. } => "numeric",
        ColumnType::Date => "date",
        ColumnType::Timestamp => "timestamp without time zone",
        ColumnType::TimestampTz => "timestamp with time zone",
        ColumnType::Binary => "bytea",
    }
}

/// What a column of PostgreSQL is as a cursor.
pub(super) fn cursor_type(found: &Found) -> Option<crate::source::window::CursorType> {
    use crate::source::window::CursorType;
    match found.native {
        Native::Int16 | Native::Int32 | Native::Int64 => Some(CursorType::Integer),
        Native::Date => Some(CursorType::Date),
        Native::Timestamp => Some(CursorType::Timestamp),
        Native::TimestampTz => Some(CursorType::TimestampTz),
        Native::Boolean
        | Native::Float32
        | Native::Float64
        | Native::Numeric(_)
        | Native::Text
        | Native::AsText
        | Native::Bytes
        | Native::Uuid
        | Native::Json
        | Native::Other => None,
    }
}

impl Found {
    /// Its type as PostgreSQL writes it.
    pub(super) fn type_name(&self) -> &str {
        &self.type_
    }
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn the_digits_of_numeric_are_in_its_modifier() {
        let modifier = |precision: i32, scale: i32| (precision << 16 | scale & 0x7ff) + 4;
        for (modifier, want) in [
            (-1, None),
            (modifier(10, 2), Some((10, 2))),
            (modifier(38, 38), Some((38, 38))),
            (modifier(39, 2), None),
            (modifier(5, -2), Some((7, 0))),
            (modifier(2, 5), Some((5, 5))),
        ] {
            assert_eq!(digits(modifier), want, "{modifier}");
        }
    }
}
