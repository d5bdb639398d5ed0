//! What modes leave in a lake.

use report_api::result::State;

use super::{csv, day, spec};
use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_replaced_or_grows_and_its_partitions_may_be_called_anything() {
    let world = World::new().await;
    let sink = "lake: {url: '{lake}/orders', partitionBy: [city]}";
    let manifest = world.manifest("p", &spec(&format!("{sink}, mode: {{append: {{}}}}")));
    day(&world, &manifest, 1, &["1,a/b=c ü,1", "2,,2", "3,x%20{y},3"]).ok();
    day(&world, &manifest, 2, &["4,a/b=c ü,4", "5,..,5"]).ok();
    let all = ["..|5|5.00", "a/b=c ü|1|1.00", "a/b=c ü|4|4.00", "x%20{y}|3|3.00", "∅|2|2.00"];
    assert_eq!(world.lake_rows("orders").await, all);
    let files = world.parquet_files("orders").await;
    assert!(files.iter().any(|path| path.contains("/city=a%2Fb%3Dc%20%C3%BC/")), "{files:?}");
    assert!(files.iter().any(|path| path.contains("/city=__HIVE_DEFAULT_PARTITION__/")), "{files:?}");
    assert_eq!(world.attempt(&manifest, "again", "2026-01-02T00:00:00Z", &[]).ok().state, State::Skipped);
    assert_eq!(world.lake_rows("orders").await, all);

    let replacing = world.manifest("p", &spec(sink));
    day(&world, &replacing, 3, &["6,Oslo,6"]).ok();
    assert_eq!(world.lake_rows("orders").await, ["Oslo|6|6.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_tells_an_empty_partition_value_from_a_missing_one_in_its_manifest() {
    let world = World::new().await;
    let spec = "
sources: [{name: t, file: {path: t.csv}, columns: [{name: id, type: int64}]}]
models: [{name: m, sql: \"SELECT id, CASE id WHEN 1 THEN '' WHEN 2 THEN NULL ELSE 'x' END AS part FROM t\"}]
sinks: [{name: l, from: m, lake: {url: '{lake}/l', partitionBy: [part]}}]";
    world.file("t.csv", "id\n1\n2\n3\n");
    world.run(&world.manifest("p", spec)).ok();
    assert_eq!(world.lake_rows("l").await, ["x|3", "|1", "∅|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_dead_runs_go_and_files_that_a_kept_manifest_names_stay() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("lake: {url: '{lake}/orders'}"));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    let first = world.parquet_files("orders").await;
    world.put("orders/notes/readme.parquet", "not ours").await;
    world.file("orders.csv", csv(&["2,Oslo,2"]));
    let dead = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", "after_stage")]);
    assert_eq!(dead.code, None, "{}", dead.output);
    let orphans: Vec<_> = world
        .parquet_files("orders")
        .await
        .into_iter()
        .filter(|path| !first.contains(path) && !path.starts_with("notes"))
        .collect();
    assert_eq!(orphans.len(), 1);
    assert_eq!(world.lake_rows("orders").await, ["1|Oslo|1.00"]);

    world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
    let files = world.parquet_files("orders").await;
    assert!(!files.contains(&orphans[0]), "the dead run's file is still there: {files:?}");
    assert!(files.contains(&first[0]), "a reader of the manifest before misses its file: {files:?}");
    // Ten manifests are kept, two a run.
    for n in 3..10 {
        day(&world, &manifest, n, &["3,Oslo,3"]).ok();
    }
    let files = world.parquet_files("orders").await;
    assert!(!files.contains(&first[0]), "nothing is ever removed: {files:?}");
    assert!(files.len() <= 7, "{files:?}");
    assert!(files.contains(&"notes/readme.parquet".to_owned()), "{files:?}");
}

/// A file system keeps a file that was never finished under a name that no listing of the store shows.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_killed_run_never_finished_go_from_a_folder() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("lake: {url: 'file://{folder}/lake', partitionBy: [city]}"));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    let dead = world.folder.path().join("lake/r00000001-dead");
    let unfinished = dead.join("city=Oslo/part-00000.parquet#1");
    let staged = world.folder.path().join("lake/_report/staged/r00000001-dead.json#2");
    for path in [&unfinished, &staged] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "PAR1").unwrap();
    }
    let mine = world.folder.path().join("lake/notes#1");
    std::fs::write(&mine, "not ours").unwrap();
    day(&world, &manifest, 2, &["2,Oslo,2"]).ok();
    assert!(!dead.exists() && !staged.exists() && mine.exists());
}
