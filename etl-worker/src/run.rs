//! A run, stage by stage: plan, extract, transform and stage, check, commit.
//!
//! # Guarantees
//! Whatever fails, wherever, however often: each database sink holds exactly the rows that one clean run would have
//! left. All sinks are staged before the first one commits; once one has, whoever comes next commits the others from
//! what is staged before doing anything else.

mod commit;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use report_api::checked::{Checked, SinkMode};
use report_api::interval::Interval;
use report_api::pipeline::WhenBusy;
use report_api::result::{MissingIntervals, SinkResult, Stage};
use report_api::sink::ReplaceBy;
use report_api::template::Values;

use self::commit::{commit, complete, fence, refuse_behind, sinks_until};
pub use self::report::{Report, finish};
use self::report::{note_rows, succeed};
use crate::check;
use crate::crash;
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::fill;
use crate::intervals::{self, Planned};
use crate::ledger::{self, Ledger, Memory, Prepared, State};
use crate::observe::Incoming;
use crate::raw::Raw;
use crate::session::{self, Parameters};
use crate::sink::{self, Owner, PreparedSink, Sink};
use crate::source::Reading;
use crate::tables::Tables;
use crate::unchanged::Fingerprint;

/// What to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The pipeline's identity in ledgers: `[installation/]namespace/name`.
    pub identity: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// The run's id: stable over its attempts.
    pub run_id: String,
    /// The time to run for.
    pub wanted: Wanted,
    /// A scheduled time before this one is not run any more: the schedule was changed or the pipeline resumed.
    pub schedule_epoch: Option<Timestamp>,
    /// Whether to read everything again and to take the place of all rows, also where a sink appends or merges.
    pub full_refresh: bool,
}

/// The time that a run is asked to cover.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// From the end of the last committed interval to this scheduled time.
    Tick(Timestamp),
    /// From the end of the last committed interval to this time.
    Until(Timestamp),
    /// Exactly this.
    Exactly(Interval),
}

impl Wanted {
    /// Up to when.
    pub fn end(&self) -> Timestamp {
        match self {
            Self::Tick(end) | Self::Until(end) => *end,
            Self::Exactly(interval) => interval.end,
        }
    }
}

/// Runs a pipeline. The report says what was done, also when this fails. `interrupted` ends the run when it is ready:
/// the worker was asked to stop, or memory runs out.
pub async fn run(
    request: &Request,
    checked: &Checked,
    env: &Env,
    report: &mut Report,
    interrupted: impl Future<Output = RunError>,
) -> Result<()> {
    if let (Wanted::Tick(tick), Some(since)) = (request.wanted, request.schedule_epoch)
        && tick < since
    {
        report.skip(format!(
            "the schedule has changed or was resumed at {since}, after this tick; the next run covers it"
        ));
        return Ok(());
    }
    let store = ledger::open::open(&request.identity, checked, env).await?;
    let ledger = match Ledger::acquire(Arc::clone(&store), &request.run_id, "spec").await {
        Err(error) if error.code == Code::Busy && checked.when_busy == WhenBusy::Skip => {
            report.skip(error.message);
            return Ok(());
        }
        other => other?,
    };
    env.progress.step("plan", "lock", &format!("epoch {}", ledger.epoch().await));
    crash::point("after_lock");

    let work = with_lock(request, checked, env, report, &ledger);
    let is_masked = checked.sources.iter().any(|source| !source.masks.is_empty());
    let outcome = tokio::select! {
        outcome = Box::pin(work) => outcome,
        error = interrupted => Err(error),
        error = keep_lock(&ledger) => Err(error),
        error = past_deadline(&ledger, checked.timeout_seconds, env) => Err(error),
    };
    let outcome = outcome.map_err(|error| if is_masked { error.without_values() } else { error });
    let outcome = match outcome {
        // Its successor has removed what it staged: whatever it met then is no fault of the manifest's, and no reason for
        // the Job to end.
        Err(error) if error.code != Code::Fenced && ledger.is_taken_over().await => {
            tracing::warn!(
                code = error.code.as_str(),
                field = error.field,
                "after its lock was lost: {}",
                error.text()
            );
            Err(RunError::fenced("spec"))
        }
        other => other,
    };
    finish(report, &outcome, env);
    ledger.keep_result(&report.result.whole()).await;
    ledger.release().await;
    outcome
}

/// Everything that is done under the lock.
async fn with_lock(
    request: &Request,
    checked: &Checked,
    env: &Env,
    report: &mut Report,
    ledger: &Ledger,
) -> Result<()> {
    let refreshed = request.full_refresh.then(|| refreshed(checked));
    let checked = refreshed.as_ref().unwrap_or(checked);
    let owner = Owner { identity: request.identity.clone() };
    let mut sinks = Vec::with_capacity(checked.sinks.len());
    for spec in &checked.sinks {
        sinks.push(sink::open(spec, &owner, env)?);
    }
    fence(&mut sinks, ledger).await?;
    crash::point("after_fence");
    complete(checked, &mut sinks, ledger, env).await?;
    crash::point("after_complete");

    let state = ledger.state().await;
    // Also a run that fails or has nothing to do tells of the gaps.
    report.result.missing_intervals = missing(&state, checked);
    if !request.full_refresh {
        refuse_behind(checked, &mut sinks, &state).await?;
    }
    let until = match state.committed_until() {
        None => sinks_until(&mut sinks).await?,
        until => until,
    };
    let steps = match intervals::plan(request, checked, &state, until)? {
        Planned::Steps(steps) => steps,
        Planned::Nothing(why) => {
            match state.last.filter(|last| last.run_id == request.run_id) {
                // An earlier attempt of this run has committed, and could not say so.
                Some(last) => succeed(report, last.interval, last.sinks),
                None => report.skip(why),
            }
            return Ok(());
        }
    };
    let whole = steps.whole();
    env.progress.step("plan", "interval", &whole.to_string());
    for (at, interval) in steps.enumerate() {
        if at > 0 {
            // An epoch of its own for each step: by it the sinks tell one step's commit from another's.
            ledger.raise(ledger.epoch().await).await?;
            fence(&mut sinks, ledger).await?;
            env.progress.step("plan", "interval", &interval.to_string());
        }
        report.result.interval = Some(Interval { start: whole.start, ..interval });
        match one_interval(request, checked, interval, &mut sinks, ledger, env, report).await? {
            Some(committed) => succeed(report, interval, committed),
            None => {
                report.skip("all inputs are unchanged since the last good run, and so is the manifest");
                report.result.unchanged = true;
            }
        }
    }
    report.result.missing_intervals = missing(&ledger.state().await, checked);
    Ok(())
}

/// Reads, stages, checks and commits one interval. Gives what each sink committed; None where a scheduled run finds all
/// as the last good run has read it.
async fn one_interval(
    request: &Request,
    checked: &Checked,
    interval: Interval,
    sinks: &mut [Box<dyn Sink + '_>],
    ledger: &Ledger,
    env: &Env,
    report: &mut Report,
) -> Result<Option<Vec<SinkResult>>> {
    // Filled by the stages, and the ledger's from the commit on.
    let mut memory = ledger.state().await.memory;
    let epoch = ledger.epoch().await;
    for sink in &mut *sinks {
        sink.clean(epoch, None).await?;
    }

    report.result.stage = Stage::Extract;
    let values = Values {
        interval,
        run_id: request.run_id.clone(),
        pipeline: request.pipeline.clone(),
        namespace: request.namespace.clone(),
    };
    let checked = &fill::templates(checked, &values)?;
    let parameters = Parameters { interval, run_id: request.run_id.clone() };
    let context = session::open(env, parameters)?;
    // Each step of a run has inputs and bad rows of its own; all attempts at a step have the same.
    let step = match checked.max_interval_seconds {
        Some(_) => format!("{}-{}", request.run_id, interval.start.as_second()),
        None => request.run_id.clone(),
    };
    let raw = match &checked.raw {
        Some(raw) => {
            let raw = Raw::open(raw, &request.identity, &step, env)?;
            raw.clean(env.now()).await?;
            Some(raw)
        }
        None => None,
    };
    let watermarks = if request.full_refresh { BTreeMap::new() } else { memory.watermarks.clone() };
    let reading = Reading { watermarks: &watermarks, until: Some(interval.end), raw: raw.as_ref() };
    let mut tables = Tables::open(context.clone(), checked, env, reading).await?;
    let mut fingerprint = Fingerprint::begin(checked, &context, |source| tables.input(source));
    let is_scheduled = matches!(request.wanted, Wanted::Tick(_));
    if is_scheduled && memory.fingerprint.is_some() && memory.fingerprint == fingerprint.get().await? {
        // A sink that was moved since is empty.
        if sinks_until(sinks).await?.is_some() {
            ledger.verify(interval).await?;
            return Ok(None);
        }
    }
    tables.logs_mut().remember(memory.columns.clone());
    report.result.stage = Stage::Stage;
    let staged = stage(checked, sinks, &mut tables, epoch, &interval, env).await;
    note_rows(report, checked, &tables);
    let staged = keep_rejected(&tables, ledger, &step, staged).await;
    let staged = match staged {
        Ok(staged) => staged,
        Err(error) => return Err(discard(sinks, epoch, error).await),
    };
    crash::point("after_stage");

    report.result.stage = Stage::Check;
    let verdict = decide(checked, &tables, report, &memory, env).await;
    note_rows(report, checked, &tables);
    // Checks may have read on in a source.
    let verdict = verdict.and(tables.logs().verdict());
    let verdict = keep_rejected(&tables, ledger, &step, verdict).await;
    if let Err(error) = verdict {
        return Err(discard(sinks, epoch, error).await);
    }
    check::remember(&checked.checks, &tables, &mut memory.baselines);

    memory.fingerprint = match fingerprint.get().await {
        Ok(fingerprint) => fingerprint,
        Err(error) => return Err(discard(sinks, epoch, error).await),
    };
    note_watermarks(&mut memory, checked, &tables);
    report.result.stage = Stage::Commit;
    memory.columns = tables.logs().recorded();
    memory.columns.retain(|name, _| checked.sources.iter().any(|source| source.name == *name));
    let prepared = Prepared { run_id: request.run_id.clone(), epoch, interval, sinks: staged, memory };
    crash::point("before_prepared");
    ledger.prepare(prepared.clone()).await?;
    crash::point("after_prepared");
    commit(&prepared, checked, sinks, ledger, env).await.map(Some)
}

/// The manifest for a run that takes the place of all rows.
fn refreshed(checked: &Checked) -> Checked {
    let mut checked = checked.clone();
    for sink in &mut checked.sinks {
        match &sink.mode {
            SinkMode::Replace(_) => {}
            SinkMode::Append => sink.mode = SinkMode::Replace(ReplaceBy::default()),
            SinkMode::Merge { key, latest_by: None, delete_when: None, only_if_newer: _ } => {
                sink.primary_key.clone_from(key);
                sink.mode = SinkMode::Replace(ReplaceBy::default());
            }
            // These say of each row what becomes of it, which only a merge does.
            SinkMode::Merge { .. } => {}
            SinkMode::DeleteInsert(_) => sink.mode = SinkMode::Replace(ReplaceBy::default()),
        }
    }
    checked
}

/// The gaps in what is committed.
fn missing(state: &State, checked: &Checked) -> Option<MissingIntervals> {
    let gaps = state.missing(checked.initial);
    let oldest = *gaps.first()?;
    Some(MissingIntervals { count: u32::try_from(gaps.len()).unwrap_or(u32::MAX), oldest })
}

/// Runs the models and stages every sink.
async fn stage(
    checked: &Checked,
    sinks: &mut [Box<dyn Sink + '_>],
    tables: &mut Tables<'_>,
    epoch: u64,
    interval: &Interval,
    env: &Env,
) -> Result<Vec<PreparedSink>> {
    tables.transform().await?;
    let mut staged = Vec::with_capacity(sinks.len());
    for (at, (spec, sink)) in checked.sinks.iter().zip(sinks).enumerate() {
        let (schema, rows) = tables.rows(&spec.from, &sink.order(), &format!("{}.from", spec.field)).await?;
        let incoming = Incoming { schema, rows, session: tables.session() };
        let prepared = sink.stage(epoch, interval, incoming).await?;
        env.progress.step("stage", &spec.name, &format!("{} rows", prepared.rows));
        staged.push(prepared);
        crash::point(&format!("after_stage_{at}"));
    }
    Ok(staged)
}

/// Writes the rejected rows of the sources into the ledger, whatever has come of the stage. Rows that can't be kept must
/// not be left out silently: a good stage fails with them.
async fn keep_rejected<T>(tables: &Tables<'_>, ledger: &Ledger, step: &str, outcome: Result<T>) -> Result<T> {
    let outcome = outcome.and_then(|staged| tables.logs().verdict().map(|()| staged));
    let Some(rows) = tables.logs().rejected() else { return outcome };
    match (ledger.keep_rejected(step, &rows).await, outcome) {
        (Ok(()), outcome) => outcome,
        (Err(error), Ok(_)) => Err(error),
        (Err(also), Err(error)) => {
            tracing::warn!(code = also.code.as_str(), "rejected rows could not be kept in the ledger: {also}");
            Err(error)
        }
    }
}

async fn decide(checked: &Checked, tables: &Tables<'_>, report: &mut Report, memory: &Memory, env: &Env) -> Result<()> {
    report.result.checks = check::all(&checked.checks, tables, env.now(), &memory.baselines).await?;
    for check in &report.result.checks {
        env.progress.step("check", &check.name, check.message.as_deref().unwrap_or("holds"));
    }
    check::verdict(&checked.checks, &report.result.checks)
}

/// Removes what was staged, and passes the error on. What can't be removed now, the next run removes.
async fn discard(sinks: &mut [Box<dyn Sink + '_>], epoch: u64, error: RunError) -> RunError {
    for sink in sinks {
        if let Err(also) = sink.clean(epoch + 1, None).await {
            tracing::warn!(
                code = also.code.as_str(),
                "what was staged could not be removed; the next run removes it: {also}"
            );
        }
    }
    error
}

/// What the next run goes on from. A source that nobody reads keeps what it has; one that is read whole has nothing.
fn note_watermarks(memory: &mut Memory, checked: &Checked, tables: &Tables<'_>) {
    for source in &checked.sources {
        match (&source.incremental, tables.window(&source.name)) {
            (None, _) => {
                memory.watermarks.remove(&source.name);
            }
            (Some(_), Some((window, is_complete))) => {
                if let Some(watermark) = window.watermark(is_complete) {
                    memory.watermarks.insert(source.name.clone(), watermark);
                }
            }
            (Some(_), None) => {}
        }
    }
}

/// Renews the lock until it is lost.
async fn keep_lock(ledger: &Ledger) -> RunError {
    loop {
        tokio::time::sleep(ledger::RENEWAL).await;
        match ledger.renew().await {
            Err(error) if error.code == Code::Fenced => return error,
            Err(error) => {
                tracing::warn!(code = error.code.as_str(), "the lock could not be renewed; trying again: {error}")
            }
            Ok(()) => {}
        }
    }
}

/// Ends when the run's time, over all attempts, is up.
async fn past_deadline(ledger: &Ledger, timeout_seconds: u64, env: &Env) -> RunError {
    let timeout = jiff::SignedDuration::from_secs(i64::try_from(timeout_seconds).unwrap_or(i64::MAX));
    let started = ledger.state().await.attempt.map_or_else(|| env.now(), |attempt| attempt.started);
    let left = timeout.saturating_sub(env.now().duration_since(started));
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    RunError::at(
        Code::TimeoutExceeded,
        "spec.timeout",
        format!(
            "the run has taken {timeout_seconds} s over all its attempts; raise the timeout, or make the run smaller"
        ),
    )
}
