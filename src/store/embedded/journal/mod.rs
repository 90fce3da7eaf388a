//! The journal as files: segments of 64 MiB in one directory, appended by any thread, read behind the writers.
//!
//! ```text
//! journal/00000000000000000000.log   a header, then frames
//!         00000000000067108864.log   named by the position of its first frame; only the last one grows
//! ```
//!
//! A frame is written under a lock, with one call, and synced outside it: one thread syncs for all that
//! wait (`disk`), or a thread of its own does it five times a second and more (`disk-buffered`). A sync that
//! fails is never tried again, since the system may have dropped the pages: the process stops.
//! Invariant: a segment is synced whole before the next one is made.

mod copy;
mod frame;
mod reader;
mod recover;
mod room;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::config::Durability;
use crate::store::Watch;
use crate::store::embedded::sync_dir;
use crate::store::journal::Appended;
use crate::store::journal::Batch;
use crate::store::journal::CopiedJournal;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;

use frame::HEADER_LEN;
use frame::Header;
use frame::Kind;
use frame::Seed;
use reader::SegmentReader;
use segment::NotMade;
use segment::Segment;
use segment::failed;

pub use recover::Cut;
pub use recover::Recovery;

/// Called once when a sync has failed. It should end the process; until then every append is refused.
pub type OnFatal = Arc<dyn Fn(&io::Error) + Send + Sync>;

/// How a journal is opened.
#[derive(Clone)]
pub struct Options {
    /// When an append returns.
    pub durability: Durability,
    /// How large a segment grows: 64 MiB.
    pub segment_bytes: u64,
    /// Whether damaged ranges are skipped, once and for all, instead of refused.
    pub salvage: bool,
    /// A position that is known to have been durable: the fold's committed checkpoint. A journal that ends
    /// before it is damaged, and one that is salvaged goes on behind it.
    pub durable_to: Position,
    /// What happens when a sync fails: by default it is logged and the process exits with code 3.
    pub on_fatal: OnFatal,
    #[cfg(test)]
    pub(crate) faults: Arc<tests::Faults>,
}

impl Options {
    /// The usual way, in the given mode.
    pub fn new(durability: Durability) -> Self {
        Self {
            durability,
            segment_bytes: 64 << 20,
            salvage: false,
            durable_to: Position(0),
            on_fatal: Arc::new(|error| {
                tracing::error!(%error, "the journal could not be made durable; stopping");
                std::process::exit(3);
            }),
            #[cfg(test)]
            faults: Arc::default(),
        }
    }
}

/// The journal of one data directory. The directory's lock is the caller's to hold.
pub struct EmbeddedJournal {
    shared: Arc<Shared>,
    flusher: Option<JoinHandle<()>>,
}

struct Shared {
    dir: PathBuf,
    /// The directory, held open: a moment without file handles must not cost a sync of it.
    folder: File,
    durability: Durability,
    segment_bytes: u64,
    on_fatal: OnFatal,
    seed: Seed,
    writer: Mutex<Writer>,
    /// Signalled under the writer's lock when `end` has moved.
    appended: Condvar,
    /// The end of what was written; moves under the writer's lock.
    end: AtomicU64,
    syncing: Mutex<Syncing>,
    /// Signalled when a sync has ended.
    sync_ended: Condvar,
    /// Everything before it is durable; moves under the lock of `syncing`.
    synced: AtomicU64,
    stopped: AtomicBool,
    /// What an append was refused with, until there is room again.
    refused: Mutex<Option<String>>,
    /// All segments in order; the last one grows. Never empty.
    segments: RwLock<Vec<Arc<Segment>>>,
    readers: Mutex<Readers>,
    gaps: Vec<Range<u64>>,
    /// Whether the flusher is to end.
    closing: Mutex<bool>,
    closed: Condvar,
    #[cfg(test)]
    faults: Arc<tests::Faults>,
}

struct Writer {
    segment: Arc<Segment>,
    next_record: u64,
}

struct Syncing {
    /// Whether a thread is syncing for all that wait.
    led: bool,
    /// The segment that is written to: what it holds is all that can be unsynced.
    segment: Arc<Segment>,
}

/// Where the readers are, so that nothing they still need is released.
#[derive(Default)]
struct Readers {
    next: u64,
    at: BTreeMap<u64, u64>,
}

impl Readers {
    fn add(&mut self, at: u64) -> u64 {
        self.next += 1;
        self.at.insert(self.next, at);
        self.next
    }

    fn move_to(&mut self, id: u64, at: u64) {
        self.at.insert(id, at);
    }

    fn remove(&mut self, id: u64) {
        self.at.remove(&id);
    }
}

impl EmbeddedJournal {
    /// Opens the journal in `dir`, which is made where it is missing, and says what it found.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovery), JournalError> {
        std::fs::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent).map_err(|source| failed("sync", parent, source))?;
        }
        let folder = File::open(dir).map_err(|source| failed("open", dir, source))?;
        let mut segments = Vec::new();
        for (start, path) in recover::list(dir)? {
            segments.push(Segment::open(
                &path,
                start,
                #[cfg(test)]
                options.faults.clone(),
            )?);
        }
        let mut scan = recover::scan(&segments, options.durable_to.0)?;
        let mut recovery = recover::repair(dir, &segments, &scan, options.salvage)?;
        if segments.is_empty() {
            let start = options.durable_to.0;
            if start > 0 {
                let lost = recover::missing(dir, 0, start, start);
                if !options.salvage {
                    return Err(JournalError::Damaged(vec![lost]));
                }
                recovery.skipped.push(lost);
            }
            let mut salt = [0; 16];
            getrandom::fill(&mut salt)
                .map_err(|error| failed("make a salt for", dir, io::Error::other(error)))?;
            let made = Segment::create(
                dir,
                &folder,
                start,
                start,
                salt,
                #[cfg(test)]
                options.faults.clone(),
            );
            segments.push(made.map_err(|error| match error {
                NotMade::Nothing(error) => error,
                NotMade::Unsynced(error) => failed("sync", dir, error),
            })?);
            (scan.end, scan.next_record) = (start, start);
            (recovery.begin, recovery.end) = (Position(start), Position(start));
        }
        let segments: Vec<_> = segments.into_iter().map(Arc::new).collect();
        let last = segments.last().expect("one was just made where there was none").clone();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            folder,
            durability: options.durability,
            segment_bytes: options.segment_bytes,
            on_fatal: options.on_fatal,
            seed: last.seed,
            writer: Mutex::new(Writer { segment: last.clone(), next_record: scan.next_record }),
            appended: Condvar::new(),
            end: AtomicU64::new(scan.end),
            syncing: Mutex::new(Syncing { led: false, segment: last }),
            sync_ended: Condvar::new(),
            synced: AtomicU64::new(scan.end),
            stopped: AtomicBool::new(false),
            refused: Mutex::default(),
            segments: RwLock::new(segments),
            readers: Mutex::default(),
            gaps: scan.gaps,
            closing: Mutex::new(false),
            closed: Condvar::new(),
            #[cfg(test)]
            faults: options.faults,
        });
        let flusher = match options.durability {
            // A journal of files knows no better than to sync.
            Durability::Disk | Durability::Redis(_) => None,
            Durability::DiskBuffered => {
                let shared = shared.clone();
                let spawned = std::thread::Builder::new()
                    .name("journal-sync".to_owned())
                    .spawn(move || shared.flush_until_closed());
                Some(spawned.map_err(|source| failed("start a thread for", dir, source))?)
            }
        };
        Ok((Self { shared, flusher }, recovery))
    }

    /// Makes an empty journal that goes on where another has ended: its first frame starts at `at` and its first
    /// record is `next_record`. Refuses a directory that holds frames already.
    pub fn begin_at(dir: &Path, at: Position, next_record: u64) -> Result<(), JournalError> {
        std::fs::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
        if let Some((_, file)) = recover::list(dir)?.into_iter().next() {
            let hint = "a journal begins in an empty directory".to_owned();
            return Err(JournalError::Foreign { file, hint });
        }
        let folder = File::open(dir).map_err(|source| failed("open", dir, source))?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|error| failed("make a salt for", dir, io::Error::other(error)))?;
        let made = Segment::create(
            dir,
            &folder,
            at.0,
            next_record,
            salt,
            #[cfg(test)]
            Arc::default(),
        );
        made.map(drop).map_err(|error| match error {
            NotMade::Nothing(error) => error,
            NotMade::Unsynced(error) => failed("sync", dir, error),
        })
    }

    /// The random bytes that it was made with, and that no other has.
    pub fn salt(&self) -> [u8; 16] {
        self.shared.writer.lock().segment.salt
    }

    /// How many bytes the frames take that were not released.
    pub fn bytes(&self) -> u64 {
        self.end().0 - self.begin().0
    }
}

impl Journal for EmbeddedJournal {
    fn append(&self, batch: &Batch) -> Result<Appended, JournalError> {
        if batch.is_empty() {
            return Ok(Appended { end: self.end() });
        }
        let appended = self.shared.append(batch);
        if let Err(error) = &appended {
            *self.shared.refused.lock() = Some(error.to_string());
        }
        Ok(Appended { end: Position(appended?) })
    }

    fn end(&self) -> Position {
        Position(self.shared.end.load(Ordering::Acquire))
    }

    fn next_record(&self) -> u64 {
        self.shared.writer.lock().next_record
    }

    fn begin(&self) -> Position {
        Position(self.shared.segments.read().first().map_or(0, |first| first.start))
    }

    fn sync(&self, to: Position) -> Result<(), JournalError> {
        self.shared.sync_to(to.0.min(self.end().0))
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    fn reader(&self, from: Position) -> Box<dyn JournalReader> {
        Box::new(SegmentReader::new(self.shared.clone(), from.0))
    }

    fn wait(&self, past: Position, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut writer = self.shared.writer.lock();
        while self.end() <= past {
            if self.shared.appended.wait_until(&mut writer, deadline).timed_out() {
                return self.end() > past;
            }
        }
        true
    }

    fn release(&self, before: Position) -> Result<(), JournalError> {
        self.shared.release(before.0)
    }

    fn roll(&self) -> Result<(), JournalError> {
        let mut writer = self.shared.writer.lock();
        if self.shared.stopped.load(Ordering::Acquire) {
            return Err(JournalError::Stopped);
        }
        let end = self.shared.end.load(Ordering::Relaxed);
        if end > writer.segment.start { self.shared.rotate(&mut writer, end) } else { Ok(()) }
    }

    fn copy_to(
        &self,
        dir: &Path,
        from: Position,
        to: Position,
        watch: Watch<'_>,
    ) -> Result<Option<CopiedJournal>, JournalError> {
        self.shared.copy_to(dir, from.0, to.0, watch).map(Some)
    }
}

impl Drop for EmbeddedJournal {
    fn drop(&mut self) {
        *self.shared.closing.lock() = true;
        self.shared.closed.notify_all();
        if let Some(flusher) = self.flusher.take() {
            // Only a panic in the hook can end it otherwise, and that was printed.
            let _ = flusher.join();
        }
    }
}

impl Shared {
    /// Writes one frame, as durably as the mode promises, and returns its end.
    fn append(&self, batch: &Batch) -> Result<u64, JournalError> {
        let end = self.write(batch)?;
        if self.durability != Durability::DiskBuffered {
            self.sync_to(end)?;
        }
        Ok(end)
    }

    fn trouble(&self) -> Option<String> {
        if self.stopped.load(Ordering::Acquire) {
            return Some(JournalError::Stopped.to_string());
        }
        // An append that found room does not clear it: a smaller one may where larger ones do not.
        let mut refused = self.refused.lock();
        let why = refused.clone()?;
        #[cfg(test)]
        let room = self.faults.fit(&[0], &[]).and_then(|_| room::try_dir(&self.dir));
        #[cfg(not(test))]
        let room = room::try_dir(&self.dir);
        if room.is_err() {
            return Some(why);
        }
        *refused = None;
        None
    }

    /// Writes one frame and returns its end.
    fn write(&self, batch: &Batch) -> Result<u64, JournalError> {
        let payload = batch.bytes();
        let length = u32::try_from(payload.len()).expect("a batch is at most 16 MiB");
        let payload_crc = self.seed.payload_crc(payload);
        let mut writer = self.writer.lock();
        if self.stopped.load(Ordering::Acquire) {
            return Err(JournalError::Stopped);
        }
        let start = self.end.load(Ordering::Relaxed);
        let size = HEADER_LEN + u64::from(length);
        if start > writer.segment.start && start + size > writer.segment.start + self.segment_bytes
        {
            self.rotate(&mut writer, start)?;
        }
        let header = Header {
            kind: Kind::Data,
            length,
            count: batch.len(),
            payload_crc,
            first: writer.next_record,
            synced: self.synced.load(Ordering::Acquire),
        };
        let written = writer.segment.write(start, &header.encode(self.seed, start), payload);
        if let Err(error) = written {
            // What is left of the frame must not lie under the next one.
            if let Err(cut) = writer.segment.truncate(start) {
                drop(writer);
                return Err(self.stop(&cut));
            }
            return Err(failed("append to", &writer.segment.path, error));
        }
        writer.next_record += u64::from(batch.len());
        self.end.store(start + size, Ordering::Release);
        self.appended.notify_all();
        Ok(start + size)
    }

    /// Starts the next segment at `start`, the end of the one before.
    fn rotate(&self, writer: &mut Writer, start: u64) -> Result<(), JournalError> {
        self.sync_to(start)?;
        let made = Segment::create(
            &self.dir,
            &self.folder,
            start,
            writer.next_record,
            writer.segment.salt,
            #[cfg(test)]
            self.faults.clone(),
        );
        let next = Arc::new(made.map_err(|error| match error {
            NotMade::Nothing(error) => error,
            NotMade::Unsynced(error) => self.stop(&error),
        })?);
        self.segments.write().push(next.clone());
        // Nobody syncs now: everything written is synced, and nothing more is written under our lock.
        self.syncing.lock().segment = next.clone();
        writer.segment = next;
        Ok(())
    }

    /// Makes everything before `to` durable: leads one sync for all that wait, or follows one.
    ///
    /// The leader takes no lock of the writer, so that a writer may wait here.
    fn sync_to(&self, to: u64) -> Result<(), JournalError> {
        let mut syncing = self.syncing.lock();
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return Err(JournalError::Stopped);
            }
            if self.synced.load(Ordering::Acquire) >= to {
                return Ok(());
            }
            if !syncing.led {
                break;
            }
            self.sync_ended.wait(&mut syncing);
        }
        syncing.led = true;
        let segment = syncing.segment.clone();
        // Read under the lock: a rotation sets the segment under it, before anything is written there.
        let target = self.end.load(Ordering::Acquire);
        drop(syncing);
        let result = segment.sync();
        let mut syncing = self.syncing.lock();
        syncing.led = false;
        match &result {
            Ok(()) => self.synced.store(target, Ordering::Release),
            Err(_) => self.stopped.store(true, Ordering::Release),
        }
        self.sync_ended.notify_all();
        drop(syncing);
        result.map_err(|error| self.stop(&error))
    }

    fn stop(&self, error: &io::Error) -> JournalError {
        self.stopped.store(true, Ordering::Release);
        self.sync_ended.notify_all();
        (self.on_fatal)(error);
        JournalError::Stopped
    }

    /// The thread of `disk-buffered`: syncs what is new, so that nothing waits longer than 200 ms.
    fn flush_until_closed(&self) {
        const EVERY: Duration = Duration::from_millis(100);
        let mut closing = self.closing.lock();
        loop {
            if !*closing {
                self.closed.wait_for(&mut closing, EVERY);
            }
            let last = *closing;
            drop(closing);
            let end = self.end.load(Ordering::Acquire);
            if self.sync_to(end).is_err() || last {
                return;
            }
            closing = self.closing.lock();
        }
    }

    fn release(&self, before: u64) -> Result<(), JournalError> {
        // The readers' lock is held throughout: a reader made meanwhile finds the segments or not at all.
        let readers = self.readers.lock();
        let floor = readers.at.values().copied().fold(before, u64::min);
        loop {
            let path = {
                let segments = self.segments.read();
                match &segments[..] {
                    [first, second, ..] if second.start <= floor => first.path.clone(),
                    _ => return Ok(()),
                }
            };
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path, error));
                }
                // One after the other and durably: a crash must not leave a hole.
                _ => {
                    self.folder.sync_all().map_err(|source| failed("sync", &self.dir, source))?;
                }
            }
            self.segments.write().remove(0);
        }
    }
}
