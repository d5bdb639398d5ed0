//! `ReportPipeline`: where data comes from, the SQL that shapes it, the checks that it must pass and the tables and
//! files that it fills. The doc comments are what `kubectl explain` shows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::model::Model;
use crate::sink::Sink;
use crate::source::Source;
use crate::units::Span;
use crate::worker::Worker;

/// Most sources in one pipeline.
pub const SOURCES_MAX: usize = 64;
/// Most models in one pipeline.
pub const MODELS_MAX: usize = 256;
/// Most checks in one pipeline.
pub const CHECKS_MAX: usize = 256;
/// Most sinks in one pipeline.
pub const SINKS_MAX: usize = 64;
/// Longest pipeline name: the CronJob's Jobs append eleven characters, and labels hold 63.
pub const PIPELINE_NAME_MAX: usize = 40;

/// What a pipeline does and when.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::CustomResource, kube::KubeSchema))]
#[cfg_attr(
    feature = "crd",
    kube(
        group = "report-operator.dev",
        version = "v1alpha1",
        kind = "ReportPipeline",
        plural = "reportpipelines",
        namespaced,
        shortname = "rp",
        category = "reports",
        status = "crate::status::ReportPipelineStatus",
        derive = "PartialEq",
        doc = "A ReportPipeline keeps reporting tables and lake files fresh: its sources are read on a schedule, shaped by SQL models, checked, and committed to all sinks or to none.",
        validation = kube::core::Rule::new("self.metadata.name.size() <= 40").message("metadata.name may have at most 40 characters: the names of its Jobs are made from it"),
        validation = kube::core::Rule::new("!self.metadata.name.contains('.')").message("metadata.name may have no dots: write lower case letters, digits and dashes"),
        validation = kube::core::Rule::new("!self.metadata.name.matches('-[0-9]{8,9}$')").message("metadata.name ends like the name of a scheduled Job: write fewer or more than 8 or 9 digits"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
        printcolumn(name = "Last Run", type_ = "string", json_path = ".status.lastRun.state"),
        printcolumn(name = "Rows", type_ = "integer", json_path = ".status.lastRun.rowsWritten"),
        printcolumn(name = "Data As Of", type_ = "date", json_path = ".status.dataAsOf"),
        printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = "1"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct ReportPipelineSpec {
    /// What this pipeline is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub description: Option<String>,

    /// When to run: five cron fields (minute, hour, day of month, month, day of week) or @hourly, @daily, @weekly,
    /// @monthly, @yearly. Without it the pipeline runs only when a ReportRun asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 128)))]
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("!self.contains('TZ=')").message("write the time zone in spec.timeZone, not in the schedule")))]
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("!self.startsWith('@every')").message("write @every as five cron fields, such as */15 * * * *: @every counts from the controller's start")))]
    pub schedule: Option<String>,

    /// The time zone of the schedule, by its IANA name, such as America/Buenos_Aires. Default: Etc/UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    pub time_zone: Option<String>,

    /// True stops the schedule; a run under way goes on. The next run after resuming covers the time in between.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// What a run does that finds another run of this pipeline under way: Queue (the default) waits for it, Skip ends
    /// as Skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_busy: Option<WhenBusy>,

    /// How late a scheduled run may still start, such as 15m (the default, and the least).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<Span>,

    /// How long a run may take over all its attempts, such as 1h (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,

    /// Attempts after the first one, for failures that may pass by themselves. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 0, max = 10)))]
    pub retries: Option<u32>,

    /// Where the interval of the very first run starts, such as 2024-01-01T00:00:00Z. Later ones start where the last
    /// committed one ends. Default: the scheduled time before the first run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub initial: Option<Timestamp>,

    /// The longest interval that is committed at once, such as 1d. A run that has more to catch up commits one such
    /// interval after another. Default: no limit. Not with a sink that replaces: it would keep the last interval only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<Span>,

    /// How many finished ReportRuns to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,

    /// When the data counts as stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,

    /// Where to keep verified copies of all files as they came, below the pipeline's namespace and name: each content
    /// once, by its SHA-256. Another attempt of a run then reads what the first one has read. Nothing is kept of a source
    /// that masks columns, and nothing of databases. Default: none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Raw>,

    /// Where data comes from. Models, checks and sinks refer to a source by its name.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()])))]
    pub sources: Vec<Source>,

    /// Named SELECTs over sources and other models, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 256)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()])))]
    pub models: Vec<Model>,

    /// What must hold before anything is committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 256)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()])))]
    pub checks: Vec<Check>,

    /// What is written: database tables and lake files. All sinks are staged before the first one is committed.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()])))]
    pub sinks: Vec<Sink>,

    /// The pod that runs the pipeline: as a non-root user, with a read-only root file system and no privileges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,
}

/// What a run does that finds another run of its pipeline under way.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum WhenBusy {
    /// Wait until the other run has ended, within the timeout.
    #[default]
    Queue,
    /// End as Skipped.
    Skip,
}

/// How many finished ReportRuns to keep. ReportRuns that a person made are kept until they are deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct History {
    /// Succeeded and skipped runs to keep. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 100)))]
    pub successful: Option<u32>,
    /// Failed runs to keep. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(range(min = 1, max = 100)))]
    pub failed: Option<u32>,
}

/// Verified copies of inputs as they came.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Raw {
    /// The folder, such as s3://lake/raw or file:///data/raw.
    #[cfg_attr(feature = "crd", schemars(length(min = 6, max = 1024), regex(pattern = r"^(s3|file)://.+")))]
    pub url: String,
    /// How long a copy is kept after the last run that had it, such as 30d. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
}

/// When the data counts as stale.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Freshness {
    /// The condition DataFresh turns False when the data is older than this, such as 12h.
    pub max_age: Span,
}

/// The values that hold where a manifest says nothing. They are computed, not written into the object by the schema, so
/// that a better default reaches pipelines that exist.
impl ReportPipelineSpec {
    /// The time zone of the schedule.
    pub fn time_zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or("Etc/UTC")
    }

    /// How long a run may take over all its attempts.
    pub fn timeout_seconds(&self) -> u64 {
        self.timeout.as_ref().map_or(3600, Span::seconds)
    }

    /// How late a scheduled run may start. The CronJob controller makes about eight Jobs a second, so that less than 15
    /// minutes would lose runs when thousands are due at once.
    pub fn starting_deadline_seconds(&self) -> u64 {
        self.starting_deadline.as_ref().map_or(0, Span::seconds).max(900)
    }

    /// Attempts after the first one.
    pub fn retries(&self) -> u32 {
        self.retries.unwrap_or(3)
    }

    /// Succeeded and skipped runs to keep.
    pub fn history_successful(&self) -> u32 {
        self.history.and_then(|history| history.successful).unwrap_or(3)
    }

    /// Failed runs to keep.
    pub fn history_failed(&self) -> u32 {
        self.history.and_then(|history| history.failed).unwrap_or(5)
    }

    /// What a run does that finds another one under way.
    pub fn when_busy(&self) -> WhenBusy {
        self.when_busy.unwrap_or_default()
    }
}
