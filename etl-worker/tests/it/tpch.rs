//! TPC-H's 22 queries as models of one pipeline over Parquet files: their answers equal DuckDB's.
//! The queries, and what counts as equal, are in benches/tpch.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::World;

/// The smallest at which every query has rows.
const SCALE: &str = "0.05";
const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// A program of the Python environment that `dev/setup oracle` prepares.
fn oracle(program: &str) -> Command {
    let cache = std::env::var_os("REPORT_CACHE").map_or_else(
        || {
            let home = std::env::home_dir().unwrap();
            std::env::var_os("XDG_CACHE_HOME")
                .map_or_else(|| home.join(".cache"), PathBuf::from)
                .join("report-operator")
        },
        PathBuf::from,
    );
    let path = cache.join("peers/bin").join(program);
    assert!(path.exists(), "{} is not there: run 'dev/setup oracle', which needs a package index", path.display());
    Command::new(path)
}

#[track_caller]
fn output_of(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn queries() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/tpch")
}

/// Each query as a model and a lake below {folder}/lakes.
fn manifest(world: &World) -> PathBuf {
    let mut spec = String::from("sources:\n");
    for table in TABLES {
        spec += &format!("  - {{name: {table}, file: {{path: 'data/{table}.parquet'}}}}\n");
    }
    let (mut models, mut sinks) = (String::from("models:\n"), String::from("sinks:\n"));
    for number in 1..=22 {
        let query = format!("q{number:02}");
        let sql = std::fs::read_to_string(queries().join(format!("queries/{query}.sql"))).unwrap();
        // As the eleventh query says.
        let fraction = format!("{}", 0.0001 / SCALE.parse::<f64>().unwrap());
        let sql = sql.replace("0.0001", &fraction);
        let sql: String = sql.lines().map(|line| format!("      {line}\n")).collect();
        models += &format!("  - name: {query}\n    sql: |\n{sql}");
        sinks += &format!("  - {{name: {query}, from: {query}, lake: {{url: 'file://{{folder}}/lakes/{query}'}}}}\n");
    }
    world.manifest("tpch", &(spec + &models + &sinks))
}

fn compare(world: &World) -> (bool, String) {
    let folder = world.folder.path();
    let program = queries().join("compare.py");
    output_of(oracle("python").arg(program).arg(folder.join("data")).arg(folder.join("lakes")).args(["--scale", SCALE]))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_to_tpch_are_those_of_duckdb() {
    let world = World::new().await;
    let data = world.folder.path().join("data");
    let (ok, text) = output_of(oracle("tpchgen-cli").args(["parquet", "-s", SCALE, "-o"]).arg(&data));
    assert!(ok, "{text}");
    let result = world.run(&manifest(&world)).ok();
    assert_eq!(result.sinks.len(), 22);

    let (same, answers) = compare(&world);
    assert!(same, "{answers}");
    assert_eq!(answers.matches("rows, the same").count(), 22, "{answers}");
    assert!(!answers.contains(": 0 rows"), "an answer without rows proves nothing: {answers}");

    // The comparison itself: another query's answer is none of this one's.
    let lakes = world.folder.path().join("lakes");
    std::fs::remove_dir_all(lakes.join("q06")).unwrap();
    std::fs::rename(lakes.join("q19"), lakes.join("q06")).unwrap();
    std::fs::create_dir(lakes.join("q19")).unwrap();
    let (same, answers) = compare(&world);
    assert!(!same && answers.contains("q06: only ours"), "{answers}");
}
