//! The one transaction that makes a run's rows visible, together with the row that says so.

use report_api::interval::Interval;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteTransaction};

use super::target::owners;
use super::{Owner, PreparedSink, SqliteSink, Window};
use crate::error::{Result, RunError};
use crate::quote::{ident, idents};
use crate::sink::database::{self, COMMITS_KEPT, signed};

/// Longest name of an index. SQLite has no limit; PostgreSQL's is enough for people.
const IDENTIFIER_BYTES_MAX: usize = 63;

impl SqliteSink<'_> {
    /// Makes the rows visible.
    pub(super) async fn try_commit(&self, prepared: &PreparedSink, window: &Window) -> Result<()> {
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
        let known = owners(&mut transaction, self.table).await.map_err(|e| self.error(e))?;
        database::refuse_late_owner(&known, prepared, self.spec, &self.owner)?;
        let adds = self.missing(&mut transaction, prepared).await?;
        let statements = adds.into_iter().chain(self.statements(prepared));
        self.execute_all(&mut transaction, statements.collect::<Vec<_>>()).await?;
        record(&mut transaction, self, prepared, window).await.map_err(|e| self.error(e))?;
        transaction.commit().await.map_err(|e| self.error(e))?;
        let _ = connection.close().await;
        Ok(())
    }

    /// The statements that put the rows in their place.
    fn statements(&self, prepared: &PreparedSink) -> Vec<String> {
        let place = self.place(&prepared.staging);
        if !prepared.creates {
            let mut statements = place.statements(&prepared.mode, &prepared.columns);
            statements.push(format!("DROP TABLE {}", place.staging));
            return statements;
        }
        let mut statements = vec![format!("ALTER TABLE {} RENAME TO {}", place.staging, place.target)];
        for columns in &self.spec.indexes {
            // The names of indexes are one for the whole file, and can't be changed, so that they come last.
            let name = database::index_name(self.table, columns, IDENTIFIER_BYTES_MAX);
            statements.push(format!(
                "CREATE INDEX IF NOT EXISTS {} ON {} ({})",
                ident(&name),
                place.target,
                idents(columns)
            ));
        }
        statements
    }

    /// The statements that add the columns that the rows have and the target still does not.
    async fn missing(&self, connection: &mut SqliteConnection, prepared: &PreparedSink) -> Result<Vec<String>> {
        if prepared.adds.is_empty() || prepared.creates {
            return Ok(Vec::new());
        }
        let there: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?)")
            .bind(self.table)
            .fetch_all(connection)
            .await
            .map_err(|e| self.error(e))?;
        let missing = prepared.adds.iter().filter(|(name, _)| !there.contains(name));
        Ok(missing
            .map(|(name, type_)| format!("ALTER TABLE {} ADD COLUMN {} {type_}", ident(self.table), ident(name)))
            .collect())
    }
}

/// Writes the commit row and the table's owner, in the transaction of the rows.
async fn record(
    transaction: &mut SqliteTransaction<'_>,
    sink: &SqliteSink<'_>,
    prepared: &PreparedSink,
    window: &Window,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO report_operator_commits (identity, sink, interval_start, interval_end, run_id, epoch, rows)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
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
        "DELETE FROM report_operator_commits WHERE identity = ?1 AND sink = ?2 AND committed <
         (SELECT committed FROM report_operator_commits WHERE identity = ?1 AND sink = ?2
          ORDER BY committed DESC LIMIT 1 OFFSET ?3)",
    )
    .bind(&sink.owner.identity)
    .bind(&prepared.name)
    .bind(COMMITS_KEPT)
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "INSERT OR REPLACE INTO report_operator_tables (table_name, identity, sink, replaces) VALUES (?, ?, ?, ?)",
    )
    .bind(sink.table)
    .bind(&sink.owner.identity)
    .bind(&prepared.name)
    .bind(prepared.mode.is_exclusive())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Whether this was committed: the commit row has the epoch in which the rows were staged.
pub(super) async fn is_committed(
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
