//! Connecting to PostgreSQL, what its errors mean to a run, and the tables that the operator keeps in each database.

use std::str::FromStr;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::error::{Code, Result, RunError};

/// How long connecting may take.
const CONNECT_SECONDS_MAX: u64 = 15;
/// How often connecting is tried, with growing pauses.
const ATTEMPTS_MAX: usize = 4;

/// What a database is to the run: it decides the code when it can't be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Database {
    /// A source.
    Source,
    /// A sink.
    Sink,
    /// The ledger.
    Ledger,
}

impl Database {
    /// The code when it can't be reached.
    pub fn unreachable(self) -> Code {
        match self {
            Self::Source => Code::SourceUnreachable,
            Self::Sink => Code::SinkUnreachable,
            Self::Ledger => Code::LedgerUnreachable,
        }
    }
}

/// Reads a connection URL. The error does not repeat it, since it holds a password.
pub fn options(url: &str, field: &str) -> Result<PgConnectOptions> {
    let wrong = || {
        RunError::at(
            Code::SecretInvalid,
            field,
            "the Secret's value is no connection URL; write postgres://user:password@host:5432/database?sslmode=verify-full, with %XX for special characters",
        )
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong());
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| wrong())?;
    Ok(options
        .application_name("report-operator")
        // Poolers in transaction mode know no prepared statements of a connection.
        .statement_cache_capacity(0)
        .options([("lock_timeout", "20s"), ("idle_in_transaction_session_timeout", "300s"), ("timezone", "UTC")])
        .disable_statement_logging())
}

/// Connects, with a few attempts for what may pass.
pub async fn connect(options: &PgConnectOptions, field: &str, database: Database) -> Result<PgConnection> {
    use backon::{ExponentialBuilder, Retryable};
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let attempt = || async {
        match tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS_MAX), PgConnection::connect_with(options)).await
        {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(run_error(error, field, &place, database)),
            Err(_) => Err(RunError::at(
                database.unreachable(),
                field,
                format!("{place} does not answer within {CONNECT_SECONDS_MAX} s"),
            )),
        }
    };
    attempt
        .retry(
            ExponentialBuilder::default().with_min_delay(Duration::from_millis(300)).with_max_times(ATTEMPTS_MAX - 1),
        )
        .when(|error: &RunError| error.code == database.unreachable())
        .await
}

/// An error of PostgreSQL in our terms. Its detail is left out, since it holds values of rows.
pub fn run_error(error: sqlx::Error, field: &str, target: &str, database: Database) -> RunError {
    let sqlx::Error::Database(cause) = &error else {
        return match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
                RunError::at(database.unreachable(), field, format!("{target}: the connection failed or broke off"))
                    .caused_by(error)
            }
            sqlx::Error::Configuration(_) => {
                RunError::at(Code::SecretInvalid, field, format!("{target}: the connection's settings are wrong"))
                    .caused_by(error)
            }
            _ => RunError::at(Code::Internal, field, format!("{target}: an answer could not be read")).caused_by(error),
        };
    };
    let state = cause.code().unwrap_or_default().into_owned();
    let words = cause.message();
    let at = |code, remedy: &str| RunError::at(code, field, format!("{target}: {words}{remedy}"));
    match state.as_str() {
        "28P01" | "28000" => at(Code::LoginDenied, "; correct the user and password in the Secret, or pg_hba.conf"),
        "3D000" => at(Code::SecretInvalid, "; create the database, or correct the connection URL"),
        "42501" => at(Code::PermissionDenied, "; grant the right to the role of the connection URL"),
        "23505" => at(Code::KeyInvalid, "; keep one row per key in the model"),
        "23502" => at(Code::ValueInvalid, "; fill the column in the model"),
        "23503" | "23514" | "23P01" => {
            at(Code::ValueInvalid, "; correct the rows in the model, or the table's constraint")
        }
        "2BP01" | "42P07" | "42P01" | "42703" | "42804" | "42P16" => at(Code::SchemaMismatch, ""),
        // The words end with the value.
        "22P02" => {
            let what = words.split_once(": \"").map_or(words, |(what, _)| what);
            let message = format!("{target}: {what}; correct the column in the model, or change the table's");
            RunError::at(Code::ValueInvalid, field, message)
        }
        // A numeric field overflow, a text too long for its column, a NUL in a text.
        _ if state.starts_with("22") => {
            let column = copied_column(cause.as_ref()).map(|column| format!("column {column}: ")).unwrap_or_default();
            let message = format!("{target}: {column}{words}; cast the column in the model, or widen the table's");
            RunError::at(Code::ValueInvalid, field, message)
        }
        "53100" => at(Code::SinkUnreachable, "; the database's disk is full"),
        // The server has ended a session that stood still in a transaction.
        "25P03" => at(database.unreachable(), ""),
        _ if state.starts_with("08") || state.starts_with("57P") || state.starts_with("53") => {
            at(database.unreachable(), "")
        }
        // Locks that were not had in time, deadlocks, serialization failures: another attempt may have more luck.
        "55P03" | "40001" | "40P01" | "57014" => at(database.unreachable(), "; another session holds a lock on it"),
        "25006" => at(Code::SecretInvalid, "; the connection URL leads to a read-only server: use the primary"),
        _ => at(Code::Internal, &format!(" (SQLSTATE {state})")),
    }
}

/// The column that COPY was at: the end of "COPY orders, line 7, column city", where a value may follow.
fn copied_column(error: &dyn DatabaseError) -> Option<&str> {
    let place = error.try_downcast_ref::<PgDatabaseError>()?.r#where()?;
    let (_, column) = place.lines().find_map(|line| line.strip_prefix("COPY "))?.split_once(", column ")?;
    Some(column.split(':').next().unwrap_or(column))
}

/// The tables that the operator keeps in each database that it writes to. They are created once; afterwards no right to
/// create anything is needed for them.
pub async fn create_tables(connection: &mut PgConnection, field: &str, database: Database) -> Result<()> {
    let failed = |error| run_error(error, field, "report_operator", database);
    let there: bool = sqlx::query_scalar("SELECT to_regclass('report_operator.runs') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if there {
        return Ok(());
    }
    let mut transaction = connection.begin().await.map_err(failed)?;
    // Two pipelines may come at the same time, and IF NOT EXISTS does not wait for the other's transaction.
    sqlx::query("SELECT pg_advisory_xact_lock(7021420251121)").execute(&mut *transaction).await.map_err(failed)?;
    for statement in TABLES {
        sqlx::query(AssertSqlSafe(*statement)).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

const TABLES: &[&str] = &[
    "CREATE SCHEMA IF NOT EXISTS report_operator",
    "CREATE TABLE IF NOT EXISTS report_operator.fences (
        identity text PRIMARY KEY,
        epoch bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS report_operator.tables (
        table_schema text NOT NULL,
        table_name text NOT NULL,
        identity text NOT NULL,
        sink text NOT NULL,
        replaces boolean NOT NULL,
        PRIMARY KEY (table_schema, table_name, identity, sink))",
    "CREATE TABLE IF NOT EXISTS report_operator.commits (
        identity text NOT NULL,
        sink text NOT NULL,
        interval_start timestamptz NOT NULL,
        interval_end timestamptz NOT NULL,
        run_id text NOT NULL,
        epoch bigint NOT NULL,
        rows bigint NOT NULL,
        committed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (identity, sink, interval_end, interval_start))",
    "CREATE TABLE IF NOT EXISTS report_operator.ledger (
        identity text PRIMARY KEY,
        version bigint NOT NULL,
        state jsonb NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now())",
    "CREATE TABLE IF NOT EXISTS report_operator.runs (
        identity text NOT NULL,
        run_id text NOT NULL,
        result jsonb NOT NULL,
        finished_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (identity, run_id))",
];
