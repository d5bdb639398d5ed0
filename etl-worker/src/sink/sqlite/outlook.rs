//! What a run would find and do at a table of a file, which is opened for reading only and only where it exists.

use arrow::datatypes::SchemaRef;
use report_api::interval::Interval;
use report_api::result::ErrorClass;
use sqlx::{AssertSqlSafe, Connection};

use super::SqliteSink;
use super::connect::{connect_to_read, has_table};
use crate::error::Result;
use crate::quote::ident;
use crate::sink::Sink;
use crate::sink::outlook::Outlook;
use crate::sink::passing::Load;

impl SqliteSink<'_> {
    /// Looks at the table for rows with these columns. Writes nothing.
    pub(in crate::sink) async fn outlook(&self, schema: &SchemaRef, interval: &Interval) -> Result<Outlook> {
        let name = self.target();
        let load = Load::new(self.spec, schema, interval)?;
        let create = self.create_table(self.table, &load.written, &self.spec.primary_key);
        let connection = connect_to_read(self.path, &format!("{}.sqlite.path", self.spec.field)).await?;
        let Some(mut connection) = connection else { return Ok(Outlook::missing(name, vec![create?])) };
        let outlook = if !has_table(&mut connection, self.table).await.map_err(|e| self.error(e))? {
            Outlook::missing(name, vec![create?])
        } else if has_table(&mut connection, "report_operator_tables").await.map_err(|e| self.error(e))? {
            match self.check_target(&mut connection, &load).await {
                Ok(target) => Outlook::there(name, target.is_some_and(|target| target.has_rows), create.err()),
                Err(error) if error.code.class() != ErrorClass::Transient => Outlook::there(name, false, Some(error)),
                Err(error) => return Err(error),
            }
        } else {
            // No pipeline has written to the file yet, so that nobody owns a table in it.
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", ident(self.table));
            let rows: bool =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.map_err(|e| self.error(e))?;
            Outlook::there(name, rows, create.err())
        };
        let _ = connection.close().await;
        Ok(outlook)
    }
}
