//! The ledger in an SQLite file: a row per pipeline in `report_operator_ledger`.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::{RESULTS_KEPT, Store};
use crate::error::{Code, Result, RunError};
use crate::rejected::{RUNS_KEPT, RejectedRow};
use crate::sink::database::{signed, unsigned};
use crate::sink::sqlite::{connect, create_tables, run_error};

/// Made when a source has rejected rows to keep. The number grows with time, over all pipelines of the file.
const REJECTED: &str = "CREATE TABLE IF NOT EXISTS report_operator_rejected (number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL, run_id TEXT NOT NULL, source TEXT NOT NULL, file TEXT, line INTEGER NOT NULL,
    column_name TEXT, code TEXT NOT NULL, reason TEXT NOT NULL, raw TEXT, hash TEXT,
    rejected_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')))";

/// The ledger in an SQLite file.
pub struct SqliteStore {
    path: String,
    identity: String,
    field: String,
}

impl SqliteStore {
    /// The ledger of a pipeline in a file, which is made where it is missing.
    pub async fn open(path: &str, identity: &str, field: &str) -> Result<Self> {
        let store = Self { path: path.into(), identity: identity.into(), field: field.into() };
        let mut connection = store.connection().await?;
        create_tables(&mut connection).await.map_err(|e| store.error(e))?;
        let _ = connection.close().await;
        Ok(store)
    }

    async fn connection(&self) -> Result<SqliteConnection> {
        connect(&self.path, &self.field).await
    }

    fn error(&self, error: sqlx::Error) -> RunError {
        let error = run_error(error, &self.field, &self.path);
        if error.code == Code::SinkUnreachable { RunError { code: Code::LedgerUnreachable, ..error } } else { error }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn read(&self) -> Result<(u64, Option<String>)> {
        let mut connection = self.connection().await?;
        let row: Option<(i64, String)> =
            sqlx::query_as("SELECT version, state FROM report_operator_ledger WHERE identity = ?")
                .bind(&self.identity)
                .fetch_optional(&mut connection)
                .await
                .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(row.map_or((0, None), |(version, state)| (unsigned(version), Some(state))))
    }

    async fn write(&self, known: u64, text: &str) -> Result<bool> {
        let mut connection = self.connection().await?;
        let known = signed(known);
        let done = if known == 0 {
            sqlx::query(
                "INSERT INTO report_operator_ledger (identity, version, state) VALUES (?, 1, ?) ON CONFLICT DO NOTHING",
            )
            .bind(&self.identity)
            .bind(text)
            .execute(&mut connection)
            .await
        } else {
            sqlx::query(
                "UPDATE report_operator_ledger SET version = ?2 + 1, state = ?3 WHERE identity = ?1 AND version = ?2",
            )
            .bind(&self.identity)
            .bind(known)
            .bind(text)
            .execute(&mut connection)
            .await
        };
        let done = done.map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(done.rows_affected() == 1)
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(crate::env::now())
    }

    async fn keep_result(&self, run_id: &str, result: &str) -> Result<()> {
        let mut connection = self.connection().await?;
        sqlx::query("INSERT OR REPLACE INTO report_operator_runs (identity, run_id, result) VALUES (?, ?, ?)")
            .bind(&self.identity)
            .bind(run_id)
            .bind(result)
            .execute(&mut connection)
            .await
            .map_err(|e| self.error(e))?;
        // A row that is written again is the newest.
        sqlx::query(
            "DELETE FROM report_operator_runs WHERE identity = ?1 AND rowid <
             (SELECT rowid FROM report_operator_runs WHERE identity = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(&self.identity)
        .bind(RESULTS_KEPT)
        .execute(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(())
    }

    async fn keep_rejected(&self, run_id: &str, rows: &[RejectedRow]) -> Result<()> {
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin().await.map_err(|e| self.error(e))?;
        sqlx::query(REJECTED).execute(&mut *transaction).await.map_err(|e| self.error(e))?;
        sqlx::query("DELETE FROM report_operator_rejected WHERE identity = ? AND run_id = ?")
            .bind(&self.identity)
            .bind(run_id)
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.error(e))?;
        for row in rows {
            sqlx::query(
                "INSERT INTO report_operator_rejected
                 (identity, run_id, source, file, line, column_name, code, reason, raw, hash)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&self.identity)
            .bind(run_id)
            .bind(&row.source)
            .bind(&row.file)
            .bind(i64::try_from(row.line).unwrap_or(i64::MAX))
            .bind(&row.column)
            .bind(&row.code)
            .bind(&row.reason)
            .bind(&row.raw)
            .bind(&row.hash)
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.error(e))?;
        }
        sqlx::query(
            "DELETE FROM report_operator_rejected WHERE identity = ?1 AND run_id NOT IN
             (SELECT run_id FROM report_operator_rejected WHERE identity = ?1
              GROUP BY run_id ORDER BY max(number) DESC LIMIT ?2)",
        )
        .bind(&self.identity)
        .bind(i64::from(RUNS_KEPT))
        .execute(&mut *transaction)
        .await
        .map_err(|e| self.error(e))?;
        transaction.commit().await.map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(())
    }

    fn name(&self) -> String {
        self.path.clone()
    }

    fn how_to_forget(&self) -> String {
        format!(
            "UPDATE report_operator_ledger SET version = version + 1, state = json_remove(state, '$.prepared') \
             WHERE identity = '{}', in {}",
            self.identity.replace('\'', "''"),
            self.path
        )
    }
}
