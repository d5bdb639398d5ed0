//! The ReportRun that records a scheduled Job.

use kube::core::ObjectMeta;
use report_api::run::{PipelineRef, ReportRun, ReportRunSpec, Trigger};

use super::{labels, owned_by_pipeline};

/// A run under its Job's name, owned by the pipeline.
pub fn of_schedule(namespace: &str, pipeline: &str, pipeline_uid: &str, job: &str) -> ReportRun {
    ReportRun {
        metadata: ObjectMeta {
            name: Some(job.into()),
            namespace: Some(namespace.into()),
            labels: Some(labels(pipeline)),
            owner_references: Some(vec![owned_by_pipeline(pipeline, pipeline_uid)]),
            ..Default::default()
        },
        spec: ReportRunSpec {
            pipeline_ref: PipelineRef { name: pipeline.into() },
            trigger: Trigger::Schedule,
            interval: None,
            full_refresh: false,
        },
        status: None,
    }
}
