use serde_json::{Value, json};

use super::validate;
use crate::checked::{CheckRule, Checked, FormatKind, SinkKind, SinkMode};
use crate::manifest::Manifest;

/// A manifest without a problem: one of each, so that an edit can break each.
const BASE_MANIFEST: &str = r#"
apiVersion: report-operator.dev/v1alpha1
kind: ReportPipeline
metadata: {name: productivity}
spec:
  description: US productivity
  schedule: "0 */6 * * *"
  sources:
    - name: series
      http:
        url: https://example.org/pub/series.csv
        headers: [{name: User-Agent, valueFrom: {secretKeyRef: {name: contact, key: email}}}]
      columns: [{name: series_id, type: string, required: true}, {name: year, type: int32}]
  models:
    - {name: best_year, sql: "SELECT series_id, max(year) AS year FROM recent GROUP BY series_id"}
    - {name: recent, sql: "SELECT * FROM series WHERE year > 2000"}
  checks:
    - {name: keys, from: best_year, unique: [series_id]}
    - {name: none-old, sql: "SELECT * FROM recent WHERE year < 2000"}
  sinks:
    - name: best-year
      from: best_year
      postgres: {connection: {secretRef: {name: reporting-db}}, table: reporting.best_year}
      mode: {merge: {key: [series_id]}}
    - {name: silver, from: series, lake: {url: "s3://lake/silver/series/", partitionBy: [year]}}
    - {name: file, from: recent, sqlite: {path: /data/reporting.db, table: recent}}
  worker: {resources: {limits: {memory: 512Mi}}}
"#;

/// Lays an edit over a value: objects field by field, null takes a field away, anything else takes the place.
fn lay(base: &mut Value, edit: Value) {
    match (base, edit) {
        (Value::Object(base), Value::Object(edit)) => {
            for (name, value) in edit {
                if value.is_null() {
                    base.remove(&name);
                } else {
                    lay(base.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (base, edit) => *base = edit,
    }
}

fn edited(base: &str, edit: &str) -> Result<Checked, Vec<String>> {
    let mut manifest: Value = serde_yaml::from_str(base).unwrap();
    let edit: Value = serde_yaml::from_str(edit).unwrap_or_else(|error| panic!("{edit}: {error}"));
    lay(&mut manifest["spec"], edit);
    named(manifest)
}

fn named(manifest: Value) -> Result<Checked, Vec<String>> {
    let manifest: Manifest =
        serde_json::from_value(manifest.clone()).unwrap_or_else(|error| panic!("{manifest}: {error}"));
    let result = validate(&manifest.metadata.name, &manifest.spec);
    result.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// The edit gives exactly this problem; an empty text: none.
#[track_caller]
fn check_problem(base: &str, edit: &str, want: &str) {
    let got = edited(base, edit).err().unwrap_or_default().join("\n");
    assert_eq!(got, want, "{edit}");
}

#[track_caller]
fn base() -> Checked {
    edited(BASE_MANIFEST, "{}").unwrap()
}

#[test]
fn a_manifest_without_a_problem_becomes_a_closed_value() {
    let checked = base();
    assert_eq!(checked.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["recent", "best_year"]);
    assert_eq!(checked.models[1].field, "spec.models[0]");
    assert_eq!(checked.models[1].reads, ["recent"]);
    assert!(
        matches!(&checked.sources[0].format, FormatKind::Csv(csv) if csv.delimiter == b',' && csv.quote == Some(b'"') && csv.header)
    );
    assert!(matches!(&checked.checks[1].rule, CheckRule::Sql { reads, .. } if reads == &["recent"]));
    let SinkMode::Merge { key, latest_by: None, only_if_newer: None, delete_when: None } = &checked.sinks[0].mode
    else {
        panic!("{:?}", checked.sinks[0].mode);
    };
    assert_eq!(*key, ["series_id"]);
    assert_eq!(checked.sinks[0].primary_key, ["series_id"]);
    assert!(matches!(&checked.sinks[1].kind, SinkKind::Lake { url, .. } if url == "s3://lake/silver/series"));
    let secrets: Vec<String> = checked.secrets.iter().map(|key| key.variable()).collect();
    assert_eq!(secrets, ["SECRET_CONTACT_EMAIL", "SECRET_REPORTING_DB_URL"]);
    assert!(checked.schedule.is_some());
    assert_eq!(checked.timeout_seconds, 3600);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_manifest() {
    let edit = r#"
schedule: "61 * * * *"
timeZone: Mars/Base
freshness: {maxAge: '12'}
sources:
  - {name: Series, file: {path: data.csv}}
  - {name: b, columns: [{name: a, type: int}]}
models: [{name: m, sql: "SELECT * FROM seris"}, {name: p, sql: "SELEC 1"}]
checks: [{name: keys, from: m}]
sinks: [{name: s, from: x, lake: {url: "gs://lake"}}]
worker: {scratch: '10'}
"#;
    let problems = edited(BASE_MANIFEST, edit).unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|problem| problem.split_once(": ").unwrap().0).collect();
    assert_eq!(
        fields,
        [
            "spec.schedule",
            "spec.timeZone",
            "spec.freshness.maxAge",
            "spec.sources[0].name",
            "spec.sources[1]",
            "spec.sources[1].columns[0].type",
            "spec.models[0].sql",
            "spec.models[1].sql",
            "spec.checks[0]",
            "spec.sinks[0].from",
            "spec.sinks[0].lake.url",
            "spec.worker.scratch",
        ]
    );
}

#[test]
fn a_wrong_name_of_a_pipeline_says_what_to_write() {
    for (name, want) in [
        ("x".repeat(40).as_str(), ""),
        ("x-3006450", ""),
        ("x30064500", ""),
        ("x".repeat(41).as_str(), "metadata.name: 41 characters are too many; the most is 40"),
        (
            "Daily_Report",
            "metadata.name: \"Daily_Report\" can't be a name; write lower case letters, digits and dashes, with no dash at an end, such as daily-report",
        ),
        (
            "-x",
            "metadata.name: \"-x\" can't be a name; write lower case letters, digits and dashes, with no dash at an end, such as x",
        ),
        (
            "a.b",
            "metadata.name: \"a.b\" can't be a name; write lower case letters, digits and dashes, with no dash at an end, such as a-b",
        ),
        (
            "x-30064500",
            "metadata.name: x-30064500 ends like the name of a scheduled Job; write fewer or more than 8 or 9 digits",
        ),
    ] {
        let mut manifest: Value = serde_yaml::from_str(BASE_MANIFEST).unwrap();
        manifest["metadata"]["name"] = json!(name);
        assert_eq!(named(manifest).err().unwrap_or_default().join("\n"), want, "{name}");
    }
}

#[test]
fn a_wrong_setting_of_runs_says_what_to_write() {
    for (edit, want) in [
        ("schedule: '61 * * * *'", "spec.schedule: minute 61 is outside 0-59"),
        ("schedule: null", ""),
        (
            "{schedule: null, timeZone: Europe/Rom}",
            "spec.timeZone: there is no time zone \"Europe/Rom\"; did you mean Europe/Rome?",
        ),
        ("freshness: {maxAge: '12'}", "spec.freshness.maxAge: 12 has no unit; write 12h or 12m"),
        ("startingDeadline: 15m", ""),
        (
            "startingDeadline: 5m",
            "spec.startingDeadline: 5m is less than 15m; write 15m or more: Kubernetes may be that late when many schedules are due at once",
        ),
        ("raw: {url: s3://lake/raw, retention: 30d}", ""),
        (
            "raw: {url: lake/raw, retention: '30'}",
            "spec.raw.retention: 30 has no unit; write 12h or 12m\nspec.raw.url: it is not an address; write s3://bucket/prefix or file:///absolute/folder",
        ),
        (
            "maxInterval: 1d",
            "spec.maxInterval: the sink silver replaces: of several intervals it would keep the rows of the last one only; use append, merge or deleteInsert there, or leave maxInterval out\nspec.maxInterval: the sink file replaces: of several intervals it would keep the rows of the last one only; use append, merge or deleteInsert there, or leave maxInterval out",
        ),
        ("timeout: 0s", "spec.timeout: 0s is nothing; write 12h or 12m"),
        ("retries: 11", "spec.retries: 11 is outside 0 to 10"),
        ("history: {failed: 0}", "spec.history.failed: 0 is outside 1 to 100"),
        (
            "sources: []\nmodels: []\nchecks: []\nsinks: []",
            "spec.sources: the list is empty; write at least 1\nspec.sinks: the list is empty; write at least 1",
        ),
    ] {
        check_problem(BASE_MANIFEST, edit, want);
    }
}

/// One source, `a`, and a sink that takes it.
const ONE_SOURCE: &str = r#"
apiVersion: report-operator.dev/v1alpha1
kind: ReportPipeline
metadata: {name: one}
spec:
  sources: []
  sinks: [{name: s, from: a, sqlite: {path: x.db, table: a}}]
"#;

#[test]
fn a_wrong_source_says_what_to_write() {
    for (source, want) in [
        ("file: {path: a.csv}, columns: [{name: x, type: string}]", ""),
        ("file: {path: a.csv}", ""),
        ("file: {path: a.json.gz}", ""),
        ("file: {path: A.NDJSON}", ""),
        (
            "file: {path: a.csv}, format: {csv: {header: false}}",
            "spec.sources[0].columns: without a header the input does not say its columns; list them in their order, such as {name: id, type: int64}",
        ),
        ("file: {path: a.parquet}", ""),
        (
            "file: {path: a.txt}",
            "spec.sources[0].format: the ending of \"a.txt\" does not say the format; set format, such as format: {csv: {}}",
        ),
        ("http: {url: 'https://x.org/a.parquet?v=1.2'}", ""),
        (
            "http: {url: 'https://x.org/api?f=a.parquet'}",
            "spec.sources[0].format: the ending of \"api\" does not say the format; set format, such as format: {csv: {}}",
        ),
        ("format: {parquet: {}}", "spec.sources[0]: none is set; set exactly one of http, file and postgres"),
        (
            "http: {url: 'https://x.org/a.parquet'}, file: {path: a.parquet}",
            "spec.sources[0]: http and file are set; set exactly one of http, file and postgres",
        ),
        ("http: {url: 'ftp://x.org/a.parquet'}", "spec.sources[0].http.url: it has to begin with http:// or https://"),
        (
            "http: {url: 'https:///a.parquet'}",
            "spec.sources[0].http.url: it is not an address (empty host); write one such as https://example.org/data.csv",
        ),
        (
            "http: {url: 'https://'}, format: {parquet: {}}",
            "spec.sources[0].http.url: it is not an address (empty host); write one such as https://example.org/data.csv",
        ),
        (
            "http: {url: 'x.org/a'}, format: {parquet: {}}",
            "spec.sources[0].http.url: it has to begin with http:// or https://",
        ),
        (
            "http: {url: 'https://me:secret@x.org/a.parquet'}",
            "spec.sources[0].http.url: there is a user or password in it; send it as a header with valueFrom",
        ),
        (
            "http: {url: 'https://x.org/{{ day }}.parquet'}",
            "spec.sources[0].http.url: the template is wrong: a name is not known; there are interval.start, interval.end, run.id, pipeline.name and pipeline.namespace",
        ),
        ("http: {url: 'https://x.org/{{ interval.start | date(\"%Y\") }}.parquet'}", ""),
        (
            "http: {url: '{{ pipeline.name }}/a.parquet'}",
            "spec.sources[0].http.url: it has to begin with http:// or https://",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', timeout: 1x, maxSize: 5GB}",
            "spec.sources[0].http.timeout: \"x\" is not a unit; use one of s, m, h, d\nspec.sources[0].http.maxSize: \"GB\" is not a unit; use one of Ki, Mi, Gi, Ti",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', headers: [{name: 'A B', value: x}]}",
            "spec.sources[0].http.headers[0].name: \"A B\" can't be the name of a header; write letters, digits and dashes, such as User-Agent",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', headers: [{name: Range, value: x}]}",
            "spec.sources[0].http.headers[0].name: Range is set by the worker itself; remove it",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', headers: [{name: A}]}",
            "spec.sources[0].http.headers[0]: none is set; set exactly one of value and valueFrom",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', headers: [{name: A, value: x, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
            "spec.sources[0].http.headers[0]: value and valueFrom are set; set exactly one of value and valueFrom",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', headers: [{name: A, value: \"x\\ny\"}]}",
            "spec.sources[0].http.headers[0].value: there is a control character or one outside ASCII in it; a header can't carry that",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', headers: [{name: Accept, value: x}, {name: accept, value: z}]}",
            "spec.sources[0].http.headers[1].name: accept is the name of headers[0] too; send it once",
        ),
        (
            "http: {url: 'https://x.org/a.parquet', headers: [{name: A, valueFrom: {secretKeyRef: {name: S_1, key: 'k k'}}}]}",
            "spec.sources[0].http.headers[0].valueFrom.secretKeyRef.name: \"S_1\" can't be the name of a Secret; write lower case letters, digits, dashes and dots\nspec.sources[0].http.headers[0].valueFrom.secretKeyRef.key: \"k k\" can't be a key of a Secret; write letters, digits, dashes, dots and underscores",
        ),
        (
            "file: {path: ''}, format: {parquet: {}}",
            "spec.sources[0].file.path: it names no file; write one such as data/orders.csv",
        ),
        (
            "file: {path: 'https://x.org/a.parquet'}",
            "spec.sources[0].file.path: https:// is an address, not a path; write it as http: {url: …}",
        ),
        (
            "file: {path: a}, format: {}",
            "spec.sources[0].format: none is set; set exactly one of csv, json, ndjson and parquet",
        ),
        (
            "file: {path: a}, format: {csv: {}, parquet: {}}",
            "spec.sources[0].format: csv and parquet are set; set exactly one of csv, json, ndjson and parquet",
        ),
        (
            "file: {path: a}, columns: [{name: x, type: string}], format: {csv: {delimiter: ';;'}}",
            "spec.sources[0].format.csv.delimiter: \";;\" can't be the delimiter; write one ASCII character that is no line break",
        ),
        (
            "file: {path: a}, columns: [{name: x, type: string}], format: {csv: {delimiter: '\\t'}}",
            "spec.sources[0].format.csv.delimiter: \"\\\\t\" can't be the delimiter; write \"\\t\" in double quotes for a tab",
        ),
        ("file: {path: a}, columns: [{name: x, type: string}], format: {csv: {delimiter: \"\\t\", quote: ''}}", ""),
        (
            "file: {path: a}, columns: [{name: x, type: string}], format: {csv: {quote: €}}",
            "spec.sources[0].format.csv.quote: \"€\" can't be the quote; write one ASCII character that is no line break",
        ),
        (
            "file: {path: a}, columns: [{name: x, type: string}], format: {csv: {quote: ','}}",
            "spec.sources[0].format.csv.quote: ',' is the delimiter too; write another one, or quote: \"\" where nothing is quoted",
        ),
        (
            "file: {path: a.csv}, columns: [{name: x, from: X, type: string}], format: {csv: {header: false}}",
            "spec.sources[0].columns[0].from: without a header the input has no names; leave it out and list the columns in their order",
        ),
        ("file: {path: a}, columns: [{name: x, type: string}], format: {json: {rows: $.a.b-c}}", ""),
        (
            "file: {path: a}, columns: [{name: x, type: string}], format: {json: {rows: '$.a[0]'}}",
            "spec.sources[0].format.json.rows: \"$.a[0]\" can't be read; write $ for the document itself or field names only, such as $.result.rows",
        ),
        (
            "file: {path: a}, columns: [{name: x, type: string}], format: {json: {rows: a.b}}",
            "spec.sources[0].format.json.rows: \"a.b\" can't be read; write $ for the document itself or field names only, such as $.result.rows",
        ),
        (
            "file: {path: a.csv}, columns: [{name: x, type: string}, {name: x, type: int64}]",
            "spec.sources[0].columns[1].name: `x` is the name of columns[0] too; columns need names of their own",
        ),
        (
            "file: {path: a.csv}, columns: [{name: State ID, type: string}]",
            "spec.sources[0].columns[0].name: \"State ID\" can't be a name in SQL; write state_id, and from: where the input's name differs by more",
        ),
        (
            "file: {path: a.csv}, columns: [{name: 1x, type: string}]",
            "spec.sources[0].columns[0].name: \"1x\" can't be a name in SQL; write lower case letters, digits and underscores, and no digit first",
        ),
        (
            "file: {path: a.csv}, columns: [{name: x, type: text}]",
            "spec.sources[0].columns[0].type: \"text\" is not a type; use string, boolean, int16, int32, int64, float32, float64, decimal(18,3), date, timestamp, timestamptz, binary, uuid or json",
        ),
    ] {
        check_problem(ONE_SOURCE, &format!("sources: [{{name: a, {source}}}]"), want);
    }
}

#[test]
fn what_a_source_says_of_its_rows_is_checked() {
    const ROWS: &str = "spec.sources[0].maxBadRows";
    const MASK: &str = "spec.sources[0].mask[0]";
    const COLUMN: &str = "spec.sources[0].columns[0]";
    let key = "key: {secretKeyRef: {name: pii, key: salt}}";
    for (source, want) in [
        ("onBadRow: quarantine, maxBadRows: {count: 3, ratio: 0.5}", String::new()),
        ("onBadRow: skip, maxBadRows: {ratio: 1.5}", format!("{ROWS}.ratio: it has to be a number from 0 to 1, such as 0.01")),
        ("onBadRow: skip, maxBadRows: {}", format!("{ROWS}: it is empty; set count, ratio or both")),
        (
            "maxBadRows: {count: 1}",
            format!("{ROWS}: the first bad row ends the run; set onBadRow to quarantine or skip, or leave it out"),
        ),
        ("maxRecordSize: 128Mi", String::new()),
        ("maxRecordSize: 1Gi", "spec.sources[0].maxRecordSize: it has to be from 1Mi to 512Mi".into()),
        (&format!("mask: [{{column: x, method: hmac-sha256, {key}}}]"), String::new()),
        (
            "mask: [{column: x, method: hmac-sha256}]",
            format!("{MASK}: hmac-sha256 needs a key; write key: {{secretKeyRef: {{name: pii, key: salt}}}}"),
        ),
        (
            &format!("mask: [{{column: x, method: redact, {key}}}]"),
            format!("{MASK}.key: the method does not use it; leave it out"),
        ),
        (
            "mask: [{column: zz, method: redact}]",
            format!("{MASK}.column: the source has no column `zz`; name one of columns"),
        ),
        (
            "mask: [{column: x, method: redact}, {column: x, method: redact}]",
            "spec.sources[0].mask[1].column: `x` is masked by mask[0] too; mask a column once".into(),
        ),
        (
            "mask: [{column: x, method: truncate}]",
            format!("{MASK}: truncate needs exactly one of length (for text) and to (for dates)"),
        ),
        ("mask: [{column: x, method: truncate, to: year}]", format!("{MASK}.to: a string has no year; write length, or redact it")),
        (
            "mask: [{column: d, method: truncate, length: 4}], columns: [{name: d, type: date}]",
            format!("{MASK}.length: a date has no first characters; write to: year for a date, or redact it"),
        ),
        (
            "mask: [{column: x, method: redact}], contract: evolve",
            "spec.sources[0].contract: evolve would let new columns in that no mask knows; write discard, or list all columns".into(),
        ),
        (
            "contract: discard, format: {csv: {header: false}}",
            "spec.sources[0].contract: without a header the input's columns have no names to tell new ones by; leave it out".into(),
        ),
        ("columns: [{name: d, type: date, format: '%d/%m/%Y'}]", String::new()),
        ("columns: [{name: d, type: timestamp, format: '%d.%m.%y %I:%M %p'}]", String::new()),
        ("columns: [{name: d, type: timestamptz, format: '%s'}]", String::new()),
        (
            "columns: [{name: d, type: date, format: '%d/%m'}]",
            format!("{COLUMN}.format: \"%d/%m\" does not say all of a date; it needs %Y, %m and %d"),
        ),
        (
            "columns: [{name: d, type: timestamp, format: '%Y-%m-%d %I'}]",
            format!("{COLUMN}.format: \"%Y-%m-%d %I\" does not say all of a timestamp; it needs %Y, %m, %d and %H"),
        ),
        (
            "columns: [{name: d, type: timestamptz, format: '%Y-%m-%d %H:%M'}]",
            format!("{COLUMN}.format: \"%Y-%m-%d %H:%M\" does not say all of a timestamptz; it needs %Y, %m, %d, %H and %z, or %s"),
        ),
        ("columns: [{name: d, type: int32, format: '%Y'}]", format!("{COLUMN}.format: a int32 is no date; leave it out")),
        ("columns: [{name: num, type: float64, number: {decimal: ',', group: '.'}}]", String::new()),
        ("columns: [{name: num, type: int32, number: {group: ' '}}]", String::new()),
        (
            "columns: [{name: num, type: float64, number: {decimal: ',', group: ','}}]",
            format!("{COLUMN}.number.group: it is the character before the fraction too; write decimal as well"),
        ),
        (
            "columns: [{name: num, type: float64, number: {group: '0'}}]",
            format!("{COLUMN}.number.group: \"0\" can't stand in a number; write one character such as \",\" or \".\""),
        ),
        ("columns: [{name: num, type: string, number: {}}]", format!("{COLUMN}.number: a string is no number; leave it out")),
        (
            "columns: [{name: num, type: int32, number: {group: '.', decimal: ','}}], format: {ndjson: {}}",
            format!("{COLUMN}.number: only a csv input can have its own; leave it out"),
        ),
        ("format: {csv: {nullValues: [NA, '-'], quotedNulls: true, comment: '#', skipLines: 3}}", String::new()),
        (
            "format: {csv: {comment: ','}}",
            "spec.sources[0].format.csv.comment: ',' is the delimiter or quote too".into(),
        ),
        ("format: {csv: {skipLines: 1001}}", "spec.sources[0].format.csv.skipLines: the most is 1000".into()),
    ] {
        let columns = if source.contains("columns:") { "" } else { ", columns: [{name: x, type: string}]" };
        let text = format!("sources: [{{name: a, file: {{path: a.csv}}, {source}{columns}}}]");
        check_problem(ONE_SOURCE, &text, &want);
    }
}

#[test]
fn keys_of_masks_are_secrets_of_the_pipeline() {
    let source = "sources: [{name: a, file: {path: a.csv}, columns: [{name: x, type: string}], mask: [{column: x, method: hmac-sha256, key: {secretKeyRef: {name: pii, key: salt}}}]}]";
    let checked = edited(ONE_SOURCE, source).unwrap();
    assert_eq!(checked.secrets.iter().map(|key| key.variable()).collect::<Vec<_>>(), ["SECRET_PII_SALT"]);
}

#[test]
fn the_ending_of_a_name_says_the_format() {
    for (path, want) in [
        (
            "a.csv",
            "Csv(CsvFormat { delimiter: 44, quote: Some(34), trim: false, header: true, encoding: Utf8, null_values: [], quoted_nulls: false, comment: None, skip_lines: 0 })",
        ),
        (
            "a.tsv.gz",
            "Csv(CsvFormat { delimiter: 9, quote: Some(34), trim: false, header: true, encoding: Utf8, null_values: [], quoted_nulls: false, comment: None, skip_lines: 0 })",
        ),
        ("a.json", "Json { path: [] }"),
        ("a.jsonl", "NdJson"),
        ("a.parquet", "Parquet"),
    ] {
        let edit = format!("sources: [{{name: a, file: {{path: {path}}}, columns: [{{name: x, type: string}}]}}]");
        let checked = edited(ONE_SOURCE, &edit).unwrap();
        assert_eq!(format!("{:?}", checked.sources[0].format), want, "{path}");
    }
}

#[test]
fn a_wrong_model_says_where_and_what_to_write() {
    for (models, want) in [
        (
            "{name: series, sql: SELECT 1}",
            "spec.models[0].name: `series` is the name of spec.sources[0] too; sources and models need names of their own",
        ),
        (
            "{name: a, sql: SELECT 1}, {name: a, sql: SELECT 1}",
            "spec.models[1].name: `a` is the name of spec.models[0] too; sources and models need names of their own",
        ),
        (
            "{name: Best Year, sql: SELECT 1}",
            "spec.models[0].name: \"Best Year\" can't be a name in SQL; write lower case letters, digits and underscores, such as best_year",
        ),
        (
            "{name: a, sql: SELECT * FROM sereis}",
            "spec.models[0].sql: line 1, column 15: no model or source `sereis`; did you mean `series`?",
        ),
        (
            "{name: a, sql: \"SELECT *\\nFROM orders JOIN \\\"Series\\\" ON true\"}",
            "spec.models[0].sql: line 2, column 6: no model or source `orders`; there is series, a\nspec.models[0].sql: line 2, column 18: no model or source `Series`; did you mean `series`?",
        ),
        ("{name: a, sql: SELECT * FROM}", "spec.models[0].sql: at the end: expected identifier, found the end"),
        (
            "{name: a, sql: SELECT * FROM public.series}",
            "spec.models[0].sql: line 1, column 15: public.series has a schema; name a source or model: tables in databases are sources of their own",
        ),
        ("{name: a, sql: SELECT * FROM a}", "spec.models[0].sql: a model can't read itself: a → a"),
        (
            "{name: a, sql: SELECT * FROM b}, {name: b, sql: SELECT * FROM a}",
            "spec.models[0].sql: models can't read each other in a circle: a → b → a",
        ),
        (
            "{name: top, sql: SELECT * FROM c}, {name: b, sql: SELECT * FROM c}, {name: c, sql: SELECT * FROM d}, {name: d, sql: SELECT * FROM b}, {name: e, sql: SELECT * FROM e}",
            "spec.models[1].sql: models can't read each other in a circle: b → c → d → b\nspec.models[4].sql: a model can't read itself: e → e",
        ),
    ] {
        check_problem(
            BASE_MANIFEST,
            &format!(
                "{{models: [{models}], checks: [], sinks: [{{name: s, from: series, sqlite: {{path: x, table: t}}}}]}}"
            ),
            want,
        );
    }
    let long = format!("SELECT '{}'", "x".repeat(crate::model::SQL_BYTES_MAX));
    check_problem(
        BASE_MANIFEST,
        &json!({"models": [{"name": "recent", "sql": long}], "checks": [], "sinks": [{"name": "s", "from": "recent", "sqlite": {"path": "x", "table": "t"}}]}).to_string(),
        "spec.models[0].sql: 65545 bytes are too many; the most is 65536: write parts of it as models of their own",
    );
}

#[test]
fn models_come_after_what_they_read_and_else_in_the_manifests_order() {
    let models = "[{name: z, sql: SELECT 1}, {name: c, sql: 'SELECT * FROM b, a'}, {name: a, sql: SELECT 1}, {name: b, sql: SELECT * FROM a}, {name: w, sql: SELECT 1}]";
    let checked = edited(
        BASE_MANIFEST,
        &format!("{{models: {models}, checks: [], sinks: [{{name: s, from: c, sqlite: {{path: x, table: t}}}}]}}"),
    )
    .unwrap();
    assert_eq!(checked.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["z", "a", "b", "c", "w"]);
}

#[test]
fn a_wrong_check_says_what_to_write() {
    for (check, want) in [
        (
            "name: Keys, from: series, rows: {min: 1}",
            "spec.checks[0].name: \"Keys\" can't be a name; write lower case letters, digits and dashes, with no dash at an end, such as keys",
        ),
        (
            "name: k, from: series, rows: {min: 1}}, {name: k, from: series, rows: {min: 1}",
            "spec.checks[1].name: `k` is the name of spec.checks[0] too; each needs one of its own",
        ),
        (
            "name: k, from: serie, rows: {min: 1}",
            "spec.checks[0].from: no model or source `serie`; did you mean `series`?",
        ),
        (
            "name: k, from: series",
            "spec.checks[0]: none is set; set exactly one of notNull, unique, accepted, range, regex, references, rows, rowsChange, meanChange, fresh and sql",
        ),
        (
            "name: k, from: series, unique: [year], rows: {min: 1}",
            "spec.checks[0]: unique and rows are set; set exactly one of notNull, unique, accepted, range, regex, references, rows, rowsChange, meanChange, fresh and sql",
        ),
        ("name: k, unique: [year]", "spec.checks[0]: from is missing; name the source or model that is checked"),
        (
            "name: k, from: series, sql: SELECT 1",
            "spec.checks[0].from: a sql check names its tables itself; leave it out",
        ),
        ("name: k, from: series, notNull: []", "spec.checks[0].notNull: the list is empty; write at least 1"),
        ("name: k, from: series, unique: [year, year]", "spec.checks[0].unique[1]: `year` is named twice; remove one"),
        (
            "name: k, from: series, unique: [yaer]",
            "spec.checks[0].unique[0]: series has no column `yaer`; did you mean `year`?",
        ),
        (
            "name: k, from: series, unique: [value]",
            "spec.checks[0].unique[0]: series has no column `value`; it has series_id, year",
        ),
        ("name: k, from: recent, unique: [value]", ""),
        ("name: k, from: series, rows: {}", "spec.checks[0].rows: none is set; set min, max or both"),
        (
            "name: k, from: series, rows: {min: 3, max: 2}",
            "spec.checks[0].rows: min 3 is more than max 2; no count can be both",
        ),
        ("name: k, from: series, rows: {min: -1}", "spec.checks[0].rows.min: -1 is less than nothing; write 0 or more"),
        (
            "name: k, sql: SELECT * FROM resent",
            "spec.checks[0].sql: line 1, column 15: no model or source `resent`; did you mean `recent`?",
        ),
        ("name: k, from: series, accepted: {column: series_id, values: [a, 1, true, '0.10', 0.5]}", ""),
        (
            "name: k, from: series, accepted: {column: seres_id, values: []}",
            "spec.checks[0].accepted.column: series has no column `seres_id`; did you mean `series_id`?\nspec.checks[0].accepted.values: the list is empty; write at least 1",
        ),
        (
            "name: k, from: series, accepted: {column: year, values: [1, 18446744073709551615]}",
            "spec.checks[0].accepted.values[1]: 18446744073709552000 may not be the number that was written; write numbers of more than 15 digits in quotes",
        ),
        ("name: k, from: series, range: {column: year, min: 1900, max: 2100}", ""),
        ("name: k, from: series, range: {column: year}", "spec.checks[0].range: none is set; set min, max or both"),
        (
            "name: k, from: series, regex: {column: series_id, pattern: ''}",
            "spec.checks[0].regex.pattern: 0 characters can't be a pattern; write 1 to 1024",
        ),
        ("name: k, from: series, references: {columns: [series_id], to: best_year}", ""),
        (
            "name: k, from: series, references: {columns: [series_id], to: best_yaer}",
            "spec.checks[0].references.to: no model or source `best_yaer`; did you mean `best_year`?",
        ),
        (
            "name: k, from: recent, references: {columns: [id], to: series}",
            "spec.checks[0].references.columns[0]: series has no column `id`; it has series_id, year",
        ),
        (
            "name: k, from: recent, references: {columns: [id], to: series, toColumns: [series_id, year]}",
            "spec.checks[0].references.toColumns: 2 columns for 1; name as many, in the same order",
        ),
        ("name: k, from: series, rowsChange: {max: 0.5}", ""),
        (
            "name: k, from: series, rowsChange: {max: -1}",
            "spec.checks[0].rowsChange.max: -1 is no part; write a number from 0 or more, such as 0.05 for 5%",
        ),
        (
            "name: k, from: series, meanChange: {column: year, max: 0.1, runs: 31}",
            "spec.checks[0].meanChange.runs: 31 is outside 1 to 30",
        ),
        (
            "name: k, from: series, fresh: {column: year, maxAge: '24'}",
            "spec.checks[0].fresh.maxAge: 24 has no unit; write 12h or 12m",
        ),
        ("name: k, from: series, notNull: [year], warnIf: {count: 0}, errorIf: {ratio: 0.01}", ""),
        (
            "name: k, from: series, notNull: [year], errorIf: {ratio: 1.5}",
            "spec.checks[0].errorIf.ratio: 1.5 is no part; write a number from 0 to 1, such as 0.05 for 5%",
        ),
        (
            "name: k, from: series, notNull: [year], errorIf: {}",
            "spec.checks[0].errorIf: none is set; set count, ratio or both",
        ),
        (
            "name: k, from: series, notNull: [year], errorIf: {count: -1}",
            "spec.checks[0].errorIf.count: -1 is less than nothing; write 0 or more",
        ),
        (
            "name: k, from: series, notNull: [year], severity: warn, errorIf: {count: 1}",
            "spec.checks[0].severity: warnIf and errorIf say what a failure does; leave severity out, or leave them out",
        ),
        (
            "name: k, from: series, notNull: [year], warnIf: {count: 5}, errorIf: {count: 5}",
            "spec.checks[0].warnIf: it is not below errorIf, so that it would never warn; write less",
        ),
        (
            "name: k, from: series, rows: {min: 1}, errorIf: {count: 5}",
            "spec.checks[0].errorIf: rows counts no failing rows; leave it out and set severity",
        ),
        (
            "name: k, sql: SELECT * FROM recent, errorIf: {ratio: 0.1}",
            "spec.checks[0].errorIf.ratio: a sql check knows no number of all rows; set count",
        ),
        (
            "name: k, sql: DELETE FROM recent",
            "spec.checks[0].sql: line 1, column 1: DELETE is not a SELECT; write one SELECT: sinks do the writing",
        ),
    ] {
        check_problem(BASE_MANIFEST, &format!("checks: [{{{check}}}]"), want);
    }
}

#[test]
fn a_wrong_sink_says_what_to_write() {
    const DB: &str = "connection: {secretRef: {name: db}}";
    for (sink, want) in [
        (
            "from: recnt, sqlite: {path: a.db, table: t}",
            "spec.sinks[0].from: no model or source `recnt`; did you mean `recent`?",
        ),
        ("from: recent", "spec.sinks[0]: none is set; set exactly one of postgres, mysql, sqlite and lake"),
        (
            "from: recent, sqlite: {path: a.db, table: t}, lake: {url: s3://lake}",
            "spec.sinks[0]: sqlite and lake are set; set exactly one of postgres, mysql, sqlite and lake",
        ),
        ("from: recent, postgres: {DB, table: t}", ""),
        (
            "from: recent, postgres: {DB, table: a.b.c}",
            "spec.sinks[0].postgres.table: \"b.c\" can't be a table; write letters, digits and underscores, such as reporting.best_year",
        ),
        (
            "from: recent, postgres: {DB, table: 'a.\"b\"'}",
            "spec.sinks[0].postgres.table: \"\\\"b\\\"\" can't be a table; write letters, digits and underscores, such as reporting.best_year",
        ),
        (
            "from: recent, postgres: {DB, table: .t}",
            "spec.sinks[0].postgres.table: \"\" can't be a schema; write letters, digits and underscores, such as reporting.best_year",
        ),
        (
            "from: recent, postgres: {DB, table: report_operator.t}",
            "spec.sinks[0].postgres.table: the schema report_operator is not for data; name another one",
        ),
        (
            "from: recent, postgres: {connection: {secretRef: {name: db, key: ''}}, table: t}",
            "spec.sinks[0].postgres.connection.secretRef.key: \"\" can't be a key of a Secret; write letters, digits, dashes, dots and underscores",
        ),
        (
            "from: recent, sqlite: {path: /data/, table: t}",
            "spec.sinks[0].sqlite.path: it names no file; write one such as /data/reporting.db",
        ),
        (
            "from: recent, sqlite: {path: 'sqlite:///x.db', table: t}",
            "spec.sinks[0].sqlite.path: it is an address, not a path; write the path alone, such as /data/reporting.db",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: a.t}",
            "spec.sinks[0].sqlite.table: \"a.t\" can't be a table; write letters, digits and underscores, such as reporting.best_year",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: sqlite_t}",
            "spec.sinks[0].sqlite.table: names that begin with sqlite_ are SQLite's own; write another one",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: Report_Operator_ledger}",
            "spec.sinks[0].sqlite.table: names that begin with report_operator_ are the operator's own; write another one",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: _report_t}",
            "spec.sinks[0].sqlite.table: names that begin with _report_ are the operator's own; write another one",
        ),
        (
            "from: recent, postgres: {DB, table: reporting._report_t}",
            "spec.sinks[0].postgres.table: tables that begin with _report_ are the operator's own; write another one",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {}",
            "spec.sinks[0].mode: none is set; set exactly one of replace, append, merge and deleteInsert",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {replace: {}, append: {}}",
            "spec.sinks[0].mode: replace and append are set; set exactly one of replace, append, merge and deleteInsert",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {replace: {by: rows}}",
            "spec.sinks[0].mode.replace.by: it is about PostgreSQL and MySQL tables only; leave it out",
        ),
        (
            "from: series, sqlite: {path: x.db, table: t}, mode: {deleteInsert: {interval: yaer}}",
            "spec.sinks[0].mode.deleteInsert.interval: series has no column `yaer`; did you mean `year`?",
        ),
        ("from: series, sqlite: {path: x.db, table: t}, mode: {deleteInsert: {partition: [year, series_id]}}", ""),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {deleteInsert: {}}",
            "spec.sinks[0].mode.deleteInsert: none is set; set exactly one of interval and partition",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {deleteInsert: {interval: a, partition: [b]}}",
            "spec.sinks[0].mode.deleteInsert: interval and partition are set; set exactly one of interval and partition",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {merge: {key: [a], dedupe: {latestBy: b}, onlyIfNewer: b, deleteWhen: c}}",
            "",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {merge: {key: [a], onlyIfNewer: a}}",
            "spec.sinks[0].mode.merge.onlyIfNewer: a is part of the key, and so the same in all rows of it; name another",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {merge: {key: [a], onlyIfNewer: b, deleteWhen: b}}",
            "spec.sinks[0].mode.merge.deleteWhen: the column that deletes says nothing about which row is newer; name another",
        ),
        (
            "from: series, sqlite: {path: x.db, table: t}, mode: {merge: {key: [series_id], dedupe: {latestBy: yaer}}}",
            "spec.sinks[0].mode.merge.dedupe.latestBy: series has no column `yaer`; did you mean `year`?",
        ),
        (
            "from: series, sqlite: {path: x.db, table: t}, indexes: [[year], [year, serie_id], [year]]",
            "spec.sinks[0].indexes[1][1]: series has no column `serie_id`; did you mean `series_id`?\nspec.sinks[0].indexes[2]: the same columns are indexed above; leave one out",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, description: What a row is",
            "spec.sinks[0].description: only tables in PostgreSQL and MySQL have a comment; leave it out, or describe the model",
        ),
        ("from: recent, mysql: {DB, table: shop.orders}, mode: {replace: {by: rows}}, description: A row", ""),
        ("from: recent, mysql: {DB, table: orders}, onSchemaChange: addColumns, indexes: [[a]]", ""),
        (
            "from: recent, mysql: {DB, table: mysql.user}",
            "spec.sinks[0].mysql.table: the database mysql is not for data; name another one",
        ),
        (
            "from: recent, mysql: {DB, table: shop._report_x}",
            "spec.sinks[0].mysql.table: tables that begin with _report_ are the operator's own; write another one",
        ),
        (
            "from: recent, lake: {url: s3://lake}, mode: {deleteInsert: {partition: [a]}}, indexes: [[a]], onSchemaChange: fail",
            "spec.sinks[0].mode: a lake takes replace or append; merge and deleteInsert need a database table\nspec.sinks[0].indexes: a lake has no indexes; leave it out, or set lake.partitionBy\nspec.sinks[0].onSchemaChange: it is about database tables only; leave it out",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {merge: {key: []}}",
            "spec.sinks[0].mode.merge.key: the list is empty; write at least 1",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {merge: {key: [a, a]}}",
            "spec.sinks[0].mode.merge.key[1]: `a` is named twice; remove one",
        ),
        (
            "from: series, sqlite: {path: x.db, table: t}, mode: {merge: {key: [serie_id]}}",
            "spec.sinks[0].mode.merge.key[0]: series has no column `serie_id`; did you mean `series_id`?",
        ),
        ("from: recent, sqlite: {path: x.db, table: t}, mode: {merge: {key: [a]}}, primaryKey: [a]", ""),
        (
            "from: recent, sqlite: {path: x.db, table: t}, mode: {merge: {key: [a]}}, primaryKey: [b]",
            "spec.sinks[0].primaryKey: merge takes its own key; write [a], or leave it out",
        ),
        (
            "from: recent, sqlite: {path: x.db, table: t}, primaryKey: [b, b]",
            "spec.sinks[0].primaryKey[1]: `b` is named twice; remove one",
        ),
        (
            "from: recent, lake: {url: 'gs://lake/x'}",
            "spec.sinks[0].lake.url: gs:// is not known; write s3://bucket/prefix or file:///absolute/folder",
        ),
        (
            "from: recent, lake: {url: 's3://Lake_1/x'}",
            "spec.sinks[0].lake.url: \"Lake_1\" can't be a bucket; write s3://bucket/prefix or file:///absolute/folder",
        ),
        (
            "from: recent, lake: {url: 's3://key:secret@lake/x'}",
            "spec.sinks[0].lake.url: what stands before the path can't be a bucket; write s3://bucket/prefix or file:///absolute/folder",
        ),
        (
            "from: recent, lake: {url: 's3://lake/a//b'}",
            "spec.sinks[0].lake.url: there is an empty part, . or .. in its path; write it without",
        ),
        (
            "from: recent, lake: {url: 's3://lake/a?b'}",
            "spec.sinks[0].lake.url: '?' can't be part of it; write s3://bucket/prefix or file:///absolute/folder",
        ),
        (
            "from: recent, lake: {url: 'file://data/x'}",
            "spec.sinks[0].lake.url: the path is not absolute; write file:///data/x with three slashes",
        ),
        (
            "from: recent, lake: {url: 'file:///'}",
            "spec.sinks[0].lake.url: the root of the file system can't be filled; name a folder",
        ),
        (
            "from: recent, lake: {url: 's3://lake', partitionBy: [a, a]}",
            "spec.sinks[0].lake.partitionBy[1]: `a` is named twice; remove one",
        ),
        (
            "from: recent, lake: {url: s3://lake}, mode: {merge: {key: [a]}}",
            "spec.sinks[0].mode: a lake takes replace or append; merge and deleteInsert need a database table",
        ),
        (
            "from: recent, lake: {url: s3://lake}, primaryKey: [a], adopt: true",
            "spec.sinks[0].primaryKey: a lake has no primary key; leave it out, and write a check with unique to have it looked at\nspec.sinks[0].adopt: it is about database tables only; leave it out",
        ),
    ] {
        check_problem(BASE_MANIFEST, &format!("sinks: [{{name: s, {}}}]", sink.replace("DB", DB)), want);
    }
}

#[test]
fn two_sinks_never_write_one_place() {
    for (one, other, want) in [
        (
            "postgres: {connection: {secretRef: {name: a}}, table: t}",
            "postgres: {connection: {secretRef: {name: a, key: url}}, table: public.t}",
            "the table public.t is",
        ),
        (
            "postgres: {connection: {secretRef: {name: a}}, table: t}",
            "postgres: {connection: {secretRef: {name: b}}, table: t}",
            "",
        ),
        (
            "postgres: {connection: {secretRef: {name: a}}, table: t}",
            "postgres: {connection: {secretRef: {name: a}}, table: T}",
            "",
        ),
        (
            "mysql: {connection: {secretRef: {name: a}}, table: s.t}",
            "mysql: {connection: {secretRef: {name: a}}, table: s.T}",
            "the table T is",
        ),
        (
            "mysql: {connection: {secretRef: {name: a}}, table: s.t}",
            "mysql: {connection: {secretRef: {name: a}}, table: r.t}",
            "",
        ),
        ("sqlite: {path: ./a//x.db, table: t}", "sqlite: {path: a/x.db, table: T}", "the table T of a/x.db is"),
        ("sqlite: {path: /a/x.db, table: t}", "sqlite: {path: a/x.db, table: t}", ""),
        (
            "lake: {url: 's3://lake/a/'}",
            "lake: {url: 's3://lake/a'}",
            "the folder s3://lake/a, or one inside or around it, is",
        ),
        (
            "lake: {url: 's3://lake/a'}",
            "lake: {url: 's3://lake/a/b'}",
            "the folder s3://lake/a/b, or one inside or around it, is",
        ),
        (
            "lake: {url: 's3://lake/a/b'}",
            "lake: {url: 's3://lake'}",
            "the folder s3://lake, or one inside or around it, is",
        ),
        ("lake: {url: 's3://lake/a'}", "lake: {url: 's3://lake/ab'}", ""),
    ] {
        let want = if want.is_empty() {
            String::new()
        } else {
            format!(
                "spec.sinks[1]: {want} written by spec.sinks[0] (`one`) too; one place has one sink: join the rows in a model"
            )
        };
        check_problem(
            BASE_MANIFEST,
            &format!("sinks: [{{name: one, from: recent, {one}}}, {{name: two, from: recent, {other}}}]"),
            &want,
        );
    }
}

#[test]
fn two_secret_keys_never_become_one_variable() {
    let sink = |n: u8, secret: &str| {
        format!("{{name: s{n}, from: recent, postgres: {{connection: {{secretRef: {secret}}}, table: t{n}}}}}")
    };
    let edit = |other: &str| format!("sinks: [{}, {}]", sink(1, "{name: a-b, key: c}"), sink(2, other));
    check_problem(BASE_MANIFEST, &edit("{name: a-b, key: c}"), "");
    check_problem(
        BASE_MANIFEST,
        &edit("{name: a, key: b.c}"),
        "spec.sinks[1].postgres.connection.secretRef: the key c of a-b and the key b.c of a would both be the environment variable SECRET_A_B_C; rename one of them",
    );
}

#[test]
fn a_wrong_worker_says_what_to_write() {
    for (worker, want) in [
        ("serviceAccountName: etl", ""),
        (
            "serviceAccountName: ETL",
            "spec.worker.serviceAccountName: \"ETL\" can't be the name of a service account; write lower case letters, digits, dashes and dots",
        ),
        ("scratch: 10G", "spec.worker.scratch: \"G\" is not a unit; use one of Ki, Mi, Gi, Ti"),
        ("resources: {limits: {cpu: 1, memory: 128Mi}, requests: {cpu: 100m, memory: 0.1Gi}}", ""),
        ("resources: {limits: {memory: 134217728}}", ""),
        ("resources: {limits: {memory: '2e9'}}", ""),
        (
            "resources: {limits: {memory: 127Mi}}",
            "spec.worker.resources.limits.memory: 127Mi is less than 128Mi, which the worker needs for itself; write 128Mi or more",
        ),
        (
            "resources: {limits: {memory: 512m}}",
            "spec.worker.resources.limits.memory: 512m is less than 128Mi, which the worker needs for itself; m is a thousandth of a byte; write Mi",
        ),
        (
            "resources: {limits: {memory: 1GB}}",
            "spec.worker.resources.limits.memory: 1GB is not a quantity; write one such as 500m or 512Mi",
        ),
        (
            "resources: {limits: {memory: 1Gi, cpu: 500m}, requests: {memory: 2Gi, cpu: 1}}",
            "spec.worker.resources.requests.cpu: 1 is more than the limit of 500m; raise the limit\nspec.worker.resources.requests.memory: 2Gi is more than the limit of 1Gi; raise the limit",
        ),
    ] {
        check_problem(
            BASE_MANIFEST,
            &format!("worker: {{resources: null, {worker}}}").replace("resources: null, resources", "resources"),
            want,
        );
    }
}

#[test]
fn a_pod_template_may_add_but_not_undo() {
    for (template, want) in [
        ("metadata: {labels: {team: data}, annotations: {a.b/c: d}}", ""),
        (
            "spec: {nodeSelector: {a: b}, tolerations: [{operator: Exists}], affinity: {}, priorityClassName: low, imagePullSecrets: [{name: x}]}",
            "",
        ),
        (
            "spec: {volumes: [{name: files, configMap: {name: x}}], containers: [{name: worker, env: [{name: TZ, value: UTC}], envFrom: [{configMapRef: {name: x}}], volumeMounts: [{name: files, mountPath: /files}]}]}",
            "",
        ),
        (
            "spec: {securityContext: {fsGroup: 1000, fsGroupChangePolicy: Always, supplementalGroups: [7], runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, hostNetwork: false, enableServiceLinks: false}",
            "",
        ),
        ("spec: {hostNetwork: null}", ""),
        ("kind: Pod", ".kind: it can't be set here; what can be set is metadata, spec"),
        ("metadata: {name: x}", ".metadata.name: it can't be set here; what can be set is annotations, labels"),
        (
            "metadata: {labels: {report-operator.dev/pipeline: x}}",
            ".metadata.labels.report-operator.dev/pipeline: the operator and Kubernetes set it; use a prefix of your own",
        ),
        (
            "metadata: {annotations: {batch.kubernetes.io/job-name: x}}",
            ".metadata.annotations.batch.kubernetes.io/job-name: the operator and Kubernetes set it; use a prefix of your own",
        ),
        (
            "metadata: {labels: {app.kubernetes.io/name: x}, annotations: {app.kubernetes.io/name: x}}",
            ".metadata.labels.app.kubernetes.io/name: the operator and Kubernetes set it; use a prefix of your own",
        ),
        ("metadata: {labels: {cost: 7}}", ".metadata.labels.cost: it has to be text; put it in quotes"),
        ("spec: {toleration: []}", ".spec.toleration: it can't be set here; did you mean tolerations?"),
        (
            "spec: {initContainers: [{name: x}]}",
            ".spec.initContainers: it can't be set here; the pod has one container, worker; prepare inputs in a Job of their own",
        ),
        (
            "spec: {ephemeralContainers: []}",
            ".spec.ephemeralContainers: it can't be set here; the pod has one container, worker",
        ),
        ("spec: {hostNetwork: true}", ".spec.hostNetwork: it undoes the pod's security; write false, or leave it out"),
        (
            "spec: {hostIPC: true, hostPID: true}",
            ".spec.hostIPC: it undoes the pod's security; write false, or leave it out\n.spec.hostPID: it undoes the pod's security; write false, or leave it out",
        ),
        (
            "spec: {hostUsers: false}",
            ".spec.hostUsers: it can't be set here; the pod takes the cluster's default; leave it out",
        ),
        (
            "spec: {enableServiceLinks: true}",
            ".spec.enableServiceLinks: it undoes the pod's security; write false, or leave it out",
        ),
        (
            "spec: {restartPolicy: Always}",
            ".spec.restartPolicy: it can't be set here; a failed pod is replaced as spec.retries says",
        ),
        ("spec: {activeDeadlineSeconds: 5}", ".spec.activeDeadlineSeconds: it can't be set here; use spec.timeout"),
        (
            "spec: {serviceAccountName: x}",
            ".spec.serviceAccountName: it can't be set here; use spec.worker.serviceAccountName",
        ),
        ("spec: {nodeName: x}", ".spec.nodeName: it can't be set here; use nodeSelector"),
        (
            "spec: {securityContext: {runAsGroup: 1000}}",
            ".spec.securityContext.runAsGroup: it can't be set here; the worker runs as the image's user; for rights on volumes, use fsGroup or supplementalGroups",
        ),
        (
            "spec: {securityContext: {runAsUser: 1000}}",
            ".spec.securityContext.runAsUser: it can't be set here; the worker runs as the image's user; for rights on volumes, use fsGroup or supplementalGroups",
        ),
        (
            "spec: {securityContext: {runAsNonRoot: false}}",
            ".spec.securityContext.runAsNonRoot: it undoes the pod's security; write true, or leave it out",
        ),
        (
            "spec: {securityContext: {seccompProfile: {type: Unconfined}}}",
            ".spec.securityContext.seccompProfile.type: it undoes the pod's security; write RuntimeDefault, or leave it out",
        ),
        (
            "spec: {securityContext: {seccompProfile: {type: Localhost, localhostProfile: x}}}",
            ".spec.securityContext.seccompProfile.type: it undoes the pod's security; write RuntimeDefault, or leave it out",
        ),
        (
            "spec: {securityContext: {appArmorProfile: {type: RuntimeDefault}}}",
            ".spec.securityContext.appArmorProfile: it can't be set here; the pod takes the node's default; leave it out",
        ),
        (
            "spec: {securityContext: {seLinuxOptions: {level: s0}}}",
            ".spec.securityContext.seLinuxOptions: it can't be set here; the pod takes the node's default; leave it out",
        ),
        (
            "spec: {securityContext: {supplementalGroupsPolicy: Strict}}",
            ".spec.securityContext.supplementalGroupsPolicy: it can't be set here; the pod takes the cluster's default; leave it out",
        ),
        (
            "spec: {securityContext: {sysctls: []}}",
            ".spec.securityContext.sysctls: it can't be set here; the kernel's settings stay as they are",
        ),
        ("spec: {containers: {name: worker}}", ".spec.containers: it has to be a list"),
        ("spec: {containers: [{name: sidecar}]}", ".spec.containers[0]: the pod has one container; its name is worker"),
        (
            "spec: {containers: [{name: worker}, {name: worker}]}",
            ".spec.containers[1]: worker is there twice; put all of it into the first one",
        ),
    ] {
        let want: Vec<String> = want.lines().map(|line| format!("spec.worker.podTemplate{line}")).collect();
        check_problem(BASE_MANIFEST, &format!("worker: {{podTemplate: {{{template}}}}}"), &want.join("\n"));
    }
}

#[test]
fn the_worker_container_may_get_variables_and_mounts_only() {
    for (container, want) in [
        ("image: x", ".image: it can't be set here; all workers run the image of the installation"),
        ("command: [sh]", ".command: it can't be set here; the operator sets what the worker runs"),
        ("args: [x]", ".args: it can't be set here; the operator sets what the worker runs"),
        ("resources: {}", ".resources: it can't be set here; use spec.worker.resources"),
        (
            "terminationMessagePath: /x",
            ".terminationMessagePath: it can't be set here; the run's result is read from where the operator sets it",
        ),
        (
            "terminationMessagePolicy: File",
            ".terminationMessagePolicy: it can't be set here; the run's result is read from where the operator sets it",
        ),
        (
            "lifecycle: {}",
            ".lifecycle: it can't be set here; what can be set is env, envFrom, name, ports, volumeMounts",
        ),
        (
            "env: [{name: REPORT_RUN_ID, value: x}]",
            ".env[0].name: REPORT_RUN_ID begins with REPORT_ or SECRET_, which the operator sets; choose another name",
        ),
        (
            "env: [{name: SECRET_A, value: x}]",
            ".env[0].name: SECRET_A begins with REPORT_ or SECRET_, which the operator sets; choose another name",
        ),
        ("env: [{value: x}]", ".env[0]: name is missing; write the variable's name"),
        (
            "envFrom: [{prefix: SECRET_, secretRef: {name: x}}]",
            ".envFrom[0].prefix: variables that begin with REPORT_ or SECRET_ are the operator's; choose another prefix",
        ),
        ("ports: [{containerPort: 80}]", ""),
        (
            "ports: [{containerPort: 80, hostPort: 80}]",
            ".ports[0].hostPort: it opens the node's own network; leave it out",
        ),
        (
            "securityContext: {capabilities: {drop: [ALL]}}",
            ".securityContext: it can't be set here; the container is restricted already; for groups that own volumes, use the pod's fsGroup",
        ),
        ("volumeMounts: [{name: v, mountPath: /files/a}]", ""),
        (
            "volumeMounts: [{name: v, mountPath: /etc/report-operator}]",
            ".volumeMounts[0].mountPath: /etc/report-operator is not for mounts of your own; write a path such as /files",
        ),
        (
            "volumeMounts: [{name: v, mountPath: //scratch/x/}]",
            ".volumeMounts[0].mountPath: /scratch is not for mounts of your own; write a path such as /files",
        ),
        ("volumeMounts: [{name: v, mountPath: /scratchy}]", ""),
        (
            "volumeMounts: [{name: v, mountPath: /dev/shm}]",
            ".volumeMounts[0].mountPath: /dev is not for mounts of your own; write a path such as /files",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /}]",
            ".volumeMounts[0].mountPath: / would hide the worker itself; write a path such as /files",
        ),
        (
            "volumeMounts: [{name: v, mountPath: ../x}]",
            ".volumeMounts[0].mountPath: \"../x\" can't be mounted at; write an absolute path such as /files",
        ),
        (
            "volumeMounts: [{name: scratch, mountPath: /x}]",
            ".volumeMounts[0].name: scratch is a volume of the operator; mount one of your own",
        ),
        (
            "volumeMounts: [{name: w, mountPath: /x}]",
            ".volumeMounts[0].name: there is no volume \"w\"; did you mean v?",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /x, mountPropagation: Bidirectional}]",
            ".volumeMounts[0].mountPropagation: it needs a privileged container; leave it out",
        ),
    ] {
        let want =
            if want.is_empty() { String::new() } else { format!("spec.worker.podTemplate.spec.containers[0]{want}") };
        let edit = format!(
            "worker: {{podTemplate: {{spec: {{volumes: [{{name: v, emptyDir: {{}}}}], containers: [{{name: worker, {container}}}]}}}}}}"
        );
        check_problem(BASE_MANIFEST, &edit, &want);
    }
}

#[test]
fn volumes_stay_off_the_node_and_off_the_operators_own() {
    for (volume, want) in [
        ("name: v, persistentVolumeClaim: {claimName: x}", ""),
        ("name: v, hostPath: {path: /}", ".hostPath: a pod may not reach into its node; use a persistentVolumeClaim"),
        (
            "name: v, nfs: {server: x, path: /}",
            ".nfs: such a volume can't be used; use configMap, csi, downwardAPI, emptyDir, ephemeral, image, persistentVolumeClaim, projected, secret",
        ),
        ("name: v, projected: {sources: [{configMap: {name: x}}]}", ""),
        (
            "name: v, projected: {sources: [{serviceAccountToken: {path: token}}]}",
            ".projected.sources[0].serviceAccountToken: a volume can't bring a token; use spec.worker.automountServiceAccountToken",
        ),
        ("name: tmp, emptyDir: {}", ".name: tmp is a volume of the operator; choose another name"),
        ("emptyDir: {}", ": name is missing; write the volume's name"),
    ] {
        let want =
            if want.is_empty() { String::new() } else { format!("spec.worker.podTemplate.spec.volumes[0]{want}") };
        check_problem(BASE_MANIFEST, &format!("worker: {{podTemplate: {{spec: {{volumes: [{{{volume}}}]}}}}}}"), &want);
    }
}

#[test]
fn the_examples_have_no_problem() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path().join("pipeline.yaml");
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        read += 1;
        let problems = named(serde_yaml::from_str(&text).unwrap()).err();
        assert_eq!(problems, None, "{}", file.display());
    }
    assert!(read > 0, "no example in {folder}");
}

#[test]
fn incremental_sources_and_databases_say_what_to_write() {
    const BASE: &str = r#"
apiVersion: report-operator.dev/v1alpha1
kind: ReportPipeline
metadata: {name: shop}
spec:
  sources:
    - {name: orders, postgres: {connection: {secretRef: {name: shop-db}}, table: orders}, incremental: {cursor: updated_at, lag: 1h}}
    - {name: cities, file: {path: cities.csv}, columns: [{name: id, type: int64}, {name: name, type: string}]}
  sinks: [{name: orders, from: orders, sqlite: {path: /a.db, table: orders}, mode: {merge: {key: [id]}}}]
"#;
    let checked = edited(BASE, "{}").unwrap();
    assert_eq!(checked.secrets[0].variable(), "SECRET_SHOP_DB_URL");
    let source = |rest: &str| {
        format!(
            "sources: [{{name: orders, {rest}}}, {{name: cities, file: {{path: c.csv}}, columns: [{{name: id, type: int64}}, {{name: name, type: string}}]}}]"
        )
    };
    const SHOP: &str = "connection: {secretRef: {name: shop-db}}";
    for (rest, want) in [
        (format!("postgres: {{{SHOP}}}"), "spec.sources[0].postgres: none is set; set exactly one of table and query"),
        (
            format!("postgres: {{{SHOP}, table: 'my orders'}}"),
            "spec.sources[0].postgres.table: \"my orders\" can't be a table; write letters, digits and underscores, such as public.orders; read another table by a query",
        ),
        (
            format!("postgres: {{{SHOP}, query: 'DELETE FROM orders'}}"),
            "spec.sources[0].postgres.query: it is not a SELECT; write one SELECT that gives the rows to read",
        ),
        (
            format!("postgres: {{{SHOP}, table: orders}}, format: {{csv: {{}}}}"),
            "spec.sources[0].format: it is about files; the rows of a database have none: leave it out",
        ),
        (
            format!("postgres: {{{SHOP}, table: orders}}, incremental: {{cursor: at, lag: 1h, delay: 1h}}"),
            "spec.sources[0].incremental: lag and delay are set; set exactly one of lag and delay",
        ),
        (
            format!("postgres: {{{SHOP}, table: orders}}, incremental: {{cursor: at, lag: 1h, initial: 7}}"),
            "spec.sources[0].incremental.initial: \"7\" does not go with the cursor; write a time, such as 2024-01-01T00:00:00Z",
        ),
        (
            "file: {path: a.csv}, columns: [{name: id, type: int64}], incremental: {cursor: di, delay: 0}".into(),
            "spec.sources[0].incremental.cursor: there is no column `di`; did you mean `id`?",
        ),
        (
            "file: {path: a.csv}, columns: [{name: id, type: int64}], incremental: {cursor: id, delay: 5}".into(),
            "spec.sources[0].incremental.delay: the newest rows of a file can't be left out: its greatest number is known only when it is read; write delay: 0, or lag",
        ),
        (
            "file: {path: a.csv}, columns: [{name: id, type: int64}], incremental: {cursor: id, lag: 1h}".into(),
            "spec.sources[0].incremental.lag: \"1h\" does not go with the cursor; the cursor is a number: write a count, such as 1000",
        ),
        (
            "file: {path: a.csv}, columns: [{name: id, type: string}], incremental: {cursor: id, lag: 1h}".into(),
            "spec.sources[0].incremental.cursor: `id` is string, which can't be a cursor; take a timestamp, a date or a whole number",
        ),
    ] {
        check_problem(BASE, &source(&rest), want);
    }
    let missing = edited(BASE, &source(&format!("postgres: {{{SHOP}, table: orders}}, incremental: {{cursor: at}}")));
    assert!(missing.unwrap_err()[0].contains("set lag: 1h to read the last hour again"));

    let sink = |from: &str, mode: &str| {
        format!("sinks: [{{name: s, from: {from}, sqlite: {{path: /a.db, table: s}}, mode: {mode}}}]")
    };
    for (edit, want) in [
        (sink("orders", "{replace: {}}"), "replace would leave only the new rows of orders"),
        (sink("orders", "{append: {}}"), "append would add the rows again that lag reads again (orders)"),
        (
            format!("models: [{{name: m, sql: 'SELECT * FROM orders'}}]\n{}", sink("m", "{replace: {}}")),
            "replace would leave only the new rows of orders",
        ),
        (
            format!(
                "models: [{{name: m, sql: 'SELECT count(*) AS total FROM orders'}}]\n{}",
                sink("m", "{merge: {key: [total]}}")
            ),
            "spec.models[0].sql: count() is about all rows, not over new rows only (orders); read the history from the sink",
        ),
        (
            format!("models: [{{name: m, reads: delta, sql: 'SELECT * FROM cities'}}]\n{}", sink("m", "{replace: {}}")),
            "spec.models[0].reads: there is no delta here",
        ),
    ] {
        let problems = edited(BASE, &edit).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(want), "{edit}: {problems:?}");
    }
    for edit in [
        format!(
            "models: [{{name: m, reads: delta, sql: 'SELECT count(*) AS total FROM orders'}}]\n{}",
            sink("m", "{replace: {}}")
        ),
        format!("models: [{{name: m, sql: 'SELECT count(*) AS n FROM cities'}}]\n{}", sink("m", "{replace: {}}")),
    ] {
        check_problem(BASE, &edit, "");
    }
}
