//! The rows of a source, and what each mode makes of them: from the rows of a table alone follows whether it is the state
//! of whole commits.
//!
//! Each row says the step of the story and the version of the source that it comes from. A step keeps its version in a
//! commit; rows of two versions of a step, or some of one only, are a table that was never committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::seed::{Numbers, mix};

/// Ids that steps share, so that later ones change rows of earlier ones.
const SHARED_IDS: i64 = 120;
/// Bytes that a row has besides: enough that staging takes several packets.
const FILLER: usize = 120;

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) part: u32,
    pub(super) day: u32,
    pub(super) step: u32,
    pub(super) version: u32,
}

/// What a sink does with the rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Swap,
    Rows,
    Append,
    Merge,
    Interval,
    Partition,
}

impl Mode {
    /// As it stands in a manifest.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Swap => "{replace: {by: swap}}, primaryKey: [id]",
            Self::Rows => "{replace: {by: rows}}, primaryKey: [id]",
            Self::Append => "{append: {}}",
            Self::Merge => "{merge: {key: [id]}}",
            Self::Interval => "{deleteInsert: {interval: at}}",
            Self::Partition => "{deleteInsert: {partition: [part]}}",
        }
    }

    /// Whether rows of every committed step are there for ever, so that it tells which steps were committed.
    pub(super) fn tells_all(self) -> bool {
        matches!(self, Self::Append | Self::Merge)
    }
}

/// What was committed: of each step the day that its rows are of, and the version.
pub(super) type Commits = BTreeMap<u32, (u32, u32)>;

/// The rows of a step, of a day, in a version. Only rows with ids of their own tell one version's count from another's:
/// which partitions a step has does not depend on its version.
pub(super) fn rows(step: u32, day: u32, version: u32) -> Vec<Row> {
    let parts = [step % 6, (step + 1) % 6, (step + 3) % 6];
    let row = |id: i64| Row { id, part: parts[(id % 3) as usize], day, step, version };
    let shared = (0..SHARED_IDS).filter(|id| mix(u64::from(step) << 32 | *id as u64) % 100 < 60).map(row);
    let own = (0..=i64::from(version % 4)).map(|at| row(i64::from(step) * 1_000_000 + i64::from(version) * 1000 + at));
    shared.chain(own).collect()
}

pub(super) const COLUMNS: &str = "[{name: id, type: int64, required: true}, {name: part, type: string}, \
    {name: day, type: int32}, {name: at, type: timestamp}, {name: step, type: int32}, {name: version, type: int32}, \
    {name: filler, type: string}]";

/// The rows as a file.
pub(super) fn csv(rows: &[Row]) -> String {
    let mut text = String::from("id,part,day,at,step,version,filler\n");
    for Row { id, part, day, step, version } in rows {
        let mut numbers = Numbers::new(mix(*id as u64) ^ u64::from(*version));
        let filler: String = (0..FILLER / 8).map(|_| format!("{:08x}", numbers.next() as u32)).collect();
        let hour = id % 24;
        writeln!(text, "{id},p{part},{day},2026-01-{day:02}T{hour:02}:00:00,{step},{version},{filler}").unwrap();
    }
    text
}

/// What commits leave in a table, sorted.
pub(super) fn left_by(mode: Mode, commits: &Commits) -> Vec<Row> {
    let mut table: Vec<Row> = Vec::new();
    for (step, (day, version)) in commits {
        let new = rows(*step, *day, *version);
        match mode {
            Mode::Swap | Mode::Rows => table.clear(),
            Mode::Append => {}
            Mode::Merge => {
                let ids: BTreeSet<_> = new.iter().map(|row| row.id).collect();
                table.retain(|row| !ids.contains(&row.id));
            }
            Mode::Interval => table.retain(|row| row.day != *day),
            Mode::Partition => {
                let parts: BTreeSet<_> = new.iter().map(|row| row.part).collect();
                table.retain(|row| !parts.contains(&row.part));
            }
        }
        table.extend(new);
    }
    table.sort();
    table
}

/// Which commits a table shows. An error if it is not exactly what these leave. A step without a row left has no part in
/// what is left: whatever it removed, a later one has removed, too.
pub(super) fn commits_in(mode: Mode, found: &[Row]) -> Result<Commits, String> {
    let mut commits = Commits::new();
    for row in found {
        let known = commits.entry(row.step).or_insert((row.day, row.version));
        if *known != (row.day, row.version) {
            let versions: BTreeSet<_> = found.iter().filter(|of| of.step == row.step).map(|of| of.version).collect();
            return Err(format!("rows of the versions {versions:?} of step {} are mixed", row.step));
        }
    }
    let want = left_by(mode, &commits);
    let mut found = found.to_vec();
    found.sort();
    if want == found {
        return Ok(commits);
    }
    let by_step = |rows: &[Row]| {
        rows.iter().fold(BTreeMap::<u32, u32>::new(), |mut counts, row| {
            *counts.entry(row.step).or_default() += 1;
            counts
        })
    };
    Err(format!(
        "rows by step are {:?}, not {:?} (step: (day, version) is {commits:?})",
        by_step(&found),
        by_step(&want)
    ))
}

#[test]
fn a_table_that_was_never_committed_is_known() {
    let commits = Commits::from([(1, (1, 1)), (2, (2, 3)), (3, (3, 2)), (4, (2, 5))]);
    for mode in [Mode::Swap, Mode::Rows, Mode::Append, Mode::Merge, Mode::Interval, Mode::Partition] {
        let good = left_by(mode, &commits);
        let last = commits_in(mode, &good).unwrap();
        assert_eq!(last.get(&4), Some(&(2, 5)), "{mode:?}");
        if mode.tells_all() {
            assert_eq!(last, commits, "{mode:?}");
        }
        for at in 0..good.len() {
            let mut less = good.clone();
            less.remove(at);
            assert!(commits_in(mode, &less).is_err(), "{mode:?}: half");
            let mut mixed = good.clone();
            mixed[at].version += 1;
            assert!(commits_in(mode, &mixed).is_err(), "{mode:?}: mixed");
            let mut twice = good.clone();
            twice.push(good[at].clone());
            assert!(commits_in(mode, &twice).is_err(), "{mode:?}: twice");
        }
    }
}
