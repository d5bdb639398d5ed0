//! What a run would find and do at a table, asked in a transaction that can't write.

use arrow::datatypes::SchemaRef;
use report_api::interval::Interval;
use sqlx::Connection;

use super::{PostgresSink, catalog, copy, staging};
use crate::error::Result;
use crate::quote::ident;
use crate::sink::outlook::Outlook;
use crate::sink::passing::Load;
use crate::sink::{PreparedMode, Sink};

impl PostgresSink<'_> {
    /// Looks at the table for rows with these columns. Writes nothing.
    pub(in crate::sink) async fn outlook(&self, schema: &SchemaRef, interval: &Interval) -> Result<Outlook> {
        let name = self.target();
        let load = Load::new(self.spec, schema, interval)?;
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN READ ONLY").await.map_err(|e| self.error(e))?;
        let target = catalog::read(&mut transaction, self.schema, self.table).await.map_err(|e| self.error(e))?;
        let has_schema: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
            .bind(self.schema)
            .fetch_one(&mut *transaction)
            .await
            .map_err(|e| self.error(e))?;
        let unknown_type = copy::refuse_unknown_types(schema, &self.spec.field).err();
        let outlook = match &target {
            None => {
                let mut statements = Vec::new();
                if !has_schema {
                    statements.push(format!("CREATE SCHEMA IF NOT EXISTS {}", ident(self.schema)));
                }
                // A run makes a table of its own, and gives it this name when it commits.
                let table = self.table;
                statements.extend(staging::create_staging(self.schema, table, &load.written, None));
                // What the mode needs besides is about the run's own table.
                let mode = PreparedMode::Append;
                statements.extend(staging::finish_staging(self.schema, table, &load.written, None, &mode, self.spec));
                statements.retain(|sql| !sql.starts_with("DROP ") && !sql.starts_with("ANALYZE "));
                let key = (ident(&staging::index_name(table, 0)), ident(&format!("{table}_pkey")));
                statements.iter_mut().for_each(|sql| *sql = sql.replace(&key.0, &key.1));
                Outlook { problem: unknown_type, ..Outlook::missing(name, statements) }
            }
            Some(target) => {
                let mut problem = unknown_type.or_else(|| target.check(&load.written, self.spec).err());
                let has_owners: bool = sqlx::query_scalar("SELECT to_regclass('report_operator.tables') IS NOT NULL")
                    .fetch_one(&mut *transaction)
                    .await
                    .map_err(|e| self.error(e))?;
                if has_owners && problem.is_none() {
                    problem = self.check_target(&mut transaction, target, &load).await.err();
                }
                let mode = match &problem {
                    None => self.decide_mode(&load.mode, Some(target), &load.written),
                    Some(_) => Ok(load.mode.clone()),
                };
                let how = mode.as_ref().ok().filter(|_| problem.is_none()).and_then(|mode| match mode {
                    PreparedMode::Swap => Some("by a new table that takes its name"),
                    PreparedMode::ReplaceRows => Some("by deleting all rows and inserting the new ones"),
                    PreparedMode::ReplaceByKey { .. } => Some("row by row, since other tables refer to it"),
                    PreparedMode::Append
                    | PreparedMode::Merge { .. }
                    | PreparedMode::DeleteInterval { .. }
                    | PreparedMode::DeletePartitions { .. } => None,
                });
                let problem = problem.or_else(|| mode.err());
                Outlook { how: how.map(str::to_owned), ..Outlook::there(name, target.has_rows, problem) }
            }
        };
        drop(transaction);
        let _ = connection.close().await;
        Ok(outlook)
    }
}
