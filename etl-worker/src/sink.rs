//! Sinks: places that rows are written to, each in two steps. One file per kind.

pub(crate) mod database;
pub mod lake;
mod latest;
pub mod mysql;
pub mod outlook;
mod passing;
pub mod postgres;
pub mod sqlite;

use async_trait::async_trait;
use report_api::checked::{CheckedSink, SinkKind, SinkMode};
use report_api::interval::Interval;
use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::error::Result;
use crate::observe::Incoming;

/// A place that rows are written to.
///
/// # Flow
/// A run calls, in this order: [`fence`](Self::fence) once, before anything else; [`clean`](Self::clean), which removes
/// what dead runs left; [`stage`](Self::stage) with all rows; and, when all sinks of the run are staged,
/// [`commit`](Self::commit). A run that takes over from a dead one calls [`is_committed`](Self::is_committed) and
/// `commit` with what the dead one had staged. Calls to one sink never run in parallel.
///
/// # Guarantees
/// - After `stage` the rows survive a crash of worker and sink, and no reader sees them.
/// - `commit` makes all of them visible at once, or none; it can be repeated, and does nothing the second time.
/// - A `commit` whose epoch is below the fence fails as `fenced`, also when it was under way while the fence was raised.
#[async_trait]
pub trait Sink: Send {
    /// Where it writes, for results and messages: `reporting.best_year`, `s3://lake/silver/series`.
    fn target(&self) -> String;

    /// Refuses commits of epochs below this one from now on. Gives the highest epoch that the sink has seen, which is
    /// above `epoch` when the ledger was lost or moved; the fence is then as it was.
    async fn fence(&mut self, epoch: u64) -> Result<u64>;

    /// The end of the newest interval that this sink has committed for the pipeline.
    async fn committed_until(&mut self) -> Result<Option<jiff::Timestamp>>;

    /// Removes what runs with lower epochs staged and never committed, except for `keep`.
    async fn clean(&mut self, epoch: u64, keep: Option<&PreparedSink>) -> Result<()>;

    /// The columns by which the rows must be sorted, if any.
    fn order(&self) -> Vec<String> {
        Vec::new()
    }

    /// Writes the rows of an interval to where no reader sees them, and checks that they can be committed.
    async fn stage(&mut self, epoch: u64, interval: &Interval, incoming: Incoming) -> Result<PreparedSink>;

    /// Whether this was committed.
    async fn is_committed(&mut self, prepared: &PreparedSink, interval: &Interval) -> Result<bool>;

    /// Makes the rows visible.
    async fn commit(&mut self, prepared: &PreparedSink, commit: &Window) -> Result<()>;
}

/// Whose commit it is and what for.
#[derive(Clone, Debug)]
pub struct Window {
    /// The run that staged.
    pub run_id: String,
    /// The epoch of the attempt that commits: the fence is held against it.
    pub epoch: u64,
    /// What for.
    pub interval: Interval,
}

/// What a sink staged: all that a later attempt needs to commit it, also when the manifest has changed since.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreparedSink {
    /// The sink's name.
    pub name: String,
    /// Where it writes.
    pub target: String,
    /// What happens to the rows that are there.
    pub mode: PreparedMode,
    /// Rows staged.
    pub rows: u64,
    /// The columns that are written, in their order.
    pub columns: Vec<String>,
    /// Where the rows are: a table, or a folder.
    pub staging: String,
    /// The epoch in which they were staged: it tells one attempt's commit from another's.
    pub epoch: u64,
    /// Whether the target did not exist, and the staged table becomes it.
    #[serde(default)]
    pub creates: bool,
    /// The columns that the target gets before the commit: their names and types in the database's words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adds: Vec<(String, String)>,
}

/// [`SinkMode`] as it is remembered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "mode")]
pub enum PreparedMode {
    /// A staged table takes the name.
    Swap,
    /// The rows go and others come.
    ReplaceRows,
    /// The rows take the place of all rows, one by one by their key, for tables that others refer to.
    ReplaceByKey {
        /// The columns that tell rows apart.
        key: Vec<String>,
    },
    /// Rows are added.
    Append,
    /// Rows with the same key go.
    Merge {
        /// The columns that tell rows apart.
        key: Vec<String>,
        /// The column by which a row that is there stays if it is as new.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only_if_newer: Option<String>,
        /// The boolean column of the staged rows that deletes the row of that key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delete_when: Option<String>,
    },
    /// The rows with values in `[from, to)` go and others come.
    DeleteInterval {
        /// The column.
        column: String,
        /// The first value, as a date or time in ISO 8601.
        from: String,
        /// The first value after them.
        to: String,
    },
    /// The rows with the values of any staged row go and others come.
    DeletePartitions {
        /// The columns.
        columns: Vec<String>,
    },
}

impl PreparedMode {
    /// The mode's name in manifests and results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Swap | Self::ReplaceRows | Self::ReplaceByKey { .. } => "replace",
            Self::Append => "append",
            Self::Merge { .. } => "merge",
            Self::DeleteInterval { .. } | Self::DeletePartitions { .. } => "deleteInsert",
        }
    }

    /// Whether rows go that another pipeline may have written, so that the table can have one pipeline only.
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::Swap
            | Self::ReplaceRows
            | Self::ReplaceByKey { .. }
            | Self::DeleteInterval { .. }
            | Self::DeletePartitions { .. } => true,
            Self::Append | Self::Merge { .. } => false,
        }
    }
}

/// What a run knows of a sink besides its specification.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The pipeline's identity: `[installation/]namespace/name`.
    pub identity: String,
}

impl Owner {
    /// A short name for the pipeline's sink, for tables and folders of runs: 10 hex digits.
    pub fn tag(&self, sink: &str) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(format!("{}\n{sink}", self.identity));
        digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Opens a sink. Databases are connected when they are first asked something.
pub fn open<'a>(spec: &'a CheckedSink, owner: &Owner, env: &'a Env) -> Result<Box<dyn Sink + 'a>> {
    Ok(match &spec.kind {
        SinkKind::Postgres { connection, schema, table, connections_max } => {
            let field = format!("{}.postgres.connection", spec.field);
            let url = env.secret(connection, &field)?;
            Box::new(postgres::PostgresSink::new(spec, owner.clone(), url, schema, table, *connections_max)?)
        }
        SinkKind::Mysql { connection, database, table } => {
            let field = format!("{}.mysql.connection", spec.field);
            let url = env.secret(connection, &field)?;
            Box::new(mysql::MysqlSink::new(spec, owner.clone(), url, database.as_deref(), table)?)
        }
        SinkKind::Sqlite { path, table } => Box::new(sqlite::SqliteSink::new(spec, owner.clone(), path, table)),
        SinkKind::Lake { url, partition_by, compression } => {
            Box::new(lake::LakeSink::new(spec, owner.clone(), url, partition_by, *compression, env)?)
        }
    })
}

/// What every sink says when replacing rows by none is not allowed.
pub(crate) fn refuse_empty(spec: &CheckedSink, rows: u64, target_has_rows: bool) -> Result<()> {
    if rows == 0 && target_has_rows && !spec.allow_empty && matches!(spec.mode, SinkMode::Replace(_)) {
        return Err(crate::error::RunError::at(
            crate::error::Code::EmptyReplace,
            &spec.field,
            format!("{} gave no rows, which would empty the target; set allowEmpty: true if that is right", spec.from),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PreparedMode, PreparedSink};

    /// What an earlier version has prepared is completed by this one.
    #[test]
    fn what_earlier_versions_prepared_is_understood() {
        let text = r#"{"name": "s", "target": "a.b", "mode": {"mode": "merge", "key": ["id"]}, "rows": 3,
                       "columns": ["id"], "staging": "_report_0_1", "epoch": 1}"#;
        let prepared: PreparedSink = serde_json::from_str(text).unwrap();
        let mode = PreparedMode::Merge { key: vec!["id".into()], only_if_newer: None, delete_when: None };
        assert_eq!((prepared.mode, prepared.creates, prepared.adds), (mode, false, Vec::new()));
        for (text, mode) in [
            (r#"{"mode": "swap"}"#, PreparedMode::Swap),
            (r#"{"mode": "replaceRows"}"#, PreparedMode::ReplaceRows),
            (r#"{"mode": "replaceByKey", "key": ["id"]}"#, PreparedMode::ReplaceByKey { key: vec!["id".into()] }),
            (r#"{"mode": "append"}"#, PreparedMode::Append),
        ] {
            assert_eq!(serde_json::from_str::<PreparedMode>(text).unwrap(), mode);
        }
    }
}
