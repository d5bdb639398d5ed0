//! Counters, with their names. No label holds the name of an object, so their number is bounded.

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// The kind of a write.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct WriteLabels {
    /// Such as create_cron_job.
    pub write: &'static str,
}

/// The kind of an error.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ErrorLabels {
    /// Such as conflict.
    pub error: &'static str,
}

/// A run's state.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RunLabels {
    /// Such as Succeeded.
    pub state: String,
}

/// A resource that is watched.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ResourceLabels {
    /// Such as jobs.
    pub resource: &'static str,
}

/// All counters.
pub struct Metrics {
    registry: Registry,
    /// Looks at a pipeline.
    pub reconciles: Counter,
    /// Looks that failed.
    pub errors: Family<ErrorLabels, Counter>,
    /// How long a look takes.
    pub reconcile_seconds: Histogram,
    /// Writes.
    pub writes: Family<WriteLabels, Counter>,
    /// Runs that have ended since this process began.
    pub runs_ended: Family<RunLabels, Counter>,
    /// Watches that broke and were begun anew.
    pub watch_errors: Family<ResourceLabels, Counter>,
    /// Objects that could not be read.
    pub unreadable: Family<ResourceLabels, Counter>,
    /// 1 in the process that holds the lease.
    pub leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("report_operator");
        // From a settled pipeline's hundred microseconds to a slow API server's seconds.
        let reconcile_seconds = Histogram::new(exponential_buckets(0.000_1, 4.0, 9));
        registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let mut metrics = Self {
            registry,
            reconciles: Counter::default(),
            errors: Family::default(),
            reconcile_seconds,
            writes: Family::default(),
            runs_ended: Family::default(),
            watch_errors: Family::default(),
            unreadable: Family::default(),
            leader: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("reconciles", "Looks at a pipeline", metrics.reconciles.clone());
        registry.register("reconcile_errors", "Looks that failed, by kind of error", metrics.errors.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "How long a look takes",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        registry.register("writes", "Writes to the API server, by kind", metrics.writes.clone());
        registry.register("runs_ended", "Runs that have ended, by state", metrics.runs_ended.clone());
        registry.register(
            "watch_errors",
            "Watches that broke and were begun anew, by resource",
            metrics.watch_errors.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects that could not be read, by resource",
            metrics.unreadable.clone(),
        );
        registry.register("leader", "1 in the process that holds the lease", metrics.leader.clone());
        metrics
    }
}

impl Metrics {
    /// All counters in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail; an empty page is what a broken encoder would deserve.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_base_units_and_no_names_of_objects() {
        let metrics = Metrics::default();
        metrics.writes.get_or_create(&WriteLabels { write: "create_job" }).inc();
        let text = metrics.text();
        for line in [
            "report_operator_writes_total{write=\"create_job\"} 1",
            "report_operator_reconcile_duration_seconds_count 0",
            "report_operator_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
