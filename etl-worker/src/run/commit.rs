//! The sinks of a run as one: fenced, committed one after another, and brought level after a dead run.

use std::collections::BTreeSet;

use jiff::Timestamp;
use report_api::checked::{Checked, SinkMode};
use report_api::result::SinkResult;

use crate::crash;
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::ledger::{Commit, Ledger, Prepared, State};
use crate::sink::{PreparedSink, Sink, Window};

/// Raises every sink's fence to this attempt's epoch. A sink that has seen a higher one makes the ledger take one above.
pub(super) async fn fence(sinks: &mut [Box<dyn Sink + '_>], ledger: &Ledger) -> Result<()> {
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
pub(super) async fn complete(
    checked: &Checked,
    sinks: &mut [Box<dyn Sink + '_>],
    ledger: &Ledger,
    env: &Env,
) -> Result<()> {
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
pub(super) async fn commit(
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
            mode: staged.mode.name().into(),
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

/// How far every sink says that it got. It counts where the ledger is new, was lost or has moved.
pub(super) async fn sinks_until(sinks: &mut [Box<dyn Sink + '_>]) -> Result<Option<Timestamp>> {
    let mut ends = Vec::with_capacity(sinks.len());
    for sink in sinks {
        ends.push(sink.committed_until().await?);
    }
    Ok(ends.into_iter().min().flatten())
}

/// Refuses to go on where a sink that only gets new rows has not all the rows before them: it is new, was moved, or its
/// database was set back. Going on would leave a hole that nobody sees.
pub(super) async fn refuse_behind(checked: &Checked, sinks: &mut [Box<dyn Sink + '_>], state: &State) -> Result<()> {
    let Some(last) = state.last.as_ref().map(|last| last.interval.end) else { return Ok(()) };
    let fed = fed_by_new_rows(checked, state);
    for (spec, sink) in checked.sinks.iter().zip(sinks) {
        if !fed.contains(spec.from.as_str()) || matches!(spec.mode, SinkMode::Replace(_)) {
            continue;
        }
        let until = sink.committed_until().await?;
        if until.is_none_or(|until| until < last) {
            let has = until.map_or_else(|| "nothing".to_owned(), |until| format!("the rows up to {until}"));
            let message = format!(
                "{} has {has}, the pipeline is at {last}, and only new rows would come; run once with fullRefresh: true, \
                 which reads all rows again for all sinks",
                sink.target()
            );
            return Err(RunError::at(Code::SinkBehind, &spec.field, message));
        }
    }
    Ok(())
}

/// The sources that are read from a watermark on, and the models over them.
fn fed_by_new_rows<'c>(checked: &'c Checked, state: &State) -> BTreeSet<&'c str> {
    let mut fed: BTreeSet<&str> = (checked.sources.iter())
        .filter(|source| source.incremental.is_some() && state.memory.watermarks.contains_key(&source.name))
        .map(|source| source.name.as_str())
        .collect();
    for model in &checked.models {
        if model.reads.iter().any(|name| fed.contains(name.as_str())) {
            fed.insert(&model.name);
        }
    }
    fed
}
