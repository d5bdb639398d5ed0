//! What a run would find and do at a sink, without writing anything there: for `etl-worker plan`.
//!
//! Databases are asked in transactions that are read-only; an SQLite file and a lake's folder are opened only where they
//! exist.

use arrow::datatypes::SchemaRef;
use report_api::checked::{CheckedSink, SinkKind};
use report_api::interval::Interval;

use super::{Owner, Sink, lake, mysql, postgres, sqlite};
use crate::env::Env;
use crate::error::{Result, RunError};

/// What a run would find and do.
#[derive(Debug, Default)]
pub struct Outlook {
    /// Where it writes, as in results.
    pub target: String,
    /// Whether that is there; None where it can't be told.
    pub exists: Option<bool>,
    /// Whether there are rows.
    pub has_rows: bool,
    /// How the rows would take their place, where there is more to say than the mode.
    pub how: Option<String>,
    /// The statements that would make the table.
    pub statements: Vec<String>,
    /// Why a run would be refused.
    pub problem: Option<RunError>,
}

impl Outlook {
    pub(super) fn missing(target: String, statements: Vec<String>) -> Self {
        Self { target, exists: Some(false), statements, ..Self::default() }
    }

    pub(super) fn there(target: String, has_rows: bool, problem: Option<RunError>) -> Self {
        Self { target, exists: Some(true), has_rows, problem, ..Self::default() }
    }
}

/// Looks at a sink for rows with these columns.
pub async fn look(
    spec: &CheckedSink,
    owner: &Owner,
    schema: &SchemaRef,
    interval: &Interval,
    env: &Env,
) -> Result<Outlook> {
    match &spec.kind {
        SinkKind::Postgres { connection, schema: schema_name, table, connections_max } => {
            let field = format!("{}.postgres.connection", spec.field);
            let url = env.secret(connection, &field)?;
            postgres::PostgresSink::new(spec, owner.clone(), url, schema_name, table, *connections_max)?
                .outlook(schema, interval)
                .await
        }
        // Of a table there no more is told than where it is.
        SinkKind::Mysql { connection, database, table } => {
            let field = format!("{}.mysql.connection", spec.field);
            let url = env.secret(connection, &field)?;
            let target = mysql::MysqlSink::new(spec, owner.clone(), url, database.as_deref(), table)?.target();
            Ok(Outlook { target, ..Outlook::default() })
        }
        SinkKind::Sqlite { path, table } => {
            sqlite::SqliteSink::new(spec, owner.clone(), path, table).outlook(schema, interval).await
        }
        SinkKind::Lake { url, partition_by, compression } => {
            let is_missing = url::Url::parse(url)
                .is_ok_and(|url| url.scheme() == "file" && url.to_file_path().is_ok_and(|folder| !folder.exists()));
            if is_missing {
                return Ok(Outlook::missing(url.clone(), Vec::new()));
            }
            lake::LakeSink::new(spec, owner.clone(), url, partition_by, *compression, env)?.outlook().await
        }
    }
}
