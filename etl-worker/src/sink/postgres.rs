//! Sink `postgres`: rows are copied into a table of the run's own, then committed in one transaction.
//!
//! The run's table stands beside the target and is logged, so that it survives a crash of the database. Replace swaps
//! it in by renaming where nothing depends on the target, and deletes and inserts otherwise. Memory: two batches and two
//! MiB for each connection that copies.
//! Needs: the rights to create tables in the target's schema, and once to create the schema `report_operator`.

mod catalog;
mod commit;
mod connect;
mod copy;
mod outlook;
mod staging;
mod wire;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use report_api::checked::CheckedSink;
use report_api::interval::Interval;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use self::catalog::Target;
pub use self::connect::{Database, connect, create_tables, options, run_error};
use super::database::{self, Counting, Dialect, Place, signed, unsigned};
use super::passing::{self, Load};
use super::{Owner, PreparedMode, PreparedSink, Sink, Window, refuse_empty};
use crate::error::{Result, RunError};
use crate::observe::Incoming;
use crate::quote::ident;

/// A table in PostgreSQL.
pub struct PostgresSink<'a> {
    spec: &'a CheckedSink,
    owner: Owner,
    options: PgConnectOptions,
    schema: &'a str,
    table: &'a str,
    connections_max: u32,
}

impl<'a> PostgresSink<'a> {
    /// The sink for a table of the database at a connection URL.
    pub fn new(
        spec: &'a CheckedSink,
        owner: Owner,
        url: &str,
        schema: &'a str,
        table: &'a str,
        connections_max: u32,
    ) -> Result<Self> {
        let options = options(url, &format!("{}.postgres.connection", spec.field))?;
        Ok(Self { spec, owner, options, schema, table, connections_max })
    }

    async fn connection(&self) -> Result<PgConnection> {
        connect(&self.options, &self.spec.field, Database::Sink).await
    }

    fn error(&self, error: sqlx::Error) -> RunError {
        run_error(error, &self.spec.field, &self.target(), Database::Sink)
    }

    fn place(&self, staging: &str) -> Place {
        let schema = ident(self.schema);
        Place {
            dialect: Dialect::Postgres,
            target: format!("{schema}.{}", ident(self.table)),
            staging: format!("{schema}.{}", ident(staging)),
        }
    }

    /// How the rows will take their place, which decides what the run's table is like.
    fn decide_mode(&self, wanted: &PreparedMode, target: Option<&Target>, schema: &SchemaRef) -> Result<PreparedMode> {
        let (PreparedMode::Swap | PreparedMode::ReplaceRows, Some(target)) = (wanted, target) else {
            return Ok(wanted.clone());
        };
        if let Some(key) = target.replace_key(schema, self.spec)? {
            return Ok(PreparedMode::ReplaceByKey { key });
        }
        let swaps = *wanted == PreparedMode::Swap && target.can_be_swapped(schema);
        Ok(if swaps { PreparedMode::Swap } else { PreparedMode::ReplaceRows })
    }

    /// Refuses rows that do not fit into the target, or a target that is another pipeline's. Gives the columns that it
    /// is to get.
    async fn check_target(
        &self,
        connection: &mut PgConnection,
        target: &Target,
        load: &Load,
    ) -> Result<Vec<(String, String)>> {
        let adds = match target.check(&load.written, self.spec) {
            Ok(adds) => adds,
            Err(mut error) => {
                let dependants = catalog::dependants(connection, self.schema, self.table);
                let dependants = dependants.await.map_err(|e| self.error(e))?;
                if !dependants.is_empty() {
                    error.message =
                        format!("{}; what depends on {}: {}", error.message, self.target(), dependants.join(", "));
                }
                return Err(error);
            }
        };
        let owners = catalog::owners(connection, self.schema, self.table).await.map_err(|e| self.error(e))?;
        let exclusive = load.mode.is_exclusive();
        let (name, list) = (self.target(), "report_operator.tables");
        database::refuse_owner(&owners, &name, target.has_rows, exclusive, list, self.spec, &self.owner)?;
        Ok(adds)
    }

    /// Refuses staged rows that the commit could not put into the target.
    async fn check_staged(
        &self,
        connection: &mut PgConnection,
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
            PreparedMode::ReplaceRows
            | PreparedMode::Append
            | PreparedMode::DeleteInterval { .. }
            | PreparedMode::DeletePartitions { .. } => {
                for key in target.iter().flat_map(|target| target.keys_in(schema)) {
                    database::check_added(&mut counter, &place, mode, key, self.spec, &self.target()).await?;
                }
            }
            // Its unique keys are built on the run's table.
            PreparedMode::Swap => {}
        }
        Ok(())
    }
}

/// A connection that counts.
struct Counter<'a> {
    connection: &'a mut PgConnection,
    sink: &'a PostgresSink<'a>,
}

#[async_trait]
impl Counting for Counter<'_> {
    async fn count(&mut self, sql: String) -> Result<i64> {
        let counted = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *self.connection).await;
        counted.map_err(|e| self.sink.error(e))
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
        Ok(unsigned(seen))
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
        let prefix = database::staging_prefix(&self.owner, self.spec);
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind = 'r' AND starts_with(c.relname::text, $2)",
        )
        .bind(self.schema)
        .bind(&prefix)
        .fetch_all(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        for table in database::left_behind(tables, &prefix, epoch, keep) {
            let sql = format!("DROP TABLE IF EXISTS {}.{}", ident(self.schema), ident(&table));
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| self.error(e))?;
        }
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
        copy::refuse_unknown_types(&schema, &self.spec.field)?;
        catalog::create_schema(&mut connection, self.schema).await.map_err(|e| self.error(e))?;
        let target = catalog::read(&mut connection, self.schema, self.table).await.map_err(|e| self.error(e))?;
        let adds = match &target {
            Some(target) => self.check_target(&mut connection, target, &load).await?,
            None => Vec::new(),
        };
        let written = Arc::clone(&load.written);
        let columns = load.columns();
        let mode = self.decide_mode(&load.mode, target.as_ref(), &written)?;
        let staging = database::staging_name(&self.owner, self.spec, epoch);

        let swapped = target.as_ref().filter(|_| mode == PreparedMode::Swap);
        for sql in staging::create_staging(self.schema, &staging, &schema, swapped) {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| self.error(e))?;
        }
        let rows = load.pass(rows);
        let (mut connection, count) = copy::rows(connection, self, &staging, &schema, rows).await?;
        refuse_empty(self.spec, count, target.as_ref().is_some_and(|target| target.has_rows))?;
        self.check_staged(&mut connection, &staging, &mode, target.as_ref(), &written).await?;
        for sql in staging::finish_staging(self.schema, &staging, &schema, target.as_ref(), &mode, self.spec) {
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
            adds,
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
