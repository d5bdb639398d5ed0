//! The ledger of a pipeline without a database: numbered documents under the first lake's root.

use async_trait::async_trait;
use jiff::Timestamp;

use super::Store;
use crate::error::{Code, Result, RunError};
use crate::objects::{Folder, VersionLog};
use crate::rejected::{RUNS_KEPT, RejectedRow};

/// Documents kept; only the newest counts.
const VERSIONS_KEPT: u64 = 3;
/// Results kept.
const RESULTS_KEPT: usize = 100;

/// The ledger under a lake's root.
pub struct LakeStore {
    folder: Folder,
    log: VersionLog,
}

impl LakeStore {
    /// The ledger in a lake's folder.
    pub fn new(folder: Folder) -> Self {
        Self { log: VersionLog::new(folder.clone(), "_report/ledger", VERSIONS_KEPT), folder }
    }
}

#[async_trait]
impl Store for LakeStore {
    async fn read(&self) -> Result<(u64, Option<String>)> {
        let (version, content) = self.log.newest().await?;
        let text = content.map(String::from_utf8).transpose().map_err(|error| {
            RunError::new(Code::Internal, format!("the ledger in {} is no text", self.name())).caused_by(error)
        })?;
        Ok((version, text))
    }

    async fn write(&self, known: u64, text: &str) -> Result<bool> {
        self.log.write(known, text.as_bytes().to_vec()).await
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(crate::env::now())
    }

    async fn keep_result(&self, run_id: &str, result: &str) -> Result<()> {
        // A run's id sorts in no order of time: the time comes first in the name.
        let name = format!("_report/runs/{}-{run_id}.json", crate::env::now().as_second());
        self.folder.put(&name, result.as_bytes().to_vec()).await?;
        let mut runs = self.folder.list("_report/runs").await?;
        runs.sort();
        for old in runs.iter().take(runs.len().saturating_sub(RESULTS_KEPT)) {
            self.folder.remove(old).await?;
        }
        Ok(())
    }

    async fn keep_rejected(&self, run_id: &str, rows: &[RejectedRow]) -> Result<()> {
        let mut content = Vec::new();
        for row in rows {
            let written = serde_json::to_writer(&mut content, row);
            written.map_err(|e| RunError::new(Code::Internal, "rejected rows can't be written down").caused_by(e))?;
            content.push(b'\n');
        }
        let (of_run, all) = (format!("-{run_id}.ndjson"), self.folder.list("_report/rejected").await?);
        let (of_run, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| name.ends_with(&of_run));
        // The same name for each attempt, so that no reader sees the rows of two.
        let new = || format!("_report/rejected/{}-{run_id}.ndjson", crate::env::now().as_second());
        self.folder.put(&of_run.first().cloned().unwrap_or_else(new), content).await?;
        others.sort();
        let kept = usize::try_from(RUNS_KEPT).unwrap_or(usize::MAX).saturating_sub(1);
        for old in others.iter().take(others.len().saturating_sub(kept)) {
            self.folder.remove(old).await?;
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("{}/_report/ledger", self.folder.url())
    }

    fn how_to_forget(&self) -> String {
        format!("write the newest document of {} again under the next number, without its field prepared", self.name())
    }
}
