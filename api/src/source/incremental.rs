//! Incremental reading: only what is new since the last good run, by a column that grows.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads only rows whose cursor is in `[watermark, bound)`. The watermark is where the last good run ended; the bound is
/// fixed when the run starts, by the source's own clock (databases), by the end of the run's interval (files) or, where
/// the cursor is a number, by the greatest one. Both move together with the rows: when all sinks are committed. Set
/// exactly one of `lag` and `delay`: they say what happens to rows that come late.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.lag) != has(self.delay)").message("set exactly one of lag and delay: lag: 1h reads the last hour again, delay: 15m leaves the last 15 minutes to the next run")))]
pub struct Incremental {
    /// The column that tells new rows: a timestamp, a date or a whole number that is set when a row is inserted or
    /// changed. A NULL in it ends the run. A timestamp without a zone is taken as UTC.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub cursor: String,

    /// Reads this much again before the watermark, for rows that come late, such as 1h; for numbers a count, such as
    /// 1000. The sinks have to take the place of rows that they have already: merge or deleteInsert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Text>,

    /// Leaves the newest rows to the next run, until they are this old, such as 15m; for numbers a count. Rows that come
    /// later than that are never read, so make it longer than the longest transaction that writes them. 0s says that no
    /// row ever comes late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Text>,

    /// Where the first run starts, such as 2024-01-01T00:00:00Z or 100. Default: with the oldest row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Text>,
}

/// Longest text of a [`Text`].
pub const TEXT_BYTES_MAX: usize = 64;

/// A short text that may also be written as a whole number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Text(pub String);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<i64>() {
            Ok(number) if number.to_string() == self.0 => serializer.serialize_i64(number),
            _ => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a whole number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Text {
    /// Reads a distance: a span of time with its unit, or a count for cursors that are numbers.
    pub fn distance(&self) -> Result<Distance, String> {
        let text = &self.0;
        if let Ok(count) = text.parse::<u32>() {
            return Ok(Distance::Count(u64::from(count)));
        }
        // A span of no time is none in the rest of the manifest; here it says that no row ever comes late.
        if matches!(text.as_str(), "0s" | "0m" | "0h" | "0d") {
            return Ok(Distance::Seconds(0));
        }
        crate::units::Span(text.clone())
            .parse()
            .map(Distance::Seconds)
            .map_err(|message| format!("{message}; for a cursor that is a number a count, such as 1000"))
    }

    /// Reads a cursor's value.
    pub fn start(&self) -> Result<Start, String> {
        let text = &self.0;
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Start::Number(number));
        }
        let written: Cow<'_, str> = text.as_str().into();
        if let Ok(time) = written.parse::<jiff::Timestamp>() {
            return Ok(Start::Time(time));
        }
        match written.parse::<jiff::civil::DateTime>() {
            Ok(time) => time
                .to_zoned(jiff::tz::TimeZone::UTC)
                .map(|time| Start::Time(time.timestamp()))
                .map_err(|error| error.to_string()),
            Err(_) => Err(format!("{text:?} is no start; write 2024-01-01T00:00:00Z, 2024-01-01 or a whole number")),
        }
    }
}

/// How far from the watermark or the bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Distance {
    /// For timestamps and dates.
    Seconds(u64),
    /// For whole numbers.
    Count(u64),
}

/// Where a first run starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// For timestamps and dates.
    Time(jiff::Timestamp),
    /// For whole numbers.
    Number(i64),
}

#[cfg(feature = "crd")]
mod schema {
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::Text;

    impl JsonSchema for Text {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Text".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"x-kubernetes-int-or-string": true, "maxLength": super::TEXT_BYTES_MAX})
        }
        fn inline_schema() -> bool {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Distance, Start, Text};

    #[test]
    fn distances_and_starts_read_as_people_write_them() {
        for (text, want) in [
            ("1h", Ok(Distance::Seconds(3600))),
            ("0s", Ok(Distance::Seconds(0))),
            ("1000", Ok(Distance::Count(1000))),
            ("0", Ok(Distance::Count(0))),
        ] {
            assert_eq!(Text(text.into()).distance(), want, "{text}");
        }
        assert!(Text("an hour".into()).distance().unwrap_err().contains("write 12h or 12m"));
        for (text, want) in [
            ("100", Start::Number(100)),
            ("-1", Start::Number(-1)),
            ("1970-01-01T00:01:00Z", Start::Time(jiff::Timestamp::from_second(60).unwrap())),
            ("1970-01-01T01:01:00+01:00", Start::Time(jiff::Timestamp::from_second(60).unwrap())),
            ("1970-01-02", Start::Time(jiff::Timestamp::from_second(86_400).unwrap())),
        ] {
            assert_eq!(Text(text.into()).start(), Ok(want), "{text}");
        }
        assert!(Text("yesterday".into()).start().is_err());
    }

    #[test]
    fn numbers_stay_numbers() {
        for json in ["100", "\"1h\"", "\"007\""] {
            let text: Text = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
        }
    }
}
