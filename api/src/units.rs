//! Quantities as people write them in a manifest: spans of time (`15m`) and sizes (`10Gi`).
//!
//! Both keep the text that was written, so that a manifest reads back as it was; an unreadable one is not an error when
//! the manifest is parsed but a [`Problem`](crate::problem::Problem) with its field when it is validated.

use serde::{Deserialize, Serialize};

/// A span of time: a whole number and one of the units s, m, h or d, such as `30s`, `15m`, `6h`, `7d`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Span(pub String);

/// An amount of storage: a whole number and one of the units Ki, Mi, Gi or Ti, such as `512Mi` or `10Gi`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Size(pub String);

/// Longest span: ten years. It keeps sums of spans and times far from overflow.
pub const SPAN_SECONDS_MAX: u64 = 10 * 366 * 86_400;
/// Largest size: 64 TiB, the largest volume that a cloud sells.
pub const SIZE_BYTES_MAX: u64 = 64 << 40;

impl Span {
    /// Reads the text. The error says what to write instead.
    pub fn parse(&self) -> Result<u64, String> {
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
        parse(&self.0, &units, SPAN_SECONDS_MAX, "write 12h or 12m")
    }

    /// The span in seconds; 0 where the text is unreadable, which validation has refused before anyone asks.
    pub fn seconds(&self) -> u64 {
        self.parse().unwrap_or(0)
    }
}

impl Size {
    /// Reads the text. The error says what to write instead.
    pub fn parse(&self) -> Result<u64, String> {
        let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)];
        parse(&self.0, &units, SIZE_BYTES_MAX, "write 512Mi or 10Gi")
    }

    /// The size in bytes; 0 where the text is unreadable, which validation has refused before anyone asks.
    pub fn bytes(&self) -> u64 {
        self.parse().unwrap_or(0)
    }
}

fn parse(text: &str, units: &[(&str, u64)], max: u64, example: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if digits == 0 {
        return Err(format!("{text:?} does not start with a whole number; {example}"));
    }
    if unit.is_empty() {
        return Err(format!("{text} has no unit; {example}"));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
        return Err(format!("{unit:?} is not a unit; use one of {}", names.join(", ")));
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)) {
        Some(0) => Err(format!("{text} is nothing; {example}")),
        Some(value) if value <= max => Ok(value),
        _ => Err(format!("{text} is too much; the most is {}{}", max / factor, unit)),
    }
}

#[cfg(feature = "crd")]
mod schema {
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{Size, Span};

    impl JsonSchema for Span {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Span".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "string", "maxLength": 16, "pattern": "^[0-9]+(s|m|h|d)$"})
        }
        fn inline_schema() -> bool {
            true
        }
    }

    impl JsonSchema for Size {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Size".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "string", "maxLength": 16, "pattern": "^[0-9]+(Ki|Mi|Gi|Ti)$"})
        }
        fn inline_schema() -> bool {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Size, Span};

    #[test]
    fn spans_and_sizes_read_as_people_write_them() {
        for (text, want) in [("30s", 30), ("15m", 900), ("6h", 21_600), ("7d", 604_800)] {
            assert_eq!(Span(text.into()).parse(), Ok(want), "{text}");
        }
        for (text, want) in [("512Mi", 536_870_912), ("10Gi", 10_737_418_240)] {
            assert_eq!(Size(text.into()).parse(), Ok(want), "{text}");
        }
    }

    #[test]
    fn an_unreadable_span_says_what_to_write() {
        for (text, want) in [
            ("12", "12 has no unit; write 12h or 12m"),
            ("h", "\"h\" does not start with a whole number; write 12h or 12m"),
            ("3w", "\"w\" is not a unit; use one of s, m, h, d"),
            ("0s", "0s is nothing; write 12h or 12m"),
            ("99999999999999999999d", "99999999999999999999d is too much; the most is 3660d"),
        ] {
            assert_eq!(Span(text.into()).parse(), Err(want.into()), "{text}");
        }
    }
}
