//! Rows into a table by LOAD DATA LOCAL, or by INSERTs of many rows where the server forbids that.
//!
//! With LOCAL, the server can't stop the client, and so turns every error into a warning and goes on: a value that is
//! too long is cut, a row whose key is there is left out. What was loaded counts only if there is no warning.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value};
use report_api::checked::CheckedSink;
use tokio::sync::{mpsc, oneshot};

use super::connect::{code, run_error};
use super::values;
use crate::error::{Code, Result, RunError};
use crate::observe::RowStream;
use crate::quote::{ident, idents};
use crate::sink::postgres::Database;

/// Bytes that are sent at once.
const SEND_BYTES: usize = 1 << 20;
/// Pieces of that size on their way to the connection.
const PIECES_IN_FLIGHT: usize = 2;
/// Parameters of one INSERT; MySQL takes 65,535.
const PARAMETERS_MAX: usize = 20_000;
/// Bytes of the values of one INSERT: a quarter of the packet that servers take at least.
const INSERT_BYTES_MAX: usize = 4 << 20;
/// What servers say that forbid LOAD DATA LOCAL: MySQL 5.7, MySQL 8, MariaDB.
const LOCAL_FORBIDDEN: [u16; 4] = [1148, 3948, 3950, 4166];

/// Where rows go.
pub(super) struct Into<'a> {
    /// The table as SQL.
    pub(super) table: &'a str,
    pub(super) schema: &'a SchemaRef,
    pub(super) spec: &'a CheckedSink,
    /// Its name, for messages.
    pub(super) name: &'a str,
}

impl Into<'_> {
    fn error(&self, error: mysql_async::Error) -> RunError {
        run_error(error, &self.spec.field, self.name, Database::Sink)
    }

    fn columns(&self) -> String {
        let names: Vec<_> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        idents(&names)
    }

    fn refused(&self, column: usize, words: &str) -> RunError {
        let name = self.schema.field(column).name();
        RunError::at(Code::TypeUnsupported, format!("{}.from", self.spec.field), format!("column {name}: {words}"))
    }

    fn load_statement(&self) -> String {
        let (mut places, mut sets) = (Vec::new(), Vec::new());
        for (at, field) in self.schema.fields().iter().enumerate() {
            let (name, variable) = (ident(field.name()), format!("@v{at}"));
            match values::unpacked(field.data_type(), &variable) {
                Some(value) => {
                    places.push(variable);
                    sets.push(format!("{name} = {value}"));
                }
                None => places.push(name),
            }
        }
        let set = if sets.is_empty() { String::new() } else { format!(" SET {}", sets.join(", ")) };
        format!(
            "LOAD DATA LOCAL INFILE 'rows' INTO TABLE {} CHARACTER SET utf8mb4
             FIELDS TERMINATED BY '\\t' ENCLOSED BY '' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' STARTING BY '' ({}){set}",
            self.table,
            places.join(", ")
        )
    }

    /// Loads rows and counts them.
    pub(super) async fn rows(&self, connection: &mut Conn, mut rows: RowStream) -> Result<u64> {
        let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(PIECES_IN_FLIGHT);
        let (asks, asked) = oneshot::channel();
        connection.set_infile_handler(async move {
            let _ = asks.send(());
            let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|piece| (piece, receiver))
            });
            Ok(pieces.boxed())
        });
        let (sent, loaded) = {
            let load = connection.query_drop(self.load_statement());
            tokio::pin!(load);
            // No row is read before the server asks for them: until then there is another way.
            let ended = tokio::select! {
                biased;
                ended = &mut load => Some(ended),
                _ = asked => None,
            };
            match ended {
                None => {
                    let (sent, loaded) = tokio::join!(self.send(&mut rows, sender), load);
                    (Some(sent), loaded)
                }
                Some(ended) => (None, ended),
            }
        };
        if let Some(sent) = sent {
            // The rows' own error is the cause of what the server then says.
            let count = sent?;
            loaded.map_err(|e| self.error(e))?;
            return self.check_loaded(connection, count).await;
        }
        let refused = match loaded {
            Ok(()) => "the server has not asked for the rows".to_owned(),
            Err(error) if code(&error).is_some_and(|code| LOCAL_FORBIDDEN.contains(&code)) => error.to_string(),
            Err(error) => return Err(self.error(error)),
        };
        tracing::warn!(
            sink = self.spec.name,
            "LOAD DATA LOCAL is not to be had, so that the rows go by INSERT, which is slower; SET GLOBAL local_infile = ON: {refused}"
        );
        self.insert(connection, rows).await
    }

    async fn check_loaded(&self, connection: &mut Conn, count: u64) -> Result<u64> {
        let taken = connection.affected_rows();
        if connection.get_warnings() > 0 || taken != count {
            return Err(self.warned(connection, count, taken).await);
        }
        Ok(count)
    }

    /// Writes rows as lines of values with tabs between.
    async fn send(&self, rows: &mut RowStream, sender: mpsc::Sender<std::io::Result<Bytes>>) -> Result<u64> {
        let mut buffer = BytesMut::with_capacity(SEND_BYTES * 2);
        let mut value = Vec::new();
        let mut count = 0;
        loop {
            let batch = match rows.try_next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => return Err(abort(&sender, error).await),
            };
            for row in 0..batch.num_rows() {
                if let Err(error) = self.line(&batch, row, &mut value, &mut buffer) {
                    return Err(abort(&sender, error).await);
                }
                while buffer.len() >= SEND_BYTES {
                    if sender.send(Ok(buffer.split_to(SEND_BYTES).freeze())).await.is_err() {
                        // The connection has ended, and says why.
                        return Ok(count);
                    }
                }
            }
            count += batch.num_rows() as u64;
        }
        let _ = sender.send(Ok(buffer.freeze())).await;
        Ok(count)
    }

    fn line(&self, batch: &RecordBatch, row: usize, value: &mut Vec<u8>, buffer: &mut BytesMut) -> Result<()> {
        for (at, column) in batch.columns().iter().enumerate() {
            if at > 0 {
                buffer.extend_from_slice(b"\t");
            }
            value.clear();
            if values::write(value, column, row).map_err(|words| self.refused(at, &words))? {
                escape(value, buffer);
            } else {
                buffer.extend_from_slice(b"\\N");
            }
        }
        buffer.extend_from_slice(b"\n");
        Ok(())
    }

    /// What the server's first warning means.
    async fn warned(&self, connection: &mut Conn, count: u64, taken: u64) -> RunError {
        let first: Option<(String, u16, String)> = match connection.query_first("SHOW WARNINGS LIMIT 1").await {
            Ok(first) => first,
            Err(error) => return self.error(error),
        };
        let Some((_, number, message)) = first else {
            let message = format!("{}: the server took {taken} of {count} rows", self.name);
            return RunError::at(Code::Internal, &self.spec.field, message);
        };
        if number == 1062 {
            return RunError::at(
                Code::KeyInvalid,
                &self.spec.field,
                format!(
                    "{}: keys of {} rows occur more than once in a unique key; keep one row per key in the model",
                    self.name,
                    count.saturating_sub(taken)
                ),
            );
        }
        let error = mysql_async::ServerError { code: number, message, state: String::new() };
        let error = self.error(mysql_async::Error::Server(error));
        // Whatever it is, the same rows will meet it again.
        if error.code.class().is_final() { error } else { RunError { code: Code::ValueInvalid, ..error } }
    }

    async fn insert(&self, connection: &mut Conn, mut rows: RowStream) -> Result<u64> {
        let columns = self.schema.fields().len().max(1);
        let mark = |field: &Arc<Field>| values::unpacked(field.data_type(), "?").unwrap_or_else(|| "?".into());
        let marks = format!("({})", self.schema.fields().iter().map(mark).collect::<Vec<_>>().join(", "));
        let rows_max = (PARAMETERS_MAX / columns).max(1);
        let mut count = 0;
        let mut pending: Vec<Value> = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = rows.try_next().await? {
            for row in 0..batch.num_rows() {
                for (at, column) in batch.columns().iter().enumerate() {
                    let mut value = Vec::new();
                    let is_value = values::write(&mut value, column, row).map_err(|words| self.refused(at, &words))?;
                    bytes += value.len();
                    pending.push(if is_value { Value::Bytes(value) } else { Value::NULL });
                }
                if pending.len() / columns >= rows_max || bytes >= INSERT_BYTES_MAX {
                    self.insert_some(connection, &marks, columns, std::mem::take(&mut pending)).await?;
                    bytes = 0;
                }
            }
            count += batch.num_rows() as u64;
        }
        if !pending.is_empty() {
            self.insert_some(connection, &marks, columns, pending).await?;
        }
        Ok(count)
    }

    async fn insert_some(&self, connection: &mut Conn, marks: &str, columns: usize, values: Vec<Value>) -> Result<()> {
        let rows = vec![marks; values.len() / columns].join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES {rows}", self.table, self.columns());
        connection.exec_drop(sql, Params::Positional(values)).await.map_err(|e| self.error(e))
    }
}

/// Ends the server's waiting for rows. Passes the error on.
async fn abort(sender: &mpsc::Sender<std::io::Result<Bytes>>, error: RunError) -> RunError {
    let _ = sender.send(Err(std::io::Error::other("the rows ended with an error"))).await;
    error
}

fn escape(value: &[u8], into: &mut BytesMut) {
    for byte in value {
        match byte {
            b'\t' => into.extend_from_slice(b"\\t"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\\' => into.extend_from_slice(b"\\\\"),
            0 => into.extend_from_slice(b"\\0"),
            byte => into.extend_from_slice(&[*byte]),
        }
    }
}
