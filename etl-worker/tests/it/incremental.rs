//! Incremental sources over several runs: every row once, whatever comes late, ties or crashes.

use std::path::Path;

use report_api::result::RunResult;

use crate::harness::{Ended, World};

/// A table of orders that grows, merged or appended into `out`.
fn spec(incremental: &str, mode: &str) -> String {
    format!(
        "sources:\n  - {{name: orders, postgres: {{{{db}}, table: '{{schema}}.orders'}}, incremental: {{{incremental}}}}}\nsinks:\n  - {{name: out, from: orders, postgres: {{{{db}}, table: '{{schema}}.out'}}, mode: {mode}}}\n"
    )
}

const MERGE: &str = "{merge: {key: [id]}}";
const APPEND: &str = "{append: {}}";
const IDS: &str = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM {schema}.out";

async fn orders(world: &World, cursor: &str) {
    world.sql(&format!("CREATE TABLE {{schema}}.orders (id bigint PRIMARY KEY, at {cursor}, note text)")).await;
}

fn run(world: &World, manifest: &Path, n: u32) -> Ended {
    world.attempt(manifest, &format!("run-{n}"), &format!("2026-01-{n:02}T00:00:00Z"), &[])
}

/// From where to where the run read.
fn window(result: &RunResult) -> (Option<String>, Option<String>) {
    let watermark = result.sources[0].watermark.clone().unwrap();
    (watermark.from, watermark.to)
}

async fn watermark(world: &World) -> Vec<String> {
    world
        .rows(&format!(
            "SELECT state->'memory'->'watermarks'->'orders'->>'value' FROM report_operator.ledger WHERE identity LIKE '%{}/%'",
            world.name.replace('_', "-")
        ))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_after_the_greatest_one() {
    let world = World::new().await;
    orders(&world, "int NOT NULL").await;
    let manifest = world.manifest("p", &spec("cursor: at, delay: 0", APPEND));
    let empty = run(&world, &manifest, 1).ok();
    assert_eq!((empty.rows_read, window(&empty)), (0, (None, None)));
    world.sql("INSERT INTO {schema}.orders VALUES (1, -7), (2, 5), (3, 5)").await;
    let first = run(&world, &manifest, 2).ok();
    assert_eq!((first.rows_read, window(&first)), (3, (None, Some("6".into()))));
    // Nothing new, then rows above: none comes twice.
    let same = run(&world, &manifest, 3).ok();
    assert_eq!((same.rows_read, window(&same)), (0, (Some("6".into()), Some("6".into()))));
    world.sql("INSERT INTO {schema}.orders VALUES (4, 6), (5, 9)").await;
    assert_eq!(run(&world, &manifest, 4).ok().rows_read, 2);
    assert_eq!(world.rows(IDS).await, ["1 2 3 4 5"]);
    assert_eq!(watermark(&world).await, ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_the_source_decides_and_a_tie_at_the_bound_is_read_once() {
    let world = World::new().await;
    orders(&world, "timestamptz NOT NULL").await;
    world.sql("INSERT INTO {schema}.orders VALUES (1, '2020-01-01', ''), (2, now() - interval '1 h', ''), (3, now() + interval '1 h', 'later')").await;
    let manifest = world.manifest("p", &spec("cursor: at, delay: 1s, initial: 2010-01-01", APPEND));
    // The interval of the run is years away from the source's clock: it does not matter.
    let first = run(&world, &manifest, 1).ok();
    let (from, to) = window(&first);
    assert_eq!((first.rows_read, from.as_deref()), (2, Some("2010-01-01T00:00:00Z")));
    let to = to.unwrap();
    // Exactly at the bound, and a microsecond before it, which is late.
    world.sql(&format!("INSERT INTO {{schema}}.orders VALUES (4, '{to}', 'tie'), (5, '{to}', 'tie')")).await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let second = run(&world, &manifest, 2).ok();
    assert_eq!((second.rows_read, window(&second).0), (2, Some(to)));
    let third = run(&world, &manifest, 3).ok();
    assert_eq!(third.rows_read, 0);
    assert!(window(&third).1 > window(&second).1, "the watermark moves without rows");
    assert_eq!(world.rows(IDS).await, ["1 2 4 5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_reads_late_rows_again_into_a_merge() {
    let world = World::new().await;
    orders(&world, "timestamp").await;
    world.sql("INSERT INTO {schema}.orders VALUES (1, '2026-01-01 10:00', 'a'), (2, '2026-01-01 12:00', 'a')").await;
    let manifest = world.manifest("p", &spec("cursor: at, lag: 1h", MERGE));
    assert_eq!(window(&run(&world, &manifest, 1).ok()).1.as_deref(), Some("2026-01-01T12:00:00.000001"));
    world.sql("INSERT INTO {schema}.orders VALUES (3, '2026-01-01 11:30', 'late'), (4, '2026-01-01 10:30', 'too late'); UPDATE {schema}.orders SET note = 'b' WHERE id = 2").await;
    let second = run(&world, &manifest, 2).ok();
    assert_eq!((second.rows_read, window(&second).0.as_deref()), (2, Some("2026-01-01T11:00:00.000001")));
    assert_eq!(world.rows("SELECT id, note FROM {schema}.out ORDER BY id").await, ["1|a", "2|b", "3|late"]);
    // Everything again brings what came too late.
    let refresh = world.worker(&["run", manifest.to_str().unwrap(), "--full-refresh"], &[]).ok();
    assert_eq!((refresh.rows_read, window(&refresh).0), (4, None));
    assert_eq!(world.rows(IDS).await, ["1 2 3 4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_in_the_cursor_and_another_cursor_end_the_run() {
    let world = World::new().await;
    orders(&world, "date").await;
    world.sql("INSERT INTO {schema}.orders VALUES (1, '2026-01-01'), (2, NULL), (3, NULL)").await;
    let manifest = world.manifest("p", &spec("cursor: at, delay: 1d", APPEND));
    let message = run(&world, &manifest, 1).failed(12, "value_invalid");
    assert!(message.starts_with("spec.sources[0].incremental.cursor: 2 rows have NULL in the cursor at"), "{message}");
    world
        .sql("DELETE FROM {schema}.orders WHERE at IS NULL; INSERT INTO {schema}.orders VALUES (9, current_date - 1)")
        .await;
    // Yesterday is the bound: it is left to the next run.
    assert_eq!(run(&world, &manifest, 2).ok().rows_read, 1);
    let before = watermark(&world).await;
    let other = world.manifest("p", &spec("cursor: id, delay: 0", APPEND));
    let message = run(&world, &other, 3).failed(10, "manifest_invalid");
    assert!(message.contains("the cursor was at and now is id") && message.contains("fullRefresh"), "{message}");
    let manifest = world.manifest("p", &spec("cursor: at, delay: 1d", APPEND));
    world.sql("ALTER TABLE {schema}.orders ALTER at TYPE timestamptz").await;
    let message = run(&world, &manifest, 4).failed(12, "schema_mismatch");
    assert!(message.contains("was a date and now is a timestamp with a zone"), "{message}");
    let wrong = world.manifest("p", &spec("cursor: note, delay: 0", APPEND));
    let message = run(&world, &wrong, 5).failed(12, "type_unsupported");
    assert!(message.contains("which can't be a cursor"), "{message}");
    assert_eq!(watermark(&world).await, before, "runs that fail move nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_moves_the_watermark_exactly_once() {
    for point in [
        "after_stage",
        "before_prepared",
        "after_prepared",
        "before_commit_0",
        "after_commit_0",
        "before_ledger",
        "after_ledger",
    ] {
        let world = World::new().await;
        orders(&world, "int NOT NULL").await;
        world.sql("INSERT INTO {schema}.orders VALUES (1, 1), (2, 2)").await;
        let manifest = world.manifest("p", &spec("cursor: at, delay: 0", APPEND));
        run(&world, &manifest, 1).ok();
        world.sql("INSERT INTO {schema}.orders VALUES (3, 3)").await;
        let crashed = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", point)]);
        assert_ne!(crashed.code, Some(0), "{point}");
        // A row that comes between the attempts is read by the second one or by the run after it.
        world.sql("INSERT INTO {schema}.orders VALUES (4, 4)").await;
        run(&world, &manifest, 2).ok();
        run(&world, &manifest, 3).ok();
        assert_eq!(world.rows(IDS).await, ["1 2 3 4"], "{point}");
        assert_eq!(watermark(&world).await, ["5"], "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_filtered_by_the_interval_and_by_numbers() {
    let world = World::new().await;
    let spec = |incremental: &str| {
        format!(
            "sources:\n  - name: orders\n    file: {{path: orders.csv}}\n    columns: [{{name: id, type: int64}}, {{name: at, type: timestamptz}}]\n    incremental: {{{incremental}}}\nsinks:\n  - {{name: out, from: orders, postgres: {{{{db}}, table: '{{schema}}.out'}}, mode: {{append: {{}}}}}}\n"
        )
    };
    let manifest = world.manifest("p", &spec("cursor: at, delay: 1h"));
    let file = |rows: &str| world.file("orders.csv", format!("id,at\n{rows}"));
    file("1,2025-12-31T22:59:59Z\n2,2025-12-31T23:00:00Z\n3,2026-01-01T22:59:59.999999Z\n4,2026-01-01T23:00:00Z\n");
    let first = run(&world, &manifest, 1).ok();
    assert_eq!((first.rows_read, window(&first).1.as_deref()), (1, Some("2025-12-31T23:00:00Z")));
    assert_eq!(run(&world, &manifest, 2).ok().rows_read, 2);
    assert_eq!(run(&world, &manifest, 3).ok().rows_read, 1);
    assert_eq!(world.rows(IDS).await, ["1 2 3 4"]);
    file("5,\n6,2026-01-04T00:00:00Z\n7,\n");
    let message = run(&world, &manifest, 4).failed(12, "value_invalid");
    assert!(message.contains("2 rows have NULL in the cursor at"), "{message}");

    let numbers = world.manifest("n", &spec("cursor: id, delay: 0").replace(".out", ".numbers"));
    file("1,\n7,\n3,\n");
    let first = run(&world, &numbers, 1).ok();
    assert_eq!((first.rows_read, window(&first)), (3, (None, Some("8".into()))));
    file("1,\n7,\n3,\n8,\n");
    assert_eq!(run(&world, &numbers, 2).ok().rows_read, 1);
    assert_eq!(run(&world, &numbers, 3).ok().rows_read, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_lacks_earlier_rows_is_refused_until_all_is_read_again() {
    let world = World::new().await;
    orders(&world, "int NOT NULL").await;
    world.sql("INSERT INTO {schema}.orders VALUES (1, 1), (2, 2)").await;
    let one = spec("cursor: at, delay: 0", APPEND);
    let two = format!(
        "{one}  - {{name: copy, from: orders, postgres: {{{{db}}, table: '{{schema}}.copy'}}, mode: {MERGE}}}\n"
    )
    .replace("{{db}}", "{db}")
    .replace("{{schema}}", "{schema}");
    let manifest = world.manifest("p", &one);
    run(&world, &manifest, 1).ok();
    world.sql("INSERT INTO {schema}.orders VALUES (3, 3)").await;
    let manifest = world.manifest("p", &two);
    let message = run(&world, &manifest, 2).failed(10, "sink_behind");
    assert!(message.starts_with("spec.sinks[1]: ") && message.contains("copy has nothing"), "{message}");
    assert_eq!(world.rows(IDS).await, ["1 2"]);

    world.attempt(&manifest, "all", "2026-01-02T00:00:00Z", &[("REPORT_FULL_REFRESH", "true")]).ok();
    let copy = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM {schema}.copy";
    assert_eq!((world.rows(IDS).await, world.rows(copy).await), (vec!["1 2 3".into()], vec!["1 2 3".into()]));
    world.sql("INSERT INTO {schema}.orders VALUES (4, 4)").await;
    assert_eq!(run(&world, &manifest, 3).ok().rows_read, 1);
    assert_eq!((world.rows(IDS).await, world.rows(copy).await), (vec!["1 2 3 4".into()], vec!["1 2 3 4".into()]));

    // A database that was set back.
    world.sql("DELETE FROM report_operator.commits WHERE sink = 'copy' AND identity LIKE '%' || replace('{schema}', '_', '-') || '/%' AND interval_end > '2026-01-02'").await;
    let message = run(&world, &manifest, 4).failed(10, "sink_behind");
    assert!(message.contains("copy has the rows up to 2026-01-02T00:00:00Z"), "{message}");
}

/// `examples/shop`, with its tables in this world's schema.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_shop_follows_its_orders() {
    let mut world = World::new().await;
    let url = crate::harness::setting("TEST_POSTGRES_URL");
    for (name, value) in
        [("SHOP_DB_URL", url.as_str()), ("REPORTING_DB_URL", url.as_str()), ("PII_SALT", "0123456789abcdef")]
    {
        world.set(&format!("SECRET_{name}"), value);
    }
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop/pipeline.yaml")).unwrap();
    let text = text.replace("public.orders", &format!("{}.orders", world.name));
    let text = text.replace("reporting.orders", &format!("{}.copy", world.name));
    let manifest = world.file(
        "shop.yaml",
        text.replace("name: shop\n", &format!("name: shop\n  namespace: {}\n", world.name.replace('_', "-"))),
    );
    world.sql("CREATE TABLE {schema}.orders (order_id bigint PRIMARY KEY, email text, status text NOT NULL, amount numeric(12,2) NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())").await;
    world.sql("INSERT INTO {schema}.orders VALUES (1, 'a@example.org', 'open', 9.90), (2, 'b@example.org', 'paid', 5), (3, NULL, 'open', 1)").await;
    run(&world, &manifest, 1).ok();
    let copy = "SELECT order_id, status, amount, length(customer) AS hash FROM {schema}.copy ORDER BY 1";
    assert_eq!(world.rows(copy).await, ["1|open|9.90|64", "2|paid|5.00|64", "3|open|1.00|∅"]);
    world.sql("UPDATE {schema}.orders SET status = 'shipped', updated_at = now() WHERE order_id = 1; UPDATE {schema}.orders SET status = 'deleted', updated_at = now() WHERE order_id = 2").await;
    run(&world, &manifest, 2).ok();
    assert_eq!(world.rows(copy).await, ["1|shipped|9.90|64", "3|open|1.00|∅"]);
    world.sql("INSERT INTO {schema}.orders VALUES (4, NULL, 'lost', 1)").await;
    let message = run(&world, &manifest, 3).failed(13, "check_failed");
    assert!(message.starts_with("spec.checks[0]: known-status: 1 of "), "{message}");
}
