//! What can end a run: a stable code, where in the manifest, what happened and what to do.
//!
//! One match from [`Code`] to [`ErrorClass`] decides the exit code and whether the run is tried again. No message holds
//! a secret; messages about data hold names, lines and columns, and a value only where a person needs it to find the row.

use std::fmt;

use report_api::problem::Problem;
use report_api::result::{ErrorClass, RunFailure};

/// A result whose error ends the run.
pub type Result<T, E = RunError> = std::result::Result<T, E>;

/// Why a run ended.
#[derive(Debug)]
pub struct RunError {
    /// The stable code.
    pub code: Code,
    /// Where in the manifest, such as `spec.sources[1].http.url`.
    pub field: Option<String>,
    /// What happened and what to do, without the cause.
    pub message: String,
    /// The cause, which is printed once, at the end of the message.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The stable codes of errors. They are part of the product: people alert on them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Code {
    /// The manifest can't be read or does not validate.
    ManifestInvalid,
    /// A model or check does not run: a column or function that does not exist, types that don't go together.
    SqlInvalid,
    /// A Secret's value is missing or is no connection URL.
    SecretInvalid,
    /// The interval overlaps one that is committed.
    IntervalOverlaps,
    /// A table belongs to another pipeline, or to nobody but has rows.
    TableNotOwned,
    /// A sink that only gets new rows has not all the rows before them.
    SinkBehind,
    /// A database or server refuses the log-in.
    LoginDenied,
    /// The log-in works, the right is missing.
    PermissionDenied,
    /// An input has no such column.
    ColumnMissing,
    /// An input has other columns than in the last good run.
    ColumnsChanged,
    /// More rows of a source are bad than may be.
    BadRowsExceeded,
    /// A value is not of the column's type, or NULL in a required column.
    ValueInvalid,
    /// An input is not what its format says: a ragged record, a broken quote, no JSON.
    InputMalformed,
    /// An input's text is not in its encoding.
    EncodingInvalid,
    /// An input is not there (404, no such file).
    InputMissing,
    /// An input is larger than its limit.
    InputTooLarge,
    /// A table is not like the rows that should go into it.
    SchemaMismatch,
    /// A key occurs twice in a run, or is NULL.
    KeyInvalid,
    /// A sink can't hold a type or a value.
    TypeUnsupported,
    /// Replacing rows by none.
    EmptyReplace,
    /// A check failed.
    CheckFailed,
    /// The time is up.
    TimeoutExceeded,
    /// Memory is about to run out.
    MemoryExceeded,
    /// The scratch folder is full.
    DiskExceeded,
    /// A source can't be reached, or answers with an error that may pass.
    SourceUnreachable,
    /// A sink can't be reached, or broke off.
    SinkUnreachable,
    /// The ledger can't be reached, or broke off.
    LedgerUnreachable,
    /// Another run took over while this one was under way.
    Fenced,
    /// Another run is under way.
    Busy,
    /// The worker was asked to stop.
    Stopped,
    /// A bug in the worker.
    Internal,
}

impl Code {
    /// The code as it stands in results and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManifestInvalid => "manifest_invalid",
            Self::SqlInvalid => "sql_invalid",
            Self::SecretInvalid => "secret_invalid",
            Self::IntervalOverlaps => "interval_overlaps",
            Self::TableNotOwned => "table_not_owned",
            Self::SinkBehind => "sink_behind",
            Self::LoginDenied => "login_denied",
            Self::PermissionDenied => "permission_denied",
            Self::ColumnMissing => "column_missing",
            Self::ColumnsChanged => "columns_changed",
            Self::BadRowsExceeded => "bad_rows_exceeded",
            Self::ValueInvalid => "value_invalid",
            Self::InputMalformed => "input_malformed",
            Self::EncodingInvalid => "encoding_invalid",
            Self::InputMissing => "input_missing",
            Self::InputTooLarge => "input_too_large",
            Self::SchemaMismatch => "schema_mismatch",
            Self::KeyInvalid => "key_invalid",
            Self::TypeUnsupported => "type_unsupported",
            Self::EmptyReplace => "empty_replace",
            Self::CheckFailed => "check_failed",
            Self::TimeoutExceeded => "timeout_exceeded",
            Self::MemoryExceeded => "memory_exceeded",
            Self::DiskExceeded => "disk_exceeded",
            Self::SourceUnreachable => "source_unreachable",
            Self::SinkUnreachable => "sink_unreachable",
            Self::LedgerUnreachable => "ledger_unreachable",
            Self::Fenced => "fenced",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
            Self::Internal => "internal",
        }
    }

    /// What kind of failure it is: the exit code and whether to try again follow from it.
    pub fn class(self) -> ErrorClass {
        match self {
            Self::ManifestInvalid
            | Self::SqlInvalid
            | Self::SecretInvalid
            | Self::IntervalOverlaps
            | Self::TableNotOwned
            | Self::SinkBehind => ErrorClass::Manifest,
            Self::LoginDenied | Self::PermissionDenied => ErrorClass::Access,
            Self::ColumnMissing
            | Self::ColumnsChanged
            | Self::BadRowsExceeded
            | Self::ValueInvalid
            | Self::InputMalformed
            | Self::EncodingInvalid
            | Self::InputMissing
            | Self::InputTooLarge
            | Self::SchemaMismatch
            | Self::KeyInvalid
            | Self::TypeUnsupported
            | Self::EmptyReplace => ErrorClass::Contract,
            Self::CheckFailed => ErrorClass::Check,
            Self::TimeoutExceeded | Self::MemoryExceeded | Self::DiskExceeded => ErrorClass::Resources,
            Self::SourceUnreachable
            | Self::SinkUnreachable
            | Self::LedgerUnreachable
            | Self::Fenced
            | Self::Internal => ErrorClass::Transient,
            Self::Busy => ErrorClass::Busy,
            Self::Stopped => ErrorClass::Stopped,
        }
    }
}

impl RunError {
    /// An error at a field of the manifest.
    pub fn at(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: Some(field.into()), message: message.into(), source: None }
    }

    /// An error that is about no field.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, field: None, message: message.into(), source: None }
    }

    /// The error of a run that has lost its lock to another one.
    pub fn fenced(field: impl Into<String>) -> Self {
        let words =
            "another run has taken over this pipeline, since this one was silent for too long; it goes on from here";
        Self::at(Code::Fenced, field, words)
    }

    /// The same error with its cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error without what the SQL engine says of a value: for pipelines with masked sources.
    pub fn without_values(mut self) -> Self {
        if self.code == Code::ValueInvalid {
            self.source = None;
        }
        self
    }

    /// What a person reads: the message and its causes, once each.
    pub fn text(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_ref().map(|source| source.as_ref() as &dyn std::error::Error);
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            cause = error.source();
        }
        text
    }

    /// The error as it stands in the run's result.
    pub fn failure(&self) -> RunFailure {
        RunFailure {
            class: self.code.class(),
            code: self.code.as_str().into(),
            message: self.text(),
            field: self.field.clone(),
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.text())
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The text has the causes already.
        None
    }
}

/// All problems of a manifest as one error.
impl From<Vec<Problem>> for RunError {
    fn from(problems: Vec<Problem>) -> Self {
        let field = problems.first().map(|problem| problem.field.clone());
        let message = match &problems[..] {
            [one] => one.message.clone(),
            many => many.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "),
        };
        Self { code: Code::ManifestInvalid, field, message, source: None }
    }
}
