//! The journal of a lane: a stream, whose entries are frames.
//!
//! ```text
//! throng:{TAG}:ev    stream: entry <end>-<number of the next record> with c(ount) and p(ayload)
//! throng:{TAG}:log   hash: end, next, begin, released, run, gaps, and a mark for each sender
//! ```
//! A position counts the bytes of all payloads before it, so a frame starts where the one before ends, and a
//! reader notices an entry that is missing. A sender numbers its frames; the mark is the last number taken and
//! the end it got, so that a frame whose answer was lost is not appended twice, whatever it is sent together with
//! the next time. One append of a sender is on its way at a time; what comes meanwhile goes together with the next.
//!
//! A failover may lose the end of a stream, and what is appended then lies where that was. The number of a record
//! tells the two apart: it is given once. The first append of another process of Redis goes on with numbers that the
//! one before cannot have given, and notes the gap.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use redis::Cmd;
use redis::Value;

use super::functions;
use super::keys::Keys;
use super::link::Link;
use super::mode::Mode;
use super::reader::StreamReader;
use super::reply;
use super::spread::WAIT;
use super::watch::Watch;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::intake::FRAME;
use crate::store::journal::Appended;
use crate::store::journal::Balance;
use crate::store::journal::Batch;
use crate::store::journal::Journal as Port;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;

/// The journal of one lane.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) stream: String,
    log: String,
    lane: String,
    mode: Mode,
    /// This process among the senders.
    sender: String,
    queue: Mutex<Queue>,
    /// An append has ended.
    ended: Condvar,
    /// The journal is known to end later, or earlier.
    grown: Condvar,
    known: Mutex<Bounds>,
    lost: AtomicU64,
    refused: Mutex<Option<String>>,
    pub(super) readers: Mutex<Readers>,
    /// Somebody looks where it ends, and tells.
    pub(super) is_watched: AtomicBool,
    /// It ended earlier than before: a failover has lost its end.
    went_back: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.stream, self.link)
    }
}

/// What is known of where the journal begins and ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    pub(super) begin: u64,
    pub(super) end: u64,
    next: u64,
}

/// Frames on their way.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
    /// Whether an append is on its way.
    led: bool,
    /// The sender's last number.
    number: u64,
    /// The end of the last append that was acknowledged.
    acknowledged: u64,
    ended: BTreeMap<u64, Result<u64, JournalError>>,
}

struct Waiting {
    ticket: u64,
    batch: Batch,
}

/// A frame with the numbers that its sender gave to what is in it, as an append says them.
pub(super) struct Numbered<'f> {
    pub(super) first: u64,
    pub(super) number: u64,
    first_text: String,
    number_text: String,
    pub(super) records: u32,
    count: String,
    payload: &'f [u8],
}

impl<'f> Numbered<'f> {
    pub(super) fn new(first: u64, number: u64, batch: &'f Batch) -> Self {
        let (first_text, number_text) = (first.to_string(), number.to_string());
        let (records, count, payload) = (batch.len(), batch.len().to_string(), batch.bytes());
        Self { first, number, first_text, number_text, records, count, payload }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.payload.len() as u64
    }
}

/// What came of an append.
pub(super) enum Answer {
    /// All of it was taken, by this call or before.
    Taken(Taken),
    /// Nothing was taken: the last number that is known of the sender is this one, and it was told of a later one.
    Behind(u64),
    /// Nothing was taken: a part of one frame is there.
    Part,
}

/// Where frames ended up that went in one call.
pub(super) struct Taken {
    /// Where the first of them starts, or later where others came in between.
    pub(super) start: u64,
    /// The last one's end.
    pub(super) end: u64,
    pub(super) next: u64,
    /// Whether this call took all of them.
    pub(super) all_new: bool,
}

impl Answer {
    /// Reads the answer to an append of these frames.
    pub(super) fn read(answer: &Value, frames: &[Numbered<'_>]) -> Option<Self> {
        let items = reply::items(answer)?;
        if let [said, taken] = items
            && reply::text(said) == Some("BEHIND")
        {
            return Some(Self::Behind(reply::number(taken)?));
        }
        if items.first().and_then(reply::text) == Some("PART") {
            return Some(Self::Part);
        }
        let [_, end, next, rest @ ..] = items else { return None };
        let (end, next) = (reply::number(end)?, reply::number(next)?);
        let start = match rest {
            [start] => reply::number(start)?,
            // All of them were taken before.
            _ => end.checked_sub(frames.iter().map(|frame| frame.payload.len() as u64).sum())?,
        };
        let bytes: u64 = frames.iter().map(|frame| frame.payload.len() as u64).sum();
        let all_new = !rest.is_empty() && start.checked_add(bytes) == Some(end);
        Some(Self::Taken(Taken { start, end, next, all_new }))
    }
}

impl Taken {
    /// How many bytes of what was acknowledged are gone: an append starts where the last one ended, or later.
    pub(super) fn lost_since(&self, acknowledged: u64) -> u64 {
        acknowledged.saturating_sub(self.start)
    }
}

/// The call that appends frames to a lane's stream; with none it writes nothing. `told` is the last number that the
/// sender knows to be taken: where it is not any more, nothing is appended.
pub(super) fn append_call(
    stream: &str,
    log: &str,
    sender: &str,
    told: u64,
    frames: &[Numbered<'_>],
) -> Cmd {
    let told = told.to_string();
    let mut args = vec![sender.as_bytes(), told.as_bytes()];
    for frame in frames {
        let (first, number) = (frame.first_text.as_bytes(), frame.number_text.as_bytes());
        args.extend([first, number, frame.count.as_bytes(), frame.payload]);
    }
    functions::call("append", &[stream, log], &args)
}

/// Reads the numbers that no record has, as a lane's log has them.
pub(super) fn gaps(text: &str) -> impl Iterator<Item = Range<u64>> {
    text.lines().filter_map(|line| {
        let (first, to) = line.split_once(' ')?;
        Some(first.parse().ok()?..to.parse().ok()?)
    })
}

/// Where readers are, so that nothing before them is given up.
#[derive(Default)]
pub(super) struct Readers {
    next: u64,
    pub(super) at: BTreeMap<u64, u64>,
}

impl Readers {
    pub(super) fn add(&mut self, at: u64) -> u64 {
        self.next += 1;
        self.at.insert(self.next, at);
        self.next
    }
}

/// How long is asked for what is known well enough.
const BRIEFLY: Duration = Duration::from_secs(2);

impl Journal {
    /// Opens the journal of a lane.
    pub fn open(link: Link, keys: &Keys, tag: &str, mode: Mode) -> Result<Self, StoreError> {
        let mut sender = [0; 8];
        getrandom::fill(&mut sender).map_err(|error| StoreError::Unavailable {
            what: "the system's random numbers".to_owned(),
            source: Box::new(error),
        })?;
        let shared = Shared {
            stream: keys.lane(tag, "ev"),
            log: keys.lane(tag, "log"),
            lane: keys.lane(tag, "lane"),
            link,
            mode,
            // The dot tells that nobody of this name comes back after a restart.
            sender: format!(".{}", crate::model::hex(&sender)),
            queue: Mutex::default(),
            ended: Condvar::new(),
            grown: Condvar::new(),
            known: Mutex::default(),
            lost: AtomicU64::new(0),
            refused: Mutex::default(),
            readers: Mutex::default(),
            is_watched: AtomicBool::new(false),
            went_back: AtomicBool::new(false),
        };
        shared.refresh(None)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Leaves it to a watch to look where the journal ends, instead of asking at each wait.
    pub(super) fn watched_by(self, watch: &Arc<Watch>) -> Self {
        watch.follow(&self.shared);
        self
    }

    /// Appends frames in the name of a sender that numbers what it sends from 1, and returns the last one's end.
    /// Those whose numbers are not above the last one taken are not taken again.
    ///
    /// One call for a sender at a time: a number that is overtaken counts as taken.
    pub fn ship(&self, sender: &str, batches: &[(u64, &Batch)]) -> Result<Position, StoreError> {
        let frames: Vec<_> =
            batches.iter().map(|(number, batch)| Numbered::new(*number, *number, batch)).collect();
        Ok(Position(self.shared.send(sender, &frames)?.end))
    }

    /// The books of the stream.
    pub fn balance(&self) -> Result<Balance, StoreError> {
        self.balance_within(self.shared.link.times().patience)
    }

    fn balance_within(&self, patience: Duration) -> Result<Balance, StoreError> {
        let shared = &self.shared;
        let call = functions::call("balance", &[&shared.stream, &shared.log], &[]);
        let answer = shared.link.one_within(&shared.stream, call, patience)?;
        let numbers = reply::items(&answer).map(|items| items.iter().map(reply::number));
        let numbers: Option<Vec<u64>> = numbers.and_then(Iterator::collect);
        match numbers.as_deref() {
            Some([added, released, held]) => {
                Ok(Balance { added: *added, released: *released, held: *held })
            }
            _ => Err(shared.link.odd("a balance")),
        }
    }

    /// How many bytes of frames that were acknowledged to this process are gone again: a failover lost them, within
    /// what the mode allows.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Port for Journal {
    fn books(&self) -> Result<Option<Balance>, StoreError> {
        self.balance_within(BRIEFLY).map(Some)
    }

    fn lost(&self) -> u64 {
        Self::lost(self)
    }

    fn append(&self, batch: &Batch) -> Result<Appended, JournalError> {
        if batch.is_empty() {
            return Ok(Appended { end: self.end() });
        }
        let appended = self.shared.append(batch);
        if let Err(error) = &appended {
            *self.shared.refused.lock() = Some(chain(error));
        }
        Ok(Appended { end: Position(appended?) })
    }

    fn end(&self) -> Position {
        Position(self.shared.bounds().end)
    }

    fn next_record(&self) -> u64 {
        self.shared.bounds().next
    }

    fn begin(&self) -> Position {
        Position(self.shared.bounds().begin)
    }

    /// Nothing to do: the checkpoint lies in the same server as the stream, behind it, and is kept or lost with
    /// what was appended before.
    fn sync(&self, _to: Position) -> Result<(), JournalError> {
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        let mut refused = self.shared.refused.lock();
        let why = refused.clone()?;
        // A call that could write and does not.
        let call = append_call(&self.shared.stream, &self.shared.log, &self.shared.sender, 0, &[]);
        if self.shared.link.one_within(&self.shared.stream, call, Duration::ZERO).is_err() {
            return Some(why);
        }
        *refused = None;
        None
    }

    fn reader(&self, from: Position) -> Box<dyn JournalReader> {
        Box::new(StreamReader::new(self.shared.clone(), from.0))
    }

    fn wait(&self, past: Position, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        if self.shared.is_watched.load(Ordering::Acquire) {
            let mut known = self.shared.known.lock();
            while known.end <= past.0 && !self.shared.went_back.load(Ordering::Acquire) {
                if self.shared.grown.wait_until(&mut known, deadline).timed_out() {
                    break;
                }
            }
            return known.end > past.0;
        }
        let mut pause = Duration::from_millis(1);
        loop {
            if self.end() > past {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            // What this process appends is noticed at once, what others append a little later.
            let until = deadline.min(now + pause);
            self.shared.ended.wait_until(&mut self.shared.queue.lock(), until);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn release(&self, before: Position) -> Result<(), JournalError> {
        let shared = &self.shared;
        // Held throughout: a reader made meanwhile finds its frames, or none of them.
        let readers = shared.readers.lock();
        let to = readers.at.values().copied().fold(before.0, u64::min).to_string();
        loop {
            let keys = [&shared.stream, &shared.log, &shared.lane];
            let call = functions::call("release", &keys, &[to.as_bytes()]);
            if reply::int(&shared.link.one(&shared.stream, call)?) != Some(1) {
                return Ok(());
            }
        }
    }
}

impl Shared {
    fn append(&self, batch: &Batch) -> Result<u64, JournalError> {
        let mut queue = self.queue.lock();
        queue.next_ticket += 1;
        let ticket = queue.next_ticket;
        queue.waiting.push_back(Waiting { ticket, batch: batch.clone() });
        loop {
            if let Some(result) = queue.ended.remove(&ticket) {
                return result;
            }
            if queue.led {
                self.ended.wait(&mut queue);
                continue;
            }
            queue.led = true;
            let mut group = Vec::new();
            let mut bytes = 0;
            while let Some(next) = queue.waiting.front() {
                bytes += next.batch.bytes().len();
                if !group.is_empty() && bytes > FRAME {
                    break;
                }
                group.extend(queue.waiting.pop_front());
            }
            let first = queue.number + 1;
            queue.number += group.len() as u64;
            drop(queue);
            let frames = (first..).zip(&group);
            let frames: Vec<_> = frames
                .map(|(number, waiting)| Numbered::new(number, number, &waiting.batch))
                .collect();
            let sent = self.send(&self.sender, &frames);
            queue = self.queue.lock();
            queue.led = false;
            match sent {
                Ok(taken) => {
                    self.compare(taken.lost_since(queue.acknowledged));
                    queue.acknowledged = taken.end;
                    let size = |waiting: &Waiting| waiting.batch.bytes().len() as u64;
                    let mut at = taken.end - group.iter().map(size).sum::<u64>();
                    for waiting in &group {
                        at += size(waiting);
                        queue.ended.insert(waiting.ticket, Ok(at));
                    }
                }
                Err(error) => {
                    for waiting in &group {
                        queue.ended.insert(waiting.ticket, Err(error.again().into()));
                    }
                }
            }
            self.ended.notify_all();
        }
    }

    fn compare(&self, lost: u64) {
        if lost > 0 {
            self.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::error!(
                stream = self.stream,
                lost,
                "acknowledged frames are gone: a failover lost bytes of them"
            );
        }
    }

    /// Appends frames and waits for what the mode promises.
    fn send(&self, sender: &str, frames: &[Numbered<'_>]) -> Result<Taken, StoreError> {
        let call = append_call(&self.stream, &self.log, sender, 0, frames);
        let Some(replicas) = self.mode.replicas() else {
            return self.appended(&self.link.one(&self.stream, call)?, frames);
        };
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(WAIT.as_millis().to_string());
        let both = [call, wait];
        let deadline = Instant::now() + self.link.times().patience;
        loop {
            // Again, it writes nothing, and WAIT still asks for all that was written before it.
            let answers = self.link.run_together(&self.stream, &both)?;
            let [appended, acknowledged] = &answers[..] else {
                return Err(self.link.odd("an append"));
            };
            let have = reply::number(acknowledged).unwrap_or(0);
            if have >= u64::from(replicas) {
                return self.appended(appended, frames);
            }
            if Instant::now() >= deadline {
                return Err(StoreError::Unavailable {
                    what: format!("{self:?}"),
                    source: format!("{have} of {replicas} replicas have what was appended").into(),
                });
            }
        }
    }

    fn appended(&self, answer: &Value, frames: &[Numbered<'_>]) -> Result<Taken, StoreError> {
        let Some(Answer::Taken(taken)) = Answer::read(answer, frames) else {
            return Err(self.link.odd("an append"));
        };
        let mut known = self.known.lock();
        known.end = known.end.max(taken.end);
        known.next = known.next.max(taken.next);
        Ok(taken)
    }

    /// Asks where the journal begins and ends.
    pub(super) fn refresh(&self, patience: Option<Duration>) -> Result<Bounds, StoreError> {
        let (key, cmd) = self.question();
        let patience = patience.unwrap_or(self.link.times().patience);
        self.hear(&self.link.one_within(key, cmd, patience)?)
    }

    fn question(&self) -> (&str, Cmd) {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&self.log).arg(&["end", "next", "begin"]);
        (&self.log, cmd)
    }

    fn hear(&self, answer: &Value) -> Result<Bounds, StoreError> {
        let Some([end, next, begin]) = reply::items(answer) else {
            return Err(self.link.odd("a journal's end"));
        };
        let [end, next, begin] = [end, next, begin].map(|value| reply::number(value).unwrap_or(0));
        let mut known = self.known.lock();
        // An answer may be overtaken by a later one.
        known.end = known.end.max(end);
        known.next = known.next.max(next);
        known.begin = known.begin.max(begin);
        Ok(Bounds { end, next, begin })
    }

    /// Whether no record has a number from `first` to before `to`, though the frames around them follow each other.
    pub(super) fn is_gap(&self, first: u64, to: u64) -> Result<bool, StoreError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(&self.log).arg("gaps");
        let answer = self.link.one(&self.log, cmd)?;
        Ok(gaps(reply::text(&answer).unwrap_or_default()).any(|gap| gap == (first..to)))
    }

    /// Looks where journals of one store end, in one exchange; tells whether Redis said.
    pub(super) fn look(journals: &[Arc<Self>]) -> bool {
        let Some(first) = journals.first() else { return true };
        let before: Vec<u64> = journals.iter().map(|journal| journal.known.lock().end).collect();
        let questions = journals.iter().map(|journal| journal.question()).collect();
        let Ok(answers) = first.link.spread(questions, None, Duration::ZERO) else { return false };
        for ((journal, before), answer) in journals.iter().zip(before).zip(&answers) {
            let Ok(now) = journal.hear(answer) else { return false };
            if now.end != before {
                journal.went_back.store(now.end < before, Ordering::Release);
                journal.grown.notify_all();
            }
        }
        true
    }

    /// Whether there is certainly nothing past a position, as far as somebody has looked.
    pub(super) fn ends_at(&self, position: u64) -> bool {
        self.is_watched.load(Ordering::Acquire)
            && !self.went_back.load(Ordering::Acquire)
            && self.known.lock().end == position
    }

    /// Where the journal begins and ends, as Redis says it or, where it does not answer, as was last known.
    fn bounds(&self) -> Bounds {
        self.refresh(Some(BRIEFLY)).unwrap_or_else(|_| *self.known.lock())
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::NoRoom(chain(&error)),
            other => Self::Store(other),
        }
    }
}
