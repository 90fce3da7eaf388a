//! Stands where the lanes are: a hand that takes frames or does not, and what real lanes hold.

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::world::event;
use crate::ingest::split::Splitter;
use crate::model::Millis;
use crate::model::Record;
use crate::store::StoreError;
use crate::store::intake::Appended;
use crate::store::intake::Intake;
use crate::store::intake::LaneFrame;
use crate::store::intake::Lost;
use crate::store::journal::Batch;
use crate::store::journal::Journal as _;
use crate::store::journal::Position;
use crate::store::redis::Journal;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::Store;

/// An event of one of many visitors; its time tells it from all others.
pub(crate) fn nth(number: i64) -> Record {
    Record::Event(event(&format!("visitor {}", number % 61), "view", number))
}

/// A batch of such events.
pub(crate) fn batch(numbers: impl IntoIterator<Item = i64>) -> Batch {
    let mut batch = Batch::new();
    numbers.into_iter().for_each(|number| batch.push(&nth(number)).unwrap());
    batch
}

fn time(record: &[u8]) -> Millis {
    let Record::Event(event) = Record::decode(record).unwrap() else { panic!("no event") };
    event.time
}

/// What the lanes hold when each has its own of these events, in this order.
pub(crate) fn expected(store: &Store, numbers: impl IntoIterator<Item = i64>) -> Vec<Vec<i64>> {
    let splitter = Splitter::new(store.identity(), store.layout());
    let mut lanes = vec![Vec::new(); usize::from(store.layout().lanes())];
    for number in numbers {
        let batch = batch([number]);
        let (lane, _) = splitter.split(batch.records()).pop_first().unwrap();
        lanes[usize::from(lane)].push(number);
    }
    lanes
}

/// What the lanes hold.
pub(crate) fn held(link: &Link, keys: &Keys, store: &Store) -> Vec<Vec<i64>> {
    let lane = |lane| {
        let tag = store.layout().tag(lane);
        let journal = Journal::open(link.clone(), keys, &tag, Mode::Everysec).unwrap();
        let mut reader = journal.reader(Position(0));
        let mut found = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            found.extend(frame.records().map(|record| time(record.unwrap().1)));
        }
        assert_eq!(journal.balance().unwrap().missing(), 0);
        found
    };
    (0..store.layout().lanes()).map(lane).collect()
}

/// Takes frames while it is open, refuses them while it is told to, and keeps who sends waiting while it is shut.
#[derive(Default)]
pub(crate) struct Hand {
    state: Mutex<HandState>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct HandState {
    pub(crate) is_shut: bool,
    pub(crate) refuses: bool,
    /// What it has lost, to be told at the next append.
    pub(crate) lost: Option<Lost>,
    /// How many appends have come, and of which numbers of records those that were taken are.
    pub(crate) calls: usize,
    pub(crate) taken: Vec<u32>,
}

impl Hand {
    pub(crate) fn set(&self, change: impl FnOnce(&mut HandState)) {
        change(&mut self.state.lock());
        self.changed.notify_all();
    }

    /// Waits until something holds.
    pub(crate) fn until(&self, holds: impl Fn(&HandState) -> bool) {
        let mut state = self.state.lock();
        while !holds(&state) {
            self.changed.wait(&mut state);
        }
    }

    pub(crate) fn taken(&self) -> Vec<u32> {
        self.state.lock().taken.clone()
    }
}

impl Intake for Hand {
    fn append(&self, _sender: &str, frames: &[LaneFrame]) -> Result<Appended, StoreError> {
        let mut state = self.state.lock();
        state.calls += 1;
        self.changed.notify_all();
        while state.is_shut {
            self.changed.wait(&mut state);
        }
        if state.refuses {
            let source = "as the test says".into();
            return Err(StoreError::Unavailable { what: "the hand".into(), source });
        }
        if let Some(lost) = state.lost.take() {
            return Ok(Appended {
                firsts: vec![None; frames.len()],
                lost: Some(lost),
                overlaps: false,
            });
        }
        state.taken.push(frames.iter().map(|frame| frame.batch.len()).sum());
        self.changed.notify_all();
        Ok(Appended { firsts: vec![None; frames.len()], lost: None, overlaps: false })
    }

    fn look(&self, _sender: &str) -> Result<Option<Lost>, StoreError> {
        Ok(None)
    }

    fn acknowledged(&self, _sender: &str) -> Vec<u64> {
        Vec::new()
    }

    fn resume(&self, _sender: &str, _acknowledged: &[u64]) {}

    fn taken(&self, _sender: &str) -> Result<Vec<u64>, StoreError> {
        Ok(Vec::new())
    }

    fn trouble(&self) -> Option<String> {
        self.state.lock().refuses.then(|| "it refuses".into())
    }
}
