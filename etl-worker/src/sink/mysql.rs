//! Sink `mysql`: rows are loaded into a table of the run's own, then committed in one transaction, or by one RENAME.
//!
//! The run's table stands beside the target. Replace swaps it in by an atomic RENAME TABLE where nothing depends on the
//! target, and deletes and inserts otherwise. Memory: three pieces of 1 MiB. Needs: the rights to create, alter and drop
//! tables in the target's database, and all rights on the database `report_operator`, which it creates if it may.

mod catalog;
mod commit;
mod connect;
mod load;
mod staging;
mod values;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use report_api::checked::CheckedSink;
use report_api::interval::Interval;

use self::catalog::Target;
pub use self::connect::{connect, create_tables, options, run_error};
use super::database::{self, Counting, Dialect, Place, signed, unsigned};
use super::passing::{self, Load};
use super::postgres::Database;
use super::{Owner, PreparedMode, PreparedSink, Sink, Window, refuse_empty};
use crate::error::{Code, Result, RunError};
use crate::observe::Incoming;
use crate::quote::ident;

/// A table in MySQL or MariaDB.
pub struct MysqlSink<'a> {
    spec: &'a CheckedSink,
    owner: Owner,
    options: Opts,
    database: String,
    table: &'a str,
}

impl<'a> MysqlSink<'a> {
    /// The sink for a table on the server at a connection URL, in this database or the URL's.
    pub fn new(spec: &'a CheckedSink, owner: Owner, url: &str, database: Option<&str>, table: &'a str) -> Result<Self> {
        let options = options(url, &format!("{}.mysql.connection", spec.field))?;
        let database = database.or(options.db_name()).map(str::to_owned).ok_or_else(|| {
            RunError::at(
                Code::ManifestInvalid,
                format!("{}.mysql.table", spec.field),
                format!("neither it nor the connection URL names a database; write database.{table}"),
            )
        })?;
        Ok(Self { spec, owner, options, database, table })
    }

    async fn connection(&self) -> Result<Conn> {
        connect(&self.options, &self.spec.field, Database::Sink).await
    }

    fn error(&self, error: mysql_async::Error) -> RunError {
        run_error(error, &self.spec.field, &self.target(), Database::Sink)
    }

    fn name(&self, table: &str) -> String {
        format!("{}.{}", ident(&self.database), ident(table))
    }

    fn place(&self, staging: &str) -> Place {
        Place { dialect: Dialect::Mysql, target: self.name(self.table), staging: self.name(staging) }
    }

    /// What tells that a table has the rows of an epoch.
    fn marker(&self, epoch: u64) -> String {
        catalog::marker(&self.owner.tag(&self.spec.name), epoch)
    }

    async fn execute(&self, connection: &mut Conn, sql: String) -> Result<()> {
        connection.query_drop(sql).await.map_err(|e| self.error(e))
    }

    /// How the rows will take their place.
    fn decide_mode(&self, wanted: &PreparedMode, target: Option<&Target>, schema: &SchemaRef) -> Result<PreparedMode> {
        let (PreparedMode::Swap | PreparedMode::ReplaceRows, Some(target)) = (wanted, target) else {
            return Ok(wanted.clone());
        };
        if let Some(key) = target.replace_key(schema, self.spec)? {
            return Ok(PreparedMode::ReplaceByKey { key });
        }
        let swaps = *wanted == PreparedMode::Swap && target.can_be_swapped();
        Ok(if swaps { PreparedMode::Swap } else { PreparedMode::ReplaceRows })
    }

    /// Refuses rows that do not fit into the target, or a target that is another pipeline's. Gives the columns that it
    /// is to get.
    async fn check_target(&self, connection: &mut Conn, target: &Target, load: &Load) -> Result<Vec<(String, String)>> {
        let adds = target.check(&load.written, self.spec)?;
        let owners = catalog::owners(connection, &self.database, self.table).await.map_err(|e| self.error(e))?;
        let exclusive = load.mode.is_exclusive();
        let (name, list) = (self.target(), "report_operator.tables");
        database::refuse_owner(&owners, &name, target.has_rows, exclusive, list, self.spec, &self.owner)?;
        Ok(adds)
    }

    /// Refuses staged rows that the commit could not put into the target.
    async fn check_staged(
        &self,
        connection: &mut Conn,
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
            PreparedMode::Append | PreparedMode::DeleteInterval { .. } | PreparedMode::DeletePartitions { .. } => {
                let has = |column: &String| schema.index_of(column).is_ok();
                let keys = target.map(Target::unique_keys).unwrap_or_default();
                for key in keys.iter().filter(|key| key.iter().all(has)) {
                    database::check_added(&mut counter, &place, mode, key, self.spec, &self.target()).await?;
                }
            }
            // The run's table has the target's unique keys.
            PreparedMode::Swap | PreparedMode::ReplaceRows => {}
        }
        Ok(())
    }
}

/// A connection that counts.
struct Counter<'a> {
    connection: &'a mut Conn,
    sink: &'a MysqlSink<'a>,
}

#[async_trait]
impl Counting for Counter<'_> {
    async fn count(&mut self, sql: String) -> Result<i64> {
        let counted: Option<i64> = self.connection.query_first(sql).await.map_err(|e| self.sink.error(e))?;
        Ok(counted.unwrap_or(0))
    }
}

#[async_trait]
impl Sink for MysqlSink<'_> {
    fn target(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }

    async fn fence(&mut self, epoch: u64) -> Result<u64> {
        let mut connection = self.connection().await?;
        create_tables(&mut connection, &self.spec.field, Database::Sink).await?;
        connection
            .exec_drop(
                "INSERT INTO report_operator.fences (identity, epoch) VALUES (?, ?)
                 ON DUPLICATE KEY UPDATE epoch = greatest(epoch, VALUES(epoch))",
                (&self.owner.identity, signed(epoch)),
            )
            .await
            .map_err(|e| self.error(e))?;
        let seen: Option<i64> = connection
            .exec_first("SELECT epoch FROM report_operator.fences WHERE identity = ?", (&self.owner.identity,))
            .await
            .map_err(|e| self.error(e))?;
        let _ = connection.disconnect().await;
        Ok(unsigned(seen.unwrap_or(0)))
    }

    async fn committed_until(&mut self) -> Result<Option<jiff::Timestamp>> {
        let mut connection = self.connection().await?;
        let micros: Option<Option<i64>> = connection
            .exec_first(
                "SELECT timestampdiff(MICROSECOND, '1970-01-01', max(interval_end)) FROM report_operator.commits
                 WHERE identity = ? AND sink = ?",
                (&self.owner.identity, &self.spec.name),
            )
            .await
            .map_err(|e| self.error(e))?;
        let _ = connection.disconnect().await;
        Ok(micros.flatten().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok()))
    }

    async fn clean(&mut self, epoch: u64, keep: Option<&PreparedSink>) -> Result<()> {
        let mut connection = self.connection().await?;
        let prefix = database::staging_prefix(&self.owner, self.spec);
        let tables = catalog::tables(&mut connection, &self.database, &prefix).await.map_err(|e| self.error(e))?;
        for table in database::left_behind(tables, &prefix, epoch, keep) {
            self.execute(&mut connection, format!("DROP TABLE IF EXISTS {}", self.name(&table))).await?;
        }
        let _ = connection.disconnect().await;
        Ok(())
    }

    fn order(&self) -> Vec<String> {
        passing::order(self.spec)
    }

    async fn stage(&mut self, epoch: u64, interval: &Interval, incoming: Incoming) -> Result<PreparedSink> {
        let Incoming { schema, rows, .. } = incoming;
        let load = Load::new(self.spec, &schema, interval)?;
        let mut connection = self.connection().await?;
        staging::refuse_unknown_types(&schema, &self.spec.field)?;
        catalog::create_database(&mut connection, &self.database).await.map_err(|e| self.error(e))?;
        let target = catalog::read(&mut connection, &self.database, self.table).await.map_err(|e| self.error(e))?;
        let adds = match &target {
            Some(target) => self.check_target(&mut connection, target, &load).await?,
            None => Vec::new(),
        };
        let written = Arc::clone(&load.written);
        let columns = load.columns();
        let mode = self.decide_mode(&load.mode, target.as_ref(), &written)?;
        let staging = database::staging_name(&self.owner, self.spec, epoch);
        let place = staging::StagingTable {
            sink: self,
            name: &staging,
            schema: &schema,
            target: target.as_ref(),
            mode: &mode,
            marker: self.marker(epoch),
        };
        place.create(&mut connection, &adds).await?;
        let table = self.name(&staging);
        let into = load::Into { table: &table, schema: &schema, spec: self.spec, name: &self.target() };
        let count = into.rows(&mut connection, load.pass(rows)).await?;
        refuse_empty(self.spec, count, target.as_ref().is_some_and(|target| target.has_rows))?;
        self.check_staged(&mut connection, &staging, &mode, target.as_ref(), &written).await?;
        place.finish(&mut connection).await?;
        let _ = connection.disconnect().await;
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
        let found = commit::is_committed(self, &mut connection, prepared, interval).await;
        let _ = connection.disconnect().await;
        found.map_err(|e| self.error(e))
    }

    async fn commit(&mut self, prepared: &PreparedSink, window: &Window) -> Result<()> {
        commit::commit(self, prepared, window).await
    }
}
