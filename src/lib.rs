//! The operator of report-operator: turns each `ReportPipeline` into a ConfigMap and a CronJob, each Job into a
//! `ReportRun`, and each worker's result into a status.
//!
//! One loop per pipeline ([`controller`]): [`observe`] reads, [`plan`] decides and is pure, [`apply`] writes. [`build`]
//! makes the objects, and is pure too. No row of data and no Secret ever comes here.

pub mod apply;
pub mod build;
pub mod clock;
pub mod controller;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod telemetry;

#[cfg(test)]
mod fixtures;

/// What can go wrong on the way to or from the API server. A bad manifest is none of these: it becomes a condition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("cannot {action} {name}: {}", words(source))]
    Request {
        /// What was tried, such as `create CronJob`.
        action: &'static str,
        /// With what.
        name: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// The custom resources are not installed, or may not be read.
    #[error("cannot list reportpipelines: {}; {advice}", words(source))]
    Probe {
        /// What to do.
        advice: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// There is no way to the API server.
    #[error("cannot reach a cluster: {}; run inside a pod, or set KUBECONFIG", words(source))]
    NoCluster {
        /// Why not.
        source: Box<kube::Error>,
    },
    /// Leader election does not work.
    #[error(
        "cannot use the Lease {namespace}/{name}: {source}; the operator needs get, create and patch on leases there"
    )]
    Lease {
        /// The Lease's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why not.
        source: Box<kube_lease_manager::LeaseManagerError>,
    },
    /// Another operator has taken over, or the Lease could not be renewed in time.
    #[error("the lease is lost: another operator may write now, so this one ends")]
    LeaseLost,
    /// A part of the process has ended that should go on for ever.
    #[error("{part} has ended by itself{}", source.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Ended {
        /// Which one.
        part: &'static str,
        /// Why, where it broke.
        source: Option<tokio::task::JoinError>,
    },
    /// The address for health and metrics can't be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A request's error in the API server's words; kube's own would add the whole answer.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether a request failed because its namespace is being deleted: nothing can be made there, and all goes by itself.
pub(crate) fn is_namespace_going(error: &kube::Error) -> bool {
    let causes = |status: &kube::core::Status| {
        status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
    };
    matches!(error, kube::Error::Api(status) if causes(status))
}

/// What the operator's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` on a request.
    pub(crate) fn on(action: &'static str, name: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let name = name.into();
        move |source| Self::Request { action, name, source: Box::new(source) }
    }

    /// A short stable name, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_conflict() => "conflict",
                kube::Error::Api(status) if status.is_forbidden() => "forbidden",
                kube::Error::Api(status) if status.is_invalid() => "invalid",
                kube::Error::Api(_) => "api",
                _ => "connection",
            },
            Self::Probe { .. } => "probe",
            Self::NoCluster { .. } => "no_cluster",
            Self::Lease { .. } => "lease",
            Self::LeaseLost => "lease_lost",
            Self::Ended { .. } => "ended",
            Self::Listen { .. } => "listen",
        }
    }

    /// The API server's own words where it refused something for good: a quota, a policy, a missing right.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Request { action, name, source } => match source.as_ref() {
                kube::Error::Api(status) if status.is_forbidden() || status.is_invalid() => {
                    Some(format!("cannot {action} {name}: {}", status.message))
                }
                _ => None,
            },
            _ => None,
        }
    }
}
