//! The one transaction that makes a run's rows visible, together with the row that says so.

use report_api::interval::Interval;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, PgTransaction};

use super::{Owner, PostgresSink, PreparedMode, PreparedSink, Window, catalog, staging};
use crate::crash;
use crate::error::{Result, RunError};
use crate::quote::ident;
use crate::sink::database::{self, COMMITS_KEPT, signed};

/// How often the swap is tried against readers that hold the table.
const SWAPS_MAX: usize = 5;
/// How long one try waits for readers: they wait behind it as long, so it is short.
const SWAP_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'";
/// How long a commit may be silent before the server takes its locks away, the fence's among them: less than the 20
/// seconds for which its successor waits. It waits for nobody but the server.
const COMMIT_IDLE_TIMEOUT: &str = "SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// Whether this was committed: the commit row has the epoch in which the rows were staged.
pub(super) async fn is_committed(
    connection: &mut PgConnection,
    owner: &Owner,
    prepared: &PreparedSink,
    interval: &Interval,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM report_operator.commits
         WHERE identity = $1 AND sink = $2 AND epoch = $3 AND interval_end = $4::timestamptz AND interval_start = $5::timestamptz)",
    )
    .bind(&owner.identity)
    .bind(&prepared.name)
    .bind(signed(prepared.epoch))
    .bind(interval.end.to_string())
    .bind(interval.start.to_string())
    .fetch_one(connection)
    .await
}

/// Commits, with a few tries for a swap that finds the table in use. A try whose outcome is unknown, since the
/// connection broke at COMMIT, is looked up by the next attempt of the run.
pub(super) async fn commit(sink: &PostgresSink<'_>, prepared: &PreparedSink, window: &Window) -> Result<()> {
    let mut mode = prepared.mode.clone();
    let mut tries = 0;
    loop {
        tries += 1;
        let mut connection = sink.connection().await?;
        if mode == PreparedMode::Swap && !prepared.creates && has_changed(sink, &mut connection, prepared).await? {
            mode = PreparedMode::ReplaceRows;
        }
        let outcome = match add_columns(sink, &mut connection, prepared, window).await {
            Ok(Ok(())) => try_commit(sink, &mut connection, prepared, &mode, window).await,
            other => other,
        };
        match outcome {
            Ok(outcome) => {
                let _ = connection.close().await;
                return outcome;
            }
            Err(sqlx::Error::Database(error)) => match error.code().as_deref() {
                // Something came to depend on the table since it was staged.
                Some("2BP01") if mode == PreparedMode::Swap && !prepared.creates => mode = PreparedMode::ReplaceRows,
                Some("55P03" | "40P01") if tries < SWAPS_MAX => {
                    tokio::time::sleep(std::time::Duration::from_secs(tries as u64)).await;
                }
                _ => return Err(sink.error(sqlx::Error::Database(error))),
            },
            Err(error) => return Err(sink.error(error)),
        }
    }
}

/// Whether the target is no longer what the run's table was made to take the place of.
async fn has_changed(sink: &PostgresSink<'_>, connection: &mut PgConnection, prepared: &PreparedSink) -> Result<bool> {
    let failed = |error| sink.error(error);
    let target = catalog::read(connection, sink.schema, sink.table).await.map_err(failed)?;
    let staged = catalog::read(connection, sink.schema, &prepared.staging).await.map_err(failed)?;
    // Without a staged table the swap was committed, and its commit row says so.
    Ok(staged.is_some_and(|staged| {
        target.is_some_and(|target| !target.is_as_staged(&prepared.columns, staged.index_count()))
    }))
}

/// Adds the columns that the rows have and the target does not, before the transaction of the rows: it would lock
/// readers out for as long as they take.
async fn add_columns(
    sink: &PostgresSink<'_>,
    connection: &mut PgConnection,
    prepared: &PreparedSink,
    window: &Window,
) -> sqlx::Result<Result<()>> {
    if prepared.adds.is_empty() {
        return Ok(Ok(()));
    }
    let Some(target) = catalog::read(connection, sink.schema, sink.table).await? else { return Ok(Ok(())) };
    let is_there = |name: &String| target.columns.iter().any(|column| column.name == *name);
    let missing: Vec<_> = prepared.adds.iter().filter(|(name, _)| !is_there(name)).collect();
    if missing.is_empty() {
        return Ok(Ok(()));
    }
    let mut transaction = connection.begin().await?;
    sqlx::query(SWAP_LOCK_TIMEOUT).execute(&mut *transaction).await?;
    if !holds_fence(sink, &mut transaction, window).await? {
        return Ok(Err(RunError::fenced(&sink.spec.field)));
    }
    let adds: Vec<_> =
        missing.iter().map(|(name, type_)| format!("ADD COLUMN IF NOT EXISTS {} {type_}", ident(name))).collect();
    let sql = format!("ALTER TABLE {}.{} {}", ident(sink.schema), ident(sink.table), adds.join(", "));
    sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Ok(()))
}

/// Whether this attempt is still the last one. Holds the fence until the transaction ends.
async fn holds_fence(
    sink: &PostgresSink<'_>,
    transaction: &mut PgTransaction<'_>,
    window: &Window,
) -> sqlx::Result<bool> {
    let fence: Option<i64> =
        sqlx::query_scalar("SELECT epoch FROM report_operator.fences WHERE identity = $1 FOR UPDATE")
            .bind(&sink.owner.identity)
            .fetch_optional(&mut **transaction)
            .await?;
    Ok(fence == Some(signed(window.epoch)))
}

async fn try_commit(
    sink: &PostgresSink<'_>,
    connection: &mut PgConnection,
    prepared: &PreparedSink,
    mode: &PreparedMode,
    window: &Window,
) -> sqlx::Result<Result<()>> {
    // Reads only; all DDL but the swap itself came before.
    let names = lasting_names(sink, connection, prepared, mode).await?;

    let mut transaction = connection.begin().await?;
    sqlx::query(SWAP_LOCK_TIMEOUT).execute(&mut *transaction).await?;
    sqlx::query(COMMIT_IDLE_TIMEOUT).execute(&mut *transaction).await?;
    if !holds_fence(sink, &mut transaction, window).await? {
        return Ok(Err(RunError::fenced(&sink.spec.field)));
    }
    crash::point("in_commit");
    if is_committed(&mut transaction, &sink.owner, prepared, &window.interval).await? {
        return Ok(Ok(()));
    }
    if let Some(error) = other_owner(sink, &mut transaction, prepared).await? {
        return Ok(Err(error));
    }
    apply(sink, &mut transaction, prepared, mode, &names).await?;
    record(sink, &mut transaction, prepared, window).await?;
    transaction.commit().await?;
    Ok(Ok(()))
}

/// An error if another pipeline has come to own the table since this run was staged. Only a pipeline's first commit into
/// a table asks, and it waits for others that do.
async fn other_owner(
    sink: &PostgresSink<'_>,
    transaction: &mut PgTransaction<'_>,
    prepared: &PreparedSink,
) -> sqlx::Result<Option<RunError>> {
    let known = catalog::owners(transaction, sink.schema, sink.table).await?;
    if known.iter().any(|known| known.identity == sink.owner.identity) {
        return Ok(None);
    }
    sqlx::query("LOCK TABLE report_operator.tables IN SHARE ROW EXCLUSIVE MODE").execute(&mut **transaction).await?;
    let known = catalog::owners(transaction, sink.schema, sink.table).await?;
    Ok(database::refuse_late_owner(&known, prepared, sink.spec, &sink.owner).err())
}

/// The names that indexes of the run's table take when it becomes the target: the number of each, its lasting name, and
/// whether it belongs to a constraint.
async fn lasting_names(
    sink: &PostgresSink<'_>,
    connection: &mut PgConnection,
    prepared: &PreparedSink,
    mode: &PreparedMode,
) -> sqlx::Result<Vec<(usize, (String, bool))>> {
    if *mode != PreparedMode::Swap && !prepared.creates {
        return Ok(Vec::new());
    }
    let new = staging::index_names(connection, sink.schema, &prepared.staging).await?;
    let lasting = if prepared.creates {
        staging::names_of_created(connection, sink.schema, sink.table, sink.spec).await?
    } else {
        staging::index_names(connection, sink.schema, sink.table).await?.into_iter().enumerate().collect()
    };
    let is_there = |at: usize| new.iter().any(|(name, _)| *name == staging::index_name(&prepared.staging, at));
    Ok(lasting.into_iter().filter(|(at, _)| is_there(*at)).collect())
}

/// Puts the rows in their place.
async fn apply(
    sink: &PostgresSink<'_>,
    transaction: &mut PgTransaction<'_>,
    prepared: &PreparedSink,
    mode: &PreparedMode,
    names: &[(usize, (String, bool))],
) -> sqlx::Result<()> {
    let schema = ident(sink.schema);
    let place = sink.place(&prepared.staging);
    let (target, staged) = (&place.target, &place.staging);
    let rename = format!("ALTER TABLE {staged} RENAME TO {}", ident(sink.table));

    let mut statements = match mode {
        // The new table takes the name only after the old one, with its indexes' names, is gone.
        _ if prepared.creates => vec![rename],
        PreparedMode::Swap => vec![format!("DROP TABLE {target}"), rename],
        PreparedMode::ReplaceRows
        | PreparedMode::ReplaceByKey { .. }
        | PreparedMode::Append
        | PreparedMode::Merge { .. }
        | PreparedMode::DeleteInterval { .. }
        | PreparedMode::DeletePartitions { .. } => {
            let mut statements = place.statements(mode, &prepared.columns);
            statements.push(format!("DROP TABLE {staged}"));
            statements
        }
    };
    for (at, (name, is_constraint)) in names {
        let from = ident(&staging::index_name(&prepared.staging, *at));
        statements.push(if *is_constraint {
            format!("ALTER TABLE {target} RENAME CONSTRAINT {from} TO {}", ident(name))
        } else {
            format!("ALTER INDEX {schema}.{from} RENAME TO {}", ident(name))
        });
    }
    for sql in statements {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Writes the commit row and the table's owner, in the transaction of the rows.
async fn record(
    sink: &PostgresSink<'_>,
    transaction: &mut PgTransaction<'_>,
    prepared: &PreparedSink,
    window: &Window,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO report_operator.commits (identity, sink, interval_start, interval_end, run_id, epoch, rows)
         VALUES ($1, $2, $3::timestamptz, $4::timestamptz, $5, $6, $7)
         ON CONFLICT (identity, sink, interval_end, interval_start) DO UPDATE
         SET run_id = excluded.run_id, epoch = excluded.epoch, rows = excluded.rows, committed_at = now()",
    )
    .bind(&sink.owner.identity)
    .bind(&prepared.name)
    .bind(window.interval.start.to_string())
    .bind(window.interval.end.to_string())
    .bind(&window.run_id)
    .bind(signed(prepared.epoch))
    .bind(signed(prepared.rows))
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "DELETE FROM report_operator.commits WHERE identity = $1 AND sink = $2 AND interval_end <
         (SELECT interval_end FROM report_operator.commits WHERE identity = $1 AND sink = $2
          ORDER BY interval_end DESC OFFSET $3 LIMIT 1)",
    )
    .bind(&sink.owner.identity)
    .bind(&prepared.name)
    .bind(COMMITS_KEPT)
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "INSERT INTO report_operator.tables (table_schema, table_name, identity, sink, replaces) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (table_schema, table_name, identity, sink) DO UPDATE SET replaces = excluded.replaces",
    )
    .bind(sink.schema)
    .bind(sink.table)
    .bind(&sink.owner.identity)
    .bind(&prepared.name)
    .bind(prepared.mode.is_exclusive())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
