//! A source: a named input, its format and the columns that it must have. One file per kind of source.

pub mod file;
pub mod http;
pub mod incremental;
pub mod postgres;

use serde::{Deserialize, Serialize};

pub use self::file::FileSource;
pub use self::http::HttpSource;
pub use self::incremental::Incremental;
pub use self::postgres::PostgresSource;
use crate::bad_rows::{MaxBadRows, OnBadRow};
use crate::column::{Column, ContractMode};
use crate::format::{Compression, Format};
use crate::mask::Mask;
use crate::units::Size;

/// A named input. Set exactly one of `http`, `file` and `postgres`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.http), has(self.file), has(self.postgres)].filter(set, set).size() == 1").message("set exactly one of http, file and postgres")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("!has(self.postgres) || (!has(self.format) && !has(self.compression))").message("the rows of a database have no format and no compression: leave them out")))]
pub struct Source {
    /// The name that models, checks and sinks use: lower case letters, digits and underscores, as SQL identifiers are.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_]*$")))]
    pub name: String,

    /// What this input is, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub description: Option<String>,

    /// A file on a web server, or the answer of an API. It is fetched once a run; failures that may pass (429, 5xx, a
    /// broken connection) are tried again with growing pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,

    /// A file in the worker's file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,

    /// A table or a query of a PostgreSQL database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSource>,

    /// How the input is written: set exactly one of csv, json, ndjson and parquet. Default: from the ending of its name
    /// (.csv, .tsv, .json, .ndjson, .jsonl, .parquet). Databases have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,

    /// How the input is compressed: auto (the default: by its first bytes), none or gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,

    /// The columns to read, with their types: the contract that the input must keep. Only those are read. Without, all
    /// columns of the input are read: a parquet file and a database table bring their types; those of csv, json and ndjson
    /// are guessed from all values of the first input and then kept, where what could mean two things is text (leading
    /// zeros, more than 18 digits, mixed or no values). A column of a database that is declared a string is read as
    /// PostgreSQL writes it as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 2000)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Atomic))]
    pub columns: Vec<Column>,

    /// What happens when the input's columns change. The worker remembers those of the last good run. freeze (the
    /// default): a column that was not there before and is not under columns, one that was read and is gone, or a parquet
    /// column whose type no longer fits ends the run, each by its name. discard: new columns are left out. evolve: all
    /// columns of the input come in, those that are not under columns as text (csv, json, ndjson) or with their type
    /// (parquet); one that is missing later is NULL, and a parquet column may get wider (int32 to int64, an integer to a
    /// decimal), never narrower. What changed is in the run's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractMode>,

    /// What happens to a row that is not what columns say: fail (the default) ends the run at the first one; quarantine
    /// leaves it out and keeps it in the ledger's table of rejected rows, with its place and the reason; skip leaves it out
    /// and counts it. A file that is broken as a whole ends the run in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_bad_row: Option<OnBadRow>,

    /// How many bad rows are too many, with quarantine and skip. A run with more fails and changes no table. Default:
    /// ratio 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bad_rows: Option<MaxBadRows>,

    /// The longest record of a csv, json or ndjson input, from 1Mi to 512Mi, such as 32Mi (the default). A longer one ends
    /// the run. The worker needs about five times as much memory to read one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_record_size: Option<Size>,

    /// Columns to mask before any row is written or seen by SQL. A fetched input lies as it came in the run's scratch
    /// folder until the run ends, and nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 64)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["column".into()])))]
    pub mask: Vec<Mask>,

    /// Reads only what is new since the last good run. Default: everything, in every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental: Option<Incremental>,
}
