//! The worker on a laptop: `run --local`, `validate`, `preview`.

use std::path::{Path, PathBuf};

use crate::harness::{World, parquet_rows, sqlite_rows};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize().unwrap()
}

/// The manifests of all examples.
fn manifests() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = folders.map(|folder| folder.join("pipeline.yaml")).filter(|path| path.is_file()).collect();
    found.sort();
    found
}

/// The Parquet files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if entry.extension().is_some_and(|ending| ending == "parquet") {
            found.push(entry);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_fills_a_file_and_a_folder_without_any_server() {
    let mut world = World::new().await;
    for variable in ["SECRET_DB_URL", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        world.unset(variable);
    }
    let manifest = examples().join("quickstart/pipeline.yaml");
    let database = world.folder.path().join("out/reporting.db");
    // The second run replaces what the first one left.
    for n in 1..=2 {
        let ended = world.worker(&["run", manifest.to_str().unwrap(), "--local", "out"], &[]);
        let output = ended.output.clone();
        let result = ended.ok();
        for words in ["sales", "yearly-sales", "known-customers"] {
            assert!(output.contains(words), "no {words} in the summary: {output}");
        }
        assert_eq!(
            result.checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect::<Vec<_>>(),
            ["known-customers"]
        );

        let sales = sqlite_rows(&database, "SELECT * FROM sales ORDER BY order_id").await;
        assert_eq!(sales.len() as u64, result.sinks[0].rows, "run {n}");
        // The yearly table is the sum of the other one.
        let by_sql = "SELECT year, country, count(*), round(sum(amount), 2) FROM sales GROUP BY 1, 2 ORDER BY 1, 2";
        let yearly =
            sqlite_rows(&database, "SELECT year, country, orders, round(amount, 2) FROM yearly_sales ORDER BY 1, 2")
                .await;
        assert_eq!(yearly, sqlite_rows(&database, by_sql).await, "run {n}");
        assert_eq!(sqlite_rows(&database, "SELECT country FROM sales WHERE order_id = 10042").await, ["unknown"]);
        assert_eq!(sqlite_rows(&database, "SELECT count(*) FROM sales WHERE customer_id NOT LIKE '____'").await, ["0"]);

        let lake = world.folder.path().join("out/lake/quickstart/sales");
        let latest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(lake.join("_report/latest.json")).unwrap()).unwrap();
        let mut in_lake = 0;
        for file in latest["files"].as_array().unwrap() {
            in_lake += parquet_rows(std::fs::read(lake.join(file["path"].as_str().unwrap())).unwrap().into()).len();
        }
        assert_eq!(in_lake, sales.len(), "run {n}");
        assert!(files(&lake).iter().all(|file| file.to_str().unwrap().contains("/year=20")), "{:?}", files(&lake));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_valid() {
    let world = World::new().await;
    assert!(manifests().len() >= 3, "{:?}", manifests());
    for manifest in manifests() {
        let ended = world.worker(&["validate", manifest.to_str().unwrap()], &[]);
        assert_eq!(ended.code, Some(0), "{}: {}", manifest.display(), ended.output);
        assert!(ended.output.contains("is valid"), "{}", ended.output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preview_shows_rows_and_types_and_writes_nothing() {
    let world = World::new().await;
    let manifest = examples().join("quickstart/pipeline.yaml");
    let preview = |name: &str| world.worker(&["preview", manifest.to_str().unwrap(), name, "--rows", "2"], &[]);
    for (name, words) in [
        ("orders", ["unit_price: Decimal128(8, 2), required", "note: Utf8"]),
        ("yearly_sales", ["year: Int32", "amount: Decimal128(12, 2)"]),
    ] {
        let shown = preview(name);
        assert_eq!(shown.code, Some(0), "{}", shown.output);
        for words in words {
            assert!(shown.output.contains(words), "no {words} in {}", shown.output);
        }
        assert_eq!(
            shown.output.lines().filter(|line| line.starts_with("| ")).count(),
            3,
            "a header and two rows: {}",
            shown.output
        );
    }
    let typo = preview("yearly_sale");
    assert_eq!(typo.code, Some(10), "{}", typo.output);
    assert!(typo.output.contains("did you mean yearly_sales?"), "{}", typo.output);
    assert_eq!(files(world.folder.path()), [] as [PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_names_all_problems_at_once() {
    let world = World::new().await;
    let manifest = world.manifest(
        "p",
        "schedule: '@every 5m'\nsources: [{name: t, file: {path: t.csv}, columns: [{name: id, type: int46}]}]\nsinks: [{name: s, from: tt, lake: {url: '{lake}/t'}}]",
    );
    let ended = world.worker(&["validate", manifest.to_str().unwrap()], &[]);
    assert_eq!(ended.code, Some(10), "{}", ended.output);
    let manifest = world.manifest(
        "p",
        "schedule: '@every 5m'\nsources: [{name: t, file: {path: t.csv}, columns: [{name: id, type: int64}]}]\nsinks: [{name: s, from: tt, lake: {url: '{lake}/t'}}]",
    );
    let ended = world.worker(&["validate", manifest.to_str().unwrap()], &[]);
    for field in ["spec.schedule", "spec.sinks[0].from"] {
        assert!(ended.output.contains(field), "no {field} in {}", ended.output);
    }
}
