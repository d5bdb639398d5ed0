//! The commit: one transaction, or a RENAME TABLE beside one.
//!
//! # Swap
//! MySQL ends a transaction at every RENAME. So one connection holds the fence's row `FOR UPDATE` while another one
//! renames; then the first one writes the commit row and commits. Between the two steps the comment of the target, which
//! was the run's table, says whose rows it has: a run that is killed there has committed.
//!
//! # Fence
//! A run that stands still while it holds the fence is cut off by the server after [`COMMIT_IDLE_SECONDS_MAX`]. Its
//! successor then takes the fence, and drops or renames the run's table before it stages anything. A zombie that wakes up
//! finds no table to rename, since tables have their epochs in their names.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use report_api::interval::Interval;

use super::connect::{COMMIT_IDLE_SECONDS_MAX, code, datetime};
use super::{MysqlSink, PreparedMode, PreparedSink, Window, catalog};
use crate::crash;
use crate::error::{Result, RunError};
use crate::quote::ident;
use crate::sink::database::{self, COMMITS_KEPT, signed};

/// How often a commit is tried against readers that hold the table.
const TRIES_MAX: u64 = 5;
/// How long one try waits for readers: they wait behind it as long, so it is short.
const RENAME_WAIT: &str = "SET SESSION lock_wait_timeout = 3";
/// The identity whose fence is locked by whoever becomes a table's owner, so that two don't at once.
const OWNERS_LOCK: &str = "";

type Mysql<T> = std::result::Result<T, mysql_async::Error>;

/// Whether this was committed: by its commit row, or by the comment of the table that it swapped in.
pub(super) async fn is_committed(
    sink: &MysqlSink<'_>,
    connection: &mut Conn,
    prepared: &PreparedSink,
    interval: &Interval,
) -> Mysql<bool> {
    Ok(has_row(sink, connection, prepared, interval).await? || is_swapped(sink, connection, prepared).await?)
}

async fn has_row(
    sink: &MysqlSink<'_>,
    connection: &mut Conn,
    prepared: &PreparedSink,
    interval: &Interval,
) -> Mysql<bool> {
    let found: Option<u8> = connection
        .exec_first(
            "SELECT 1 FROM report_operator.commits
             WHERE identity = ? AND sink = ? AND epoch = ? AND interval_end = ? AND interval_start = ?",
            (
                &sink.owner.identity,
                &prepared.name,
                signed(prepared.epoch),
                datetime(interval.end),
                datetime(interval.start),
            ),
        )
        .await?;
    Ok(found.is_some())
}

/// Whether the run's table has become the target.
async fn is_swapped(sink: &MysqlSink<'_>, connection: &mut Conn, prepared: &PreparedSink) -> Mysql<bool> {
    if prepared.mode != PreparedMode::Swap && !prepared.creates {
        return Ok(false);
    }
    // Without a look into the table, which would keep the rename waiting for this transaction.
    let marker = catalog::marker_of(connection, &sink.database, sink.table).await?;
    Ok(marker == Some(sink.marker(prepared.epoch)))
}

/// Commits, with a few tries where others hold the table.
pub(super) async fn commit(sink: &MysqlSink<'_>, prepared: &PreparedSink, window: &Window) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut connection = sink.connection().await?;
        match try_commit(sink, &mut connection, prepared, window).await {
            Ok(Ok(())) => {
                clear(sink, &mut connection, prepared).await;
                let _ = connection.disconnect().await;
                return Ok(());
            }
            Ok(Err(error)) => return Err(error),
            Err(error) => {
                // What failed may have failed because another run has taken over.
                drop(connection);
                let mut connection = sink.connection().await?;
                if !holds_fence(sink, &mut connection, window, "").await.map_err(|e| sink.error(e))? {
                    return Err(RunError::fenced(&sink.spec.field));
                }
                let _ = connection.disconnect().await;
                match code(&error) {
                    Some(1205 | 1213) if tries < TRIES_MAX => {
                        tokio::time::sleep(std::time::Duration::from_secs(tries)).await;
                    }
                    _ => return Err(sink.error(error)),
                }
            }
        }
    }
}

/// Whether this attempt is still the last one.
async fn holds_fence(sink: &MysqlSink<'_>, connection: &mut Conn, window: &Window, lock: &str) -> Mysql<bool> {
    let sql = format!("SELECT epoch FROM report_operator.fences WHERE identity = ?{lock}");
    let fence: Option<i64> = connection.exec_first(sql, (&sink.owner.identity,)).await?;
    Ok(fence == Some(signed(window.epoch)))
}

async fn try_commit(
    sink: &MysqlSink<'_>,
    connection: &mut Conn,
    prepared: &PreparedSink,
    window: &Window,
) -> Mysql<Result<()>> {
    let mode = mode_now(sink, connection, prepared).await?;
    connection.query_drop(RENAME_WAIT).await?;
    connection.query_drop(format!("SET SESSION wait_timeout = {COMMIT_IDLE_SECONDS_MAX}")).await?;
    if !prepared.adds.is_empty() && !prepared.creates {
        // Before the transaction, which it would end. A column more is nothing that a successor would miss.
        if !holds_fence(sink, connection, window, "").await? {
            return Ok(Err(RunError::fenced(&sink.spec.field)));
        }
        add_columns(sink, connection, prepared).await?;
    }

    connection.query_drop("START TRANSACTION").await?;
    if !holds_fence(sink, connection, window, " FOR UPDATE").await? {
        return Ok(Err(RunError::fenced(&sink.spec.field)));
    }
    if has_row(sink, connection, prepared, &window.interval).await? {
        return Ok(Ok(()));
    }
    if !is_swapped(sink, connection, prepared).await? {
        if let Some(error) = other_owner(sink, connection, prepared).await? {
            return Ok(Err(error));
        }
        if mode == PreparedMode::Swap || prepared.creates {
            crash::point("before_rename");
            rename(sink, prepared).await?;
            crash::point("after_rename");
        } else {
            for sql in sink.place(&prepared.staging).statements(&mode, &prepared.columns) {
                connection.query_drop(sql).await?;
            }
        }
    }
    record(sink, connection, prepared, window).await?;
    connection.query_drop("COMMIT").await?;
    crash::point("before_clear");
    Ok(Ok(()))
}

/// The mode, but rows instead of a swap where the target is no longer what the run's table was made like: days may lie
/// between, if a dead run is completed.
async fn mode_now(sink: &MysqlSink<'_>, connection: &mut Conn, prepared: &PreparedSink) -> Mysql<PreparedMode> {
    if prepared.mode != PreparedMode::Swap || prepared.creates {
        return Ok(prepared.mode.clone());
    }
    let target = catalog::read(connection, &sink.database, sink.table).await?;
    let staged = catalog::read(connection, &sink.database, &prepared.staging).await?;
    Ok(match (target, staged) {
        (Some(target), Some(staged)) if !target.can_be_swapped() || !target.is_like(&staged) => {
            PreparedMode::ReplaceRows
        }
        // Without a staged table the swap was done, and the target says so.
        _ => PreparedMode::Swap,
    })
}

async fn add_columns(sink: &MysqlSink<'_>, connection: &mut Conn, prepared: &PreparedSink) -> Mysql<()> {
    let Some(target) = catalog::read(connection, &sink.database, sink.table).await? else { return Ok(()) };
    let is_there = |name: &String| target.columns.iter().any(|column| column.name == *name);
    let adds: Vec<_> = prepared
        .adds
        .iter()
        .filter(|(name, _)| !is_there(name))
        .map(|(name, type_)| format!("ADD COLUMN {} {type_}", ident(name)))
        .collect();
    if adds.is_empty() {
        return Ok(());
    }
    connection.query_drop(format!("ALTER TABLE {} {}", sink.name(sink.table), adds.join(", "))).await
}

/// An error if another pipeline has come to own the table since this run was staged. Only a pipeline's first commit into
/// a table asks, and it waits for others that do.
async fn other_owner(sink: &MysqlSink<'_>, connection: &mut Conn, prepared: &PreparedSink) -> Mysql<Option<RunError>> {
    let known = catalog::owners(connection, &sink.database, sink.table).await?;
    if known.iter().any(|known| known.identity == sink.owner.identity) {
        return Ok(None);
    }
    connection
        .exec_drop(
            "INSERT INTO report_operator.fences (identity, epoch) VALUES (?, 0) ON DUPLICATE KEY UPDATE epoch = 0",
            (OWNERS_LOCK,),
        )
        .await?;
    let known = catalog::owners(connection, &sink.database, sink.table).await?;
    Ok(database::refuse_late_owner(&known, prepared, sink.spec, &sink.owner).err())
}

/// The name of the replaced table until it is dropped.
fn old(prepared: &PreparedSink) -> String {
    format!("{}{}", prepared.staging, database::OLD)
}

/// Gives the run's table the target's name, on a connection of its own: on that of the fence it would let go of it.
async fn rename(sink: &MysqlSink<'_>, prepared: &PreparedSink) -> Mysql<()> {
    let mut connection = Conn::new(sink.options.clone()).await?;
    connection.query_drop(RENAME_WAIT).await?;
    let (target, staging) = (sink.name(sink.table), sink.name(&prepared.staging));
    let comes = format!("{staging} TO {target}");
    let sql = if prepared.creates {
        format!("RENAME TABLE {comes}")
    } else {
        format!("RENAME TABLE {target} TO {}, {comes}", sink.name(&old(prepared)))
    };
    connection.query_drop(sql).await?;
    let _ = connection.disconnect().await;
    Ok(())
}

/// Removes what is left of the run's table and of the one that it replaced. The rows are committed: what can't be removed
/// now, the next run removes.
async fn clear(sink: &MysqlSink<'_>, connection: &mut Conn, prepared: &PreparedSink) {
    for table in [&prepared.staging, &old(prepared)] {
        if let Err(error) = sink.execute(connection, format!("DROP TABLE IF EXISTS {}", sink.name(table))).await {
            tracing::warn!(code = error.code.as_str(), "the next run removes what could not be removed: {error}");
        }
    }
}

/// Writes the commit row and the table's owner, in the transaction of the rows.
async fn record(sink: &MysqlSink<'_>, connection: &mut Conn, prepared: &PreparedSink, window: &Window) -> Mysql<()> {
    let (identity, name) = (&sink.owner.identity, &prepared.name);
    connection
        .exec_drop(
            "INSERT INTO report_operator.commits (identity, sink, interval_start, interval_end, run_id, epoch, staged_rows)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON DUPLICATE KEY UPDATE run_id = VALUES(run_id), epoch = VALUES(epoch), staged_rows = VALUES(staged_rows),
             committed_at = now(6)",
            (
                identity,
                name,
                datetime(window.interval.start),
                datetime(window.interval.end),
                &window.run_id,
                signed(prepared.epoch),
                signed(prepared.rows),
            ),
        )
        .await?;
    let oldest: Option<String> = connection
        .exec_first(
            "SELECT cast(interval_end AS char) FROM report_operator.commits WHERE identity = ? AND sink = ?
             ORDER BY interval_end DESC LIMIT 1 OFFSET ?",
            (identity, name, COMMITS_KEPT),
        )
        .await?;
    if let Some(oldest) = oldest {
        connection
            .exec_drop(
                "DELETE FROM report_operator.commits WHERE identity = ? AND sink = ? AND interval_end < ?",
                (identity, name, oldest),
            )
            .await?;
    }
    connection
        .exec_drop(
            "INSERT INTO report_operator.tables (table_schema, table_name, identity, sink, replaces) VALUES (?, ?, ?, ?, ?)
             ON DUPLICATE KEY UPDATE replaces = VALUES(replaces)",
            (&sink.database, sink.table, identity, name, prepared.mode.is_exclusive()),
        )
        .await
}
