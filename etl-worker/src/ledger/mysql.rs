//! The ledger in MySQL: a row per pipeline in `report_operator.ledger`.

use async_trait::async_trait;
use jiff::Timestamp;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, TxOpts, Value};

use super::{RESULTS_KEPT, Store};
use crate::error::{Code, Result, RunError};
use crate::rejected::{RUNS_KEPT, RejectedRow};
use crate::sink::database::{signed, unsigned};
use crate::sink::mysql::{connect, create_tables, options, run_error};
use crate::sink::postgres::Database;

/// Made when a source has rejected rows to keep, so that pipelines without need no right to create it.
const REJECTED: &str = "CREATE TABLE IF NOT EXISTS report_operator.rejected (
    number bigint AUTO_INCREMENT PRIMARY KEY,
    identity varchar(255) NOT NULL,
    run_id varchar(255) NOT NULL,
    source varchar(64) NOT NULL,
    file text,
    line bigint NOT NULL,
    column_name varchar(255),
    code varchar(64) NOT NULL,
    reason text NOT NULL,
    raw text,
    hash varchar(64),
    rejected_at datetime(6) NOT NULL DEFAULT current_timestamp(6),
    INDEX (identity, run_id)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
/// What MySQL says when a row of that key is there.
const DUPLICATE: u16 = 1062;

/// The ledger on a MySQL server. Each call connects anew: calls are seconds to minutes apart, and a proxy or firewall may
/// have cut a connection that was idle.
pub struct MysqlStore {
    options: Opts,
    identity: String,
    field: String,
}

impl MysqlStore {
    /// The ledger of a pipeline on the server at a connection URL. Makes its tables where they are missing.
    pub async fn open(url: &str, identity: &str, field: &str) -> Result<Self> {
        let store = Self { options: options(url, field)?, identity: identity.into(), field: field.into() };
        let mut connection = store.connection().await?;
        create_tables(&mut connection, field, Database::Ledger).await?;
        let _ = connection.disconnect().await;
        Ok(store)
    }

    async fn connection(&self) -> Result<Conn> {
        connect(&self.options, &self.field, Database::Ledger).await
    }

    fn error(&self, error: mysql_async::Error) -> RunError {
        run_error(error, &self.field, "the ledger report_operator.ledger", Database::Ledger)
    }
}

#[async_trait]
impl Store for MysqlStore {
    async fn read(&self) -> Result<(u64, Option<String>)> {
        let mut connection = self.connection().await?;
        let row: Option<(i64, String)> = connection
            .exec_first("SELECT version, state FROM report_operator.ledger WHERE identity = ?", (&self.identity,))
            .await
            .map_err(|e| self.error(e))?;
        let _ = connection.disconnect().await;
        Ok(row.map_or((0, None), |(version, state)| (unsigned(version), Some(state))))
    }

    async fn write(&self, known: u64, text: &str) -> Result<bool> {
        let mut connection = self.connection().await?;
        let known = signed(known);
        let done = if known == 0 {
            let sql = "INSERT INTO report_operator.ledger (identity, version, state) VALUES (?, 1, ?)";
            connection.exec_drop(sql, (&self.identity, text)).await
        } else {
            let sql = "UPDATE report_operator.ledger SET version = version + 1, state = ?, changed_at = now(6)
                       WHERE identity = ? AND version = ?";
            connection.exec_drop(sql, (text, &self.identity, known)).await
        };
        let is_written = match done {
            Ok(()) => connection.affected_rows() == 1,
            Err(mysql_async::Error::Server(error)) if error.code == DUPLICATE => false,
            Err(error) => return Err(self.error(error)),
        };
        let _ = connection.disconnect().await;
        Ok(is_written)
    }

    async fn now(&self) -> Result<Timestamp> {
        let mut connection = self.connection().await?;
        let micros: Option<i64> = connection
            .query_first("SELECT timestampdiff(MICROSECOND, '1970-01-01', now(6))")
            .await
            .map_err(|e| self.error(e))?;
        let _ = connection.disconnect().await;
        Timestamp::from_microsecond(micros.unwrap_or(i64::MAX)).map_err(|error| {
            RunError::at(Code::Internal, &self.field, "the database's clock is out of range").caused_by(error)
        })
    }

    async fn keep_result(&self, run_id: &str, result: &str) -> Result<()> {
        let mut connection = self.connection().await?;
        connection
            .exec_drop(
                "INSERT INTO report_operator.runs (identity, run_id, result) VALUES (?, ?, ?)
                 ON DUPLICATE KEY UPDATE result = VALUES(result), finished_at = now(6)",
                (&self.identity, run_id, result),
            )
            .await
            .map_err(|e| self.error(e))?;
        let oldest: Option<String> = connection
            .exec_first(
                "SELECT cast(finished_at AS char) FROM report_operator.runs WHERE identity = ?
                 ORDER BY finished_at DESC LIMIT 1 OFFSET ?",
                (&self.identity, RESULTS_KEPT),
            )
            .await
            .map_err(|e| self.error(e))?;
        if let Some(oldest) = oldest {
            connection
                .exec_drop(
                    "DELETE FROM report_operator.runs WHERE identity = ? AND finished_at < ?",
                    (&self.identity, oldest),
                )
                .await
                .map_err(|e| self.error(e))?;
        }
        let _ = connection.disconnect().await;
        Ok(())
    }

    async fn keep_rejected(&self, run_id: &str, rows: &[RejectedRow]) -> Result<()> {
        let mut connection = self.connection().await?;
        connection.query_drop(REJECTED).await.map_err(|e| self.error(e))?;
        let mut transaction = connection.start_transaction(TxOpts::default()).await.map_err(|e| self.error(e))?;
        transaction
            .exec_drop(
                "DELETE FROM report_operator.rejected WHERE identity = ? AND run_id = ?",
                (&self.identity, run_id),
            )
            .await
            .map_err(|e| self.error(e))?;
        for row in rows {
            let line = signed(row.line);
            let values: Vec<Value> = vec![
                (&self.identity).into(),
                run_id.into(),
                (&row.source).into(),
                (&row.file).into(),
                line.into(),
                (&row.column).into(),
                (&row.code).into(),
                (&row.reason).into(),
                (&row.raw).into(),
                (&row.hash).into(),
            ];
            let sql = "INSERT INTO report_operator.rejected
                       (identity, run_id, source, file, line, column_name, code, reason, raw, hash)
                       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
            transaction.exec_drop(sql, values).await.map_err(|e| self.error(e))?;
        }
        let kept: Vec<String> = transaction
            .exec(
                "SELECT run_id FROM report_operator.rejected WHERE identity = ? GROUP BY run_id ORDER BY max(number) DESC",
                (&self.identity,),
            )
            .await
            .map_err(|e| self.error(e))?;
        for old in kept.into_iter().skip(RUNS_KEPT as usize) {
            transaction
                .exec_drop(
                    "DELETE FROM report_operator.rejected WHERE identity = ? AND run_id = ?",
                    (&self.identity, old),
                )
                .await
                .map_err(|e| self.error(e))?;
        }
        transaction.commit().await.map_err(|e| self.error(e))?;
        let _ = connection.disconnect().await;
        Ok(())
    }

    fn name(&self) -> String {
        "report_operator.ledger".into()
    }

    fn how_to_forget(&self) -> String {
        format!(
            "UPDATE report_operator.ledger SET version = version + 1, state = json_remove(state, '$.prepared') WHERE identity = '{}'",
            self.identity.replace('\'', "''")
        )
    }
}
