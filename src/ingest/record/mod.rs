//! The way into the journal: one batch former a worker thread, without a timer and without a channel.
//!
//! ```text
//! push ─► open batch ─┐            while one batch is written, what arrives is the next one
//! push ─► open batch ─┤
//!                     └─► append ─► every waiter of that batch learns how it ended
//! ```
//! A journal in Redis is handed each batch at once, and puts those of all threads together itself.
//!
//! A batch is durable or not as a whole, so the records of one request are too. Knows nothing of requests,
//! sites or consent.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::config::Durability;
use crate::metrics::Metrics;
use crate::store::journal::Batch;
use crate::store::journal::BatchFull;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;

/// Bytes that may wait in one worker's open batch. Beyond it new records are refused: a disk that slow
/// does not get better by memory.
const MAX_WAITING: usize = 8 << 20;
/// A batch that grew beyond this gives its memory back.
const KEPT: usize = 1 << 20;

/// Why records are not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// Too much waits for the disk.
    #[error("too much waits for the disk: try again later")]
    Busy,
    /// The disk is full.
    #[error("the disk is full: try again later")]
    Full,
    /// The journal did not take them.
    #[error("the journal is out of reach: try again later")]
    Failed,
}

/// Forms the batches of one worker thread; a clone is the same former.
#[derive(Clone)]
pub struct Recorder {
    shared: Rc<Shared>,
}

struct Shared {
    sink: Arc<dyn Sink>,
    durability: Durability,
    metrics: Metrics,
    open: RefCell<Open>,
}

struct Open {
    batch: Batch,
    group: Rc<Group>,
    /// Bytes that were handed on and have not ended.
    handed_on: usize,
    /// Whether a task that takes the open batch is on its way or at work.
    is_flushing: bool,
    /// An empty batch with memory, for the next turn.
    spare: Option<Batch>,
}

/// Those who wait for one batch.
#[derive(Default)]
struct Group {
    result: Cell<Option<Result<(), NotRecorded>>>,
    wakers: RefCell<Vec<Waker>>,
    /// What those wanted to be told who do not wait any more.
    left: RefCell<Vec<Left>>,
}

type Left = Box<dyn FnOnce(Result<(), NotRecorded>)>;

impl Recorder {
    /// A former for the current worker thread, which must run a `tokio` `LocalSet`.
    pub fn new(sink: Arc<dyn Sink>, durability: Durability, metrics: Metrics) -> Self {
        let open = RefCell::new(Open {
            batch: Batch::new(),
            group: Rc::default(),
            handed_on: 0,
            is_flushing: false,
            spare: None,
        });
        Self { shared: Rc::new(Shared { sink, durability, metrics, open }) }
    }

    /// Adds what `fill` pushes to the open batch. The answer comes when the batch is durable, or is not.
    ///
    /// The records of one call stand or fall together. Nothing is added where too much waits already.
    pub fn record(
        &self,
        fill: impl FnOnce(&mut Batch) -> Result<(), BatchFull>,
    ) -> Result<Pending, NotRecorded> {
        let mut open = self.shared.open.borrow_mut();
        if open.batch.bytes().len() + open.handed_on >= MAX_WAITING {
            return Err(NotRecorded::Busy);
        }
        // A frame holds twice what may wait, and one request far less than the difference.
        fill(&mut open.batch).map_err(|BatchFull| NotRecorded::Busy)?;
        if !open.is_flushing {
            open.is_flushing = true;
            // Queued behind the connections that are ready now, so that their records join the batch.
            tokio::task::spawn_local(flush(Rc::clone(&self.shared)));
        }
        Ok(Pending { group: Rc::clone(&open.group) })
    }
}

/// The end of a batch, to be awaited.
pub struct Pending {
    group: Rc<Group>,
}

impl Pending {
    /// Waits no more: `then` is called on this thread when the batch has ended.
    pub fn leave(self, then: impl FnOnce(Result<(), NotRecorded>) + 'static) {
        match self.group.result.get() {
            Some(result) => then(result),
            None => self.group.left.borrow_mut().push(Box::new(then)),
        }
    }
}

impl Future for Pending {
    type Output = Result<(), NotRecorded>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.group.result.get() {
            Some(result) => Poll::Ready(result),
            None => {
                let mut wakers = self.group.wakers.borrow_mut();
                if !wakers.iter().rev().take(1).any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// Appends the open batch, then what was opened meanwhile, until nothing waits.
async fn flush(shared: Rc<Shared>) {
    loop {
        let (batch, group) = {
            let mut open = shared.open.borrow_mut();
            if open.batch.is_empty() {
                open.is_flushing = false;
                return;
            }
            let next = open.spare.take().unwrap_or_default();
            (std::mem::replace(&mut open.batch, next), std::mem::take(&mut open.group))
        };
        if let Durability::Redis(_) = shared.durability {
            tokio::task::spawn_local(submit(Rc::clone(&shared), batch, group));
        } else {
            let started = Instant::now();
            let (batch, result) = append(&shared, batch).await;
            shared.ended(started, batch.len(), &group, result);
            if batch.bytes().len() <= KEPT {
                let mut spare = batch;
                spare.clear();
                shared.open.borrow_mut().spare = Some(spare);
            }
        }
        // Those who were woken answer first, and what their connections send next joins the batch.
        tokio::task::yield_now().await;
    }
}

async fn append(shared: &Shared, batch: Batch) -> (Batch, Result<(), NotRecorded>) {
    // A `write` takes microseconds, and the next segment, once in 64 MiB, some milliseconds; handing
    // each to another thread would cost more.
    if shared.durability == Durability::DiskBuffered {
        let appended = shared.sink.append(&batch);
        let result = judge(appended, batch.len());
        return (batch, result);
    }
    let sink = Arc::clone(&shared.sink);
    let ended = tokio::task::spawn_blocking(move || {
        let appended = sink.append(&batch);
        (batch, appended)
    });
    match ended.await {
        Ok((batch, appended)) => {
            let result = judge(appended, batch.len());
            (batch, result)
        }
        Err(error) => {
            tracing::error!(%error, "a batch was lost with its thread");
            (Batch::new(), Err(NotRecorded::Failed))
        }
    }
}

/// Hands a batch on, and waits until it has ended.
async fn submit(shared: Rc<Shared>, batch: Batch, group: Rc<Group>) {
    let (records, bytes) = (batch.len(), batch.bytes().len());
    shared.open.borrow_mut().handed_on += bytes;
    let started = Instant::now();
    let (told, ended) = oneshot::channel();
    // Who is not there to be told has gone with the whole thread.
    shared.sink.submit(batch, Box::new(move |result| _ = told.send(result)));
    let result = match ended.await {
        Ok(submitted) => judge(submitted.map(drop), records),
        Err(_) => {
            tracing::error!("a batch was lost with its thread");
            Err(NotRecorded::Failed)
        }
    };
    shared.open.borrow_mut().handed_on -= bytes;
    shared.ended(started, records, &group, result);
}

fn judge(appended: Result<(), JournalError>, records: u32) -> Result<(), NotRecorded> {
    appended.map_err(|error| {
        tracing::warn!(%error, records, "a batch was not recorded");
        match error {
            JournalError::Full(_) | JournalError::NoRoom(_) => NotRecorded::Full,
            _ => NotRecorded::Failed,
        }
    })
}

impl Shared {
    /// Counts a batch, and tells those who wait for it.
    fn ended(
        &self,
        started: Instant,
        records: u32,
        group: &Group,
        result: Result<(), NotRecorded>,
    ) {
        let metrics = &self.metrics;
        metrics.journal_append_duration.observe(started.elapsed().as_secs_f64());
        match result {
            Ok(()) => metrics.ingest_logged.inc_by(u64::from(records)),
            Err(NotRecorded::Full) => metrics.journal_errors.with_label_values(&["full"]).inc(),
            Err(_) => metrics.journal_errors.with_label_values(&["io"]).inc(),
        }
        group.result.set(Some(result));
        for waker in group.wakers.take() {
            waker.wake();
        }
        for then in group.left.take() {
            then(result);
        }
    }
}

#[cfg(test)]
mod tests;
