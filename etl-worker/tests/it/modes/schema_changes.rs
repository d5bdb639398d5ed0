//! Tables that are created, and tables that are not like the rows.

use super::{day, spec};
use crate::databases::Database;
use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn new_columns_are_added_only_when_asked_and_only_with_the_commit() {
    for database in Database::ALL {
        let world = World::new().await;
        let sink = database.sink("orders");
        for mode in ["replace: {}", "append: {}", "merge: {key: [id]}", "deleteInsert: {partition: [id]}"] {
            let table = format!("o{}", mode.len());
            let sink = sink.replace("orders", &table);
            let create = format!("CREATE TABLE {{schema}}.{table} (id bigint NOT NULL PRIMARY KEY, city varchar(20))");
            database.sql(&world, &create).await;
            let failing = world.manifest(&table, &spec(&format!("{sink}, mode: {{{mode}}}")));
            let message = day(&world, &failing, 1, &["1,Oslo,1.5"]).failed(12, "schema_mismatch");
            assert!(message.contains("has no column amount") && message.contains("addColumns"), "{message}");

            let adding =
                world.manifest(&table, &spec(&format!("{sink}, mode: {{{mode}}}, onSchemaChange: addColumns")));
            let dead =
                world.attempt(&adding, "run-1", "2026-01-01T00:00:00Z", &[("REPORT_CRASH_AT", "after_prepared")]);
            assert_eq!(dead.code, None, "{}", dead.output);
            let columns = format!("SELECT * FROM {{schema}}.{table}");
            database.sql(&world, &format!("INSERT INTO {{schema}}.{table} VALUES (9, 'Rom')")).await;
            database.sql(&world, &format!("DELETE FROM {{schema}}.{table}")).await;
            assert_eq!(database.rows(&world, &columns).await, [""; 0], "{database:?} {mode}");
            day(&world, &adding, 1, &["1,Oslo,1.5"]).ok();
            assert_eq!(database.rows(&world, &columns).await, ["1|Oslo|1.5"], "{database:?} {mode}");
            day(&world, &adding, 2, &["2,Bern,2"]).ok();
            let last = format!("SELECT id, city, amount FROM {{schema}}.{table} WHERE id = 2");
            assert_eq!(database.rows(&world, &last).await, ["2|Bern|2"], "{database:?} {mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_has_the_indexes_of_the_manifest() {
    for database in Database::ALL {
        let world = World::new().await;
        let sink = format!("{}, primaryKey: [id], indexes: [[city], [city, id]]", database.sink("orders"));
        let manifest = world.manifest("p", &spec(&sink));
        let look = match database {
            Database::Postgres => {
                "SELECT indexname FROM pg_indexes WHERE schemaname = '{schema}' AND indexname LIKE '%idx' ORDER BY 1"
            }
            Database::Mysql => {
                "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = '{schema}' AND index_name LIKE '%idx' ORDER BY 1"
            }
            Database::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE '%idx' ORDER BY 1",
        };
        // Each run replaces the rows; the names stay.
        for n in 1..4 {
            day(&world, &manifest, n, &["1,Oslo,1.50"]).ok();
            let mut names = database.rows(&world, look).await;
            names.sort();
            assert_eq!(names, ["orders_city_id_idx", "orders_city_idx"], "{database:?} run {n}");
        }
        let message = day(&world, &manifest, 4, &["1,Oslo,1", "1,Bern,2"]).failed(12, "key_invalid");
        assert!(message.starts_with("spec.sinks[0]"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_has_the_comments_of_the_manifest() {
    for (database, look) in [
        (
            Database::Postgres,
            "SELECT obj_description('{schema}.orders'::regclass), col_description('{schema}.orders'::regclass, 1)",
        ),
        (
            Database::Mysql,
            "SELECT substring_index(table_comment, ' [', 1), (SELECT column_comment FROM information_schema.columns WHERE table_schema = '{schema}' AND column_name = 'id')
             FROM information_schema.tables WHERE table_schema = '{schema}'",
        ),
    ] {
        let world = World::new().await;
        let sink = format!("{}, description: 'One row is one order, it''s ours'", database.sink("orders"));
        let manifest = world.manifest("p", &spec(&sink));
        for n in 1..4 {
            day(&world, &manifest, n, &["1,Oslo,1.50"]).ok();
            let found = database.rows(&world, look).await;
            assert_eq!(found, ["One row is one order, it's ours|The order"], "{database:?} run {n}");
        }
    }
}
