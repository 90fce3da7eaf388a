//! Which events of the journal were not counted, as long as the archive has not passed them.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use roaring::RoaringTreemap;

use crate::model::Malformed;
use crate::model::codec::Reader;
use crate::model::codec::put_bytes;
use crate::model::codec::put_varint;
use crate::store::journal::EventNo;
use crate::store::state::SkipChunk;

/// Events not counted, in chunks of one commit each. A clone shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Skips {
    chunks: Vec<Arc<Chunk>>,
    /// Whether the last chunk takes what comes.
    open: bool,
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    first: u64,
    last: u64,
    /// Records whose event of part 0 is not counted: most of all.
    records: RoaringTreemap,
    /// Further parts by record.
    parts: BTreeMap<u64, RoaringBitmap>,
}

impl Skips {
    /// Takes stored chunks, in order.
    pub(crate) fn load(stored: &[SkipChunk]) -> Result<Self, Malformed> {
        let chunks = stored.iter().map(|chunk| Chunk::decode(chunk).map(Arc::new));
        Ok(Self { chunks: chunks.collect::<Result<_, _>>()?, open: false })
    }

    /// Says that an event is not counted. Events come in order.
    pub(crate) fn insert(&mut self, event: EventNo) {
        if !self.open {
            self.open = true;
            self.chunks.push(Arc::new(Chunk { first: event.record, ..Chunk::default() }));
        }
        let chunk = Arc::make_mut(self.chunks.last_mut().expect("one is open"));
        chunk.last = event.record;
        if event.part == 0 {
            chunk.records.insert(event.record);
        } else {
            chunk.parts.entry(event.record).or_default().insert(event.part);
        }
    }

    /// Whether an event is counted, as far as the journal was folded.
    pub(crate) fn is_counted(&self, event: EventNo) -> bool {
        let at = self.chunks.partition_point(|chunk| chunk.last < event.record);
        let Some(chunk) = self.chunks.get(at).filter(|chunk| chunk.first <= event.record) else {
            return true;
        };
        if event.part == 0 {
            return !chunk.records.contains(event.record);
        }
        !chunk.parts.get(&event.record).is_some_and(|parts| parts.contains(event.part))
    }

    /// How many chunks there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Ends the chunk of a commit.
    pub(crate) fn cut(&mut self) -> Option<SkipChunk> {
        std::mem::take(&mut self.open).then(|| self.chunks.last().expect("one is open").encode())
    }

    /// Drops chunks that lie wholly before a record.
    pub(crate) fn drop_before(&mut self, record: u64) {
        let keep = self.chunks.partition_point(|chunk| chunk.last < record);
        let keep = if self.open { keep.min(self.chunks.len() - 1) } else { keep };
        self.chunks.drain(..keep);
    }
}

impl Chunk {
    fn encode(&self) -> SkipChunk {
        let mut bytes = Vec::new();
        let mut set = Vec::with_capacity(self.records.serialized_size());
        self.records.serialize_into(&mut set).expect("memory takes all");
        put_bytes(&mut bytes, &set);
        put_varint(&mut bytes, self.parts.len() as u64);
        for (record, parts) in &self.parts {
            put_varint(&mut bytes, *record);
            set.clear();
            parts.serialize_into(&mut set).expect("memory takes all");
            put_bytes(&mut bytes, &set);
        }
        SkipChunk { first: self.first, last: self.last, bytes }
    }

    fn decode(stored: &SkipChunk) -> Result<Self, Malformed> {
        let mut reader = Reader::new(&stored.bytes);
        let bad = |_| Malformed("a set of records");
        let records = RoaringTreemap::deserialize_from(reader.bytes()?).map_err(bad)?;
        let mut parts = BTreeMap::new();
        for _ in 0..reader.length()? {
            let record = reader.varint()?;
            parts.insert(record, RoaringBitmap::deserialize_from(reader.bytes()?).map_err(bad)?);
        }
        reader.finish()?;
        Ok(Self { first: stored.first, last: stored.last, records, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no(record: u64, part: u32) -> EventNo {
        EventNo { record, part }
    }

    #[test]
    fn what_was_skipped_is_known_until_it_is_passed() {
        let skipped = [no(3, 0), no(7, 0), no(7, 2), no(1 << 40, 5), no((1 << 40) + 1, 0)];
        let mut skips = Skips::default();
        let mut stored = Vec::new();
        for event in skipped {
            skips.insert(event);
            if event.part == 2 {
                stored.extend(skips.cut());
            }
        }
        stored.extend(skips.cut());
        assert_eq!(skips.cut(), None);
        for skips in [&skips, &Skips::load(&stored).unwrap()] {
            assert!(skipped.iter().all(|event| !skips.is_counted(*event)));
            for event in [no(2, 0), no(3, 1), no(7, 1), no(8, 0), no(1 << 40, 0), no(u64::MAX, 0)] {
                assert!(skips.is_counted(event), "{event:?}");
            }
        }
        skips.drop_before(8);
        assert_eq!(skips.chunks.len(), 1);
        assert!(!skips.is_counted(no(1 << 40, 5)));
    }
}
