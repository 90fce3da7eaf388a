//! Spools: a stream for each process that takes events without a journal of its own, and a register of them.
//!
//! ```text
//! throng:{store}:spools         hash: sender → when it was renewed, node
//! throng:{to-ship.SENDER}:ev    stream: entry <end>-0 with c(ount) and p(ayload)
//! ```
//! Positions count the bytes that the process has appended since its start, and are its own to give: a failover that
//! loses the stream's end makes a gap in it, and no position stands for two frames.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use redis::Value;

use super::functions;
use super::mode::Mode;
use super::reply;
use super::store::Store;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::intake::FRAME;
use crate::store::journal::Appended;
use crate::store::journal::Batch;
use crate::store::journal::Frame;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;
use crate::store::spools::RENEWED;
use crate::store::spools::Registered;
use crate::store::spools::Spool;
use crate::store::spools::Spools as Port;

/// Frames are read so many at once: each may be as large as a call is to be.
const AT_ONCE: usize = 16;

/// The spools of a store.
#[derive(Debug, Clone)]
pub struct Spools {
    store: Store,
    register: String,
}

impl Spools {
    /// Those of this store.
    pub fn new(store: Store) -> Self {
        let register = store.keys.store("spools");
        Self { store, register }
    }

    fn stream(&self, sender: &str) -> String {
        self.store.keys.lane(&format!("to-ship.{sender}"), "ev")
    }
}

impl Port for Spools {
    fn register(&self, spool: &Spool) -> Result<(), StoreError> {
        let args = [spool.sender.as_bytes(), spool.node.as_bytes()];
        let call = functions::call("enlist", &[&self.register], &args);
        self.store.link.one(&self.register, call).map(drop)
    }

    fn list(&self) -> Result<Vec<Registered>, StoreError> {
        let link = &self.store.link;
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(&self.register);
        let rows = reply::pairs(link.one(&self.register, cmd)?);
        let rows = rows.ok_or_else(|| link.odd("a list of spools"))?;
        let read = |(sender, row): (Vec<u8>, Vec<u8>)| {
            let row = String::from_utf8(row).ok()?;
            let (renewed, node) = row.split_once(' ')?;
            let spool = Spool { sender: String::from_utf8(sender).ok()?, node: node.to_owned() };
            Some(Registered { spool, renewed: renewed.parse().ok()? })
        };
        let spools = rows.into_iter().map(|row| read(row).ok_or_else(|| link.odd("a spool")));
        let mut spools = spools.collect::<Result<Vec<_>, StoreError>>()?;
        spools.sort_unstable();
        Ok(spools)
    }

    fn read(&self, sender: &str, from: Position) -> Result<Vec<Frame>, StoreError> {
        let (link, stream) = (&self.store.link, self.stream(sender));
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&stream).arg(format!("{}-0", from.0 + 1)).arg("+").arg("COUNT").arg(AT_ONCE);
        let odd = || link.odd("an entry of a spool");
        let Value::Array(entries) = link.one(&stream, cmd)? else { return Err(odd()) };
        entries.into_iter().map(|entry| frame(entry).ok_or_else(odd)).collect()
    }

    fn release(&self, sender: &str, before: Position) -> Result<(), StoreError> {
        let stream = self.stream(sender);
        let mut cmd = redis::cmd("XTRIM");
        cmd.arg(&stream).arg("MINID").arg(format!("{}-0", before.0 + 1));
        self.store.link.one(&stream, cmd).map(drop)
    }

    fn delete(&self, sender: &str) -> Result<(), StoreError> {
        let (link, stream) = (&self.store.link, self.stream(sender));
        let mut cmd = redis::cmd("UNLINK");
        cmd.arg(&stream);
        link.one(&stream, cmd)?;
        let mut cmd = redis::cmd("HDEL");
        cmd.arg(&self.register).arg(sender);
        link.one(&self.register, cmd).map(drop)
    }
}

fn frame(entry: Value) -> Option<Frame> {
    let Value::Array(entry) = entry else { return None };
    let [id, fields] = <[Value; 2]>::try_from(entry).ok()?;
    let end: u64 = reply::text(&id)?.split_once('-')?.0.parse().ok()?;
    let Value::Array(fields) = fields else { return None };
    let [_, count, _, payload] = <[Value; 4]>::try_from(fields).ok()?;
    let count = u32::try_from(reply::number(&count)?).ok()?;
    let payload = reply::into_bytes(payload)?;
    let start = end.checked_sub(payload.len() as u64)?;
    Some(Frame::new(Position(start), Position(end), 0, count, payload))
}

/// What this process has acknowledged and not yet shipped: in memory, and in its spool in case it dies.
///
/// One exchange with the spool is under way at a time, and what comes meanwhile goes together with the next.
pub struct SpooledJournal {
    shared: Arc<Shared>,
}

struct Shared {
    spools: Spools,
    mode: Mode,
    spool: Spool,
    /// When it was registered or that was renewed, before the call.
    renewed: Mutex<Option<Instant>>,
    stream: String,
    queue: Mutex<Queue>,
    /// An exchange has ended.
    ended: Condvar,
    held: Mutex<Held>,
    grown: Condvar,
    refused: Mutex<Option<String>>,
}

/// Batches on their way.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Batch)>,
    next_ticket: u64,
    /// Whether an exchange is under way.
    led: bool,
    /// The end of the last frame that was sent, acknowledged or not.
    end: u64,
    next_record: u64,
    ended: BTreeMap<u64, Result<(), StoreError>>,
}

/// What is acknowledged.
#[derive(Default)]
struct Held {
    frames: VecDeque<Arc<Frame>>,
    begin: u64,
    end: u64,
    next_record: u64,
}

/// How often the spool is renewed.
const RENEW: Duration = Duration::from_millis(RENEWED as u64 / 4);

/// Batches that go in one exchange take no more bytes than this, unless one alone does.
const GROUP: usize = 2 << 20;

impl SpooledJournal {
    /// An empty one, whose name no other process has or had.
    pub fn new(store: &Store, mode: Mode, node: &str) -> Result<Self, StoreError> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| StoreError::Unavailable {
            what: "the system's random numbers".to_owned(),
            source: Box::new(error),
        })?;
        let spools = Spools::new(store.clone());
        // The dot tells that nobody of this name comes back after a restart.
        let sender = format!(".{}", crate::model::hex(&name));
        let shared = Shared {
            stream: spools.stream(&sender),
            spools,
            mode,
            spool: Spool { sender, node: node.to_owned() },
            renewed: Mutex::default(),
            queue: Mutex::default(),
            ended: Condvar::new(),
            held: Mutex::default(),
            grown: Condvar::new(),
            refused: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Its spool.
    pub fn spool(&self) -> &Spool {
        &self.shared.spool
    }
}

impl Shared {
    /// Registers the spool where that is due. Asked before an append, so that who would ship it knows of it, and once
    /// more before it is acknowledged: this process may have stood still, and its spool may be given up.
    fn renew(&self) -> Result<(), StoreError> {
        let mut renewed = self.renewed.lock();
        if renewed.is_none_or(|at| at.elapsed() > RENEW) {
            let now = Instant::now();
            self.spools.register(&self.spool)?;
            *renewed = Some(now);
        }
        Ok(())
    }

    /// Sends frames to the spool and waits for what the mode promises.
    fn send(&self, frames: &[Arc<Frame>]) -> Result<(), StoreError> {
        self.renew()?;
        let numbers: Vec<(String, String)> =
            frames.iter().map(|frame| (frame.end.0.to_string(), frame.count.to_string())).collect();
        let mut args = Vec::with_capacity(frames.len() * 3);
        for (frame, (end, count)) in frames.iter().zip(&numbers) {
            args.extend([end.as_bytes(), count.as_bytes(), frame.payload()]);
        }
        let call = functions::call("spool", &[&self.stream], &args);
        let link = &self.spools.store.link;
        let answers =
            link.spread(vec![(&self.stream, call)], self.mode.replicas(), link.times().patience)?;
        match answers.first().and_then(reply::text) {
            Some("OK") => self.renew(),
            _ => Err(link.odd("an append to a spool")),
        }
    }
}

impl Queue {
    /// Takes the batches that go next, as frames, with the tickets of those who wait.
    fn group(&mut self) -> (Vec<u64>, Vec<Arc<Frame>>) {
        let mut bytes = 0;
        let (mut tickets, mut parts) = (Vec::new(), Vec::<Batch>::new());
        while let Some((_, batch)) = self.waiting.front() {
            bytes += batch.bytes().len();
            if !tickets.is_empty() && bytes > GROUP {
                break;
            }
            let Some((ticket, batch)) = self.waiting.pop_front() else { break };
            tickets.push(ticket);
            // Each frame becomes one in every lane, so few large ones are less work than many small ones.
            match parts.last_mut() {
                Some(last) if last.bytes().len() + batch.bytes().len() <= FRAME => last.add(batch),
                _ => parts.extend(cut(batch)),
            }
        }
        let mut frames = Vec::with_capacity(parts.len());
        for part in parts {
            let (start, count) = (self.end, part.len());
            self.end += part.bytes().len() as u64;
            let (from, to) = (Position(start), Position(self.end));
            let first = self.next_record;
            self.next_record += u64::from(count);
            frames.push(Arc::new(Frame::new(from, to, first, count, part.into_bytes())));
        }
        (tickets, frames)
    }
}

/// The batch in parts that hold up nobody for long.
fn cut(batch: Batch) -> Vec<Batch> {
    if batch.bytes().len() <= FRAME {
        return vec![batch];
    }
    let mut parts = vec![Batch::new()];
    for record in batch.records() {
        let at = parts.len() - 1;
        if !parts[at].is_empty() && parts[at].bytes().len() + record.len() > FRAME {
            parts.push(Batch::new());
        }
        let at = parts.len() - 1;
        parts[at].push_encoded(record).expect("it was in a batch");
    }
    parts
}

impl Journal for SpooledJournal {
    fn append(&self, batch: &Batch) -> Result<Appended, JournalError> {
        if batch.is_empty() {
            return Ok(Appended { end: self.end() });
        }
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        queue.next_ticket += 1;
        let ticket = queue.next_ticket;
        queue.waiting.push_back((ticket, batch.clone()));
        loop {
            if let Some(result) = queue.ended.remove(&ticket) {
                if let Err(error) = &result {
                    *shared.refused.lock() = Some(chain(error));
                }
                return result.map(|()| Appended { end: self.end() }).map_err(JournalError::from);
            }
            if queue.led {
                shared.ended.wait(&mut queue);
                continue;
            }
            queue.led = true;
            let (tickets, frames) = queue.group();
            let next_record = queue.next_record;
            drop(queue);
            let sent = shared.send(&frames);
            if sent.is_ok() {
                let mut held = shared.held.lock();
                if held.frames.is_empty() {
                    // What was sent before and never acknowledged is nobody's.
                    held.begin = frames.first().map_or(held.end, |frame| frame.start.0);
                }
                held.end = frames.last().map_or(held.end, |frame| frame.end.0);
                held.next_record = next_record;
                held.frames.extend(frames);
                drop(held);
                shared.grown.notify_all();
            }
            queue = shared.queue.lock();
            queue.led = false;
            for ticket in tickets {
                let result = sent.as_ref().copied().map_err(StoreError::again);
                queue.ended.insert(ticket, result);
            }
            shared.ended.notify_all();
        }
    }

    fn end(&self) -> Position {
        Position(self.shared.held.lock().end)
    }

    fn next_record(&self) -> u64 {
        self.shared.held.lock().next_record
    }

    fn begin(&self) -> Position {
        Position(self.shared.held.lock().begin)
    }

    /// Nothing to do: what is in the lanes and not in the spool any more is not read again.
    fn sync(&self, _to: Position) -> Result<(), JournalError> {
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        let mut refused = self.shared.refused.lock();
        let why = refused.clone()?;
        // A call that could write and does not.
        let call = functions::call("spool", &[&self.shared.stream], &[]);
        let link = &self.shared.spools.store.link;
        if link.one_within(&self.shared.stream, call, Duration::ZERO).is_err() {
            return Some(why);
        }
        *refused = None;
        None
    }

    fn reader(&self, from: Position) -> Box<dyn JournalReader> {
        Box::new(Reader { shared: self.shared.clone(), at: from })
    }

    fn wait(&self, past: Position, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut held = self.shared.held.lock();
        while held.end <= past.0 {
            if self.shared.grown.wait_until(&mut held, until).timed_out() {
                break;
            }
        }
        held.end > past.0
    }

    fn release(&self, before: Position) -> Result<(), JournalError> {
        let mut held = self.shared.held.lock();
        while held.frames.front().is_some_and(|frame| frame.end <= before) {
            held.frames.pop_front();
        }
        held.begin = held.frames.front().map_or(held.end, |frame| frame.start.0);
        drop(held);
        Ok(self.shared.spools.release(&self.shared.spool.sender, before)?)
    }
}

/// A reader's place among what is held.
struct Reader {
    shared: Arc<Shared>,
    at: Position,
}

impl JournalReader for Reader {
    fn next(&mut self) -> Result<Option<Frame>, JournalError> {
        let held = self.shared.held.lock();
        let at = held.frames.partition_point(|frame| frame.start < self.at);
        let Some(frame) = held.frames.get(at).cloned() else { return Ok(None) };
        drop(held);
        self.at = frame.end;
        Ok(Some(Frame::clone(&frame)))
    }

    fn position(&self) -> Position {
        self.at
    }
}

impl fmt::Debug for SpooledJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.shared.stream, self.shared.spools.store.link)
    }
}
