//! A sink: a place that a source or model is written to, and how. One file per kind of sink.

pub mod lake;
pub mod postgres;
pub mod sqlite;

use serde::{Deserialize, Serialize};

pub use self::lake::{LakeCompression, LakeSink};
pub use self::postgres::PostgresSink;
pub use self::sqlite::SqliteSink;

/// A place that a source or model is written to. Set exactly one of `postgres`, `sqlite` and `lake`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.postgres), has(self.sqlite), has(self.lake)].filter(set, set).size() == 1").message("set exactly one of postgres, sqlite and lake")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("!has(self.lake) || !has(self.mode) || !has(self.mode.merge)").message("mode: a lake takes replace or append; merge needs a database table")))]
pub struct Sink {
    /// The name in results, messages and the ledger. Renaming a sink makes it a new one.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// The source or model whose rows are written.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub from: String,
    /// A table in PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSink>,
    /// A table in an SQLite file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteSink>,
    /// Parquet files on S3 or in a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake: Option<LakeSink>,
    /// What happens to the rows that are there: set exactly one of replace (the default), append and merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The columns of the primary key of a table that has to be created. merge takes its own key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 32), inner(length(min = 1, max = 63))))]
    pub primary_key: Vec<String>,
    /// True lets replace leave no rows. Without it, replacing rows by none is refused: an empty input is more often a
    /// broken one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// True takes over a table that has rows but that no pipeline has filled before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// What happens to the rows that are there. Set exactly one of `replace`, `append` and `merge`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.replace), has(self.append), has(self.merge)].filter(set, set).size() == 1").message("set exactly one of replace, append and merge, such as replace: {}")))]
pub struct Mode {
    /// The rows of this run take the place of all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<Replace>,
    /// The rows of this run are added, once per interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<Append>,
    /// The rows of this run take the place of rows with the same key; others are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

/// The rows of this run take the place of all rows.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Replace {
    /// How a PostgreSQL table is replaced: swap (the default: a staged table takes its name; where views, foreign keys
    /// or publications depend on it, rows is used) or rows (DELETE and INSERT in one transaction, which also serves
    /// readers in REPEATABLE READ).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ReplaceBy>,
}

/// How a table is replaced.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ReplaceBy {
    /// A staged table takes the name.
    #[default]
    Swap,
    /// DELETE and INSERT in one transaction.
    Rows,
}

/// The rows of this run are added, once per interval.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Append {}

/// The rows of this run take the place of rows with the same key; others are added.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Merge {
    /// The columns that tell rows apart. NULL in one of them, or the same key twice in a run, ends the run.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63))))]
    pub key: Vec<String>,
}
