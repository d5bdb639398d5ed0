//! Sources: where rows come from. One file per kind. A `file` or `http` source is brought to local disk as it came, and
//! [`crate::decode`] makes rows of it; a `postgres` source gives rows by itself, and they are never on disk.
//!
//! [`window`] is what an incremental source reads: it knows no kind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use report_api::checked::{Checked, CheckedSource, SourceKind};
use sha2::{Digest, Sha256};

use self::postgres::{Databases, Rows};
use self::window::{Watermark, Window};
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::raw::Raw;

pub mod file;
pub mod http;
pub mod postgres;
pub mod window;

/// What is read at once for a digest: large enough that the calls don't count.
const DIGEST_BUFFER_BYTES: usize = 256 << 10;

/// An input as it came, on local disk. A fetched one is in the run's scratch folder and goes with it; a file is used
/// where it is and stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawInput {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal digits, where it was computed while they came.
    pub sha256: Option<String>,
}

impl RawInput {
    /// The SHA-256 of its bytes, in hexadecimal digits. Where it is not known, the input is read for it once more, as long
    /// as `is_wanted`.
    pub async fn digest(&self, is_wanted: &Arc<AtomicBool>) -> Result<String> {
        if let Some(known) = &self.sha256 {
            return Ok(known.clone());
        }
        let (path, is_wanted) = (self.path.clone(), Arc::clone(is_wanted));
        let computed = tokio::task::spawn_blocking(move || digest(&path, &is_wanted)).await;
        let failed = |error| RunError::new(Code::SourceUnreachable, "an input can't be read again").caused_by(error);
        computed
            .map_err(|panic| RunError::new(Code::Internal, "the digest of an input ended early").caused_by(panic))?
            .map_err(failed)
    }
}

fn digest(path: &Path, is_wanted: &AtomicBool) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; DIGEST_BUFFER_BYTES];
    while is_wanted.load(Ordering::Relaxed) {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hexadecimal(&hash.finalize())),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::Interrupted.into())
}

/// What a source gives.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file, to be decoded.
    File(Arc<RawInput>),
    /// Rows that stream, once.
    Rows(Arc<Rows>),
}

impl Input {
    /// Bytes read so far, as they came.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::File(input) => input.bytes,
            Self::Rows(rows) => rows.bytes(),
        }
    }
}

/// What a run wants of its sources.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// What is committed of each incremental source; none after a full refresh.
    pub watermarks: &'a BTreeMap<String, Watermark>,
    /// Up to when incremental files are read: the end of the run's interval.
    pub until: Option<Timestamp>,
    /// Where copies of inputs are kept.
    pub raw: Option<&'a Raw>,
}

/// An opened source: what it gives, and what an incremental one reads where that is known before its rows.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it gives.
    pub input: Input,
    /// The cursor values that are read.
    pub window: Option<Arc<Window>>,
}

/// Opens sources, one after another, before any of their rows is read.
pub struct Opener<'a> {
    env: &'a Env,
    reading: Reading<'a>,
    databases: Databases,
}

impl<'a> Opener<'a> {
    /// For the sources of a run.
    pub fn new(checked: &Checked, env: &'a Env, reading: Reading<'a>) -> Self {
        Self { env, reading, databases: Databases::of(checked) }
    }

    /// Opens a source: a URL is fetched into the scratch folder, a file is used in place, a database is asked for its
    /// columns and holds still.
    pub async fn open(&mut self, source: &CheckedSource) -> Result<Opened> {
        match &source.kind {
            SourceKind::Http(_) | SourceKind::File(_) => {
                let input = Arc::new(self.fetch(source).await?);
                Ok(Opened { input: Input::File(input), window: None })
            }
            SourceKind::Postgres { connection, read } => {
                let after = self.reading.watermarks.get(&source.name);
                let (rows, window) = self.databases.open(source, connection, read, after, self.env).await?;
                Ok(Opened { input: Input::Rows(Arc::new(rows)), window: window.map(Arc::new) })
            }
        }
    }
}

impl Opener<'_> {
    /// Brings an input to local disk: from the copy that an earlier attempt has kept, else from where it is. A masked
    /// source leaves no copy of what it masks.
    async fn fetch(&self, source: &CheckedSource) -> Result<RawInput> {
        let Some(raw) = self.reading.raw.filter(|_| source.masks.is_empty()) else {
            return fetch(source, self.env).await;
        };
        if let Some(input) = raw.read(&source.name, self.env).await? {
            return Ok(input);
        }
        let mut input = fetch(source, self.env).await?;
        input.sha256 = Some(raw.keep(&source.name, &input, self.env).await?);
        Ok(input)
    }
}

/// Brings an input to local disk.
async fn fetch(source: &CheckedSource, env: &Env) -> Result<RawInput> {
    match &source.kind {
        SourceKind::Http(http) => http::fetch(http, source, env).await,
        SourceKind::File(file) => file::fetch(file, source, env).await,
        SourceKind::Postgres { .. } => Err(RunError::at(Code::Internal, &source.field, "a database is no file")),
    }
}

/// A digest as people write it.
pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
