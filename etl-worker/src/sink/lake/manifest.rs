//! What says which files of a lake count: its manifest, and the list of what a run has staged.

use std::collections::BTreeMap;

use report_api::interval::Interval;
use serde::{Deserialize, Serialize};

/// The files that count, after a commit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LakeManifest {
    /// Its number.
    pub version: u64,
    /// Commits of lower epochs are refused from now on.
    pub fence: u64,
    /// The pipeline that fills the lake.
    pub pipeline: String,
    /// Its sink.
    pub sink: String,
    /// The run that committed last.
    pub run_id: String,
    /// The epoch in which its rows were staged.
    pub epoch: u64,
    /// What that run was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// replace or append.
    pub mode: String,
    /// The columns that are folders.
    pub partition_by: Vec<String>,
    /// All columns and their Arrow types, those that are folders included.
    pub columns: Vec<LakeColumn>,
    /// Rows in all files.
    pub rows: u64,
    /// The files.
    pub files: Vec<LakeFile>,
}

/// A column of a lake.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LakeColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    pub type_: String,
}

/// What one attempt staged, as it is remembered until it is committed, also when the manifest has changed by then.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Staged {
    pub(super) partition_by: Vec<String>,
    pub(super) columns: Vec<LakeColumn>,
    pub(super) files: Vec<LakeFile>,
}

/// A file of a lake.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LakeFile {
    /// Its path below the lake's root.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The values of the partition columns; null where there is none.
    pub partition: BTreeMap<String, Option<String>>,
}
