//! Sink `postgres`: rows are copied into a table of the run's own, then committed in one transaction.
//!
//! The run's table stands beside the target and is logged, so that it survives a crash of the database. Replace swaps
//! it in by renaming where nothing depends on the target, and deletes and inserts otherwise. Memory: two batches.
//! Needs: the rights to create tables in the target's schema, and once to create the schema `report_operator`.

mod catalog;
mod commit;
mod connect;
mod copy;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use report_api::checked::CheckedSink;
use report_api::interval::Interval;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use self::catalog::Target;
pub use self::connect::{Database, connect, create_tables, options, run_error};
use super::{Owner, PreparedMode, PreparedSink, Sink, Window, refuse_empty};
use crate::error::{Code, Result, RunError};
use crate::observe::RowStream;
use crate::quote::{ident, idents};

/// A table in PostgreSQL.
pub struct PostgresSink<'a> {
    spec: &'a CheckedSink,
    owner: Owner,
    options: PgConnectOptions,
    schema: &'a str,
    table: &'a str,
}

impl<'a> PostgresSink<'a> {
    /// The sink for a table of the database at a connection URL.
    pub fn new(spec: &'a CheckedSink, owner: Owner, url: &str, schema: &'a str, table: &'a str) -> Result<Self> {
        let options = options(url, &format!("{}.postgres.connection", spec.field))?;
        Ok(Self { spec, owner, options, schema, table })
    }

    async fn connection(&self) -> Result<PgConnection> {
        connect(&self.options, &self.spec.field, Database::Sink).await
    }

    fn error(&self, error: sqlx::Error) -> RunError {
        run_error(error, &self.spec.field, &self.target(), Database::Sink)
    }

    /// The name of the run's table. Its start tells the pipeline's sink, its end the epoch.
    fn staging(&self, epoch: u64) -> String {
        format!("{}{epoch}", self.staging_prefix())
    }

    fn staging_prefix(&self) -> String {
        format!("_report_{}_", self.owner.tag(&self.spec.name))
    }

    /// How the rows will take their place, which decides what the run's table is like.
    fn decide_mode(&self, target: Option<&Target>, schema: &SchemaRef) -> Result<PreparedMode> {
        let wanted = PreparedMode::from(&self.spec.mode);
        let (PreparedMode::Swap | PreparedMode::ReplaceRows, Some(target)) = (&wanted, target) else {
            return Ok(wanted);
        };
        if let Some(key) = target.replace_key(schema, self.spec)? {
            return Ok(PreparedMode::ReplaceByKey { key });
        }
        let swaps = wanted == PreparedMode::Swap && target.can_be_swapped(schema);
        Ok(if swaps { PreparedMode::Swap } else { PreparedMode::ReplaceRows })
    }

    /// Refuses rows that would meet a unique key of the target at the commit, when other sinks have committed.
    async fn check_appended(&self, connection: &mut PgConnection, staging: &str, key: &[String]) -> Result<()> {
        let same = key.iter().map(|column| format!("t.{0} = s.{0}", ident(column))).collect::<Vec<_>>().join(" AND ");
        let schema = ident(self.schema);
        let (table, staging) = (ident(self.table), ident(staging));
        let columns = idents(key);
        for (sql, what) in [
            (
                format!(
                    "SELECT count(*) FROM {schema}.{staging} s WHERE EXISTS (SELECT 1 FROM {schema}.{table} t WHERE {same})"
                ),
                "rows are in the table already, by its unique key",
            ),
            (
                format!(
                    "SELECT count(*) FROM (SELECT 1 FROM {schema}.{staging} WHERE ({columns}) IS NOT NULL
                     GROUP BY {columns} HAVING count(*) > 1) AS d"
                ),
                "keys occur more than once in",
            ),
        ] {
            let count: i64 =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(|e| self.error(e))?;
            if count > 0 {
                return Err(RunError::at(
                    Code::KeyInvalid,
                    &self.spec.field,
                    format!(
                        "{count} {what} ({}) of {}; use merge, or give only new rows",
                        key.join(", "),
                        self.target()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Refuses keys that are NULL or occur twice.
    async fn check_key(&self, connection: &mut PgConnection, staging: &str, key: &[String]) -> Result<()> {
        let table = format!("{}.{}", ident(self.schema), ident(staging));
        let field = format!("{}.mode.merge.key", self.spec.field);
        let names = key.join(", ");
        let nulls = key.iter().map(|column| format!("{} IS NULL", ident(column))).collect::<Vec<_>>().join(" OR ");
        let sql = format!("SELECT count(*) FROM {table} WHERE {nulls}");
        let nulls: i64 =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(|e| self.error(e))?;
        if nulls > 0 {
            let message = format!("{nulls} rows have NULL in the key ({names}); correct them, or choose another key");
            return Err(RunError::at(Code::KeyInvalid, field, message));
        }
        let columns = idents(key);
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {table} GROUP BY {columns} HAVING count(*) > 1) AS d");
        let twice: i64 =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(|e| self.error(e))?;
        if twice > 0 {
            let message = format!("{twice} keys ({names}) occur more than once; keep one row per key in the model");
            return Err(RunError::at(Code::KeyInvalid, field, message));
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for PostgresSink<'_> {
    fn target(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    async fn fence(&mut self, epoch: u64) -> Result<u64> {
        let mut connection = self.connection().await?;
        create_tables(&mut connection, &self.spec.field, Database::Sink).await?;
        let seen: i64 = sqlx::query_scalar(
            "INSERT INTO report_operator.fences AS f (identity, epoch) VALUES ($1, $2)
             ON CONFLICT (identity) DO UPDATE SET epoch = greatest(f.epoch, excluded.epoch) RETURNING epoch",
        )
        .bind(&self.owner.identity)
        .bind(signed(epoch))
        .fetch_one(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(u64::try_from(seen).unwrap_or(0))
    }

    async fn committed_until(&mut self) -> Result<Option<jiff::Timestamp>> {
        let mut connection = self.connection().await?;
        let micros: Option<i64> = sqlx::query_scalar(
            "SELECT (extract(epoch FROM max(interval_end)) * 1000000)::bigint FROM report_operator.commits
             WHERE identity = $1 AND sink = $2",
        )
        .bind(&self.owner.identity)
        .bind(&self.spec.name)
        .fetch_one(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok()))
    }

    async fn clean(&mut self, epoch: u64, keep: Option<&PreparedSink>) -> Result<()> {
        let mut connection = self.connection().await?;
        let prefix = self.staging_prefix();
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind = 'r' AND starts_with(c.relname::text, $2)",
        )
        .bind(self.schema)
        .bind(&prefix)
        .fetch_all(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        for table in tables {
            let of = table.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok());
            if of.is_some_and(|of| of < epoch) && keep.is_none_or(|keep| keep.staging != table) {
                let sql = format!("DROP TABLE IF EXISTS {}.{}", ident(self.schema), ident(&table));
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| self.error(e))?;
            }
        }
        let _ = connection.close().await;
        Ok(())
    }

    async fn stage(&mut self, epoch: u64, schema: SchemaRef, rows: RowStream) -> Result<PreparedSink> {
        let mut connection = self.connection().await?;
        copy::refuse_unknown_types(&schema, &self.spec.field)?;
        catalog::create_schema(&mut connection, self.schema).await.map_err(|e| self.error(e))?;
        let target = catalog::read(&mut connection, self.schema, self.table).await.map_err(|e| self.error(e))?;
        if let Some(target) = &target {
            target.check(&schema, self.spec)?;
            catalog::check_owner(&mut connection, target, self.spec, &self.owner)
                .await
                .map_err(|e| self.error(e))??;
        }
        let mode = self.decide_mode(target.as_ref(), &schema)?;
        let staging = self.staging(epoch);
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();

        let swapped = target.as_ref().filter(|_| mode == PreparedMode::Swap);
        for sql in catalog::create_staging(self.schema, &staging, &schema, swapped) {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| self.error(e))?;
        }
        let count = copy::rows(&mut connection, self.schema, &staging, &schema, rows, self.spec).await?;
        refuse_empty(self.spec, count, target.as_ref().is_some_and(|target| target.has_rows))?;
        if let PreparedMode::Merge { key } | PreparedMode::ReplaceByKey { key } = &mode {
            self.check_key(&mut connection, &staging, key).await?;
        }
        if let (PreparedMode::Append, Some(target)) = (&mode, &target) {
            for key in target.keys_in(&schema) {
                self.check_appended(&mut connection, &staging, key).await?;
            }
        }
        for sql in catalog::finish_staging(self.schema, &staging, &schema, target.as_ref(), &mode, self.spec) {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| self.error(e))?;
        }
        let _ = connection.close().await;
        Ok(PreparedSink {
            name: self.spec.name.clone(),
            target: self.target(),
            mode,
            rows: count,
            columns,
            staging,
            epoch,
            creates: target.is_none(),
        })
    }

    async fn is_committed(&mut self, prepared: &PreparedSink, interval: &Interval) -> Result<bool> {
        let mut connection = self.connection().await?;
        let found =
            commit::is_committed(&mut connection, &self.owner, prepared, interval).await.map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(found)
    }

    async fn commit(&mut self, prepared: &PreparedSink, window: &Window) -> Result<()> {
        commit::commit(self, prepared, window).await
    }
}

/// Epochs are far below 2^63: one is spent per attempt of a run.
fn signed(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}
