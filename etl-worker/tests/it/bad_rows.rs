//! Rows that are not what the columns say: left out, counted, kept with their places, and too many of them.

use crate::harness::{World, parquet_rows, sqlite_rows};

const COLUMNS: &str = "columns: [{name: id, type: int64, required: true}, {name: city, type: string}, {name: amount, type: 'decimal(10,2)'}]";

/// A source of bad rows, and a table that takes the good ones.
fn spec(file: &str, bad_rows: &str) -> String {
    format!(
        "
sources:
  - {{name: orders, file: {{path: {file}}}, {COLUMNS}, {bad_rows}}}
sinks:
  - {{name: table, from: orders, postgres: {{{{db}}, table: '{{schema}}.orders'}}}}
"
    )
}

/// Two good rows, and one each: ragged, no number, NULL where it is required, not UTF-8, text after a quote.
const MIXED: &[u8] =
    b"id,city,amount\n1,Oslo,1.50\n2,Bern\n3,Rom,12x\n,Wien,1\n5,M\xfcnchen,1\n6,\"Bu\"da,1\n7,Riga,2\n";

const REJECTED: &str = "SELECT source, file, line, column_name, code, raw, hash FROM report_operator.rejected
    WHERE identity LIKE replace('{schema}', '_', '-') || '/%' ORDER BY rejected_at, number";

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_rows_are_kept_with_their_places_and_reasons() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("orders.csv", "onBadRow: quarantine, maxBadRows: {count: 5}"));
    world.file("orders.csv", MIXED);
    let result = world.run(&manifest).ok();
    assert_eq!((result.sources[0].rows, result.sources[0].bad_rows), (2, 5));
    assert_eq!(world.rows("SELECT * FROM {schema}.orders ORDER BY id").await, ["1|Oslo|1.50", "7|Riga|2.00"]);
    assert_eq!(
        world.rows(REJECTED).await,
        [
            "orders|orders.csv|3|∅|input_malformed|2,Bern|∅",
            "orders|orders.csv|4|amount|value_invalid|3,Rom,12x|∅",
            "orders|orders.csv|5|id|value_invalid|,Wien,1|∅",
            "orders|orders.csv|6|city|encoding_invalid|5,M\u{fffd}nchen,1|∅",
            "orders|orders.csv|7|∅|input_malformed|6,\"Bu\"da,1|∅",
        ]
    );
    let reasons = "SELECT reason FROM report_operator.rejected WHERE identity LIKE replace('{schema}', '_', '-') || '/%' AND line = 4";
    let reason = world.rows(reasons).await.concat();
    assert!(reason.starts_with("line 4, column amount: \"12x\" is not decimal(10,2)"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_bad_rows_change_no_table_and_are_kept() {
    let world = World::new().await;
    world.file("orders.csv", "id,city,amount\n1,Oslo,1.50\n");
    for (limit, says) in [
        ("{count: 4}", "at most 4 rows may be"),
        ("{ratio: 0.7}", "at most a part of 0.7 may be"),
        ("{count: 9, ratio: 0.7}", "5 of the 7 rows read are bad, and at most 9 rows and a part of 0.7 may be"),
    ] {
        let manifest = world.manifest("p", &spec("orders.csv", &format!("onBadRow: quarantine, maxBadRows: {limit}")));
        world.file("orders.csv", "id,city,amount\n1,Oslo,1.50\n");
        world.run(&manifest).ok();
        world.file("orders.csv", MIXED);
        let ended = world.run(&manifest);
        assert_eq!(ended.result.as_ref().map(|result| result.sources[0].bad_rows), Some(5), "{}", ended.output);
        let message = ended.failed(12, "bad_rows_exceeded");
        assert!(message.starts_with("spec.sources[0].maxBadRows: "), "{message}");
        assert!(message.contains(says), "{message}");
        assert!(message.contains("in line 3 (input_malformed); 4, column amount (value_invalid)"), "{message}");
        assert_eq!(world.rows("SELECT * FROM {schema}.orders").await, ["1|Oslo|1.50"], "{limit}");
        assert_eq!(world.tables().await, ["orders"], "{limit}");
    }
    // A good run keeps none, and the three failed ones have theirs.
    let runs = "SELECT count(DISTINCT run_id), count(*) FROM report_operator.rejected WHERE identity LIKE replace('{schema}', '_', '-') || '/%'";
    assert_eq!(world.rows(runs).await, ["3|15"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_in_a_hundred_may_be_bad_by_default() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("orders.csv", "onBadRow: skip"));
    let good = (1..=99).map(|id| format!("{id},Oslo,1\n")).collect::<String>();
    world.file("orders.csv", format!("id,city,amount\n{good}x,Oslo,1\n"));
    let result = world.run(&manifest).ok();
    assert_eq!((result.sources[0].rows, result.sources[0].bad_rows), (99, 1));
    let good = good.replace("99,Oslo,1\n", "");
    world.file("orders.csv", format!("id,city,amount\n{good}x,Oslo,1\ny,Oslo,1\n"));
    let message = world.run(&manifest).failed(12, "bad_rows_exceeded");
    assert!(message.contains("2 of the 100 rows read are bad, and at most a part of 0.01 may be"), "{message}");
    assert_eq!(world.rows("SELECT count(*) FROM {schema}.orders").await, ["99"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_replaces_the_rejected_rows_of_its_run() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("orders.csv", "onBadRow: quarantine, maxBadRows: {ratio: 1}"));
    world.file("orders.csv", MIXED);
    let ended = world.attempt(&manifest, "r-1", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", "after_stage")]);
    assert_eq!(ended.code, None, "{}", ended.output);
    assert_eq!(world.rows(REJECTED).await.len(), 5, "kept before the crash");
    world.file("orders.csv", "id,city,amount\n1,Oslo,1.50\nx,Rom,1\n");
    world.attempt(&manifest, "r-1", "2026-01-01T00:00:00Z", &[]).ok();
    assert_eq!(world.rows(REJECTED).await, ["orders|orders.csv|3|id|value_invalid|x,Rom,1|∅"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_has_its_bad_rows() {
    let world = World::new().await;
    let json = r#"{"data": [{"id": 1, "city": "Oslo", "amount": 1.5}, {"id": "x"}, 7, {"city": "Rom"}, {"id": 2, "id": 3}, {"id": 4, "amount": [1]}]}"#;
    let lines =
        "{\"id\": 1, \"city\": \"Oslo\", \"amount\": 1.5}\n{\"id\": 2\n{\"id\": 3, \"amount\": \"1.234\"}\n[]\n";
    let latin = [lines.as_bytes(), b"{\"id\": 5, \"city\": \"M\xfcnchen\"}\n"].concat();
    for (file, content, format, want) in [
        (
            "a.json",
            json.as_bytes(),
            "format: {json: {rows: $.data}}",
            &[
                "orders|a.json|2|id|value_invalid|{\"id\": \"x\"}|∅",
                "orders|a.json|3|∅|input_malformed|7|∅",
                "orders|a.json|4|id|value_invalid|{\"city\": \"Rom\"}|∅",
                "orders|a.json|5|∅|input_malformed|{\"id\": 2, \"id\": 3}|∅",
                "orders|a.json|6|amount|value_invalid|{\"id\": 4, \"amount\": [1]}|∅",
            ][..],
        ),
        (
            "a.ndjson",
            &latin,
            "format: {ndjson: {}}",
            &[
                "orders|a.ndjson|2|∅|input_malformed|{\"id\": 2|∅",
                "orders|a.ndjson|3|amount|value_invalid|{\"id\": 3, \"amount\": \"1.234\"}|∅",
                "orders|a.ndjson|4|∅|input_malformed|[]|∅",
                "orders|a.ndjson|5|∅|encoding_invalid|{\"id\": 5, \"city\": \"M\u{fffd}nchen\"}|∅",
            ],
        ),
        ("a.parquet", &parquet(), "format: {parquet: {}}", &["orders|a.parquet|2|id|value_invalid||Rom|2.00|∅"]),
    ] {
        world.sql("DO $$ BEGIN IF to_regclass('report_operator.rejected') IS NOT NULL THEN DELETE FROM report_operator.rejected WHERE identity LIKE replace('{schema}', '_', '-') || '/%'; END IF; END $$").await;
        let bad_rows = format!("onBadRow: quarantine, maxBadRows: {{ratio: 1}}, {format}");
        let manifest = world.manifest("p", &spec(file, &bad_rows));
        world.file(file, content);
        let result = world.run(&manifest).ok();
        assert_eq!((result.sources[0].rows, result.sources[0].bad_rows), (1, want.len() as u64), "{file}");
        assert_eq!(world.rows("SELECT * FROM {schema}.orders").await, ["1|Oslo|1.50"], "{file}");
        assert_eq!(world.rows(REJECTED).await, want, "{file}");
        // Without, the first one ends the run.
        let manifest = world.manifest("p", &spec(file, format));
        assert_eq!(world.run(&manifest).code, Some(12), "{file}");
    }
}

/// A good row, and one without an id.
fn parquet() -> Vec<u8> {
    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
    use std::sync::Arc;
    let amounts = Decimal128Array::from(vec![150, 200]).with_precision_and_scale(10, 2).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), None]))),
        ("city", Arc::new(StringArray::from(vec!["Oslo", "Rom"]))),
        ("amount", Arc::new(amounts)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_broken_as_a_whole_fails_whatever_may_be_bad() {
    let world = World::new().await;
    let cut_gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"id,city,amount\n1,Oslo,1\n").unwrap();
        let mut bytes = encoder.finish().unwrap();
        bytes.truncate(bytes.len() - 6);
        bytes
    };
    for (file, content, format) in [
        ("a.csv.gz", &cut_gzip[..], "csv"),
        ("a.csv", b"id,city,amount\n1,\"Oslo,1\n2,Rom,1\n", "csv"),
        ("a.json", b"[{\"id\": 1}, {\"id\"", "json"),
        ("b.json", b"<html>", "json"),
        ("a.parquet", b"PAR1", "parquet"),
    ] {
        let skip = format!("onBadRow: skip, maxBadRows: {{ratio: 1}}, format: {{{format}: {{}}}}");
        let manifest = world.manifest("p", &spec(file, &skip));
        world.file(file, content);
        let message = world.run(&manifest).failed(12, "input_malformed");
        assert!(message.starts_with("spec.sources[0]"), "{file}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lakes_ledger_keeps_rejected_rows_as_lines_of_json() {
    let world = World::new().await;
    let spec = spec("orders.csv", "onBadRow: quarantine, maxBadRows: {ratio: 1}")
        .replace("postgres: {{db}, table: '{schema}.orders'}", "lake: {url: 'file://{folder}/lake'}");
    let manifest = world.manifest("p", &spec);
    world.file("orders.csv", MIXED);
    let crash = [("REPORT_CRASH_AT", "after_stage")];
    let ended = world.attempt(&manifest, "r-1", "2026-01-01T00:00:00Z", &crash);
    assert_eq!(ended.code, None, "{}", ended.output);
    for (run, end) in [("r-1", "2026-01-01T00:00:00Z"), ("r-2", "2026-01-02T00:00:00Z")] {
        world.attempt(&manifest, run, end, &[]).ok();
    }
    let folder = world.folder.path().join("lake/_report/rejected");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2, "one file a run: {files:?}");
    let text = std::fs::read_to_string(&files[1]).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 5);
    assert_eq!((rows[1]["line"].as_u64(), rows[1]["code"].as_str()), (Some(4), Some("value_invalid")));
    assert_eq!(rows[1]["raw"].as_str(), Some("3,Rom,12x"));
    let parts: Vec<_> =
        walk(&world.folder.path().join("lake")).into_iter().filter(|p| p.ends_with(".parquet")).collect();
    assert_eq!(parquet_rows(std::fs::read(&parts[0]).unwrap().into()).len(), 2);
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path.to_str().unwrap().to_owned()),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_runs_rejected_rows_stay() {
    const RUNS: u32 = etl_worker::rejected::RUNS_KEPT + 2;
    let world = World::new().await;
    let spec = spec("orders.csv", "onBadRow: quarantine, maxBadRows: {ratio: 1}");
    let manifest = world.manifest("p", &spec);
    for run in 1..=RUNS {
        world.file("orders.csv", format!("id,city,amount\n{run},Oslo,1\nx{run},Rom,1\n"));
        let (run_id, end) = (format!("r-{run}"), format!("2026-01-{run:02}T00:00:00Z"));
        let arguments = ["run", manifest.to_str().unwrap(), "--local", "out"];
        world.worker(&arguments, &[("REPORT_RUN_ID", &run_id), ("REPORT_INTERVAL_END", &end)]).ok();
    }
    let kept = sqlite_rows(
        &world.folder.path().join("out/reporting.db"),
        "SELECT raw, run_id FROM report_operator_rejected ORDER BY number",
    )
    .await;
    let want: Vec<String> = (3..=RUNS).map(|run| format!("x{run},Rom,1|r-{run}")).collect();
    assert_eq!(kept, want);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_bounded_and_the_count_is_exact() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("orders.csv", "onBadRow: quarantine, maxBadRows: {ratio: 1}"));
    let long = "y".repeat(5000);
    let bad: String =
        (0..3000).map(|row| if row == 0 { format!("x,{long},1\n") } else { "x,Rom,1\n".into() }).collect();
    world.file("orders.csv", format!("id,city,amount\n1,Oslo,1\n{bad}"));
    let result = world.run(&manifest).ok();
    assert_eq!((result.sources[0].rows, result.sources[0].bad_rows), (1, 3000));
    let kept = "SELECT count(*), max(length(raw)) FROM report_operator.rejected WHERE identity LIKE replace('{schema}', '_', '-') || '/%'";
    assert_eq!(world.rows(kept).await, [format!("1000|{}", etl_worker::rejected::RAW_BYTES_MAX + 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_a_run_keeps_its_bad_rows() {
    let world = World::new().await;
    let steps = "initial: 2027-03-01T00:00:00Z\nmaxInterval: 1h\n";
    let spec = spec("orders.csv", "onBadRow: quarantine, maxBadRows: {count: 1}")
        .replace("orders'}", "orders'}, mode: {append: {}}");
    let manifest = world.manifest("p", &format!("{steps}{}", spec.trim_start()));
    world.file("orders.csv", "id,city,amount\n1,Oslo,1.50\n2,Bern\n");
    // Killed between its steps: the next attempt has the second step only.
    let killed = world.attempt(&manifest, "one", "2027-03-01T02:00:00Z", &[("REPORT_CRASH_AT", "after_ledger")]);
    assert_eq!(killed.code, None, "{}", killed.output);
    world.attempt(&manifest, "one", "2027-03-01T02:00:00Z", &[]).ok();
    let row = "orders|orders.csv|3|∅|input_malformed|2,Bern|∅";
    assert_eq!(world.rows(REJECTED).await, [row, row]);
}
