//! The ledger in PostgreSQL: a row per pipeline in `report_operator.ledger`.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::{RESULTS_KEPT, Store};
use crate::error::{Code, Result, RunError};
use crate::rejected::{RUNS_KEPT, RejectedRow};

use crate::sink::database::{signed, unsigned};
use crate::sink::postgres::{Database, connect, options, run_error};

/// Made when a source has rejected rows to keep, so that pipelines without need no right to create it.
const REJECTED: &str = "CREATE TABLE IF NOT EXISTS report_operator.rejected (
    identity text NOT NULL,
    run_id text NOT NULL,
    number bigint NOT NULL,
    source text NOT NULL,
    file text,
    line bigint NOT NULL,
    column_name text,
    code text NOT NULL,
    reason text NOT NULL,
    raw text,
    hash text,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (identity, run_id, number))";

/// The ledger in a PostgreSQL database. Each call connects anew: calls are seconds to minutes apart, and a pooler or
/// firewall may have cut a connection that was idle.
pub struct PostgresStore {
    options: PgConnectOptions,
    identity: String,
    field: String,
}

impl PostgresStore {
    /// The ledger of a pipeline in the database at a connection URL. Makes its tables where they are missing.
    pub async fn open(url: &str, identity: &str, field: &str) -> Result<Self> {
        let store = Self { options: options(url, field)?, identity: identity.into(), field: field.into() };
        let mut connection = store.connection().await?;
        crate::sink::postgres::create_tables(&mut connection, field, Database::Ledger).await?;
        let _ = connection.close().await;
        Ok(store)
    }

    async fn connection(&self) -> Result<PgConnection> {
        connect(&self.options, &self.field, Database::Ledger).await
    }

    fn error(&self, error: sqlx::Error) -> RunError {
        run_error(error, &self.field, "the ledger report_operator.ledger", Database::Ledger)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn read(&self) -> Result<(u64, Option<String>)> {
        let mut connection = self.connection().await?;
        let row: Option<(i64, String)> =
            sqlx::query_as("SELECT version, state::text FROM report_operator.ledger WHERE identity = $1")
                .bind(&self.identity)
                .fetch_optional(&mut connection)
                .await
                .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(row.map_or((0, None), |(version, state)| (unsigned(version), Some(state))))
    }

    async fn write(&self, known: u64, text: &str) -> Result<bool> {
        let mut connection = self.connection().await?;
        let sql = if known == 0 {
            "INSERT INTO report_operator.ledger (identity, version, state) VALUES ($1, $2 + 1, $3::jsonb) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE report_operator.ledger SET version = $2 + 1, state = $3::jsonb, changed_at = now()
             WHERE identity = $1 AND version = $2"
        };
        let done = sqlx::query(sql)
            .bind(&self.identity)
            .bind(signed(known))
            .bind(text)
            .execute(&mut connection)
            .await
            .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(done.rows_affected() == 1)
    }

    async fn now(&self) -> Result<Timestamp> {
        let mut connection = self.connection().await?;
        let micros: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM now()) * 1000000)::bigint")
            .fetch_one(&mut connection)
            .await
            .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Timestamp::from_microsecond(micros).map_err(|error| {
            RunError::at(Code::Internal, &self.field, "the database's clock is out of range").caused_by(error)
        })
    }

    async fn keep_result(&self, run_id: &str, result: &str) -> Result<()> {
        let mut connection = self.connection().await?;
        sqlx::query(
            "INSERT INTO report_operator.runs (identity, run_id, result) VALUES ($1, $2, $3::jsonb)
             ON CONFLICT (identity, run_id) DO UPDATE SET result = excluded.result, finished_at = now()",
        )
        .bind(&self.identity)
        .bind(run_id)
        .bind(result)
        .execute(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        sqlx::query(
            "DELETE FROM report_operator.runs WHERE identity = $1 AND finished_at <
             (SELECT finished_at FROM report_operator.runs WHERE identity = $1 ORDER BY finished_at DESC OFFSET $2 LIMIT 1)",
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
        let there: bool = sqlx::query_scalar("SELECT to_regclass('report_operator.rejected') IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .map_err(|e| self.error(e))?;
        let mut transaction = connection.begin().await.map_err(|e| self.error(e))?;
        if !there {
            // Two pipelines may come at the same time, and IF NOT EXISTS does not wait for the other's transaction.
            for sql in ["SELECT pg_advisory_xact_lock(7021420251121)", REJECTED] {
                sqlx::query(sql).execute(&mut *transaction).await.map_err(|e| self.error(e))?;
            }
        }
        sqlx::query("DELETE FROM report_operator.rejected WHERE identity = $1 AND run_id = $2")
            .bind(&self.identity)
            .bind(run_id)
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.error(e))?;
        let texts = |value: fn(&RejectedRow) -> Option<&String>| -> Vec<Option<String>> {
            rows.iter().map(|row| value(row).cloned()).collect()
        };
        sqlx::query(
            "INSERT INTO report_operator.rejected
             (identity, run_id, number, source, file, line, column_name, code, reason, raw, hash)
             SELECT $1, $2, r.* FROM unnest($3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[],
             $9::text[], $10::text[], $11::text[]) AS r",
        )
        .bind(&self.identity)
        .bind(run_id)
        .bind((1..).take(rows.len()).collect::<Vec<i64>>())
        .bind(texts(|row| Some(&row.source)))
        .bind(texts(|row| row.file.as_ref()))
        .bind(rows.iter().map(|row| signed(row.line)).collect::<Vec<i64>>())
        .bind(texts(|row| row.column.as_ref()))
        .bind(texts(|row| Some(&row.code)))
        .bind(texts(|row| Some(&row.reason)))
        .bind(texts(|row| row.raw.as_ref()))
        .bind(texts(|row| row.hash.as_ref()))
        .execute(&mut *transaction)
        .await
        .map_err(|e| self.error(e))?;
        sqlx::query(
            "DELETE FROM report_operator.rejected WHERE identity = $1 AND run_id NOT IN
             (SELECT run_id FROM report_operator.rejected WHERE identity = $1
              GROUP BY run_id ORDER BY max(rejected_at) DESC LIMIT $2)",
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
        "report_operator.ledger".into()
    }

    fn how_to_forget(&self) -> String {
        format!(
            "UPDATE report_operator.ledger SET version = version + 1, state = state - 'prepared' WHERE identity = '{}'",
            self.identity.replace('\'', "''")
        )
    }
}
