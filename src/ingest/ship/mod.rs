//! Ships the journal of this process into the lanes of a shared store, in order, until all of it is there.
//! The journal lies on this disk, or in a spool of the store.
//!
//! ```text
//! Spool ─► journal ─► group of frames ─► split by lane ─► Intake ─► shipped, given up on this disk
//! ```
//! What is shipped was made durable here first: a power cut takes nothing back whose number is used up. A frame's
//! pieces are numbered by its place in the journal, and those of a group that are of one lane go as one, with the
//! numbers of the first and the last: so it may be shipped again from anywhere, in other groups, and counts once.
//! Nothing is dropped: what cannot be shipped is tried again until it can. What is shipped stays on this disk a while
//! longer, and is shipped again where lanes turn out to have lost it: a failover takes what was not replicated, and a
//! power cut what Redis had not synced.

mod left;
mod place;
mod spool;
#[cfg(test)]
mod spooled;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::claim;
use super::split::Message;
use super::split::Splitter;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::model::Record;
use crate::model::time::SECOND;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::claims::Claims;
use crate::store::intake::Appended;
use crate::store::intake::FRAME;
use crate::store::intake::Intake;
use crate::store::intake::LaneFrame;
use crate::store::intake::Lost;
use crate::store::journal::Batch;
use crate::store::journal::Frame;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;
use crate::store::lanes::Layout;
use crate::store::state::Identity;
use place::Place;

pub use left::Heir;
pub use place::PlaceError;
pub use place::marked;
pub use place::shipped;
pub use spool::Spool;

/// Frames that are shipped together take no more bytes than this, unless one alone does.
const GROUP: usize = 4 << 20;
/// How long an idle shipper looks for what comes before it looks around.
const IDLE: Duration = Duration::from_millis(200);
/// Between two shipments passes no less, where they are small: a lane takes many events at once as quickly as one.
const GATHER: Duration = Duration::from_millis(10);
/// Nor less than so many times what the last one took, up to a bound: where each call waits for a disk, those that
/// are to be acknowledged wait behind it.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_millis(100);
/// A group of so many bytes is not small.
const LARGE: usize = 1 << 20;
/// How often the place is written down.
const NOTE: Duration = Duration::from_secs(1);
/// How long what is shipped stays on this disk: longer than a replica is behind, and than Redis waits until it syncs.
pub const KEEP: Duration = Duration::from_secs(60);
/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(5);

/// What a shipper works with.
pub struct Parts {
    /// The data directory, which holds its place; `None` of a journal that ends with this process.
    pub data: Option<PathBuf>,
    /// Whose journal it is: a name of its own, the same for as long as the journal is.
    pub sender: String,
    /// What is shipped.
    pub journal: Arc<dyn Journal>,
    /// Where to.
    pub intake: Arc<dyn Intake>,
    /// Where the message ids of what is shipped are claimed.
    pub claims: Arc<dyn Claims>,
    /// The store's identity.
    pub identity: Identity,
    /// The store's lanes.
    pub layout: Layout,
    /// The store's name.
    pub store: String,
    /// How long what is shipped stays on this disk.
    pub keep: Duration,
    /// The clock that receive times are taken from.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
}

/// Ships a journal. A clone is the same.
#[derive(Clone)]
pub struct Shipper {
    shared: Arc<Shared>,
}

struct Shared {
    data: Option<PathBuf>,
    sender: String,
    journal: Arc<dyn Journal>,
    intake: Arc<dyn Intake>,
    claims: Arc<dyn Claims>,
    splitter: Splitter,
    keep: Duration,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    state: Mutex<State>,
    /// Somebody asks it to stop, or it has ended.
    changed: Condvar,
    /// Something is in the lanes.
    shipped: Condvar,
}

struct State {
    place: Place,
    /// When the first record of what is being shipped was received.
    oldest: Option<Millis>,
    mark: Millis,
    /// What is shipped and stays here for now: where groups of frames end, and when each was shipped.
    kept: VecDeque<(Position, Instant)>,
    /// How many bytes the lanes have lost that are not here any more.
    lost: u64,
    /// When it is to end, whatever is left.
    deadline: Option<Instant>,
    is_running: bool,
}

/// What stands in the way of a shipment.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Frames that are shipped together.
#[derive(Default)]
struct Group {
    pieces: Vec<LaneFrame>,
    /// Of each lane, which of the pieces are its own.
    of_lane: BTreeMap<u16, Vec<usize>>,
    messages: Vec<Message>,
    records: u64,
    bytes: usize,
    end: Position,
    received: Option<Millis>,
}

/// What is in the way of what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// Lanes have lost what is before it.
    Lost(Lost),
    /// A lane has a part of it.
    Overlaps,
}

impl Group {
    /// Adds a frame's pieces, but for those that lanes have `taken`: the first in each lane is numbered by where the
    /// frame starts, and the others follow. They are fewer than the frame has bytes.
    fn add(&mut self, frame: &Frame, splitter: &Splitter, taken: &[u64]) {
        self.bytes += frame.payload().len();
        self.records += u64::from(frame.count);
        self.received = self.received.or_else(|| received(frame));
        let is_broken = frame.records().any(|record| record.is_err());
        let records = frame.records().filter_map(|record| Some(record.ok()?.1));
        // In the place of what is no record stands one that the fold puts among the dead letters.
        let records = records.chain(is_broken.then_some(&b""[..]));
        let (split, messages) = splitter.split_noting(records);
        // Where each batch's records have gone: to which of the lane's pieces, behind how many others.
        let mut places: BTreeMap<u16, Vec<Option<(usize, u32)>>> = BTreeMap::new();
        for (lane, batches) in split {
            let taken = taken.get(usize::from(lane)).copied().unwrap_or(0);
            let numbered = (frame.start.0 + 1..).zip(batches);
            let put = numbered
                .map(|(number, batch)| (number > taken).then(|| self.put(lane, number, batch)));
            places.insert(lane, put.collect());
        }
        self.messages.extend(messages.into_iter().filter_map(|message| {
            let (frame, before) = (*places.get(&message.lane)?.get(message.frame)?)?;
            Some(Message { frame, record: before + message.record, ..message })
        }));
    }

    /// Puts a batch into the lane's last piece, where it has room, or into a new one.
    fn put(&mut self, lane: u16, number: u64, batch: Batch) -> (usize, u32) {
        let of_lane = self.of_lane.entry(lane).or_default();
        if let Some(last) = of_lane.last()
            && let piece = &mut self.pieces[*last]
            && piece.batch.bytes().len() + batch.bytes().len() <= FRAME
        {
            let place = (of_lane.len() - 1, piece.batch.len());
            piece.number = number;
            piece.batch.add(batch);
            return place;
        }
        of_lane.push(self.pieces.len());
        let place = (of_lane.len() - 1, 0);
        self.pieces.push(LaneFrame { lane, first: number, number, batch });
        place
    }

    /// Ships the pieces, and claims their message ids; tells what is in the way, and then not all of it is there.
    fn ship(
        &self,
        sender: &str,
        intake: &dyn Intake,
        claims: &dyn Claims,
    ) -> Result<Option<Back>, StoreError> {
        let Appended { firsts, lost, overlaps } = intake.append(sender, &self.pieces)?;
        if !self.messages.is_empty() {
            claim::sent(claims, &self.messages, &self.pieces, &firsts);
        }
        Ok(lost.map(Back::Lost).or(overlaps.then_some(Back::Overlaps)))
    }
}

impl Shipper {
    /// A shipper that goes on where the one before it has come to.
    pub fn open(parts: Parts) -> Result<Self, PlaceError> {
        let Parts {
            data,
            sender,
            journal,
            intake,
            claims,
            identity,
            layout,
            store,
            keep,
            clock,
            metrics,
        } = parts;
        let place = data.as_deref().map(Place::read).transpose()?;
        let mut place = place.flatten().unwrap_or_default();
        if place.shipped > journal.end() {
            // It is not the journal that was shipped from: all of it may be new.
            place.shipped = journal.begin();
            place.acknowledged.clear();
        }
        if place.store != store {
            // What was acknowledged was of another.
            (place.store, place.acknowledged) = (store, Vec::new());
        }
        place.shipped = place.shipped.max(journal.begin());
        let state = State {
            kept: VecDeque::from([(place.shipped, Instant::now())]),
            lost: 0,
            place,
            oldest: None,
            mark: Millis::MIN,
            deadline: None,
            is_running: false,
        };
        let shared = Shared {
            splitter: Splitter::new(identity, layout),
            state: Mutex::new(state),
            changed: Condvar::new(),
            shipped: Condvar::new(),
            data,
            sender,
            journal,
            intake,
            claims,
            keep,
            clock,
            metrics,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts the thread that ships.
    pub fn start(&self, workers: &Workers) -> io::Result<JoinHandle<()>> {
        self.shared.state.lock().is_running = true;
        let shared = self.shared.clone();
        workers.spawn("ship", move || {
            let _running = Running(&shared);
            shared.run();
        })
    }

    /// The mark: every event that this node acknowledged before that time is in the lanes. It never goes back.
    pub fn mark(&self) -> Millis {
        let shared = &self.shared;
        // The clock first: what is acknowledged before that time lies before the end that is seen after it.
        let now = shared.clock.now();
        let end = shared.journal.end();
        let mut state = shared.state.lock();
        // An event that was acknowledged before the oldest frame's was received lies before that frame.
        let mark = if state.place.shipped >= end { Some(now) } else { state.oldest };
        state.mark = state.mark.max(mark.unwrap_or(Millis::MIN));
        let mark = state.mark;
        drop(state);
        shared.show();
        mark
    }

    /// Whether all of the journal is in the lanes.
    pub fn has_shipped(&self) -> bool {
        self.shared.waiting() == 0
    }

    /// Stops when all is shipped, or after so long; tells whether it is. Nothing is to be appended any more.
    pub fn stop(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        state.deadline = Some(deadline);
        self.shared.changed.notify_all();
        // An exchange that is under way at the deadline is not waited for.
        while state.is_running && !self.shared.changed.wait_until(&mut state, deadline).timed_out()
        {
        }
        drop(state);
        self.has_shipped()
    }
}

/// Tells that the thread has ended, however it did.
struct Running<'s>(&'s Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_running = false;
        self.0.changed.notify_all();
    }
}

impl Shared {
    /// How many bytes of the journal are not shipped.
    fn waiting(&self) -> u64 {
        let end = self.journal.end().0;
        end.saturating_sub(self.state.lock().place.shipped.0)
    }

    /// Waits until all before a position is in the lanes; tells whether it is.
    fn wait_shipped(&self, to: Position, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while state.place.shipped < to {
            if self.shipped.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.place.shipped >= to
    }

    fn run(&self) {
        let Some((sender, mut taken)) = self.patiently(|| self.sender()) else { return };
        let mut reader = self.journal.reader(self.state.lock().place.shipped);
        let (mut noted, mut rest) = (Instant::now(), GATHER);
        while let Some(group) = self.patiently(|| self.gather(&mut *reader, &taken)) {
            let idle = group.records == 0;
            let mut back = None;
            if !idle {
                self.state.lock().oldest = group.received;
                self.show();
                let begun = Instant::now();
                match self.patiently(|| self.ship(&sender, &group)) {
                    Some(found) => back = found,
                    None => break,
                }
                rest = (begun.elapsed() * REST).clamp(GATHER, LONGEST_REST);
                if back.is_none() {
                    self.metrics.shipped_records.inc_by(group.records);
                }
            }
            let mut state = self.state.lock();
            state.oldest = None;
            if back.is_none() {
                state.place.shipped = group.end;
                self.shipped.notify_all();
                if !idle {
                    state.kept.push_back((group.end, Instant::now()));
                }
            }
            let is_stopping = state.deadline.is_some();
            drop(state);
            self.show();
            if noted.elapsed() >= NOTE {
                back = back.or_else(|| self.look(&sender).map(Back::Lost));
                if back.is_none() {
                    self.note(&sender);
                }
                noted = Instant::now();
            }
            if let Some(back) = back {
                reader = match back {
                    Back::Lost(lost) => self.go_back(lost),
                    Back::Overlaps => self.journal.reader(self.state.lock().place.shipped),
                };
                let Some(found) = self.patiently(|| Ok(self.intake.taken(&sender)?)) else { break };
                taken = found;
                continue;
            }
            if idle && is_stopping {
                break;
            }
            if idle {
                self.journal.wait(group.end, IDLE);
            } else if group.bytes < LARGE && !is_stopping {
                let mut state = self.state.lock();
                if state.deadline.is_none() {
                    self.changed.wait_for(&mut state, rest);
                }
            }
        }
        self.note(&sender);
    }

    /// Looks whether what is shipped and still here is in the lanes.
    fn look(&self, sender: &str) -> Option<Lost> {
        if self.state.lock().kept.is_empty() {
            return None;
        }
        // Where the store does not answer, what comes next shows it.
        self.intake.look(sender).unwrap_or_default()
    }

    /// A reader from before what the lanes have lost.
    fn go_back(&self, lost: Lost) -> Box<dyn JournalReader> {
        let begin = self.journal.begin();
        let mut state = self.state.lock();
        // A piece's number is above the start of its frame.
        let first = state.kept.partition_point(|(end, _)| end.0 < lost.first);
        let to = first.checked_sub(1).map_or(begin, |before| state.kept[before].0.max(begin));
        state.kept.truncate(first);
        let from = state.place.shipped;
        state.place.shipped = to.min(from);
        let gone = lost.bytes.min(begin.0.saturating_sub(lost.first.saturating_sub(1)));
        state.lost += gone;
        drop(state);
        tracing::warn!(
            bytes = from.0.saturating_sub(to.0),
            "the lanes have lost what was shipped there: it is shipped again"
        );
        if gone > 0 {
            tracing::error!(
                bytes = gone,
                "some of what lanes have lost is kept nowhere else any more, and is lost"
            );
        }
        self.show();
        self.journal.reader(to.min(from))
    }

    /// Tries until it is done; `None` where it is to end before.
    fn patiently<T>(&self, mut act: impl FnMut() -> Result<T, Obstacle>) -> Option<T> {
        let mut longest = Duration::from_millis(50);
        let mut told = false;
        loop {
            let error = match act() {
                Ok(done) => return Some(done),
                Err(error) => error,
            };
            self.metrics.ship_errors.inc();
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(error = %chain(&error), "events wait to be shipped: trying again");
            }
            self.show();
            let dice = getrandom::u32().unwrap_or(u32::MAX / 2);
            let pause = longest.mul_f64(f64::from(dice) / f64::from(u32::MAX));
            longest = (longest * 2).min(LONGEST);
            let until = Instant::now() + pause;
            let mut state = self.state.lock();
            loop {
                if state.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return None;
                }
                let until = state.deadline.map_or(until, |deadline| deadline.min(until));
                if self.changed.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
        }
    }

    /// The name to ship under, and the last numbers that lanes have taken of it. It is that of the node, until its
    /// journal was taken back behind what was shipped of it: numbers would then stand for other frames, which would
    /// pass for shipped.
    fn sender(&self) -> Result<(String, Vec<u64>), Obstacle> {
        loop {
            let Place { turn, acknowledged, .. } = self.state.lock().place.clone();
            let name =
                if turn == 0 { self.sender.clone() } else { format!("{}.{turn}", self.sender) };
            let taken = self.intake.taken(&name)?;
            if taken.iter().all(|number| *number <= self.journal.end().0) {
                self.intake.resume(&name, &acknowledged);
                return Ok((name, taken));
            }
            tracing::error!(
                "the journal of {} ends before what was shipped of it; if it was restored, events that it held then may count twice",
                self.sender
            );
            let mut state = self.state.lock();
            state.place.turn += 1;
            state.place.acknowledged.clear();
            drop(state);
            self.write_place()?;
        }
    }

    /// Reads what comes next, which may be nothing.
    fn gather(&self, reader: &mut dyn JournalReader, taken: &[u64]) -> Result<Group, Obstacle> {
        let mut group = Group { end: reader.position(), ..Group::default() };
        while group.bytes < GROUP {
            match reader.next() {
                Ok(Some(frame)) => group.add(&frame, &self.splitter, taken),
                Ok(None) => break,
                // What was read is shipped first.
                Err(_) if group.records > 0 => break,
                Err(error) => return Err(error.into()),
            }
            group.end = reader.position();
        }
        if group.records == 0 {
            // What was skipped as damaged has no frame.
            group.end = reader.position();
        }
        Ok(group)
    }

    /// Ships a group; tells what is in the way, and then not all of it is there.
    fn ship(&self, sender: &str, group: &Group) -> Result<Option<Back>, Obstacle> {
        self.journal.sync(group.end)?;
        Ok(group.ship(sender, &*self.intake, &*self.claims)?)
    }

    /// Writes down what is shipped, and gives up on this disk what was shipped long enough ago. Where that fails it is
    /// done the next time.
    fn note(&self, sender: &str) {
        // Where the disk is full there is no room for what is shipped.
        let keep = if self.journal.trouble().is_some() { Duration::ZERO } else { self.keep };
        let mut state = self.state.lock();
        state.place.acknowledged = self.intake.acknowledged(sender);
        let mut released = None;
        while let Some((end, at)) = state.kept.front()
            && at.elapsed() >= keep
        {
            released = Some(*end);
            state.kept.pop_front();
        }
        drop(state);
        let noted = self.write_place();
        let noted = noted.map_err(|error| chain(&error));
        let Some(released) = released else {
            return self.tell(noted);
        };
        let released = self.journal.release(released).map_err(|error| chain(&error));
        self.tell(noted.and(released));
    }

    fn tell(&self, done: Result<(), String>) {
        if let Err(error) = done {
            self.metrics.ship_errors.inc();
            tracing::warn!(error, "what is shipped cannot be given up on this disk");
        }
    }

    fn write_place(&self) -> Result<(), PlaceError> {
        let mut state = self.state.lock();
        if state.mark > Millis::MIN {
            state.place.mark = Some(state.mark);
        }
        let place = state.place.clone();
        drop(state);
        self.data.as_deref().map_or(Ok(()), |data| place.write(data))
    }

    fn show(&self) {
        let waiting = self.waiting();
        let oldest = self.state.lock().oldest.filter(|_| waiting > 0);
        let age = oldest.map_or(0, |oldest| self.clock.now().saturating_sub(oldest).max(0));
        self.metrics.spool_bytes.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "a span of time has no 53 bits")]
        self.metrics.spool_oldest.set(age as f64 / SECOND as f64);
    }
}

/// When the first record was received that says so.
fn received(frame: &Frame) -> Option<Millis> {
    frame.records().find_map(|record| Record::owner(record.ok()?.1).ok()?.received())
}

impl fmt::Debug for Shipper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shipper").field("sender", &self.shared.sender).finish_non_exhaustive()
    }
}
