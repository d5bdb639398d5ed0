//! A source: a named input, its format and the columns that it must have. One file per kind of source.

pub mod file;
pub mod http;

use serde::{Deserialize, Serialize};

pub use self::file::FileSource;
pub use self::http::HttpSource;
use crate::column::Column;
use crate::format::{Compression, Format};

/// A named input. Set exactly one of `http` and `file`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.http), has(self.file)].filter(set, set).size() == 1").message("set exactly one of http and file")))]
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

    /// How the input is written: set exactly one of csv, json, ndjson and parquet. Default: from the ending of its name
    /// (.csv, .tsv, .json, .ndjson, .jsonl, .parquet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,

    /// How the input is compressed: auto (the default: by its first bytes), none or gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,

    /// The columns to read, with their types: the contract that the input must keep. Required for csv, json and ndjson.
    /// A parquet file brings its own; with columns, only those are read and their types must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 2000)))]
    #[cfg_attr(feature = "crd", x_kube(merge_strategy = kube::core::ListMerge::Atomic))]
    pub columns: Vec<Column>,
}
