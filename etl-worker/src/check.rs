//! The checks of a pipeline: those that watch rows as they pass, those that ask with a query, and the verdict.

use std::sync::Arc;

use futures::TryStreamExt;
use report_api::check::{Rows, Severity};
use report_api::checked::{CheckRule, CheckedCheck};
use report_api::result::CheckResult;

use crate::error::{Code, Result, RunError};
use crate::observe::Observer;
use crate::quote;
use crate::tables::Tables;

/// Runs all checks. The caller decides by [`verdict`].
pub async fn all(checks: &[CheckedCheck], tables: &Tables<'_>) -> Result<Vec<CheckResult>> {
    tables.drain().await?;
    let mut results = Vec::with_capacity(checks.len());
    for check in checks {
        let wrong = match &check.rule {
            CheckRule::NotNull { on, columns } => nulls(on, columns, seen(tables, on, check)?),
            CheckRule::Rows { on, rows } => row_count(on, *rows, seen(tables, on, check)?.rows()),
            CheckRule::Unique { on, columns } => duplicates(on, columns, tables, &check.field).await?,
            CheckRule::Sql { sql, .. } => offending(sql, tables, &check.field).await?,
        };
        results.push(CheckResult {
            name: check.name.clone(),
            passed: wrong.is_none(),
            severity: check.severity,
            message: wrong,
        });
    }
    Ok(results)
}

/// An error that names every check of severity `error` that does not hold.
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

fn seen<'a>(tables: &'a Tables<'_>, on: &str, check: &CheckedCheck) -> Result<&'a Arc<Observer>> {
    tables.seen(on).ok_or_else(|| RunError::at(Code::Internal, &check.field, format!("{on} was not read")))
}

fn nulls(on: &str, columns: &[String], observer: &Observer) -> Option<String> {
    let found: Vec<_> = columns
        .iter()
        .map(|column| (column, observer.nulls_of(column)))
        .filter(|(_, count)| *count > 0)
        .map(|(column, count)| format!("{on}.{column} is NULL in {count} of {} rows", observer.rows()))
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

fn row_count(on: &str, wanted: Rows, count: u64) -> Option<String> {
    let below = wanted.min.filter(|min| count < u64::try_from(*min).unwrap_or(0));
    let above = wanted.max.filter(|max| count > u64::try_from(*max).unwrap_or(0));
    below
        .map(|min| format!("{on} has {count} rows, fewer than {min}"))
        .or_else(|| above.map(|max| format!("{on} has {count} rows, more than {max}")))
}

async fn duplicates(on: &str, columns: &[String], tables: &Tables<'_>, field: &str) -> Result<Option<String>> {
    let columns_sql = quote::idents(columns);
    let sql = format!(
        "SELECT count(*) AS keys FROM (SELECT {columns_sql} FROM {} GROUP BY {columns_sql} HAVING count(*) > 1) AS d",
        quote::ident(on)
    );
    let (_, mut rows) = tables.query(&sql, field).await?;
    let mut keys = 0;
    while let Some(batch) = rows.try_next().await? {
        keys += arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Int64)
            .ok()
            .and_then(|column| {
                use arrow::array::AsArray;
                arrow::compute::sum(column.as_primitive::<arrow::datatypes::Int64Type>())
            })
            .unwrap_or(0);
    }
    Ok((keys > 0).then(|| format!("{keys} values of {on}.({}) occur more than once", columns.join(", "))))
}

async fn offending(sql: &str, tables: &Tables<'_>, field: &str) -> Result<Option<String>> {
    let (_, mut rows) = tables.query(sql, &format!("{field}.sql")).await?;
    let mut count = 0;
    while let Some(batch) = rows.try_next().await? {
        count += batch.num_rows();
    }
    Ok((count > 0).then(|| format!("{count} rows should not be there")))
}

#[cfg(test)]
mod tests {
    use report_api::check::Rows;

    use super::row_count;

    #[test]
    fn row_counts_are_held_against_both_bounds() {
        let rows = |min, max| Rows { min, max };
        for (wanted, count, want) in [
            (rows(Some(1), None), 0, Some("t has 0 rows, fewer than 1")),
            (rows(Some(1), None), 1, None),
            (rows(None, Some(2)), 3, Some("t has 3 rows, more than 2")),
            (rows(Some(0), Some(2)), 2, None),
        ] {
            assert_eq!(row_count("t", wanted, count).as_deref(), want);
        }
    }
}
