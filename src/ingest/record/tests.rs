use super::*;
use parking_lot::Condvar;
use parking_lot::Mutex;
use std::io;

use crate::model::Choice;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Record;

/// A sink whose appends wait until they are let through, and fail when told to.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    allowed: usize,
    waiting: usize,
    is_full: bool,
    batches: Vec<u32>,
}

impl Gate {
    fn allow(&self, appends: usize) {
        self.state.lock().allowed += appends;
        self.changed.notify_all();
    }

    fn wait_for_append(&self) {
        let mut state = self.state.lock();
        while state.waiting == 0 {
            self.changed.wait(&mut state);
        }
    }
}

impl Sink for Gate {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.allowed == 0 {
            self.changed.wait(&mut state);
        }
        state.allowed -= 1;
        state.waiting -= 1;
        if state.is_full {
            return Err(JournalError::Full(io::Error::from(io::ErrorKind::StorageFull)));
        }
        state.batches.push(batch.len());
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

fn record() -> Record {
    let identifier = Identifier::new(Namespace::new("user_id").unwrap(), "1").unwrap();
    Record::Choice(Choice { identifier, opted_out: true, received: 0 })
}

fn push(recorder: &Recorder, count: usize) -> Result<Pending, NotRecorded> {
    recorder.record(|batch| (0..count).try_for_each(|_| batch.push(&record())))
}

async fn on_one_thread(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

fn gate(durability: Durability) -> (Arc<Gate>, Recorder) {
    let gate = Arc::new(Gate::default());
    let sink: Arc<dyn Sink> = Arc::clone(&gate) as _;
    (gate, Recorder::new(sink, durability, Metrics::new()))
}

#[tokio::test]
async fn what_arrives_while_a_batch_is_written_is_the_next_batch() {
    on_one_thread(async {
        let (gate, recorder) = gate(Durability::Disk);
        let first = push(&recorder, 1).unwrap();
        let same_turn = push(&recorder, 2).unwrap();
        tokio::task::yield_now().await;
        let waiter = Arc::clone(&gate);
        tokio::task::spawn_blocking(move || waiter.wait_for_append()).await.unwrap();
        let next = push(&recorder, 4).unwrap();
        let with_it = push(&recorder, 1).unwrap();
        gate.allow(2);
        for pending in [first, same_turn, next, with_it] {
            assert_eq!(pending.await, Ok(()));
        }
        assert_eq!(gate.state.lock().batches, [3, 5]);
    })
    .await;
}

#[tokio::test]
async fn a_buffered_append_needs_no_other_thread() {
    on_one_thread(async {
        let (gate, recorder) = gate(Durability::DiskBuffered);
        gate.allow(2);
        let pending = (push(&recorder, 1).unwrap(), push(&recorder, 1).unwrap());
        assert_eq!((pending.0.await, pending.1.await), (Ok(()), Ok(())));
        assert_eq!(push(&recorder, 1).unwrap().await, Ok(()));
        assert_eq!(gate.state.lock().batches, [2, 1]);
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_fails_its_batch_and_the_next_one_is_tried() {
    on_one_thread(async {
        let (gate, recorder) = gate(Durability::Disk);
        gate.allow(2);
        gate.state.lock().is_full = true;
        assert_eq!(push(&recorder, 1).unwrap().await, Err(NotRecorded::Full));
        gate.state.lock().is_full = false;
        assert_eq!(push(&recorder, 1).unwrap().await, Ok(()));
        assert_eq!(gate.state.lock().batches, [1]);
    })
    .await;
}

#[tokio::test]
async fn too_much_waiting_is_refused_at_once() {
    on_one_thread(async {
        let (gate, recorder) = gate(Durability::Disk);
        let mut pending = Vec::new();
        while let Ok(more) = push(&recorder, 1_000) {
            pending.push(more);
            assert!(pending.len() < 10_000, "nothing was refused");
        }
        assert_eq!(push(&recorder, 1).err(), Some(NotRecorded::Busy));
        gate.allow(1);
        for waiter in pending {
            assert_eq!(waiter.await, Ok(()));
        }
        gate.allow(1);
        assert_eq!(push(&recorder, 1).unwrap().await, Ok(()));
    })
    .await;
}
