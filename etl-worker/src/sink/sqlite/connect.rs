//! Opening an SQLite file, what its errors mean to a run, and the tables that the operator keeps in it.

use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};

use crate::error::{Code, Result, RunError};

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(30);

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

/// Opens the file for reading only; None where there is no such file.
pub async fn connect_to_read(path: &str, field: &str) -> Result<Option<SqliteConnection>> {
    if !std::path::Path::new(path).exists() {
        return Ok(None);
    }
    // Whoever reads a WAL file makes two others beside it where they are missing. They are missing when nobody has the
    // file open, and all that is committed is in the file itself.
    let in_use = std::path::Path::new(&format!("{path}-wal")).exists();
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(!in_use).busy_timeout(BUSY);
    let connection = SqliteConnection::connect_with(&options).await;
    connection.map(Some).map_err(|error| run_error(error, field, path))
}

/// Whether a file has a table.
pub async fn has_table(connection: &mut SqliteConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)")
        .bind(name)
        .fetch_one(connection)
        .await
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
        // 15: SQLite has waited for its log's lock and gave up, such as when a process stands still while it opens the file.
        5 | 6 | 10 | 15 => (Code::SinkUnreachable, ""),
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
