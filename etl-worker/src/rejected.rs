//! Bad rows of sources: counted while they are read, kept with their places, and written into the ledger at the end of
//! the stage, also when the run fails.
//!
//! Guarantees: the count is exact, whatever is kept of the rows is bounded, and nothing of a row of a masked source is
//! kept but its place and a keyed hash. Memory: [`KEPT_BYTES_MAX`] per source.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use report_api::checked::{BadRows, BadRowsMax, CheckedSource, SourceKind};
use serde::Serialize;

use crate::decode::{self, RecordedColumns};
use crate::error::{Code, Result, RunError};
use crate::mask::Masks;

/// Most rejected rows of a source that a run keeps: enough to see what is wrong, and no second copy of the input.
pub const ROWS_KEPT_MAX: usize = 1000;
/// About the most bytes of rejected rows of a source that a run keeps in memory, of 64 sources at once.
pub const KEPT_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a rejected row that are kept.
pub const RAW_BYTES_MAX: usize = 2048;
/// Most bytes of the words that say why.
const REASON_BYTES_MAX: usize = 512;
/// Runs of a pipeline whose rejected rows are kept.
pub const RUNS_KEPT: u32 = 20;
/// Places that a message names.
const PLACES_SHOWN: usize = 5;

/// A row that was left out, as the ledger keeps it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedRow {
    /// The source.
    pub source: String,
    /// The file or address that it was read from.
    pub file: Option<String>,
    /// Its line; for JSON documents and Parquet its number among the rows. Both count from 1.
    pub line: u64,
    /// The column, where one is to blame.
    pub column: Option<String>,
    /// The error's code.
    pub code: String,
    /// The error's words.
    pub reason: String,
    /// The row as it came, cut to [`RAW_BYTES_MAX`]; None for a masked source.
    pub raw: Option<String>,
    /// For a masked source with a key: the keyed hash of the whole row.
    pub hash: Option<String>,
}

/// What one source gives a run besides rows.
pub struct SourceLog {
    name: String,
    field: String,
    file: Option<String>,
    policy: BadRows,
    masks: Arc<Masks>,
    known: Option<RecordedColumns>,
    rows: AtomicU64,
    bad_rows: AtomicU64,
    kept: Mutex<Kept>,
    columns: Mutex<Columns>,
}

#[derive(Default)]
struct Kept {
    rows: Vec<RejectedRow>,
    bytes: usize,
    /// The first bad rows, for messages.
    places: Vec<String>,
}

impl Kept {
    fn has_room(&self) -> bool {
        self.rows.len() < ROWS_KEPT_MAX && self.bytes < KEPT_BYTES_MAX
    }

    fn keep(&mut self, row: RejectedRow) {
        if self.has_room() {
            self.bytes += row.raw.as_ref().map_or(0, String::len) + row.reason.len();
            self.rows.push(row);
        }
    }
}

#[derive(Default)]
struct Columns {
    recorded: Option<RecordedColumns>,
    changes: Vec<String>,
}

impl std::fmt::Debug for SourceLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceLog").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SourceLog {
    /// The log of a source. `known` are its columns in the last good run.
    pub fn new(source: &CheckedSource, masks: Masks, known: Option<RecordedColumns>) -> Self {
        let mark = decode::manifest_mark(source);
        Self {
            name: source.name.clone(),
            field: source.field.clone(),
            file: file_name(&source.kind),
            policy: source.bad_rows,
            masks: Arc::new(masks),
            // What was read by another manifest says nothing about this one.
            known: known.filter(|known| known.manifest == mark),
            rows: AtomicU64::new(0),
            bad_rows: AtomicU64::new(0),
            kept: Mutex::default(),
            columns: Mutex::default(),
        }
    }

    /// The log of a first look at an input, of which only columns are wanted.
    pub(crate) fn of_survey(source: &CheckedSource) -> Arc<Self> {
        let any = BadRows::Skip(BadRowsMax { count: None, ratio: None });
        Arc::new(Self::new(&CheckedSource { bad_rows: any, ..source.clone() }, Masks::default(), None))
    }

    /// A log of a part of the source, which [`SourceLog::take_over`] adds to this one. It has no limit of its own.
    pub(crate) fn of_block(&self) -> Self {
        let any = BadRowsMax { count: None, ratio: None };
        Self {
            name: self.name.clone(),
            field: self.field.clone(),
            file: self.file.clone(),
            policy: match self.policy {
                BadRows::Fail => BadRows::Fail,
                BadRows::Quarantine(_) => BadRows::Quarantine(any),
                BadRows::Skip(_) => BadRows::Skip(any),
            },
            masks: Arc::clone(&self.masks),
            known: None,
            rows: AtomicU64::new(0),
            bad_rows: AtomicU64::new(0),
            kept: Mutex::default(),
            columns: Mutex::default(),
        }
    }

    /// Adds what was said of a part of the source. The error is that there are more bad rows than may be.
    pub(crate) fn take_over(&self, block: &Self) -> Result<()> {
        self.rows.fetch_add(block.rows.load(Ordering::Relaxed), Ordering::Relaxed);
        let bad_rows = block.bad_rows();
        if bad_rows == 0 {
            return Ok(());
        }
        let bad_rows = self.bad_rows.fetch_add(bad_rows, Ordering::Relaxed) + bad_rows;
        let (mut kept, block) = (lock(&self.kept), std::mem::take(&mut *lock(&block.kept)));
        let places_left = PLACES_SHOWN.saturating_sub(kept.places.len());
        kept.places.extend(block.places.into_iter().take(places_left));
        for row in block.rows {
            kept.keep(row);
        }
        drop(kept);
        match self.policy {
            BadRows::Quarantine(max) | BadRows::Skip(max) if max.count.is_some_and(|count| bad_rows > count) => {
                Err(self.exceeded(max))
            }
            BadRows::Fail | BadRows::Quarantine(_) | BadRows::Skip(_) => Ok(()),
        }
    }

    /// The columns in the last good run by the same manifest.
    pub fn known(&self) -> Option<&RecordedColumns> {
        self.known.as_ref()
    }

    /// Remembers the columns of this run, and what is different from the last one.
    pub fn record(&self, recorded: RecordedColumns, changes: Vec<String>) {
        *lock(&self.columns) = Columns { recorded: Some(recorded), changes };
    }

    /// The columns to remember, if the input was read far enough to know them.
    pub fn recorded(&self) -> Option<RecordedColumns> {
        lock(&self.columns).recorded.clone()
    }

    /// What is different from the columns of the last good run.
    pub fn changes(&self) -> Vec<String> {
        lock(&self.columns).changes.clone()
    }

    /// The source's masks.
    pub fn masks(&self) -> &Masks {
        &self.masks
    }

    /// Whether the first bad row ends the run.
    pub fn fails(&self) -> bool {
        match self.policy {
            BadRows::Fail => true,
            BadRows::Quarantine(_) | BadRows::Skip(_) => false,
        }
    }

    /// Counts good rows.
    pub fn count(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Bad rows so far.
    pub fn bad_rows(&self) -> u64 {
        self.bad_rows.load(Ordering::Relaxed)
    }

    /// Takes a bad row. The error ends the run: where the first one does, it is `error`, and otherwise there are more than
    /// may be.
    pub fn reject(
        &self,
        line: u64,
        column: Option<&str>,
        error: RunError,
        raw: impl FnOnce() -> Vec<u8>,
    ) -> Result<()> {
        let (keeps, max) = match self.policy {
            BadRows::Fail => return Err(error),
            BadRows::Quarantine(max) => (true, max),
            BadRows::Skip(max) => (false, max),
        };
        let bad_rows = self.bad_rows.fetch_add(1, Ordering::Relaxed) + 1;
        let mut kept = lock(&self.kept);
        if kept.places.len() < PLACES_SHOWN {
            let column = column.map_or_else(String::new, |column| format!(", column {column}"));
            kept.places.push(format!("{line}{column} ({})", error.code.as_str()));
        }
        if keeps && kept.has_room() {
            kept.keep(self.row(line, column, &error, &raw()));
        }
        drop(kept);
        if max.count.is_some_and(|count| bad_rows > count) { Err(self.exceeded(max)) } else { Ok(()) }
    }

    fn row(&self, line: u64, column: Option<&str>, error: &RunError, raw: &[u8]) -> RejectedRow {
        let is_masked = self.masks.any();
        let mut reason = error.text();
        cut(&mut reason, REASON_BYTES_MAX);
        RejectedRow {
            source: self.name.clone(),
            file: self.file.clone(),
            line,
            column: column.map(str::to_owned),
            code: error.code.as_str().into(),
            reason,
            raw: (!is_masked).then(|| text(raw)),
            hash: self.masks.hash(raw),
        }
    }

    /// Whether there are more bad rows than may be.
    pub fn verdict(&self) -> Result<()> {
        let max = match self.policy {
            BadRows::Fail => return Ok(()),
            BadRows::Quarantine(max) | BadRows::Skip(max) => max,
        };
        let (bad, all) = self.counts();
        let by_count = max.count.is_some_and(|count| bad > count);
        let by_ratio = max.ratio.is_some_and(|ratio| bad as f64 > ratio * all as f64);
        if by_count || by_ratio { Err(self.exceeded(max)) } else { Ok(()) }
    }

    fn counts(&self) -> (u64, u64) {
        let bad = self.bad_rows();
        (bad, bad + self.rows.load(Ordering::Relaxed))
    }

    fn exceeded(&self, max: BadRowsMax) -> RunError {
        let (bad, all) = self.counts();
        let count = max.count.map(|count| format!("{count} rows"));
        let ratio = max.ratio.map(|ratio| format!("a part of {ratio}"));
        let limit = [count, ratio].into_iter().flatten().collect::<Vec<_>>().join(" and ");
        let places = lock(&self.kept).places.join("; ");
        let message = format!(
            "{bad} of the {all} rows read are bad, and at most {limit} may be; the first are in line {places}; correct the input, or raise the limit"
        );
        RunError::at(Code::BadRowsExceeded, format!("{}.maxBadRows", self.field), message)
    }

    pub(crate) fn rejected(&self) -> Vec<RejectedRow> {
        lock(&self.kept).rows.clone()
    }

    fn quarantines(&self) -> bool {
        match self.policy {
            BadRows::Quarantine(_) => true,
            BadRows::Fail | BadRows::Skip(_) => false,
        }
    }
}

/// The logs of a run's sources, by name.
#[derive(Debug, Default)]
pub struct SourceLogs {
    known: BTreeMap<String, RecordedColumns>,
    logs: BTreeMap<String, Arc<SourceLog>>,
    /// How many bad rows there were when the rejected ones were asked for last.
    asked_at: Mutex<Option<u64>>,
}

impl SourceLogs {
    /// Takes what the last good run remembered of the sources' columns.
    pub fn remember(&mut self, known: BTreeMap<String, RecordedColumns>) {
        self.known = known;
    }

    /// Opens the log of a source.
    pub fn open(&mut self, source: &CheckedSource, masks: Masks) -> Arc<SourceLog> {
        let log = Arc::new(SourceLog::new(source, masks, self.known.get(&source.name).cloned()));
        self.logs.insert(source.name.clone(), Arc::clone(&log));
        log
    }

    /// The log of a source, if it was opened.
    pub fn get(&self, source: &str) -> Option<&Arc<SourceLog>> {
        self.logs.get(source)
    }

    /// Whether any source has more bad rows than may be. A source whose reader stopped early is judged by what was read.
    pub fn verdict(&self) -> Result<()> {
        self.logs.values().try_for_each(|log| log.verdict())
    }

    /// The columns to remember: those of this run, and of sources that it has not read those of the last one.
    pub fn recorded(&self) -> BTreeMap<String, RecordedColumns> {
        let mut recorded = self.known.clone();
        for (name, log) in &self.logs {
            if let Some(columns) = log.recorded() {
                recorded.insert(name.clone(), columns);
            }
        }
        recorded
    }

    /// All rejected rows that are kept, to be written in the place of the run's earlier ones, also when there are none;
    /// None where no source keeps any, and where there are no new ones since they were asked for last.
    pub fn rejected(&self) -> Option<Vec<RejectedRow>> {
        let keeping: Vec<_> = self.logs.values().filter(|log| log.quarantines()).collect();
        let now = Some(keeping.iter().map(|log| log.bad_rows()).sum());
        let is_new = std::mem::replace(&mut *lock(&self.asked_at), now) != now;
        (is_new && !keeping.is_empty()).then(|| keeping.iter().flat_map(|log| log.rejected()).collect())
    }
}

/// What a source's rows are read from, for people. Of an address no more than host and path: the rest may hold a key.
fn file_name(kind: &SourceKind) -> Option<String> {
    match kind {
        SourceKind::File(file) => Some(file.path.clone()),
        SourceKind::Postgres { .. } => None,
        SourceKind::Http(http) => Some(http.url.split(['?', '#']).next().unwrap_or_default().to_owned()),
    }
}

/// A row's bytes as text that every database takes, cut.
fn text(raw: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&raw[..raw.len().min(RAW_BYTES_MAX)]).replace('\0', "\u{fffd}");
    if raw.len() > RAW_BYTES_MAX {
        text.push('…');
    }
    text
}

fn cut(text: &mut String, bytes_max: usize) {
    report_api::result::cut(text, bytes_max);
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// What a lock guards stays whole when a thread panics: each change is one assignment or push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
