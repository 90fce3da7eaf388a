//! Which message ids were counted: an exact set that outgrows memory and survives restarts.
//!
//! ```text
//! table (in memory) ── with each commit ──► chunks
//!    └─ outgrown: frozen ── written ──► run: sorted pages in the store, a filter and an index in memory
//! ```
//!
//! An entry is a 128-bit keyed hash and a receive time. What lies outside the window is dropped: entries by
//! the hour, chunks and runs when all of theirs is over.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::model::Malformed;
use crate::model::Millis;
use crate::model::codec::Reader;
use crate::model::codec::put_bytes;
use crate::model::codec::put_i64;
use crate::model::codec::put_varint;
use crate::model::time::HOUR;
use crate::store::StoreError;
use crate::store::state::SeenChange;
use crate::store::state::SeenRun;
use crate::store::state::SeenSet;
use crate::store::state::State;
use crate::store::state::damaged;

/// A message id's keyed hash.
pub(crate) type Hash = [u64; 2];

/// A hash and when its event was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) hash: Hash,
    pub(super) received: Millis,
}

pub(super) const ENTRY: usize = 24;
/// An entry in the table, with what the table leaves free.
const TABLE_ENTRY: usize = 38;
/// Entries of a page, which is read whole.
const PAGE: usize = 170;
/// Bits of a filter for each entry: one miss in a hundred looks at a page.
const FILTER_BITS: usize = 10;
/// Words of a filter that one entry's bits lie in: a line of the processor's cache.
const LINE: usize = 8;

type Table = HashTable<Entry>;

/// A set of message ids.
#[derive(Debug)]
pub(crate) struct Seen {
    set: SeenSet,
    /// For how long an entry counts; `None` for ever.
    window: Option<Millis>,
    /// About so many bytes of memory are used.
    budget: usize,
    table: Table,
    /// Entries on their way into a run.
    frozen: Option<Arc<Table>>,
    runs: Vec<Run>,
    next_run: u64,
    /// Entries since the last commit.
    chunk: Vec<u8>,
    /// The commits whose chunks are kept, with the latest time in each.
    chunks: Vec<(u64, Millis)>,
    newest: Millis,
    chunk_newest: Millis,
    swept: Millis,
}

/// A sorted run in the store, and what is known of it without reading.
#[derive(Debug)]
pub(crate) struct Run {
    number: u64,
    newest: Millis,
    /// The first hash of each page.
    index: Vec<Hash>,
    /// Empty where memory had no room for it.
    filter: Vec<u64>,
}

/// Entries to be written as a run, by whoever commits.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) set: SeenSet,
    number: u64,
    table: Arc<Table>,
}

impl Seen {
    pub(crate) fn new(set: SeenSet, window: Option<Millis>, budget: usize) -> Self {
        Self {
            set,
            window,
            budget,
            table: Table::new(),
            frozen: None,
            runs: Vec::new(),
            next_run: 0,
            chunk: Vec::new(),
            chunks: Vec::new(),
            newest: Millis::MIN,
            chunk_newest: Millis::MIN,
            swept: Millis::MIN,
        }
    }

    /// Reads what was committed; `newest` is the latest receive time folded.
    pub(crate) fn load(&mut self, state: &dyn State, newest: Millis) -> Result<(), StoreError> {
        self.newest = newest;
        let edge = self.edge();
        let (table, chunks) = (&mut self.table, &mut self.chunks);
        let mut runs = Vec::new();
        state.load_seen(
            self.set,
            &mut |commit, bytes| {
                let mut latest = Millis::MIN;
                for bytes in bytes.chunks(ENTRY) {
                    let entry = Entry::decode(bytes).map_err(damaged)?;
                    latest = latest.max(entry.received);
                    if entry.received >= edge {
                        put(table, entry);
                    }
                }
                chunks.push((commit, latest));
                Ok(())
            },
            &mut |number, header| {
                runs.push(Run::decode(number, header).map_err(damaged)?);
                Ok(())
            },
        )?;
        self.next_run = runs.iter().map(|run| run.number + 1).max().unwrap_or(0);
        for run in runs {
            self.add_run(run);
        }
        Ok(())
    }

    /// The earliest receive time that still counts.
    fn edge(&self) -> Millis {
        self.window.map_or(Millis::MIN, |window| self.newest.saturating_sub(window))
    }

    /// Whether the runs on disk hold the hash, received within the window before `received`.
    pub(crate) fn in_runs(
        &self,
        state: &dyn State,
        hash: Hash,
        received: Millis,
    ) -> Result<bool, StoreError> {
        for run in self.runs.iter().rev().filter(|run| run.may_hold(hash)) {
            // A hash may be the last of one page and the first of the next.
            let last = run.index.partition_point(|first| *first <= hash);
            let first = run.index.partition_point(|first| *first < hash).saturating_sub(1);
            for page in first..last {
                let number = u32::try_from(page).expect("a run has fewer pages");
                let page = state.seen_page(self.set, run.number, number)?;
                let page = page.ok_or_else(|| damaged(Malformed("a page of a run is missing")))?;
                let entries = page.chunks(ENTRY).filter_map(|bytes| Entry::decode(bytes).ok());
                let found = |entry: Entry| entry.hash == hash && self.counts(entry, received);
                if entries.into_iter().any(found) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether memory holds the hash, received within the window before `received`.
    pub(crate) fn in_memory(&self, hash: Hash, received: Millis) -> bool {
        let held = |table: &Table| {
            let entry = table.find(hash[1], |entry| entry.hash == hash);
            entry.is_some_and(|entry| self.counts(*entry, received))
        };
        held(&self.table) || self.frozen.as_deref().is_some_and(held)
    }

    fn counts(&self, entry: Entry, received: Millis) -> bool {
        self.window.is_none_or(|window| received.saturating_sub(entry.received) <= window)
    }

    /// Adds an event that was counted.
    pub(crate) fn insert(&mut self, hash: Hash, received: Millis) {
        let entry = Entry { hash, received };
        put(&mut self.table, entry);
        entry.encode(&mut self.chunk);
        self.newest = self.newest.max(received);
        self.chunk_newest = self.chunk_newest.max(received);
    }

    /// What the next commit, of this number, has to keep of the set. A set that has outgrown its memory is
    /// frozen, for [`Frozen::write`] to make a run of.
    pub(crate) fn cut(&mut self, commit: u64) -> (Option<SeenChange>, Option<Frozen>) {
        let mut change = SeenChange {
            set: self.set,
            chunk: None,
            dropped_chunks: Vec::new(),
            run: None,
            dropped_runs: Vec::new(),
        };
        if !self.chunk.is_empty() {
            change.chunk = Some(std::mem::take(&mut self.chunk));
            self.chunks.push((commit, self.chunk_newest));
            self.chunk_newest = Millis::MIN;
        }
        let edge = self.edge();
        if self.window.is_some() && self.newest.saturating_sub(self.swept) >= HOUR {
            self.swept = self.newest;
            self.table.retain(|entry| entry.received >= edge);
            self.table.shrink_to(self.table.len() * 2, |entry| entry.hash[1]);
            for run in self.runs.extract_if(.., |run| run.newest < edge) {
                change.dropped_runs.push(run.number);
            }
            for (number, _) in self.chunks.extract_if(.., |(_, newest)| *newest < edge) {
                change.dropped_chunks.push(number);
            }
        }
        let mut frozen = None;
        if self.frozen.is_none() && self.table.len() * TABLE_ENTRY > self.budget / 4 {
            // All that the table holds came with the chunks, which the run takes the place of.
            change.chunk = None;
            let chunks = self.chunks.drain(..).map(|(number, _)| number);
            change.dropped_chunks.extend(chunks.filter(|number| *number != commit));
            let table = Arc::new(std::mem::take(&mut self.table));
            self.frozen = Some(Arc::clone(&table));
            frozen = Some(Frozen { set: self.set, number: self.next_run, table });
            self.next_run += 1;
        }
        let is_empty = change.chunk.is_none()
            && change.dropped_chunks.is_empty()
            && change.dropped_runs.is_empty()
            && frozen.is_none();
        ((!is_empty).then_some(change), frozen)
    }

    /// Takes a run that was committed in the place of what was frozen for it.
    pub(crate) fn written(&mut self, run: Run) {
        self.frozen = None;
        self.add_run(run);
    }

    fn add_run(&mut self, run: Run) {
        self.runs.push(run);
        // The oldest runs go without a filter first: they are asked in vain the longest.
        let mut room = self.budget / 2;
        for run in self.runs.iter_mut().rev() {
            match room.checked_sub(run.filter.len() * 8) {
                Some(left) => room = left,
                None => run.filter = Vec::new(),
            }
        }
    }

    /// The bytes of memory it takes, about.
    pub(crate) fn memory(&self) -> usize {
        self.table.allocation_size()
            + self.frozen.as_deref().map_or(0, HashTable::allocation_size)
            + self.chunk.capacity()
            + self.chunks.capacity() * 16
            + self.runs.iter().map(|run| run.filter.len() * 8 + run.index.len() * 16).sum::<usize>()
    }
}

/// Adds an entry or moves it to the later time.
fn put(table: &mut Table, entry: Entry) {
    match table.find_mut(entry.hash[1], |held| held.hash == entry.hash) {
        Some(held) => held.received = held.received.max(entry.received),
        None => {
            table.insert_unique(entry.hash[1], entry, |entry| entry.hash[1]);
        }
    }
}

impl Entry {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash[0].to_le_bytes());
        out.extend_from_slice(&self.hash[1].to_le_bytes());
        put_i64(out, self.received);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let hash = [reader.i64()?.cast_unsigned(), reader.i64()?.cast_unsigned()];
        Ok(Self { hash, received: reader.i64()? })
    }
}

impl Frozen {
    /// Sorts the entries into a run: what a commit keeps, and what stays in memory after it.
    pub(crate) fn write(&self) -> (SeenRun, Run) {
        let mut entries: Vec<Entry> = self.table.iter().copied().collect();
        entries.sort_unstable();
        run_of(self.number, &entries)
    }
}

/// A run of entries in order: what a commit keeps, and what stays in memory after it.
pub(super) fn run_of(number: u64, entries: &[Entry]) -> (SeenRun, Run) {
    let mut run = Run {
        number,
        newest: entries.iter().map(|entry| entry.received).max().unwrap_or(Millis::MIN),
        index: Vec::with_capacity(entries.len() / PAGE + 1),
        filter: vec![0; (entries.len() * FILTER_BITS).div_ceil(64 * LINE) * LINE],
    };
    let mut pages = Vec::with_capacity(entries.len() / PAGE + 1);
    for entries in entries.chunks(PAGE) {
        run.index.push(entries[0].hash);
        let mut page = Vec::with_capacity(entries.len() * ENTRY);
        for entry in entries {
            entry.encode(&mut page);
            for (word, bit) in bits(entry.hash, run.filter.len()) {
                run.filter[word] |= bit;
            }
        }
        pages.push(page);
    }
    (SeenRun { number, header: run.encode(), pages }, run)
}

/// The words and bits of a filter that stand for a hash, all in one line.
fn bits(hash: Hash, words: usize) -> impl Iterator<Item = (usize, u64)> {
    let lines = (words / LINE).max(1) as u64;
    let line = usize::try_from(hash[0] % lines).expect("it is below the number of lines") * LINE;
    // Nine bits choose one of the 512 bits of a line, six times.
    (0..6).map(move |n| {
        let bit = hash[1] >> (n * 9);
        let word = usize::try_from(bit >> 6 & 7).expect("three bits");
        (line + word, 1 << (bit & 63))
    })
}

impl Run {
    /// How many pages it has.
    pub(super) fn pages(&self) -> usize {
        self.index.len()
    }

    fn may_hold(&self, hash: Hash) -> bool {
        self.filter.is_empty()
            || bits(hash, self.filter.len()).all(|(word, bit)| self.filter[word] & bit != 0)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_i64(&mut out, self.newest);
        put_varint(&mut out, self.index.len() as u64);
        for word in self.index.iter().flatten() {
            put_i64(&mut out, word.cast_signed());
        }
        let filter: Vec<u8> = self.filter.iter().flat_map(|word| word.to_le_bytes()).collect();
        put_bytes(&mut out, &filter);
        out
    }

    pub(super) fn decode(number: u64, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let newest = reader.i64()?;
        let mut index = Vec::new();
        for _ in 0..reader.length()? {
            index.push([reader.i64()?.cast_unsigned(), reader.i64()?.cast_unsigned()]);
        }
        let mut words = Reader::new(reader.bytes()?);
        let mut filter = Vec::with_capacity(words.remaining() / 8);
        while words.remaining() > 0 {
            filter.push(words.i64()?.cast_unsigned());
        }
        reader.finish()?;
        if filter.len() % LINE != 0 {
            return Err(Malformed("a filter of half a line"));
        }
        Ok(Self { number, newest, index, filter })
    }
}
