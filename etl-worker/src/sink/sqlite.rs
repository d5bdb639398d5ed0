//! Sink `sqlite`: rows are inserted into a table of the run's own, then moved in one transaction.
//!
//! The file is in WAL mode, so that readers see the rows as they were until the commit. Memory: one batch.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use async_trait::async_trait;
use futures::TryStreamExt;
use report_api::checked::{CheckedSink, SinkMode};
use report_api::interval::Interval;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{Arguments, AssertSqlSafe, Connection, Row};

use super::{Owner, PreparedMode, PreparedSink, Sink, Window, refuse_empty};
use crate::error::{Code, Result, RunError};
use crate::observe::RowStream;
use crate::quote::{ident, idents};

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(30);
/// Parameters of one INSERT; SQLite takes 32,766.
const PARAMETERS_MAX: usize = 4000;
/// Digits of a decimal that SQLite keeps exactly as a number: those of a 64-bit float.
const DECIMAL_DIGITS_MAX: usize = 15;

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

    fn staging_prefix(&self) -> String {
        format!("_report_{}_", self.owner.tag(&self.spec.name))
    }

    /// Refuses rows that do not fit into a table that exists, each column by name. Gives whether it exists and has rows.
    async fn check_target(&self, connection: &mut SqliteConnection, schema: &SchemaRef) -> Result<(bool, bool)> {
        let columns = sqlx::query(
            "SELECT name, \"notnull\" AS required, dflt_value IS NOT NULL AS filled, pk FROM pragma_table_info(?)",
        )
        .bind(self.table)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.error(e))?;
        if columns.is_empty() {
            return Ok((false, false));
        }
        let name = self.table;
        let mut names: Vec<String> = Vec::new();
        let mut wrong = Vec::new();
        for row in &columns {
            let column: String = row.try_get("name").map_err(|e| self.error(e))?;
            let required: bool = row.try_get("required").map_err(|e| self.error(e))?;
            let filled: bool = row.try_get("filled").map_err(|e| self.error(e))?;
            if required && !filled && schema.index_of(&column).is_err() {
                wrong.push(format!("{column} of {name} must be filled, but {} does not have it", self.spec.from));
            }
            names.push(column);
        }
        for field in schema.fields() {
            if !names.contains(field.name()) {
                wrong.push(format!(
                    "{name} has no column {0}; ALTER TABLE {name} ADD {0}, or leave it out",
                    field.name()
                ));
            }
        }
        if let SinkMode::Merge { key } = &self.spec.mode
            && !self.has_key(connection, key).await?
        {
            let columns = key.join(", ");
            wrong.push(format!("{name} has no unique index on ({columns}), which merge needs; CREATE UNIQUE INDEX {name}_key ON {name} ({columns})"));
        }
        if !wrong.is_empty() {
            return Err(RunError::at(Code::SchemaMismatch, &self.spec.field, wrong.join("; ")));
        }
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", ident(self.table));
        let has_rows: bool =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(|e| self.error(e))?;
        let owners: Vec<(String, String, bool)> =
            sqlx::query_as("SELECT identity, sink, replaces FROM report_operator_tables WHERE table_name = ?")
                .bind(self.table)
                .fetch_all(&mut *connection)
                .await
                .map_err(|e| self.error(e))?;
        let replaces = matches!(self.spec.mode, SinkMode::Replace(_));
        // A pipeline has one sink per table, whatever it was called before.
        let other = owners.iter().find(|(identity, _, other)| *identity != self.owner.identity && (replaces || *other));
        if let Some((identity, sink, _)) = other {
            return Err(RunError::at(
                Code::TableNotOwned,
                &self.spec.field,
                format!("{name} is filled by the sink {sink} of the pipeline {identity}; write to another table"),
            ));
        }
        if owners.is_empty() && has_rows && !self.spec.adopt {
            return Err(RunError::at(
                Code::TableNotOwned,
                &self.spec.field,
                format!(
                    "{name} has rows that no pipeline has written; set adopt: true to take it over, or write to another table"
                ),
            ));
        }
        Ok((true, has_rows))
    }

    /// Whether the table has a primary key or a unique index of these columns.
    async fn has_key(&self, connection: &mut SqliteConnection, key: &[String]) -> Result<bool> {
        // INTEGER PRIMARY KEY has no index of its own.
        let columns: Vec<(String, String)> = sqlx::query_as(
            "SELECT l.name, i.name FROM pragma_index_list(?1) AS l, pragma_index_info(l.name) AS i WHERE l.\"unique\" AND NOT l.partial
             UNION ALL SELECT '', name FROM pragma_table_info(?1) WHERE pk > 0",
        )
        .bind(self.table)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.error(e))?;
        let mut indexes: HashMap<String, HashSet<String>> = HashMap::new();
        for (index, column) in columns {
            indexes.entry(index).or_default().insert(column);
        }
        let key: HashSet<String> = key.iter().cloned().collect();
        Ok(indexes.values().any(|columns| *columns == key))
    }

    async fn check_key(&self, connection: &mut SqliteConnection, staging: &str, key: &[String]) -> Result<()> {
        let nulls = key.iter().map(|column| format!("{} IS NULL", ident(column))).collect::<Vec<_>>().join(" OR ");
        let columns = idents(key);
        let table = ident(staging);
        for (sql, what) in [
            (format!("SELECT count(*) FROM {table} WHERE {nulls}"), "rows have NULL in the key"),
            (
                format!("SELECT count(*) FROM (SELECT 1 FROM {table} GROUP BY {columns} HAVING count(*) > 1)"),
                "keys occur more than once in the columns",
            ),
        ] {
            let count: i64 =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(|e| self.error(e))?;
            if count > 0 {
                let message = format!("{count} {what} ({}); keep one row per key in the model", key.join(", "));
                return Err(RunError::at(Code::KeyInvalid, format!("{}.mode.merge.key", self.spec.field), message));
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
        Ok(u64::try_from(seen).unwrap_or(0))
    }

    async fn committed_until(&mut self) -> Result<Option<jiff::Timestamp>> {
        let mut connection = self.connection().await?;
        let end: Option<String> = sqlx::query_scalar(
            "SELECT interval_end FROM report_operator_commits WHERE identity = ? AND sink = ? ORDER BY committed DESC LIMIT 1",
        )
        .bind(&self.owner.identity)
        .bind(&self.spec.name)
        .fetch_optional(&mut connection)
        .await
        .map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(end.and_then(|end| end.parse().ok()))
    }

    async fn clean(&mut self, epoch: u64, keep: Option<&PreparedSink>) -> Result<()> {
        let mut connection = self.connection().await?;
        let prefix = self.staging_prefix();
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' AND instr(name, ?) = 1")
                .bind(&prefix)
                .fetch_all(&mut connection)
                .await
                .map_err(|e| self.error(e))?;
        for table in tables {
            let of = table.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok());
            if of.is_some_and(|of| of < epoch) && keep.is_none_or(|keep| keep.staging != table) {
                let sql = format!("DROP TABLE IF EXISTS {}", ident(&table));
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| self.error(e))?;
            }
        }
        let _ = connection.close().await;
        Ok(())
    }

    async fn stage(&mut self, epoch: u64, schema: SchemaRef, rows: RowStream) -> Result<PreparedSink> {
        let mut connection = self.connection().await?;
        let (exists, has_rows) = self.check_target(&mut connection, &schema).await?;
        let staging = format!("{}{epoch}", self.staging_prefix());
        // A table that exists has its own key.
        let primary_key: &[String] = if exists { &[] } else { &self.spec.primary_key };
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
        for sql in [
            format!("DROP TABLE IF EXISTS {}", ident(&staging)),
            format!("CREATE TABLE {} ({})", ident(&staging), columns.join(", ")),
        ] {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| self.error(e))?;
        }
        let rows = self.insert(&mut connection, &staging, &schema, rows).await?;
        refuse_empty(self.spec, rows, has_rows)?;
        if let SinkMode::Merge { key } = &self.spec.mode {
            self.check_key(&mut connection, &staging, key).await?;
        }
        let _ = connection.close().await;
        Ok(PreparedSink {
            name: self.spec.name.clone(),
            target: self.target(),
            mode: match &self.spec.mode {
                // SQLite's readers see a transaction as a whole, so that there is nothing to swap for.
                SinkMode::Replace(_) => PreparedMode::ReplaceRows,
                other => other.into(),
            },
            rows,
            columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
            staging,
            epoch,
            creates: !exists,
        })
    }

    async fn is_committed(&mut self, prepared: &PreparedSink, interval: &Interval) -> Result<bool> {
        let mut connection = self.connection().await?;
        let found = is_committed(&mut connection, &self.owner, prepared, interval).await.map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(found)
    }

    async fn commit(&mut self, prepared: &PreparedSink, window: &Window) -> Result<()> {
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.error(e))?;
        let fence: Option<i64> = sqlx::query_scalar("SELECT epoch FROM report_operator_fences WHERE identity = ?")
            .bind(&self.owner.identity)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|e| self.error(e))?;
        if fence != Some(signed(window.epoch)) {
            return Err(RunError::fenced(&self.spec.field));
        }
        if is_committed(&mut transaction, &self.owner, prepared, &window.interval).await.map_err(|e| self.error(e))? {
            return Ok(());
        }
        for sql in statements(prepared, self.table) {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await.map_err(|e| self.error(e))?;
        }
        sqlx::query(
            "INSERT INTO report_operator_commits (identity, sink, interval_start, interval_end, run_id, epoch, rows)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&self.owner.identity)
        .bind(&prepared.name)
        .bind(window.interval.start.to_string())
        .bind(window.interval.end.to_string())
        .bind(&window.run_id)
        .bind(signed(prepared.epoch))
        .bind(i64::try_from(prepared.rows).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await
        .map_err(|e| self.error(e))?;
        sqlx::query(
            "INSERT OR REPLACE INTO report_operator_tables (table_name, identity, sink, replaces) VALUES (?, ?, ?, ?)",
        )
        .bind(self.table)
        .bind(&self.owner.identity)
        .bind(&prepared.name)
        .bind(prepared.mode == PreparedMode::ReplaceRows)
        .execute(&mut *transaction)
        .await
        .map_err(|e| self.error(e))?;
        transaction.commit().await.map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(())
    }
}

/// The statements that put the rows in their place.
fn statements(prepared: &PreparedSink, table: &str) -> Vec<String> {
    let (table, staging, columns) = (ident(table), ident(&prepared.staging), idents(&prepared.columns));
    let rename = format!("ALTER TABLE {staging} RENAME TO {table}");
    let insert = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging}");
    let drop = format!("DROP TABLE {staging}");
    match &prepared.mode {
        _ if prepared.creates => vec![rename],
        PreparedMode::Swap | PreparedMode::ReplaceRows | PreparedMode::ReplaceByKey { .. } => {
            vec![format!("DELETE FROM {table}"), insert, drop]
        }
        PreparedMode::Append => vec![insert, drop],
        PreparedMode::Merge { key } => {
            let updates: Vec<_> = prepared
                .columns
                .iter()
                .filter(|column| !key.contains(column))
                .map(|column| format!("{0} = excluded.{0}", ident(column)))
                .collect();
            let action =
                if updates.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", updates.join(", ")) };
            // WHERE true: without it SQLite takes ON for a join.
            vec![format!("{insert} WHERE true ON CONFLICT ({}) DO {action}", idents(key)), drop]
        }
    }
}

async fn is_committed(
    connection: &mut SqliteConnection,
    owner: &Owner,
    prepared: &PreparedSink,
    interval: &Interval,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM report_operator_commits
         WHERE identity = ? AND sink = ? AND epoch = ? AND interval_end = ? AND interval_start = ?)",
    )
    .bind(&owner.identity)
    .bind(&prepared.name)
    .bind(signed(prepared.epoch))
    .bind(interval.end.to_string())
    .bind(interval.start.to_string())
    .fetch_one(connection)
    .await
}

/// The SQLite type of a column.
fn type_name(type_: &DataType) -> Option<&'static str> {
    Some(match type_ {
        DataType::Boolean => "BOOLEAN",
        DataType::Int16 | DataType::Int32 | DataType::Int64 => "INTEGER",
        DataType::Float32 | DataType::Float64 => "REAL",
        DataType::Utf8 => "TEXT",
        DataType::Date32 => "DATE",
        DataType::Timestamp(..) => "DATETIME",
        DataType::Decimal128(..) => "NUMERIC",
        _ => return None,
    })
}

/// Adds a value to a statement. Dates and times are text in ISO 8601, as SQLite's own functions take them.
fn bind(arguments: &mut SqliteArguments, column: &ArrayRef, row: usize) -> std::result::Result<(), String> {
    let added = if column.is_null(row) {
        arguments.add(None::<i64>)
    } else {
        match column.data_type() {
            DataType::Boolean => arguments.add(column.as_boolean().value(row)),
            DataType::Int16 => arguments.add(i64::from(column.as_primitive::<Int16Type>().value(row))),
            DataType::Int32 => arguments.add(i64::from(column.as_primitive::<Int32Type>().value(row))),
            DataType::Int64 => arguments.add(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float32 => arguments.add(number(f64::from(column.as_primitive::<Float32Type>().value(row)))?),
            DataType::Float64 => arguments.add(number(column.as_primitive::<Float64Type>().value(row))?),
            DataType::Utf8 => arguments.add(column.as_string::<i32>().value(row).to_owned()),
            DataType::Date32 => {
                let day = date32_to_datetime(column.as_primitive::<Date32Type>().value(row));
                arguments.add(day.map(|day| day.format("%Y-%m-%d").to_string()))
            }
            DataType::Timestamp(_, zone) => {
                let time = timestamp_us_to_datetime(column.as_primitive::<TimestampMicrosecondType>().value(row));
                let form = if zone.is_some() { "%Y-%m-%d %H:%M:%S%.6f+00:00" } else { "%Y-%m-%d %H:%M:%S%.6f" };
                arguments.add(time.map(|time| time.format(form).to_string()))
            }
            DataType::Decimal128(_, scale) => {
                let value = column.as_primitive::<Decimal128Type>().value(row);
                arguments.add(decimal(value, *scale)?)
            }
            other => return Err(format!("SQLite can't hold the type {other}")),
        }
    };
    added.map_err(|error| error.to_string())
}

/// SQLite turns NaN into NULL without a word.
fn number(value: f64) -> std::result::Result<f64, String> {
    if value.is_nan() { Err("SQLite can't hold NaN; turn it into NULL in the model".into()) } else { Ok(value) }
}

/// A decimal as text that the column's NUMERIC affinity turns into a number without losing a digit.
fn decimal(value: i128, scale: i8) -> std::result::Result<String, String> {
    let digits = value.unsigned_abs().to_string();
    if digits.trim_end_matches('0').len() > DECIMAL_DIGITS_MAX {
        return Err(format!(
            "a decimal has more than {DECIMAL_DIGITS_MAX} digits, which SQLite would round; cast it to text in a model"
        ));
    }
    let scale = usize::try_from(scale).unwrap_or(0);
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// Opens the file, and makes it where it is missing.
pub async fn connect(path: &str, field: &str) -> Result<SqliteConnection> {
    let failed = |error: sqlx::Error| run_error(error, field, path);
    if let Some(folder) = std::path::Path::new(path).parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(sqlx::Error::Io(error)))?;
    }
    let options = SqliteConnectOptions::from_str("sqlite::memory:")
        .map_err(failed)?
        .filename(path)
        .in_memory(false)
        .shared_cache(false)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(BUSY);
    SqliteConnection::connect_with(&options).await.map_err(failed)
}

/// An error of SQLite in our terms.
pub fn run_error(error: sqlx::Error, field: &str, target: &str) -> RunError {
    let Some(cause) = error.as_database_error() else {
        return RunError::at(Code::SinkUnreachable, field, format!("{target} can't be opened or written"))
            .caused_by(error);
    };
    // https://www.sqlite.org/rescode.html; the low byte is the primary code.
    let code: i32 = cause.code().and_then(|code| code.parse().ok()).unwrap_or(0);
    let words = cause.message();
    let (code, remedy) = match code & 0xff {
        3 | 8 | 23 => (Code::PermissionDenied, "; let the worker's user write the file and its folder"),
        13 => (Code::SinkUnreachable, "; the disk is full"),
        14 => (Code::PermissionDenied, "; can the folder be written?"),
        19 => (Code::KeyInvalid, "; correct the rows in the model, or the table's constraint"),
        26 => (Code::SchemaMismatch, "; name an SQLite file"),
        5 | 6 | 10 => (Code::SinkUnreachable, ""),
        _ => (Code::Internal, ""),
    };
    RunError::at(code, field, format!("{target}: {words}{remedy}"))
}

/// The tables that the operator keeps in each file that it writes to.
pub async fn create_tables(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    for sql in [
        "CREATE TABLE IF NOT EXISTS report_operator_fences (identity TEXT PRIMARY KEY, epoch INTEGER NOT NULL)",
        "CREATE TABLE IF NOT EXISTS report_operator_tables (table_name TEXT NOT NULL, identity TEXT NOT NULL,
         sink TEXT NOT NULL, replaces BOOLEAN NOT NULL, PRIMARY KEY (table_name, identity, sink))",
        "CREATE TABLE IF NOT EXISTS report_operator_commits (committed INTEGER PRIMARY KEY AUTOINCREMENT,
         identity TEXT NOT NULL, sink TEXT NOT NULL, interval_start TEXT NOT NULL, interval_end TEXT NOT NULL,
         run_id TEXT NOT NULL, epoch INTEGER NOT NULL, rows INTEGER NOT NULL)",
        "CREATE INDEX IF NOT EXISTS report_operator_commits_sink ON report_operator_commits (identity, sink, committed)",
        "CREATE TABLE IF NOT EXISTS report_operator_ledger (identity TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS report_operator_runs (identity TEXT NOT NULL, run_id TEXT NOT NULL, result TEXT NOT NULL,
         PRIMARY KEY (identity, run_id))",
    ] {
        sqlx::query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

fn signed(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        for (value, scale, want) in [
            (1_228_663_323, 3, "1228663.323"),
            (-5, 3, "-0.005"),
            (0, 0, "0"),
            (123, 0, "123"),
            (999_999_999_999_999, 3, "999999999999.999"),
            (1_000_000_000_000_000_000, 3, "1000000000000000.000"),
        ] {
            assert_eq!(decimal(value, scale).as_deref(), Ok(want));
        }
        assert!(decimal(1_234_567_890_123_456, 3).is_err());
    }
}
