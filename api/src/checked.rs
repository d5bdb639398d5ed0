//! A manifest that has been validated: closed enums where the manifest has options, names that refer to something, and
//! models in an order in which each comes after what it reads. Only [`crate::validate::validate`] makes one.

use crate::check::{Rows, Severity, Threshold};
use crate::column::{ColumnType, ContractMode};
use crate::connection::SecretKey;
use crate::format::{Compression, Encoding};
use crate::pipeline::{ReportPipelineSpec, WhenBusy};
use crate::sink::{LakeCompression, OnSchemaChange, ReplaceBy};
use crate::source::incremental::{Distance, Start};
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
    /// Its columns; empty where the input brings its own.
    pub columns: Vec<CheckedColumn>,
    /// What happens when the input's columns change.
    pub contract: ContractMode,
    /// What happens to rows that are not what the columns say.
    pub bad_rows: BadRows,
    /// The longest record of a text format.
    pub record_bytes_max: u64,
    /// The columns that are masked.
    pub masks: Vec<CheckedMask>,
    /// How only new rows are read, if so.
    pub incremental: Option<CheckedIncremental>,
}

/// What happens to rows that are not what a source's columns say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BadRows {
    /// The first one ends the run.
    Fail,
    /// They are left out and kept apart.
    Quarantine(BadRowsMax),
    /// They are left out.
    Skip(BadRowsMax),
}

/// How many bad rows are too many: more than either of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadRowsMax {
    /// By number.
    pub count: Option<u64>,
    /// By part of all rows.
    pub ratio: Option<f64>,
}

/// A masked column.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedMask {
    /// Its place in the manifest: `spec.sources[2].mask[0]`.
    pub field: String,
    /// The column.
    pub column: String,
    /// What becomes of its values.
    pub kind: MaskKind,
}

/// What becomes of the values of a masked column.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MaskKind {
    /// A keyed hash.
    HmacSha256 {
        /// The key.
        key: SecretKey,
    },
    /// Three asterisks.
    Redact,
    /// The first characters of a text.
    Characters(u32),
    /// The first day of the year of a date or timestamp.
    Year,
    /// The first day of the month of a date or timestamp.
    Month,
}

/// Where a source comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// A URL.
    Http(HttpSource),
    /// A file.
    File(FileSource),
    /// A table or query of a PostgreSQL database.
    Postgres {
        /// The connection URL.
        connection: SecretKey,
        /// What is read.
        read: PostgresRead,
    },
}

/// What is read from a PostgreSQL database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PostgresRead {
    /// A table or view.
    Table {
        /// Its schema.
        schema: String,
        /// Its name.
        table: String,
    },
    /// A SELECT, without a semicolon at its end.
    Query(String),
}

/// How only new rows are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedIncremental {
    /// Its place in the manifest: `spec.sources[2].incremental`.
    pub field: String,
    /// The column, by its name in SQL.
    pub cursor: String,
    /// What is done about rows that come late.
    pub late: Late,
    /// Where the first run starts.
    pub initial: Option<Start>,
}

/// What is done about rows that come late.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Late {
    /// So much is read again before the watermark.
    Lag(Distance),
    /// So much is left to the next run.
    Delay(Distance),
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
    /// None: the rows of a database are typed already.
    Rows,
}

/// How separated values are written.
#[derive(Clone, Debug, Eq, PartialEq)]
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
    /// Texts that mean NULL besides the empty one.
    pub null_values: Vec<String>,
    /// Whether fields in quotes can be NULL.
    pub quoted_nulls: bool,
    /// The byte at the beginning of lines that are passed over.
    pub comment: Option<u8>,
    /// How many lines are passed over before everything else.
    pub skip_lines: u32,
}

impl CsvFormat {
    /// Commas, quotes, a header, in UTF-8.
    pub const PLAIN: Self = Self {
        delimiter: b',',
        quote: Some(b'"'),
        trim: false,
        header: true,
        encoding: Encoding::Utf8,
        null_values: Vec::new(),
        quoted_nulls: false,
        comment: None,
        skip_lines: 0,
    };
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
    /// How it is written in the input, where not as everywhere.
    pub written: Written,
}

/// How the values of a column are written in a text input.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Written {
    /// As everywhere: 1234.5, ISO 8601.
    #[default]
    Plain,
    /// Numbers with other characters.
    Number {
        /// The one before the fraction.
        decimal: char,
        /// The one between thousands.
        group: Option<char>,
    },
    /// Dates and times by a format of strptime.
    Time(String),
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
    /// Whether it is meant to see only the new rows of incremental sources.
    pub delta: bool,
}

/// A validated check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedCheck {
    /// Its place in the manifest: `spec.checks[0]`.
    pub field: String,
    /// Its name.
    pub name: String,
    /// What it asserts.
    pub rule: CheckRule,
    /// What a failure does, and how many failing rows are one.
    pub severity: CheckSeverity,
}

/// What the failing rows of a check do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CheckSeverity {
    /// Any failure does this.
    Any(Severity),
    /// So many failing rows warn or fail the run; fewer pass.
    Above {
        /// More than this warn.
        warn: Option<Threshold>,
        /// More than this fail the run.
        error: Option<Threshold>,
    },
}

/// What a check asserts.
#[derive(Clone, Debug, PartialEq)]
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
    /// Only these values in a column of a table.
    Accepted {
        /// The source or model.
        on: String,
        /// Its column.
        column: String,
        /// The values, as they are written.
        values: Vec<String>,
    },
    /// Only values within bounds in a column of a table.
    Range {
        /// The source or model.
        on: String,
        /// Its column.
        column: String,
        /// The smallest value, as it is written.
        min: Option<String>,
        /// The largest value, as it is written.
        max: Option<String>,
    },
    /// Only texts that match a pattern in a column of a table.
    Regex {
        /// The source or model.
        on: String,
        /// Its column.
        column: String,
        /// The pattern.
        pattern: String,
    },
    /// The values of columns of a table occur in another one.
    References {
        /// The source or model.
        on: String,
        /// Its columns.
        columns: Vec<String>,
        /// The source or model that they refer to.
        to: String,
        /// The columns there, as many.
        to_columns: Vec<String>,
    },
    /// So many rows in a table.
    Rows {
        /// The source or model.
        on: String,
        /// The bounds.
        rows: Rows,
    },
    /// About as many rows as in the last good run.
    RowsChange {
        /// The source or model.
        on: String,
        /// The largest change, as a part of the earlier number.
        max: f64,
    },
    /// About the same mean as in the last good runs.
    MeanChange {
        /// The source or model.
        on: String,
        /// Its column.
        column: String,
        /// The largest change, as a part of the earlier mean.
        max: f64,
        /// How many of the last good runs count.
        runs: usize,
    },
    /// A newest value that is not too old.
    Fresh {
        /// The source or model.
        on: String,
        /// Its column.
        column: String,
        /// The oldest age of the newest value.
        max_age_seconds: u64,
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
    /// Indexes of a table that has to be created.
    pub indexes: Vec<Vec<String>>,
    /// What a row is.
    pub description: Option<String>,
    /// What happens to columns that the table does not have.
    pub on_schema_change: OnSchemaChange,
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
        /// The most connections that stage rows at the same time.
        connections_max: u32,
    },
    /// A table in MySQL or MariaDB.
    Mysql {
        /// The connection URL.
        connection: SecretKey,
        /// The table's database; None for that of the connection URL.
        database: Option<String>,
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
        /// The column whose greatest value tells which of several rows of one key counts.
        latest_by: Option<String>,
        /// The column by which a row that is there stays if it is as new.
        only_if_newer: Option<String>,
        /// The boolean column that deletes the row of that key.
        delete_when: Option<String>,
    },
    /// Those of the run's interval, or of the rows' partitions, go.
    DeleteInsert(DeleteBy),
}

/// Which rows `deleteInsert` deletes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeleteBy {
    /// Those whose value of this column lies in the run's interval.
    Interval(String),
    /// Those with the values of these columns that any row of the run has.
    Partition(Vec<String>),
}

impl SinkMode {
    /// The mode's name in manifests and results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Replace(_) => "replace",
            Self::Append => "append",
            Self::Merge { .. } => "merge",
            Self::DeleteInsert(_) => "deleteInsert",
        }
    }
}

impl CheckedCheck {
    /// What so many failing rows do; None if the check passes.
    pub fn outcome(&self, failing: u64, rows: u64) -> Option<Severity> {
        match self.severity {
            CheckSeverity::Any(severity) => (failing > 0).then_some(severity),
            CheckSeverity::Above { error: Some(error), .. } if error.is_exceeded(failing, rows) => {
                Some(Severity::Error)
            }
            CheckSeverity::Above { warn: Some(warn), .. } if warn.is_exceeded(failing, rows) => Some(Severity::Warn),
            CheckSeverity::Above { .. } => None,
        }
    }

    /// The worst that the check can do.
    pub fn worst(&self) -> Severity {
        match self.severity {
            CheckSeverity::Any(severity) => severity,
            CheckSeverity::Above { error: Some(_), .. } => Severity::Error,
            CheckSeverity::Above { error: None, .. } => Severity::Warn,
        }
    }
}

impl CheckRule {
    /// The source or model whose rows the rule is about; None for a SELECT.
    pub fn on(&self) -> Option<&str> {
        match self {
            Self::NotNull { on, .. }
            | Self::Unique { on, .. }
            | Self::Accepted { on, .. }
            | Self::Range { on, .. }
            | Self::Regex { on, .. }
            | Self::References { on, .. }
            | Self::Rows { on, .. }
            | Self::RowsChange { on, .. }
            | Self::MeanChange { on, .. }
            | Self::Fresh { on, .. } => Some(on),
            Self::Sql { .. } => None,
        }
    }

    /// Whether the rule is about the rows of this one table, which it sees as they pass or asks for.
    pub fn watches(&self, table: &str) -> bool {
        self.on() == Some(table)
    }

    /// All sources and models that the rule reads.
    pub fn reads(&self) -> Vec<&str> {
        match self {
            Self::Sql { reads, .. } => reads.iter().map(String::as_str).collect(),
            Self::References { on, to, .. } => vec![on, to],
            Self::NotNull { on, .. }
            | Self::Unique { on, .. }
            | Self::Accepted { on, .. }
            | Self::Range { on, .. }
            | Self::Regex { on, .. }
            | Self::Rows { on, .. }
            | Self::RowsChange { on, .. }
            | Self::MeanChange { on, .. }
            | Self::Fresh { on, .. } => vec![on],
        }
    }

    /// Whether the outcome can differ for the same inputs, since it depends on the time of the run: a run with such a
    /// check is never skipped because its inputs are unchanged.
    pub fn is_volatile(&self) -> bool {
        matches!(self, Self::Fresh { .. })
    }

    /// The option's name in manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotNull { .. } => "notNull",
            Self::Unique { .. } => "unique",
            Self::Accepted { .. } => "accepted",
            Self::Range { .. } => "range",
            Self::Regex { .. } => "regex",
            Self::References { .. } => "references",
            Self::Rows { .. } => "rows",
            Self::RowsChange { .. } => "rowsChange",
            Self::MeanChange { .. } => "meanChange",
            Self::Fresh { .. } => "fresh",
            Self::Sql { .. } => "sql",
        }
    }

    /// Whether the rule counts rows that fail, of which a threshold can allow some.
    pub fn counts_rows(&self) -> bool {
        match self {
            Self::NotNull { .. }
            | Self::Unique { .. }
            | Self::Accepted { .. }
            | Self::Range { .. }
            | Self::Regex { .. }
            | Self::References { .. }
            | Self::Sql { .. } => true,
            Self::Rows { .. } | Self::RowsChange { .. } | Self::MeanChange { .. } | Self::Fresh { .. } => false,
        }
    }
}
