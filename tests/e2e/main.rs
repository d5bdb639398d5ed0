//! End to end: what users do, on a real cluster with the operator installed by its chart (`make test-e2e`).
//!
//! Each test has a namespace of its own and waits for what should become true, so they run beside each other:
//! most of their time is waiting for the next full minute. Those that stop or change the operator itself run alone.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test may panic, wait and say that it did not run"
)]

mod cluster;
mod user;

mod accept;
mod data;
mod failures;
mod lifecycle;
mod names;
mod scale;
mod schedule;
mod waiting;
