//! A few failing rows, for the ledger only.

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use report_api::result::{Sample, cut};

/// Failing rows that a check keeps: enough to find what they have in common, little enough for a ledger that keeps a
/// thousand results.
pub(crate) const SAMPLES_MAX: usize = 5;
/// Columns of a kept row: the check's own, then the table's first ones.
const COLUMNS_MAX: usize = 20;
/// Longest kept value.
const VALUE_BYTES_MAX: usize = 100;

/// Keeps a row of a batch, of its columns those named first.
pub(crate) fn of_row(batch: &RecordBatch, row: usize, first: &[String]) -> Sample {
    let options = FormatOptions::default();
    let schema = batch.schema_ref();
    let named = first.iter().filter_map(|column| schema.index_of(column).ok());
    let others = (0..batch.num_columns()).filter(|at| !first.contains(schema.field(*at).name()));
    let mut sample = Sample::new();
    for at in named.chain(others).take(COLUMNS_MAX) {
        let column = batch.column(at);
        let value = (!column.is_null(row)).then(|| {
            let text = ArrayFormatter::try_new(column, &options).and_then(|values| values.value(row).try_to_string());
            let mut text = text.unwrap_or_else(|_| "?".into());
            cut(&mut text, VALUE_BYTES_MAX);
            text
        });
        sample.insert(schema.field(at).name().clone(), value);
    }
    sample
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringArray};
    use arrow::record_batch::RecordBatch;

    use super::of_row;

    #[test]
    fn a_sample_is_bounded_and_has_the_checks_columns() {
        let long = "é".repeat(1000);
        let columns: Vec<(String, ArrayRef)> = (0..30)
            .map(|n| (format!("c{n:02}"), Arc::new(Int32Array::from(vec![n])) as ArrayRef))
            .chain([
                ("text".to_owned(), Arc::new(StringArray::from(vec![long.as_str()])) as ArrayRef),
                ("none".to_owned(), Arc::new(Int32Array::from(vec![None])) as ArrayRef),
            ])
            .collect();
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let sample = of_row(&batch, 0, &["text".into(), "none".into()]);
        assert_eq!(sample.len(), 20);
        assert_eq!(sample["none"], None);
        let text = sample["text"].as_deref().unwrap();
        assert!(text.len() <= 100 && text.ends_with('…'), "{text}");
        assert_eq!(sample["c17"].as_deref(), Some("17"));
    }
}
