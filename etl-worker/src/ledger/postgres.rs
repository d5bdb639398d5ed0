//! The ledger in PostgreSQL: a row per pipeline in `report_operator.ledger`.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::Store;
use crate::error::{Code, Result, RunError};
use crate::sink::postgres::{Database, connect, options, run_error};

/// Results kept per pipeline.
const RESULTS_KEPT: i64 = 1000;

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

    fn signed(number: u64) -> i64 {
        i64::try_from(number).unwrap_or(i64::MAX)
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
        Ok(row.map_or((0, None), |(version, state)| (u64::try_from(version).unwrap_or(0), Some(state))))
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
            .bind(Self::signed(known))
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
