//! kill -9 at every named point, and what the next attempt makes of it: the same tables as after one clean run.

use std::process::{Command, Stdio};

use crate::harness::{Ended, World, setting};

/// Three sinks, so that there are commits between commits, in all modes that add up wrongly when done twice.
const SPEC: &str = "
sources:
  - name: orders
    file: {path: orders.csv}
    columns: [{name: id, type: int64, required: true}, {name: city, type: string}, {name: amount, type: 'decimal(10,2)'}]
models:
  - {name: by_city, sql: 'SELECT city, sum(amount) AS amount, count(*) AS orders FROM orders GROUP BY city'}
sinks:
  - {name: log, from: orders, postgres: {connection: {secretRef: {name: db}}, table: '{schema}.log'}, mode: {append: {}}}
  - {name: cities, from: by_city, postgres: {connection: {secretRef: {name: db}}, table: '{schema}.cities'}, mode: {merge: {key: [city]}}}
  - {name: lake, from: orders, lake: {url: '{lake}/orders', partitionBy: [city]}, mode: {append: {}}}
  - {name: copy, from: orders, postgres: {connection: {secretRef: {name: db}}, table: '{schema}.copy'}}
";

const POINTS: &[&str] = &[
    "after_lock",
    "after_fence",
    "after_extract",
    "after_stage_0",
    "after_stage_2",
    "after_stage",
    "before_prepared",
    "after_prepared",
    "before_commit_0",
    "after_commit_0",
    "before_commit_1",
    "after_commit_1",
    "before_latest",
    "after_commit_2",
    "after_commit_3",
    "before_ledger",
    "after_ledger",
];

/// Points after which a sink has committed: the run is completed from what is staged, whatever the source says by then.
const COMMITTED: &[&str] = &[
    "after_commit_0",
    "before_commit_1",
    "after_commit_1",
    "before_latest",
    "after_commit_2",
    "after_commit_3",
    "before_ledger",
    "after_ledger",
];

const FIRST: &str = "id,city,amount\n1,Oslo,1.50\n2,Rom,2.25\n";
const SECOND: &str = "id,city,amount\n3,Oslo,10.00\n4,Bern,20.00\n5,Bern,0.01\n";
const CHANGED: &str = "id,city,amount\n3,Oslo,11.00\n6,Wien,99.00\n";

async fn tables(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for sql in [
        "SELECT 'log', * FROM {schema}.log ORDER BY id",
        "SELECT 'cities', * FROM {schema}.cities ORDER BY city",
        "SELECT 'copy', * FROM {schema}.copy ORDER BY id",
    ] {
        all.extend(world.rows(sql).await);
    }
    all.extend(lake(world).await);
    all
}

/// The lake as a reader sees it by its manifest: partitions and rows.
async fn lake(world: &World) -> Vec<String> {
    let manifest = latest(world, "orders").await;
    let mut files: Vec<String> = manifest["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| format!("lake|{}|{}", file["partition"]["city"].as_str().unwrap(), file["rows"]))
        .collect();
    files.sort();
    files
}

async fn latest(world: &World, lake: &str) -> serde_json::Value {
    use object_store::ObjectStoreExt;
    let store = object_store::aws::AmazonS3Builder::new()
        .with_bucket_name(setting("TEST_S3_BUCKET"))
        .with_endpoint(setting("TEST_S3_ENDPOINT"))
        .with_access_key_id(setting("TEST_S3_ACCESS_KEY"))
        .with_secret_access_key(setting("TEST_S3_SECRET_KEY"))
        .with_region("us-east-1")
        .with_allow_http(true)
        .build()
        .unwrap();
    let path = object_store::path::Path::from(format!("{}/{lake}/_report/latest.json", world.name));
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn clean_run(second: &str) -> Vec<String> {
    let world = World::new().await;
    let manifest = world.manifest("orders", SPEC);
    world.file("orders.csv", FIRST);
    world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[]).ok();
    world.file("orders.csv", second);
    world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
    tables(&world).await
}

fn killed(ended: &Ended) {
    assert_eq!(ended.code, None, "the worker was not killed: {}", ended.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_kill_9_at_any_point_leaves_what_one_clean_run_leaves() {
    let (want, want_changed) = (clean_run(SECOND).await, clean_run(CHANGED).await);
    assert_ne!(want, want_changed);
    for point in POINTS {
        let world = World::new().await;
        let manifest = world.manifest("orders", SPEC);
        world.file("orders.csv", FIRST);
        world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[]).ok();
        let before = tables(&world).await;
        world.file("orders.csv", SECOND);
        killed(&world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", point)]));
        if !COMMITTED.contains(point) {
            assert_eq!(tables(&world).await, before, "{point}: a reader sees a part of the dead run");
        }

        // The source changes before the retry: a window that was committed somewhere is never extracted again.
        world.file("orders.csv", CHANGED);
        let retried = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
        assert_eq!(retried.state, report_api::result::State::Succeeded, "{point}: {retried:?}");
        let want = if COMMITTED.contains(point) { &want } else { &want_changed };
        assert_eq!(&tables(&world).await, want, "{point}");
        assert_eq!(world.tables().await, ["cities", "copy", "log"], "{point}: something was left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_run_completes_a_dead_one_before_its_own_window() {
    for point in ["after_commit_0", "after_commit_2", "before_ledger"] {
        let world = World::new().await;
        let manifest = world.manifest("orders", SPEC);
        world.file("orders.csv", FIRST);
        killed(&world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", point)]));
        // The dead run's lock has to expire before another run may take over.
        world
            .sql("UPDATE report_operator.ledger SET version = version + 1, state = jsonb_set(state, '{lock,expires}', '\"2020-01-01T00:00:00Z\"')
                  WHERE identity LIKE replace('{schema}', '_', '-') || '/%'")
            .await;
        world.file("orders.csv", SECOND);
        world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
        assert_eq!(tables(&world).await, clean_run(SECOND).await, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_finds_another_one_alive_is_busy() {
    let world = World::new().await;
    let manifest = world.manifest("orders", SPEC);
    world.file("orders.csv", FIRST);
    killed(&world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", "after_lock")]));
    let message = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).failed(21, "busy");
    assert!(message.contains("run-1"), "{message}");
    let skipping = world.manifest("orders", &format!("whenBusy: Skip\n{}", SPEC.trim_start()));
    let skipped = world.attempt(&skipping, "run-3", "2026-01-03T00:00:00Z", &[]).ok();
    assert_eq!(skipped.state, report_api::result::State::Skipped);
}

/// A worker that stands still at a point, as if its node were cut off, while its successor takes over; then it wakes up.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_wakes_up_changes_nothing() {
    let want = clean_run(SECOND).await;
    for point in [
        "after_fence",
        "after_stage_1",
        "after_stage",
        "before_prepared",
        "before_commit_0",
        "before_commit_1",
        "before_latest",
        "after_commit_2",
    ] {
        let world = World::new().await;
        let manifest = world.manifest("orders", SPEC);
        world.file("orders.csv", FIRST);
        world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[]).ok();
        world.file("orders.csv", SECOND);

        let result = world.folder.path().join("zombie.json");
        let mut command = world.command(
            &["run", manifest.to_str().unwrap()],
            &[("REPORT_RUN_ID", "run-2"), ("REPORT_INTERVAL_END", "2026-01-02T00:00:00Z"), ("REPORT_STOP_AT", point)],
        );
        let zombie =
            command.env("REPORT_RESULT", &result).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_stopped(zombie.id());

        // The same Job's next pod.
        world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
        assert_eq!(tables(&world).await, want, "{point}: the successor");

        let woken = Command::new("kill").args(["-CONT", &zombie.id().to_string()]).status().unwrap();
        assert!(woken.success());
        let ended = Ended::read(&zombie.wait_with_output().unwrap(), &result);
        let message = ended.failed(20, "fenced");
        assert!(message.contains("taken over"), "{point}: {message}");
        assert_eq!(tables(&world).await, want, "{point}: the zombie changed something");

        // And the next window is as it should be: what the zombie staged late is gone.
        world.file("orders.csv", "id,city,amount\n9,Bern,1.00\n");
        world.attempt(&manifest, "run-3", "2026-01-03T00:00:00Z", &[]).ok();
        assert_eq!(world.rows("SELECT count(*), sum(id) FROM {schema}.log").await, ["6|24"], "{point}");
        assert_eq!(world.tables().await, ["cities", "copy", "log"], "{point}: something was left behind");
    }
}

fn wait_until_stopped(pid: u32) {
    for _ in 0..500 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the worker did not stop at its point");
}

/// A sink whose constraint refuses what is staged, found only when another sink has committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_can_never_succeed_says_how_to_let_go() {
    let world = World::new().await;
    let manifest = world.manifest("orders", SPEC);
    world.file("orders.csv", FIRST);
    world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[]).ok();
    world.file("orders.csv", SECOND);
    killed(&world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", "after_commit_0")]));
    world.sql("ALTER TABLE {schema}.cities ADD CHECK (amount < 15) NOT VALID").await;
    let message = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).failed(12, "value_invalid");
    let statement =
        message.split_once("give this sink's rows").and_then(|(_, rest)| rest.split_once("UPDATE")).unwrap();
    assert!(message.contains("spec.sinks[1]"), "{message}");

    // The statement of the message lets go, and the next window is as it should be.
    world.sql(&format!("UPDATE{}", statement.1)).await;
    world.sql("ALTER TABLE {schema}.cities DROP CONSTRAINT cities_amount_check").await;
    world.file("orders.csv", "id,city,amount\n9,Bern,1.00\n");
    world.attempt(&manifest, "run-3", "2026-01-03T00:00:00Z", &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.log ORDER BY id").await, ["1", "2", "3", "4", "5", "9"]);
    assert_eq!(world.rows("SELECT amount FROM {schema}.cities WHERE city = 'Bern'").await, ["1.00"]);
}
