//! The pod that runs a pipeline.

use serde::{Deserialize, Serialize};

use crate::units::Size;

/// The pod that runs a pipeline. It runs as a non-root user with a read-only root file system and no privileges.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
pub struct Worker {
    /// The service account, for cloud roles (IRSA, Pod Identity). Default: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253)))]
    pub service_account_name: Option<String>,
    /// True mounts the service account's Kubernetes token. The worker itself needs none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automount_service_account_token: bool,
    /// CPU and memory. Default: requests of 100m and 256Mi, a memory limit of 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Disk for files on their way and for what does not fit into memory. Default: 10Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Size>,
    /// More of the pod, merged first: labels and annotations, environment variables and volume mounts of the container
    /// `worker`, volumes, node selector, tolerations. What the operator sets itself wins; host paths, host namespaces,
    /// privileges and more containers are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(schema_with = "any_object"))]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
}

/// CPU and memory, as in a Kubernetes container.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Resources {
    /// The most that the worker may take. It plans its memory by the limit.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[cfg_attr(feature = "crd", schemars(schema_with = "quantities"))]
    pub limits: std::collections::BTreeMap<String, Quantity>,
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[cfg_attr(feature = "crd", schemars(schema_with = "quantities"))]
    pub requests: std::collections::BTreeMap<String, Quantity>,
}

/// A Kubernetes quantity: a number, or a text such as 500m or 512Mi.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(
    untagged,
    expecting = "a quantity has to be a whole number or text such as 500m or 512Mi: put a fraction in quotes"
)]
pub enum Quantity {
    /// A whole number.
    Number(i64),
    /// A number with a unit.
    Text(String),
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

#[cfg(feature = "crd")]
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(feature = "crd")]
fn quantities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": {
        "x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": "^([0-9]+([.][0-9]*)?|[.][0-9]+)(([KMGTPE]i)|[munkMGTPE]|([eE][+-]?[0-9]+))?$", "maxLength": 32}})
}
