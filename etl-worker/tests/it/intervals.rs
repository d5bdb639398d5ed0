//! Intervals that follow one another, whatever was missed or killed, and runs that find nothing new.

use std::path::Path;

use report_api::result::{RunResult, State};

use crate::harness::{Ended, World};

/// Runs a manifest as the attempt of the scheduled run of this minute (since 1970).
fn tick(world: &World, manifest: &Path, minutes: i64, variables: &[(&str, &str)]) -> Ended {
    let name = manifest.file_stem().unwrap().to_str().unwrap();
    let (run_name, run_id) = (format!("{name}-{minutes}"), format!("run-{minutes}"));
    let mut all = vec![("REPORT_RUN_NAME", run_name.as_str()), ("REPORT_RUN_ID", run_id.as_str())];
    all.extend_from_slice(variables);
    world.worker(&["run", manifest.to_str().unwrap()], &all)
}

fn interval(result: &RunResult) -> String {
    result.interval.unwrap().to_string()
}

/// 2027-03-01T00:00:00Z in minutes, and an hour.
const MIDNIGHT: i64 = 30_064_320;
const HOUR: i64 = 60;

/// What each interval was, in the tables themselves.
const STEPS: &str = "
schedule: '0 * * * *'
initial: 2027-03-01T00:00:00Z
maxInterval: 2h
sources: [{name: one, file: {path: one.csv}, columns: [{name: x, type: int64}]}]
models: [{name: step, sql: 'SELECT $interval_start AS since, $interval_end AS until, $run_id AS run FROM one'}]
sinks:
  - {name: log, from: step, postgres: {connection: {secretRef: {name: db}}, table: '{schema}.log'}, mode: {append: {}}}
  - {name: lake, from: step, lake: {url: '{lake}/log'}, mode: {append: {}}}
";

const LOG: &str =
    "SELECT to_char(since AT TIME ZONE 'UTC', 'HH24') AS since, to_char(until AT TIME ZONE 'UTC', 'HH24') AS until, run
                   FROM {schema}.log ORDER BY 1, 2";

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_covered_step_by_step_once() {
    let world = World::new().await;
    world.file("one.csv", "x\n1\n");
    let manifest = world.manifest("steps", STEPS);
    let result = tick(&world, &manifest, MIDNIGHT + 5 * HOUR, &[]).ok();
    assert_eq!(interval(&result), "[2027-03-01T00:00:00Z, 2027-03-01T05:00:00Z)");
    assert_eq!((result.rows_read, result.rows_written), (3, 6), "three steps, two sinks");
    let five = ["00|02|run-30064620", "02|04|run-30064620", "04|05|run-30064620"];
    assert_eq!(world.rows(LOG).await, five);

    let again = tick(&world, &manifest, MIDNIGHT + 5 * HOUR, &[]).ok();
    assert_eq!(again.state, State::Succeeded, "an attempt after the commit only says so again");
    let earlier = tick(&world, &manifest, MIDNIGHT + 4 * HOUR, &[]).ok();
    assert_eq!(earlier.state, State::Skipped);
    assert_eq!(world.rows(LOG).await, five);

    tick(&world, &manifest, MIDNIGHT + 6 * HOUR, &[]).ok();
    assert_eq!(world.rows(LOG).await.last().unwrap(), "05|06|run-30064680");
    assert_eq!(world.lake_rows("log").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_between_its_steps_goes_on_after_them() {
    for point in ["after_prepared", "after_commit_0", "after_commit_1", "after_ledger"] {
        let world = World::new().await;
        world.file("one.csv", "x\n1\n");
        let manifest = world.manifest("steps", STEPS);
        let end = MIDNIGHT + 5 * HOUR;
        let killed = tick(&world, &manifest, end, &[("REPORT_CRASH_AT", point)]);
        assert_eq!(killed.code, None, "{}", killed.output);
        tick(&world, &manifest, end, &[]).ok();
        let want = ["00|02|run-30064620", "02|04|run-30064620", "04|05|run-30064620"];
        assert_eq!(world.rows(LOG).await, want, "{point}");
        assert_eq!(world.lake_rows("log").await.len(), 3, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_out_is_told_until_a_run_fills_it() {
    let world = World::new().await;
    world.file("one.csv", "x\n1\n");
    let manifest = world.manifest("gaps", &STEPS.replace("maxInterval: 2h", ""));
    let of = |start: &str, end: &str| {
        let (start, end) = (format!("2027-03-01T{start}:00:00Z"), format!("2027-03-01T{end}:00:00Z"));
        let arguments = ["run", manifest.to_str().unwrap(), "--interval-start", &start, "--interval-end", &end];
        world.worker(&arguments, &[])
    };
    let missing =
        |result: &RunResult| result.missing_intervals.map(|missing| (missing.count, missing.oldest.to_string()));
    assert_eq!(missing(&of("01", "02").ok()), Some((1, "[2027-03-01T00:00:00Z, 2027-03-01T01:00:00Z)".into())));
    assert_eq!(missing(&of("04", "05").ok()).unwrap().0, 2);
    let message = of("03", "05").failed(10, "interval_overlaps");
    assert!(message.contains("[2027-03-01T04:00:00Z, 2027-03-01T05:00:00Z), which is committed"), "{message}");
    let refused = of("03", "05");
    assert_eq!(missing(refused.result.as_ref().unwrap()).unwrap().0, 2, "a run that fails tells of them too");
    assert_eq!(missing(&of("02", "04").ok()).unwrap().0, 1);
    assert_eq!(missing(&of("00", "01").ok()), None);
    assert_eq!(of("01", "03").ok().state, State::Skipped);
    let log =
        world.rows("SELECT count(*) AS n, sum(extract(epoch FROM until - since))::int AS s FROM {schema}.log").await;
    assert_eq!(log, ["4|18000"]);
}

const SNAPSHOT: &str = "
schedule: '0 * * * *'
sources: [{name: orders, file: {path: orders.csv}, columns: [{name: id, type: int64}, {name: city, type: string}]}]
models: [{name: by_city, sql: 'SELECT city, count(*) AS orders FROM orders GROUP BY city'}]
sinks:
  - {name: cities, from: by_city, postgres: {connection: {secretRef: {name: db}}, table: '{schema}.cities'}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_run_that_finds_nothing_new_is_skipped_and_moves_the_time() {
    let world = World::new().await;
    world.file("orders.csv", "id,city\n1,Oslo\n");
    let manifest = world.manifest("snapshot", SNAPSHOT);
    let at = |hour: i64| tick(&world, &manifest, MIDNIGHT + hour * HOUR, &[]).ok();
    assert_eq!(at(1).state, State::Succeeded);
    let second = at(2);
    assert_eq!((second.state, second.unchanged), (State::Skipped, true));
    assert_eq!(interval(&second), "[2027-03-01T01:00:00Z, 2027-03-01T02:00:00Z)");

    world.file("orders.csv", "id,city\n1,Oslo\n2,Rom\n");
    let third = at(3);
    assert_eq!(
        (third.state, interval(&third)),
        (State::Succeeded, "[2027-03-01T02:00:00Z, 2027-03-01T03:00:00Z)".into())
    );
    assert_eq!(world.rows("SELECT city FROM {schema}.cities ORDER BY 1").await, ["Oslo", "Rom"]);

    let edited = world.manifest("snapshot", &SNAPSHOT.replace("count(*) AS orders", "count(*) * 10 AS orders"));
    assert_eq!(tick(&world, &edited, MIDNIGHT + 4 * HOUR, &[]).ok().state, State::Succeeded);
    let volatile = world.manifest("snapshot", &SNAPSHOT.replace("count(*) AS orders", "max($interval_end) AS orders"));
    world.sql("DROP TABLE {schema}.cities").await;
    for hour in [5, 6] {
        assert_eq!(tick(&world, &volatile, MIDNIGHT + hour * HOUR, &[]).ok().state, State::Succeeded, "{hour}");
    }

    let manifest = world.manifest("snapshot", SNAPSHOT);
    world.sql("DROP TABLE {schema}.cities").await;
    let by_hand = |end: &str| world.attempt(&manifest, end, end, &[]).ok().state;
    assert_eq!(by_hand("2027-03-01T07:00:00Z"), State::Succeeded);
    assert_eq!(tick(&world, &manifest, MIDNIGHT + 8 * HOUR, &[]).ok().state, State::Skipped);
    assert_eq!(by_hand("2027-03-01T09:00:00Z"), State::Succeeded, "asked for by hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_refresh_takes_the_place_of_all_rows() {
    let world = World::new().await;
    world.file("one.csv", "x\n1\n");
    let manifest = world.manifest("steps", STEPS);
    tick(&world, &manifest, MIDNIGHT + 4 * HOUR, &[]).ok();
    assert_eq!(world.rows(LOG).await.len(), 2);
    let refreshed = tick(&world, &manifest, MIDNIGHT + 5 * HOUR, &[("REPORT_FULL_REFRESH", "true")]).ok();
    assert_eq!(interval(&refreshed), "[2027-03-01T00:00:00Z, 2027-03-01T05:00:00Z)");
    assert_eq!(world.rows(LOG).await, ["00|05|run-30064620"]);
    assert_eq!(world.lake_rows("log").await.len(), 1);
    tick(&world, &manifest, MIDNIGHT + 6 * HOUR, &[]).ok();
    assert_eq!(world.rows(LOG).await, ["00|05|run-30064620", "05|06|run-30064680"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_paths_name_the_interval() {
    let world = World::new().await;
    std::fs::create_dir(world.folder.path().join("2027-03")).unwrap();
    world.file("2027-03/orders-05.csv", "id,city\n1,Oslo\n");
    let path = "'{{ interval.start | date(\"%Y-%m\") }}/orders-{{ interval.start | date(\"%H\") }}.csv'";
    let manifest = world.manifest("snapshot", &SNAPSHOT.replace("orders.csv", path));
    tick(&world, &manifest, MIDNIGHT + 6 * HOUR, &[]).ok();
    assert_eq!(world.rows("SELECT city FROM {schema}.cities").await, ["Oslo"]);
    let message = tick(&world, &manifest, MIDNIGHT + 7 * HOUR, &[]).failed(12, "input_missing");
    assert!(message.contains("2027-03/orders-06.csv"), "{message}");
}
