//! The only door to the clock, the environment, the network and the scratch folder: everything a run takes from outside
//! its manifest comes in through [`Env`], so that tests can choose it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use report_api::connection::SecretKey;
use tempfile::TempDir;

use crate::error::{Code, Result, RunError};
use crate::events::Progress;

/// What a run may use.
pub struct Env {
    /// Environment variables: Secrets, and the settings of S3.
    variables: BTreeMap<String, String>,
    /// Where relative paths of `file` sources start.
    pub files: PathBuf,
    /// A folder of this run, removed at its end.
    scratch: TempDir,
    /// How many bytes may be in it.
    pub scratch_bytes: u64,
    /// Memory that the process may use.
    pub memory_bytes: u64,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// Says what happens.
    pub progress: Arc<dyn Progress>,
    clock: fn() -> Timestamp,
}

impl Env {
    /// The environment of this process. `scratch` is the folder in which the run makes a folder of its own.
    pub fn new(
        variables: BTreeMap<String, String>,
        files: PathBuf,
        scratch: &Path,
        scratch_bytes: u64,
        memory_bytes: u64,
        progress: Arc<dyn Progress>,
    ) -> Result<Self> {
        let scratch = std::fs::create_dir_all(scratch)
            .and_then(|()| tempfile::Builder::new().prefix("run-").tempdir_in(scratch))
            .map_err(|error| {
                RunError::new(Code::DiskExceeded, format!("can't make a folder in {}", scratch.display()))
                    .caused_by(error)
            })?;
        Ok(Self {
            variables,
            files,
            scratch,
            scratch_bytes,
            memory_bytes,
            http: crate::source::http::client()?,
            progress,
            clock: now,
        })
    }

    /// The current time, to the microsecond: what databases keep.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The folder for files on their way. It is removed at the end of the run.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// An environment variable, if it is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All environment variables, for the settings of S3.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a Secret's key. The error names the Secret and the variable, never a value.
    pub fn secret(&self, key: &SecretKey, field: &str) -> Result<&str> {
        let variable = key.variable();
        self.variables.get(&variable).map(|value| value.trim()).filter(|value| !value.is_empty()).ok_or_else(|| {
            RunError::at(
                Code::SecretInvalid,
                field,
                format!(
                    "the key {} of the Secret {} has no value here that is text; set it, or on a laptop the variable {variable}",
                    key.key, key.name
                ),
            )
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door to the clock")]
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
