//! A manifest as a file holds it, and as the operator hands it to the worker.

use serde::{Deserialize, Serialize};

use crate::pipeline::ReportPipelineSpec;

/// A `ReportPipeline` without a cluster: what `etl-worker run pipeline.yaml` reads.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `report-operator.dev/v1alpha1`.
    pub api_version: String,
    /// `ReportPipeline`.
    pub kind: String,
    /// The name and, where it is known, the namespace.
    pub metadata: Metadata,
    /// What the pipeline does.
    pub spec: ReportPipelineSpec,
}

/// The part of a Kubernetes object's metadata that a run needs; the rest is passed over.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Metadata {
    /// The pipeline's name.
    pub name: String,
    /// The pipeline's namespace. Default: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Manifest {
    /// The kind that a manifest must have.
    pub const KIND: &'static str = "ReportPipeline";

    /// What the pipeline is called in ledgers: `[installation/]namespace/name`. It has no UID in it, so that a rebuilt
    /// cluster goes on where the old one was.
    pub fn identity(&self, installation: Option<&str>) -> String {
        let namespace = self.metadata.namespace.as_deref().unwrap_or("default");
        let prefix = installation.filter(|name| !name.is_empty()).map(|name| format!("{name}/")).unwrap_or_default();
        format!("{prefix}{namespace}/{}", self.metadata.name)
    }
}
