//! Source `file`: a file that is already there, used in place and never changed.
//!
//! Memory: one buffer for the digest. Errors: `input_missing` (no such file, or a folder), `permission_denied`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use report_api::checked::CheckedSource;
use report_api::source::FileSource;
use sha2::{Digest, Sha256};

use super::{RawInput, hexadecimal};
use crate::env::Env;
use crate::error::{Code, Result, RunError};

/// What is read at once for the digest: large enough that the calls don't count.
const BUFFER_BYTES: usize = 256 << 10;

/// Finds the file and reads it once for its digest.
pub(super) async fn fetch(file: &FileSource, source: &CheckedSource, env: &Env) -> Result<RawInput> {
    let path = env.files.join(&file.path);
    let read = tokio::task::spawn_blocking(move || digest(&path)).await;
    match read {
        Ok(Ok(input)) => Ok(input),
        Ok(Err(error)) => Err(explain(error, &file.path, source, &env.files)),
        Err(panic) => Err(RunError::new(Code::Internal, "reading a file ended early").caused_by(panic)),
    }
}

fn digest(path: &Path) -> std::io::Result<RawInput> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
    Ok(RawInput { path: path.to_owned(), bytes, sha256: hexadecimal(&hash.finalize()) })
}

/// What a failed read of a path of the manifest means for the run.
pub(super) fn explain(error: std::io::Error, path: &str, source: &CheckedSource, files: &Path) -> RunError {
    let field = format!("{}.file.path", source.field);
    let start = match Path::new(path).is_absolute() {
        true => String::new(),
        false => format!(" (a relative path starts at {})", files.display()),
    };
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            RunError::at(Code::InputMissing, field, format!("there is no file {path}{start}"))
        }
        ErrorKind::IsADirectory => {
            RunError::at(Code::InputMissing, field, format!("{path} is not a file{start}; name one file"))
        }
        ErrorKind::PermissionDenied => RunError::at(
            Code::PermissionDenied,
            field,
            format!(
                "{path} may not be read{start}; give the worker's user the right to read it and to pass its folders"
            ),
        ),
        _ => RunError::at(Code::SourceUnreachable, field, format!("can't read {path}{start}")).caused_by(error),
    }
}
