//! `ReportRun`: one run of a pipeline. The operator makes one for every Job; making one by hand runs the pipeline now.

use serde::{Deserialize, Serialize};

use crate::interval::Interval;

/// What to run. It can't be changed afterwards: make another one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::CustomResource, kube::KubeSchema))]
#[cfg_attr(
    feature = "crd",
    kube(
        group = "report-operator.dev",
        version = "v1alpha1",
        kind = "ReportRun",
        plural = "reportruns",
        namespaced,
        shortname = "rr",
        category = "reports",
        status = "crate::status::ReportRunStatus",
        selectable = ".spec.pipelineRef.name",
        derive = "PartialEq",
        doc = "A ReportRun is one run of a ReportPipeline. The operator makes one for every scheduled Job; making one by hand runs the pipeline now.",
        validation = kube::core::Rule::new("has(self.spec.interval) == has(oldSelf.spec.interval)").message("spec.interval can't be changed; make another ReportRun"),
        printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipelineRef.name"),
        printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.trigger"),
        printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
        printcolumn(name = "Rows", type_ = "integer", json_path = ".status.result.rowsWritten"),
        printcolumn(name = "Started", type_ = "date", json_path = ".status.startTime"),
        printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
pub struct ReportRunSpec {
    /// The pipeline to run, in the same namespace.
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("self == oldSelf").message("spec.pipelineRef can't be changed; make another ReportRun")))]
    pub pipeline_ref: PipelineRef,
    /// Why the run exists: Manual (the default), or Schedule for those that the operator records.
    #[serde(default)]
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("self == oldSelf").message("spec.trigger can't be changed; make another ReportRun")))]
    pub trigger: Trigger,
    /// The time to run for. Default: from the end of the last committed interval to the time at which this ReportRun was
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("self == oldSelf").message("spec.interval can't be changed; make another ReportRun")))]
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("timestamp(self.start) < timestamp(self.end)").message("spec.interval is empty: give a start before the end")))]
    pub interval: Option<Interval>,
    /// True reads all sources from their beginning and takes the place of all rows of the tables, also where a sink
    /// appends or merges.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("self == oldSelf").message("spec.fullRefresh can't be changed; make another ReportRun")))]
    pub full_refresh: bool,
}

/// A pipeline in the same namespace.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct PipelineRef {
    /// The pipeline's name.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 40)))]
    pub name: String,
}

/// Why a run exists.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Trigger {
    /// Somebody asked for it.
    #[default]
    Manual,
    /// The schedule.
    Schedule,
}
