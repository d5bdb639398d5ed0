//! What is special about tables in SQLite files.

use super::{day, spec};
use crate::databases::Database;
use crate::harness::{World, sqlite_rows};

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_a_decimal_that_it_would_round() {
    let world = World::new().await;
    let spec = |columns: &str| {
        format!(
            "sources: [{{name: t, file: {{path: t.csv}}, columns: [{columns}]}}]\nsinks: [{{name: t, from: t, sqlite: {{path: '{{folder}}/r.db', table: t}}}}]"
        )
    };
    world.file("t.csv", "x\n1234567890.123456\n");
    let message =
        world.run(&world.manifest("p", &spec("{name: x, type: 'decimal(20,6)'}"))).failed(12, "type_unsupported");
    assert!(message.contains("column x") && message.contains("cast it to text"), "{message}");
    world.run(&world.manifest("p", &spec("{name: x, type: string}"))).ok();
    assert_eq!(sqlite_rows(&world.folder.path().join("r.db"), "SELECT x FROM t").await, ["1234567890.123456"]);
}

/// What is remembered of runs and commits is bounded, as everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_commits_and_results_are_kept() {
    let world = World::new().await;
    let sqlite = Database::Sqlite;
    let manifest = world.manifest("p", &spec(&sqlite.sink("orders")));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    let many = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1500)";
    sqlite
        .sql(&world, &format!("INSERT INTO report_operator_runs SELECT identity, 'old-' || n, '{{}}' FROM report_operator_ledger, ({many} SELECT n FROM n)"))
        .await;
    sqlite
        .sql(
            &world,
            &format!(
                "INSERT INTO report_operator_commits (identity, sink, interval_start, interval_end, run_id, epoch, rows)
                 SELECT identity, 'orders', '2025-01-01T00:00:00Z', '2025-01-02T00:00:00Z', 'old-' || n, 0, 0 FROM report_operator_ledger, ({many} SELECT n FROM n)"
            ),
        )
        .await;
    day(&world, &manifest, 2, &["2,Oslo,2"]).ok();
    for table in ["runs", "commits"] {
        let count = sqlite.rows(&world, &format!("SELECT count(*) FROM report_operator_{table}")).await;
        assert_eq!(count, ["1001"], "{table}");
        let newest = format!("SELECT count(*) FROM report_operator_{table} WHERE run_id = 'run-2'");
        assert_eq!(sqlite.rows(&world, &newest).await, ["1"], "{table}");
    }
}
