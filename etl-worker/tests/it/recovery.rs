//! kill -9 at every named point, and what the next attempt makes of it: the same tables as after one clean run.

use std::process::{Command, Stdio};

use crate::databases::Database;
use crate::harness::{Ended, World};

/// Sinks in all modes that add up wrongly when done twice, so that there are commits between commits, and a lake.
fn spec(database: Database) -> String {
    let sinks: String = [
        ("log", "orders", "append: {}"),
        ("cities", "by_city", "merge: {key: [city]}"),
        ("parts", "orders", "deleteInsert: {partition: [city]}"),
        ("copy", "orders", "replace: {}"),
    ]
    .iter()
    .map(|(table, from, mode)| {
        format!("  - {{name: {table}, from: {from}, {}, mode: {{{mode}}}}}\n", database.sink(table))
    })
    .collect();
    format!(
        "
sources:
  - name: orders
    file: {{path: orders.csv}}
    columns: [{{name: id, type: int64, required: true}}, {{name: city, type: string}}, {{name: amount, type: 'decimal(10,2)'}}]
models:
  - {{name: by_city, sql: 'SELECT city, sum(amount) AS amount, count(*) AS orders FROM orders GROUP BY city'}}
sinks:
{sinks}  - {{name: lake, from: orders, lake: {{url: '{{lake}}/orders', partitionBy: [city]}}, mode: {{append: {{}}}}}}
"
    )
}

const TABLES: [&str; 4] = ["cities", "copy", "log", "parts"];

/// Where a worker is killed, and whether a sink has committed by then: the run is completed from what is staged,
/// whatever the source says by then.
const POINTS: &[(&str, bool)] = &[
    ("after_lock", false),
    ("after_fence", false),
    ("after_extract", false),
    ("after_stage_0", false),
    ("after_stage_3", false),
    ("after_stage", false),
    ("before_prepared", false),
    ("after_prepared", false),
    ("before_commit_0", false),
    ("after_commit_0", true),
    ("before_commit_1", true),
    ("after_commit_1", true),
    ("after_commit_2", true),
    ("after_commit_3", true),
    ("before_latest", true),
    ("after_commit_4", true),
    ("before_ledger", true),
    ("after_ledger", true),
];

/// Points of MySQL alone, whose swap takes two steps. The first sink does not swap after the first run.
const MYSQL_POINTS: &[(&str, bool)] = &[("before_rename", true), ("after_rename", true), ("before_clear", true)];

fn points(database: Database) -> impl Iterator<Item = &'static (&'static str, bool)> {
    let more = if database == Database::Mysql { MYSQL_POINTS } else { &[] };
    POINTS.iter().chain(more)
}

const FIRST: &str = "id,city,amount\n1,Oslo,1.50\n2,Rom,2.25\n";
const SECOND: &str = "id,city,amount\n3,Oslo,10.00\n4,Bern,20.00\n5,Bern,0.01\n";
const CHANGED: &str = "id,city,amount\n3,Oslo,11.00\n6,Wien,99.00\n";

async fn tables(world: &World, database: Database) -> Vec<String> {
    let mut all = Vec::new();
    for sql in [
        "SELECT 'log', id, city, amount FROM {schema}.log ORDER BY id",
        "SELECT 'cities', city, amount, orders FROM {schema}.cities ORDER BY city",
        "SELECT 'parts', id, city, amount FROM {schema}.parts ORDER BY id",
        "SELECT 'copy', id, city, amount FROM {schema}.copy ORDER BY id",
    ] {
        all.extend(database.rows(world, sql).await);
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
    let path = object_store::path::Path::from(format!("{}/{lake}/_report/latest.json", world.name));
    let bytes = world.bucket().get(&path).await.unwrap().bytes().await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn clean_run(database: Database, second: &str) -> Vec<String> {
    let world = World::new().await;
    let manifest = world.manifest("orders", &spec(database));
    world.file("orders.csv", FIRST);
    world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[]).ok();
    world.file("orders.csv", second);
    world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
    tables(&world, database).await
}

fn killed(ended: &Ended) {
    assert_eq!(ended.code, None, "the worker was not killed: {}", ended.output);
}

async fn a_retry_leaves_what_one_clean_run_leaves(database: Database) {
    let (want, want_changed) = (clean_run(database, SECOND).await, clean_run(database, CHANGED).await);
    assert_ne!(want, want_changed);
    for (point, committed) in points(database) {
        let world = World::new().await;
        let manifest = world.manifest("orders", &spec(database));
        world.file("orders.csv", FIRST);
        world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[]).ok();
        let before = tables(&world, database).await;
        world.file("orders.csv", SECOND);
        killed(&world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", point)]));
        if !committed {
            assert_eq!(tables(&world, database).await, before, "{point}: a reader sees a part of the dead run");
        }

        // The source changes before the retry: a window that was committed somewhere is never extracted again.
        world.file("orders.csv", CHANGED);
        let retried = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
        assert_eq!(retried.state, report_api::result::State::Succeeded, "{point}: {retried:?}");
        let want = if *committed { &want } else { &want_changed };
        assert_eq!(&tables(&world, database).await, want, "{database:?} {point}");
        assert_eq!(database.tables(&world).await, TABLES, "{database:?} {point}: something was left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_kill_9_at_any_point_leaves_what_one_clean_run_leaves_in_postgres() {
    a_retry_leaves_what_one_clean_run_leaves(Database::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_kill_9_at_any_point_leaves_what_one_clean_run_leaves_in_mysql() {
    a_retry_leaves_what_one_clean_run_leaves(Database::Mysql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_kill_9_at_any_point_leaves_what_one_clean_run_leaves_in_sqlite() {
    a_retry_leaves_what_one_clean_run_leaves(Database::Sqlite).await;
}

/// The first run makes the tables, in MySQL by a RENAME each.
#[tokio::test(flavor = "multi_thread")]
async fn another_run_completes_a_dead_one_before_its_own_window() {
    for database in Database::ALL {
        let mine: &[&str] = if database == Database::Mysql { &["after_rename", "before_clear"] } else { &[] };
        for point in ["after_commit_0", "after_commit_2", "before_ledger"].iter().chain(mine) {
            let world = World::new().await;
            let manifest = world.manifest("orders", &spec(database));
            world.file("orders.csv", FIRST);
            killed(&world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", point)]));
            // The dead run's lock has to expire before another run may take over.
            database.expire_locks(&world).await;
            world.file("orders.csv", SECOND);
            world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
            assert_eq!(tables(&world, database).await, clean_run(database, SECOND).await, "{database:?} {point}");
            assert_eq!(database.tables(&world).await, TABLES, "{database:?} {point}: something was left behind");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_finds_another_one_alive_is_busy() {
    let world = World::new().await;
    let manifest = world.manifest("orders", &spec(Database::Postgres));
    world.file("orders.csv", FIRST);
    killed(&world.attempt(&manifest, "run-1", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", "after_lock")]));
    let message = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).failed(21, "busy");
    assert!(message.contains("run-1"), "{message}");
    let skipping = world.manifest("orders", &format!("whenBusy: Skip\n{}", spec(Database::Postgres).trim_start()));
    let skipped = world.attempt(&skipping, "run-3", "2026-01-03T00:00:00Z", &[]).ok();
    assert_eq!(skipped.state, report_api::result::State::Skipped);
}

/// A worker that stands still at a point, as if its node were cut off, while its successor takes over; then it wakes up.
async fn a_zombie_changes_nothing(database: Database, points: &[&str]) {
    let want = clean_run(database, SECOND).await;
    for point in points {
        let world = World::new().await;
        let manifest = world.manifest("orders", &spec(database));
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
        assert_eq!(tables(&world, database).await, want, "{database:?} {point}: the successor");

        let woken = Command::new("kill").args(["-CONT", &zombie.id().to_string()]).status().unwrap();
        assert!(woken.success());
        let ended = Ended::read(&zombie.wait_with_output().unwrap(), &result);
        let message = ended.failed(20, "fenced");
        assert!(message.contains("taken over"), "{database:?} {point}: {message}");
        assert_eq!(tables(&world, database).await, want, "{database:?} {point}: the zombie changed something");

        // And the next window is as it should be: what the zombie staged late is gone.
        world.file("orders.csv", "id,city,amount\n9,Bern,1.00\n");
        world.attempt(&manifest, "run-3", "2026-01-03T00:00:00Z", &[]).ok();
        let log = database.rows(&world, "SELECT count(*), sum(id) FROM {schema}.log").await;
        assert_eq!(log, ["6|24"], "{database:?} {point}");
        assert_eq!(database.tables(&world).await, TABLES, "{database:?} {point}: something was left behind");
    }
}

const ZOMBIE_POINTS: &[&str] = &[
    "after_fence",
    // Its table is gone when it wakes up: that is no fault of the manifest's.
    "in_stage",
    "after_stage_1",
    "after_stage",
    "before_prepared",
    "before_commit_0",
    "before_commit_1",
    "before_latest",
    "after_commit_2",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_wakes_up_changes_nothing_in_postgres() {
    a_zombie_changes_nothing(Database::Postgres, ZOMBIE_POINTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_wakes_up_changes_nothing_in_mysql() {
    a_zombie_changes_nothing(Database::Mysql, ZOMBIE_POINTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_wakes_up_changes_nothing_in_sqlite() {
    a_zombie_changes_nothing(Database::Sqlite, ZOMBIE_POINTS).await;
}

/// It holds the fence, which its successor gets once the server has ended the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_in_its_commit_does_not_keep_its_successor_waiting_for_long() {
    a_zombie_changes_nothing(Database::Postgres, &["in_commit"]).await;
}

/// The fence is held on one connection while another one renames: a zombie between the two loses both.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_is_about_to_rename_finds_nothing_to_rename() {
    a_zombie_changes_nothing(Database::Mysql, &["before_rename"]).await;
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
    let manifest = world.manifest("orders", &spec(Database::Postgres));
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
