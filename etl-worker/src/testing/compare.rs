//! Holds rows against expected ones: as multisets, over the columns that are expected, in the columns' types.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{ContentArrangement, Table, presets};

use super::Outcome;
use crate::error::{Code, Result, RunError};

/// Most missing and most unexpected rows that are shown.
const ROWS_SHOWN_MAX: usize = 20;

type Values = Vec<Option<String>>;

/// Compares the columns that the expected rows name. Both have the model's types, in which equal values have equal texts
/// and different ones different texts.
pub(super) fn compare(
    rows: &RecordBatch,
    expected: &RecordBatch,
    wanted: &BTreeSet<String>,
    model: &str,
) -> Result<Outcome> {
    // Where no rows are expected, nothing says which columns matter.
    let all = rows.schema();
    let columns: Vec<String> = all
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .filter(|name| wanted.is_empty() || wanted.contains(name))
        .collect();
    let mut counts: BTreeMap<Values, i64> = BTreeMap::new();
    for (batch, step) in [(rows, 1), (expected, -1)] {
        for values in texts(batch, &columns)? {
            *counts.entry(values).or_default() += step;
        }
    }
    let repeated = |sign: i64| {
        counts
            .iter()
            .flat_map(move |(values, count)| {
                std::iter::repeat_n(values, usize::try_from(count * sign).unwrap_or_default())
            })
            .collect::<Vec<_>>()
    };
    let (missing, unexpected) = (repeated(-1), repeated(1));
    if missing.is_empty() && unexpected.is_empty() {
        return Ok(Outcome::Passed);
    }
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([""].into_iter().map(str::to_owned).chain(columns.iter().cloned()));
    for (mark, rows) in [("-", &missing), ("+", &unexpected)] {
        for values in rows.iter().take(ROWS_SHOWN_MAX) {
            let cells = values.iter().map(|value| value.clone().unwrap_or_else(|| "NULL".into()));
            table.add_row([mark.to_owned()].into_iter().chain(cells));
        }
    }
    let shown = if missing.len().max(unexpected.len()) > ROWS_SHOWN_MAX {
        format!(" (the first {ROWS_SHOWN_MAX} of each)")
    } else {
        String::new()
    };
    Ok(Outcome::Failed(format!(
        "rows of {model}: {} missing (-), {} unexpected (+){shown}\n{table}",
        missing.len(),
        unexpected.len()
    )))
}

fn texts(batch: &RecordBatch, columns: &[String]) -> Result<Vec<Values>> {
    let failed =
        |error: arrow::error::ArrowError| RunError::new(Code::Internal, "the rows can't be shown").caused_by(error);
    let options = FormatOptions::default();
    let mut shown = Vec::with_capacity(columns.len());
    for name in columns {
        let column = batch
            .column_by_name(name)
            .ok_or_else(|| RunError::new(Code::Internal, format!("the column {name} is not among the rows")))?;
        shown.push((column, ArrayFormatter::try_new(column, &options).map_err(failed)?));
    }
    (0..batch.num_rows())
        .map(|row| {
            let text = |(column, values): &(&arrow::array::ArrayRef, ArrayFormatter<'_>)| {
                (!column.is_null(row)).then(|| values.value(row).try_to_string()).transpose()
            };
            shown.iter().map(text).collect::<std::result::Result<_, _>>().map_err(failed)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::record_batch::RecordBatch;

    use super::super::Outcome;
    use super::compare;

    fn batch(rows: &[(f64, Option<&str>)]) -> RecordBatch {
        let a: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let b: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter_with_nullable([("a", a, true), ("b", b, true)]).unwrap()
    }

    #[test]
    fn rows_are_compared_as_multisets_over_the_expected_columns() {
        let (a, both) = (BTreeSet::from(["a".to_owned()]), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let none = BTreeSet::new();
        for (rows, expected, wanted, want) in [
            (&[(1.0, None), (2.0, Some("x"))][..], &[(2.0, Some("x")), (1.0, None)][..], &both, "passed"),
            (&[(1.0, Some("x"))], &[(1.0, Some("y"))], &a, "passed"),
            (&[(f64::NAN, None)], &[(f64::NAN, None)], &a, "passed"),
            (&[], &[], &none, "passed"),
            (&[(1.0, None), (1.0, None)], &[(1.0, None)], &both, "- 0 + 1"),
            (&[(1.0, None)], &[(1.0, Some(""))], &both, "- 1 + 1"),
            (&[(1.0, Some("NULL"))], &[(1.0, None)], &both, "- 1 + 1"),
            (&[(0.1 + 0.2, None)], &[(0.3, None)], &a, "- 1 + 1"),
            (&[(1.0, Some("x"))], &[], &none, "- 0 + 1"),
        ] {
            let got = match compare(&batch(rows), &batch(expected), wanted, "m").unwrap() {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed(text) => {
                    let count =
                        |mark: &str| text.lines().filter(|line| line.starts_with(&format!("| {mark} "))).count();
                    format!("- {} + {}", count("-"), count("+"))
                }
            };
            assert_eq!(got, want, "{rows:?} {expected:?}");
        }
    }
}
