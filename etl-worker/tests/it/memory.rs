//! A file that is larger than memory: the worker in a control group of 256 MiB.

use std::path::{Path, PathBuf};

use crate::harness::World;

const LIMIT_BYTES: u64 = 256 << 20;
/// 1.03 GB as CSV.
const ROWS: u64 = 26_000_000;

/// A control group with a memory limit, removed at the end.
struct Group(PathBuf);

impl Group {
    /// None, with the reason, where this machine does not let us make one.
    fn new(name: &str) -> Result<Self, String> {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if version_1.is_dir() {
            (version_1, "memory.limit_in_bytes")
        } else {
            let root = Path::new("/sys/fs/cgroup");
            std::fs::write(root.join("cgroup.subtree_control"), "+memory")
                .map_err(|error| format!("no memory controller: {error}"))?;
            (root, "memory.max")
        };
        let group = Self(root.join(name));
        std::fs::create_dir(&group.0).map_err(|error| format!("no control group: {error}"))?;
        std::fs::write(group.0.join(limit), LIMIT_BYTES.to_string()).map_err(|error| format!("no limit: {error}"))?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The customer's number and the cents of a row, as `dev/data-server` makes them.
fn row(id: u64) -> (u64, u64) {
    let n = id % 36_500;
    (n * 7919 % 1000, 10_000 + n * 104_729 % 90_000)
}

fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_gigabyte_loads_within_256_mib() {
    let world = World::new().await;
    let group = match Group::new(&format!("report-operator-{}", world.name)) {
        Ok(group) => group,
        Err(reason) => {
            // The output of a test that passes is not shown: where all tests must run, it must not pass.
            assert!(std::env::var_os("CI").is_none(), "no control group for the worker: {reason}");
            eprintln!("NOT RUN: a_file_of_a_gigabyte_loads_within_256_mib: {reason}; run it as root");
            return;
        }
    };
    // The source has two readers, so that it is kept in scratch; the lake's rows are sorted.
    let manifest = world.manifest(
        "large",
        &format!(
            "
sources:
  - name: orders
    http: {{url: '{{data}}/generated/orders.csv?rows={ROWS}'}}
    columns: [{{name: id, type: int64, required: true}}, {{name: customer, type: string}}, {{name: amount, type: 'decimal(10,2)'}}, {{name: day, type: date}}]
models:
  - {{name: large, sql: 'SELECT id, customer, amount, CAST(extract(month FROM day) AS int) AS month, day FROM orders WHERE amount > 900'}}
  - {{name: by_customer, sql: 'SELECT customer, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY customer'}}
checks:
  - {{name: days, from: orders, notNull: [day]}}
sinks:
  - {{name: large, from: large, postgres: {{{{db}}, table: '{{schema}}.large'}}, primaryKey: [id]}}
  - {{name: by-customer, from: by_customer, postgres: {{{{db}}, table: '{{schema}}.by_customer'}}, primaryKey: [customer]}}
  - {{name: lake, from: large, lake: {{url: '{{lake}}/large', partitionBy: [month]}}}}
"
        ),
    );
    let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
    let worker = env!("CARGO_BIN_EXE_etl-worker");
    let arguments = ["-c", script, group.0.to_str().unwrap(), worker, "run", manifest.to_str().unwrap()];
    let result = world.finish(world.command_of("sh", &arguments, &[])).ok();
    let peak = result.peak_memory_bytes.unwrap();
    println!("{} bytes read with at most {} MiB of memory", result.sources[0].bytes, peak >> 20);
    assert!(result.sources[0].bytes > 1_000_000_000, "{:?}", result.sources);
    assert!(peak < LIMIT_BYTES, "{peak}");
    assert_eq!(result.rows_read, ROWS);

    let mut customers = vec![(0_u64, 0_u64); 1000];
    let mut large = (0_u64, 0_u64);
    for (customer, cents) in (1..=ROWS).map(row) {
        let all = &mut customers[usize::try_from(customer).unwrap()];
        *all = (all.0 + 1, all.1 + cents);
        if cents > 90_000 {
            large = (large.0 + 1, large.1 + cents);
        }
    }
    let want: Vec<String> = customers
        .iter()
        .enumerate()
        .map(|(n, (orders, cents))| format!("customer-{n:03}|{orders}|{}", euros(*cents)))
        .collect();
    assert_eq!(world.rows("SELECT customer, orders, amount FROM {schema}.by_customer ORDER BY 1").await, want);
    let want = format!("{}|{}", large.0, euros(large.1));
    assert_eq!(world.rows("SELECT count(*), sum(amount) FROM {schema}.large").await, [want]);
    let manifest = world.lake_manifest("large").await;
    assert_eq!(manifest["rows"].as_u64(), Some(large.0));
    assert_eq!(manifest["files"].as_array().unwrap().len(), 12, "one file a month");
    world.sql("DROP TABLE {schema}.large").await;
}
