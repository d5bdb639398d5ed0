//! What should exist now, when to look again, and what to tell: decided from what was observed and the time, and from
//! nothing else. No client, no clock; it cannot fail. A bad manifest is a condition in the plan.

pub mod history;
pub mod outcome;
pub mod run;
pub mod schedule;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ConfigMap;
use report_api::pipeline::ReportPipelineSpec;
use report_api::problem::Problem;
use report_api::run::ReportRun;
use report_api::status::{ReportPipelineStatus, ReportRunStatus};

use crate::build::Resolved;
use crate::observe::cache::Key;
use crate::observe::view::{ConfigMapView, CronJobView, JobView, Owner, PipelineView, PodView, RunView};

/// All that a decision may look at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The pipeline's namespace and name.
    pub key: Option<Key>,
    /// The pipeline; None if there is none of that name.
    pub pipeline: Option<Arc<PipelineView>>,
    /// What follows from its manifest, or what is wrong with it.
    pub resolved: Option<Arc<Resolution>>,
    /// The CronJob of the pipeline's name.
    pub cron_job: Option<Arc<CronJobView>>,
    /// The generation of the CronJob as this process left it.
    pub cron_job_written: Option<i64>,
    /// ConfigMaps that say that they are the pipeline's.
    pub config_maps: Vec<Arc<ConfigMapView>>,
    /// Jobs that say so.
    pub jobs: Vec<Arc<JobView>>,
    /// Pods that say so.
    pub pods: Vec<Arc<PodView>>,
    /// Runs that name the pipeline.
    pub runs: Vec<Arc<RunView>>,
    /// Names of runs that are names of ticks of a pipeline in this namespace.
    pub tick_names: BTreeSet<String>,
    /// What events say of Jobs that have no pod, by the Job's UID.
    pub job_words: BTreeMap<String, String>,
    /// A Job that has the name of the last tick and is not the pipeline's.
    pub tick_taken: Option<Taken>,
    /// Names that are held by someone else.
    pub taken: Vec<Taken>,
}

/// What follows from a manifest, or what is wrong with it.
pub type Resolution = Result<Resolved, Vec<Problem>>;

/// A name that is held by someone else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Taken {
    /// The kind of the object.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its controller.
    pub owner: Option<Owner>,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In this order.
    pub writes: Vec<Write>,
    /// When to look again although nothing has changed.
    pub next_look: Option<SignedDuration>,
}

/// One write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Make a ConfigMap.
    CreateConfigMap(Box<ConfigMap>),
    /// Delete one, by name and UID.
    DeleteConfigMap(String, String),
    /// Make the CronJob.
    CreateCronJob(Box<CronJob>),
    /// Tell the CronJob's controller that all ticks up to this time are dealt with.
    MoveLastSchedule {
        /// The CronJob.
        name: String,
        /// Its UID.
        uid: String,
        /// The time.
        to: Timestamp,
    },
    /// Bring the CronJob to what it should be.
    ApplyCronJob {
        /// What it should be, with the UID that it must have.
        cron_job: Box<CronJob>,
        /// Where its fields from its creation are recorded.
        created_fields: Option<usize>,
    },
    /// Let the CronJob stand still as it is.
    SuspendCronJob(String, String),
    /// Delete the CronJob, by name and UID.
    DeleteCronJob(String, String),
    /// Make a Job.
    CreateJob(Box<Job>),
    /// Delete a Job with its pods, by name and UID.
    DeleteJob(String, String),
    /// Record a Job.
    CreateRun(Box<ReportRun>, Box<ReportRunStatus>, Option<Note>),
    /// Delete a record, by name and UID.
    DeleteRun(String, String),
    /// Say how a run goes.
    RunStatus {
        /// The run.
        name: String,
        /// Its UID.
        uid: String,
        /// The status.
        status: Box<ReportRunStatus>,
        /// What to tell besides.
        note: Option<Note>,
    },
    /// Say how the pipeline is.
    Status(Box<ReportPipelineStatus>, Vec<Note>),
}

impl Write {
    /// A short name, for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateConfigMap(_) => "create_config_map",
            Self::DeleteConfigMap(..) => "delete_config_map",
            Self::CreateCronJob(_) => "create_cron_job",
            Self::MoveLastSchedule { .. } => "move_last_schedule",
            Self::ApplyCronJob { .. } => "apply_cron_job",
            Self::SuspendCronJob(..) => "suspend_cron_job",
            Self::DeleteCronJob(..) => "delete_cron_job",
            Self::CreateJob(_) => "create_job",
            Self::DeleteJob(..) => "delete_job",
            Self::CreateRun(..) => "create_run",
            Self::DeleteRun(..) => "delete_run",
            Self::RunStatus { .. } => "run_status",
            Self::Status(..) => "status",
        }
    }

    /// Whether it changes what the next decision is made from, other than statuses.
    pub fn changes_objects(&self) -> bool {
        !matches!(self, Self::Status(..) | Self::RunStatus { .. })
    }
}

/// An event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// Whether somebody should look.
    pub warning: bool,
    /// In CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The run that it is about.
    pub run: Option<String>,
}

impl Plan {
    /// Looks again after this time, or sooner if something else wants to.
    fn look_after(&mut self, wait: SignedDuration) {
        let wait = wait.max(SignedDuration::from_secs(1));
        self.next_look = Some(self.next_look.map_or(wait, |other| other.min(wait)));
    }
}

/// What a decision about a pipeline that exists has at hand in all its parts.
pub struct Scene<'a> {
    /// What was observed.
    pub observed: &'a Observed,
    /// The pipeline.
    pub pipeline: &'a PipelineView,
    /// Its manifest.
    pub spec: &'a ReportPipelineSpec,
    /// What follows from the manifest, or what is wrong with it.
    pub resolved: &'a Resolution,
    /// The CronJob, if it is the pipeline's.
    pub cron_job: Option<&'a CronJobView>,
    /// The Jobs that are the pipeline's by the chain of owners, with their pods, by name.
    pub jobs: BTreeMap<&'a str, OwnJob<'a>>,
    /// The time.
    pub now: Timestamp,
}

/// A Job of the pipeline.
#[derive(Clone, Debug)]
pub struct OwnJob<'a> {
    /// The Job.
    pub job: &'a JobView,
    /// Its pods, the newest first.
    pub pods: Vec<&'a PodView>,
    /// Whether the schedule made it.
    pub scheduled: bool,
}

impl<'a> Scene<'a> {
    /// None without a pipeline that can be read. What can't be read can't be told from what must not be touched: it is
    /// logged by its watch, and its objects stay as they are.
    fn new(observed: &'a Observed, now: Timestamp) -> Option<Self> {
        let (pipeline, resolved) = (observed.pipeline.as_deref()?, observed.resolved.as_deref()?);
        let spec = pipeline.spec.as_deref().ok()?;
        let cron_job =
            observed.cron_job.as_deref().filter(|cron_job| cron_job.meta.is_controlled_by(&pipeline.meta.uid));
        let jobs = own_jobs(observed, cron_job.map(|cron_job| cron_job.meta.uid.as_str()));
        Some(Self { observed, pipeline, spec, resolved, cron_job, jobs, now })
    }

    /// Whether the schedule stands still: asked for, or because the manifest can't be run.
    fn is_suspended(&self) -> bool {
        self.spec.suspend || self.resolved.is_err()
    }

    /// The name is held by someone else.
    fn taken(&self, kind: &str, name: &str) -> Option<&'a Taken> {
        self.observed.taken.iter().find(|taken| taken.kind == kind && taken.name == name)
    }
}

/// The Jobs that belong to the pipeline: those that its CronJob controls, and those that a run of the same name controls.
/// A label alone makes no Job one of these, nor a pod.
fn own_jobs<'a>(observed: &'a Observed, cron_job_uid: Option<&str>) -> BTreeMap<&'a str, OwnJob<'a>> {
    let mut own = BTreeMap::new();
    for job in &observed.jobs {
        let scheduled = cron_job_uid.is_some_and(|uid| job.meta.is_controlled_by(uid));
        let asked =
            observed.runs.iter().any(|run| run.meta.name == job.meta.name && job.meta.is_controlled_by(&run.meta.uid));
        if job.meta.deleting || !(scheduled || asked) {
            continue;
        }
        let mut pods: Vec<&PodView> =
            observed.pods.iter().filter(|pod| pod.meta.is_controlled_by(&job.meta.uid)).map(AsRef::as_ref).collect();
        pods.sort_by(|a, b| (b.meta.created, &b.meta.name).cmp(&(a.meta.created, &a.meta.name)));
        own.insert(job.meta.name.as_str(), OwnJob { job, pods, scheduled });
    }
    own
}

/// The decision.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if observed.pipeline.as_deref().is_none_or(|pipeline| pipeline.meta.deleting) {
        run::without_pipeline(observed, now, &mut plan);
        return plan;
    }
    let Some(scene) = Scene::new(observed, now) else { return plan };

    let epoch = schedule::epoch(&scene);
    if let Ok(resolved) = scene.resolved {
        schedule::config_map(&scene, resolved, &mut plan);
    }
    schedule::cron_job(&scene, epoch.as_ref(), &mut plan);
    let runs = run::runs(&scene, epoch.as_ref(), &mut plan);
    history::prune(&scene, &runs, &mut plan);
    status::pipeline(&scene, epoch, &runs, &mut plan);
    plan
}

/// What the caches can't answer: to be asked of the API server before the decision.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Questions {
    /// Events about an object, on behalf of a Job: the Job's UID and the object's.
    pub events: Vec<(String, String)>,
    /// Who has the name of the tick that should have been run by now.
    pub tick: Option<String>,
}

/// What to ask. Nothing while all goes well.
pub fn questions(observed: &Observed, now: Timestamp) -> Questions {
    let Some(scene) = Scene::new(observed, now) else { return Questions::default() };
    let events = scene.jobs.values().filter_map(|own| match outcome::events(own, now) {
        outcome::Events::Of(uid) => Some((own.job.meta.uid.clone(), uid.to_owned())),
        outcome::Events::No | outcome::Events::After(_) => None,
    });
    Questions { events: events.collect(), tick: schedule::tick_missed(&scene) }
}

#[cfg(test)]
mod tests;
