//! The parts of cluster objects that decisions need. Caches hold these instead of whole objects, and packed: ten thousand
//! pipelines with all that belongs to them then fit into a hundred mebibytes.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use report_api::contract::{LABEL_PIPELINE, LABEL_SPEC_HASH, MANIFEST_FOLDER, WORKER_CONTAINER};
use report_api::interval::Interval;
use report_api::pipeline::{ReportPipeline, ReportPipelineSpec};
use report_api::run::{ReportRun, Trigger};
use report_api::status::{ReportPipelineStatus, ReportRunStatus};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::build::{ANNOTATION_APPLIED, FIELD_MANAGER};

/// Who controls an object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What every view has.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Meta {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The resource version, which grows with each change of any object of a kind.
    pub version: u64,
    /// The generation, which grows with each change of the spec.
    pub generation: i64,
    /// When it was created.
    pub created: Timestamp,
    /// The controller among its owners.
    pub owner: Option<Owner>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Meta {
    /// The view of an object's metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            owner: owner.map(|owner| Owner {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
            }),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// Whether an object with this UID controls it.
    pub fn is_controlled_by(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid == uid)
    }
}

/// A view that a cache can hold.
pub trait View: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its metadata.
    fn meta(&self) -> &Meta;
    /// The name of the pipeline that it says it belongs to.
    fn pipeline(&self) -> Option<&str>;
}

/// A pipeline.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PipelineView {
    /// Its metadata.
    pub meta: Meta,
    /// What it does, or why it can't be read.
    pub spec: Result<Box<ReportPipelineSpec>, String>,
    /// What the operator last said about it.
    pub status: ReportPipelineStatus,
}

impl View for PipelineView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn pipeline(&self) -> Option<&str> {
        Some(&self.meta.name)
    }
}

impl From<DeserializeGuard<ReportPipeline>> for PipelineView {
    fn from(guard: DeserializeGuard<ReportPipeline>) -> Self {
        match guard.0 {
            Ok(pipeline) => pipeline.into(),
            Err(invalid) => {
                Self { meta: Meta::of(&invalid.metadata), spec: Err(invalid.error), status: never_observed() }
            }
        }
    }
}

impl From<ReportPipeline> for PipelineView {
    fn from(pipeline: ReportPipeline) -> Self {
        Self {
            meta: Meta::of(&pipeline.metadata),
            spec: Ok(Box::new(pipeline.spec)),
            status: pipeline.status.unwrap_or_else(never_observed),
        }
    }
}

fn never_observed() -> ReportPipelineStatus {
    ReportPipelineStatus { observed_generation: -1, ..Default::default() }
}

/// A run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunView {
    /// Its metadata.
    pub meta: Meta,
    /// The pipeline that it runs.
    pub pipeline: String,
    /// Why it exists.
    pub trigger: Trigger,
    /// The time that it is to run for, where it names one.
    pub interval: Option<Interval>,
    /// Whether it reads everything again.
    pub full_refresh: bool,
    /// What the operator last said about it.
    pub status: ReportRunStatus,
}

impl View for RunView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn pipeline(&self) -> Option<&str> {
        Some(&self.pipeline)
    }
}

impl From<ReportRun> for RunView {
    fn from(run: ReportRun) -> Self {
        let mut status = run.status.unwrap_or_default();
        // A run that has ended is never written again; of its result only the totals are looked at.
        if status.state.is_some_and(report_api::status::RunState::is_final)
            && let Some(result) = &mut status.result
        {
            result.sinks = Vec::new();
            result.checks = Vec::new();
            result.sources = Vec::new();
            result.models = Vec::new();
        }
        Self {
            meta: Meta::of(&run.metadata),
            pipeline: run.spec.pipeline_ref.name,
            trigger: run.spec.trigger,
            interval: run.spec.interval,
            full_refresh: run.spec.full_refresh,
            status,
        }
    }
}

/// A ConfigMap with a resolved manifest.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConfigMapView {
    /// Its metadata.
    pub meta: Meta,
    pipeline: Option<String>,
}

impl View for ConfigMapView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn pipeline(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }
}

impl From<PartialObjectMeta<ConfigMap>> for ConfigMapView {
    fn from(object: PartialObjectMeta<ConfigMap>) -> Self {
        Self { meta: Meta::of(&object.metadata), pipeline: label(&object.metadata) }
    }
}

impl From<ConfigMap> for ConfigMapView {
    fn from(object: ConfigMap) -> Self {
        Self { meta: Meta::of(&object.metadata), pipeline: label(&object.metadata) }
    }
}

/// A CronJob.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CronJobView {
    /// Its metadata.
    pub meta: Meta,
    pipeline: Option<String>,
    /// The hash of what the operator last applied.
    pub applied: Option<String>,
    /// Its schedule.
    pub schedule: String,
    /// Its time zone.
    pub time_zone: Option<String>,
    /// Whether it stands still.
    pub suspended: bool,
    /// The ConfigMap that its Jobs mount.
    pub config_map: Option<String>,
    /// The last tick that its controller has dealt with.
    pub last_schedule: Option<Timestamp>,
    /// Where the fields of its creation are recorded under the operator's name as those of an update: until they are
    /// turned into applied ones, server-side apply would never remove one of them.
    pub created_fields: Option<usize>,
}

impl View for CronJobView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn pipeline(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }
}

impl From<CronJob> for CronJobView {
    fn from(cron_job: CronJob) -> Self {
        let spec = cron_job.spec.unwrap_or_default();
        let is_ours = |entry: &ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Update")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        };
        Self {
            meta: Meta::of(&cron_job.metadata),
            pipeline: label(&cron_job.metadata),
            applied: annotation(&cron_job.metadata, ANNOTATION_APPLIED),
            schedule: spec.schedule,
            time_zone: spec.time_zone,
            suspended: spec.suspend == Some(true),
            config_map: spec.job_template.spec.and_then(|job| config_map_of(job.template.spec.as_ref())),
            last_schedule: cron_job.status.and_then(|status| status.last_schedule_time).map(|time| time.0),
            created_fields: cron_job.metadata.managed_fields.iter().flatten().position(is_ours),
        }
    }
}

/// How a Job ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum JobEnd {
    /// A pod succeeded.
    Complete,
    /// It has given up.
    Failed {
        /// BackoffLimitExceeded, DeadlineExceeded, PodFailurePolicy.
        reason: String,
        /// Kubernetes' words.
        message: String,
    },
}

/// A Job.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct JobView {
    /// Its metadata.
    pub meta: Meta,
    pub(crate) pipeline: Option<String>,
    /// The hash of the resolved manifest that it runs.
    pub spec_hash: Option<String>,
    /// The ConfigMap that its pods mount.
    pub config_map: Option<String>,
    /// When its controller took it up.
    pub started: Option<Timestamp>,
    /// How and when it ended.
    pub end: Option<(JobEnd, Timestamp)>,
    /// Whether it has been decided how it ends, while its last pod is still being dealt with.
    pub ending: bool,
    /// Pods that are under way, have succeeded, and have failed and count.
    pub pods: (i32, i32, i32),
}

impl JobView {
    /// Whether it is still under way.
    pub fn is_active(&self) -> bool {
        self.end.is_none()
    }

    /// Attempts so far.
    pub fn attempts(&self) -> i32 {
        self.pods.0 + self.pods.1 + self.pods.2
    }
}

impl View for JobView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn pipeline(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        let status = job.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let decided = |type_: &str| ["FailureTarget", "SuccessCriteriaMet"].contains(&type_);
        let ending = conditions.iter().any(|condition| decided(&condition.type_) && condition.status == "True");
        let end = conditions.into_iter().find_map(|condition| {
            let ended = condition.last_transition_time.or(status.completion_time.clone());
            let end = match (condition.type_.as_str(), condition.status.as_str()) {
                ("Complete", "True") => JobEnd::Complete,
                ("Failed", "True") => JobEnd::Failed {
                    reason: condition.reason.unwrap_or_default(),
                    message: condition.message.unwrap_or_default(),
                },
                _ => return None,
            };
            Some((end, ended.map_or(Timestamp::UNIX_EPOCH, |time| time.0)))
        });
        Self {
            meta: Meta::of(&job.metadata),
            pipeline: label(&job.metadata),
            spec_hash: annotation(&job.metadata, LABEL_SPEC_HASH),
            config_map: job.spec.and_then(|spec| config_map_of(spec.template.spec.as_ref())),
            started: status.start_time.map(|time| time.0),
            end,
            ending,
            pods: (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0)),
        }
    }
}

/// Where the container `worker` is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum WorkerState {
    /// It has not started.
    Waiting {
        /// Such as ImagePullBackOff.
        reason: String,
        /// The kubelet's words.
        message: String,
    },
    /// It runs.
    Running,
    /// It has ended.
    Terminated {
        /// Its exit code.
        exit_code: i32,
        /// Such as OOMKilled or Error.
        reason: String,
        /// What it left at its termination message path.
        message: String,
    },
}

/// A pod.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PodView {
    /// Its metadata.
    pub meta: Meta,
    pub(crate) pipeline: Option<String>,
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: String,
    /// Why the pod as a whole failed, such as Evicted, with the kubelet's words.
    pub failure: Option<(String, String)>,
    /// The scheduler's words, while it has found no node.
    pub unschedulable: Option<String>,
    /// The container `worker`.
    pub worker: Option<WorkerState>,
}

impl View for PodView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn pipeline(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }
}

impl From<Pod> for PodView {
    fn from(pod: Pod) -> Self {
        let status = pod.status.unwrap_or_default();
        let unschedulable = status.conditions.unwrap_or_default().into_iter().find_map(|condition| {
            let waits = condition.type_ == "PodScheduled" && condition.status == "False";
            (waits && condition.reason.as_deref() == Some("Unschedulable"))
                .then(|| condition.message.unwrap_or_default())
        });
        let containers = status.container_statuses.unwrap_or_default();
        let worker =
            containers.into_iter().find(|container| container.name == WORKER_CONTAINER).and_then(|container| {
                let state = container.state?;
                if let Some(ended) = state.terminated {
                    let (reason, message) = (ended.reason.unwrap_or_default(), ended.message.unwrap_or_default());
                    Some(WorkerState::Terminated { exit_code: ended.exit_code, reason, message })
                } else if state.running.is_some() {
                    Some(WorkerState::Running)
                } else {
                    let waiting = state.waiting.unwrap_or_default();
                    let (reason, message) = (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default());
                    Some(WorkerState::Waiting { reason, message })
                }
            });
        Self {
            meta: Meta::of(&pod.metadata),
            pipeline: label(&pod.metadata),
            phase: status.phase.unwrap_or_default(),
            failure: status.reason.map(|reason| (reason, status.message.unwrap_or_default())),
            unschedulable,
            worker,
        }
    }
}

/// A time as Kubernetes' types hold it.
pub fn time(timestamp: Timestamp) -> Time {
    Time(timestamp)
}

fn label(meta: &ObjectMeta) -> Option<String> {
    meta.labels.as_ref()?.get(LABEL_PIPELINE).cloned()
}

fn annotation(meta: &ObjectMeta, key: &str) -> Option<String> {
    meta.annotations.as_ref()?.get(key).cloned()
}

/// The ConfigMap that a pod has at the manifest's folder.
fn config_map_of(pod: Option<&PodSpec>) -> Option<String> {
    let pod = pod?;
    let worker = pod.containers.iter().find(|container| container.name == WORKER_CONTAINER)?;
    let mount = worker.volume_mounts.iter().flatten().find(|mount| mount.mount_path == MANIFEST_FOLDER)?;
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
    volume.config_map.as_ref().map(|source| source.name.clone())
}
