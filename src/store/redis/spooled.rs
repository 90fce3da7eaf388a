//! The journal of a process that takes events without a disk: what it has acknowledged and not yet shipped lies in
//! memory, and in its spool in case it dies.
//!
//! Two exchanges with the spool are under way at a time, each by a thread of its own with a stream of its own; what
//! comes meanwhile, from all who collect, goes together with the next. They are acknowledged in the order of their
//! positions: who reads up to the end has all that was acknowledged.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use redis::RedisError;

use super::functions;
use super::mode::Mode;
use super::reply;
use super::spools::STREAMS;
use super::spools::Spools;
use super::store::Store;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::intake::FRAME;
use crate::store::journal::Appended;
use crate::store::journal::Batch;
use crate::store::journal::Done;
use crate::store::journal::Frame;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;
use crate::store::spools::RENEWED;
use crate::store::spools::Spool;
use crate::store::spools::Spools as _;

/// How often the spool is renewed.
const RENEW: Duration = Duration::from_millis(RENEWED as u64 / 4);

/// Batches that go in one exchange take no more bytes than this, unless one alone does.
const GROUP: usize = 2 << 20;

/// What this process has acknowledged and not yet shipped.
pub struct SpooledJournal {
    shared: Arc<Shared>,
}

struct Shared {
    spools: Spools,
    mode: Mode,
    spool: Spool,
    /// When it was registered or that was renewed, before the call.
    renewed: Mutex<Option<Instant>>,
    streams: [String; STREAMS],
    queue: Mutex<Queue>,
    /// Something waits, or nothing more will.
    waiting: Condvar,
    held: Mutex<Held>,
    grown: Condvar,
    /// An exchange has ended whose turn it was, or none ends any more.
    turned: Condvar,
    refused: Mutex<Option<String>>,
}

/// Batches that wait for the next exchange.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Batch, Done)>,
    /// Nobody is left who could append.
    is_over: bool,
    /// The end of the last frame that was sent, acknowledged or not.
    end: u64,
    next_record: u64,
    /// How many exchanges were begun.
    begun: u64,
}

/// What is acknowledged.
#[derive(Default)]
struct Held {
    /// How many exchanges have ended, and so whose turn it is to be acknowledged.
    ended: u64,
    /// One has ended oddly, and those after it are not acknowledged.
    is_broken: bool,
    frames: VecDeque<Arc<Frame>>,
    begin: u64,
    end: u64,
    next_record: u64,
}

impl SpooledJournal {
    /// An empty one, whose name no other process has or had.
    pub fn new(
        store: &Store,
        mode: Mode,
        node: &str,
        workers: &Workers,
    ) -> Result<Self, StoreError> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| StoreError::Unavailable {
            what: "the system's random numbers".to_owned(),
            source: Box::new(error),
        })?;
        let spools = Spools::new(store.clone());
        // The dot tells that nobody of this name comes back after a restart.
        let sender = format!(".{}", crate::model::hex(&name));
        let shared = Arc::new(Shared {
            streams: spools.streams(&sender),
            spools,
            mode,
            spool: Spool { sender, node: node.to_owned() },
            renewed: Mutex::default(),
            queue: Mutex::default(),
            waiting: Condvar::new(),
            held: Mutex::default(),
            grown: Condvar::new(),
            turned: Condvar::new(),
            refused: Mutex::default(),
        });
        let this = Self { shared };
        for (which, name) in ["spool", "spool-2"].into_iter().enumerate() {
            let exchanges = this.shared.clone();
            let started = workers.spawn(name, move || exchanges.run(which));
            started.map_err(|error| StoreError::Unavailable {
                what: "a thread".to_owned(),
                source: Box::new(error),
            })?;
        }
        Ok(this)
    }

    /// Its spool.
    pub fn spool(&self) -> &Spool {
        &self.shared.spool
    }
}

impl Drop for SpooledJournal {
    fn drop(&mut self) {
        self.shared.queue.lock().is_over = true;
        self.shared.waiting.notify_all();
    }
}

/// Tells, however it comes, that nothing more is sent.
struct Over<'s>(&'s Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.held.lock().is_broken = true;
            self.0.turned.notify_all();
        }
        let mut queue = self.0.queue.lock();
        queue.is_over = true;
        let left = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.0.waiting.notify_all();
        left.into_iter().for_each(|(_, done)| done(Err(JournalError::Stopped)));
    }
}

impl Shared {
    /// Exchanges with one of the streams until nobody is left.
    fn run(&self, which: usize) {
        let _over = Over(self);
        loop {
            let mut queue = self.queue.lock();
            while queue.waiting.is_empty() {
                if queue.is_over {
                    return;
                }
                self.waiting.wait(&mut queue);
            }
            let (dones, frames) = queue.group();
            let (turn, next_record) = (queue.begun, queue.next_record);
            queue.begun += 1;
            drop(queue);
            let end = Position(frames.last().map_or(0, |frame| frame.end.0));
            let sent = self.send(&self.streams[which], &frames);
            if let Err(error) = &sent {
                *self.refused.lock() = Some(chain(error));
            }
            let is_acknowledged = self.hold(turn, sent.is_ok().then_some((frames, next_record)));
            for done in dones {
                let result = match &sent {
                    Ok(()) if is_acknowledged => Ok(Appended { end }),
                    Ok(()) => Err(JournalError::Stopped),
                    Err(error) => Err(error.again().into()),
                };
                done(result);
            }
        }
    }

    /// Notes how an exchange ended, once those before it have; tells whether it may be acknowledged.
    fn hold(&self, turn: u64, sent: Option<(Vec<Arc<Frame>>, u64)>) -> bool {
        let mut held = self.held.lock();
        while held.ended != turn && !held.is_broken {
            self.turned.wait(&mut held);
        }
        if held.is_broken {
            return false;
        }
        held.ended += 1;
        if let Some((frames, next_record)) = sent {
            if held.frames.is_empty() {
                // What was sent before and never acknowledged is nobody's.
                held.begin = frames.first().map_or(held.end, |frame| frame.start.0);
            }
            held.end = frames.last().map_or(held.end, |frame| frame.end.0);
            held.next_record = next_record;
            held.frames.extend(frames);
        }
        drop(held);
        self.turned.notify_all();
        self.grown.notify_all();
        true
    }

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

    /// Sends frames to a stream of the spool and waits for what the mode promises.
    fn send(&self, stream: &str, frames: &[Arc<Frame>]) -> Result<(), StoreError> {
        self.renew()?;
        if let ([frame], None) = (frames, self.mode.replicas()) {
            self.add(stream, frame)?;
            return self.renew();
        }
        let numbers: Vec<(String, String)> =
            frames.iter().map(|frame| (frame.end.0.to_string(), frame.count.to_string())).collect();
        let mut args = Vec::with_capacity(frames.len() * 3);
        for (frame, (end, count)) in frames.iter().zip(&numbers) {
            args.extend([end.as_bytes(), count.as_bytes(), frame.payload()]);
        }
        let call = functions::call("spool", &[stream], &args);
        let link = &self.spools.store.link;
        let answers =
            link.spread(vec![(stream, call)], self.mode.replicas(), link.times().patience)?;
        match answers.first().and_then(reply::text) {
            Some("OK") => self.renew(),
            _ => Err(link.odd("an append to a spool")),
        }
    }
}

impl Shared {
    /// Adds one frame with a plain command, which is a tenth of the work of a function.
    fn add(&self, stream: &str, frame: &Frame) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("XADD");
        cmd.arg(stream).arg(format!("{}-0", frame.end.0));
        cmd.arg("c").arg(frame.count).arg("p").arg(frame.payload());
        match self.spools.store.link.one(stream, cmd) {
            // Nobody else adds to it: an earlier try has, whose answer was lost.
            Err(StoreError::Unavailable { source, .. })
                if source.downcast_ref().is_some_and(is_beyond) =>
            {
                Ok(())
            }
            added => added.map(drop),
        }
    }
}

/// Whether a stream refuses an entry because its last one is that one, or one after it.
fn is_beyond(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("equal or smaller"))
}

impl Queue {
    /// Takes the batches that go next, as frames, with those who are to be told.
    fn group(&mut self) -> (Vec<Done>, Vec<Arc<Frame>>) {
        let mut bytes = 0;
        let (mut dones, mut parts) = (Vec::new(), Vec::<Batch>::new());
        while let Some((batch, _)) = self.waiting.front() {
            bytes += batch.bytes().len();
            if !dones.is_empty() && bytes > GROUP {
                break;
            }
            let Some((batch, done)) = self.waiting.pop_front() else { break };
            dones.push(done);
            // Each is an entry of the spool, and few large ones are less work than many small ones.
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
        (dones, frames)
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
        let (told, ended) = mpsc::sync_channel(1);
        self.submit(batch.clone(), Box::new(move |result| _ = told.send(result)));
        ended.recv().unwrap_or(Err(JournalError::Stopped))
    }

    fn submit(&self, batch: Batch, done: Done) {
        if batch.is_empty() {
            return done(Ok(Appended { end: self.end() }));
        }
        let mut queue = self.shared.queue.lock();
        if queue.is_over {
            drop(queue);
            return done(Err(JournalError::Stopped));
        }
        queue.waiting.push_back((batch, done));
        drop(queue);
        self.shared.waiting.notify_one();
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
        let stream = &self.shared.streams[0];
        let call = functions::call("spool", &[stream], &[]);
        let link = &self.shared.spools.store.link;
        if link.one_within(stream, call, Duration::ZERO).is_err() {
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
        write!(f, "{} in {}", self.shared.streams[0], self.shared.spools.store.link)
    }
}
