//! A value in a manifest that is compared with a column's: a number, a text, a date or a boolean.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most digits of a number with a point that survive on their way through YAML and JSON, which keep it as a 64-bit float.
const FLOAT_DIGITS_MAX: usize = 15;

/// A value that is compared with a column's. It is read as the column's type when the column is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text, a date, a time, or a number in quotes.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number with a point.
    Number(f64),
    /// True or false.
    Boolean(bool),
}

impl Value {
    /// The value as it was written. The error says what to write instead.
    pub fn text(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Whole(number) => Ok(number.to_string()),
            Self::Boolean(value) => Ok(value.to_string()),
            Self::Number(number) => {
                let text = number.to_string();
                let digits = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
                if number.is_finite() && digits <= FLOAT_DIGITS_MAX {
                    Ok(text)
                } else {
                    Err(format!(
                        "{text} may not be the number that was written; write numbers of more than {FLOAT_DIGITS_MAX} digits in quotes"
                    ))
                }
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Whole(number) => serializer.serialize_i64(*number),
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Boolean(value) => serializer.serialize_bool(*value),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar)
    }
}

struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text or a boolean")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        // Larger ones have too many digits for a float and are refused with what to write instead.
        Ok(i64::try_from(number).map_or(Value::Number(number as f64), Value::Whole))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }
}

#[cfg(feature = "crd")]
impl schemars::JsonSchema for Value {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Value".into()
    }

    // Without a type: Kubernetes has none for "a number, a text or a boolean".
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-preserve-unknown-fields": true})
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn a_value_is_taken_as_it_was_written_or_refused() {
        for (json, want) in [
            ("1", Ok("1")),
            ("-7", Ok("-7")),
            ("0.1", Ok("0.1")),
            ("0.001", Ok("0.001")),
            ("1e3", Ok("1000")),
            ("123456789012.345", Ok("123456789012.345")),
            ("true", Ok("true")),
            ("\"2024-01-31\"", Ok("2024-01-31")),
            ("\"12345678901234567890.12\"", Ok("12345678901234567890.12")),
            ("12345678901234567890.12", Err(())),
            ("18446744073709551615", Err(())),
            ("0.1234567890123456", Err(())),
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(value.text().map_err(|_| ()), want.map(str::to_owned), "{json}");
            let back: Value = serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap();
            assert_eq!(back, value, "{json}");
        }
        for json in ["null", "[]", "{}"] {
            assert!(serde_json::from_str::<Value>(json).is_err(), "{json}");
        }
    }
}
