//! What the operator writes into the status of a `ReportPipeline` and a `ReportRun`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::result::{MissingIntervals, RunResult, State};
use crate::run::Trigger;

/// Names of condition types.
pub mod condition {
    /// The manifest is valid and the pipeline scheduled, or waiting to be asked. A failed run does not change it.
    pub const READY: &str = "Ready";
    /// The operator is still bringing the pipeline's objects to what the manifest says.
    pub const RECONCILING: &str = "Reconciling";
    /// Somebody must act: the manifest is wrong, or a name is taken.
    pub const STALLED: &str = "Stalled";
    /// How the last finished run ended.
    pub const LAST_RUN_SUCCEEDED: &str = "LastRunSucceeded";
    /// The data is younger than `spec.freshness.maxAge`.
    pub const DATA_FRESH: &str = "DataFresh";
    /// A ReportRun has ended well.
    pub const COMPLETE: &str = "Complete";
    /// A ReportRun has ended badly.
    pub const FAILED: &str = "Failed";
}

/// Runs listed in a pipeline's status.
pub const STATUS_RUNS_MAX: usize = 10;

/// What is known of a pipeline.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportPipelineStatus {
    /// The generation of the manifest that this status is about; -1 before the operator has seen it.
    #[serde(default = "never_observed")]
    #[schemars(default = "never_observed")]
    pub observed_generation: i64,
    /// Ready, Reconciling, Stalled, LastRunSucceeded and DataFresh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Runs under way, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub active: Vec<String>,
    /// The run that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunSummary>,
    /// The run that ended last with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_run: Option<RunSummary>,
    /// The next scheduled time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// How fresh the data is: the end of the last interval that all sinks committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_as_of: Option<Time>,
    /// Time that no run has committed although later time is: gaps that a ReportRun with such an interval fills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_intervals: Option<MissingIntervals>,
    /// The last runs, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub runs: Vec<RunSummary>,
    /// Since when schedule, time zone and suspension are as they are. A tick before it is not run any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_epoch: Option<ScheduleEpoch>,
    /// The generation of the CronJob as the operator left it: another one is somebody else's change, which is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_job_generation: Option<i64>,
}

/// Since when the schedule is as it is.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleEpoch {
    /// The time of the last resume or change of schedule.
    pub since: Time,
    /// The schedule and time zone that it is about.
    #[schemars(length(max = 256))]
    pub schedule: String,
    /// Whether the pipeline is suspended.
    #[serde(default)]
    pub suspended: bool,
}

/// A run in a few words.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// The name of the ReportRun.
    #[schemars(length(max = 253))]
    pub name: String,
    /// How it ended.
    pub state: RunState,
    /// Why it ran.
    pub trigger: Trigger,
    /// The error's code, such as source_unreachable, or the pod's reason, such as OOMKilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// What happened, where in the manifest, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Rows committed by all sinks together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_written: Option<i64>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// What is known of a run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportRunStatus {
    /// The generation of the object that this status is about; -1 before the operator has seen it.
    #[serde(default = "never_observed")]
    #[schemars(default = "never_observed")]
    pub observed_generation: i64,
    /// Complete and Failed, for kubectl wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Where the run is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// What happened, where in the manifest, and what to do; or why the pod does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// The Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub job_name: Option<String>,
    /// The Job's UID, which is the run's id in ledgers and results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub job_uid: Option<String>,
    /// The hash of the resolved manifest that was run: the suffix of its ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub spec_hash: Option<String>,
    /// The attempts so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// When the Job started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The worker's own words, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RunState {
    /// Its pod has not started.
    Pending,
    /// Its pod runs.
    Running,
    /// All sinks are committed.
    Succeeded,
    /// There was nothing to do.
    Skipped,
    /// It failed; nothing of it is visible, or the next run completes it.
    Failed,
    /// It never started, and the manifest has changed: another run took its place.
    Superseded,
}

impl RunState {
    /// Whether the run has ended.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Skipped | Self::Failed | Self::Superseded => true,
        }
    }
}

impl From<State> for RunState {
    fn from(state: State) -> Self {
        match state {
            State::Succeeded => Self::Succeeded,
            State::Skipped => Self::Skipped,
            State::Failed => Self::Failed,
        }
    }
}

fn never_observed() -> i64 {
    -1
}

fn conditions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = <Vec<Condition>>::json_schema(generator);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), vec!["type"].into());
    schema.insert("maxItems".into(), 16.into());
    schema
}
