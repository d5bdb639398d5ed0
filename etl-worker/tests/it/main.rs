//! The worker against real PostgreSQL, MariaDB, S3 and HTTP: the real binary in a fresh folder, then a look at what it left.
//! `make test-worker` starts the services and runs this.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and wait")]

mod bad_rows;
mod chaos;
mod checks;
mod commands;
mod contracts;
mod databases;
mod failures;
mod harness;
mod incremental;
mod intervals;
mod local;
mod masking;
mod memory;
mod modes;
mod postgres_source;
mod raw;
mod real_data;
mod recovery;
mod tpch;
mod types;
