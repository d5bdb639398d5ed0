//! Jobs and the ReportRuns that record them: which Job is made next, which is given up, and how each run goes.
//!
//! Every Job becomes a run of its name, and every run that a person made becomes a Job of its name. A run that has ended
//! is never touched again, but for one that was superseded: its Job never started and its manifest is of the past, so the
//! Job is deleted and made anew, under the same name and the same record.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use report_api::interval::tick_of_job;
use report_api::pipeline::WhenBusy;
use report_api::run::Trigger;
use report_api::status::{ReportRunStatus, RunState, ScheduleEpoch, condition};

use super::outcome::{self, Outcome, Words};
use super::{Note, Observed, OwnJob, Plan, Scene, Write, own_jobs};
use crate::build;
use crate::observe::view::{RunView, time};

/// How long a run waits for a pipeline that is not there: both may come from one `kubectl apply`.
const PIPELINE_DELAY: SignedDuration = SignedDuration::from_secs(60);
/// How soon to look again for the last words of a pod whose Job has ended.
const SETTLE_AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// A Job's name is a label of its pods.
const JOB_NAME_MAX: usize = 63;

/// A run, as it will be known once the plan is carried out.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Its UID; empty for one that is only now recorded.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether the operator made it.
    pub ours: bool,
    /// Why it exists.
    pub trigger: Trigger,
    /// How it goes.
    pub status: ReportRunStatus,
}

impl Known {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.status.state.is_some_and(RunState::is_final)
    }

    /// When it ended, or else began, or else was made: the order of history.
    pub fn at(&self) -> Timestamp {
        self.status.completion_time.as_ref().or(self.status.start_time.as_ref()).map_or(self.created, |time| time.0)
    }
}

/// All runs of the pipeline, the oldest first.
pub fn runs(scene: &Scene, epoch: Option<&ScheduleEpoch>, plan: &mut Plan) -> Vec<Known> {
    let mut known = Vec::new();
    let mut queue = Vec::new();
    let mut observed: Vec<&RunView> = scene.observed.runs.iter().map(AsRef::as_ref).collect();
    observed.sort_by(|a, b| (a.meta.created, &a.meta.name).cmp(&(b.meta.created, &b.meta.name)));
    for run in observed {
        let ours = run.meta.is_controlled_by(&scene.pipeline.meta.uid);
        // A record of a former pipeline of this name goes with that one.
        if is_record(run) && !ours {
            continue;
        }
        let own = scene.jobs.get(run.meta.name.as_str()).filter(|own| own.scheduled == ours);
        let superseded = run.status.state == Some(RunState::Superseded);
        let status = if superseded || !run.status.state.is_some_and(RunState::is_final) {
            next_status(scene, run, ours, own, plan)
        } else {
            Some(run.status.clone())
        };
        match status {
            Some(status) => known.push(tell(scene, run, ours, status, plan)),
            None => queue.push(run),
        }
    }
    record(scene, &mut known, plan);
    rerun(scene, epoch, &known, plan);
    let mut active: Option<String> =
        known.iter().find(|run| !run.has_ended() && run.status.job_name.is_some()).map(|run| run.name.clone());
    for run in queue {
        let status = admit(scene, run, &mut active, plan);
        known.push(tell(scene, run, false, status, plan));
    }
    known.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    known
}

/// Whether the operator made the run, for this pipeline or for a former one of its name.
fn is_record(run: &RunView) -> bool {
    run.meta.owner.as_ref().is_some_and(|owner| owner.kind == "ReportPipeline")
}

/// How a run that has not ended goes. None if it is one that still waits for its Job to be made.
fn next_status(
    scene: &Scene,
    run: &RunView,
    ours: bool,
    own: Option<&OwnJob>,
    plan: &mut Plan,
) -> Option<ReportRunStatus> {
    let superseded = run.status.state == Some(RunState::Superseded);
    let job_uid = run.status.job_uid.as_deref();
    match own {
        Some(own) if superseded && job_uid == Some(own.job.meta.uid.as_str()) => Some(run.status.clone()),
        Some(own) => Some(follow(scene, run, own, plan)),
        None if superseded => ours.then(|| run.status.clone()),
        None if !ours && refusal(scene, run).is_none() && job_uid.is_none() => None,
        None => {
            let words = refusal(scene, run).filter(|_| !ours && job_uid.is_none()).unwrap_or_else(|| {
                Words::new(
                    "JobDeleted",
                    "its Job was deleted before it had ended; nothing of it is visible, or the next run completes it",
                )
            });
            Some(end(run, RunState::Failed, words, scene.now))
        }
    }
}

/// Why a run that a person made is not run.
fn refusal(scene: &Scene, run: &RunView) -> Option<Words> {
    let name = &run.meta.name;
    if run.trigger == Trigger::Schedule {
        let words =
            "spec.trigger Schedule is for the runs that the operator records; leave it out and make the run again";
        return Some(Words::new("TriggerReserved", words));
    }
    if scene.observed.tick_names.contains(name) {
        let words = format!(
            "{name} is the name of a scheduled run: while it is taken, the schedule stands still; delete this ReportRun and choose another name"
        );
        return Some(Words::new("NameReserved", words));
    }
    if name.len() > JOB_NAME_MAX {
        let words = format!(
            "the name has {} characters, and the Job of that name may have {JOB_NAME_MAX}; choose a shorter one",
            name.len()
        );
        return Some(Words::new("NameTooLong", words));
    }
    scene.taken("Job", name).map(|_| {
        let words = format!("the Job {name} exists and is not this run's; delete it or choose another name");
        Words::new("NameTaken", words)
    })
}

/// How a run with a Job goes. A Job that never started and whose manifest is of the past is given up.
fn follow(scene: &Scene, run: &RunView, own: &OwnJob, plan: &mut Plan) -> ReportRunStatus {
    let hash = scene.resolved.as_ref().ok().map(|resolved| resolved.hash.as_str());
    let outdated = hash.is_some() && own.job.spec_hash.as_deref() != hash;
    if own.job.is_active() && outdated && !outcome::has_started(own) {
        plan.writes.push(Write::DeleteJob(own.job.meta.name.clone(), own.job.meta.uid.clone()));
        let words = Words::new(
            "Superseded",
            "its pod never started and the manifest has changed; it is run again with the new one",
        );
        let mut status = end(run, RunState::Superseded, words, scene.now);
        status.job_name = Some(own.job.meta.name.clone());
        status.job_uid = Some(own.job.meta.uid.clone());
        return status;
    }
    follow_job(Some(run), own, scene.observed, scene.now, plan)
}

/// A Job's run status.
fn follow_job(
    run: Option<&RunView>,
    own: &OwnJob,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) -> ReportRunStatus {
    let job_words = observed.job_words.get(&own.job.meta.uid).map(String::as_str);
    let outcome = outcome::of(own, job_words, run.map(|run| &run.status), now);
    if let Some(again) = outcome::events_again(own, now) {
        plan.look_after(again);
    }
    if outcome.settling {
        plan.look_after(SETTLE_AGAIN);
        if let Some(run) = run {
            return run.status.clone();
        }
    }
    let Outcome { state, words, result, settling } = outcome;
    let state = if settling { RunState::Running } else { state };
    let mut status = ReportRunStatus {
        observed_generation: run.map_or(1, |run| run.meta.generation),
        conditions: Vec::new(),
        state: Some(state),
        message: words.as_ref().map(|words| settle(run, words)),
        job_name: Some(own.job.meta.name.clone()),
        job_uid: Some(own.job.meta.uid.clone()),
        spec_hash: own.job.spec_hash.clone(),
        attempts: Some(own.job.attempts()),
        start_time: own.job.started.map(time),
        completion_time: None,
        result,
    };
    if state.is_final() {
        let ended = own.job.end.as_ref().map_or(now, |(_, at)| *at);
        status.completion_time = Some(time(ended));
        status.conditions = conclude(state, words, status.observed_generation, now);
    }
    status
}

/// The message of a run that waits: that from before where only numbers differ. The scheduler counts nodes in its words,
/// and a quota its use, and each count would be a write and an event.
fn settle(run: Option<&RunView>, words: &Words) -> String {
    let counts = ["Unschedulable", "PodNotCreated", "PodNotStarted"].contains(&words.reason.as_str());
    let without_numbers = |text: &str| text.split(|c: char| c.is_ascii_digit()).collect::<String>();
    let before = run.filter(|_| counts).and_then(|run| run.status.message.as_deref());
    before.filter(|text| without_numbers(text) == without_numbers(&words.message)).unwrap_or(&words.message).to_owned()
}

/// The end of a run without a Job.
fn end(run: &RunView, state: RunState, words: Words, now: Timestamp) -> ReportRunStatus {
    ReportRunStatus {
        observed_generation: run.meta.generation,
        conditions: conclude(state, Some(words.clone()), run.meta.generation, now),
        state: Some(state),
        message: Some(words.message),
        completion_time: Some(time(now)),
        ..run.status.clone()
    }
}

/// The condition of a run that has ended: Complete or Failed, for `kubectl wait`. A superseded one has neither: it is run
/// again under the same name.
fn conclude(state: RunState, words: Option<Words>, generation: i64, now: Timestamp) -> Vec<Condition> {
    let type_ = match state {
        RunState::Succeeded | RunState::Skipped => condition::COMPLETE,
        RunState::Failed => condition::FAILED,
        RunState::Pending | RunState::Running | RunState::Superseded => return Vec::new(),
    };
    let words = words.unwrap_or_else(|| Words::new(format!("{state:?}"), ""));
    vec![Condition {
        type_: type_.into(),
        status: "True".into(),
        reason: if words.reason.is_empty() { format!("{state:?}") } else { words.reason },
        message: words.message,
        observed_generation: Some(generation),
        last_transition_time: time(now),
    }]
}

/// Writes the status if it differs, with an event when the run has ended badly, or can't start.
fn tell(scene: &Scene, run: &RunView, ours: bool, status: ReportRunStatus, plan: &mut Plan) -> Known {
    if let Some(write) = write_status(run, &status) {
        plan.writes.push(write);
    }
    Known {
        name: run.meta.name.clone(),
        uid: run.meta.uid.clone(),
        created: run.meta.created,
        ours,
        trigger: if ours { Trigger::Schedule } else { run.trigger },
        status,
    }
    .in_scene(scene)
}

impl Known {
    /// A run that is only now recorded was made when its Job was.
    fn in_scene(mut self, scene: &Scene) -> Self {
        if let Some(tick) = tick_of_job(&scene.pipeline.meta.name, &self.name).filter(|_| self.ours) {
            self.created = self.created.min(tick);
        }
        self
    }
}

fn write_status(run: &RunView, status: &ReportRunStatus) -> Option<Write> {
    if *status == run.status {
        return None;
    }
    let note = note(&run.meta.name, Some(&run.status), status);
    Some(Write::RunStatus {
        name: run.meta.name.clone(),
        uid: run.meta.uid.clone(),
        status: Box::new(status.clone()),
        note,
    })
}

/// The event of a change, if it is worth one.
fn note(run: &str, before: Option<&ReportRunStatus>, now: &ReportRunStatus) -> Option<Note> {
    let state = now.state?;
    let changed = before.is_none_or(|before| before.state != Some(state));
    let words = now.message.clone().unwrap_or_default();
    let reason =
        |otherwise: &str| now.conditions.first().map_or(otherwise.to_owned(), |condition| condition.reason.clone());
    let (warning, reason) = match state {
        RunState::Succeeded if changed => (false, "Succeeded".to_owned()),
        RunState::Skipped if changed => (false, "Skipped".to_owned()),
        RunState::Superseded if changed => (false, "Superseded".to_owned()),
        RunState::Failed if changed => (true, reason("Failed")),
        // A pod that can't start, or an attempt that failed: told once per reason.
        RunState::Pending | RunState::Running
            if now.job_uid.is_some()
                && !words.is_empty()
                && before.is_none_or(|before| before.message != now.message) =>
        {
            (true, if state == RunState::Pending { "RunWaits" } else { "AttemptFailed" }.to_owned())
        }
        _ => return None,
    };
    Some(Note { warning, reason, message: format!("run {run}: {words}"), run: Some(run.to_owned()) })
}

/// Records the scheduled Jobs that have no run yet, and a tick that could not be run because its name is held.
fn record(scene: &Scene, known: &mut Vec<Known>, plan: &mut Plan) {
    let meta = &scene.pipeline.meta;
    let mut add = |name: &str, created: Timestamp, status: ReportRunStatus, plan: &mut Plan| {
        let run = build::run::of_schedule(&meta.namespace, &meta.name, &meta.uid, name);
        let note = note(name, None, &status);
        plan.writes.push(Write::CreateRun(Box::new(run), Box::new(status.clone()), note));
        known.push(Known {
            name: name.into(),
            uid: String::new(),
            created,
            ours: true,
            trigger: Trigger::Schedule,
            status,
        });
    };
    let is_recorded = |name: &str| scene.observed.runs.iter().any(|run| run.meta.name == name);
    for own in scene.jobs.values().filter(|own| own.scheduled && !is_recorded(&own.job.meta.name)) {
        if scene.taken("ReportRun", &own.job.meta.name).is_none() {
            let status = follow_job(None, own, scene.observed, scene.now, plan);
            add(&own.job.meta.name, own.job.meta.created, status, plan);
        }
    }
    if let (Some(taken), Some(cron_job)) = (&scene.observed.tick_taken, scene.cron_job)
        && let Some(tick) = tick_of_job(&meta.name, &taken.name)
        && cron_job.last_schedule.is_none_or(|last| last < tick)
    {
        plan.writes.push(Write::MoveLastSchedule { name: meta.name.clone(), uid: cron_job.meta.uid.clone(), to: tick });
        if is_recorded(&taken.name) {
            return;
        }
        let words = format!(
            "the run did not start, because a Job {} exists that is not this pipeline's; delete it; the next run covers the time of this one",
            taken.name
        );
        let words = Words::new("NameTaken", words);
        let status = ReportRunStatus {
            observed_generation: 1,
            conditions: conclude(RunState::Failed, Some(words.clone()), 1, scene.now),
            state: Some(RunState::Failed),
            message: Some(words.message),
            completion_time: Some(time(scene.now)),
            ..Default::default()
        };
        add(&taken.name, tick, status, plan);
    }
}

/// Makes the Job of a superseded tick anew, unless the schedule has changed since or a later run covers it.
fn rerun(scene: &Scene, epoch: Option<&ScheduleEpoch>, known: &[Known], plan: &mut Plan) {
    let (Ok(resolved), Some(epoch), Some(cron_job)) = (&scene.resolved, epoch, scene.cron_job) else { return };
    if epoch.suspended || cron_job.meta.deleting {
        return;
    }
    let newest = known.iter().filter(|run| run.ours).max_by(|a, b| a.name.cmp(&b.name));
    let Some(run) = newest.filter(|run| run.status.state == Some(RunState::Superseded)) else { return };
    let Some(tick) = tick_of_job(&scene.pipeline.meta.name, &run.name).filter(|tick| *tick >= epoch.since.0) else {
        return;
    };
    let free = !scene.jobs.contains_key(run.name.as_str()) && scene.taken("Job", &run.name).is_none();
    let busy = scene.jobs.values().any(|own| own.job.is_active());
    if free && !busy {
        let job = build::job::of_tick(resolved, &run.name, &cron_job.meta.uid, tick, epoch.since.0);
        plan.writes.push(Write::CreateJob(Box::new(job)));
    }
}

/// Makes the Job of a run that a person asked for, if it is its turn.
fn admit(scene: &Scene, run: &RunView, active: &mut Option<String>, plan: &mut Plan) -> ReportRunStatus {
    let waits = |message: String| ReportRunStatus {
        observed_generation: run.meta.generation,
        state: Some(RunState::Pending),
        message: Some(Words::new("Waits", message).message),
        ..Default::default()
    };
    let resolved = match &scene.resolved {
        Ok(resolved) => resolved,
        Err(problems) => {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            return waits(format!("waits until the manifest of {} is valid: {first}", scene.pipeline.meta.name));
        }
    };
    if let Some(other) = active {
        return match scene.spec.when_busy() {
            WhenBusy::Queue => waits(format!("waits for run {other}")),
            WhenBusy::Skip => {
                let words = Words::new("Busy", format!("run {other} is under way, and spec.whenBusy is Skip"));
                end(run, RunState::Skipped, words, scene.now)
            }
        };
    }
    if scene.taken("ConfigMap", &resolved.config_map_name()).is_some() {
        return waits(format!("waits until the name {} is free", resolved.config_map_name()));
    }
    *active = Some(run.meta.name.clone());
    let asked = build::job::Asked::ByRun {
        start: run.interval.map(|interval| interval.start),
        end: run.interval.map_or(run.meta.created, |interval| interval.end),
        full_refresh: run.full_refresh,
    };
    let job = build::job::of_run(resolved, &run.meta.name, &run.meta.uid, &asked);
    plan.writes.push(Write::CreateJob(Box::new(job)));
    ReportRunStatus { message: None, ..waits(String::new()) }
}

/// Runs whose pipeline is not there: what is under way is stopped, what waits is refused after a moment.
pub fn without_pipeline(observed: &Observed, now: Timestamp, plan: &mut Plan) {
    let Some(key) = &observed.key else { return };
    let jobs = own_jobs(observed, None);
    // The pipeline's own records go with it.
    let waiting =
        observed.runs.iter().filter(|run| !is_record(run) && !run.status.state.is_some_and(RunState::is_final));
    for run in waiting {
        let own = jobs.get(run.meta.name.as_str());
        if let Some(own) = own.filter(|own| !own.job.is_active()) {
            let status = follow_job(Some(run), own, observed, now, plan);
            plan.writes.extend(write_status(run, &status));
            continue;
        }
        let waited = now.duration_since(run.meta.created);
        let status = if own.is_some() || run.status.job_uid.is_some() {
            if let Some(own) = own {
                plan.writes.push(Write::DeleteJob(own.job.meta.name.clone(), own.job.meta.uid.clone()));
            }
            let words = format!("the pipeline {} was deleted while the run was under way", key.pipeline);
            end(run, RunState::Failed, Words::new("PipelineDeleted", words), now)
        } else if waited < PIPELINE_DELAY {
            plan.look_after(PIPELINE_DELAY - waited);
            ReportRunStatus {
                observed_generation: run.meta.generation,
                state: Some(RunState::Pending),
                message: Some(format!("waits for the pipeline {}, which is not in this namespace", key.pipeline)),
                ..Default::default()
            }
        } else {
            let words = format!(
                "there is no pipeline {} in the namespace {}; correct spec.pipelineRef in another ReportRun",
                key.pipeline, key.namespace
            );
            end(run, RunState::Failed, Words::new("PipelineNotFound", words), now)
        };
        plan.writes.extend(write_status(run, &status));
    }
}
