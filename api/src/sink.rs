//! A sink: a place that a source or model is written to, and how. One file per kind of sink.

pub mod lake;
pub mod mysql;
pub mod postgres;
pub mod sqlite;

use serde::{Deserialize, Serialize};

pub use self::lake::{LakeCompression, LakeSink};
pub use self::mysql::MysqlSink;
pub use self::postgres::PostgresSink;
pub use self::sqlite::SqliteSink;

/// A place that a source or model is written to. Set exactly one of `postgres`, `mysql`, `sqlite` and `lake`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.postgres), has(self.mysql), has(self.sqlite), has(self.lake)].filter(set, set).size() == 1").message("set exactly one of postgres, mysql, sqlite and lake")))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("!has(self.lake) || !has(self.mode) || !(has(self.mode.merge) || has(self.mode.deleteInsert))").message("mode: a lake takes replace or append; merge and deleteInsert need a database table")))]
pub struct Sink {
    /// The name in results, messages and the ledger. Renaming a sink makes it a new one.
    #[cfg_attr(
        feature = "crd",
        schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// What a row is. It becomes the comment of a table that has to be created, in PostgreSQL and MySQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(max = 1024)))]
    pub description: Option<String>,
    /// The source or model whose rows are written.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub from: String,
    /// A table in PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSink>,
    /// A table in MySQL or MariaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlSink>,
    /// A table in an SQLite file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteSink>,
    /// Parquet files on S3 or in a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lake: Option<LakeSink>,
    /// What happens to the rows that are there: set exactly one of replace (the default), append, merge and
    /// deleteInsert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The columns of the primary key of a table that has to be created. merge takes its own key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 32), inner(length(min = 1, max = 63))))]
    pub primary_key: Vec<String>,
    /// Indexes of a table that has to be created, each a list of columns, such as [[city], [year, city]].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "crd",
        schemars(length(max = 16), inner(length(min = 1, max = 16), inner(length(min = 1, max = 63))))
    )]
    pub indexes: Vec<Vec<String>>,
    /// What happens when the rows have columns that the table does not have: fail (the default) or addColumns (the
    /// table gets them, empty in the rows that are there, right before the rows are committed). The type of a column
    /// that exists is never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_schema_change: Option<OnSchemaChange>,
    /// True lets replace leave no rows. Without it, replacing rows by none is refused: an empty input is more often a
    /// broken one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// True takes over a table that has rows but that no pipeline has filled before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// What happens when the rows have columns that the table does not have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum OnSchemaChange {
    /// The run ends and names them.
    #[default]
    Fail,
    /// The table gets them.
    AddColumns,
}

/// What happens to the rows that are there. Set exactly one of `replace`, `append`, `merge` and `deleteInsert`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("[has(self.replace), has(self.append), has(self.merge), has(self.deleteInsert)].filter(set, set).size() == 1").message("set exactly one of replace, append, merge and deleteInsert, such as replace: {}")))]
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
    /// The rows of this run take the place of all rows of its interval, or of the partitions that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_insert: Option<DeleteInsert>,
}

/// The rows of this run take the place of all rows.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Replace {
    /// How a table in PostgreSQL or MySQL is replaced: swap (the default: a staged table takes its name; where something
    /// depends on the table that a new one would not have, such as views, foreign keys, triggers or publications, rows
    /// is used) or rows (DELETE and INSERT in one transaction, which also serves readers in REPEATABLE READ).
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
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Merge {
    /// The columns that tell rows apart. NULL in one of them ends the run, and so does the same key twice in a run,
    /// unless dedupe says which row counts.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63))))]
    pub key: Vec<String>,
    /// Which row counts where a run has several of one key. Without it they end the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<Dedupe>,
    /// A column, such as updated_at: a row that is there stays if its value is equal or greater, so that a backfill of
    /// old rows does not undo newer ones. NULL in a row of the run ends the run; NULL in the table counts as older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub only_if_newer: Option<String>,
    /// A boolean column of the rows, such as is_deleted; a model can compute it. Where it is true, the row of that key
    /// is deleted and nothing is added. The column itself is not written. NULL in it ends the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub delete_when: Option<String>,
}

/// Which row counts where a run has several of one key.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub struct Dedupe {
    /// The column whose greatest value tells the row that counts, such as updated_at. Two rows of one key that share
    /// the greatest value end the run, and so does NULL.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub latest_by: String,
}

/// The rows of this run take the place of all rows of its interval, or of the partitions that they belong to, in one
/// transaction. Set exactly one of `interval` and `partition`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "crd", derive(kube::KubeSchema))]
#[cfg_attr(feature = "crd", x_kube(validation = kube::core::Rule::new("has(self.interval) != has(self.partition)").message("set exactly one of interval and partition, such as interval: created_at")))]
pub struct DeleteInsert {
    /// A column of type date or timestamp: the rows whose value lies in the interval of the run, start included and end
    /// not, go, and the rows of the run come. A row of the run that lies outside of it, or has NULL, ends the run. A
    /// date counts as its midnight in UTC, and a timestamp without zone as UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 63)))]
    pub interval: Option<String>,
    /// Columns such as year and region: the rows with the values of any row of the run go, and the rows of the run
    /// come. Partitions that the run has no rows of stay. NULL in one of the columns ends the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crd", schemars(length(max = 8), inner(length(min = 1, max = 63))))]
    pub partition: Vec<String>,
}
