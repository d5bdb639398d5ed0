//! Sources: where rows come from. One file per kind. A `file` or `http` source is brought to local disk as it came, and
//! [`crate::decode`] makes rows of it; a `postgres` source gives rows by itself, and they are never on disk.
//!
//! [`window`] is what an incremental source reads: it knows no kind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use report_api::checked::{Checked, CheckedSource, SourceKind};

use self::postgres::{Databases, Rows};
use self::window::{Watermark, Window};
use crate::env::Env;
use crate::error::Result;
use crate::raw::Raw;

pub mod file;
pub mod http;
pub mod postgres;
pub mod window;

/// An input as it came, on local disk. A fetched one is in the run's scratch folder and goes with it; a file is used
/// where it is and stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawInput {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
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
        let input = fetch(source, self.env).await?;
        raw.keep(&source.name, &input, self.env).await?;
        Ok(input)
    }
}

/// Brings an input to local disk.
async fn fetch(source: &CheckedSource, env: &Env) -> Result<RawInput> {
    match &source.kind {
        SourceKind::Http(http) => http::fetch(http, source, env).await,
        SourceKind::File(file) => file::fetch(file, source, env).await,
        SourceKind::Postgres { .. } => {
            Err(crate::error::RunError::at(crate::error::Code::Internal, &source.field, "a database is no file"))
        }
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
