//! What is told of a pipeline: recomputed at each look from what is there. Only what history has outlived is taken from
//! the status before: the last run, the last good one, and how fresh the data is.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use report_api::problem::Problem;
use report_api::result::MissingIntervals;
use report_api::status::{ReportPipelineStatus, RunState, RunSummary, STATUS_RUNS_MAX, ScheduleEpoch, condition};

use super::outcome::{MESSAGE_BYTES_MAX, Words};
use super::run::Known;
use super::schedule::{TICK_DELAY, next_tick};
use super::{Note, Plan, Scene, Taken, Write};
use crate::observe::view::time;

/// How soon to look again for a name that someone else holds: nothing watches other people's objects.
const TAKEN_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// Problems that are spelt out in a condition's message.
const PROBLEMS_MAX: usize = 10;

/// Writes the pipeline's status if it differs, with events about what changed.
pub fn pipeline(scene: &Scene, epoch: Option<ScheduleEpoch>, runs: &[Known], plan: &mut Plan) {
    let before = &scene.pipeline.status;
    let mut newest: Vec<&Known> = runs.iter().collect();
    newest.sort_by_key(|run| std::cmp::Reverse((run.at(), run.name.clone())));

    let active: Vec<&Known> = newest.iter().copied().filter(|run| !run.has_ended()).collect();
    let ended = |wanted: fn(&Known) -> bool, before: &Option<RunSummary>| {
        let found =
            newest.iter().find(|run| run.has_ended() && run.status.state != Some(RunState::Superseded) && wanted(run));
        let found = found.map(|run| summary(run));
        match (found, before) {
            (Some(found), Some(before)) if ended_at(before) > ended_at(&found) => Some(before.clone()),
            (None, before) => before.clone(),
            (found, _) => found,
        }
    };
    let mut status = ReportPipelineStatus {
        observed_generation: scene.pipeline.meta.generation,
        conditions: Vec::new(),
        active: active.iter().take(STATUS_RUNS_MAX).map(|run| run.name.clone()).collect(),
        last_run: ended(|_| true, &before.last_run),
        last_successful_run: ended(|run| run.status.state == Some(RunState::Succeeded), &before.last_successful_run),
        next_schedule_time: next_tick(scene).map(time),
        data_as_of: data_as_of(runs).max(before.data_as_of.as_ref().map(|time| time.0)).map(time),
        missing_intervals: missing_intervals(&newest, before.missing_intervals),
        runs: newest.iter().take(STATUS_RUNS_MAX).map(|run| summary(run)).collect(),
        schedule_epoch: epoch,
        cron_job_generation: scene.cron_job.map(|cron_job| cron_job.meta.generation),
    };
    let mut conditions = Conditions {
        before: &before.conditions,
        generation: scene.pipeline.meta.generation,
        now: scene.now,
        list: Vec::new(),
    };
    acceptance(scene, &active, &mut conditions, plan);
    last_run_succeeded(&newest, &mut conditions);
    data_fresh(scene, status.data_as_of.as_ref().map(|time| time.0), &mut conditions, plan);
    status.conditions = conditions.list;

    if let (Some(next), None) = (next_tick(scene), active.first()) {
        plan.look_after(next.duration_since(scene.now) + TICK_DELAY);
    }
    if status != *before {
        let notes = notes(&before.conditions, &status.conditions);
        plan.writes.push(Write::Status(Box::new(status), notes));
    }
}

/// Conditions that keep the time of their last change.
struct Conditions<'a> {
    before: &'a [Condition],
    generation: i64,
    now: Timestamp,
    list: Vec<Condition>,
}

impl Conditions<'_> {
    fn set(&mut self, type_: &str, status: &str, words: Words) {
        let same = self.before.iter().find(|before| before.type_ == type_ && before.status == status);
        self.list.push(Condition {
            type_: type_.into(),
            status: status.into(),
            reason: words.reason,
            message: words.message,
            observed_generation: Some(self.generation),
            last_transition_time: same.map_or_else(|| time(self.now), |same| same.last_transition_time.clone()),
        });
    }

    fn keep(&mut self, type_: &str) -> bool {
        let kept = self.before.iter().find(|before| before.type_ == type_);
        self.list.extend(kept.cloned());
        kept.is_some()
    }
}

/// Ready, Reconciling and Stalled.
fn acceptance(scene: &Scene, active: &[&Known], conditions: &mut Conditions, plan: &mut Plan) {
    let name = &scene.pipeline.meta.name;
    let settled = || Words::new("Settled", "all objects are as the manifest says");
    if let Err(problems) = &scene.resolved {
        let words = Words::new("InvalidManifest", problem_list(problems));
        conditions.set(condition::READY, "False", words.clone());
        conditions.set(condition::RECONCILING, "False", settled());
        conditions.set(condition::STALLED, "True", words);
        return;
    }
    // A name held by the pipeline's own former self is free as soon as the garbage collector comes by.
    let taken = |taken: &&Taken| taken.kind == "CronJob" || taken.kind == "ConfigMap";
    let leftover =
        |taken: &Taken| taken.owner.as_ref().is_some_and(|owner| owner.kind == "ReportPipeline" && owner.name == *name);
    if let Some(taken) = scene.observed.taken.iter().find(taken) {
        plan.look_after(TAKEN_AGAIN);
        if leftover(taken) {
            let words = Words::new(
                "Waiting",
                format!("the {} {} of a deleted pipeline of this name is still there", taken.kind, taken.name),
            );
            conditions.set(condition::READY, "False", words.clone());
            conditions.set(condition::RECONCILING, "True", words);
            conditions.set(condition::STALLED, "False", Words::new("Settled", "nobody has to act"));
            return;
        }
        let holder =
            taken.owner.as_ref().map_or("nobody's".to_owned(), |owner| format!("the {} {}'s", owner.kind, owner.name));
        let words = format!(
            "the {} {} is there already and is {holder}; delete it, or rename the pipeline",
            taken.kind, taken.name
        );
        let words = Words::new("NameTaken", words);
        conditions.set(condition::READY, "False", words.clone());
        conditions.set(condition::RECONCILING, "False", settled());
        conditions.set(condition::STALLED, "True", words);
        return;
    }
    let waiting = active.iter().find_map(|run| {
        let message = run.status.message.as_ref().filter(|_| run.status.job_uid.is_some())?;
        Some(format!("; run {}: {message}", run.name))
    });
    let (reason, message) = match &scene.spec.schedule {
        None => ("OnDemand", "there is no schedule; a ReportRun runs it".to_owned()),
        Some(_) if scene.spec.suspend => ("Suspended", "no scheduled run until spec.suspend is false".to_owned()),
        Some(schedule) => ("Scheduled", format!("runs at {schedule} ({})", scene.spec.time_zone())),
    };
    conditions.set(condition::READY, "True", Words::new(reason, message + &waiting.unwrap_or_default()));
    conditions.set(condition::RECONCILING, "False", settled());
    conditions.set(condition::STALLED, "False", Words::new("Settled", "nobody has to act"));
}

/// How the last run ended that says something about the data: one that only gave way to another says nothing.
fn last_run_succeeded(newest: &[&Known], conditions: &mut Conditions) {
    let tells = |run: &&&Known| match run.status.state {
        Some(RunState::Succeeded | RunState::Failed) => true,
        Some(RunState::Skipped) => is_verified(run),
        _ => false,
    };
    let Some(run) = newest.iter().find(tells) else {
        conditions.keep(condition::LAST_RUN_SUCCEEDED);
        return;
    };
    let ending = run.status.conditions.first();
    let reason = ending.map_or_else(|| format!("{:?}", run.status.state), |ending| ending.reason.clone());
    let message = format!("run {}: {}", run.name, run.status.message.as_deref().unwrap_or_default());
    let status = if run.status.state == Some(RunState::Failed) { "False" } else { "True" };
    conditions.set(condition::LAST_RUN_SUCCEEDED, status, Words::new(reason, message));
}

/// Whether the data is younger than asked for. It turns False by the passing of time, so it names its own next look.
fn data_fresh(scene: &Scene, data_as_of: Option<Timestamp>, conditions: &mut Conditions, plan: &mut Plan) {
    let Some(freshness) = &scene.spec.freshness else { return };
    let max_age = SignedDuration::from_secs(i64::try_from(freshness.max_age.seconds()).unwrap_or(i64::MAX));
    let text = &freshness.max_age.0;
    let Some(data_as_of) = data_as_of else {
        conditions.set(condition::DATA_FRESH, "Unknown", Words::new("NoRunYet", "no run has committed data yet"));
        return;
    };
    let left = max_age - scene.now.duration_since(data_as_of);
    if left.is_positive() {
        plan.look_after(left);
        conditions.set(
            condition::DATA_FRESH,
            "True",
            Words::new("Fresh", format!("the data is as of {data_as_of}, and may be {text} old")),
        );
    } else {
        let words = format!(
            "the data is as of {data_as_of}, which is more than {text} ago; status.lastRun says how the last run ended"
        );
        conditions.set(condition::DATA_FRESH, "False", Words::new("Stale", words));
    }
}

/// The end of the last interval that was committed, or found to be unchanged.
fn data_as_of(runs: &[Known]) -> Option<Timestamp> {
    let counts = |run: &&Known| run.status.state == Some(RunState::Succeeded) || is_verified(run);
    runs.iter().filter(counts).filter_map(|run| run.status.result.as_ref()?.interval.map(|interval| interval.end)).max()
}

/// The gaps that the last run that looked at the ledger has seen.
fn missing_intervals(newest: &[&Known], before: Option<MissingIntervals>) -> Option<MissingIntervals> {
    let result = newest.iter().filter(|run| run.has_ended()).find_map(|run| run.status.result.as_ref());
    match result {
        Some(result) if result.interval.is_some() => result.missing_intervals,
        _ => before,
    }
}

/// A run that was skipped because its inputs are those of the last success.
fn is_verified(run: &Known) -> bool {
    run.status.state == Some(RunState::Skipped) && run.status.result.as_ref().is_some_and(|result| result.unchanged)
}

fn ended_at(summary: &RunSummary) -> Option<Timestamp> {
    summary.completion_time.as_ref().map(|time| time.0)
}

fn summary(run: &Known) -> RunSummary {
    let status = &run.status;
    let error = status.result.as_ref().and_then(|result| result.error.as_ref());
    let failed = status.state == Some(RunState::Failed);
    let reason = error.filter(|_| failed).map(|error| error.code.clone());
    RunSummary {
        name: run.name.clone(),
        state: status.state.unwrap_or(RunState::Pending),
        trigger: run.trigger,
        reason: reason.or_else(|| status.conditions.first().filter(|_| failed).map(|ending| ending.reason.clone())),
        message: status.message.clone(),
        rows_written: status.result.as_ref().map(|result| i64::try_from(result.rows_written).unwrap_or(i64::MAX)),
        start_time: status.start_time.clone(),
        completion_time: status.completion_time.clone(),
    }
}

/// All problems in one message, each with its field.
fn problem_list(problems: &[Problem]) -> String {
    let mut text = String::new();
    for (shown, problem) in problems.iter().enumerate() {
        let next = format!("{}{problem}", if shown == 0 { "" } else { "; " });
        let rest = format!("; and {} more", problems.len() - shown);
        if shown == PROBLEMS_MAX || (shown > 0 && text.len() + next.len() + rest.len() > MESSAGE_BYTES_MAX) {
            return text + &rest;
        }
        text += &next;
    }
    text
}

/// Events for what changed: refused, held up, and well again.
fn notes(before: &[Condition], now: &[Condition]) -> Vec<Note> {
    let status_of = |list: &[Condition], type_: &str| list.iter().find(|condition| condition.type_ == type_).cloned();
    let mut notes = Vec::new();
    let note = |warning: bool, reason: &str, message: &str| Note {
        warning,
        reason: reason.into(),
        message: message.into(),
        run: None,
    };
    let (was, is) = (status_of(before, condition::STALLED), status_of(now, condition::STALLED));
    match (was, is) {
        (was, Some(is)) if is.status == "True" && was.as_ref().is_none_or(|was| was.message != is.message) => {
            notes.push(note(true, &is.reason, &is.message));
        }
        (Some(was), Some(is)) if was.status == "True" && is.status == "False" => {
            notes.push(note(false, "Accepted", "the manifest is accepted again"));
        }
        _ => {}
    }
    let (was, is) = (status_of(before, condition::LAST_RUN_SUCCEEDED), status_of(now, condition::LAST_RUN_SUCCEEDED));
    if was.is_some_and(|was| was.status == "False")
        && let Some(is) = is.filter(|is| is.status == "True")
    {
        notes.push(note(false, "Recovered", &is.message));
    }
    let (was, is) = (status_of(before, condition::DATA_FRESH), status_of(now, condition::DATA_FRESH));
    if was.is_some_and(|was| was.status == "True")
        && let Some(is) = is.filter(|is| is.status == "False")
    {
        notes.push(note(true, "DataStale", &is.message));
    }
    notes
}
