//! What a pipeline remembers between runs, and the lock that lets one run at a time change it.
//!
//! # Flow
//! The ledger is one small document per pipeline, changed only by compare-and-set on its version: [`Ledger::acquire`]
//! takes the lock with a new epoch, [`Ledger::prepare`] records that all sinks are staged, [`Ledger::commit`] that all
//! are committed, [`Ledger::release`] lets go.
//!
//! # Guarantees
//! Whoever has the lock has the highest epoch. A run whose lock has expired loses it to the next one; its own later
//! changes fail as `fenced`, and its commits fail at the sinks, which know the newer epoch.
//!
//! # Caveats
//! The lock's expiry goes by the store's clock where it has one (databases) and by the worker's otherwise. A wrong clock
//! can make a run wait or end another one, never let two commit.

pub mod lake;
pub mod mysql;
pub mod open;
pub mod peek;
pub mod postgres;
pub mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use report_api::interval::Interval;
use report_api::result::SinkResult;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::decode::RecordedColumns;
use crate::error::{Code, Result, RunError};
use crate::rejected::RejectedRow;
use crate::sink::PreparedSink;
use crate::source::window::Watermark;

/// How long a lock holds that is not renewed: three renewals may fail before another run takes over.
const LOCK: SignedDuration = SignedDuration::from_secs(60);
/// How often it is renewed.
pub const RENEWAL: std::time::Duration = std::time::Duration::from_secs(15);
/// Committed intervals kept apart; adjacent ones are one.
const INTERVALS_MAX: usize = 1000;
/// Results kept per pipeline.
const RESULTS_KEPT: i64 = 1000;
/// The version of the document's format.
const FORMAT: u32 = 1;
/// How often a change is tried against others that change the document at the same time.
const CONFLICTS_MAX: usize = 20;

/// Keeps the documents.
#[async_trait]
pub trait Store: Send + Sync {
    /// The document's version and text; version 0 without text where there is none.
    async fn read(&self) -> Result<(u64, Option<String>)>;
    /// Writes the version after `known`; false if the document is no longer at `known`.
    async fn write(&self, known: u64, text: &str) -> Result<bool>;
    /// The store's time.
    async fn now(&self) -> Result<Timestamp>;
    /// Keeps a run's whole result, for people.
    async fn keep_result(&self, run_id: &str, result: &str) -> Result<()>;
    /// Keeps the rejected rows of a run in the place of those that an earlier attempt of it has kept, and lets go of those
    /// of old runs, all at once.
    async fn keep_rejected(&self, run_id: &str, rows: &[RejectedRow]) -> Result<()>;
    /// What it is, for messages.
    fn name(&self) -> String;
    /// What a person does to make the ledger forget what a run has prepared.
    fn how_to_forget(&self) -> String;
}

/// The document.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// The version of this format.
    pub format: u32,
    /// The highest epoch that was given out.
    pub epoch: u64,
    /// Who may change the pipeline's data.
    pub lock: Option<Lock>,
    /// The run that is under way or was last, and when its first attempt began.
    pub attempt: Option<Attempt>,
    /// Staged by all sinks, not yet committed by all.
    pub prepared: Option<Prepared>,
    /// The intervals that all sinks have committed, in order, adjacent ones joined.
    pub committed: Vec<Interval>,
    /// The last commit.
    pub last: Option<Commit>,
    /// What the last commit left for the next run.
    pub memory: Memory,
}

/// What a good run leaves for the next one besides its rows. It becomes the ledger's with the commit of all sinks, also
/// when another run completes that commit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// For each incremental source the exclusive upper bound of the cursor values that are committed.
    pub watermarks: BTreeMap<String, Watermark>,
    /// What the last good run was made from, where that can be known ([`crate::unchanged`]).
    pub fingerprint: Option<String>,
    /// For each source the columns that it had.
    pub columns: BTreeMap<String, RecordedColumns>,
    /// What checks compare later runs with.
    pub baselines: crate::check::Baselines,
}

/// Who may change the pipeline's data, and until when.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// The run.
    pub run_id: String,
    /// Its epoch: two attempts of one run have two.
    pub epoch: u64,
    /// When the lock is anyone's.
    pub expires: Timestamp,
}

/// When a run's first attempt began.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The run.
    pub run_id: String,
    /// When it first had the lock.
    pub started: Timestamp,
}

/// Staged by all sinks, not yet committed by all.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prepared {
    /// The run that staged.
    pub run_id: String,
    /// Its epoch then.
    pub epoch: u64,
    /// What for.
    pub interval: Interval,
    /// What each sink staged.
    pub sinks: Vec<PreparedSink>,
    /// What the run leaves for the next one.
    #[serde(default)]
    pub memory: Memory,
}

/// A commit by all sinks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    /// The run.
    pub run_id: String,
    /// What for.
    pub interval: Interval,
    /// What each sink committed.
    pub sinks: Vec<SinkResult>,
}

impl State {
    /// The end of the newest committed interval.
    pub fn committed_until(&self) -> Option<Timestamp> {
        self.committed.iter().map(|interval| interval.end).max()
    }

    /// The start of the oldest committed interval.
    pub fn committed_from(&self) -> Option<Timestamp> {
        self.committed.iter().map(|interval| interval.start).min()
    }

    /// The stretches between committed intervals, and between `initial` and the first one, the oldest first.
    pub fn missing(&self, initial: Option<Timestamp>) -> Vec<Interval> {
        let ends = initial.into_iter().chain(self.committed.iter().map(|interval| interval.end));
        let starts = self.committed.iter().map(|interval| interval.start);
        let starts = starts.skip(usize::from(initial.is_none()));
        ends.zip(starts).filter(|(end, start)| end < start).map(|(start, end)| Interval { start, end }).collect()
    }

    /// Whether an interval lies in committed ones.
    pub fn covers(&self, interval: &Interval) -> bool {
        self.committed.iter().any(|done| done.start <= interval.start && interval.end <= done.end)
    }

    /// A committed interval that has a part of this one.
    pub fn overlap(&self, interval: &Interval) -> Option<&Interval> {
        self.committed.iter().find(|done| done.overlaps(interval))
    }

    fn add_committed(&mut self, interval: Interval) {
        self.committed.push(interval);
        self.committed.sort_by_key(|interval| interval.start);
        let mut joined: Vec<Interval> = Vec::with_capacity(self.committed.len());
        for interval in self.committed.drain(..) {
            match joined.last_mut() {
                Some(last) if interval.start <= last.end => last.end = last.end.max(interval.end),
                _ => joined.push(interval),
            }
        }
        let excess = joined.len().saturating_sub(INTERVALS_MAX);
        self.committed = joined.split_off(excess);
    }
}

/// A pipeline's ledger while a run has its lock.
pub struct Ledger {
    store: Arc<dyn Store>,
    run_id: String,
    state: Mutex<(u64, State)>,
    field: String,
}

impl Ledger {
    /// Takes the lock. Another run that has it and is alive makes this fail as `busy`; an earlier attempt of the same
    /// run is taken over, since the Job starts an attempt only when the one before has ended or is lost.
    pub async fn acquire(store: Arc<dyn Store>, run_id: &str, field: &str) -> Result<Self> {
        for _ in 0..CONFLICTS_MAX {
            let (version, mut state) = read(&*store).await?;
            let now = store.now().await?;
            if let Some(lock) = &state.lock
                && lock.run_id != run_id
                && lock.expires > now
            {
                return Err(RunError::new(
                    Code::Busy,
                    format!("the run {} of this pipeline is under way; this one waits for its end", lock.run_id),
                ));
            }
            if state.format > FORMAT {
                return Err(RunError::at(
                    Code::ManifestInvalid,
                    field,
                    format!("the ledger in {} was written by a newer worker; use that version", store.name()),
                ));
            }
            state.format = FORMAT;
            state.epoch += 1;
            state.lock = Some(Lock { run_id: run_id.into(), epoch: state.epoch, expires: now + LOCK });
            if state.attempt.as_ref().is_none_or(|attempt| attempt.run_id != run_id) {
                state.attempt = Some(Attempt { run_id: run_id.into(), started: now });
            }
            if write(&*store, version, &state).await? {
                let ledger =
                    Self { store, run_id: run_id.into(), state: Mutex::new((version + 1, state)), field: field.into() };
                return Ok(ledger);
            }
        }
        Err(conflict(&*store))
    }

    /// What the document says now.
    pub async fn state(&self) -> State {
        self.state.lock().await.1.clone()
    }

    /// This attempt's epoch.
    pub async fn epoch(&self) -> u64 {
        self.state.lock().await.1.epoch
    }

    /// Takes an epoch above `floor`: a sink has seen a higher one than the ledger, which was moved or lost.
    pub async fn raise(&self, floor: u64) -> Result<()> {
        self.change(|state, now| {
            state.epoch = state.epoch.max(floor) + 1;
            state.lock = Some(Lock { run_id: self.run_id.clone(), epoch: state.epoch, expires: now + LOCK });
        })
        .await
    }

    /// Keeps the lock for another while.
    pub async fn renew(&self) -> Result<()> {
        self.change(|state, now| {
            if let Some(lock) = &mut state.lock {
                lock.expires = now + LOCK;
            }
        })
        .await
    }

    /// Whether another run, or another attempt of this one, has the lock. Not if the ledger can't be asked.
    pub async fn is_taken_over(&self) -> bool {
        let held = self.state.lock().await.1.epoch;
        read(&*self.store).await.is_ok_and(|(_, state)| state.epoch > held)
    }

    /// Records that all sinks are staged. From here on the run is completed, by this attempt or by whoever comes next.
    pub async fn prepare(&self, prepared: Prepared) -> Result<()> {
        self.change(|state, _| state.prepared = Some(prepared.clone())).await
    }

    /// Forgets what was staged and that no sink has committed.
    pub async fn forget(&self) -> Result<()> {
        self.change(|state, _| state.prepared = None).await
    }

    /// What a person does to make the ledger forget what a run has prepared.
    pub fn how_to_forget(&self) -> String {
        self.store.how_to_forget()
    }

    /// Records that all sinks have committed.
    pub async fn commit(&self, commit: Commit) -> Result<()> {
        self.change(|state, _| {
            if let Some(prepared) = state.prepared.take() {
                state.memory = prepared.memory;
            }
            state.add_committed(commit.interval);
            state.last = Some(commit.clone());
        })
        .await
    }

    /// Records that an interval needs no rows: everything is as the last good run read it.
    pub async fn verify(&self, interval: Interval) -> Result<()> {
        self.change(|state, _| state.add_committed(interval)).await
    }

    /// Lets go of the lock. An error is only worth a line in the log: the lock expires.
    pub async fn release(&self) {
        if let Err(error) = self.change(|state, _| state.lock = None).await {
            tracing::warn!(code = error.code.as_str(), "the lock could not be released; it expires by itself: {error}");
        }
    }

    /// Keeps the run's whole result, for people. An error is only worth a line in the log.
    pub async fn keep_result(&self, result: &str) {
        if let Err(error) = self.store.keep_result(&self.run_id, result).await {
            tracing::warn!(code = error.code.as_str(), "the result could not be kept in the ledger: {error}");
        }
    }

    /// Keeps the rejected rows of a step of the run, in a transaction of their own. `step` is the run's id where it has
    /// one step only.
    pub async fn keep_rejected(&self, step: &str, rows: &[RejectedRow]) -> Result<()> {
        self.store.keep_rejected(step, rows).await
    }

    async fn change(&self, change: impl Fn(&mut State, Timestamp)) -> Result<()> {
        let mut held = self.state.lock().await;
        for _ in 0..CONFLICTS_MAX {
            let now = self.store.now().await?;
            let mut next = held.1.clone();
            change(&mut next, now);
            if write(&*self.store, held.0, &next).await? {
                *held = (held.0 + 1, next);
                return Ok(());
            }
            // Somebody else wrote: another run that took over, or this one, whose answer got lost on its way.
            let (version, state) = read(&*self.store).await?;
            let is_ours =
                state.lock.as_ref().is_some_and(|lock| lock.run_id == self.run_id && lock.epoch == held.1.epoch)
                    || state == next;
            if !is_ours {
                return Err(RunError::fenced(&self.field));
            }
            *held = (version, state);
        }
        Err(conflict(&*self.store))
    }
}

async fn read(store: &dyn Store) -> Result<(u64, State)> {
    let (version, text) = store.read().await?;
    let state = match text {
        None => State::default(),
        Some(text) => parse(&text, &store.name())?,
    };
    Ok((version, state))
}

fn parse(text: &str, name: &str) -> Result<State> {
    serde_json::from_str(text)
        .map_err(|error| RunError::new(Code::Internal, format!("the ledger in {name} can't be read")).caused_by(error))
}

async fn write(store: &dyn Store, known: u64, state: &State) -> Result<bool> {
    let text = serde_json::to_string(state)
        .map_err(|error| RunError::new(Code::Internal, "the ledger can't be written down").caused_by(error))?;
    store.write(known, &text).await
}

fn conflict(store: &dyn Store) -> RunError {
    RunError::new(Code::LedgerUnreachable, format!("the ledger in {} is changed by others all the time", store.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        Interval { start: Timestamp::from_second(start).unwrap(), end: Timestamp::from_second(end).unwrap() }
    }

    #[test]
    fn adjacent_intervals_become_one() {
        let mut state = State::default();
        for (start, end) in [(20, 30), (0, 10), (10, 20), (50, 60)] {
            state.add_committed(interval(start, end));
        }
        assert_eq!(state.committed, [interval(0, 30), interval(50, 60)]);
        assert!(state.covers(&interval(5, 25)));
        assert!(!state.covers(&interval(25, 35)));
        assert_eq!(state.overlap(&interval(25, 35)), Some(&interval(0, 30)));
        assert_eq!(state.overlap(&interval(30, 50)), None);
        assert_eq!(state.committed_until(), Some(Timestamp::from_second(60).unwrap()));
    }

    #[test]
    fn what_lies_between_committed_intervals_is_missing() {
        let state = |spans: &[(i64, i64)]| State {
            committed: spans.iter().map(|(start, end)| interval(*start, *end)).collect(),
            ..State::default()
        };
        let at = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        for (committed, initial, want) in [
            (&[][..], None, &[][..]),
            (&[], at(5), &[]),
            (&[(0, 10)], None, &[]),
            (&[(0, 10), (20, 30), (40, 50)], None, &[(10, 20), (30, 40)]),
            (&[(10, 20)], at(5), &[(5, 10)]),
            (&[(10, 20)], at(10), &[]),
            (&[(10, 20), (30, 40)], at(15), &[(20, 30)]),
        ] {
            let want: Vec<_> = want.iter().map(|(start, end)| interval(*start, *end)).collect();
            assert_eq!(state(committed).missing(initial), want, "{committed:?} from {initial:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut state = State::default();
        for n in 0..(INTERVALS_MAX as i64 + 10) {
            state.add_committed(interval(n * 10, n * 10 + 5));
        }
        assert_eq!(state.committed.len(), INTERVALS_MAX);
        assert_eq!(state.committed_until(), Some(Timestamp::from_second((INTERVALS_MAX as i64 + 9) * 10 + 5).unwrap()));
    }
}
