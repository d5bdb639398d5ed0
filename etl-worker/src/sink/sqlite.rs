//! Sink `sqlite`: rows are inserted into a table of the run's own, then moved in one transaction.
//!
//! The file is in WAL mode, so that readers see the rows as they were until the commit. Memory: one batch.

mod commit;
mod connect;
mod outlook;
mod target;
mod values;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::TryStreamExt;
use report_api::checked::CheckedSink;
use report_api::interval::Interval;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection};

pub use self::connect::{connect, connect_to_read, create_tables, has_table, run_error};
use self::target::Target;
use self::values::{bind, type_name};
use super::database::{self, Counting, Dialect, Place, signed, unsigned};
use super::passing::{self, Load};
use super::{Owner, PreparedMode, PreparedSink, Sink, Window, refuse_empty};
use crate::error::{Code, Result, RunError};
use crate::observe::{Incoming, RowStream};
use crate::quote::{ident, idents};

/// Parameters of one INSERT; SQLite takes 32,766.
const PARAMETERS_MAX: usize = 4000;

/// A table in an SQLite file.
pub struct SqliteSink<'a> {
    spec: &'a CheckedSink,
    owner: Owner,
    path: &'a str,
    table: &'a str,
}

impl<'a> SqliteSink<'a> {
    /// The sink for a table of a file.
    pub fn new(spec: &'a CheckedSink, owner: Owner, path: &'a str, table: &'a str) -> Self {
        Self { spec, owner, path, table }
    }

    async fn connection(&self) -> Result<SqliteConnection> {
        connect(self.path, &format!("{}.sqlite.path", self.spec.field)).await
    }

    fn error(&self, error: sqlx::Error) -> RunError {
        run_error(error, &self.spec.field, &self.target())
    }

    fn place(&self, staging: &str) -> Place {
        Place { dialect: Dialect::Sqlite, target: ident(self.table), staging: ident(staging) }
    }

    /// The statement that makes a table for rows with these columns.
    fn create_table(&self, name: &str, schema: &SchemaRef, primary_key: &[String]) -> Result<String> {
        let mut columns: Vec<String> = Vec::with_capacity(schema.fields().len() + 1);
        for field in schema.fields() {
            let type_ = type_name(field.data_type()).ok_or_else(|| {
                let message = format!(
                    "SQLite can't hold the column {} of type {}; cast it in a model",
                    field.name(),
                    field.data_type()
                );
                RunError::at(Code::TypeUnsupported, format!("{}.from", self.spec.field), message)
            })?;
            let not_null = if primary_key.contains(field.name()) { " NOT NULL" } else { "" };
            columns.push(format!("{} {type_}{not_null}", ident(field.name())));
        }
        if !primary_key.is_empty() {
            columns.push(format!("PRIMARY KEY ({})", idents(primary_key)));
        }
        Ok(format!("CREATE TABLE {} ({})", ident(name), columns.join(", ")))
    }

    /// Makes the run's table, like the target where it will become it.
    async fn create_staging(
        &self,
        connection: &mut SqliteConnection,
        staging: &str,
        schema: &SchemaRef,
        becomes_target: bool,
    ) -> Result<()> {
        let primary_key: &[String] = if becomes_target { &self.spec.primary_key } else { &[] };
        let create = self.create_table(staging, schema, primary_key)?;
        self.execute_all(connection, [format!("DROP TABLE IF EXISTS {}", ident(staging)), create]).await
    }

    async fn execute_all(
        &self,
        connection: &mut SqliteConnection,
        statements: impl IntoIterator<Item = String> + Send,
    ) -> Result<()> {
        for sql in statements.into_iter().collect::<Vec<_>>() {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *connection).await.map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    /// Refuses staged rows that the commit could not put into the target.
    async fn check_staged(
        &self,
        connection: &mut SqliteConnection,
        staging: &str,
        mode: &PreparedMode,
        target: Option<&Target>,
        schema: &SchemaRef,
    ) -> Result<()> {
        let place = self.place(staging);
        let mut counter = Counter { connection, sink: self };
        match mode {
            PreparedMode::Merge { key, .. } | PreparedMode::ReplaceByKey { key } => {
                database::check_key(&mut counter, &place, key, self.spec).await?;
            }
            PreparedMode::Swap
            | PreparedMode::ReplaceRows
            | PreparedMode::Append
            | PreparedMode::DeleteInterval { .. }
            | PreparedMode::DeletePartitions { .. } => {
                let has = |column: &String| schema.index_of(column).is_ok();
                let keys = target.iter().flat_map(|target| &target.unique_keys);
                for key in keys.filter(|key| key.iter().all(has)) {
                    database::check_added(&mut counter, &place, mode, key, self.spec, self.table).await?;
                }
            }
        }
        Ok(())
    }

    async fn insert(
        &self,
        connection: &mut SqliteConnection,
        staging: &str,
        schema: &SchemaRef,
        mut rows: RowStream,
    ) -> Result<u64> {
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let rows_max = (PARAMETERS_MAX / names.len().max(1)).max(1);
        let marks = format!("({})", vec!["?"; names.len()].join(", "));
        let statement = |count: usize| {
            format!(
                "INSERT INTO {} ({}) VALUES {}",
                ident(staging),
                idents(&names),
                vec![marks.as_str(); count].join(", ")
            )
        };
        let full = statement(rows_max);
        let mut total = 0;
        let mut transaction = connection.begin().await.map_err(|e| self.error(e))?;
        while let Some(batch) = rows.try_next().await? {
            for start in (0..batch.num_rows()).step_by(rows_max) {
                let count = rows_max.min(batch.num_rows() - start);
                let sql = if count == rows_max { full.clone() } else { statement(count) };
                let arguments = self.arguments(&batch, start, count)?;
                sqlx::query_with(AssertSqlSafe(sql), arguments)
                    .execute(&mut *transaction)
                    .await
                    .map_err(|e| self.error(e))?;
            }
            total += batch.num_rows() as u64;
        }
        transaction.commit().await.map_err(|e| self.error(e))?;
        Ok(total)
    }

    fn arguments(&self, batch: &RecordBatch, start: usize, count: usize) -> Result<SqliteArguments> {
        let mut arguments = SqliteArguments::default();
        for row in start..start + count {
            for (column, field) in batch.columns().iter().zip(batch.schema_ref().fields()) {
                bind(&mut arguments, column, row).map_err(|message| {
                    let message = format!("column {}: {message}", field.name());
                    RunError::at(Code::TypeUnsupported, format!("{}.from", self.spec.field), message)
                })?;
            }
        }
        Ok(arguments)
    }
}

/// A connection that counts.
struct Counter<'a> {
    connection: &'a mut SqliteConnection,
    sink: &'a SqliteSink<'a>,
}

#[async_trait]
impl Counting for Counter<'_> {
    async fn count(&mut self, sql: String) -> Result<i64> {
        let counted = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *self.connection).await;
        counted.map_err(|e| self.sink.error(e))
    }
}

#[async_trait]
impl Sink for SqliteSink<'_> {
    fn target(&self) -> String {
        format!("{} in {}", self.table, self.path)
    }

    async fn fence(&mut self, epoch: u64) -> Result<u64> {
        let mut connection = self.connection().await?;
        create_tables(&mut connection).await.map_err(|e| self.error(e))?;
        let seen: i64 = sqlx::query_scalar(
            "INSERT INTO report_operator_fences (identity, epoch) VALUES (?, ?)
             ON CONFLICT (identity) DO UPDATE SET epoch = max(epoch, excluded.epoch) RETURNING epoch",
        )
        .bind(&self.owner.identity)
        .bind(signed(epoch))
        .fetch_one(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(unsigned(seen))
    }

    async fn committed_until(&mut self) -> Result<Option<jiff::Timestamp>> {
        let mut connection = self.connection().await?;
        // Times of whole seconds and of fractions are texts that don't sort as times do.
        let ends: Vec<String> =
            sqlx::query_scalar("SELECT interval_end FROM report_operator_commits WHERE identity = ? AND sink = ?")
                .bind(&self.owner.identity)
                .bind(&self.spec.name)
                .fetch_all(&mut connection)
                .await
                .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(ends.iter().filter_map(|end| end.parse().ok()).max())
    }

    async fn clean(&mut self, epoch: u64, keep: Option<&PreparedSink>) -> Result<()> {
        let mut connection = self.connection().await?;
        let prefix = database::staging_prefix(&self.owner, self.spec);
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' AND instr(name, ?) = 1")
                .bind(&prefix)
                .fetch_all(&mut connection)
                .await
                .map_err(|e| self.error(e))?;
        let left = database::left_behind(tables, &prefix, epoch, keep);
        let drops = left.iter().map(|table| format!("DROP TABLE IF EXISTS {}", ident(table)));
        self.execute_all(&mut connection, drops.collect::<Vec<_>>()).await?;
        let _ = connection.close().await;
        Ok(())
    }

    fn order(&self) -> Vec<String> {
        passing::order(self.spec)
    }

    async fn stage(&mut self, epoch: u64, interval: &Interval, incoming: Incoming) -> Result<PreparedSink> {
        let Incoming { schema, rows, .. } = incoming;
        let load = Load::new(self.spec, &schema, interval)?;
        let mut connection = self.connection().await?;
        let target = self.check_target(&mut connection, &load).await?;
        let staging = database::staging_name(&self.owner, self.spec, epoch);
        self.create_staging(&mut connection, &staging, &schema, target.is_none()).await?;

        let mode = match &load.mode {
            // SQLite's readers see a transaction as a whole, so that there is nothing to swap for.
            PreparedMode::Swap => PreparedMode::ReplaceRows,
            other => other.clone(),
        };
        let (columns, written) = (load.columns(), Arc::clone(&load.written));
        let rows = self.insert(&mut connection, &staging, &schema, load.pass(rows)).await?;
        refuse_empty(self.spec, rows, target.as_ref().is_some_and(|target| target.has_rows))?;
        self.check_staged(&mut connection, &staging, &mode, target.as_ref(), &written).await?;
        if let (None, PreparedMode::Merge { delete_when: Some(flag), .. }) = (&target, &mode) {
            // The run's table becomes the target, which has neither these rows nor this column.
            let (table, flag) = (ident(&staging), ident(flag));
            let sqls = [format!("DELETE FROM {table} WHERE {flag}"), format!("ALTER TABLE {table} DROP COLUMN {flag}")];
            self.execute_all(&mut connection, sqls).await?;
        }
        let _ = connection.close().await;
        Ok(PreparedSink {
            name: self.spec.name.clone(),
            target: self.target(),
            mode,
            rows,
            columns,
            staging,
            epoch,
            creates: target.is_none(),
            adds: target.map(|target| target.adds).unwrap_or_default(),
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
        self.try_commit(prepared, window).await
    }
}
