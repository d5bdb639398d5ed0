//! Verified copies of inputs (`spec.raw`): one for each content, and the same inputs for all attempts of a run.

use sha2::{Digest, Sha256};

use crate::harness::World;

const SPEC: &str = "
raw: {url: '{lake}/raw'RETENTION}
sources: [{name: orders, file: {path: orders.csv}, columns: [{name: id, type: int64}]}]
sinks: [{name: orders, from: orders, postgres: {connection: {secretRef: {name: db}}, table: '{schema}.orders'}}]
";

const END: &str = "2027-03-01T00:00:00Z";

fn spec(retention: &str) -> String {
    SPEC.replace("RETENTION", retention)
}

fn digest(content: &str) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn root(world: &World) -> String {
    format!("raw/{}/p", world.name.replace('_', "-"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_content_is_kept_once_and_as_it_came() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(""));
    for content in ["id\n1\n", "id\n1\n", "id\n2\n"] {
        world.file("orders.csv", content);
        world.run(&manifest).ok();
    }
    let mut want = [digest("id\n1\n"), digest("id\n2\n")];
    want.sort();
    assert_eq!(world.objects(&format!("{}/objects", root(&world))).await, want);
    assert_eq!(world.get(&format!("{}/objects/{}", root(&world), digest("id\n2\n"))).await, b"id\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_reads_what_the_first_has_read() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(""));
    world.file("orders.csv", "id\n1\n");
    let killed = world.attempt(&manifest, "one", END, &[("REPORT_CRASH_AT", "after_extract")]);
    assert_eq!(killed.code, None, "{}", killed.output);
    world.file("orders.csv", "id\n2\n");
    world.attempt(&manifest, "one", END, &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.orders").await, ["1"]);
    world.attempt(&manifest, "two", "2027-03-01T01:00:00Z", &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.orders").await, ["2"], "another run reads anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_not_read() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(""));
    world.file("orders.csv", "id\n1\n");
    world.attempt(&manifest, "one", END, &[("REPORT_CRASH_AT", "after_extract")]);
    world.put(&format!("{}/objects/{}", root(&world), digest("id\n1\n")), "id\n9\n").await;
    world.file("orders.csv", "id\n2\n");
    world.attempt(&manifest, "one", END, &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.orders").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_go_when_no_recent_run_had_them() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(", retention: 2s"));
    world.file("orders.csv", "id\n1\n");
    world.run(&manifest).ok();
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    world.file("orders.csv", "id\n2\n");
    world.run(&manifest).ok();
    assert_eq!(world.objects(&format!("{}/objects", root(&world))).await, [digest("id\n2\n")]);
    assert_eq!(world.objects(&format!("{}/runs", root(&world))).await.len(), 1);
}
