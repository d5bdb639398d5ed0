//! Rows into a table by COPY BINARY.

use arrow::datatypes::{DataType, Field, SchemaRef};
use bytes::BytesMut;
use futures::TryStreamExt;
use pgpq::ArrowToPostgresBinaryEncoder;
use report_api::checked::CheckedSink;
use sqlx::postgres::PgConnection;

use super::connect::{Database, run_error};
use super::wire::Wire;
use crate::error::{Code, Result, RunError};
use crate::logical::Logical;
use crate::observe::RowStream;
use crate::quote::{ident, idents};

/// Bytes that are sent at once.
const SEND_BYTES: usize = 1 << 20;

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

/// Copies rows into a table and counts them.
pub(super) async fn rows(
    connection: &mut PgConnection,
    schema_name: &str,
    table: &str,
    schema: &SchemaRef,
    mut rows: RowStream,
    spec: &CheckedSink,
) -> Result<u64> {
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let sql = format!("COPY {}.{} ({}) FROM STDIN (FORMAT BINARY)", ident(schema_name), ident(table), idents(&names));
    let encoding = |error: pgpq::error::ErrorKind| {
        RunError::at(Code::TypeUnsupported, &spec.field, "rows can't be written in PostgreSQL's format")
            .caused_by(error.to_string())
    };
    let failed = |error| run_error(error, &spec.field, &format!("{schema_name}.{table}"), Database::Sink);

    let wire = Wire::new(schema);
    let mut encoder = ArrowToPostgresBinaryEncoder::try_new(wire.schema()).map_err(encoding)?;
    let mut buffer = BytesMut::with_capacity(SEND_BYTES * 2);
    let mut copy = connection.copy_in_raw(&sql).await.map_err(failed)?;
    encoder.write_header(&mut buffer).map_err(encoding)?;
    loop {
        match rows.try_next().await.and_then(|batch| batch.map(|batch| wire.rows(batch, &spec.field)).transpose()) {
            Ok(Some(batch)) => {
                encoder.write_batch(&batch, &mut buffer).map_err(encoding)?;
                while buffer.len() >= SEND_BYTES {
                    copy.send(buffer.split_to(SEND_BYTES)).await.map_err(failed)?;
                }
            }
            Ok(None) => break,
            Err(error) => {
                // The server throws away what it has; its answer to that says nothing new.
                let _ = copy.abort("the rows ended with an error").await;
                return Err(error);
            }
        }
    }
    encoder.write_footer(&mut buffer).map_err(encoding)?;
    copy.send(buffer).await.map_err(failed)?;
    copy.finish().await.map_err(failed)
}
