//! The values that have to survive, by column type, and the sinks that refuse some of them.

use super::{Sink, Source};

/// A column type and its values.
pub(super) struct Kind {
    pub(super) type_: &'static str,
    /// The type in a PostgreSQL source.
    pub(super) postgres: &'static str,
    /// Sinks that have no such column, and the error's code.
    pub(super) refused_by: &'static [(Sink, &'static str)],
    pub(super) values: Vec<Value>,
}

/// A value as text: bytes as hexadecimal digits, times in ISO 8601.
pub(super) struct Value {
    pub(super) text: String,
    /// What the table calls it.
    pub(super) label: String,
    /// Sources that can't hold it.
    pub(super) not_in: &'static [Source],
    /// Sinks that refuse it, and the error's code.
    pub(super) refused_by: &'static [(Sink, &'static str)],
    /// Sinks in which it becomes another, equal one.
    pub(super) becomes: &'static [(Sink, &'static str)],
}

impl Kind {
    fn new(type_: &'static str, postgres: &'static str, texts: &[&str]) -> Self {
        let values = texts.iter().map(|text| Value::new(text, &format!("`{text}`"))).collect();
        Self { type_, postgres, refused_by: &[], values }
    }

    fn and(mut self, text: &str, label: &str, refused_by: &'static [(Sink, &'static str)]) -> Self {
        self.values.push(Value { refused_by, ..Value::new(text, label) });
        self
    }

    fn but(mut self, text: &str, refused_by: &'static [(Sink, &'static str)]) -> Self {
        self.values.push(Value { refused_by, ..Value::new(text, &format!("`{text}`")) });
        self
    }

    fn becoming(mut self, others: &'static [(Sink, &'static str)]) -> Self {
        self.values.last_mut().unwrap().becomes = others;
        self
    }

    fn not_in(mut self, sources: &'static [Source]) -> Self {
        self.values.last_mut().unwrap().not_in = sources;
        self
    }

    /// The values that a source can hold and a sink takes.
    pub(super) fn kept(&self, source: Source, sink: Sink) -> Vec<&Value> {
        if self.refused_by.iter().any(|(by, _)| *by == sink) {
            return Vec::new();
        }
        let values = self.values.iter().filter(|value| !value.not_in.contains(&source));
        values.filter(|value| value.refused_by(sink).is_none()).collect()
    }
}

impl Value {
    fn new(text: &str, label: &str) -> Self {
        Self { text: text.into(), label: label.into(), not_in: &[], refused_by: &[], becomes: &[] }
    }

    /// What is read back from the sink.
    pub(super) fn wanted(&self, sink: Sink) -> &str {
        self.becomes.iter().find(|(by, _)| *by == sink).map_or(&self.text, |(_, other)| other)
    }

    pub(super) fn refused_by(&self, sink: Sink) -> Option<&'static str> {
        self.refused_by.iter().find(|(by, _)| *by == sink).map(|(_, code)| *code)
    }
}

const MYSQL: &[(Sink, &str)] = &[(Sink::Mysql, "type_unsupported")];
const SQLITE: &[(Sink, &str)] = &[(Sink::Sqlite, "type_unsupported")];
const MYSQL_SQLITE: &[(Sink, &str)] = &[(Sink::Mysql, "type_unsupported"), (Sink::Sqlite, "type_unsupported")];
/// −0 equals 0, and these keep no sign of it.
const ZERO: &[(Sink, &str)] = &[(Sink::Mysql, "0.0"), (Sink::Sqlite, "0.0")];
const POSTGRES: &[(Sink, &str)] = &[(Sink::Postgres, "value_invalid")];

/// All kinds. `null` of each is tried besides.
pub(super) fn kinds() -> Vec<Kind> {
    let all_bytes: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
    let long = "0123456789abcdé\n".repeat(1 << 16);
    vec![
        Kind::new("boolean", "boolean", &["true", "false"]),
        Kind::new("int16", "smallint", &["-32768", "0", "32767"]),
        Kind::new("int32", "integer", &["-2147483648", "0", "2147483647"]),
        Kind::new("int64", "bigint", &["-9223372036854775808", "9007199254740993", "9223372036854775807"]),
        Kind::new("float32", "real", &["0.1", "16777216", "3.4028235e38", "-3.4028235e38", "1.1754944e-38", "1e-45"])
            .but("-0.0", &[])
            .becoming(ZERO)
            .but("inf", MYSQL)
            .but("-inf", MYSQL)
            .but("NaN", MYSQL_SQLITE),
        Kind::new(
            "float64",
            "double precision",
            &[
                "0.1",
                "9007199254740992",
                "1.7976931348623157e308",
                "-1.7976931348623157e308",
                "2.2250738585072014e-308",
                "5e-324",
            ],
        )
        .but("-0.0", &[])
        .becoming(ZERO)
        .but("inf", MYSQL)
        .but("-inf", MYSQL)
        .but("NaN", MYSQL_SQLITE),
        Kind::new(
            "decimal(15,2)",
            "numeric(15,2)",
            &["0", "0.01", "-0.01", "10000", "9999999999999.99", "-9999999999999.99"],
        ),
        Kind::new("decimal(38,0)", "numeric(38,0)", &["1", "100000000000000000000000000000000000"])
            .but("99999999999999999999999999999999999999", SQLITE)
            .but("-99999999999999999999999999999999999999", SQLITE),
        Kind::new("decimal(38,10)", "numeric(38,10)", &["0.0000000001", "-0.0000000001", "100000000", "12345.678"])
            .but("9999999999999999999999999999.9999999999", SQLITE)
            .but("-1234567890123456789012345678.0123456789", SQLITE),
        Kind {
            refused_by: MYSQL,
            ..Kind::new("decimal(38,38)", "numeric(38,38)", &["0.00000000000000000000000000000000000001", "-0.5"])
                .but("0.99999999999999999999999999999999999999", SQLITE)
        },
        Kind::new(
            "date",
            "date",
            &["1000-01-01", "1582-10-10", "1969-12-31", "1970-01-01", "2024-02-29", "9999-12-31"],
        )
        .but("0001-01-01", MYSQL)
        .but("0999-12-31", MYSQL),
        Kind::new(
            "timestamp",
            "timestamp",
            &[
                "1000-01-01T00:00:00.000001",
                "1969-12-31T23:59:59.999999",
                "2024-02-29T12:30:00.123456",
                "9999-12-31T23:59:59.999999",
            ],
        )
        .but("0001-01-01T00:00:00", MYSQL),
        Kind::new(
            "timestamptz",
            "timestamptz",
            &[
                "1000-01-01T00:00:00.000001Z",
                "1969-12-31T23:59:59.999999Z",
                "2026-03-29T02:30:00.123456+02:00",
                "9999-12-31T23:59:59.999999Z",
            ],
        )
        .but("0001-01-01T00:00:00Z", MYSQL),
        Kind::new(
            "string",
            "text",
            &["NULL", "\\N", "007", "1e3", "it's \"quoted\"", "back\\slash", "😀👩‍👩‍👧‍👦", "مرحبا שלום"],
        )
        .and("", "the empty text", &[])
        .and(" ", "a space", &[])
        .and("  two before, two after  ", "spaces at both ends", &[])
        .and("a\tb\nc\r\nd\re", "tabs and line breaks", &[])
        .and("e\u{301} \u{e9} \u{1f3f4}\u{e0067}", "combining marks, not normalized", &[])
        .and("\u{feff}\u{10ffff}\u{1}\u{7f}", "a byte order mark, U+10FFFF, control characters", &[])
        .and(&long, "a text of 1 MiB", &[])
        .and("a\0b", "NUL in a text", POSTGRES)
        .not_in(&[Source::Postgres]),
        Kind::new("binary", "bytea", &[])
            .and("", "no bytes", &[])
            .and("00", "one zero byte", &[])
            .and(&all_bytes, "each byte from 0 to 255", &[])
            .and("5c7830", "the text `\\x0` as bytes", &[]),
        Kind::new(
            "uuid",
            "uuid",
            &[
                "00000000-0000-0000-0000-000000000000",
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ],
        ),
        Kind::new(
            "json",
            "json",
            &[
                "{\"b\": [1, 2.50, {\"é😀\": \"\\n\"}], \"a\": null}",
                "[]",
                "\"text\"",
                "true",
                "12345678901234567890.12345678901234567890",
                "1e400",
            ],
        )
        .but("null", &[])
        // In these it is NULL.
        .not_in(&[Source::Json, Source::Ndjson])
        .but("{\"a\": 1, \"a\": 2}", POSTGRES)
        .but("\"\\u0000\"", POSTGRES),
    ]
}
