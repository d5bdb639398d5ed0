//! Readers at READ COMMITTED that look all the while: they see the rows of one run, whole, whatever the mode.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use mysql_async::prelude::Queryable;
use sqlx::{AssertSqlSafe, Connection};

use super::{csv, spec};
use crate::databases::{Database, mysql};
use crate::harness::World;

const ROWS: u64 = 20_000;
const RUNS: u64 = 12;

/// The count of rows and the sum of their amounts, as often as it can until `done`.
async fn look(world: &World, database: Database, done: &AtomicBool) -> BTreeMap<(i64, Option<i64>), u32> {
    let mut seen = BTreeMap::new();
    let sql = format!("SELECT count(*), sum(amount) FROM {}.orders", world.name);
    match database {
        Database::Postgres => {
            let mut connection = world.connection().await;
            let sql = sql.replace("sum(amount)", "sum(amount)::bigint");
            while !done.load(Ordering::Relaxed) {
                let found = sqlx::query_as(AssertSqlSafe(sql.as_str())).fetch_one(&mut connection).await.unwrap();
                *seen.entry(found).or_insert(0) += 1;
            }
        }
        Database::Mysql => {
            let mut connection = mysql().await;
            connection.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
            let sql = sql.replace("sum(amount)", "cast(sum(amount) AS signed)");
            while !done.load(Ordering::Relaxed) {
                let found: Option<(i64, Option<i64>)> = connection.query_first(&sql).await.unwrap();
                *seen.entry(found.unwrap()).or_insert(0) += 1;
            }
        }
        Database::Sqlite => {
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(world.folder.path().join("r.db"))
                .busy_timeout(std::time::Duration::from_secs(30));
            let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            let sql = "SELECT count(*), CAST(sum(amount) AS INTEGER) FROM orders";
            while !done.load(Ordering::Relaxed) {
                let found = sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap();
                *seen.entry(found).or_insert(0) += 1;
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_a_missing_empty_half_or_mixed_table() {
    for (database, mode) in [
        (Database::Postgres, "replace: {by: swap}"),
        (Database::Postgres, "replace: {by: rows}"),
        (Database::Postgres, "merge: {key: [id]}"),
        (Database::Postgres, "deleteInsert: {partition: [city]}"),
        (Database::Mysql, "replace: {by: swap}"),
        (Database::Mysql, "replace: {by: rows}"),
        (Database::Mysql, "merge: {key: [id]}"),
        (Database::Mysql, "deleteInsert: {partition: [city]}"),
        (Database::Sqlite, "replace: {}"),
        (Database::Sqlite, "merge: {key: [id]}"),
    ] {
        let world = World::new().await;
        let key = if mode.starts_with("merge") { "" } else { ", primaryKey: [id]" };
        let manifest = world.manifest("p", &spec(&format!("{}, mode: {{{mode}}}{key}", database.sink("orders"))));
        // The amounts of run n sum to n times the rows.
        let run = |n: u64| {
            let rows: Vec<_> = (0..ROWS).map(|id| format!("{id},Oslo,{n}")).collect();
            world.file("orders.csv", csv(&rows.iter().map(String::as_str).collect::<Vec<_>>()));
            world.attempt(&manifest, &format!("run-{n}"), &format!("2026-01-{n:02}T00:00:00Z"), &[]).ok();
        };
        run(1);
        let done = AtomicBool::new(false);
        let runtime = tokio::runtime::Handle::current();
        let seen = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| runtime.block_on(look(&world, database, &done)));
                (2..=RUNS).for_each(run);
                done.store(true, Ordering::Relaxed);
                reader.join().unwrap()
            })
        });
        let rows = ROWS as i64;
        let wrong: Vec<_> =
            seen.iter().filter(|((count, sum), _)| *count != rows || !sum.is_some_and(|sum| sum % rows == 0)).collect();
        assert!(wrong.is_empty(), "{database:?} {mode}: {wrong:?}");
        assert!(seen.len() >= 6, "{database:?} {mode}: the reader saw only {} states", seen.len());
    }
}
