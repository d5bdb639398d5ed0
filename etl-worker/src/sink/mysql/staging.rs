//! The run's table in MySQL: how it is made, and what it gets once it has its rows.

use arrow::datatypes::SchemaRef;
use mysql_async::Conn;

use super::catalog::{self, Target};
use super::values::{self, type_name};
use super::{MysqlSink, PreparedMode};
use crate::error::{Code, Result, RunError};
use crate::quote::{ident, idents, mysql_literal};
use crate::sink::database;

/// Longest name in MySQL, in bytes of the names that manifests may have.
const IDENTIFIER_BYTES_MAX: usize = 64;

/// Refuses what MySQL has no type for, by name, before anything is read.
pub(super) fn refuse_unknown_types(schema: &SchemaRef, field: &str) -> Result<()> {
    match schema.fields().iter().find(|column| type_name(column, false).is_none()) {
        None => Ok(()),
        Some(column) => Err(RunError::at(
            Code::TypeUnsupported,
            format!("{field}.from"),
            format!("MySQL can't hold the column {} of type {}; cast it in a model", column.name(), column.data_type()),
        )),
    }
}

/// The run's table.
pub(super) struct StagingTable<'a> {
    pub(super) sink: &'a MysqlSink<'a>,
    pub(super) name: &'a str,
    pub(super) schema: &'a SchemaRef,
    pub(super) target: Option<&'a Target>,
    pub(super) mode: &'a PreparedMode,
    /// What its comment tells the run by.
    pub(super) marker: String,
}

impl StagingTable<'_> {
    fn flag(&self) -> Option<&String> {
        match self.mode {
            PreparedMode::Merge { delete_when, .. } => delete_when.as_ref(),
            PreparedMode::Swap
            | PreparedMode::ReplaceRows
            | PreparedMode::ReplaceByKey { .. }
            | PreparedMode::Append
            | PreparedMode::DeleteInterval { .. }
            | PreparedMode::DeletePartitions { .. } => None,
        }
    }

    /// Makes the table. It is like the target, with its types, rules and unique keys, so that rows which the target would
    /// refuse end the run here and not its commit, when other sinks may have committed.
    pub(super) async fn create(&self, connection: &mut Conn, adds: &[(String, String)]) -> Result<()> {
        let table = self.sink.name(self.name);
        self.sink.execute(connection, format!("DROP TABLE IF EXISTS {table}")).await?;
        let Some(target) = self.target else {
            let collation = catalog::collation(connection).await.map_err(|e| self.sink.error(e))?;
            let create = self.create_new(&table, collation);
            return self.sink.execute(connection, create).await;
        };
        let like = self.sink.name(self.sink.table);
        self.sink.execute(connection, format!("CREATE TABLE {table} LIKE {like}")).await?;
        let mut changes: Vec<String> =
            adds.iter().map(|(name, type_)| format!("ADD COLUMN {} {type_}", ident(name))).collect();
        changes.extend(self.flag().map(|flag| format!("ADD COLUMN {} tinyint(1)", ident(flag))));
        changes.push(format!("COMMENT = {}", mysql_literal(&catalog::comment(&target.comment, &self.marker))));
        self.sink.execute(connection, format!("ALTER TABLE {table} {}", changes.join(", "))).await
    }

    /// The statement for a table that becomes the target.
    fn create_new(&self, table: &str, collation: &str) -> String {
        let spec = self.sink.spec;
        let mut parts = Vec::with_capacity(self.schema.fields().len() + 1);
        for field in self.schema.fields() {
            let name = field.name();
            let in_key = spec.primary_key.contains(name) || spec.indexes.iter().any(|index| index.contains(name));
            let type_ = type_name(field, in_key).unwrap_or_default();
            let not_null = if spec.primary_key.contains(name) { " NOT NULL" } else { "" };
            let comment = field.metadata().get("description").map(|text| format!(" COMMENT {}", mysql_literal(text)));
            let rule = values::rule(field).map(|rule| format!(" {rule}")).unwrap_or_default();
            parts.push(format!("{} {type_}{not_null}{}{rule}", ident(name), comment.unwrap_or_default()));
        }
        if !spec.primary_key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", idents(&spec.primary_key)));
        }
        for index in &spec.indexes {
            let name = database::index_name(self.sink.table, index, IDENTIFIER_BYTES_MAX);
            parts.push(format!("KEY {} ({})", ident(&name), idents(index)));
        }
        let comment = catalog::comment(spec.description.as_deref().unwrap_or_default(), &self.marker);
        format!(
            "CREATE TABLE {table} ({}) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {collation} COMMENT = {}",
            parts.join(", "),
            mysql_literal(&comment)
        )
    }

    /// Completes the table once it has its rows.
    pub(super) async fn finish(&self, connection: &mut Conn) -> Result<()> {
        if let (None, Some(flag)) = (self.target, self.flag()) {
            // The run's table becomes the target, which has neither these rows nor this column.
            let (table, flag) = (self.sink.name(self.name), ident(flag));
            self.sink.execute(connection, format!("DELETE FROM {table} WHERE {flag}")).await?;
            self.sink.execute(connection, format!("ALTER TABLE {table} DROP COLUMN {flag}")).await?;
        }
        Ok(())
    }
}
