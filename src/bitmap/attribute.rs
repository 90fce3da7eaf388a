//! An attribute's history in one block: entries in order of receipt, values interned.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;

use super::set::BlockSet;
use crate::model::Value;
use crate::model::time::Millis;

const CHUNK: usize = 1024;

/// One value that a profile had from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) time: Millis,
    pub(super) value: u32,
    /// The entry of the same ordinal before this one, as its place + 1; 0 where there is none.
    before: u32,
    pub(super) ordinal: u16,
}

/// All values of one attribute in one block. Clones share all chunks but the last.
///
/// Invariant: value 0 is null; every entry's value is in `values`.
#[derive(Debug, Clone)]
pub struct AttributeColumn {
    entries: Vec<Arc<Vec<Entry>>>,
    values: Vec<Arc<Vec<Value>>>,
    /// The last entry of each ordinal, as its place + 1, in chunks; 0 where there is none.
    heads: Vec<Arc<Vec<u32>>>,
    /// From the hash of a value's bytes to its number. Values whose hashes collide get numbers that
    /// are not in here, which costs memory and nothing else.
    index: Arc<HashMap<u64, u32>>,
    /// Keyed, since visitors choose the values.
    hasher: RandomState,
}

impl Default for AttributeColumn {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            values: vec![Arc::new(vec![Value::Null])],
            heads: Vec::new(),
            index: Arc::default(),
            hasher: RandomState::new(),
        }
    }
}

impl AttributeColumn {
    /// Stands for the value of an ordinal that has none.
    pub const NO_VALUE: u32 = u32::MAX;

    pub(super) fn add(&mut self, ordinal: u16, time: Millis, value: Value) {
        let value = self.intern(value);
        let place = u32::try_from(self.len() + 1).expect("fewer entries than memory holds");
        let head = self.head_mut(ordinal);
        let before = std::mem::replace(head, place);
        push_chunked(&mut self.entries, Entry { time, value, before, ordinal });
    }

    fn head_mut(&mut self, ordinal: u16) -> &mut u32 {
        let (chunk, within) = (usize::from(ordinal) / CHUNK, usize::from(ordinal) % CHUNK);
        if chunk >= self.heads.len() {
            self.heads.resize_with(chunk + 1, Arc::default);
        }
        let chunk = Arc::make_mut(&mut self.heads[chunk]);
        if chunk.len() <= within {
            chunk.resize(within + 1, 0);
        }
        &mut chunk[within]
    }

    /// The entries of one ordinal, the last received first.
    fn entries_of(&self, ordinal: u16) -> impl Iterator<Item = &Entry> {
        let (chunk, within) = (usize::from(ordinal) / CHUNK, usize::from(ordinal) % CHUNK);
        let mut next = self.heads.get(chunk).and_then(|heads| heads.get(within)).map_or(0, |h| *h);
        std::iter::from_fn(move || {
            let entry = self.entry((next as usize).checked_sub(1)?);
            next = entry.before;
            Some(entry)
        })
    }

    fn intern(&mut self, value: Value) -> u32 {
        if value == Value::Null {
            return 0;
        }
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        let hash = self.hasher.hash_one(&bytes);
        if let Some(number) = self.index.get(&hash)
            && self.value(*number) == &value
        {
            return *number;
        }
        let number = u32::try_from(self.value_count()).expect("fewer values than memory holds");
        push_chunked(&mut self.values, value);
        Arc::make_mut(&mut self.index).entry(hash).or_insert(number);
        number
    }

    /// How many numbers of values there are.
    pub fn value_count(&self) -> usize {
        let full = self.values.len() - 1;
        full * CHUNK + self.values[full].len()
    }

    /// A value by its number.
    pub fn value(&self, number: u32) -> &Value {
        &self.values[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// The values in the order of their numbers, null first.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter().flat_map(|chunk| chunk.iter())
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flat_map(|chunk| chunk.iter())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |last| (self.entries.len() - 1) * CHUNK + last.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the number of each ordinal's latest value at or before `now` into `numbers`
    /// ([`AttributeColumn::NO_VALUE`] where it has none); `times` is scratch. Both are as long as the population.
    pub fn latest(&self, now: Millis, times: &mut [Millis], numbers: &mut [u32]) {
        numbers.fill(Self::NO_VALUE);
        for chunk in &self.entries {
            for entry in chunk.iter() {
                let ordinal = usize::from(entry.ordinal);
                if entry.time <= now
                    && (numbers[ordinal] == Self::NO_VALUE || entry.time >= times[ordinal])
                {
                    times[ordinal] = entry.time;
                    numbers[ordinal] = entry.value;
                }
            }
        }
    }

    /// The value of one ordinal at `now`, with its time: the latest by time, of equal times the later
    /// received. A null is none.
    pub fn value_at(&self, ordinal: u16, now: Millis) -> Option<(Millis, &Value)> {
        let mut latest: Option<&Entry> = None;
        for entry in self.entries_of(ordinal).filter(|entry| entry.time <= now) {
            if latest.is_none_or(|latest| entry.time > latest.time) {
                latest = Some(entry);
            }
        }
        let latest = latest?;
        let value = self.value(latest.value);
        (*value != Value::Null).then_some((latest.time, value))
    }

    /// The times at which the value of one ordinal may change, in no order.
    pub fn times_of(&self, ordinal: u16) -> Vec<Millis> {
        self.entries_of(ordinal).map(|entry| entry.time).collect()
    }

    /// The bytes that [`AttributeColumn::latest`] reads.
    pub fn bytes(&self) -> u64 {
        (self.len() * size_of::<Entry>()) as u64
    }

    /// Drops what `edge` has made old: of each ordinal's entries before it the newest stays, and that
    /// too goes where it is null.
    pub(super) fn drop_before(&mut self, edge: Millis) {
        let mut newest: HashMap<u16, (Millis, usize)> = HashMap::new();
        let mut old = 0usize;
        for (place, entry) in self.entries().enumerate().filter(|(_, e)| e.time < edge) {
            old += 1;
            let slot = newest.entry(entry.ordinal).or_insert((entry.time, place));
            if entry.time >= slot.0 {
                *slot = (entry.time, place);
            }
        }
        let nulls = newest.values().filter(|(_, place)| self.entry(*place).value == 0).count();
        if old == newest.len() && nulls == 0 {
            return;
        }
        let kept: Vec<Entry> = self
            .entries()
            .enumerate()
            .filter(|(place, entry)| {
                entry.time >= edge
                    || (entry.value != 0
                        && newest.get(&entry.ordinal).is_some_and(|(_, kept)| kept == place))
            })
            .map(|(_, entry)| *entry)
            .collect();
        // Values that nothing refers to any more go too.
        let mut fresh = Self { hasher: self.hasher.clone(), ..Self::default() };
        for entry in kept {
            fresh.add(entry.ordinal, entry.time, self.value(entry.value).clone());
        }
        *self = fresh;
    }

    /// Drops the entries of some profiles, and the values that only they had.
    pub(super) fn erase(&mut self, profiles: &BlockSet) {
        let kept = self.entries().filter(|entry| !profiles.contains(entry.ordinal));
        let kept: Vec<Entry> = kept.copied().collect();
        let mut fresh = Self { hasher: self.hasher.clone(), ..Self::default() };
        for entry in kept {
            fresh.add(entry.ordinal, entry.time, self.value(entry.value).clone());
        }
        *self = fresh;
    }

    /// The history of one ordinal in the order of receipt, nulls included.
    pub fn history_of(&self, ordinal: u16) -> Vec<(Millis, &Value)> {
        let entries = self.entries_of(ordinal);
        let mut history: Vec<_> =
            entries.map(|entry| (entry.time, self.value(entry.value))).collect();
        history.reverse();
        history
    }

    fn entry(&self, place: usize) -> &Entry {
        &self.entries[place / CHUNK][place % CHUNK]
    }
}

/// Appends to chunks of [`CHUNK`] items, all full but the last.
fn push_chunked<T: Clone>(chunks: &mut Vec<Arc<Vec<T>>>, item: T) {
    match chunks.last_mut() {
        Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(item),
        _ => chunks.push(Arc::new(vec![item])),
    }
}
