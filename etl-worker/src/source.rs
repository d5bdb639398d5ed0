//! Sources: brings an input to local disk as it came. One file per kind of source; [`crate::decode`] makes rows of it.

use std::path::PathBuf;

use report_api::checked::{CheckedSource, SourceKind};

use crate::env::Env;
use crate::error::Result;

pub mod file;
pub mod http;

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

/// Brings a source's input to local disk: a URL is fetched into the scratch folder, a file is used in place.
pub async fn fetch(source: &CheckedSource, env: &Env) -> Result<RawInput> {
    match &source.kind {
        SourceKind::Http(http) => http::fetch(http, source, env).await,
        SourceKind::File(file) => file::fetch(file, source, env).await,
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
