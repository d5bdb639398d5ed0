//! Source `postgres`: a table or query, read by COPY BINARY in one read-only transaction, never to disk.
//!
//! # Guarantees
//! All sources of one connection see the same moment. What an incremental source reads is decided by the server's clock
//! or values, before the snapshot is taken: no row that is not visible lies in the window, except one of a transaction
//! that had begun and not ended, which `lag` and `delay` are for.
//!
//! # Errors
//! `login_denied`, `permission_denied`, `input_missing` (no such table), `column_missing`, `type_unsupported`,
//! `sql_invalid` (the query), `value_invalid`, and `source_unreachable` for what may pass. Connecting and what comes
//! before the first row is tried again here; a stream that breaks fails the run, which is tried again whole.
//! Memory: some chunks and one batch. Needs: SELECT.

mod columns;
mod copy;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use report_api::checked::{Checked, CheckedColumn, CheckedIncremental, CheckedSource, PostgresRead, SourceKind};
use report_api::connection::SecretKey;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, SqlSafeStr, Statement};
use tokio::sync::mpsc;

use self::columns::{Found, Read};
use self::copy::{Batches, Chunk};
use super::window::{self, CursorType, Plan, Watermark, Window};
use crate::decode::{Decoder, schema};
use crate::env::Env;
use crate::error::{Code, Result, RunError};
use crate::quote::{ident, literal};
use crate::sink::postgres::{Database, connect, options, run_error};

/// Bytes that go to the decoder at once: enough that handing them over does not count.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks between the connection and the decoder: one is filled while another one is decoded.
const CHUNKS_IN_FLIGHT: usize = 2;
/// The largest row. The server sends rows whole, so that each takes as much memory several times.
const ROW_BYTES_MAX: usize = 128 << 20;
/// How often a read is prepared, with growing pauses, when what fails may pass.
const ATTEMPTS_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// The longest idle time that the server can be told: its settings are milliseconds in 31 bits.
const IDLE_SECONDS_MAX: u64 = 24 * 86_400;

/// The databases of a run's sources.
pub struct Databases {
    /// Connections that more than one source uses.
    shared: HashSet<SecretKey>,
    moments: HashMap<SecretKey, Moment>,
    /// How long a source may wait for the others before its rows are read: as long as the run.
    idle_seconds: u64,
}

/// What all sources of a connection see.
#[derive(Clone, Debug)]
struct Moment {
    /// The name of the snapshot, while the transaction that exported it is open.
    snapshot: Option<String>,
    /// The server's clock before the snapshot, in microseconds since 1970.
    clock: i64,
}

/// The rows of a source, to be read once.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<CheckedColumn>,
    prepared: Mutex<Option<Prepared>>,
    bytes: Arc<AtomicU64>,
    place: Place,
}

/// A transaction that holds still, and the statement that reads.
struct Prepared {
    connection: PgConnection,
    sql: String,
}

/// What errors name.
#[derive(Clone, Debug)]
struct Place {
    field: String,
    target: String,
}

impl Databases {
    /// For the sources of a pipeline.
    pub fn of(checked: &Checked) -> Self {
        let mut seen = HashSet::new();
        let keys = checked.sources.iter().filter_map(|source| match &source.kind {
            SourceKind::Postgres { connection, .. } => Some(connection),
            SourceKind::Http(_) | SourceKind::File(_) => None,
        });
        let shared = keys.filter(|key| !seen.insert(*key)).cloned().collect();
        Self { shared, moments: HashMap::new(), idle_seconds: checked.timeout_seconds.min(IDLE_SECONDS_MAX) }
    }

    /// Begins a transaction, learns the columns, and decides what is read.
    pub async fn open(
        &mut self,
        source: &CheckedSource,
        key: &SecretKey,
        read: &PostgresRead,
        after: Option<&Watermark>,
        env: &Env,
    ) -> Result<(Rows, Option<Window>)> {
        let field = format!("{}.postgres", source.field);
        let at = format!("{field}.connection");
        let options = options(env.secret(key, &at)?, &at)?;
        let (field, target) = match read {
            PostgresRead::Table { schema, table } => (format!("{field}.table"), format!("{schema}.{table}")),
            PostgresRead::Query(_) => (format!("{field}.query"), "the query".into()),
        };
        let place = Place { field, target };
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            let connection = connect(&options, &at, Database::Source).await?;
            match self.prepare(connection, source, key, read, after, &place, &options).await {
                Err(error) if error.code == Code::SourceUnreachable => {
                    tracing::warn!(code = error.code.as_str(), "trying again: {error}");
                }
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let connection = connect(&options, &at, Database::Source).await?;
        self.prepare(connection, source, key, read, after, &place, &options).await
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one attempt, which is made in two places")]
    async fn prepare(
        &mut self,
        mut connection: PgConnection,
        source: &CheckedSource,
        key: &SecretKey,
        read: &PostgresRead,
        after: Option<&Watermark>,
        place: &Place,
        options: &PgConnectOptions,
    ) -> Result<(Rows, Option<Window>)> {
        let moment = self.begin(&mut connection, key, place).await?;
        let (from, describe) = match read {
            PostgresRead::Table { schema, table } => {
                let table = format!("{}.{}", ident(schema), ident(table));
                (table.clone(), format!("SELECT * FROM {table}"))
            }
            // The server takes the query by itself first: what is one statement then can't end the parentheses here.
            PostgresRead::Query(query) => (format!("({query}\n) AS source"), query.clone()),
        };
        let failed = |error| place.error(error);
        let statement = (&mut connection).prepare(AssertSqlSafe(describe).into_sql_str()).await.map_err(failed)?;
        let is_table = matches!(read, PostgresRead::Table { .. });
        let found = columns::details(&mut connection, statement.columns(), is_table).await.map_err(failed)?;
        refuse_unnamed(&found, place)?;
        let reads = columns::reads(&found, source)?;

        let mut filter = String::new();
        let mut window = None;
        if let Some(incremental) = &source.incremental {
            let cursor = cursor(&reads, &found, incremental)?;
            let plan = Plan::new(source, incremental, cursor.type_, after)?;
            let decided = cursor.decide(&mut connection, plan, &from, moment.clock, incremental).await;
            let decided = decided.map_err(|error| match error {
                Failure::Database(error) => place.error(error),
                Failure::Run(error) => error,
            })?;
            filter = cursor.filter(&decided);
            window = Some(decided);
        }
        let list: Vec<&str> = reads.iter().map(|read| read.expression.as_str()).collect();
        let sql = format!("COPY (SELECT {} FROM {from}{filter}) TO STDOUT (FORMAT BINARY)", list.join(", "));
        tracing::debug!(source = source.name, host = options.get_host(), "ready to read");
        let columns: Vec<CheckedColumn> = reads.into_iter().map(|read| read.column).collect();
        let rows = Rows {
            schema: schema(&columns),
            columns,
            prepared: Mutex::new(Some(Prepared { connection, sql })),
            bytes: Arc::default(),
            place: place.clone(),
        };
        if let Some(started) = moment.exported {
            self.moments.insert(key.clone(), started);
        }
        Ok((rows, window))
    }

    /// Begins a read-only transaction at the moment that all sources of the connection see.
    async fn begin(&self, connection: &mut PgConnection, key: &SecretKey, place: &Place) -> Result<Begun> {
        let failed = |error| place.error(error);
        let shared = self.moments.get(key);
        let clock = match shared {
            Some(moment) => moment.clock,
            // Before the snapshot: whatever is committed later has no right to lie in the window. A replica's is where
            // it has got to.
            None => sqlx::query_scalar(
                "SELECT (extract(epoch FROM least(clock_timestamp(),
                    CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() END)) * 1000000)::bigint",
            )
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?,
        };
        // Settings of this transaction only, since a pooler may give the connection to others. Texts come as they do
        // whatever the server's settings are.
        let mut begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;".to_owned();
        if let Some(snapshot) = shared.and_then(|moment| moment.snapshot.as_ref()) {
            begin.push_str(&format!("SET TRANSACTION SNAPSHOT {};", literal(snapshot)));
        }
        begin.push_str(&format!(
            "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '{}s';
             SET LOCAL lock_timeout = '20s'; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD';
             SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1",
            self.idle_seconds
        ));
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await.map_err(failed)?;
        let exported = match shared {
            None if self.shared.contains(key) => {
                let snapshot: String =
                    sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(connection).await.map_err(failed)?;
                Some(Moment { snapshot: Some(snapshot), clock })
            }
            None | Some(_) => None,
        };
        Ok(Begun { clock, exported })
    }
}

/// A transaction that has begun.
struct Begun {
    clock: i64,
    exported: Option<Moment>,
}

/// Columns without a name, or with one name twice, can't be asked for.
fn refuse_unnamed(found: &[Found], place: &Place) -> Result<()> {
    for (n, column) in found.iter().enumerate() {
        let what = if column.name == "?column?" {
            format!("column {} of the query has no name", n + 1)
        } else if found[..n].iter().any(|other| other.name == column.name) {
            format!("two columns of the query are called {}", column.name)
        } else {
            continue;
        };
        let message = format!("{what}; give each a name of its own: … AS name");
        return Err(RunError::at(Code::SqlInvalid, &place.field, message));
    }
    Ok(())
}

/// The cursor of an incremental source.
struct Cursor {
    name: String,
    type_: CursorType,
    required: bool,
}

enum Failure {
    Database(sqlx::Error),
    Run(RunError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

fn cursor(reads: &[Read], found: &[Found], incremental: &CheckedIncremental) -> Result<Cursor> {
    let field = format!("{}.cursor", incremental.field);
    let read = reads.iter().find(|read| read.column.name == incremental.cursor);
    let Some(found) = read.and_then(|read| read.found).map(|place| &found[place]) else {
        let names = reads.iter().filter(|read| read.found.is_some()).map(|read| read.column.name.as_str());
        return Err(window::no_column(&incremental.cursor, names, field));
    };
    let type_ = columns::cursor_type(found).ok_or_else(|| {
        let message = format!(
            "the column {} is of type {}, which can't be a cursor; take a timestamp, a date or a whole number",
            incremental.cursor,
            found.type_name()
        );
        RunError::at(Code::TypeUnsupported, field, message)
    })?;
    Ok(Cursor { name: ident(&found.name), type_, required: found.required })
}

impl Cursor {
    /// Fixes the bound: by the server's clock, for numbers one above the greatest. A wall clock whose zone is not known
    /// may be behind, so that its bound is not above its greatest value either.
    async fn decide(
        &self,
        connection: &mut PgConnection,
        plan: Plan<'_>,
        from: &str,
        clock: i64,
        incremental: &CheckedIncremental,
    ) -> Result<Window, Failure> {
        if !self.required {
            let sql = format!("SELECT count(*) FROM {from} WHERE {} IS NULL", self.name);
            let nulls: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
            if let Ok(nulls @ 1..) = u64::try_from(nulls) {
                return Err(Failure::Run(window::null_cursors(nulls, incremental)));
            }
        }
        let by_clock = plan.by_clock(clock);
        let bound = match self.type_ {
            CursorType::Date | CursorType::TimestampTz => Some(by_clock),
            CursorType::Timestamp => {
                let sql = format!(
                    "SELECT (extract(epoch FROM max({0})) * 1000000)::bigint FROM {from} WHERE {0} < {1}",
                    self.name,
                    self.literal(by_clock)
                );
                let greatest: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await?;
                greatest.map(|greatest| greatest.saturating_add(1))
            }
            CursorType::Integer => {
                let sql = format!("SELECT max({})::bigint FROM {from}", self.name);
                let greatest: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await?;
                if greatest == Some(i64::MAX) {
                    let field = format!("{}.cursor", incremental.field);
                    let message = "the cursor has its greatest possible value; correct the row";
                    return Err(Failure::Run(RunError::at(Code::ValueInvalid, field, message)));
                }
                greatest.map(|greatest| (greatest + 1).saturating_sub(plan.delay))
            }
        };
        Ok(plan.fixed(bound))
    }

    /// The condition that the window is. Without a bound there is no row.
    fn filter(&self, window: &Window) -> String {
        let conditions: Vec<String> = (window.start().map(|start| format!("{} >= {}", self.name, self.literal(start))))
            .into_iter()
            .chain(window.bound().map(|bound| format!("{} < {}", self.name, self.literal(bound))))
            .collect();
        if conditions.is_empty() { " WHERE false".into() } else { format!(" WHERE {}", conditions.join(" AND ")) }
    }

    fn literal(&self, count: i64) -> String {
        let type_ = match self.type_ {
            CursorType::Integer => "bigint",
            CursorType::Date => "date",
            CursorType::Timestamp => "timestamp",
            CursorType::TimestampTz => "timestamptz",
        };
        format!("{}::{type_}", literal(&self.type_.text(count)))
    }
}

impl Rows {
    /// Bytes that the server has sent.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Where they come from, for people.
    pub fn target(&self) -> &str {
        &self.place.target
    }

    /// The rows. They are asked for when the first batch is; drive `batches` on a blocking thread of the runtime.
    pub fn read(&self) -> Result<Decoder> {
        let prepared = self.prepared.lock().ok().and_then(|mut prepared| prepared.take());
        let prepared = prepared
            .ok_or_else(|| RunError::at(Code::Internal, &self.place.field, "the rows of a source are read twice"))?;
        let (bytes, place) = (Arc::clone(&self.bytes), self.place.clone());
        let batches = Batches::new(&self.columns, move || {
            let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
            tokio::spawn(pump(prepared, sender, bytes, place));
            receiver
        });
        let field = self.place.field.clone();
        let batches = batches.map(move |batch| {
            batch.map_err(|mut error| {
                error.field.get_or_insert_with(|| field.clone());
                error
            })
        });
        Ok(Decoder { schema: Arc::clone(&self.schema), batches: Box::new(batches) })
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("place", &self.place).field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Brings the rows to the decoder, which says by a full channel when it has enough for now.
async fn pump(mut prepared: Prepared, to: mpsc::Sender<Chunk>, bytes: Arc<AtomicU64>, place: Place) {
    match copy_out(&mut prepared, &to, &bytes, &place).await {
        Ok(true) => {
            let _ = to.send(Ok(None)).await;
            let _ = prepared.connection.close().await;
        }
        // Nobody wants the rest: the connection is dropped, which ends the statement.
        Ok(false) => {}
        Err(error) => {
            let _ = to.send(Err(error)).await;
        }
    }
}

async fn copy_out(prepared: &mut Prepared, to: &mpsc::Sender<Chunk>, bytes: &AtomicU64, place: &Place) -> Result<bool> {
    let Prepared { connection, sql } = prepared;
    let mut rows = connection.copy_out_raw(sql).await.map_err(|error| place.error(error))?;
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    // A message of the server is a row, or the header with one: rows are never cut.
    while let Some(row) = rows.try_next().await.map_err(|error| place.error(error))? {
        if row.len() > ROW_BYTES_MAX {
            let message =
                format!("a row has {} bytes; the most is {ROW_BYTES_MAX}: leave large columns out", row.len());
            return Err(RunError::at(Code::InputTooLarge, &place.field, message));
        }
        bytes.fetch_add(row.len() as u64, Ordering::Relaxed);
        if chunk.len() + row.len() > CHUNK_BYTES && !chunk.is_empty() {
            let full = std::mem::replace(&mut chunk, BytesMut::with_capacity(CHUNK_BYTES));
            if to.send(Ok(Some(full.freeze()))).await.is_err() {
                return Ok(false);
            }
        }
        chunk.extend_from_slice(&row);
    }
    let last: Bytes = chunk.freeze();
    Ok(last.is_empty() || to.send(Ok(Some(last))).await.is_ok())
}

impl Place {
    /// An error of the server while it is read from, in our terms.
    fn error(&self, error: sqlx::Error) -> RunError {
        let sqlx::Error::Database(cause) = &error else {
            return run_error(error, &self.field, &self.target, Database::Source);
        };
        let state = cause.code().unwrap_or_default().into_owned();
        let words = cause.message();
        let at = |code, remedy: &str| RunError::at(code, &self.field, format!("{}: {words}{remedy}", self.target));
        match state.as_str() {
            "40001" if words.contains("recovery") => at(
                Code::SourceUnreachable,
                "; the replica had to remove rows that were being read. If it happens often, set hot_standby_feedback = on or a longer max_standby_streaming_delay there, or read from the primary",
            ),
            "57014" => at(Code::SourceUnreachable, "; a timeout of the server or a person ended the statement"),
            "57P01" | "57P02" | "57P03" => {
                at(Code::SourceUnreachable, "; the server was stopped, or ended the connection")
            }
            "42P01" | "3F000" => at(Code::InputMissing, "; correct the name and its schema, or create it"),
            "42501" => at(Code::PermissionDenied, "; grant SELECT to the role of the connection URL"),
            "42703" => at(Code::ColumnMissing, "; correct the column's name"),
            "25006" | "0A000" => at(Code::SqlInvalid, "; a source only reads: write one SELECT"),
            "22023" if words.contains("snapshot") => at(
                Code::SourceUnreachable,
                "; the sources of this connection must be on one server: name one in the connection URL",
            ),
            // Behind the colon stands a value of a row.
            _ if state.starts_with("22") => RunError::at(
                Code::ValueInvalid,
                &self.field,
                format!(
                    "{}: {}; correct the rows, or the query",
                    self.target,
                    words.split_once(": ").map_or(words, |(words, _)| words)
                ),
            ),
            _ if state.starts_with("42") => at(Code::SqlInvalid, "; correct the SQL"),
            _ => run_error(error, &self.field, &self.target, Database::Source),
        }
    }
}
