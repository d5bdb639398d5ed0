//! What holds for tables in all databases alike.

use report_api::result::State;

use super::{csv, day, spec};
use crate::databases::Database;
use crate::harness::World;

const ALL: &str = "SELECT id, city, amount FROM {schema}.orders ORDER BY id, city";

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_leaves_what_it_says() {
    for database in Database::ALL {
        let world = World::new().await;
        let sinks: String = [("replaced", "replace: {}"), ("added", "append: {}"), ("merged", "merge: {key: [id]}")]
            .iter()
            .map(|(table, mode)| {
                format!("  - {{name: {table}, from: orders, {}, mode: {{{mode}}}}}\n", database.sink(table))
            })
            .collect();
        let manifest = world.manifest("p", &format!("{}{sinks}", super::SOURCE));
        day(&world, &manifest, 1, &["1,Oslo,1.25", "2,Bern,2"]).ok();
        day(&world, &manifest, 2, &["2,Rom,20", "3,,"]).ok();
        assert_eq!(day(&world, &manifest, 2, &["9,Rom,9"]).ok().state, State::Succeeded, "an attempt after the commit");
        for (table, want) in [
            ("replaced", &["2|Rom|20", "3|∅|∅"][..]),
            ("added", &["1|Oslo|1.25", "2|Bern|2", "2|Rom|20", "3|∅|∅"]),
            ("merged", &["1|Oslo|1.25", "2|Rom|20", "3|∅|∅"]),
        ] {
            let sql = format!("SELECT id, city, amount FROM {{schema}}.{table} ORDER BY id, city");
            assert_eq!(database.rows(&world, &sql).await, want, "{database:?} {table}");
        }
        assert_eq!(database.tables(&world).await, ["added", "merged", "replaced"], "{database:?}");
    }
}

/// Two sinks, and the second would refuse its rows: nothing of the first may be committed.
#[tokio::test(flavor = "multi_thread")]
async fn append_finds_rows_that_are_there_before_any_sink_commits() {
    for database in Database::ALL {
        let world = World::new().await;
        let first = format!("sinks:\n  - {{name: first, from: orders, {}}}", database.sink("first"));
        let sink = format!("{}, mode: {{append: {{}}}}, primaryKey: [id]", database.sink("orders"));
        let manifest = world.manifest("p", &spec(&sink).replace("sinks:", &first));
        day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
        let message = day(&world, &manifest, 2, &["1,Oslo,1", "2,Bern,2"]).failed(12, "key_invalid");
        assert!(message.contains("use merge"), "{database:?}: {message}");
        assert_eq!(database.rows(&world, "SELECT id FROM {schema}.first").await, ["1"], "{database:?}");
        day(&world, &manifest, 3, &["3,Rom,3"]).ok();
        let ids = database.rows(&world, "SELECT id FROM {schema}.orders ORDER BY id").await;
        assert_eq!(ids, ["1", "3"], "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append_adds_an_interval_once() {
    for database in Database::ALL {
        let world = World::new().await;
        let sink = format!("{}, mode: {{append: {{}}}}", database.sink("orders"));
        let manifest = world.manifest("p", &spec(&sink));
        day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
        day(&world, &manifest, 2, &["2,Oslo,2"]).ok();
        let both = ["1|Oslo|1", "2|Oslo|2"];
        assert_eq!(database.rows(&world, ALL).await, both);

        // The same tick as another run, and an earlier one.
        for end in ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"] {
            let again = world.attempt(&manifest, "another", end, &[]).ok();
            assert_eq!(again.state, State::Skipped, "{again:?}");
        }
        let exactly = |start: &str, end: &str| {
            world.worker(&["run", manifest.to_str().unwrap(), "--interval-start", start, "--interval-end", end], &[])
        };
        assert_eq!(exactly("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z").ok().state, State::Skipped);
        let message = exactly("2026-01-01T12:00:00Z", "2026-01-03T00:00:00Z").failed(10, "interval_overlaps");
        assert!(message.contains("ask for the part that is missing"), "{message}");
        assert_eq!(database.rows(&world, ALL).await, both);
        world.file("orders.csv", csv(&["3,Rom,3"]));
        exactly("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z").ok();
        assert_eq!(database.rows(&world, ALL).await.len(), 3, "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rows_replace_rows_only_where_it_is_allowed() {
    let world = World::new().await;
    let sinks = Database::ALL.map(|database| database.sink("orders"));
    for (n, sink) in sinks.iter().map(String::as_str).chain(["lake: {url: '{lake}/orders'}"]).enumerate() {
        let name = format!("p{n}");
        let manifest = world.manifest(&name, &spec(sink));
        day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
        let message = day(&world, &manifest, 2, &[]).failed(12, "empty_replace");
        assert!(message.starts_with("spec.sinks[0]: ") && message.contains("allowEmpty: true"), "{message}");
        let allowed = world.manifest(&name, &spec(&format!("{sink}, allowEmpty: true")));
        assert_eq!(day(&world, &allowed, 2, &[]).ok().rows_written, 0);
    }
    for database in Database::ALL {
        assert_eq!(database.rows(&world, "SELECT count(*) FROM {schema}.orders").await, ["0"], "{database:?}");
    }
    assert_eq!(world.lake_rows("orders").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_rows_of_somebody_else_is_taken_over_only_when_asked() {
    for database in Database::ALL {
        let world = World::new().await;
        database.sql(&world, "CREATE TABLE {schema}.orders (id bigint, city varchar(20), amount numeric(10,2))").await;
        database.sql(&world, "INSERT INTO {schema}.orders VALUES (7, 'Rom', 7)").await;
        let sink = database.sink("orders");
        let manifest = world.manifest("p", &spec(&sink));
        let message = day(&world, &manifest, 1, &["1,Oslo,1"]).failed(10, "table_not_owned");
        assert!(message.contains("adopt: true"), "{message}");
        assert_eq!(database.rows(&world, ALL).await, ["7|Rom|7"]);
        let adopting = world.manifest("p", &spec(&format!("{sink}, adopt: true")));
        day(&world, &adopting, 1, &["1,Oslo,1"]).ok();
        assert_eq!(database.rows(&world, ALL).await, ["1|Oslo|1"], "{database:?}");
        // It is ours now.
        day(&world, &manifest, 2, &["2,Oslo,2"]).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pipeline_can_not_replace_the_first_ones_data() {
    let world = World::new().await;
    let sinks = Database::ALL.map(|database| database.sink("orders"));
    for sink in sinks.iter().map(String::as_str).chain(["lake: {url: '{lake}/orders'}"]) {
        let first = world.manifest("first", &spec(sink));
        let second = world.manifest("second", &spec(sink));
        day(&world, &first, 1, &["1,Oslo,1"]).ok();
        let message = day(&world, &second, 1, &["2,Bern,2"]).failed(10, "table_not_owned");
        let owner = format!("{}/first", world.name.replace('_', "-"));
        assert!(message.contains(&owner) && message.contains("write to another"), "{message}");
        // The first one goes on.
        day(&world, &first, 2, &["1,Oslo,1"]).ok();
    }
    for database in Database::ALL {
        assert_eq!(database.rows(&world, ALL).await, ["1|Oslo|1"], "{database:?}");
    }
    assert_eq!(world.lake_rows("orders").await, ["1|Oslo|1.00"]);
}

/// Another pipeline that comes between the staging and the commit of the first one into a table.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_became_another_pipelines_after_staging_is_left_alone() {
    for database in Database::ALL {
        let world = World::new().await;
        database.sql(&world, "CREATE TABLE {schema}.orders (id bigint, city varchar(20), amount numeric(10,2))").await;
        let sink = database.sink("orders");
        // A first sink, so that the run is completed from what is staged.
        let first = format!("sinks:\n  - {{name: first, from: orders, {}}}", database.sink("first"));
        let slow = world.manifest("slow", &spec(&sink).replace("sinks:", &first));
        world.file("orders.csv", csv(&["1,Oslo,1"]));
        let dead = world.attempt(&slow, "run-1", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", "after_commit_0")]);
        assert_eq!(dead.code, None, "{}", dead.output);
        day(&world, &world.manifest("quick", &spec(&sink)), 1, &["2,Bern,2"]).ok();
        let message = world.attempt(&slow, "run-1", "2026-01-01T00:00:00Z", &[]).failed(10, "table_not_owned");
        assert!(message.contains("since this run was staged"), "{database:?}: {message}");
        assert_eq!(database.rows(&world, ALL).await, ["2|Bern|2"], "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_can_append_to_one_table() {
    for database in Database::ALL {
        let world = World::new().await;
        let spec = spec(&format!("{}, mode: {{append: {{}}}}", database.sink("orders")));
        day(&world, &world.manifest("first", &spec), 1, &["1,Oslo,1"]).ok();
        day(&world, &world.manifest("second", &spec), 1, &["2,Bern,2"]).ok();
        assert_eq!(database.rows(&world, ALL).await, ["1|Oslo|1", "2|Bern|2"], "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_have_a_unique_key_in_common_replace_nothing() {
    for database in Database::ALL {
        for by in ["", ", mode: {replace: {by: rows}}"] {
            if database == Database::Sqlite && !by.is_empty() {
                continue;
            }
            let world = World::new().await;
            let create =
                "CREATE TABLE {schema}.orders (id bigint NOT NULL PRIMARY KEY, city varchar(20), amount numeric(10,2))";
            database.sql(&world, create).await;
            let manifest = world.manifest("p", &spec(&format!("{}{by}", database.sink("orders"))));
            day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
            day(&world, &manifest, 2, &["2,Oslo,1", "2,Bern,2"]).failed(12, "key_invalid");
            assert_eq!(database.rows(&world, ALL).await, ["1|Oslo|1"], "{database:?} {by}");
            assert_eq!(database.tables(&world).await, ["orders"], "{database:?} {by}");
        }
    }
}
