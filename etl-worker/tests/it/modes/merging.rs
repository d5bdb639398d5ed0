//! merge, and what decides which rows count.

use super::{day, spec};
use crate::databases::Database;
use crate::harness::{Ended, World};

const ALL: &str = "SELECT id, city, amount FROM {schema}.orders ORDER BY id, city";

#[tokio::test(flavor = "multi_thread")]
async fn merge_updates_rows_of_the_same_key_and_adds_the_others() {
    for database in Database::ALL {
        let world = World::new().await;
        let sink = format!("{}, mode: {{merge: {{key: [id, city]}}}}", database.sink("orders"));
        let manifest = world.manifest("p", &spec(&sink));
        day(&world, &manifest, 1, &["1,Oslo,1", "1,Bern,2", "2,Oslo,3"]).ok();
        day(&world, &manifest, 2, &["1,Bern,20", "3,Rom,"]).ok();
        let merged = ["1|Bern|20", "1|Oslo|1", "2|Oslo|3", "3|Rom|∅"];
        assert_eq!(database.rows(&world, ALL).await, merged, "{database:?}");

        for (rows, want) in [
            (["1,Bern,1", "1,Bern,2"], "occur more than once"),
            (["1,,1", "2,Rom,1"], "1 rows have NULL in the key (id, city)"),
        ] {
            let message = day(&world, &manifest, 3, &rows).failed(12, "key_invalid");
            assert!(message.contains("spec.sinks[0]") && message.contains(want), "{database:?}: {message}");
            assert_eq!(database.rows(&world, ALL).await, merged, "{database:?}");
        }
        // The same keys in the same interval change nothing.
        day(&world, &manifest, 4, &["1,Bern,20"]).ok();
        assert_eq!(database.rows(&world, ALL).await, merged, "{database:?}");
        assert_eq!(database.tables(&world).await, ["orders"], "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_of_keys_only_adds_what_is_new() {
    for database in Database::ALL {
        let world = World::new().await;
        let sink = format!("{}, mode: {{merge: {{key: [id, city, amount]}}}}", database.sink("orders"));
        let manifest = world.manifest("p", &spec(&sink));
        day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
        day(&world, &manifest, 2, &["1,Oslo,1", "2,Oslo,1"]).ok();
        assert_eq!(database.rows(&world, ALL).await, ["1|Oslo|1", "2|Oslo|1"], "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_into_a_table_without_a_unique_index_says_which_one_to_make() {
    for database in Database::ALL {
        let world = World::new().await;
        let sink = database.sink("orders");
        let manifest = world.manifest("p", &spec(&format!("{sink}, mode: {{append: {{}}}}")));
        day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
        let merging = world.manifest("p", &spec(&format!("{sink}, mode: {{merge: {{key: [id]}}}}")));
        let message = day(&world, &merging, 2, &["1,Oslo,2"]).failed(12, "schema_mismatch");
        assert!(message.contains("CREATE UNIQUE INDEX") && message.contains("(id)"), "{database:?}: {message}");
    }
}

/// Rows with a time and a flag.
const EVENTS: &str = "
sources:
  - name: orders
    file: {path: orders.csv}
    columns: [{name: id, type: int64, required: true}, {name: city, type: string}, {name: at, type: timestamptz}, {name: gone, type: boolean}]
sinks:
";
const LEFT: &str = "SELECT id, city FROM {schema}.orders ORDER BY id";

fn events(world: &World, database: Database, options: &str, n: u32, rows: &[&str]) -> Ended {
    let sink = database.sink("orders");
    let spec =
        format!("{EVENTS}  - {{name: orders, from: orders, {sink}, mode: {{merge: {{key: [id], {options}}}}}}}\n");
    let manifest = world.manifest("p", &spec);
    world.file("orders.csv", format!("id,city,at,gone\n{}\n", rows.join("\n")));
    world.attempt(&manifest, &format!("run-{n}"), &format!("2026-01-{n:02}T00:00:00Z"), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_row_of_a_key_counts_and_a_tie_is_an_error() {
    for database in Database::ALL {
        let world = World::new().await;
        let run = |n, rows: &[&str]| events(&world, database, "dedupe: {latestBy: at}", n, rows);
        let first = run(
            1,
            &[
                "1,Oslo,2026-01-01T01:00:00Z,false",
                "1,Bern,2026-01-01T02:00:00Z,false",
                "2,Rom,2026-01-01T00:00:00Z,false",
                "1,Wien,2026-01-01T01:30:00Z,false",
            ],
        );
        assert_eq!(first.ok().rows_written, 2);
        assert_eq!(database.rows(&world, LEFT).await, ["1|Bern", "2|Rom"], "{database:?}");

        let message =
            run(2, &["1,A,2026-01-02T00:00:00Z,false", "1,B,2026-01-02T00:00:00Z,false"]).failed(12, "key_invalid");
        assert!(message.starts_with("spec.sinks[0].mode.merge.dedupe.latestBy: 1 keys (id)"), "{message}");
        let message = run(2, &["1,A,,false"]).failed(12, "key_invalid");
        assert!(message.contains("1 rows have NULL in at"), "{message}");
        assert_eq!(database.rows(&world, LEFT).await, ["1|Bern", "2|Rom"], "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_as_new_stay_where_only_newer_ones_count() {
    for database in Database::ALL {
        let world = World::new().await;
        let run = |n, rows: &[&str]| events(&world, database, "onlyIfNewer: at", n, rows);
        run(
            1,
            &[
                "1,Oslo,2026-01-01T02:00:00Z,false",
                "2,Rom,2026-01-01T02:00:00Z,false",
                "3,Bern,2026-01-01T02:00:00Z,false",
            ],
        )
        .ok();
        // Older, equal, newer, and new.
        run(
            2,
            &[
                "1,old,2026-01-01T01:00:00Z,false",
                "2,same,2026-01-01T02:00:00Z,false",
                "3,new,2026-01-01T03:00:00Z,false",
                "4,Wien,2020-01-01T00:00:00Z,false",
            ],
        )
        .ok();
        assert_eq!(database.rows(&world, LEFT).await, ["1|Oslo", "2|Rom", "3|new", "4|Wien"], "{database:?}");
        let message = run(3, &["1,x,,false"]).failed(12, "key_invalid");
        assert!(message.contains("mode.merge.onlyIfNewer: 1 rows have NULL in at"), "{message}");
        // NULL in the table is older than anything.
        database.sql(&world, "UPDATE {schema}.orders SET at = NULL WHERE id = 1").await;
        run(4, &["1,known,1999-01-01T00:00:00Z,false"]).ok();
        assert_eq!(database.rows(&world, LEFT).await[0], "1|known", "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flagged_rows_delete_those_of_their_key_and_the_flag_is_not_written() {
    for database in Database::ALL {
        let world = World::new().await;
        let run = |options, n, rows: &[&str]| events(&world, database, options, n, rows);
        // The first run makes the table: from its rows, without those that are gone already.
        run(
            "deleteWhen: gone",
            1,
            &[
                "1,Oslo,2026-01-01T02:00:00Z,false",
                "2,Rom,2026-01-01T02:00:00Z,true",
                "3,Bern,2026-01-01T02:00:00Z,false",
            ],
        )
        .ok();
        assert_eq!(database.rows(&world, LEFT).await, ["1|Oslo", "3|Bern"], "{database:?}");
        run(
            "deleteWhen: gone",
            2,
            &[
                "1,x,2026-01-02T00:00:00Z,true",
                "3,Wien,2026-01-02T00:00:00Z,false",
                "4,never,2026-01-02T00:00:00Z,true",
            ],
        )
        .ok();
        assert_eq!(database.rows(&world, LEFT).await, ["3|Wien"], "{database:?}");

        // A deletion that is older than the row does nothing; of several rows of a key the latest decides.
        let all = "deleteWhen: gone, onlyIfNewer: at, dedupe: {latestBy: at}";
        run(
            all,
            3,
            &[
                "3,x,2026-01-01T00:00:00Z,true",
                "5,a,2026-01-03T01:00:00Z,false",
                "5,b,2026-01-03T02:00:00Z,true",
                "6,a,2026-01-03T01:00:00Z,true",
                "6,b,2026-01-03T02:00:00Z,false",
            ],
        )
        .ok();
        assert_eq!(database.rows(&world, LEFT).await, ["3|Wien", "6|b"], "{database:?}");
        let message = run(all, 4, &["3,x,2026-01-04T00:00:00Z,"]).failed(12, "key_invalid");
        assert!(message.contains("deleteWhen: 1 rows have NULL in gone"), "{message}");
        let message = run("deleteWhen: city", 4, &["3,x,2026-01-04T00:00:00Z,true"]).failed(10, "sql_invalid");
        assert!(message.contains("city is Utf8, not boolean"), "{message}");
        assert_eq!(database.tables(&world).await, ["orders"], "{database:?}");
    }
}
