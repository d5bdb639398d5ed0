//! A column of a source's contract and its type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most columns of one source or sink.
pub const COLUMNS_MAX: usize = 2000;
/// Longest column name, as in PostgreSQL.
pub const COLUMN_NAME_BYTES_MAX: usize = 63;

/// A column that the input must have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Column {
    /// The name that SQL and sinks use: lower case letters, digits and underscores.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_]*$")))]
    pub name: String,
    /// The name in the input, where it differs by more than case and punctuation: `Year` and `series id` are found as
    /// year and series_id without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 256)))]
    pub from: Option<String>,
    /// The type: string, boolean, int16, int32, int64, float32, float64, decimal(PRECISION,SCALE), date, timestamp
    /// (without a zone), timestamptz, binary, uuid or json. In csv, json and ndjson, binary is base64 (RFC 4648, padded).
    /// A row with a value that is none is a bad row; nothing is rounded or cut.
    #[serde(rename = "type")]
    #[cfg_attr(
        feature = "crd",
        schemars(
            length(max = 32),
            regex(
                pattern = r"^(string|boolean|int16|int32|int64|float32|float64|date|timestamp|timestamptz|binary|uuid|json|decimal\([0-9]{1,2}, ?[0-9]{1,2}\))$"
            )
        )
    )]
    pub type_: String,
    /// True when the column may hold no NULL, and must be there. A column that is not required and not there is NULL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// How numbers are written in a csv input, where not like 1234.5. Default: a point before the fraction and nothing
    /// between thousands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<NumberFormat>,
    /// How a date or timestamp is written in a csv, json or ndjson input, where not as in ISO 8601: %d/%m/%Y,
    /// %d.%m.%Y %H:%M, %s for seconds since 1970, and so on, as in strptime. A timestamptz needs %z in it, or %s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 2, max = 64)))]
    pub format: Option<String>,
    /// What the column means; it becomes the comment of the column in the tables that are filled from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub description: Option<String>,
}

/// How numbers are written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct NumberFormat {
    /// The character before the fraction. Default: a point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1)))]
    pub decimal: Option<String>,
    /// The character between thousands, such as "." or " ". It has to stand before each three digits, or nowhere: 1.23 is
    /// then no number. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1)))]
    pub group: Option<String>,
}

/// What happens when an input's columns are other ones than before.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ContractMode {
    /// The run fails and names them.
    #[default]
    Freeze,
    /// They come in.
    Evolve,
    /// New ones are left out.
    Discard,
}

/// The types of columns. Timestamps count microseconds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ColumnType {
    /// Text in UTF-8.
    String,
    /// True or false.
    Boolean,
    /// A whole number of 16 bits.
    Int16,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A floating-point number of 32 bits.
    Float32,
    /// A floating-point number of 64 bits.
    Float64,
    /// An exact number.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// A day.
    Date,
    /// A wall clock time without a zone, to the microsecond.
    Timestamp,
    /// A point in time, to the microsecond, kept in UTC.
    TimestampTz,
    /// Bytes.
    Binary,
    /// A universally unique identifier, kept as its 36 characters in lower case.
    Uuid,
    /// A JSON value, kept as the text that it came in.
    Json,
}

impl ColumnType {
    /// Reads a type as it stands in a manifest. The error says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(arguments) = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
            let numbers: Vec<Option<u8>> = arguments.split(',').map(|number| number.trim().parse().ok()).collect();
            return match numbers[..] {
                [Some(precision @ 1..=38), Some(scale)] if scale <= precision => Ok(Self::Decimal { precision, scale }),
                _ => Err(format!(
                    "{text} is no decimal; write decimal(18,3): 1 to 38 digits in all, then those after the point"
                )),
            };
        }
        match text {
            "string" => Ok(Self::String),
            "boolean" => Ok(Self::Boolean),
            "int16" => Ok(Self::Int16),
            "int32" => Ok(Self::Int32),
            "int64" => Ok(Self::Int64),
            "float32" => Ok(Self::Float32),
            "float64" => Ok(Self::Float64),
            "date" => Ok(Self::Date),
            "timestamp" => Ok(Self::Timestamp),
            "timestamptz" => Ok(Self::TimestampTz),
            "binary" => Ok(Self::Binary),
            "uuid" => Ok(Self::Uuid),
            "json" => Ok(Self::Json),
            _ => Err(format!(
                "{text:?} is not a type; use string, boolean, int16, int32, int64, float32, float64, decimal(18,3), date, timestamp, timestamptz, binary, uuid or json"
            )),
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Boolean => f.write_str("boolean"),
            Self::Int16 => f.write_str("int16"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampTz => f.write_str("timestamptz"),
            Self::Binary => f.write_str("binary"),
            Self::Uuid => f.write_str("uuid"),
            Self::Json => f.write_str("json"),
        }
    }
}

/// The snake_case form of a name in an input: `Series ID` → `series_id`, `fechaAplicacion` → `fecha_aplicacion`.
/// Letters outside ASCII stay as they are, in lower case.
pub fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut previous_lower = false;
    for c in name.trim().chars() {
        if c.is_alphanumeric() {
            if c.is_uppercase() && previous_lower && !out.ends_with('_') {
                out.push('_');
            }
            out.extend(c.to_lowercase());
            previous_lower = c.is_lowercase() || c.is_numeric();
        } else {
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
            previous_lower = false;
        }
    }
    out.truncate(out.trim_end_matches('_').len());
    out
}

#[cfg(test)]
mod tests {
    use super::{ColumnType, snake_case};

    #[test]
    fn types_read_and_print_alike() {
        for text in [
            "string",
            "boolean",
            "int16",
            "int32",
            "int64",
            "float32",
            "float64",
            "decimal(18,3)",
            "date",
            "timestamp",
            "timestamptz",
            "binary",
            "uuid",
            "json",
        ] {
            assert_eq!(ColumnType::parse(text).unwrap().to_string(), text);
        }
        for text in ["decimal", "decimal(39,0)", "decimal(3,4)", "decimal(0,0)", "text", "Int32", "decimal(1,2,3)"] {
            assert!(ColumnType::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_become_snake_case() {
        for (name, want) in [
            ("series_id        ", "series_id"),
            ("State ID", "state_id"),
            ("fechaAplicacion", "fecha_aplicacion"),
            ("Año", "año"),
            ("Q1 (%)", "q1"),
            ("ID", "id"),
            ("__x", "x"),
        ] {
            assert_eq!(snake_case(name), want, "{name:?}");
        }
    }
}
