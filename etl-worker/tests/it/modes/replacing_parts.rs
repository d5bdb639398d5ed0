//! deleteInsert: the rows of an interval, or of some partitions, are replaced.

use crate::databases::Database;
use crate::harness::{Ended, World};

fn source(day_type: &str) -> String {
    format!(
        "
sources:
  - name: orders
    file: {{path: orders.csv}}
    columns: [{{name: id, type: int64, required: true}}, {{name: day, type: {day_type}}}, {{name: region, type: string}}, {{name: amount, type: 'decimal(10,2)'}}]
sinks:
"
    )
}

fn run(world: &World, database: Database, day_type: &str, mode: &str, n: u32, rows: &[&str]) -> Ended {
    let sink = database.sink("orders");
    let spec =
        format!("{}  - {{name: orders, from: orders, {sink}, mode: {{deleteInsert: {{{mode}}}}}}}\n", source(day_type));
    let manifest = world.manifest("p", &spec);
    world.file("orders.csv", format!("id,day,region,amount\n{}\n", rows.join("\n")));
    let (start, end) = (format!("2026-01-{n:02}T00:00:00Z"), format!("2026-01-{:02}T00:00:00Z", n + 1));
    world.worker(&["run", manifest.to_str().unwrap(), "--interval-start", &start, "--interval-end", &end], &[])
}

const ALL: &str = "SELECT id, region, amount FROM {schema}.orders ORDER BY id, region";

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_the_interval_are_replaced_and_no_others() {
    for database in Database::ALL {
        for (type_, times) in [
            ("date", ["2026-01-01", "2026-01-01", "2026-01-02"]),
            ("timestamp", ["2026-01-01 00:00:00", "2026-01-01 23:59:59.999999", "2026-01-02 00:00:00"]),
            ("timestamptz", ["2026-01-01T00:00:00Z", "2026-01-02T01:59:59+02:00", "2026-01-02T00:00:00Z"]),
        ] {
            let world = World::new().await;
            let run = |n, rows: &[&str]| run(&world, database, type_, "interval: day", n, rows);
            let [first, last, next] = times;
            run(1, &[&format!("1,{first},north,1"), &format!("2,{last},south,2")]).ok();
            run(2, &[&format!("3,{next},north,3")]).ok();
            let all = ["1|north|1", "2|south|2", "3|north|3"];
            assert_eq!(database.rows(&world, ALL).await, all, "{database:?} {type_}");
            // The first day again: a row less, one changed, one new.
            run(1, &[&format!("2,{last},south,20"), &format!("4,{first},west,4")]).ok();
            let again = ["2|south|20", "3|north|3", "4|west|4"];
            assert_eq!(database.rows(&world, ALL).await, again, "{database:?} {type_}");

            // A row of the next day would be there twice after that day's run.
            let message =
                run(1, &[&format!("5,{next},north,5"), &format!("6,{first},north,6")]).failed(12, "value_invalid");
            assert!(
                message.starts_with("spec.sinks[0].mode.deleteInsert.interval: 1 rows lie outside"),
                "{database:?} {type_}: {message}"
            );
            let message = run(1, &["5,,north,5"]).failed(12, "value_invalid");
            assert!(message.contains("1 rows have NULL in day"), "{message}");
            assert_eq!(database.rows(&world, ALL).await, again, "{database:?} {type_}");
            // An interval may have no rows.
            run(1, &[]).ok();
            assert_eq!(database.rows(&world, ALL).await, ["3|north|3"], "{database:?} {type_}");
            assert_eq!(database.tables(&world).await, ["orders"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_the_rows_are_replaced_and_no_others() {
    for database in Database::ALL {
        let world = World::new().await;
        let run = |n, rows: &[&str]| run(&world, database, "date", "partition: [day, region]", n, rows);
        run(1, &["1,2026-01-01,north,1", "2,2026-01-01,north,2", "3,2026-01-01,south,3", "4,2026-02-01,north,4"]).ok();
        run(2, &["5,2026-01-01,north,5", "6,2026-03-01,west,6", "7,2026-03-01,west,7"]).ok();
        let all = ["3|south|3", "4|north|4", "5|north|5", "6|west|6", "7|west|7"];
        assert_eq!(database.rows(&world, ALL).await, all, "{database:?}");
        let message = run(3, &["8,2026-01-01,,8"]).failed(12, "key_invalid");
        assert!(message.contains("1 rows have NULL in the partition (day, region)"), "{message}");
        assert_eq!(database.rows(&world, ALL).await, all, "{database:?}");
    }
}

/// A unique key of the table that a row outside of what is deleted has: found before any sink commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_row_that_stays_is_found_while_staging() {
    for database in Database::ALL {
        let world = World::new().await;
        let create = "CREATE TABLE {schema}.orders (id bigint NOT NULL PRIMARY KEY, day date, region varchar(20), amount numeric(10,2))";
        database.sql(&world, create).await;
        for (mode, rows) in [("interval: day", "1,2026-01-02,north,9"), ("partition: [day]", "1,2026-01-02,north,9")] {
            let run = |n, rows: &[&str]| run(&world, database, "date", mode, n, rows);
            run(1, &["1,2026-01-01,north,1"]).ok();
            let message = run(2, &[rows]).failed(12, "key_invalid");
            assert!(message.contains("1 rows are in the table already"), "{database:?}: {message}");
            // The same key inside of what is deleted is no matter.
            run(1, &["1,2026-01-01,north,2"]).ok();
            assert_eq!(database.rows(&world, ALL).await, ["1|north|2"], "{database:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_parts_are_replaced_has_one_pipeline() {
    for database in Database::ALL {
        let world = World::new().await;
        let sink = format!("{}, mode: {{deleteInsert: {{partition: [region]}}}}", database.sink("orders"));
        let spec = format!("{}  - {{name: orders, from: orders, {sink}}}\n", source("date"));
        world.file("orders.csv", "id,day,region,amount\n1,2026-01-01,north,1\n");
        world.run(&world.manifest("first", &spec)).ok();
        let message = world.run(&world.manifest("second", &spec)).failed(10, "table_not_owned");
        assert!(message.contains("/first"), "{database:?}: {message}");
    }
}
