//! Source `file`: a file that is already there, used in place and never changed.
//!
//! Errors: `input_missing` (no such file, or a folder), `permission_denied`.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use report_api::checked::CheckedSource;
use report_api::source::FileSource;

use super::RawInput;
use crate::env::Env;
use crate::error::{Code, Result, RunError};

/// Finds the file. Its digest is computed where it is asked for.
pub(super) async fn fetch(file: &FileSource, source: &CheckedSource, env: &Env) -> Result<RawInput> {
    let path = env.files.join(&file.path);
    let found = tokio::task::spawn_blocking(move || find(&path)).await;
    match found {
        Ok(Ok(input)) => Ok(input),
        Ok(Err(error)) => Err(explain(error, &file.path, source, &env.files)),
        Err(panic) => Err(RunError::new(Code::Internal, "finding a file ended early").caused_by(panic)),
    }
}

fn find(path: &Path) -> std::io::Result<RawInput> {
    let found = File::open(path)?.metadata()?;
    if !found.is_file() {
        return Err(ErrorKind::IsADirectory.into());
    }
    Ok(RawInput { path: path.to_owned(), bytes: found.len(), sha256: None })
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
