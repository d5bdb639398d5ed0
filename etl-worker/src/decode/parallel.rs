//! Makes rows of blocks of records on several threads, and gives them in the order of the input.
//!
//! One thread cuts the input, others decode; each block has a channel of its own, and these are read in order. What a
//! block says besides rows is taken over in that order too, so that bad rows, limits and the first error are those of a
//! reader that goes through the input alone. Memory: a block and two batches for each thread, and as much again that waits.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use report_api::checked::CheckedColumn;

use super::blocks::Block;
use super::rows::{Records, decoder};
use super::{Decoder, schema};
use crate::error::{Code, Result, RunError};
use crate::rejected::SourceLog;

/// Most threads that decode one input: reading and cutting it keeps up with about as many.
const THREADS_MAX: usize = 8;
/// Batches of a block that wait to be taken.
const BATCHES_WAITING: usize = 2;

/// How many threads may decode an input.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// A block on its way to a thread, and where its rows go: None after the last one, so that a thread that breaks is not
/// taken for the end.
struct Job {
    block: Block,
    log: Arc<SourceLog>,
    rows: SyncSender<Result<Option<RecordBatch>>>,
}

/// A block that is decoded somewhere.
struct Pending {
    log: Arc<SourceLog>,
    rows: Receiver<Result<Option<RecordBatch>>>,
}

/// A decoder that cuts its input by `next` and makes records of each block by `records`.
pub(super) fn blocks<R: Records>(
    columns: &[CheckedColumn],
    log: &Arc<SourceLog>,
    threads: usize,
    next: impl FnMut() -> Result<Option<Block>> + Send + 'static,
    records: impl Fn(Block) -> R + Send + Sync + 'static,
) -> Result<Decoder> {
    let (jobs, taken) = sync_channel::<Job>(1);
    let (pending, ordered) = sync_channel::<Result<Option<Pending>>>(threads);
    let shared = Arc::new((Mutex::new(taken), columns.to_vec(), records));
    for _ in 0..threads {
        let shared = Arc::clone(&shared);
        start("decode", move || {
            let (taken, columns, records) = &*shared;
            loop {
                let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { block, log, rows }) = job else { return };
                let batches = decoder(columns, &log, records(block)).batches.map(|batch| batch.map(Some));
                for batch in batches.chain([Ok(None)]) {
                    // Nobody wants the rest of a block after an error.
                    if rows.send(batch).is_err() {
                        break;
                    }
                }
            }
        })?;
    }
    let parent = Arc::clone(log);
    start("cut", move || cut(next, &parent, &jobs, &pending))?;
    let batches = Ordered { log: Arc::clone(log), ordered, current: None, is_over: false };
    Ok(Decoder { schema: schema(columns), batches: Box::new(batches) })
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.into()).spawn(work);
    started.map(drop).map_err(|error| RunError::new(Code::Internal, "can't start a thread").caused_by(error))
}

/// Cuts the input until it ends or nobody wants more.
fn cut(
    mut next: impl FnMut() -> Result<Option<Block>>,
    log: &SourceLog,
    jobs: &SyncSender<Job>,
    pending: &SyncSender<Result<Option<Pending>>>,
) {
    loop {
        let block = match next() {
            Ok(Some(block)) => block,
            end @ (Ok(None) | Err(_)) => {
                let _ = pending.send(end.map(|_| None));
                return;
            }
        };
        let (sender, rows) = sync_channel(BATCHES_WAITING);
        let log = Arc::new(log.of_block());
        let is_wanted = pending.send(Ok(Some(Pending { log: Arc::clone(&log), rows }))).is_ok()
            && jobs.send(Job { block, log, rows: sender }).is_ok();
        if !is_wanted {
            return;
        }
    }
}

/// The batches of all blocks, in the order of the blocks.
struct Ordered {
    log: Arc<SourceLog>,
    ordered: Receiver<Result<Option<Pending>>>,
    current: Option<Pending>,
    is_over: bool,
}

impl Ordered {
    /// The next batch; None at the end of the input.
    fn take(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(current) = &self.current {
                match received(&current.rows) {
                    Ok(Some(batch)) => return Ok(Some(batch)),
                    // What the block said comes before what its end or its error means.
                    end => {
                        self.log.take_over(&current.log)?;
                        self.current = None;
                        end?;
                    }
                }
            }
            match received(&self.ordered)? {
                Some(pending) => self.current = Some(pending),
                None => return self.log.verdict().map(|()| None),
            }
        }
    }
}

fn received<T>(from: &Receiver<Result<T>>) -> Result<T> {
    from.recv().unwrap_or_else(|_| Err(RunError::new(Code::Internal, "a thread that decodes ended early")))
}

impl Iterator for Ordered {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let taken = self.take();
        self.is_over = !matches!(taken, Ok(Some(_)));
        taken.transpose()
    }
}
