//! `dedupe: {latestBy}`: of the rows of a key, the one with the greatest value of a column. The rows come sorted, so that
//! one row is all that is remembered.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use futures::{StreamExt, TryStreamExt};

use crate::error::{Code, Result, RunError};
use crate::observe::RowStream;

/// Keeps of rows that come sorted by a key and a column the last one of each key.
#[derive(Debug)]
pub(super) struct Latest {
    /// Where the manifest asks for it.
    pub(super) field: String,
    /// The key's columns.
    pub(super) key: Vec<String>,
    /// The column whose greatest value counts.
    pub(super) by_name: String,
    pub(super) key_positions: Vec<usize>,
    pub(super) by: usize,
}

struct Groups {
    rows: RowStream,
    latest: Latest,
    keys: RowConverter,
    values: RowConverter,
    /// The last row so far, and whether the one before it is of the same key and value.
    last: Option<(RecordBatch, bool)>,
    /// Keys with several rows of the greatest value.
    ties: u64,
    ended: bool,
}

impl Latest {
    /// The latest rows of these, which come sorted by the key and the column.
    pub(super) fn of(self, rows: RowStream) -> RowStream {
        let start = async move {
            // The types are known with the first rows.
            let mut rows = rows.peekable();
            let first = std::pin::Pin::new(&mut rows).peek().await;
            let Some(Ok(first)) = first else { return Ok(rows.boxed()) };
            let schema = first.schema();
            let sort = |at: &usize| SortField::new(schema.field(*at).data_type().clone());
            let keys = RowConverter::new(self.key_positions.iter().map(sort).collect()).map_err(|e| self.failed(e))?;
            let values = RowConverter::new(vec![sort(&self.by)]).map_err(|e| self.failed(e))?;
            let groups = Groups { rows: rows.boxed(), latest: self, keys, values, last: None, ties: 0, ended: false };
            let picked = futures::stream::try_unfold(groups, |mut groups| async move {
                Ok(groups.advance().await?.map(|batch| (batch, groups)))
            });
            Ok::<_, RunError>(picked.boxed())
        };
        futures::stream::once(start).try_flatten().boxed()
    }

    fn failed(&self, error: arrow::error::ArrowError) -> RunError {
        RunError::at(Code::Internal, &self.field, "rows can't be compared").caused_by(error)
    }
}

impl Groups {
    async fn advance(&mut self) -> Result<Option<RecordBatch>> {
        if self.ended {
            return if self.ties == 0 { Ok(None) } else { Err(self.tie()) };
        }
        loop {
            match self.rows.try_next().await? {
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => return self.pick(batch).map_err(|e| self.latest.failed(e)).map(Some),
                None => {
                    self.ended = true;
                    let Some((last, tied)) = self.last.take() else { return Ok(None) };
                    self.ties += u64::from(tied);
                    return Ok(Some(last));
                }
            }
        }
    }

    /// The rows of a batch, and the last one before it, that are known to be the last of their key.
    fn pick(&mut self, batch: RecordBatch) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
        let (rows, mut tied) = match self.last.take() {
            None => (batch, false),
            Some((last, tied)) => (concat_batches(&last.schema(), [&last, &batch])?, tied),
        };
        let columns: Vec<_> = self.latest.key_positions.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let keys = self.keys.convert_columns(&columns)?;
        let values = self.values.convert_columns(&[Arc::clone(rows.column(self.latest.by))])?;
        let Some(end) = rows.num_rows().checked_sub(1) else { return Ok(rows) };
        let mut kept = vec![false; rows.num_rows()];
        for (row, kept) in kept.iter_mut().enumerate().take(end) {
            if keys.row(row) == keys.row(row + 1) {
                tied = values.row(row) == values.row(row + 1);
            } else {
                *kept = true;
                self.ties += u64::from(tied);
                tied = false;
            }
        }
        self.last = Some((rows.slice(end, 1), tied));
        filter_record_batch(&rows, &BooleanArray::from(kept))
    }

    fn tie(&self) -> RunError {
        RunError::at(
            Code::KeyInvalid,
            &self.latest.field,
            format!(
                "{} keys ({}) have several rows with the greatest {}, so that none of them is the latest; keep one in the model",
                self.ties,
                self.latest.key.join(", "),
                self.latest.by_name
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Schema};

    use super::*;

    fn rows(ids: &[i64], values: &[&str]) -> RecordBatch {
        let schema = Schema::new(vec![
            arrow::datatypes::Field::new("id", DataType::Int64, true),
            arrow::datatypes::Field::new("at", DataType::Utf8, true),
        ]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(values.to_vec()))];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    async fn latest(batches: Vec<RecordBatch>) -> Result<Vec<(i64, String)>> {
        let latest =
            Latest { field: "f".into(), key: vec!["id".into()], by_name: "at".into(), key_positions: vec![0], by: 1 };
        let picked: Vec<RecordBatch> =
            latest.of(futures::stream::iter(batches.into_iter().map(Ok)).boxed()).try_collect().await?;
        let mut found = Vec::new();
        for batch in picked {
            let ids = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().clone();
            let ats = batch.column(1).as_string::<i32>().clone();
            found.extend((0..batch.num_rows()).map(|row| (ids.value(row), ats.value(row).to_owned())));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn the_latest_row_of_each_key_passes_also_across_batches() {
        let want = [(1, "c".to_owned()), (2, "a".to_owned()), (3, "b".to_owned())];
        for cut in 0..=6 {
            let all = rows(&[1, 1, 1, 2, 3, 3], &["a", "a", "c", "a", "a", "b"]);
            let batches = vec![all.slice(0, cut), all.slice(cut, 6 - cut)];
            assert_eq!(latest(batches).await.unwrap(), want, "cut at {cut}");
        }
        assert!(latest(vec![]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_tie_for_the_greatest_value_is_an_error_that_counts() {
        for cut in 0..=5 {
            let all = rows(&[1, 1, 2, 3, 3], &["a", "a", "a", "b", "b"]);
            let batches = vec![all.slice(0, cut), all.slice(cut, 5 - cut)];
            let error = latest(batches).await.unwrap_err();
            assert!(error.message.starts_with("2 keys (id) have several rows with the greatest at"), "{error}");
        }
    }
}
