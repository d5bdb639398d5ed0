//! From a manifest to Kubernetes objects, without any look at the cluster.
//!
//! [`resolve`] gives everything that follows from the manifest and the installation, or every problem; the builders take
//! that and cannot fail. Each object has a snapshot in its file.

pub mod config_map;
pub mod cron_job;
pub mod job;
pub mod pod;
pub mod run;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use report_api::checked::Checked;
use report_api::contract::LABEL_PIPELINE;
use report_api::manifest::{Manifest, Metadata};
use report_api::pipeline::{ReportPipeline, ReportPipelineSpec};
use report_api::problem::Problem;
use report_api::validate::validate;
use sha2::{Digest, Sha256};

/// The name under which the operator's writes are recorded.
pub const FIELD_MANAGER: &str = "report-operator";
/// Annotation on a CronJob: the hash of what was applied.
pub const ANNOTATION_APPLIED: &str = "report-operator.dev/applied";
/// Part of every hash. Raise it when the same manifest has to give another pod, so that Jobs that wait are replaced.
const BUILDER_VERSION: u32 = 1;
/// Hexadecimal digits of a hash in names: 40 bits, and names of pipelines stay within 63 characters.
const HASH_DIGITS: usize = 10;

/// What the installation decides.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The worker's image.
    pub worker_image: String,
    /// When the kubelet pulls it.
    pub pull_policy: String,
    /// Names of Secrets with registry credentials.
    pub pull_secrets: Vec<String>,
    /// A name in front of each pipeline's identity in ledgers; may be empty.
    pub installation: String,
}

/// A pipeline that can be run.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The pipeline's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// The hash of all that decides what a run does.
    pub hash: String,
    /// The manifest as the worker gets it: JSON.
    pub manifest: Vec<u8>,
    /// The validated manifest.
    pub checked: Checked,
    /// The worker's pod, but for what differs between runs.
    pub pod: PodTemplateSpec,
}

impl Resolved {
    /// The manifest's ConfigMap.
    pub fn config_map_name(&self) -> String {
        format!("{}-{}", self.name, self.hash)
    }
}

/// Checks a manifest and resolves it.
pub fn resolve(
    namespace: &str,
    name: &str,
    uid: &str,
    spec: &ReportPipelineSpec,
    settings: &Settings,
) -> Result<Resolved, Vec<Problem>> {
    let checked = validate(name, spec)?;
    let manifest = manifest(namespace, name, spec);
    config_map::check_size(&manifest).map_err(|problem| vec![problem])?;
    let hash = hash([
        manifest.as_slice(),
        &BUILDER_VERSION.to_be_bytes(),
        settings.worker_image.as_bytes(),
        settings.pull_policy.as_bytes(),
        settings.pull_secrets.join(",").as_bytes(),
        settings.installation.as_bytes(),
    ]);
    let config_map = format!("{name}-{hash}");
    let pod = pod::template(name, &config_map, &checked, settings)?;
    Ok(Resolved { name: name.into(), namespace: namespace.into(), uid: uid.into(), hash, manifest, checked, pod })
}

/// The manifest as a run sees it. What changes no run is left out, so that suspending a pipeline is no new manifest.
fn manifest(namespace: &str, name: &str, spec: &ReportPipelineSpec) -> Vec<u8> {
    let spec = ReportPipelineSpec { suspend: false, history: None, freshness: None, ..spec.clone() };
    let manifest = Manifest {
        api_version: format!("{}/{}", report_api::GROUP, report_api::VERSION),
        kind: Manifest::KIND.into(),
        metadata: Metadata { name: name.into(), namespace: Some(namespace.into()) },
        spec,
    };
    serde_json::to_vec(&manifest).expect("a manifest was read from JSON")
}

/// A short hash over parts, each with its length so that no two lists of parts give the same bytes.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..HASH_DIGITS].to_owned()
}

/// The labels of what belongs to a pipeline.
fn labels(pipeline: &str) -> BTreeMap<String, String> {
    [(LABEL_PIPELINE, pipeline), ("app.kubernetes.io/managed-by", FIELD_MANAGER)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The reference to the pipeline that controls an object. It does not block the pipeline's deletion: that would need a
/// right on its finalizers, and guard nothing.
fn owned_by_pipeline(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", report_api::GROUP, report_api::VERSION),
        kind: <ReportPipeline as kube::Resource>::kind(&()).into_owned(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
