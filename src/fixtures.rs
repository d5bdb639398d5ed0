//! Objects for tests, built as short sentences: `pipeline("daily").with_job("daily-30064500", exited(13))`.

use std::sync::Arc;

use jiff::Timestamp;
use report_api::pipeline::ReportPipelineSpec;
use report_api::result::{ErrorClass, RunFailure, RunResult, Stage, State};
use report_api::run::Trigger;
use report_api::status::{ReportPipelineStatus, ReportRunStatus, RunState};
use serde::Serialize;

use crate::build::{self, Resolved, Settings};
use crate::observe::cache::Key;
use crate::observe::view::{
    CronJobView, JobEnd, JobView, Meta, Owner, PipelineView, PodView, RunView, WorkerState, time,
};
use crate::plan::{Observed, Plan, Write, plan};

/// A time.
pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An object as YAML.
pub(crate) fn yaml(object: &impl Serialize) -> String {
    serde_yaml::to_string(object).unwrap()
}

/// An installation.
pub(crate) fn settings() -> Settings {
    Settings {
        worker_image: "registry/etl-worker:0.1.0".into(),
        pull_policy: "IfNotPresent".into(),
        pull_secrets: Vec::new(),
        installation: String::new(),
    }
}

/// A small valid manifest with a Secret, daily at three.
pub(crate) fn spec() -> ReportPipelineSpec {
    let manifest = r#"
        schedule: "0 3 * * *"
        sources:
          - name: orders
            http: {url: "https://example.com/orders.csv"}
            columns: [{name: id, type: int64, required: true}, {name: amount, type: "decimal(12,2)"}]
        models:
          - {name: totals, sql: "SELECT id, sum(amount) AS amount FROM orders GROUP BY id"}
        sinks:
          - name: totals
            from: totals
            postgres: {connection: {secretRef: {name: shop-db}}, table: public.totals}
    "#;
    serde_yaml::from_str(manifest).unwrap()
}

/// What follows from that manifest.
pub(crate) fn resolved(name: &str) -> Resolved {
    build::resolve("shop", name, "pipeline-uid", &spec(), &settings()).unwrap()
}

fn meta(name: &str, uid: &str, created: Timestamp, owner: Option<(&str, &str, &str)>) -> Meta {
    let owner = owner.map(|(kind, name, uid)| Owner { kind: kind.into(), name: name.into(), uid: uid.into() });
    Meta {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        version: 1,
        generation: 1,
        created,
        owner,
        deleting: false,
    }
}

/// A pod of the Job `daily-30064500`.
pub(crate) fn pod(worker: Option<WorkerState>) -> PodView {
    PodView {
        meta: meta(
            "daily-30064500-x",
            "pod-uid",
            at("2027-03-01T03:00:02Z"),
            Some(("Job", "daily-30064500", "daily-30064500-uid")),
        ),
        pipeline: Some("daily".into()),
        phase: if matches!(worker, Some(WorkerState::Terminated { .. })) { "Failed" } else { "Pending" }.into(),
        failure: None,
        unschedulable: None,
        worker,
    }
}

/// The Job `daily-30064500`, failed at 03:05.
pub(crate) fn failed_job(reason: &str) -> JobView {
    let end = JobEnd::Failed { reason: reason.into(), message: format!("Kubernetes says {reason}") };
    JobView {
        meta: meta(
            "daily-30064500",
            "daily-30064500-uid",
            at("2027-03-01T03:00:01Z"),
            Some(("CronJob", "daily", "cron-uid")),
        ),
        pipeline: Some("daily".into()),
        spec_hash: None,
        config_map: None,
        started: Some(at("2027-03-01T03:00:01Z")),
        end: Some((end, at("2027-03-01T03:05:00Z"))),
        ending: true,
        pods: (0, 0, 1),
    }
}

/// How the pod of a Job is.
pub(crate) enum PodIs {
    /// There is none.
    Missing,
    /// It waits, for this reason and in these words.
    Waiting(&'static str, &'static str),
    /// It runs.
    Running,
    /// It has ended with this result, and the Job too.
    Ended(Box<RunResult>),
}

/// A pod that ended with this exit code, and the result that a worker leaves with it.
pub(crate) fn exited(code: u8) -> PodIs {
    if code == 0 {
        return PodIs::Ended(Box::new(RunResult::new(State::Succeeded, Stage::Done)));
    }
    let class = ErrorClass::ALL.into_iter().find(|class| class.exit_code() == code).unwrap();
    let mut result = RunResult::new(State::Failed, Stage::Check);
    let code = if class == ErrorClass::Check { "check_failed" } else { "source_unreachable" };
    result.error = Some(RunFailure {
        class,
        code: code.into(),
        message: "3 rows are wrong".into(),
        field: Some("spec.checks[0]".into()),
    });
    PodIs::Ended(Box::new(result))
}

/// What is there.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) observed: Observed,
    pub(crate) settings: Settings,
    pub(crate) next_version: u64,
}

/// A pipeline that the operator has not seen yet, of 2027-03-01.
pub(crate) fn pipeline(name: &str) -> Scenario {
    let view = PipelineView {
        meta: meta(name, "pipeline-uid", at("2027-03-01T00:00:00Z"), None),
        spec: Ok(Box::new(spec())),
        status: ReportPipelineStatus { observed_generation: -1, ..Default::default() },
    };
    let observed = Observed {
        key: Some(Key { namespace: "shop".into(), pipeline: name.into() }),
        pipeline: Some(Arc::new(view)),
        ..Default::default()
    };
    let mut scenario = Scenario { observed, settings: settings(), next_version: 2 };
    scenario.resolve();
    scenario
}

/// A pipeline that is settled at midnight.
pub(crate) fn settled(name: &str) -> Scenario {
    pipeline(name).settle(at("2027-03-01T00:00:00Z"))
}

impl Scenario {
    fn resolve(&mut self) {
        let Some(view) = &self.observed.pipeline else { return };
        let resolution =
            build::resolve("shop", &view.meta.name, &view.meta.uid, view.spec.as_ref().unwrap(), &self.settings);
        self.observed.resolved = Some(Arc::new(resolution));
    }

    /// Another manifest, of the next generation.
    pub(crate) fn edit(mut self, change: impl FnOnce(&mut ReportPipelineSpec)) -> Self {
        let mut view = PipelineView::clone(self.observed.pipeline.as_ref().unwrap());
        change(view.spec.as_mut().unwrap());
        view.meta.generation += 1;
        self.observed.pipeline = Some(Arc::new(view));
        self.resolve();
        self
    }

    /// Another image of the worker.
    pub(crate) fn upgrade(mut self, image: &str) -> Self {
        self.settings.worker_image = image.into();
        self.resolve();
        self
    }

    /// A Job of the schedule.
    pub(crate) fn with_job(self, name: &str, pod: PodIs) -> Self {
        let hash = self.hash();
        self.job(name, ("CronJob", "daily", "cron-uid"), pod, hash, at("2027-03-01T03:00:01Z"))
    }

    /// A run that a person made.
    pub(crate) fn with_run(mut self, name: &str, created: &str) -> Self {
        let uid = format!("{name}-run-uid");
        let run = RunView {
            meta: meta(name, &uid, at(created), None),
            pipeline: self.observed.key.as_ref().unwrap().pipeline.clone(),
            trigger: Trigger::Manual,
            interval: None,
            full_refresh: false,
            status: ReportRunStatus { observed_generation: -1, ..Default::default() },
        };
        self.observed.runs.push(Arc::new(run));
        self
    }

    /// The Job of that run.
    pub(crate) fn with_job_of_run(self, name: &str, pod: PodIs) -> Self {
        let (hash, uid) = (self.hash(), format!("{name}-run-uid"));
        self.job(name, ("ReportRun", name, &uid), pod, hash, at("2027-03-01T03:00:01Z"))
    }

    /// A Job with the pipeline's label that is not the pipeline's.
    pub(crate) fn with_foreign_job(self, name: &str) -> Self {
        let hash = self.hash();
        self.job(name, ("Deployment", "other", "other-uid"), PodIs::Running, hash, at("2027-03-01T03:00:01Z"))
    }

    pub(crate) fn hash(&self) -> String {
        self.observed.resolved.as_ref().unwrap().as_ref().as_ref().unwrap().hash.clone()
    }

    fn job(mut self, name: &str, owner: (&str, &str, &str), pod_is: PodIs, hash: String, created: Timestamp) -> Self {
        let job_uid = format!("{name}-uid");
        let pipeline = self.observed.key.as_ref().unwrap().pipeline.clone();
        let (worker, end, pods) = match pod_is {
            PodIs::Missing => (None, None, (0, 0, 0)),
            PodIs::Waiting(reason, message) => {
                (Some(WorkerState::Waiting { reason: reason.into(), message: message.into() }), None, (1, 0, 0))
            }
            PodIs::Running => (Some(WorkerState::Running), None, (1, 0, 0)),
            PodIs::Ended(result) => {
                let exit_code = result.error.as_ref().map_or(0, |error| i32::from(error.class.exit_code()));
                let end = if exit_code == 0 {
                    JobEnd::Complete
                } else {
                    JobEnd::Failed { reason: "PodFailurePolicy".into(), message: "a rule".into() }
                };
                let pods = if exit_code == 0 { (0, 1, 0) } else { (0, 0, 1) };
                let worker =
                    WorkerState::Terminated { exit_code, reason: "Error".into(), message: result.to_json(4096) };
                (Some(worker), Some((end, at("2027-03-01T03:05:00Z"))), pods)
            }
        };
        if worker.is_some() {
            let mut view = pod(worker);
            view.meta = meta(&format!("{name}-x"), &format!("{name}-pod"), created, Some(("Job", name, &job_uid)));
            self.observed.pods.push(Arc::new(view));
        }
        self.observed.jobs.retain(|job| job.meta.name != name);
        self.observed.jobs.push(Arc::new(JobView {
            meta: meta(name, &job_uid, created, Some(owner)),
            pipeline: Some(pipeline.clone()),
            config_map: Some(format!("{pipeline}-{hash}")),
            spec_hash: Some(hash),
            started: Some(created),
            ending: end.is_some(),
            end,
            pods,
        }));
        self
    }

    /// A name that turned out to be someone else's.
    pub(crate) fn with_taken(mut self, kind: &'static str, name: &str, owner: Option<(&str, &str)>) -> Self {
        let owner = owner.map(|(kind, name)| Owner { kind: kind.into(), name: name.into(), uid: "other".into() });
        self.observed.taken.push(crate::plan::Taken { kind, name: name.into(), owner });
        self
    }

    /// Changes the CronJob behind the operator's back.
    pub(crate) fn with_cron_job(mut self, change: impl FnOnce(&mut CronJobView)) -> Self {
        let mut view = CronJobView::clone(self.observed.cron_job.as_ref().unwrap());
        change(&mut view);
        self.observed.cron_job = Some(Arc::new(view));
        self
    }

    /// The pipeline is gone.
    pub(crate) fn without_pipeline(mut self) -> Self {
        self.observed.pipeline = None;
        self.observed.resolved = None;
        self.observed.cron_job = None;
        self
    }

    /// The decision at this time.
    pub(crate) fn plan(&self, now: &str) -> Plan {
        plan(&self.observed, at(now))
    }

    /// Carries out plans as an API server would, until one has nothing left to write. What the writes were is kept.
    pub(crate) fn settle(self, now: Timestamp) -> Self {
        self.settle_with(now).0
    }

    /// The same, with the kinds of all writes.
    pub(crate) fn settle_with(mut self, now: Timestamp) -> (Self, Vec<&'static str>) {
        let mut kinds = Vec::new();
        for _ in 0..8 {
            let mut plan = plan(&self.observed, now);
            if plan.writes.is_empty() {
                return (self, kinds);
            }
            if plan.writes.iter().any(Write::changes_objects) {
                plan.writes.retain(|write| !matches!(write, Write::Status(..)));
            }
            for write in plan.writes {
                kinds.push(write.kind());
                self.carry_out(write, now);
            }
        }
        panic!("the plan does not settle: {kinds:?}");
    }

    fn carry_out(&mut self, write: Write, now: Timestamp) {
        self.next_version += 1;
        let observed = &mut self.observed;
        match write {
            Write::CreateConfigMap(mut object) => {
                object.metadata.uid = object.metadata.name.as_ref().map(|name| format!("{name}-uid"));
                object.metadata.creation_timestamp = Some(time(now));
                observed.config_maps.push(Arc::new((*object).into()));
            }
            Write::DeleteConfigMap(name, _) => observed.config_maps.retain(|map| map.meta.name != name),
            Write::CreateCronJob(mut object) => {
                object.metadata.uid = Some("cron-uid".into());
                object.metadata.generation = Some(1);
                object.metadata.creation_timestamp = Some(time(now));
                observed.cron_job = Some(Arc::new((*object).into()));
                observed.cron_job_written = Some(1);
            }
            Write::MoveLastSchedule { to, .. } => {
                let mut view = CronJobView::clone(observed.cron_job.as_ref().unwrap());
                view.last_schedule = Some(to);
                observed.cron_job = Some(Arc::new(view));
            }
            Write::ApplyCronJob { mut cron_job, .. } => {
                let before = observed.cron_job.take().unwrap();
                cron_job.metadata.generation = Some(before.meta.generation + 1);
                cron_job.metadata.creation_timestamp = Some(time(before.meta.created));
                observed.cron_job_written = cron_job.metadata.generation;
                let mut view = CronJobView::from(*cron_job);
                view.last_schedule = before.last_schedule;
                observed.cron_job = Some(Arc::new(view));
            }
            Write::SuspendCronJob(..) => {
                let mut view = CronJobView::clone(observed.cron_job.as_ref().unwrap());
                view.suspended = true;
                view.meta.generation += 1;
                observed.cron_job_written = Some(view.meta.generation);
                observed.cron_job = Some(Arc::new(view));
            }
            Write::DeleteCronJob(..) => observed.cron_job = None,
            Write::CreateJob(mut object) => {
                let name = object.metadata.name.clone().unwrap();
                object.metadata.uid = Some(format!("{name}-uid-{}", self.next_version));
                object.metadata.creation_timestamp = Some(time(now));
                observed.jobs.push(Arc::new((*object).into()));
            }
            Write::DeleteJob(name, uid) => observed.jobs.retain(|job| job.meta.name != name || job.meta.uid != uid),
            Write::CreateRun(mut object, status, _) => {
                object.metadata.uid = object.metadata.name.as_ref().map(|name| format!("{name}-record-uid"));
                object.metadata.creation_timestamp = Some(time(now));
                object.metadata.generation = Some(1);
                let mut view = RunView::from(*object);
                view.status = *status;
                observed.runs.push(Arc::new(view));
            }
            Write::DeleteRun(name, _) => observed.runs.retain(|run| run.meta.name != name),
            Write::RunStatus { name, status, .. } => {
                for run in observed.runs.iter_mut().filter(|run| run.meta.name == name) {
                    let mut view = RunView::clone(run);
                    view.status = (*status).clone();
                    *run = Arc::new(view);
                }
            }
            Write::Status(status, _) => {
                let mut view = PipelineView::clone(observed.pipeline.as_ref().unwrap());
                view.status = *status;
                observed.pipeline = Some(Arc::new(view));
                observed.cron_job_written = None;
            }
        }
    }

    /// The pipeline's status.
    pub(crate) fn status(&self) -> &ReportPipelineStatus {
        &self.observed.pipeline.as_ref().unwrap().status
    }

    /// A run's status.
    pub(crate) fn run(&self, name: &str) -> &ReportRunStatus {
        &self.observed.runs.iter().find(|run| run.meta.name == name).unwrap_or_else(|| panic!("no run {name}")).status
    }

    /// Where a run is.
    pub(crate) fn state(&self, name: &str) -> Option<RunState> {
        self.run(name).state
    }

    /// A condition of the pipeline: status, reason and message.
    pub(crate) fn condition(&self, type_: &str) -> (String, String, String) {
        let found = self.status().conditions.iter().find(|condition| condition.type_ == type_);
        found.map(|found| (found.status.clone(), found.reason.clone(), found.message.clone())).unwrap_or_default()
    }
}
