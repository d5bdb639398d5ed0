//! Sink `lake`: Parquet files under a prefix of the run's own, and a manifest that names the files that count.
//!
//! Manifests are numbered; each is written once, under the condition that nobody wrote that number before. A reader who
//! goes by a manifest sees one run's state. Memory: the row groups in progress of a few files; where the rows have more partitions
//! than that, they are sorted by them first.

mod files;
mod manifest;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use report_api::checked::{CheckedSink, SinkMode};
use report_api::interval::Interval;
use report_api::sink::LakeCompression;

use self::files::Files;
use self::manifest::Staged;
pub use self::manifest::{LakeColumn, LakeFile, LakeManifest};
use super::outlook::Outlook;
use super::{Owner, PreparedMode, PreparedSink, Sink, Window, refuse_empty};
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::objects::{Folder, VersionLog};
use crate::observe::Incoming;
use crate::session;

/// Where manifests and everything else that is no data are.
const REPORT_FOLDER: &str = "_report";
/// A copy of the newest manifest, for readers.
const LATEST: &str = "_report/latest.json";
/// Manifests kept, two a run, for readers that go by an older one while a run commits.
const MANIFESTS_KEPT: u64 = 10;

/// Parquet files on S3 or in a folder.
pub struct LakeSink<'a> {
    spec: &'a CheckedSink,
    owner: Owner,
    partition_by: &'a [String],
    compression: LakeCompression,
    memory_bytes: u64,
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
        Ok(Self { spec, owner, partition_by, compression, memory_bytes: env.memory_bytes, folder, manifests })
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

    /// Looks at the lake. Writes nothing.
    pub(super) async fn outlook(&self) -> Result<Outlook> {
        let newest = self.newest().await?;
        let name = self.target();
        if newest.version == 0 {
            return Ok(Outlook::missing(name, Vec::new()));
        }
        Ok(Outlook::there(name, !newest.files.is_empty(), self.check_owner(&newest).err()))
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
        for own in ["manifests", "staged"] {
            self.folder.remove_unfinished(&format!("{REPORT_FOLDER}/{own}")).await?;
        }
        for run in self.folder.folders().await? {
            let Some(of) = epoch_of(&run) else { continue };
            if of >= epoch || keep == Some(run.as_str()) {
                continue;
            }
            self.folder.remove_unfinished(&run).await?;
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

    async fn stage(&mut self, epoch: u64, _interval: &Interval, incoming: Incoming) -> Result<PreparedSink> {
        let Incoming { schema, mut rows, session } = incoming;
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
            if !files.write(&batch).await? {
                files.become_sorted().await?;
                let rest = futures::stream::once(std::future::ready(Ok(batch))).chain(rows).boxed();
                rows = session::sorted(&session, &schema, rest, self.partition_by, &self.spec.field).await?;
            }
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
            mode: match &self.spec.mode {
                SinkMode::Append => PreparedMode::Append,
                // Validation lets a lake have these two modes only.
                SinkMode::Replace(_) | SinkMode::Merge { .. } | SinkMode::DeleteInsert(_) => PreparedMode::Swap,
            },
            rows: count,
            columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
            staging,
            epoch,
            creates: false,
            adds: Vec::new(),
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
                return Err(RunError::fenced(&self.spec.field));
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
