//! What a table in SQLite is like, and whether rows fit into it.

use std::collections::BTreeMap;

use report_api::checked::SinkMode;
use report_api::sink::OnSchemaChange;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::SqliteSink;
use super::values::{holds, type_name};
use crate::error::{Code, Result, RunError};
use crate::quote::ident;
use crate::sink::database::{self, TableOwner};
use crate::sink::passing::Load;

/// Where the owners of tables are kept.
const TABLES: &str = "report_operator_tables";

/// A table that exists.
pub(super) struct Target {
    pub(super) has_rows: bool,
    pub(super) unique_keys: Vec<Vec<String>>,
    /// The columns that it is to get, with their types.
    pub(super) adds: Vec<(String, String)>,
}

impl SqliteSink<'_> {
    /// Refuses rows that do not fit into a table that exists, each column by name, and a table that is another
    /// pipeline's. None where there is no table.
    pub(super) async fn check_target(&self, connection: &mut SqliteConnection, load: &Load) -> Result<Option<Target>> {
        let columns = sqlx::query(
            "SELECT name, type, \"notnull\" AS required, dflt_value IS NOT NULL AS filled FROM pragma_table_info(?)",
        )
        .bind(self.table)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.error(e))?;
        if columns.is_empty() {
            return Ok(None);
        }
        let name = self.table;
        let schema = &load.written;
        let (mut names, mut wrong, mut adds) = (Vec::<(String, String)>::new(), Vec::new(), Vec::new());
        for row in &columns {
            let column: String = row.try_get("name").map_err(|e| self.error(e))?;
            let required: bool = row.try_get("required").map_err(|e| self.error(e))?;
            let filled: bool = row.try_get("filled").map_err(|e| self.error(e))?;
            if required && !filled && schema.index_of(&column).is_err() {
                wrong.push(format!("{column} of {name} must be filled, but {} does not have it", self.spec.from));
            }
            names.push((column, row.try_get("type").map_err(|e| self.error(e))?));
        }
        for field in schema.fields() {
            // Its names do not tell case apart.
            if let Some((column, type_)) = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(field.name())) {
                if !holds(type_, field) {
                    let wanted = type_name(field.data_type()).unwrap_or_default();
                    let from = &self.spec.from;
                    wrong.push(format!(
                        "{column} is {type_} in {name} but {wanted} in {from}, and SQLite would turn some values into others; cast it in the model, or change the table"
                    ));
                }
                continue;
            }
            match self.spec.on_schema_change {
                OnSchemaChange::AddColumns => {
                    adds.push((field.name().clone(), type_name(field.data_type()).unwrap_or_default().to_owned()));
                }
                OnSchemaChange::Fail => wrong.push(format!(
                    "{name} has no column {0}; ALTER TABLE {name} ADD {0}, set onSchemaChange: addColumns, or leave it out",
                    field.name()
                )),
            }
        }
        let unique_keys = self.unique_keys(connection).await?;
        if let SinkMode::Merge { key, .. } = &self.spec.mode {
            let same =
                |columns: &Vec<String>| columns.len() == key.len() && key.iter().all(|column| columns.contains(column));
            if !unique_keys.iter().any(same) {
                let columns = key.join(", ");
                wrong.push(format!("{name} has no unique index on ({columns}), which merge needs; CREATE UNIQUE INDEX {name}_key ON {name} ({columns})"));
            }
        }
        if !wrong.is_empty() {
            return Err(RunError::at(Code::SchemaMismatch, &self.spec.field, wrong.join("; ")));
        }
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", ident(self.table));
        let has_rows: bool =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(|e| self.error(e))?;
        let owners = owners(connection, self.table).await.map_err(|e| self.error(e))?;
        let exclusive = load.mode.is_exclusive();
        database::refuse_owner(&owners, name, has_rows, exclusive, TABLES, self.spec, &self.owner)?;
        Ok(Some(Target { has_rows, unique_keys, adds }))
    }

    /// The columns of each unique index without a condition, and of the primary key.
    async fn unique_keys(&self, connection: &mut SqliteConnection) -> Result<Vec<Vec<String>>> {
        // INTEGER PRIMARY KEY has no index of its own. An index over an expression has a column without a name.
        let columns: Vec<(String, Option<String>)> = sqlx::query_as(
            "SELECT l.name, i.name FROM pragma_index_list(?1) AS l, pragma_index_info(l.name) AS i WHERE l.\"unique\" AND NOT l.partial
             UNION ALL SELECT '', name FROM pragma_table_info(?1) WHERE pk > 0",
        )
        .bind(self.table)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.error(e))?;
        let mut indexes: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
        for (index, column) in columns {
            let known = indexes.entry(index).or_insert_with(|| Some(Vec::new()));
            match (known.as_mut(), column) {
                (Some(names), Some(column)) => names.push(column),
                _ => *known = None,
            }
        }
        Ok(indexes.into_values().flatten().collect())
    }
}

/// The pipelines' sinks that write a table.
pub(super) async fn owners(connection: &mut SqliteConnection, table: &str) -> sqlx::Result<Vec<TableOwner>> {
    let owners: Vec<(String, String, bool)> =
        sqlx::query_as("SELECT identity, sink, replaces FROM report_operator_tables WHERE table_name = ?")
            .bind(table)
            .fetch_all(connection)
            .await?;
    Ok(owners.into_iter().map(TableOwner::from).collect())
}
