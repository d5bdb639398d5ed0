//! Rows into a table by COPY BINARY, over several connections when there are many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::BytesMut;
use futures::TryStreamExt;
use pgpq::ArrowToPostgresBinaryEncoder;
use sqlx::postgres::PgConnection;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::PostgresSink;
use super::connect::{Database, run_error};
use super::wire::Wire;
use crate::error::{Code, Result, RunError};
use crate::logical::Logical;
use crate::observe::RowStream;
use crate::quote::{ident, idents};

/// Bytes that are sent at once.
const SEND_BYTES: usize = 1 << 20;
/// Rows from which on another connection is worth its making.
const ROWS_PER_CONNECTION: u64 = 200_000;

/// The PostgreSQL type of a column.
pub(super) fn type_name(field: &Field) -> Option<String> {
    Some(match field.data_type() {
        DataType::Boolean => "boolean".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Utf8 => match Logical::of(field) {
            Some(Logical::Uuid) => "uuid".into(),
            Some(Logical::Json) => "jsonb".into(),
            None => "text".into(),
        },
        DataType::Binary => "bytea".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(_, None) => "timestamp without time zone".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        _ => return None,
    })
}

/// Refuses what PostgreSQL has no type for, by name, before anything is read.
pub(super) fn refuse_unknown_types(schema: &SchemaRef, field: &str) -> Result<()> {
    match schema.fields().iter().find(|column| type_name(column).is_none()) {
        None => Ok(()),
        Some(column) => Err(RunError::at(
            Code::TypeUnsupported,
            format!("{field}.from"),
            format!(
                "PostgreSQL can't hold the column {} of type {}; cast it in a model",
                column.name(),
                column.data_type()
            ),
        )),
    }
}

/// Copies rows into a table and counts them. The connection is given back. Where there are many rows and the sink may
/// have more connections, others copy beside it: each row goes over one of them, in no order.
pub(super) async fn rows(
    connection: PgConnection,
    sink: &PostgresSink<'_>,
    table: &str,
    schema: &SchemaRef,
    mut rows: RowStream,
) -> Result<(PgConnection, u64)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let connections_max = cores.min(usize::try_from(sink.connections_max).unwrap_or(1));
    let (batches, given) = mpsc::channel(1);
    let copy = Arc::new(Copy::new(sink, table, schema, given));
    let mut copies = JoinSet::new();
    copies.spawn(Arc::clone(&copy).run(connection));

    let mut sent = 0;
    let ended = loop {
        let batch = match rows.try_next().await {
            Ok(Some(batch)) => batch,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        sent += batch.num_rows() as u64;
        if copies.len() < connections_max && sent > ROWS_PER_CONNECTION * copies.len() as u64 {
            match sink.connection().await {
                Ok(connection) => _ = copies.spawn(Arc::clone(&copy).run(connection)),
                Err(error) => break Err(error),
            }
        }
        tokio::select! {
            biased;
            Some(failed) = copies.join_next() => break Err(outcome(failed).err().unwrap_or_else(|| copy.lost())),
            taken = batches.send(batch) => if taken.is_err() { break Err(copy.lost()) },
        }
    };
    copy.is_complete.store(ended.is_ok(), Ordering::Release);
    drop(batches);
    let (mut connections, mut copied) = (Vec::new(), 0);
    let mut first_error = ended.err();
    while let Some(joined) = copies.join_next().await {
        match outcome(joined) {
            Ok((connection, rows)) => {
                copied += rows;
                connections.push(connection);
            }
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    if copied != sent {
        return Err(RunError::at(Code::Internal, &sink.spec.field, format!("{copied} of {sent} rows were copied")));
    }
    let first = connections.pop().ok_or_else(|| copy.lost())?;
    for connection in connections {
        let _ = sqlx::Connection::close(connection).await;
    }
    Ok((first, copied))
}

fn outcome<T>(joined: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.unwrap_or_else(|panic| Err(RunError::new(Code::Internal, "copying rows ended early").caused_by(panic)))
}

/// What all connections that copy into a table share.
struct Copy {
    statement: String,
    wire: Wire,
    field: String,
    target: String,
    batches: Mutex<mpsc::Receiver<RecordBatch>>,
    /// Whether the batches that were given are all there are: otherwise nothing is to stay.
    is_complete: AtomicBool,
}

impl Copy {
    fn new(sink: &PostgresSink<'_>, table: &str, schema: &SchemaRef, batches: mpsc::Receiver<RecordBatch>) -> Self {
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
        Self {
            statement: format!(
                "COPY {}.{} ({}) FROM STDIN (FORMAT BINARY)",
                ident(sink.schema),
                ident(table),
                idents(&names)
            ),
            wire: Wire::new(schema),
            field: sink.spec.field.clone(),
            target: format!("{}.{table}", sink.schema),
            batches: Mutex::new(batches),
            is_complete: AtomicBool::new(false),
        }
    }

    /// Copies batches as long as there are any, and gives the connection back.
    async fn run(self: Arc<Self>, mut connection: PgConnection) -> Result<(PgConnection, u64)> {
        let failed = |error| run_error(error, &self.field, &self.target, Database::Sink);
        let mut encoder = ArrowToPostgresBinaryEncoder::try_new(self.wire.schema()).map_err(|e| self.unwritable(e))?;
        let mut buffer = BytesMut::with_capacity(SEND_BYTES * 2);
        let mut copy = connection.copy_in_raw(&self.statement).await.map_err(failed)?;
        encoder.write_header(&mut buffer).map_err(|e| self.unwritable(e))?;
        while let Some(batch) = self.next().await {
            let batch = self.wire.rows(batch, &self.field)?;
            encoder.write_batch(&batch, &mut buffer).map_err(|e| self.unwritable(e))?;
            while buffer.len() >= SEND_BYTES {
                copy.send(buffer.split_to(SEND_BYTES)).await.map_err(failed)?;
            }
        }
        if !self.is_complete.load(Ordering::Acquire) {
            // The server throws away what it has; its answer to that says nothing new.
            let _ = copy.abort("the rows ended with an error").await;
            return Ok((connection, 0));
        }
        encoder.write_footer(&mut buffer).map_err(|e| self.unwritable(e))?;
        copy.send(buffer).await.map_err(failed)?;
        let rows = copy.finish().await.map_err(failed)?;
        Ok((connection, rows))
    }

    async fn next(&self) -> Option<RecordBatch> {
        self.batches.lock().await.recv().await
    }

    fn unwritable(&self, error: impl std::fmt::Display) -> RunError {
        RunError::at(Code::TypeUnsupported, &self.field, "rows can't be written in PostgreSQL's format")
            .caused_by(error.to_string())
    }

    fn lost(&self) -> RunError {
        RunError::at(Code::Internal, &self.field, "nobody copies the rows any more")
    }
}
