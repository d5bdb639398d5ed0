//! A run, stage by stage: plan, extract, transform and stage, check, commit.
//!
//! # Guarantees
//! Whatever fails, wherever, however often: each database sink holds exactly the rows that one clean run would have
//! left. All sinks are staged before the first one commits; once one has, whoever comes next commits the others from
//! what is staged before doing anything else.

use std::sync::Arc;

use jiff::Timestamp;
use report_api::checked::{Checked, SinkKind, SinkMode};
use report_api::interval::Interval;
use report_api::pipeline::WhenBusy;
use report_api::result::{ModelResult, RunResult, SinkResult, SourceResult, Stage, State as RunState};

use crate::check;
use crate::crash;
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::ledger::lake::LakeStore;
use crate::ledger::postgres::PostgresStore;
use crate::ledger::sqlite::SqliteStore;
use crate::ledger::{self, Commit, Ledger, Prepared, State, Store};
use crate::objects::Folder;
use crate::session;
use crate::sink::{self, Owner, PreparedSink, Sink, Window};
use crate::tables::Tables;

/// What to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The pipeline's identity in ledgers: `[installation/]namespace/name`.
    pub identity: String,
    /// The run's id: stable over its attempts.
    pub run_id: String,
    /// The time to run for.
    pub wanted: Wanted,
    /// A scheduled time before this one is not run any more: the schedule was changed or the pipeline resumed.
    pub schedule_epoch: Option<Timestamp>,
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

/// What a run has done so far, also when it fails: the result is made from it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The result so far.
    pub result: RunResult,
}

impl Report {
    /// The report of a run that has just begun.
    pub fn new(request: &Request, now: Timestamp) -> Self {
        let mut report = Self::unknown(now);
        report.result.run_id = Some(request.run_id.clone());
        report
    }

    /// The report of a run whose manifest is not read yet.
    pub fn unknown(now: Timestamp) -> Self {
        let mut result = RunResult::new(RunState::Failed, Stage::Plan);
        result.started = Some(now);
        result.worker_version = Some(env!("CARGO_PKG_VERSION").into());
        Self { result }
    }

    fn skip(&mut self, why: impl Into<String>) {
        self.result.state = RunState::Skipped;
        self.result.skipped = Some(why.into());
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
    let store = open_store(request, checked, env).await?;
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
    let outcome = tokio::select! {
        outcome = Box::pin(work) => outcome,
        error = interrupted => Err(error),
        error = keep_lock(&ledger) => Err(error),
        error = past_deadline(&ledger, checked.timeout_seconds, env) => Err(error),
    };
    finish(report, &outcome, env);
    ledger.keep_result(&report.result.to_json(usize::MAX)).await;
    ledger.release().await;
    outcome
}

/// Puts the ending into the result.
pub fn finish(report: &mut Report, outcome: &Result<()>, env: &Env) {
    let result = &mut report.result;
    if let Err(error) = outcome {
        result.state = RunState::Failed;
        result.error = Some(error.failure());
    }
    result.finished = Some(env.now());
    result.peak_memory_bytes = crate::memory::peak_bytes();
}

/// Everything that is done under the lock.
async fn with_lock(
    request: &Request,
    checked: &Checked,
    env: &Env,
    report: &mut Report,
    ledger: &Ledger,
) -> Result<()> {
    let owner = Owner { identity: request.identity.clone() };
    let mut sinks = Vec::with_capacity(checked.sinks.len());
    for spec in &checked.sinks {
        sinks.push(sink::open(spec, &owner, env)?);
    }
    fence(&mut sinks, ledger).await?;
    crash::point("after_fence");
    complete(checked, &mut sinks, ledger, env).await?;

    let state = ledger.state().await;
    if let Some(last) = state.last.as_ref().filter(|last| last.run_id == request.run_id) {
        // An earlier attempt of this run has committed, and could not say so.
        report.result.interval = Some(last.interval);
        succeed(report, last.sinks.clone());
        return Ok(());
    }
    let Some(interval) = interval(request, checked, &state, &mut sinks, report).await? else { return Ok(()) };
    report.result.interval = Some(interval);
    env.progress.step("plan", "interval", &interval.to_string());

    // Filled by the stages, and the ledger's from the commit on.
    let memory = state.memory.clone();
    let epoch = ledger.epoch().await;
    for sink in &mut sinks {
        sink.clean(epoch, None).await?;
    }

    report.result.stage = Stage::Extract;
    let mut tables = Tables::open(session::open(env)?, checked, env).await?;
    report.result.stage = Stage::Stage;
    let staged = stage(checked, &mut sinks, &mut tables, epoch, env).await;
    note_rows(report, checked, &tables);
    let staged = match staged {
        Ok(staged) => staged,
        Err(error) => return Err(discard(&mut sinks, epoch, error).await),
    };
    crash::point("after_stage");

    report.result.stage = Stage::Check;
    let verdict = decide(checked, &tables, report, env).await;
    note_rows(report, checked, &tables);
    if let Err(error) = verdict {
        return Err(discard(&mut sinks, epoch, error).await);
    }

    report.result.stage = Stage::Commit;
    let prepared = Prepared { run_id: request.run_id.clone(), epoch, interval, sinks: staged, memory };
    crash::point("before_prepared");
    ledger.prepare(prepared.clone()).await?;
    crash::point("after_prepared");
    let committed = commit(&prepared, checked, &mut sinks, ledger, env).await?;
    succeed(report, committed);
    Ok(())
}

/// Opens the ledger: in the first database sink's database, else under the first lake's root.
async fn open_store(request: &Request, checked: &Checked, env: &Env) -> Result<Arc<dyn Store>> {
    for sink in &checked.sinks {
        match &sink.kind {
            SinkKind::Postgres { connection, .. } => {
                let field = format!("{}.postgres.connection", sink.field);
                let url = env.secret(connection, &field)?;
                return Ok(Arc::new(PostgresStore::open(url, &request.identity, &field).await?));
            }
            SinkKind::Sqlite { path, .. } => {
                let field = format!("{}.sqlite.path", sink.field);
                return Ok(Arc::new(SqliteStore::open(path, &request.identity, &field).await?));
            }
            SinkKind::Lake { .. } => {}
        }
    }
    for sink in &checked.sinks {
        if let SinkKind::Lake { url, .. } = &sink.kind {
            return Ok(Arc::new(LakeStore::new(Folder::open(url, env, &format!("{}.lake.url", sink.field))?)));
        }
    }
    Err(RunError::at(Code::ManifestInvalid, "spec.sinks", "there is no sink; name at least one"))
}

/// Raises every sink's fence to this attempt's epoch. A sink that has seen a higher one makes the ledger take one above.
async fn fence(sinks: &mut [Box<dyn Sink + '_>], ledger: &Ledger) -> Result<()> {
    loop {
        let epoch = ledger.epoch().await;
        let mut highest = epoch;
        for sink in sinks.iter_mut() {
            highest = highest.max(sink.fence(epoch).await?);
        }
        if highest == epoch {
            return Ok(());
        }
        ledger.raise(highest).await?;
    }
}

/// Finishes what an earlier run has prepared: if one of its sinks has committed, the others do now; if none has, it is
/// forgotten, and its rows are read anew.
async fn complete(checked: &Checked, sinks: &mut [Box<dyn Sink + '_>], ledger: &Ledger, env: &Env) -> Result<()> {
    let Some(prepared) = ledger.state().await.prepared else { return Ok(()) };
    let mut any = false;
    for staged in &prepared.sinks {
        if let Some(at) = position(checked, sinks, staged) {
            any |= sinks[at].is_committed(staged, &prepared.interval).await?;
        }
    }
    if !any {
        return ledger.forget().await;
    }
    env.progress.step(
        "plan",
        "recovery",
        &format!("run {} had committed some of its sinks; the others follow", prepared.run_id),
    );
    commit(&prepared, checked, sinks, ledger, env).await.map_err(|error| stuck(error, &prepared, ledger))?;
    Ok(())
}

/// A commit that can never succeed must not keep the pipeline from going on for ever: the message says how to let go.
fn stuck(mut error: RunError, prepared: &Prepared, ledger: &Ledger) -> RunError {
    if error.code.class().is_final() {
        error.message = format!(
            "the run {} has committed some of its sinks, and this one refuses: {}. Remove the cause, and the next run \
             completes it; or give this sink's rows of {} up: {}",
            prepared.run_id,
            error.message,
            prepared.interval,
            ledger.how_to_forget()
        );
    }
    error
}

/// The sink of today's manifest that staged this. None if the manifest has dropped it or sends it elsewhere.
fn position(checked: &Checked, sinks: &[Box<dyn Sink + '_>], staged: &PreparedSink) -> Option<usize> {
    checked.sinks.iter().zip(sinks).position(|(spec, sink)| spec.name == staged.name && sink.target() == staged.target)
}

/// Commits every sink from what is staged, then writes that into the ledger.
async fn commit(
    prepared: &Prepared,
    checked: &Checked,
    sinks: &mut [Box<dyn Sink + '_>],
    ledger: &Ledger,
    env: &Env,
) -> Result<Vec<SinkResult>> {
    let window = Window { run_id: prepared.run_id.clone(), epoch: ledger.epoch().await, interval: prepared.interval };
    let mut results = Vec::with_capacity(prepared.sinks.len());
    for (at, staged) in prepared.sinks.iter().enumerate() {
        let Some(sink) = position(checked, sinks, staged).map(|at| &mut sinks[at]) else {
            tracing::warn!(
                sink = staged.name,
                target = staged.target,
                "the manifest no longer has a sink that a dead run had staged; it is left out"
            );
            continue;
        };
        crash::point(&format!("before_commit_{at}"));
        sink.commit(staged, &window).await?;
        crash::point(&format!("after_commit_{at}"));
        env.progress.step("commit", &staged.name, &format!("{} rows into {}", staged.rows, staged.target));
        results.push(SinkResult {
            name: staged.name.clone(),
            rows: staged.rows,
            mode: mode_name(staged).into(),
            target: staged.target.clone(),
        });
    }
    crash::point("before_ledger");
    ledger
        .commit(Commit { run_id: prepared.run_id.clone(), interval: prepared.interval, sinks: results.clone() })
        .await?;
    crash::point("after_ledger");
    Ok(results)
}

fn mode_name(staged: &PreparedSink) -> &'static str {
    match staged.mode {
        sink::PreparedMode::Swap | sink::PreparedMode::ReplaceRows | sink::PreparedMode::ReplaceByKey { .. } => {
            "replace"
        }
        sink::PreparedMode::Append => "append",
        sink::PreparedMode::Merge { .. } => "merge",
    }
}

/// The interval of this run; None if there is nothing to do, which the report then says.
async fn interval(
    request: &Request,
    checked: &Checked,
    state: &State,
    sinks: &mut [Box<dyn Sink + '_>],
    report: &mut Report,
) -> Result<Option<Interval>> {
    let mut until = state.committed_until();
    if until.is_none() {
        // The ledger is new, or was lost or moved: the sinks' own rows say how far each got.
        let mut ends = Vec::with_capacity(sinks.len());
        for sink in sinks.iter_mut() {
            ends.push(sink.committed_until().await?);
        }
        until = ends.into_iter().min().flatten();
    }
    let appends = checked.sinks.iter().any(|sink| sink.mode == SinkMode::Append);
    let interval = match request.wanted {
        Wanted::Exactly(interval) => interval,
        Wanted::Tick(end) | Wanted::Until(end) => {
            let previous_tick = || {
                checked
                    .schedule
                    .as_ref()
                    .and_then(|schedule| schedule.latest_at_or_before(end - jiff::SignedDuration::from_micros(1)))
            };
            let start = until.or_else(previous_tick).unwrap_or(Timestamp::UNIX_EPOCH);
            if end <= start {
                report.skip(format!("everything up to {start} is committed already"));
                return Ok(None);
            }
            Interval { start, end }
        }
    };
    if appends && state.covers(&interval) {
        report.skip(format!("the interval {interval} is committed already, and append adds an interval once"));
        return Ok(None);
    }
    if let Some(overlap) = state.overlap(&interval).filter(|_| appends) {
        return Err(RunError::at(
            Code::IntervalOverlaps,
            "spec.sinks",
            format!(
                "{interval} overlaps {overlap}, which is committed, and a sink appends; ask for the part that is missing"
            ),
        ));
    }
    Ok(Some(interval))
}

/// Runs the models and stages every sink.
async fn stage(
    checked: &Checked,
    sinks: &mut [Box<dyn Sink + '_>],
    tables: &mut Tables<'_>,
    epoch: u64,
    env: &Env,
) -> Result<Vec<PreparedSink>> {
    tables.transform().await?;
    let mut staged = Vec::with_capacity(sinks.len());
    for (at, (spec, sink)) in checked.sinks.iter().zip(sinks).enumerate() {
        let (schema, rows) = tables.rows(&spec.from, &sink.order(), &format!("{}.from", spec.field)).await?;
        let prepared = sink.stage(epoch, schema, rows).await?;
        env.progress.step("stage", &spec.name, &format!("{} rows", prepared.rows));
        staged.push(prepared);
        crash::point(&format!("after_stage_{at}"));
    }
    Ok(staged)
}

async fn decide(checked: &Checked, tables: &Tables<'_>, report: &mut Report, env: &Env) -> Result<()> {
    report.result.checks = check::all(&checked.checks, tables).await?;
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

fn note_rows(report: &mut Report, checked: &Checked, tables: &Tables<'_>) {
    let result = &mut report.result;
    result.sources = checked
        .sources
        .iter()
        .filter_map(|source| {
            let rows = tables.seen(&source.name)?.rows();
            Some(SourceResult { name: source.name.clone(), rows, bytes: tables.input(&source.name)?.bytes })
        })
        .collect();
    result.rows_read = result.sources.iter().map(|source| source.rows).sum();
    result.models = checked
        .models
        .iter()
        .filter_map(|model| {
            let seen = tables.seen(&model.name)?;
            // A model that was merged into the one that reads it has no rows of its own.
            seen.is_complete().then(|| ModelResult { name: model.name.clone(), rows: seen.rows() })
        })
        .collect();
}

fn succeed(report: &mut Report, sinks: Vec<SinkResult>) {
    let result = &mut report.result;
    result.state = RunState::Succeeded;
    result.stage = Stage::Done;
    result.rows_written = sinks.iter().map(|sink| sink.rows).sum();
    result.sinks = sinks;
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
