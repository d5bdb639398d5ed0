//! Writes the Parquet files of a run, in the folders of their partitions.
//!
//! Rows come in any order as long as few partitions have a file open; with more of them, in the order of the partitions,
//! so that one file is open at a time. Memory: [`Files::buffered_bytes_max`], and what object storage has not yet taken.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use object_store::buffered::BufWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use report_api::sink::LakeCompression;

use super::LakeSink;
use super::manifest::LakeFile;
use crate::error::{Code, Result, RunError};
use crate::objects::Folder;
use crate::row_groups::ParquetFile;

/// A row group is written when it holds this much.
const ROW_GROUP_BYTES_MAX: usize = 24 << 20;
/// Row groups in progress may take this part of the memory together, and at least one of full size.
const BUFFERED_SHARE: u64 = 8;
/// Files that are open at the same time: each holds a part that object storage takes at once.
const OPEN_FILES_MAX: usize = 16;
/// Memory that an open file is planned with, beside its row group.
const OPEN_FILE_BYTES: u64 = 32 << 20;
/// What object storage takes at once: the least that S3 allows for a part.
const PART_BYTES: usize = 5 << 20;
/// Parts of a file that are on their way at the same time.
const PARTS_IN_FLIGHT: usize = 2;
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

/// Writes the files of one run.
pub(super) struct Files<'s> {
    sink: &'s LakeSink<'s>,
    staging: String,
    /// Positions of the partition columns.
    keys: Vec<usize>,
    /// Positions of the other columns, which are in the files.
    data: Vec<usize>,
    schema: SchemaRef,
    converter: RowConverter,
    /// All partitions so far, by the values of their columns, as places in `names`.
    partitions: HashMap<OwnedRow, usize>,
    names: Vec<Vec<Option<String>>>,
    open: Vec<OpenFile>,
    open_max: usize,
    buffered_bytes_max: usize,
    started: usize,
    files: Vec<LakeFile>,
}

struct OpenFile {
    partition: usize,
    path: String,
    rows: usize,
    file: ParquetFile<BufWriter>,
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
        let sorted = keys.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Self {
            sink,
            staging: staging.into(),
            keys,
            data,
            schema: Arc::new(Schema::new(fields)),
            converter: RowConverter::new(sorted).map_err(|error| sink.unsplittable(error))?,
            partitions: HashMap::new(),
            names: Vec::new(),
            open: Vec::new(),
            open_max: bytes(sink.memory_bytes / OPEN_FILE_BYTES).clamp(1, OPEN_FILES_MAX),
            buffered_bytes_max: bytes(sink.memory_bytes / BUFFERED_SHARE).max(ROW_GROUP_BYTES_MAX),
            started: 0,
            files: Vec::new(),
        })
    }

    /// Writes rows; false, and none is written, where they have more partitions than may have a file open at once. The
    /// rows must then come in the order of the partitions.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        let split = self.split(batch)?;
        let new = split.iter().filter(|(partition, _)| self.open.iter().all(|open| open.partition != *partition));
        if self.open_max > 1 && self.open.len() + new.count() > self.open_max {
            return Ok(false);
        }
        for (partition, rows) in split {
            self.append(partition, &rows).await?;
        }
        Ok(true)
    }

    /// From now on the rows come in the order of the partitions.
    pub(super) async fn become_sorted(&mut self) -> Result<()> {
        self.open_max = 1;
        self.close_all().await
    }

    pub(super) async fn finish(mut self) -> Result<Vec<LakeFile>> {
        if self.started == 0 && self.keys.is_empty() {
            // A lake without rows still has columns: a file without rows says which.
            self.names.resize(1, Vec::new());
            self.start(0)?;
        }
        self.close_all().await?;
        Ok(self.files)
    }

    /// The rows of each partition, in their order, without the partition's columns.
    fn split(&mut self, batch: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
        let failed = |error| self.sink.unsplittable(error);
        let data = batch.project(&self.data).map_err(failed)?;
        if self.keys.is_empty() {
            self.names.resize(1, Vec::new());
            return Ok(vec![(0, data)]);
        }
        let columns: Vec<ArrayRef> = self.keys.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let keys = self.converter.convert_columns(&columns).map_err(failed)?;
        let mut rows: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut last = None;
        for row in 0..batch.num_rows() {
            // Neighbours are often alike.
            let place = match last {
                Some((before, place)) if keys.row(before) == keys.row(row) => place,
                Some(_) | None => {
                    let partition = self.partition(keys.row(row).owned(), &columns, row)?;
                    let place = rows.iter().position(|(known, _)| *known == partition);
                    place.unwrap_or_else(|| {
                        rows.push((partition, Vec::new()));
                        rows.len() - 1
                    })
                }
            };
            last = Some((row, place));
            rows[place].1.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        if let [(partition, _)] = &rows[..] {
            return Ok(vec![(*partition, data)]);
        }
        let split = rows.into_iter().map(|(partition, rows)| {
            let rows = take_record_batch(&data, &UInt32Array::from(rows));
            rows.map(|rows| (partition, rows)).map_err(|error| self.sink.unsplittable(error))
        });
        split.collect()
    }

    /// The number of the partition that a row belongs to.
    fn partition(&mut self, key: OwnedRow, columns: &[ArrayRef], row: usize) -> Result<usize> {
        if let Some(known) = self.partitions.get(&key) {
            return Ok(*known);
        }
        if self.names.len() == PARTITIONS_MAX {
            return Err(RunError::at(
                Code::SchemaMismatch,
                format!("{}.lake.partitionBy", self.sink.spec.field),
                format!("the rows have more than {PARTITIONS_MAX} partitions; partition by something coarser"),
            ));
        }
        self.names.push(self.values(columns, row)?);
        self.partitions.insert(key, self.names.len() - 1);
        Ok(self.names.len() - 1)
    }

    /// The values of the partition columns in a row, as folders show them.
    fn values(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<Option<String>>> {
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

    async fn append(&mut self, partition: usize, rows: &RecordBatch) -> Result<()> {
        let place = self.open.iter().position(|open| open.partition == partition);
        let place = match place {
            Some(place) if self.open[place].rows < FILE_ROWS_MAX => place,
            full => {
                match full {
                    Some(full) => self.close(full).await?,
                    None if self.open.len() >= self.open_max => self.close(0).await?,
                    None => {}
                }
                self.start(partition)?;
                self.open.len() - 1
            }
        };
        let open = &mut self.open[place];
        open.rows += rows.num_rows();
        open.file.write(rows).await.map_err(|error| self.sink.unwritten(error))?;
        let buffered: usize = self.open.iter().map(|open| open.file.in_progress_bytes()).sum();
        if buffered > self.buffered_bytes_max
            && let Some(largest) = self.open.iter_mut().max_by_key(|open| open.file.in_progress_bytes())
        {
            largest.file.end_group().await.map_err(|error| self.sink.unwritten(error))?;
        }
        Ok(())
    }

    fn start(&mut self, partition: usize) -> Result<()> {
        let mut path = self.staging.clone();
        for (column, value) in self.sink.partition_by.iter().zip(&self.names[partition]) {
            let value = match value.as_deref() {
                None | Some("") => NULL_PARTITION.into(),
                Some(value) => utf8_percent_encode(value, ESCAPED).to_string(),
            };
            path.push_str(&format!("/{column}={value}"));
        }
        path.push_str(&format!("/part-{:05}.parquet", self.started));
        self.started += 1;
        let location = self.sink.folder.path(&path);
        let object = BufWriter::with_capacity(self.sink.folder.store(), location, PART_BYTES);
        let file = ParquetFile::new(
            object.with_max_concurrency(PARTS_IN_FLIGHT),
            Arc::clone(&self.schema),
            properties(self.sink.compression),
            ROW_GROUP_BYTES_MAX,
        );
        let file = file.map_err(|error| self.sink.unwritten(error))?;
        self.open.push(OpenFile { partition, path, rows: 0, file });
        Ok(())
    }

    async fn close_all(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            self.close(0).await?;
        }
        Ok(())
    }

    async fn close(&mut self, place: usize) -> Result<()> {
        let OpenFile { partition, path, rows, file } = self.open.remove(place);
        let bytes = file.finish().await.map_err(|error| self.sink.unwritten(error))?;
        let partition = self.sink.partition_by.iter().cloned().zip(self.names[partition].iter().cloned()).collect();
        self.files.push(LakeFile { path, rows: rows as u64, bytes, partition });
        Ok(())
    }
}

impl LakeSink<'_> {
    fn unsplittable(&self, error: arrow::error::ArrowError) -> RunError {
        RunError::at(Code::Internal, &self.spec.field, "rows can't be split by partition").caused_by(error)
    }

    fn unwritten(&self, error: parquet::errors::ParquetError) -> RunError {
        parquet_error(error, &self.folder, &self.spec.field)
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
