//! A manifest that has been validated: closed enums where the manifest has options, names that refer to something, and
//! models in an order in which each comes after what it reads. Only [`crate::validate::validate`] makes one.

use crate::check::{Rows, Severity};
use crate::column::ColumnType;
use crate::connection::SecretKey;
use crate::format::{Compression, Encoding};
use crate::pipeline::{ReportPipelineSpec, WhenBusy};
use crate::sink::{LakeCompression, ReplaceBy};
use crate::source::{FileSource, HttpSource};

/// A validated pipeline.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// The sources, as in the manifest.
    pub sources: Vec<CheckedSource>,
    /// The models, each after what it reads.
    pub models: Vec<CheckedModel>,
    /// The checks, as in the manifest.
    pub checks: Vec<CheckedCheck>,
    /// The sinks, as in the manifest.
    pub sinks: Vec<CheckedSink>,
    /// All Secret keys that the pipeline names, sorted and without repetition.
    pub secrets: Vec<SecretKey>,
    /// How long a run may take over all attempts.
    pub timeout_seconds: u64,
    /// What a run does that finds another one under way.
    pub when_busy: WhenBusy,
    /// Where copies of inputs are kept.
    pub raw: Option<CheckedRaw>,
    /// Where the first run's interval starts.
    pub initial: Option<jiff::Timestamp>,
    /// The longest interval that is committed at once.
    pub max_interval_seconds: Option<u64>,
    /// The manifest's schedule, where it has one.
    pub schedule: Option<crate::cron::Schedule>,
    /// The manifest itself.
    pub spec: ReportPipelineSpec,
}

/// Where copies of inputs are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedRaw {
    /// The folder, without a slash at its end.
    pub url: String,
    /// How long a copy is kept after the last run that had it.
    pub retention_seconds: Option<u64>,
}

/// A validated source.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedSource {
    /// Its place in the manifest: `spec.sources[2]`.
    pub field: String,
    /// Its name, an SQL identifier.
    pub name: String,
    /// Where it comes from.
    pub kind: SourceKind,
    /// How it is written.
    pub format: FormatKind,
    /// How it is compressed.
    pub compression: Compression,
    /// Its columns; empty only for Parquet.
    pub columns: Vec<CheckedColumn>,
}

/// Where a source comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// A URL.
    Http(HttpSource),
    /// A file.
    File(FileSource),
}

/// How a source is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FormatKind {
    /// Separated values.
    Csv(CsvFormat),
    /// A document with an array of objects at this path of field names.
    Json {
        /// Field names from the document's root to the array.
        path: Vec<String>,
    },
    /// One object per line.
    NdJson,
    /// A Parquet file.
    Parquet,
}

/// How separated values are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CsvFormat {
    /// The byte between fields.
    pub delimiter: u8,
    /// The byte around fields, if any.
    pub quote: Option<u8>,
    /// Whether white space around fields is removed.
    pub trim: bool,
    /// Whether the first record names the columns.
    pub header: bool,
    /// How text is encoded.
    pub encoding: Encoding,
}

/// A column of a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedColumn {
    /// Its place in the manifest: `spec.sources[2].columns[0]`.
    pub field: String,
    /// Its name in SQL and sinks.
    pub name: String,
    /// Its name in the input, where it was given.
    pub from: Option<String>,
    /// Its type.
    pub type_: ColumnType,
    /// Whether it may hold no NULL and must be there.
    pub required: bool,
    /// What it means.
    pub description: Option<String>,
}

/// A validated model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedModel {
    /// Its place in the manifest: `spec.models[0]`.
    pub field: String,
    /// Its name, an SQL identifier.
    pub name: String,
    /// What a row is.
    pub description: Option<String>,
    /// One SELECT.
    pub sql: String,
    /// The sources and models that it reads, sorted.
    pub reads: Vec<String>,
}

/// A validated check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedCheck {
    /// Its place in the manifest: `spec.checks[0]`.
    pub field: String,
    /// Its name.
    pub name: String,
    /// What it asserts.
    pub rule: CheckRule,
    /// What a failure does.
    pub severity: Severity,
}

/// What a check asserts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CheckRule {
    /// No NULL in these columns of a table.
    NotNull {
        /// The source or model.
        on: String,
        /// Its columns.
        columns: Vec<String>,
    },
    /// No two rows with the same values in these columns of a table.
    Unique {
        /// The source or model.
        on: String,
        /// Its columns.
        columns: Vec<String>,
    },
    /// So many rows in a table.
    Rows {
        /// The source or model.
        on: String,
        /// The bounds.
        rows: Rows,
    },
    /// A SELECT that gives no rows.
    Sql {
        /// The SELECT.
        sql: String,
        /// The sources and models that it reads, sorted.
        reads: Vec<String>,
    },
}

/// A validated sink.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedSink {
    /// Its place in the manifest: `spec.sinks[0]`.
    pub field: String,
    /// Its name.
    pub name: String,
    /// The source or model that it writes.
    pub from: String,
    /// Where it writes.
    pub kind: SinkKind,
    /// What happens to the rows that are there.
    pub mode: SinkMode,
    /// The primary key of a table that has to be created; for merge its key.
    pub primary_key: Vec<String>,
    /// Whether replace may leave no rows.
    pub allow_empty: bool,
    /// Whether a table with rows that no pipeline has filled may be taken over.
    pub adopt: bool,
}

/// Where a sink writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SinkKind {
    /// A table in PostgreSQL.
    Postgres {
        /// The connection URL.
        connection: SecretKey,
        /// The table's schema.
        schema: String,
        /// The table's name.
        table: String,
    },
    /// A table in an SQLite file.
    Sqlite {
        /// The file.
        path: String,
        /// The table's name.
        table: String,
    },
    /// Parquet files.
    Lake {
        /// The root, without a slash at its end.
        url: String,
        /// Columns that become folders.
        partition_by: Vec<String>,
        /// How files are compressed.
        compression: LakeCompression,
    },
}

/// What happens to the rows that are there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SinkMode {
    /// They go.
    Replace(ReplaceBy),
    /// They stay.
    Append,
    /// Those with the same key go.
    Merge {
        /// The columns that tell rows apart.
        key: Vec<String>,
    },
}

impl SinkMode {
    /// The mode's name in manifests and results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Replace(_) => "replace",
            Self::Append => "append",
            Self::Merge { .. } => "merge",
        }
    }
}

impl CheckRule {
    /// Whether the rule is about the rows of this one table, which it sees as they pass or asks for.
    pub fn watches(&self, table: &str) -> bool {
        match self {
            Self::NotNull { on, .. } | Self::Unique { on, .. } | Self::Rows { on, .. } => on == table,
            Self::Sql { .. } => false,
        }
    }
}
