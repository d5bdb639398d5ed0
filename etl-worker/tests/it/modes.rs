//! What each mode leaves in each kind of sink, and what readers see meanwhile. `every_database` says what holds for all
//! databases alike; the others what is special about one.

mod every_database;
mod lake;
mod merging;
mod mysql;
mod postgres;
mod readers;
mod replacing_parts;
mod schema_changes;
mod sqlite;

use std::path::Path;

use crate::harness::{Ended, World};

const SOURCE: &str = "
sources:
  - name: orders
    file: {path: orders.csv}
    columns: [{name: id, type: int64, required: true, description: The order}, {name: city, type: string}, {name: amount, type: 'decimal(10,2)'}]
sinks:
";

/// A pipeline of this one sink, which has all rows of orders.csv.
fn spec(sink: &str) -> String {
    format!("{SOURCE}  - {{name: orders, from: orders, {sink}}}\n")
}

/// The rows of orders.csv and nothing else.
fn csv(rows: &[&str]) -> String {
    format!("id,city,amount\n{}\n", rows.join("\n"))
}

/// Runs the manifest over these rows as the run of this day of January.
fn day(world: &World, manifest: &Path, day: u32, rows: &[&str]) -> Ended {
    world.file("orders.csv", csv(rows));
    world.attempt(manifest, &format!("run-{day}"), &format!("2026-01-{day:02}T00:00:00Z"), &[])
}
