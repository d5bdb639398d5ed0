//! The worker against real PostgreSQL, S3 and HTTP: the real binary in a fresh folder, then a look at what it left.
//! `make test-worker` starts the services and runs this.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and wait")]

mod failures;
mod harness;
mod intervals;
mod local;
mod memory;
mod modes;
mod raw;
mod real_data;
mod recovery;
