//! Reads a manifest: YAML from a person, or compressed JSON from the operator.

use std::io::Read;
use std::path::Path;

use report_api::checked::Checked;
use report_api::manifest::Manifest;
use report_api::validate::validate;

use crate::error::{Code, Result, RunError};

/// Largest manifest, decompressed. The operator's are below 1 MiB compressed.
const MANIFEST_BYTES_MAX: u64 = 32 << 20;

/// Reads and validates the manifest in a file.
pub fn read(path: &Path) -> Result<(Manifest, Checked)> {
    let manifest = parse(path)?;
    if manifest.kind != Manifest::KIND {
        return Err(RunError::at(
            Code::ManifestInvalid,
            "kind",
            format!("{} is a {}, not a {}", path.display(), manifest.kind, Manifest::KIND),
        ));
    }
    let checked = validate(&manifest.metadata.name, &manifest.spec)?;
    Ok((manifest, checked))
}

fn parse(path: &Path) -> Result<Manifest> {
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| {
        RunError::new(Code::ManifestInvalid, format!("{} can't be read", path.display())).caused_by(error)
    };
    let bytes = std::fs::read(path).map_err(|error| unreadable(error.into()))?;
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut decoder = flate2::read::GzDecoder::new(&bytes[..]).take(MANIFEST_BYTES_MAX);
        decoder.read_to_string(&mut text).map_err(|error| unreadable(error.into()))?;
        return serde_json::from_str(&text).map_err(|error| unreadable(error.into()));
    }
    text = String::from_utf8(bytes).map_err(|error| unreadable(error.into()))?;
    serde_yaml::from_str(&text).map_err(|error| unreadable(error.to_string().into()))
}
