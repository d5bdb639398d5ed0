//! Parquet files whose columns are encoded beside each other, on all cores that the process has.
//!
//! Each column of a row group has a task that encodes its values in the order in which they come; a row group that is
//! full is put together from what the tasks give, and sent on. Memory: the row group in progress as far as it is
//! encoded, and [`BATCHES_IN_FLIGHT`] batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches that wait for a column's task: enough that a quick column runs ahead while a slow one is encoded.
const BATCHES_IN_FLIGHT: usize = 4;
/// Most rows of a row group, whatever its size: what readers that work by row groups expect.
const ROW_GROUP_ROWS_MAX: usize = 1 << 20;

/// A Parquet file that is being written.
pub(crate) struct ParquetFile<W> {
    schema: SchemaRef,
    writer: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    group: Option<RowGroup>,
    group_bytes_max: usize,
    to: W,
}

impl<W: AsyncFileWriter> ParquetFile<W> {
    /// Begins a file. A row group ends when it has about `group_bytes_max` encoded bytes.
    pub(crate) fn new(to: W, schema: SchemaRef, properties: WriterProperties, group_bytes_max: usize) -> Result<Self> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        let (writer, factory) = writer.into_serialized_writer()?;
        Ok(Self { schema, writer, factory, group: None, group_bytes_max, to })
    }

    /// Adds rows to the file.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let group = match &mut self.group {
            Some(group) => group,
            None => {
                let at = self.writer.flushed_row_groups().len();
                self.group.insert(RowGroup::start(&self.schema, self.factory.create_column_writers(at)?)?)
            }
        };
        // A task that has ended early has an error, which the end of the row group tells.
        let is_taken = group.send(batch).await;
        if !is_taken || group.bytes() > self.group_bytes_max || group.rows >= ROW_GROUP_ROWS_MAX {
            self.end_group().await?;
        }
        Ok(())
    }

    /// The memory that the row group in progress takes.
    pub(crate) fn in_progress_bytes(&self) -> usize {
        self.group.as_ref().map_or(0, RowGroup::bytes)
    }

    /// Ends the row group in progress, if there is one.
    pub(crate) async fn end_group(&mut self) -> Result<()> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let chunks = group.finish().await?;
        let mut writer = self.writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut writer)?;
        }
        writer.close()?;
        self.send().await
    }

    /// Ends the file, and gives its size in bytes.
    pub(crate) async fn finish(mut self) -> Result<u64> {
        self.end_group().await?;
        self.writer.finish()?;
        self.send().await?;
        self.to.complete().await?;
        Ok(self.writer.bytes_written() as u64)
    }

    async fn send(&mut self) -> Result<()> {
        let bytes = std::mem::take(self.writer.inner_mut());
        self.to.write(bytes.into()).await
    }
}

/// A row group in progress.
struct RowGroup {
    columns: Vec<Column>,
    rows: usize,
}

/// A column of a row group, and the task that encodes it.
struct Column {
    values: mpsc::Sender<ArrayRef>,
    bytes: Arc<AtomicUsize>,
    task: JoinHandle<Result<ArrowColumnChunk>>,
}

impl RowGroup {
    fn start(schema: &SchemaRef, writers: Vec<ArrowColumnWriter>) -> Result<Self> {
        if writers.len() != schema.fields().len() {
            return Err(ParquetError::NYI("columns that have parts are not written".into()));
        }
        let columns = schema.fields().iter().zip(writers).map(|(field, writer)| Column::start(field, writer)).collect();
        Ok(Self { columns, rows: 0 })
    }

    /// False where a column can't be written.
    async fn send(&mut self, batch: &RecordBatch) -> bool {
        self.rows += batch.num_rows();
        for (column, values) in self.columns.iter().zip(batch.columns()) {
            if column.values.send(Arc::clone(values)).await.is_err() {
                return false;
            }
        }
        true
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.bytes.load(Ordering::Relaxed)).sum()
    }

    async fn finish(self) -> Result<Vec<ArrowColumnChunk>> {
        // All columns end before the first one is waited for.
        let tasks: Vec<_> = self.columns.into_iter().map(|column| column.task).collect();
        let mut chunks = Vec::with_capacity(tasks.len());
        for task in tasks {
            chunks.push(task.await.map_err(|panic| ParquetError::External(Box::new(panic)))??);
        }
        Ok(chunks)
    }
}

impl Column {
    fn start(field: &FieldRef, mut writer: ArrowColumnWriter) -> Self {
        let (values, mut given) = mpsc::channel::<ArrayRef>(BATCHES_IN_FLIGHT);
        let bytes = Arc::new(AtomicUsize::new(0));
        let (field, used) = (Arc::clone(field), Arc::clone(&bytes));
        let task = tokio::spawn(async move {
            while let Some(values) = given.recv().await {
                for leaf in compute_leaves(&field, &values)? {
                    writer.write(&leaf)?;
                }
                used.store(writer.memory_size(), Ordering::Relaxed);
            }
            writer.close()
        });
        Self { values, bytes, task }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::compute::concat_batches;
    use arrow::record_batch::RecordBatch;
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::properties::WriterProperties;

    use super::{ParquetFile, ROW_GROUP_ROWS_MAX};

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        let texts = rows.clone().map(|row| (row % 3 != 0).then(|| format!("text {row}")));
        RecordBatch::try_from_iter_with_nullable([
            ("number", Arc::new(Int64Array::from_iter_values(rows)) as _, false),
            ("text", Arc::new(texts.collect::<StringArray>()) as _, true),
        ])
        .unwrap()
    }

    async fn written(batches: &[RecordBatch], group_bytes_max: usize) -> (Vec<u8>, u64) {
        let mut bytes = Vec::new();
        let properties = WriterProperties::builder().build();
        let mut file = ParquetFile::new(&mut bytes, batches[0].schema(), properties, group_bytes_max).unwrap();
        for batch in batches {
            file.write(batch).await.unwrap();
        }
        let size = file.finish().await.unwrap();
        (bytes, size)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_come_back_in_order_from_as_many_row_groups_as_the_size_wants() {
        let batches: Vec<_> = (0..40).map(|n| batch(n * 1000..(n + 1) * 1000)).collect();
        for (group_bytes_max, fewest, most) in [(usize::MAX, 1, 1), (100_000, 3, batches.len())] {
            let (bytes, size) = written(&batches, group_bytes_max).await;
            assert_eq!(size, bytes.len() as u64);
            let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
            let groups = reader.metadata().num_row_groups();
            assert!((fewest..=most).contains(&groups), "{groups} row groups");
            let read: Vec<_> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
            let schema = read[0].schema();
            assert_eq!(concat_batches(&schema, &read).unwrap(), concat_batches(&schema, &batches).unwrap());
        }
    }

    #[tokio::test]
    async fn a_row_group_has_no_more_rows_than_readers_expect() {
        let step = 1 << 18;
        let batches: Vec<_> = (0..6).map(|n| batch(n * step..(n + 1) * step)).collect();
        let (bytes, _) = written(&batches, usize::MAX).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
        let rows: Vec<_> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
        assert_eq!(rows, [ROW_GROUP_ROWS_MAX as i64, 1 << 19]);
    }

    #[tokio::test]
    async fn a_file_without_rows_has_columns() {
        let (bytes, _) = written(&[batch(0..0)], 1).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
        assert_eq!((reader.schema().fields().len(), reader.metadata().num_row_groups()), (2, 0));
    }
}
