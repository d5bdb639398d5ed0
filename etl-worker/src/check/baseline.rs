//! What good runs leave for the checks of later ones: how many rows a table had, and the means of its columns.

use std::collections::BTreeMap;

use report_api::checked::{CheckRule, CheckedCheck};

use super::words::{number, percent, rows};
use crate::tables::Tables;

/// Numbers of the last good runs, oldest first, by what they are of: `rows of orders`, `mean of orders.amount`. Not by a
/// check's name, so that another check over the same rows goes on from them.
pub type Baselines = BTreeMap<String, Vec<f64>>;

/// Good runs that are looked back on at most: what `meanChange.runs` may ask for.
const RUNS_MAX: usize = 30;

fn rows_of(on: &str) -> String {
    format!("rows of {on}")
}

fn mean_of(on: &str, column: &str) -> String {
    format!("mean of {on}.{column}")
}

/// Takes this run's numbers as the newest. They count from the commit on, with which they reach the ledger.
pub fn remember(checks: &[CheckedCheck], tables: &Tables<'_>, baselines: &mut Baselines) {
    let mut next = Baselines::new();
    for check in checks {
        let seen = |on: &str| tables.seen(on);
        let (what, kept, newest) = if let CheckRule::RowsChange { on, .. } = &check.rule {
            (rows_of(on), 1, seen(on).map(|observer| observer.rows() as f64))
        } else if let CheckRule::MeanChange { on, column, .. } = &check.rule {
            let found = seen(on).and_then(|observer| observer.seen_by(&check.name));
            (mean_of(on, column), RUNS_MAX, found.and_then(|found| mean(found.sum, found.values)))
        } else {
            continue;
        };
        if next.contains_key(&what) {
            continue;
        }
        let mut numbers = baselines.remove(&what).unwrap_or_default();
        numbers.extend(newest);
        numbers.drain(..numbers.len().saturating_sub(kept));
        next.insert(what, numbers);
    }
    // What no check asks for any more is forgotten: it would be old when one asks again.
    *baselines = next;
}

/// The mean of so many values; None where there is none, or infinities make it no number.
fn mean(sum: f64, values: u64) -> Option<f64> {
    (values > 0).then(|| sum / values as f64).filter(|mean| mean.is_finite())
}

/// Whether a check holds, and what there is to say.
pub(super) enum Compared {
    Holds(String),
    Fails(String),
}

/// Holds a number of rows against that of the last good run.
pub(super) fn compare_rows(on: &str, count: u64, most: f64, baselines: &Baselines) -> Compared {
    let Some(before) = baselines.get(&rows_of(on)).and_then(|numbers| numbers.last().copied()) else {
        return Compared::Holds("there is no good run yet to compare with".into());
    };
    if before <= 0.0 {
        return Compared::Holds("the last good run had no rows to compare with".into());
    }
    let change = (count as f64 - before).abs() / before;
    let direction = if (count as f64) < before { "fewer" } else { "more" };
    // Numbers of rows are far below 2^53, so that this is the number that was counted.
    let before = number(before as u64);
    let words =
        format!("{on} has {}, {} {direction} than the {before} of the last good run", rows(count), percent(change));
    if change > most {
        Compared::Fails(format!("{words}; the largest change is {}", percent(most)))
    } else {
        Compared::Holds(words)
    }
}

/// Holds a mean against those of the last good runs. The means themselves are not said: with few rows they are values.
pub(super) fn compare_mean(
    (on, column): (&str, &str),
    (sum, values): (f64, u64),
    (most, runs): (f64, usize),
    baselines: &Baselines,
) -> Compared {
    let earlier = baselines.get(&mean_of(on, column)).map_or(&[][..], Vec::as_slice);
    let earlier = &earlier[earlier.len().saturating_sub(runs)..];
    let Some(before) = mean(earlier.iter().sum(), earlier.len() as u64) else {
        return Compared::Holds("there is no good run yet to compare with".into());
    };
    let what = format!("the mean of {on}.{column}");
    let since = match earlier.len() {
        1 => "the last good run".to_owned(),
        runs => format!("the last {runs} good runs"),
    };
    let Some(now) = mean(sum, values) else {
        let why = if values == 0 { "there is no value" } else { "a value is NaN or infinite" };
        return Compared::Fails(format!("{what} can't be compared with that of {since}: {why}"));
    };
    if before == now {
        return Compared::Holds(format!("{what} is that of {since}"));
    }
    if before == 0.0 {
        return Compared::Fails(format!("{what} was 0 in {since} and is not now"));
    }
    let change = ((now - before) / before).abs();
    let words = format!("{what} differs by {} from that of {since}", percent(change));
    if change > most {
        Compared::Fails(format!("{words}; the largest change is {}", percent(most)))
    } else {
        Compared::Holds(words)
    }
}

#[cfg(test)]
mod tests {
    use super::{Baselines, Compared, compare_mean, compare_rows};

    fn words(compared: Compared) -> String {
        match compared {
            Compared::Holds(words) => format!("holds: {words}"),
            Compared::Fails(words) => format!("fails: {words}"),
        }
    }

    #[test]
    fn a_number_of_rows_is_held_against_the_last_good_run() {
        for (before, count, want) in [
            (None, 0, "holds: there is no good run yet to compare with"),
            (Some(0.0), 7, "holds: the last good run had no rows to compare with"),
            (Some(100.0), 50, "holds: t has 50 rows, 50% fewer than the 100 of the last good run"),
            (Some(100.0), 150, "holds: t has 150 rows, 50% more than the 100 of the last good run"),
            (
                Some(1000.0),
                499,
                "fails: t has 499 rows, 50% fewer than the 1,000 of the last good run; the largest change is 50%",
            ),
            (
                Some(100.0),
                0,
                "fails: t has 0 rows, 100% fewer than the 100 of the last good run; the largest change is 50%",
            ),
        ] {
            let baselines: Baselines =
                before.map(|before| ("rows of t".to_owned(), vec![before])).into_iter().collect();
            assert_eq!(words(compare_rows("t", count, 0.5, &baselines)), want, "{before:?}");
        }
    }

    #[test]
    fn a_mean_is_held_against_those_of_the_last_good_runs() {
        for (before, now, want) in [
            (&[][..], (9.0, 1), "holds: there is no good run yet to compare with"),
            (&[20.0], (22.0, 1), "holds: the mean of t.a differs by 10% from that of the last good run"),
            (
                &[20.0],
                (23.0, 1),
                "fails: the mean of t.a differs by 15% from that of the last good run; the largest change is 10%",
            ),
            // Only the last two count: their mean is 20.
            (&[1.0, 10.0, 30.0], (63.0, 3), "holds: the mean of t.a differs by 5.0% from that of the last 2 good runs"),
            (&[-20.0], (-40.0, 2), "holds: the mean of t.a is that of the last good run"),
            (&[0.0], (1.0, 1), "fails: the mean of t.a was 0 in the last good run and is not now"),
            (
                &[20.0],
                (0.0, 0),
                "fails: the mean of t.a can't be compared with that of the last good run: there is no value",
            ),
            (
                &[20.0],
                (f64::NAN, 1),
                "fails: the mean of t.a can't be compared with that of the last good run: a value is NaN or infinite",
            ),
        ] {
            let baselines = Baselines::from([("mean of t.a".to_owned(), before.to_vec())]);
            assert_eq!(words(compare_mean(("t", "a"), now, (0.1, 2), &baselines)), want, "{before:?}");
        }
    }
}
