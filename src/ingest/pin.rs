//! A pin: all that is known at one position of the journal, to read while folding goes on.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::memory::Memory;
use super::skips::Skips;
use super::traits::Traits;
use crate::bitmap::Mark;
use crate::bitmap::Snapshot;
use crate::model::BLOCK;
use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::time::Day;
use crate::store::journal::EventNo;
use crate::store::journal::Position;

/// All that is known at one position of the journal.
///
/// Taken in [`archive::Catalog::pin`](crate::archive::Catalog::pin), it and the archive's pin are of one
/// instant: the archive's files and the journal's tail up to `position`, less what is not counted, are what
/// the columns are of.
pub struct Pin {
    /// The columns of all shards.
    pub snapshot: Arc<Snapshot>,
    /// Everything before it is in the columns.
    pub position: Position,
    /// The number of the record that follows.
    pub next_record: u64,
    /// The traits that the columns are of.
    pub traits: Arc<Traits>,
    /// The first day that facts are kept of.
    pub first_day: Day,
    /// How many profiles were erased since the engine's start.
    pub erasures: u64,
    skips: Skips,
}

impl Pin {
    pub(crate) fn new(memory: &Memory, true_for: Millis) -> Self {
        let shards = memory.shards.iter().map(|shard| shard.blocks.clone()).collect();
        let snapshot = Snapshot { shards, true_for, retention: memory.retention };
        Self {
            snapshot: Arc::new(snapshot),
            position: memory.position,
            next_record: memory.next_record,
            traits: Arc::clone(&memory.traits),
            first_day: memory.first_day,
            erasures: memory.erased,
            skips: memory.skips.clone(),
        }
    }

    /// Whether an event of the journal between the archive and the pinned position is counted.
    pub fn is_counted(&self, event: EventNo) -> bool {
        self.skips.is_counted(event)
    }

    /// All profiles, by shard.
    pub fn everyone(&self) -> Vec<RoaringBitmap> {
        let of_shard = |blocks: &Vec<Arc<crate::bitmap::Block>>| {
            let mut all = RoaringBitmap::new();
            for (number, block) in (0..).zip(blocks) {
                let first: Ordinal = number * BLOCK;
                all.extend((0..block.population()).map(|ordinal| first + ordinal));
            }
            all
        };
        self.snapshot.shards.iter().map(of_shard).collect()
    }

    /// The profiles that hold an identifier of one of some namespaces, by shard.
    pub fn holders(&self, namespaces: &[String]) -> Vec<RoaringBitmap> {
        let mut scratch = Vec::new();
        let of_shard = |blocks: &Vec<Arc<crate::bitmap::Block>>| {
            let mut all = RoaringBitmap::new();
            for (number, block) in (0..).zip(blocks) {
                for held in namespaces.iter().filter_map(|namespace| block.holders(namespace)) {
                    all |= held.to_roaring(number, &mut scratch);
                }
            }
            all
        };
        self.snapshot.shards.iter().map(of_shard).collect()
    }

    /// The profiles that may not be in audiences, by shard; or, of a vendor, those that may not be made known to it.
    pub fn unconsented(&self, vendor: Option<u16>) -> Vec<RoaringBitmap> {
        let mut scratch = Vec::new();
        let of_shard = |blocks: &Vec<Arc<crate::bitmap::Block>>| {
            let mut all = RoaringBitmap::new();
            for (number, block) in (0..).zip(blocks) {
                let consents = block.consents();
                all |= match vendor {
                    None => consents.unconsented().to_roaring(number, &mut scratch),
                    Some(id) => consents.unconsented_to(id).to_roaring(number, &mut scratch),
                };
            }
            all
        };
        self.snapshot.shards.iter().map(of_shard).collect()
    }

    /// The profiles with a mark, by shard.
    pub fn marked(&self, mark: Mark) -> Vec<RoaringBitmap> {
        marked(&self.snapshot, mark)
    }
}

/// The profiles with a mark, by shard.
pub fn marked(snapshot: &Snapshot, mark: Mark) -> Vec<RoaringBitmap> {
    let mut scratch = Vec::new();
    let of_shard = |blocks: &Vec<Arc<crate::bitmap::Block>>| {
        let mut all = RoaringBitmap::new();
        for (number, block) in (0..).zip(blocks) {
            all |= block.marked(mark).to_roaring(number, &mut scratch);
        }
        all
    };
    snapshot.shards.iter().map(of_shard).collect()
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin")
            .field("position", &self.position)
            .field("true_for", &self.snapshot.true_for)
            .finish_non_exhaustive()
    }
}
