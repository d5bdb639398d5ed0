//! Sink `lake`: Parquet files and a manifest that names those that count.

use serde::{Deserialize, Serialize};

/// Parquet files on S3 or in a folder. Each run writes under a prefix of its own; `_report/latest.json` names the files
/// that count.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct LakeSink {
    /// The root: s3://bucket/prefix, or file:///absolute/folder.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 1024), regex(pattern = r"^(s3|file)://.+")))]
    pub url: String,
    /// Columns that become folders, such as year=2025 (Hive partitioning).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 8), inner(length(min = 1, max = 63))))]
    pub partition_by: Vec<String>,
    /// How the files are compressed: zstd (the default), snappy or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<LakeCompression>,
}

/// How Parquet files are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum LakeCompression {
    /// Zstandard at its lowest level.
    #[default]
    Zstd,
    /// Snappy.
    Snappy,
    /// Not at all.
    None,
}
