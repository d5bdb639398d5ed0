//! Rows on their way, and who watches them pass.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use report_api::checked::CheckedCheck;

use crate::check::watch::{Seen, Watch};
use crate::error::Result;
use crate::session::sql_error;

/// Rows of a table, as a sink takes them.
pub type RowStream = futures::stream::BoxStream<'static, Result<RecordBatch>>;

/// What a sink is given to stage.
pub struct Incoming {
    /// The rows' columns.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: RowStream,
    /// The run's SQL session, for a sink that needs them in another order.
    pub session: SessionContext,
}

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

/// Watches the rows of one table as they pass: how many there are, and what its checks are about.
#[derive(Debug)]
pub struct Observer {
    field: String,
    rules: Vec<CheckedCheck>,
    rows: AtomicU64,
    complete: AtomicBool,
    /// The checks made ready for the table's columns.
    watches: OnceLock<Mutex<Vec<Watch>>>,
}

impl Observer {
    /// An observer of the table at `field` for the checks about it.
    pub fn new(field: &str, rules: Vec<CheckedCheck>) -> Self {
        Self {
            field: field.into(),
            rules,
            rows: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            watches: OnceLock::new(),
        }
    }

    /// Learns the table's columns, and refuses checks that don't go with them.
    pub fn know(&self, schema: &SchemaRef) -> Result<()> {
        let watches: Vec<_> = self.rules.iter().map(|check| Watch::new(check, schema)).collect::<Result<_>>()?;
        let _ = self.watches.set(Mutex::new(watches));
        Ok(())
    }

    /// Sees rows pass.
    pub fn see(&self, batch: &RecordBatch) {
        self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        if let Some(watches) = self.watches.get().filter(|_| !self.rules.is_empty()) {
            // Rows of one table pass one batch after the other, so that nobody waits here.
            lock(watches).iter_mut().for_each(|watch| watch.see(batch));
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

    /// Whether any check is about this table, all of whose rows must then pass.
    pub fn has_checks(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Where the table is in the manifest.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What the check of this name has seen.
    pub(crate) fn seen_by(&self, check: &str) -> Option<Seen> {
        lock(self.watches.get()?).iter().find(|watch| watch.name() == check).map(|watch| watch.seen().clone())
    }
}

/// What a panic of another thread has left is as good as before it: watches change batch by batch.
fn lock(watches: &Mutex<Vec<Watch>>) -> MutexGuard<'_, Vec<Watch>> {
    watches.lock().unwrap_or_else(PoisonError::into_inner)
}
