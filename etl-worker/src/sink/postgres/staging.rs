//! The run's table in PostgreSQL: how it is made, and what it gets once it has its rows.

use arrow::datatypes::SchemaRef;
use report_api::checked::CheckedSink;
use sqlx::postgres::PgConnection;

use super::PreparedMode;
use super::catalog::{self, Target};
use super::copy::type_name;
use crate::quote::{ident, idents, literal};
use crate::sink::database;

/// Longest name in PostgreSQL.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// The statements that make the run's table: like the target where it will take its place, else like the rows.
pub(super) fn create_staging(
    schema_name: &str,
    staging: &str,
    schema: &SchemaRef,
    swapped: Option<&Target>,
) -> Vec<String> {
    let table = format!("{}.{}", ident(schema_name), ident(staging));
    let create = match swapped {
        Some(target) => format!(
            "CREATE TABLE {table} (LIKE {}.{} INCLUDING ALL EXCLUDING INDEXES)",
            ident(&target.schema),
            ident(&target.table)
        ),
        None => {
            let columns: Vec<String> = schema
                .fields()
                .iter()
                .map(|field| format!("{} {}", ident(field.name()), type_name(field).unwrap_or_default()))
                .collect();
            format!("CREATE TABLE {table} ({})", columns.join(", "))
        }
    };
    vec![format!("DROP TABLE IF EXISTS {table}"), create]
}

/// The statements that complete the run's table once it has its rows: keys and indexes, built over all rows at once,
/// rights and comments. Where its rows will be inserted into the target, the table gets the target's types and rules, so
/// that rows which the target would refuse end the run here, and not its commit, when other sinks may have committed.
pub(super) fn finish_staging(
    schema_name: &str,
    staging: &str,
    schema: &SchemaRef,
    target: Option<&Target>,
    mode: &PreparedMode,
    spec: &CheckedSink,
) -> Vec<String> {
    let table = format!("{}.{}", ident(schema_name), ident(staging));
    let mut statements = Vec::new();
    if let Some(target) = target.filter(|_| *mode == PreparedMode::Swap) {
        for (at, (_, is_constraint, definition)) in target.indexes.iter().enumerate() {
            let name = ident(&index_name(staging, at));
            statements.push(if *is_constraint {
                format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
            } else {
                let (unique, definition) =
                    definition.strip_prefix("UNIQUE ").map_or(("", definition.as_str()), |rest| ("UNIQUE ", rest));
                format!("CREATE {unique}INDEX {name} ON {table} {definition}")
            });
        }
        for (role, privilege, grantable) in &target.grants {
            let role = if role == "PUBLIC" { role.clone() } else { ident(role) };
            let option = if *grantable { " WITH GRANT OPTION" } else { "" };
            statements.push(format!("GRANT {privilege} ON {table} TO {role}{option}"));
        }
        statements.push(format!(
            "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE %s IS %L', {}, obj_description({}::regclass)); END $$",
            literal(&table),
            literal(&format!("{}.{}", ident(&target.schema), ident(&target.table)))
        ));
    } else if let Some(target) = target {
        for column in &target.columns {
            let Ok(field) = schema.field_with_name(&column.name) else { continue };
            let name = ident(&column.name);
            if type_name(field).as_ref() != Some(&column.type_name) {
                let using = catalog::conversion(&name, column).map(|using| format!(" USING {using}"));
                let type_ = &column.type_name;
                statements.push(format!("ALTER TABLE {table} ALTER {name} TYPE {type_}{}", using.unwrap_or_default()));
            }
            if column.not_null {
                statements.push(format!("ALTER TABLE {table} ALTER {name} SET NOT NULL"));
            }
        }
        for (definition, columns) in &target.rules {
            if columns.iter().all(|column| schema.index_of(column).is_ok()) {
                statements.push(format!("ALTER TABLE {table} ADD {definition}"));
            }
        }
    } else {
        if let PreparedMode::Merge { delete_when: Some(flag), .. } = mode {
            // The run's table becomes the target, which has neither these rows nor this column.
            statements.push(format!("DELETE FROM {table} WHERE {}", ident(flag)));
            statements.push(format!("ALTER TABLE {table} DROP COLUMN {}", ident(flag)));
        }
        // The commit gives the indexes their lasting names.
        if !spec.primary_key.is_empty() {
            let name = ident(&index_name(staging, 0));
            let columns = idents(&spec.primary_key);
            statements.push(format!("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY ({columns})"));
        }
        for (at, columns) in spec.indexes.iter().enumerate() {
            let name = ident(&index_name(staging, at + 1));
            statements.push(format!("CREATE INDEX {name} ON {table} ({})", idents(columns)));
        }
        if let Some(description) = &spec.description {
            statements.push(format!("COMMENT ON TABLE {table} IS {}", literal(description)));
        }
        for field in schema.fields() {
            if let Some(description) = field.metadata().get("description") {
                statements.push(format!(
                    "COMMENT ON COLUMN {table}.{} IS {}",
                    ident(field.name()),
                    literal(description)
                ));
            }
        }
    }
    statements.push(format!("ANALYZE {table}"));
    statements
}

/// The name of the run's table's index in the place of the target's index number `at`.
pub(super) fn index_name(staging: &str, at: usize) -> String {
    format!("{staging}_i{at}")
}

/// The lasting names of the indexes of a table that is created: the number of each, its name as PostgreSQL itself would
/// give it, and whether it belongs to a constraint. One whose name something else in the schema has keeps that of the
/// run's table.
pub(super) async fn names_of_created(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
    spec: &CheckedSink,
) -> sqlx::Result<Vec<(usize, (String, bool))>> {
    let mut end = table.len().min(IDENTIFIER_BYTES_MAX - "_pkey".len());
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    let mut wanted = vec![(format!("{}_pkey", &table[..end]), true)];
    for columns in &spec.indexes {
        wanted.push((database::index_name(table, columns, IDENTIFIER_BYTES_MAX), false));
    }
    let mut names: Vec<(usize, (String, bool))> = Vec::with_capacity(wanted.len());
    for (at, (name, is_constraint)) in wanted.into_iter().enumerate() {
        let taken: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)",
        )
        .bind(schema)
        .bind(&name)
        .fetch_one(&mut *connection)
        .await?;
        if !taken && names.iter().all(|(_, (other, _))| *other != name) {
            names.push((at, (name, is_constraint)));
        }
    }
    Ok(names)
}

/// The names of a table's indexes, in the order of [`index_name`], and whether each belongs to a constraint.
pub(super) async fn index_names(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
) -> sqlx::Result<Vec<(String, bool)>> {
    let target = catalog::read(connection, schema, table).await?;
    Ok(target
        .map(|target| target.indexes.into_iter().map(|(name, is_constraint, _)| (name, is_constraint)).collect())
        .unwrap_or_default())
}
