//! Writes the Parquet files of a run, sorted into the folders of their partitions.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use report_api::sink::LakeCompression;

use super::LakeSink;
use super::manifest::LakeFile;
use crate::error::{Code, Result, RunError};
use crate::objects::Folder;

/// A row group is written when it holds this much.
const ROW_GROUP_BYTES_MAX: usize = 24 << 20;
/// A file ends when it holds this many rows, so that readers can share the work.
const FILE_ROWS_MAX: usize = 8_000_000;
/// Partitions of one run. More are a sign of a column that is no partition, and make every reader slow.
const PARTITIONS_MAX: usize = 10_000;
/// The folder of rows without a value, as Hive names it.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";
/// What Hive escapes in a partition's folder, besides control characters.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'\'')
    .add(b'*')
    .add(b'/')
    .add(b':')
    .add(b'=')
    .add(b'?')
    .add(b'\\')
    .add(b'{')
    .add(b'}')
    .add(b'[')
    .add(b']')
    .add(b'^')
    .add(b'<')
    .add(b'>')
    .add(b'|')
    .add(b'`')
    .add(b'~');

/// Writes the files of one run, one at a time.
pub(super) struct Files<'s> {
    sink: &'s LakeSink<'s>,
    staging: String,
    /// Positions of the partition columns.
    keys: Vec<usize>,
    /// Positions of the other columns, which are in the files.
    data: Vec<usize>,
    schema: SchemaRef,
    open: Option<OpenFile>,
    files: Vec<LakeFile>,
    partitions: usize,
}

struct OpenFile {
    partition: Vec<Option<String>>,
    path: String,
    rows: usize,
    writer: AsyncArrowWriter<BufWriter>,
}

impl<'s> Files<'s> {
    pub(super) fn new(sink: &'s LakeSink<'s>, schema: &SchemaRef, staging: &str) -> Result<Self> {
        let mut keys = Vec::with_capacity(sink.partition_by.len());
        for (at, column) in sink.partition_by.iter().enumerate() {
            keys.push(schema.index_of(column).map_err(|_| {
                RunError::at(
                    Code::SqlInvalid,
                    format!("{}.lake.partitionBy[{at}]", sink.spec.field),
                    format!("{} has no column {column}", sink.spec.from),
                )
            })?);
        }
        let data: Vec<usize> = (0..schema.fields().len()).filter(|at| !keys.contains(at)).collect();
        if data.is_empty() {
            let message = "every column is a partition; leave one for the files";
            return Err(RunError::at(Code::SqlInvalid, format!("{}.lake.partitionBy", sink.spec.field), message));
        }
        let fields: Vec<_> = data.iter().map(|at| Arc::clone(&schema.fields()[*at])).collect();
        Ok(Self {
            sink,
            staging: staging.into(),
            keys,
            data,
            schema: Arc::new(Schema::new(fields)),
            open: None,
            files: Vec::new(),
            partitions: 0,
        })
    }

    /// Writes rows, which come sorted by the partition columns.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let failed = |error| {
            RunError::at(Code::Internal, &self.sink.spec.field, "rows can't be split by partition").caused_by(error)
        };
        let columns: Vec<ArrayRef> = self.keys.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let ranges = if columns.is_empty() {
            std::iter::once(0..batch.num_rows()).collect()
        } else {
            arrow::compute::partition(&columns).map_err(failed)?.ranges()
        };
        for range in ranges.into_iter().filter(|range| !range.is_empty()) {
            let partition = self.partition(&columns, range.start)?;
            if self.open.as_ref().is_none_or(|open| open.partition != partition || open.rows >= FILE_ROWS_MAX) {
                self.close().await?;
                self.start(partition)?;
            }
            let rows = batch.slice(range.start, range.len()).project(&self.data).map_err(|error| {
                RunError::at(Code::Internal, &self.sink.spec.field, "columns can't be picked").caused_by(error)
            })?;
            let field = self.sink.spec.field.clone();
            let Some(open) = &mut self.open else { continue };
            open.rows += rows.num_rows();
            let flushed = async {
                open.writer.write(&rows).await?;
                if open.writer.in_progress_size() > ROW_GROUP_BYTES_MAX {
                    open.writer.flush().await?;
                }
                Ok(())
            };
            flushed.await.map_err(|error| parquet_error(error, &self.sink.folder, &field))?;
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<Vec<LakeFile>> {
        if self.files.is_empty() && self.open.is_none() && self.keys.is_empty() {
            // A lake without rows still has columns: a file without rows says which.
            self.start(Vec::new())?;
        }
        self.close().await?;
        Ok(self.files)
    }

    /// The values of the partition columns in a row, as folders show them.
    fn partition(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<Option<String>>> {
        let failed = |error| {
            RunError::at(
                Code::TypeUnsupported,
                format!("{}.lake.partitionBy", self.sink.spec.field),
                "a partition's value can't be written as text",
            )
            .caused_by(error)
        };
        let options = FormatOptions::default();
        columns
            .iter()
            .map(|column| {
                if column.is_null(row) {
                    return Ok(None);
                }
                Ok(Some(ArrayFormatter::try_new(column, &options).map_err(failed)?.value(row).to_string()))
            })
            .collect()
    }

    fn start(&mut self, partition: Vec<Option<String>>) -> Result<()> {
        self.partitions += 1;
        if self.partitions > PARTITIONS_MAX {
            return Err(RunError::at(
                Code::SchemaMismatch,
                format!("{}.lake.partitionBy", self.sink.spec.field),
                format!("the rows have more than {PARTITIONS_MAX} partitions; partition by something coarser"),
            ));
        }
        let mut path = self.staging.clone();
        for (column, value) in self.sink.partition_by.iter().zip(&partition) {
            let value = match value.as_deref() {
                None | Some("") => NULL_PARTITION.into(),
                Some(value) => utf8_percent_encode(value, ESCAPED).to_string(),
            };
            path.push_str(&format!("/{column}={value}"));
        }
        path.push_str(&format!("/part-{:05}.parquet", self.files.len()));
        let location = self.sink.folder.path(&path);
        let object = BufWriter::new(self.sink.folder.store(), location);
        let writer =
            AsyncArrowWriter::try_new(object, Arc::clone(&self.schema), Some(properties(self.sink.compression)))
                .map_err(|error| parquet_error(error, &self.sink.folder, &self.sink.spec.field))?;
        self.open = Some(OpenFile { partition, path, rows: 0, writer });
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let failed = |error| parquet_error(error, &self.sink.folder, &self.sink.spec.field);
        open.writer.finish().await.map_err(failed)?;
        self.files.push(LakeFile {
            path: open.path,
            rows: open.rows as u64,
            bytes: open.writer.bytes_written() as u64,
            partition: self.sink.partition_by.iter().cloned().zip(open.partition).collect(),
        });
        Ok(())
    }
}

/// An error of the Parquet writer in our terms: mostly one of the object store.
fn parquet_error(error: parquet::errors::ParquetError, folder: &Folder, field: &str) -> RunError {
    match error {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
            Ok(store) => folder.error(*store),
            Err(other) => match other.downcast::<std::io::Error>() {
                Ok(io) => match io.into_inner().map(|inner| inner.downcast::<object_store::Error>()) {
                    Some(Ok(store)) => folder.error(*store),
                    _ => RunError::at(Code::SinkUnreachable, field, format!("{} can't be written", folder.url())),
                },
                Err(_) => RunError::at(Code::SinkUnreachable, field, format!("{} can't be written", folder.url())),
            },
        },
        other => RunError::at(Code::Internal, field, "rows can't be written as Parquet").caused_by(other),
    }
}

fn properties(compression: LakeCompression) -> WriterProperties {
    let compression = match compression {
        LakeCompression::Zstd => Compression::ZSTD(ZstdLevel::default()),
        LakeCompression::Snappy => Compression::SNAPPY,
        LakeCompression::None => Compression::UNCOMPRESSED,
    };
    WriterProperties::builder().set_compression(compression).build()
}
