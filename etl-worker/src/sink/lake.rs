//! Sink `lake`: Parquet files under a prefix of the run's own, and a manifest that names the files that count.
//!
//! Manifests are numbered; each is written once, under the condition that nobody wrote that number before. A reader who
//! goes by a manifest sees one run's state. Memory: one row group of one file, since rows come sorted by partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use report_api::checked::{CheckedSink, SinkMode};
use report_api::interval::Interval;
use report_api::sink::LakeCompression;
use serde::{Deserialize, Serialize};

use super::{Owner, PreparedMode, PreparedSink, Sink, Window, refuse_empty};
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::objects::{Folder, VersionLog};
use crate::tables::RowStream;

/// Where manifests and everything else that is no data are.
const REPORT_FOLDER: &str = "_report";
/// A copy of the newest manifest, for readers.
const LATEST: &str = "_report/latest.json";
/// Manifests kept, two a run, for readers that go by an older one while a run commits.
const MANIFESTS_KEPT: u64 = 10;
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

/// The files that count, after a commit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LakeManifest {
    /// Its number.
    pub version: u64,
    /// Commits of lower epochs are refused from now on.
    pub fence: u64,
    /// The pipeline that fills the lake.
    pub pipeline: String,
    /// Its sink.
    pub sink: String,
    /// The run that committed last.
    pub run_id: String,
    /// The epoch in which its rows were staged.
    pub epoch: u64,
    /// What that run was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// replace or append.
    pub mode: String,
    /// The columns that are folders.
    pub partition_by: Vec<String>,
    /// All columns and their Arrow types, those that are folders included.
    pub columns: Vec<LakeColumn>,
    /// Rows in all files.
    pub rows: u64,
    /// The files.
    pub files: Vec<LakeFile>,
}

/// A column of a lake.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LakeColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    pub type_: String,
}

/// What one attempt staged, as it is remembered until it is committed, also when the manifest has changed by then.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Staged {
    partition_by: Vec<String>,
    columns: Vec<LakeColumn>,
    files: Vec<LakeFile>,
}

/// A file of a lake.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LakeFile {
    /// Its path below the lake's root.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The values of the partition columns; null where there is none.
    pub partition: BTreeMap<String, Option<String>>,
}

/// Parquet files on S3 or in a folder.
pub struct LakeSink<'a> {
    spec: &'a CheckedSink,
    owner: Owner,
    partition_by: &'a [String],
    compression: LakeCompression,
    folder: Folder,
    manifests: VersionLog,
}

impl<'a> LakeSink<'a> {
    /// The sink for the lake at a URL.
    pub fn new(
        spec: &'a CheckedSink,
        owner: Owner,
        url: &'a str,
        partition_by: &'a [String],
        compression: LakeCompression,
        env: &Env,
    ) -> Result<Self> {
        let folder = Folder::open(url, env, &format!("{}.lake.url", spec.field))?;
        let manifests = VersionLog::new(folder.clone(), &format!("{REPORT_FOLDER}/manifests"), MANIFESTS_KEPT);
        Ok(Self { spec, owner, partition_by, compression, folder, manifests })
    }

    async fn newest(&self) -> Result<LakeManifest> {
        match self.manifests.newest().await? {
            (version, Some(content)) => self.parse(version, &content),
            (version, None) => Ok(LakeManifest { version, ..LakeManifest::default() }),
        }
    }

    fn parse(&self, version: u64, content: &[u8]) -> Result<LakeManifest> {
        let manifest: LakeManifest = serde_json::from_slice(content).map_err(|error| {
            let message = format!("the manifest {version} of {} can't be read", self.folder.url());
            RunError::at(Code::SchemaMismatch, &self.spec.field, message).caused_by(error)
        })?;
        Ok(LakeManifest { version, ..manifest })
    }

    /// Writes a manifest after `known`; false if somebody else was quicker.
    async fn write(&self, known: u64, mut manifest: LakeManifest) -> Result<bool> {
        manifest.version = known + 1;
        let content = serde_json::to_vec_pretty(&manifest).map_err(|error| {
            RunError::at(Code::Internal, &self.spec.field, "a manifest can't be written down").caused_by(error)
        })?;
        self.manifests.write(known, content).await
    }

    /// What one attempt staged, as it is remembered until it is committed.
    fn staged_path(staging: &str) -> String {
        format!("{REPORT_FOLDER}/staged/{staging}.json")
    }

    fn properties(&self) -> WriterProperties {
        let compression = match self.compression {
            LakeCompression::Zstd => Compression::ZSTD(ZstdLevel::default()),
            LakeCompression::Snappy => Compression::SNAPPY,
            LakeCompression::None => Compression::UNCOMPRESSED,
        };
        WriterProperties::builder().set_compression(compression).build()
    }

    fn check_owner(&self, manifest: &LakeManifest) -> Result<()> {
        let is_ours = manifest.pipeline == self.owner.identity && manifest.sink == self.spec.name;
        if manifest.pipeline.is_empty() || is_ours {
            return Ok(());
        }
        Err(RunError::at(
            Code::TableNotOwned,
            format!("{}.lake.url", self.spec.field),
            format!(
                "{} is filled by the sink {} of the pipeline {}; write to another prefix",
                self.folder.url(),
                manifest.sink,
                manifest.pipeline
            ),
        ))
    }

    /// Refuses to append rows that are not like those that are there: readers take all files for one table.
    fn check_append(&self, manifest: &LakeManifest, columns: &[LakeColumn]) -> Result<()> {
        if self.spec.mode != SinkMode::Append || manifest.files.is_empty() {
            return Ok(());
        }
        if manifest.partition_by != self.partition_by {
            return Err(RunError::at(
                Code::SchemaMismatch,
                format!("{}.lake.partitionBy", self.spec.field),
                format!(
                    "the lake is partitioned by ({}); append can't change that: use replace, or another prefix",
                    manifest.partition_by.join(", ")
                ),
            ));
        }
        if manifest.columns != columns {
            let list = |columns: &[LakeColumn]| {
                columns.iter().map(|column| format!("{} {}", column.name, column.type_)).collect::<Vec<_>>().join(", ")
            };
            return Err(RunError::at(
                Code::SchemaMismatch,
                &self.spec.field,
                format!(
                    "the lake has the columns ({}), the rows ({}); append can't change that: cast them in a model, use \
                     replace, or another prefix",
                    list(&manifest.columns),
                    list(columns)
                ),
            ));
        }
        Ok(())
    }

    /// Removes files that no manifest which is still kept names, and that no run is about to commit.
    async fn remove_unnamed(&self, epoch: u64, keep: Option<&str>) -> Result<()> {
        let mut named = std::collections::HashSet::new();
        for version in self.manifests.versions().await? {
            if let Some(content) = self.manifests.read(version).await? {
                named.extend(self.parse(version, &content)?.files.into_iter().map(|file| file.path));
            }
        }
        for run in self.folder.folders().await? {
            let Some(of) = epoch_of(&run) else { continue };
            if of >= epoch || keep == Some(run.as_str()) {
                continue;
            }
            for file in self.folder.list(&run).await? {
                if !named.contains(&file) {
                    self.folder.remove(&file).await?;
                }
            }
            self.folder.remove(&Self::staged_path(&run)).await?;
        }
        Ok(())
    }
}

/// The epoch in the name of a run's folder, `r00000012-1f0c…`.
fn epoch_of(folder: &str) -> Option<u64> {
    folder.strip_prefix('r')?.split('-').next()?.parse().ok()
}

#[async_trait]
impl Sink for LakeSink<'_> {
    fn target(&self) -> String {
        self.folder.url().to_owned()
    }

    async fn fence(&mut self, epoch: u64) -> Result<u64> {
        loop {
            let manifest = self.newest().await?;
            self.check_owner(&manifest)?;
            if manifest.fence >= epoch {
                return Ok(manifest.fence);
            }
            let known = manifest.version;
            let fenced = LakeManifest {
                fence: epoch,
                pipeline: self.owner.identity.clone(),
                sink: self.spec.name.clone(),
                ..manifest
            };
            if self.write(known, fenced).await? {
                return Ok(epoch);
            }
        }
    }

    async fn committed_until(&mut self) -> Result<Option<jiff::Timestamp>> {
        Ok(self.newest().await?.interval.map(|interval| interval.end))
    }

    async fn clean(&mut self, epoch: u64, keep: Option<&PreparedSink>) -> Result<()> {
        self.remove_unnamed(epoch, keep.map(|keep| keep.staging.as_str())).await
    }

    fn order(&self) -> Vec<String> {
        self.partition_by.to_vec()
    }

    async fn stage(&mut self, epoch: u64, schema: SchemaRef, mut rows: RowStream) -> Result<PreparedSink> {
        let manifest = self.newest().await?;
        let columns: Vec<LakeColumn> = schema
            .fields()
            .iter()
            .map(|field| LakeColumn { name: field.name().clone(), type_: field.data_type().to_string() })
            .collect();
        self.check_append(&manifest, &columns)?;
        let staging = format!("r{epoch:08}-{}", self.owner.tag(&self.spec.name));
        let mut files = Files::new(self, &schema, &staging)?;
        while let Some(batch) = rows.try_next().await? {
            files.write(&batch).await?;
        }
        let files = files.finish().await?;
        let count = files.iter().map(|file| file.rows).sum();
        refuse_empty(self.spec, count, manifest.rows > 0)?;
        let staged = Staged { partition_by: self.partition_by.to_vec(), columns, files };
        let content = serde_json::to_vec(&staged).map_err(|error| {
            RunError::at(Code::Internal, &self.spec.field, "a list of files can't be written down").caused_by(error)
        })?;
        self.folder.put(&Self::staged_path(&staging), content).await?;
        Ok(PreparedSink {
            name: self.spec.name.clone(),
            target: self.target(),
            mode: PreparedMode::from(&self.spec.mode),
            rows: count,
            columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
            staging,
            epoch,
            creates: false,
        })
    }

    async fn is_committed(&mut self, prepared: &PreparedSink, _: &Interval) -> Result<bool> {
        // Only one attempt stages in an epoch, and a later commit would have needed a later epoch's fence.
        Ok(self.newest().await?.epoch == prepared.epoch)
    }

    async fn commit(&mut self, prepared: &PreparedSink, window: &Window) -> Result<()> {
        loop {
            let manifest = self.newest().await?;
            if manifest.fence != window.epoch {
                return Err(RunError::at(
                    Code::Fenced,
                    &self.spec.field,
                    "another run has taken over this pipeline, since this one was silent for too long; it goes on from here",
                ));
            }
            if manifest.epoch != prepared.epoch {
                let staged = self.folder.get(&Self::staged_path(&prepared.staging)).await?.ok_or_else(|| {
                    RunError::at(
                        Code::Internal,
                        &self.spec.field,
                        format!("the list of staged files of {} is gone", prepared.staging),
                    )
                })?;
                let Staged { partition_by, columns, mut files } = serde_json::from_slice(&staged).map_err(|error| {
                    RunError::at(Code::Internal, &self.spec.field, "the list of staged files can't be read")
                        .caused_by(error)
                })?;
                let appends = prepared.mode == PreparedMode::Append;
                if appends {
                    let mut all = manifest.files.clone();
                    all.append(&mut files);
                    files = all;
                }
                let next = LakeManifest {
                    run_id: window.run_id.clone(),
                    epoch: prepared.epoch,
                    interval: Some(window.interval),
                    mode: if appends { "append" } else { "replace" }.into(),
                    partition_by,
                    columns,
                    rows: files.iter().map(|file| file.rows).sum(),
                    files,
                    ..manifest.clone()
                };
                if !self.write(manifest.version, next).await? {
                    continue;
                }
            }
            break;
        }
        // The pointer moves last, and never back. What follows can be left to the next run.
        crate::crash::point("before_latest");
        let newest = self.newest().await?;
        let content = serde_json::to_vec_pretty(&newest).map_err(|error| {
            RunError::at(Code::Internal, &self.spec.field, "a manifest can't be written down").caused_by(error)
        })?;
        let is_older = |there: &[u8]| {
            serde_json::from_slice::<LakeManifest>(there).is_ok_and(|there| there.version >= newest.version)
        };
        self.folder.put_unless(LATEST, content, is_older).await?;
        self.folder.remove(&Self::staged_path(&prepared.staging)).await?;
        self.remove_unnamed(window.epoch, Some(&prepared.staging)).await
    }
}

/// Writes the files of one run, one at a time.
struct Files<'s> {
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
    fn new(sink: &'s LakeSink<'s>, schema: &SchemaRef, staging: &str) -> Result<Self> {
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
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
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

    async fn finish(mut self) -> Result<Vec<LakeFile>> {
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
        let writer = AsyncArrowWriter::try_new(object, Arc::clone(&self.schema), Some(self.sink.properties()))
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
