//! Loads what a `ReportPipeline` says: sources are read, models run, checks decide, and all sinks are committed or none.
//! It knows no Kubernetes: the same code runs in a pod and on a laptop.

pub mod check;
pub mod cli;
pub mod crash;
pub mod decode;
pub mod env;
pub mod error;
pub mod events;
pub mod fill;
pub mod intervals;
pub mod ledger;
pub mod local;
mod logical;
pub mod manifest;
pub mod mask;
pub mod memory;
pub mod objects;
pub mod observe;
pub mod plan;
pub mod quote;
pub mod raw;
pub mod rejected;
mod row_groups;
pub mod run;
mod scratch;
pub mod session;
pub mod sink;
pub mod source;
pub mod summary;
pub mod tables;
pub mod testing;
mod types;
pub mod unchanged;
