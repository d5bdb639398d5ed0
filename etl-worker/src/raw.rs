//! Copies of inputs as they came (`spec.raw`), in an object store, named by their content.
//!
//! # Layout
//! Below the URL and the pipeline's identity, `[installation/]namespace/name`: `objects/SHA256` is a content, `runs/RUN/SOURCE.json` says which
//! one a source had in a run.
//!
//! # Guarantees
//! - A copy that is read has the SHA-256 of its name; one that has not is as good as none.
//! - What an attempt of a run has kept, the next attempt of that run reads, so that all of them see the same inputs.
//! - A content goes when no run within the retention names it. Only one run of a pipeline does this at a time, since it
//!   has the pipeline's lock.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use report_api::checked::CheckedRaw;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::objects::Folder;
use crate::source::{RawInput, hexadecimal};

/// Bytes that are read from a file at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Runs whose lists are read at once when old copies are removed. More are left to the next run.
const RUNS_CLEANED_MAX: usize = 10_000;

/// The copies of one pipeline.
pub struct Raw {
    folder: Folder,
    run_id: String,
    retention: Option<SignedDuration>,
}

/// Which content a source had in a run.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    source: String,
    sha256: String,
    bytes: u64,
    kept: Timestamp,
}

impl Raw {
    /// Opens the copies of the pipeline with this identity for a run, or a step of one.
    pub fn open(raw: &CheckedRaw, pipeline: &str, run_id: &str, env: &Env) -> Result<Self> {
        let url = format!("{}/{pipeline}", raw.url);
        let seconds = raw.retention_seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        Ok(Self {
            folder: Folder::open(&url, env, "spec.raw.url")?,
            run_id: run_id.into(),
            retention: seconds.map(SignedDuration::from_secs),
        })
    }

    /// What an earlier attempt of this run has kept of a source, copied to local disk and verified.
    pub async fn read(&self, source: &str, env: &Env) -> Result<Option<RawInput>> {
        let Some(content) = self.folder.get(&self.list_path(source)).await? else { return Ok(None) };
        let Ok(kept) = serde_json::from_slice::<Kept>(&content) else { return Ok(None) };
        let path = env.scratch().join(format!("source-{source}"));
        match self.copy(&kept, path).await? {
            Some(input) => Ok(Some(input)),
            None => {
                tracing::warn!(source, sha256 = kept.sha256, "a kept copy is gone or damaged; the source is read anew");
                Ok(None)
            }
        }
    }

    async fn copy(&self, kept: &Kept, path: PathBuf) -> Result<Option<RawInput>> {
        let object = self.folder.path(&object_path(&kept.sha256));
        let mut chunks = match self.folder.store().get(&object).await {
            Ok(found) => found.into_stream(),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.folder.error(error)),
        };
        let unwritable = |error| {
            RunError::at(Code::DiskExceeded, "spec.worker.scratch", "can't write to the scratch folder")
                .caused_by(error)
        };
        let mut file = tokio::fs::File::create(&path).await.map_err(unwritable)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(chunk) = chunks.try_next().await.map_err(|error| self.folder.error(error))? {
            hash.update(&chunk);
            bytes += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(unwritable)?;
        }
        file.flush().await.map_err(unwritable)?;
        let sha256 = hexadecimal(&hash.finalize());
        Ok((sha256 == kept.sha256).then_some(RawInput { path, bytes, sha256: Some(sha256) }))
    }

    /// Keeps an input, and gives its digest. A content that is there is not written again.
    pub async fn keep(&self, source: &str, input: &RawInput, env: &Env) -> Result<String> {
        let sha256 = input.digest(&Arc::new(AtomicBool::new(true))).await?;
        let object = self.folder.path(&object_path(&sha256));
        let store = self.folder.store();
        let is_there = match store.head(&object).await {
            Ok(found) => found.size == input.bytes,
            Err(object_store::Error::NotFound { .. }) => false,
            Err(error) => return Err(self.folder.error(error)),
        };
        if !is_there {
            let unreadable =
                |error| RunError::at(Code::Internal, "spec.raw", "an input can't be read again").caused_by(error);
            let mut file = tokio::fs::File::open(&input.path).await.map_err(unreadable)?;
            let mut writer = BufWriter::new(store, object);
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let count = file.read(&mut buffer).await.map_err(unreadable)?;
                if count == 0 {
                    break;
                }
                // The writer's errors are I/O errors around the store's.
                writer.write_all(&buffer[..count]).await.map_err(|error| self.unwritable(error))?;
            }
            writer.shutdown().await.map_err(|error| self.unwritable(error))?;
        }
        let kept = Kept { source: source.into(), sha256: sha256.clone(), bytes: input.bytes, kept: env.now() };
        let content = serde_json::to_vec(&kept)
            .map_err(|error| RunError::at(Code::Internal, "spec.raw", "can't be written down").caused_by(error))?;
        self.folder.put(&self.list_path(source), content).await?;
        Ok(sha256)
    }

    /// Removes what only runs before the retention had, other than this one.
    pub async fn clean(&self, now: Timestamp) -> Result<()> {
        let Some(oldest) = self.retention.and_then(|retention| now.checked_sub(retention).ok()) else { return Ok(()) };
        let lists = self.folder.list("runs").await?;
        if lists.len() > RUNS_CLEANED_MAX {
            tracing::warn!(lists = lists.len(), "too many raw copies to look through at once; old ones stay");
            return Ok(());
        }
        let (mut named, mut old) = (BTreeSet::new(), Vec::new());
        for list in lists {
            let Some(content) = self.folder.get(&list).await? else { continue };
            match serde_json::from_slice::<Kept>(&content) {
                Ok(kept) if kept.kept < oldest => old.push(list),
                Ok(kept) => _ = named.insert(kept.sha256),
                // Somebody else's: whatever it names stays.
                Err(_) => return Ok(()),
            }
        }
        // The lists go first: a content that is named is there.
        for list in old {
            self.folder.remove(&list).await?;
        }
        for object in self.folder.list("objects").await? {
            let sha256 = object.rsplit('/').next().unwrap_or_default();
            if !named.contains(sha256) {
                self.folder.remove(&object).await?;
            }
        }
        Ok(())
    }

    fn list_path(&self, source: &str) -> String {
        format!("runs/{}/{source}.json", self.run_id)
    }

    fn unwritable(&self, error: std::io::Error) -> RunError {
        match error.into_inner().map(|inner| inner.downcast::<object_store::Error>()) {
            Some(Ok(error)) => self.folder.error(*error),
            _ => RunError::at(Code::SinkUnreachable, "spec.raw.url", format!("{} can't be written", self.folder.url())),
        }
    }
}

fn object_path(sha256: &str) -> String {
    format!("objects/{sha256}")
}
