//! What a run has done so far: the result is made from it, also when the run fails.

use jiff::Timestamp;
use report_api::checked::Checked;
use report_api::interval::Interval;
use report_api::result::{ModelResult, RunResult, SinkResult, SourceResult, Stage, State as RunState};

use super::Request;
use crate::env::Env;
use crate::error::Result;
use crate::tables::Tables;

/// What a run has done so far, also when it fails: the result is made from it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The result so far.
    pub result: RunResult,
    /// What it was at the last commit of this run: with `maxInterval` a run has several.
    before: RunResult,
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
        Self { before: result.clone(), result }
    }

    pub(super) fn skip(&mut self, why: impl Into<String>) {
        self.result.state = RunState::Skipped;
        self.result.skipped = Some(why.into());
    }
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

/// Puts what this interval's sources and models gave into the result, with that of the run's intervals before it.
pub(super) fn note_rows(report: &mut Report, checked: &Checked, tables: &Tables<'_>) {
    let before = &report.before;
    let result = &mut report.result;
    result.sources = checked
        .sources
        .iter()
        .filter_map(|source| {
            let before = before.sources.iter().find(|before| before.name == source.name);
            let log = tables.logs().get(&source.name);
            let mut changes = before.map_or_else(Vec::new, |before| before.changes.clone());
            changes.extend(log.map_or_else(Vec::new, |log| log.changes()));
            Some(SourceResult {
                name: source.name.clone(),
                rows: before.map_or(0, |before| before.rows) + tables.seen(&source.name)?.rows(),
                bytes: before.map_or(0, |before| before.bytes) + tables.input(&source.name)?.bytes(),
                bad_rows: before.map_or(0, |before| before.bad_rows) + log.map_or(0, |log| log.bad_rows()),
                changes,
                watermark: tables.window(&source.name).map(|(window, is_complete)| window.result(is_complete)),
            })
        })
        .collect();
    result.rows_read = result.sources.iter().map(|source| source.rows).sum();
    result.models = checked
        .models
        .iter()
        .filter_map(|model| {
            let before = before.models.iter().find(|before| before.name == model.name).map_or(0, |before| before.rows);
            let seen = tables.seen(&model.name)?;
            // A model that was merged into the one that reads it has no rows of its own.
            seen.is_complete().then(|| ModelResult { name: model.name.clone(), rows: before + seen.rows() })
        })
        .collect();
}

/// Puts a commit into the result.
pub(super) fn succeed(report: &mut Report, interval: Interval, mut sinks: Vec<SinkResult>) {
    for sink in &mut sinks {
        let before = report.before.sinks.iter().find(|before| before.name == sink.name);
        sink.rows += before.map_or(0, |before| before.rows);
    }
    let result = &mut report.result;
    result.state = RunState::Succeeded;
    result.stage = Stage::Done;
    result.interval =
        Some(Interval { start: report.before.interval.map_or(interval.start, |all| all.start), ..interval });
    result.rows_written = sinks.iter().map(|sink| sink.rows).sum();
    result.sinks = sinks;
    report.before = result.clone();
}
