//! Rows on their way, and who watches them pass.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use report_api::checked::{CheckRule, CheckedCheck};

use crate::error::{Code, Result, RunError};
use crate::session::sql_error;

/// Rows of a table, as a sink takes them.
pub type RowStream = futures::stream::BoxStream<'static, Result<RecordBatch>>;

/// Rows that an observer sees pass, to the last one.
pub(crate) fn observed(stream: SendableRecordBatchStream, observer: Option<Arc<Observer>>, field: &str) -> RowStream {
    let field = field.to_owned();
    let at_end = observer.clone();
    let rows = stream.map(move |batch| {
        let batch = batch.map_err(|e| sql_error(e, &field))?;
        if let Some(observer) = &observer {
            observer.see(&batch);
        }
        Ok(batch)
    });
    let end = futures::stream::poll_fn(move |_| {
        if let Some(observer) = &at_end {
            observer.complete();
        }
        Poll::Ready(None)
    });
    rows.chain(end).boxed()
}

/// Watches the rows of one table as they pass: how many, and how many NULLs in the columns that checks are about.
#[derive(Debug)]
pub struct Observer {
    field: String,
    rules: Vec<CheckedCheck>,
    rows: AtomicU64,
    complete: AtomicBool,
    /// Position and NULLs of each watched column, by name.
    nulls: OnceLock<Vec<(String, usize, AtomicU64)>>,
}

impl Observer {
    /// An observer of the table at `field` for the checks about it.
    pub fn new(field: &str, rules: Vec<CheckedCheck>) -> Self {
        Self {
            field: field.into(),
            rules,
            rows: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            nulls: OnceLock::new(),
        }
    }

    /// Learns the table's columns, and refuses checks about columns that it does not have.
    pub fn know(&self, schema: &SchemaRef) -> Result<()> {
        let mut watched: Vec<(String, usize, AtomicU64)> = Vec::new();
        for check in &self.rules {
            let (option, columns) = match &check.rule {
                CheckRule::NotNull { columns, .. } => ("notNull", columns),
                CheckRule::Unique { columns, .. } => ("unique", columns),
                CheckRule::Rows { .. } | CheckRule::Sql { .. } => continue,
            };
            for (at, column) in columns.iter().enumerate() {
                let Ok(position) = schema.index_of(column) else {
                    let names = schema.fields().iter().map(|f| f.name().as_str());
                    let near = report_api::problem::near(column, names.clone()).map_or_else(
                        || format!("it has {}", names.collect::<Vec<_>>().join(", ")),
                        |near| format!("did you mean {near}?"),
                    );
                    let place = format!("{}.{option}[{at}]", check.field);
                    return Err(RunError::at(Code::SqlInvalid, place, format!("there is no column {column}; {near}")));
                };
                if matches!(check.rule, CheckRule::NotNull { .. }) && !watched.iter().any(|(name, ..)| name == column) {
                    watched.push((column.clone(), position, AtomicU64::new(0)));
                }
            }
        }
        let _ = self.nulls.set(watched);
        Ok(())
    }

    /// Sees rows pass.
    pub fn see(&self, batch: &RecordBatch) {
        self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        for (_, position, nulls) in self.nulls.get().into_iter().flatten() {
            nulls.fetch_add(batch.column(*position).logical_null_count() as u64, Ordering::Relaxed);
        }
    }

    /// All rows have passed.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    /// Whether all rows have passed.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Whether any check watches this table's rows.
    pub fn has_checks(&self) -> bool {
        self.rules.iter().any(|check| matches!(check.rule, CheckRule::NotNull { .. } | CheckRule::Rows { .. }))
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Where the table is in the manifest.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// NULLs seen in a watched column.
    pub fn nulls_of(&self, column: &str) -> u64 {
        let watched = self.nulls.get().into_iter().flatten();
        watched.filter(|(name, ..)| name == column).map(|(.., nulls)| nulls.load(Ordering::Relaxed)).sum()
    }
}
