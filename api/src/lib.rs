//! Everything that two programs of report-operator share: the resources `ReportPipeline` and `ReportRun`, the contract
//! between the operator and its worker ([`contract`], [`result`]), and validation that needs no server ([`validate`]).
//!
//! Nothing here reads a clock, a file or a network. The feature `crd` adds the Kubernetes resources and their status;
//! without it the crate knows the manifest only, and links no Kubernetes crate.

#![cfg_attr(
    feature = "crd",
    allow(unreachable_pub, reason = "kube's KubeSchema repeats each struct inside a function")
)]
#![cfg_attr(feature = "crd", allow(clippy::duplicated_attributes, reason = "several printer columns have one type"))]

pub mod bad_rows;
pub mod check;
pub mod checked;
pub mod column;
pub mod connection;
pub mod contract;
pub mod cron;
pub mod format;
pub mod interval;
pub mod manifest;
pub mod mask;
pub mod model;
pub mod pipeline;
pub mod problem;
pub mod result;
pub mod run;
pub mod sink;
pub mod source;
pub mod sql;
#[cfg(feature = "crd")]
pub mod status;
pub mod template;
pub mod units;
pub mod validate;
pub mod worker;

/// The API group of all resources.
pub const GROUP: &str = "report-operator.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";
