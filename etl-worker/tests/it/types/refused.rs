//! Texts that are no value of a type, in each text format.

use std::fmt::Write;

use crate::harness::World;

/// A type, texts that are none of it, and what they are.
const TEXTS: &[(&str, &[&str], &str)] = &[
    ("boolean", &["2", "on", "TRUE "], "another word"),
    ("int16", &["32768", "-32769", "1.5", "0x1"], "out of range, with a fraction, in another base"),
    ("int32", &["2147483648", "1e10"], "out of range"),
    ("int64", &["9223372036854775808", "1,000"], "out of range, with thousands that are not declared"),
    ("float32", &["3.5e38", "1e-46", "1e-400"], "too large, too small and not zero"),
    ("float64", &["1.8e308", "1e-400", "0x1p3"], "too large, too small and not zero"),
    ("decimal(5,2)", &["1000", "0.001", "1e3", "NaN"], "more digits than declared, NaN"),
    ("decimal(38,0)", &["100000000000000000000000000000000000000", "0.1"], "more than 38 digits"),
    (
        "date",
        &["0000-12-31", "10000-01-01", "2023-02-29", "2024-02-29T00:00", "29.02.2024"],
        "outside of the years 1 to 9999, no day, with a time, in another order",
    ),
    (
        "timestamp",
        &["2024-02-29T12:30:00.1234567", "2024-02-29T12:30:00Z", "2024-02-29T24:00:00"],
        "nanoseconds, with an offset, no time",
    ),
    (
        "timestamptz",
        &["2024-02-29T12:30:00.123456789Z", "2024-02-29T12:30:00", "0001-01-01T00:00:00+01:00"],
        "nanoseconds, without an offset, before the year 1 in UTC",
    ),
    ("binary", &["AP8", "AP9=", "_w==", "\\x00ff"], "without padding, other spellings, hexadecimal"),
    ("uuid", &["6ba7b810", "6ba7b810-9dad-11d1-80b4-00c04fd430cg"], "too short, another letter"),
    ("json", &["{", "NaN", "{'a': 1}"], "no JSON"),
];

/// Each as the only column of a row, in quarantine: all of them must be refused. Gives the table.
pub(super) async fn texts() -> String {
    let mut out = "| type | refused | such as |\n|---|---|---|\n".to_owned();
    for (type_, texts, what) in TEXTS {
        for format in ["csv", "json", "ndjson"] {
            // What is no JSON can't be in a JSON document, but breaks it.
            if *type_ == "json" && format != "csv" {
                continue;
            }
            let world = World::new().await;
            let objects: Vec<String> =
                texts.iter().map(|text| format!("{{\"it\": {}}}", serde_json::to_string(text).unwrap())).collect();
            let fields: String = texts.iter().map(|text| format!("\"{}\"\n", text.replace('"', "\"\""))).collect();
            world.file(
                &format!("given.{format}"),
                match format {
                    "csv" => format!("it\n{fields}"),
                    "json" => format!("[{}]", objects.join(",")),
                    _ => objects.join("\n"),
                },
            );
            let manifest = world.manifest(
                "p",
                &format!(
                    "sources:\n  - {{name: given, file: {{path: given.{format}}}, columns: [{{name: it, type: '{type_}'}}], onBadRow: quarantine, maxBadRows: {{ratio: 1}}}}\nsinks:\n  - {{name: out, from: given, {}, allowEmpty: true}}\n",
                    super::Sink::Sqlite.yaml()
                ),
            );
            let result = world.run(&manifest).ok();
            assert_eq!(result.rows_written, 0, "{format} {type_}: one of {texts:?} was taken");
            assert_eq!(result.sources[0].bad_rows, texts.len() as u64, "{format} {type_}");
        }
        let shown: Vec<_> = texts.iter().map(|text| format!("`{text}`")).collect();
        writeln!(out, "| {type_} | {what} | {} |", shown.join(", ")).unwrap();
    }
    out
}
