//! The checks that rows can't answer while they pass: each is one SELECT that gives what fails, read to its end.

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, Schema};
use futures::TryStreamExt;
use report_api::checked::{CheckRule, CheckedCheck};
use report_api::problem::near;
use report_api::result::Sample;

use super::sample::{self, SAMPLES_MAX};
use crate::decode::type_words;
use crate::error::{Code, Result, RunError};
use crate::quote::{ident, idents};
use crate::tables::Tables;

/// The column of [`CheckRule::Unique`]'s query that counts the rows with the same values. No model can have a column of
/// this name, since names of columns have no parentheses.
const TIMES: &str = "(times)";

/// What a check's query has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows that fail.
    pub(super) failing: u64,
    /// Rows of the query: for unique the values that occur more than once.
    pub(super) rows: u64,
    pub(super) samples: Vec<Sample>,
}

/// A check's SELECT and the field that it comes from; None for a check that needs none.
pub(crate) fn query(check: &CheckedCheck) -> Option<(String, String)> {
    let at = |option: &str| format!("{}.{option}", check.field);
    Some(match &check.rule {
        CheckRule::Unique { on, columns } => {
            let (table, columns) = (ident(on), idents(columns));
            let sql = format!(
                "SELECT {columns}, count(*) AS {} FROM {table} GROUP BY {columns} HAVING count(*) > 1",
                ident(TIMES)
            );
            (sql, at("unique"))
        }
        CheckRule::References { on, columns, to, to_columns } => {
            let pairs = columns.iter().zip(to_columns);
            let same: Vec<_> = pairs.map(|(here, there)| format!("l.{} = r.{}", ident(here), ident(there))).collect();
            let filled: Vec<_> = columns.iter().map(|column| format!("{} IS NOT NULL", ident(column))).collect();
            let sql = format!(
                "SELECT l.* FROM (SELECT * FROM {} WHERE {}) AS l LEFT ANTI JOIN {} AS r ON {}",
                ident(on),
                filled.join(" AND "),
                ident(to),
                same.join(" AND ")
            );
            (sql, at("references"))
        }
        CheckRule::Sql { sql, .. } => (sql.clone(), at("sql")),
        CheckRule::NotNull { .. }
        | CheckRule::Accepted { .. }
        | CheckRule::Range { .. }
        | CheckRule::Regex { .. }
        | CheckRule::Rows { .. }
        | CheckRule::RowsChange { .. }
        | CheckRule::MeanChange { .. }
        | CheckRule::Fresh { .. } => return None,
    })
}

/// Refuses references between columns of types that have no values in common, such as a text and a number: whether '007'
/// is 7 is for the manifest to say.
pub(crate) fn check_types(check: &CheckedCheck, here: &Schema, there: &Schema) -> Result<()> {
    let CheckRule::References { on, columns, to, to_columns } = &check.rule else { return Ok(()) };
    for (n, (column, other)) in columns.iter().zip(to_columns).enumerate() {
        let Ok(found) = there.field_with_name(other) else {
            let names = there.fields().iter().map(|field| field.name().as_str());
            let remedy = near(other, names.clone()).map_or_else(
                || format!("it has {}", names.collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            let message = format!("{to} has no column {other}; {remedy}");
            return Err(RunError::at(Code::SqlInvalid, format!("{}.references.toColumns[{n}]", check.field), message));
        };
        // That the column is here was found when the table became known.
        let Ok(own) = here.field_with_name(column) else { continue };
        let (own, found) = (own.data_type(), found.data_type());
        let numbers = own.is_numeric() && found.is_numeric();
        if own != found && !numbers {
            let (own, found) = (type_words(own), type_words(found));
            let message = format!("{on}.{column} is {own} and {to}.{other} is {found}; cast one of them in a model");
            return Err(RunError::at(Code::SqlInvalid, format!("{}.references.columns[{n}]", check.field), message));
        }
    }
    Ok(())
}

/// Runs a check's SELECT. Memory: one batch.
pub(super) async fn run(check: &CheckedCheck, tables: &Tables<'_>) -> Result<Found> {
    let mut found = Found::default();
    let Some((sql, field)) = query(check) else { return Ok(found) };
    let is_unique = matches!(check.rule, CheckRule::Unique { .. });
    let columns = match &check.rule {
        CheckRule::Unique { columns, .. } | CheckRule::References { columns, .. } => &columns[..],
        CheckRule::NotNull { .. }
        | CheckRule::Accepted { .. }
        | CheckRule::Range { .. }
        | CheckRule::Regex { .. }
        | CheckRule::Rows { .. }
        | CheckRule::RowsChange { .. }
        | CheckRule::MeanChange { .. }
        | CheckRule::Fresh { .. }
        | CheckRule::Sql { .. } => &[],
    };
    let (_, mut rows) = tables.query(&sql, &field).await?;
    while let Some(batch) = rows.try_next().await? {
        found.rows += batch.num_rows() as u64;
        // count(*) is of 64 bits.
        let times = batch.column_by_name(TIMES).filter(|_| is_unique);
        found.failing += match times.and_then(|times| times.as_primitive_opt::<Int64Type>()) {
            Some(times) => times.values().iter().map(|times| times.unsigned_abs()).sum::<u64>(),
            None => batch.num_rows() as u64,
        };
        let left = SAMPLES_MAX.saturating_sub(found.samples.len()).min(batch.num_rows());
        found.samples.extend((0..left).map(|row| sample::of_row(&batch, row, columns)));
    }
    Ok(found)
}
