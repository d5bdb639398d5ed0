//! The checks of a pipeline: what they saw of rows as they passed, what the others ask with a query, and the verdict.
//!
//! [`watch`] looks at each batch beside staging; [`query`] asks what can't be seen so; [`baseline`] remembers what later
//! runs are compared with. Messages hold counts and names, never values; a few failing rows are kept as samples, which
//! only the ledger gets. Memory: one batch, and five rows of a check.

mod baseline;
mod query;
mod sample;
pub(crate) mod watch;
mod words;

use jiff::Timestamp;
use report_api::check::Severity;
use report_api::checked::{CheckRule, CheckedCheck};
use report_api::result::{CheckResult, Sample};

use self::baseline::Compared;
pub use self::baseline::{Baselines, remember};
pub(crate) use self::query::{check_types, query};
use crate::error::{Code, Result, RunError};
use crate::tables::Tables;

/// Finishes all checks: `now` is what ages are measured against, `baselines` what good runs have left. The caller decides
/// by [`verdict`].
pub async fn all(
    checks: &[CheckedCheck],
    tables: &Tables<'_>,
    now: Timestamp,
    baselines: &Baselines,
) -> Result<Vec<CheckResult>> {
    tables.drain().await?;
    let mut results = Vec::with_capacity(checks.len());
    for check in checks {
        results.push(one(check, tables, now, baselines).await?);
    }
    Ok(results)
}

/// An error that names every check that fails the run.
pub fn verdict(checks: &[CheckedCheck], results: &[CheckResult]) -> Result<()> {
    let failed: Vec<_> =
        checks.iter().zip(results).filter(|(_, result)| !result.passed && result.severity == Severity::Error).collect();
    let Some((first, _)) = failed.first() else { return Ok(()) };
    let words: Vec<_> = failed
        .iter()
        .map(|(check, result)| format!("{}: {}", check.name, result.message.as_deref().unwrap_or("failed")))
        .collect();
    Err(RunError::at(
        Code::CheckFailed,
        &first.field,
        format!("{}; nothing was committed. Correct the data, or the check if it asks too much", words.join("; ")),
    ))
}

async fn one(check: &CheckedCheck, tables: &Tables<'_>, now: Timestamp, baselines: &Baselines) -> Result<CheckResult> {
    let (rows, seen) = match check.rule.on() {
        None => (None, watch::Seen::default()),
        Some(on) => {
            let observer = tables
                .seen(on)
                .ok_or_else(|| RunError::at(Code::Internal, &check.field, format!("{on} was not read")))?;
            let seen = observer.seen_by(&check.name).unwrap_or_default();
            if let Some(broken) = &seen.broken {
                return Err(RunError::at(Code::Internal, &check.field, broken));
            }
            (Some(observer.rows()), seen)
        }
    };
    let count = rows.unwrap_or_default();
    Ok(match &check.rule {
        CheckRule::NotNull { .. } | CheckRule::Accepted { .. } | CheckRule::Range { .. } | CheckRule::Regex { .. } => {
            let what = words::failing(&check.rule, &seen.nulls, 0);
            counted(check, seen.failing, rows, &what, seen.samples)
        }
        CheckRule::Unique { .. } | CheckRule::References { .. } | CheckRule::Sql { .. } => {
            let found = query::run(check, tables).await?;
            let what = words::failing(&check.rule, &[], found.rows);
            counted(check, found.failing, rows, &what, found.samples)
        }
        CheckRule::Rows { on, rows: wanted } => match words::row_count(on, *wanted, count) {
            Some(message) => said(check, rows, Compared::Fails(message)),
            None => said(check, rows, Compared::Holds(String::new())),
        },
        CheckRule::RowsChange { on, max } => said(check, rows, baseline::compare_rows(on, count, *max, baselines)),
        CheckRule::MeanChange { on, column, max, runs } => {
            let compared = baseline::compare_mean((on, column), (seen.sum, seen.values), (*max, *runs), baselines);
            said(check, rows, compared)
        }
        CheckRule::Fresh { on, column, max_age_seconds } => {
            said(check, rows, fresh(on, column, *max_age_seconds, seen.newest, now))
        }
    })
}

/// The result of a check that counts failing rows.
fn counted(check: &CheckedCheck, failing: u64, rows: Option<u64>, what: &str, samples: Vec<Sample>) -> CheckResult {
    let outcome = check.outcome(failing, rows.unwrap_or_default());
    let message = match (failing, check.rule.on(), rows) {
        (0, ..) => None,
        (_, Some(on), Some(all)) => Some(format!("{} of {} of {on}: {what}", words::number(failing), words::rows(all))),
        _ => Some(format!("{} {what}", words::rows(failing))),
    };
    CheckResult {
        name: check.name.clone(),
        passed: outcome.is_none(),
        severity: outcome.unwrap_or_else(|| check.worst()),
        message,
        failing_rows: Some(failing),
        rows,
        samples,
    }
}

/// The result of a check that holds or not.
fn said(check: &CheckedCheck, rows: Option<u64>, compared: Compared) -> CheckResult {
    let (passed, message) = match compared {
        Compared::Holds(message) => (true, message),
        Compared::Fails(message) => (false, message),
    };
    CheckResult {
        name: check.name.clone(),
        passed,
        severity: check.worst(),
        message: Some(message).filter(|message| !message.is_empty()),
        failing_rows: None,
        rows,
        samples: Vec::new(),
    }
}

fn fresh(on: &str, column: &str, max_age_seconds: u64, newest: Option<i64>, now: Timestamp) -> Compared {
    let Some(newest) = newest else { return Compared::Fails(format!("{on}.{column} has no value")) };
    // A time in the future is fresh. Microseconds of all years of a column fit into 64 bits, and so does the difference.
    let age = now.as_microsecond().saturating_sub(newest).max(0).unsigned_abs();
    let words = format!("the newest {on}.{column} is {} old", words::span(age / 1_000_000));
    if age > max_age_seconds.saturating_mul(1_000_000) {
        Compared::Fails(format!("{words}; the most is {}", words::span(max_age_seconds)))
    } else {
        Compared::Holds(words)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::baseline::Compared;
    use super::fresh;

    #[test]
    fn the_newest_time_is_held_against_the_clock_of_the_run() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap().as_microsecond());
        for (newest, want) in [
            (at("2026-01-01T12:00:00Z"), "holds: the newest t.a is 12h old"),
            (at("2026-01-01T00:00:00Z"), "holds: the newest t.a is 24h old"),
            (at("2025-12-31T23:59:59Z"), "fails: the newest t.a is 24h old; the most is 24h"),
            (at("2027-01-01T00:00:00Z"), "holds: the newest t.a is 0s old"),
            (at("0001-01-01T00:00:00Z"), "fails: the newest t.a is 739617d old; the most is 24h"),
            (None, "fails: t.a has no value"),
        ] {
            let got = match fresh("t", "a", 86_400, newest, now) {
                Compared::Holds(words) => format!("holds: {words}"),
                Compared::Fails(words) => format!("fails: {words}"),
            };
            assert_eq!(got, want);
        }
    }
}
