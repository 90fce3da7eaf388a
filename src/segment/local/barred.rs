//! Who may be told of nowhere, as far as lists say it: shown like a segment, under a name that none has.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::lists::Profiles;
use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Mark;
use crate::ingest::Pin;
use crate::model::BLOCK;
use crate::model::ShardId;
use crate::plan::Members;

/// The profiles that opted out, are bots, or were asked and may not be in audiences.
#[derive(Debug, Clone, Default)]
pub(super) struct Barred {
    /// By shard and block, what they follow from.
    sets: Vec<Vec<[Arc<BlockSet>; 3]>>,
    pub(super) members: Arc<Members>,
}

impl Barred {
    /// Those of some lanes, each with its shards, and who is other than before. Where nobody is, the members are the same
    /// and not only equal.
    pub(super) fn next(
        before: Option<&Self>,
        lanes: &[(&[ShardId], &Pin)],
        count: u16,
    ) -> (Self, Profiles) {
        let count = usize::from(count);
        let none = || Self { sets: Vec::new(), members: Arc::new(Members::none(count)) };
        let mut next = before.cloned().unwrap_or_else(none);
        next.sets.resize(count, Vec::new());
        let held: Vec<ShardId> = lanes.iter().flat_map(|(shards, _)| *shards).copied().collect();
        let mut moved = Profiles::new();
        for gone in (0..).zip(&mut next.sets).filter(|(shard, _)| !held.contains(shard)) {
            gone.1.clear();
            let was = &next.members.shards[usize::from(gone.0)];
            if !was.is_empty() {
                Arc::make_mut(&mut next.members).shards[usize::from(gone.0)] = Arc::default();
            }
        }
        for (shards, pin) in lanes {
            for shard in *shards {
                let at = usize::from(*shard);
                let blocks = pin.snapshot.shards.get(at).map_or(&[][..], Vec::as_slice);
                let sets: Vec<_> = blocks.iter().map(|block| sets_of(block)).collect();
                let is_same = |(one, other): (&[Arc<BlockSet>; 3], &[Arc<BlockSet>; 3])| {
                    one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
                };
                let known = &mut next.sets[at];
                if known.len() == sets.len() && known.iter().zip(&sets).all(is_same) {
                    continue;
                }
                let now = bitmap(&sets);
                *known = sets;
                let was = &next.members.shards[at];
                if now != **was {
                    moved.insert(*shard, &now ^ &**was);
                    Arc::make_mut(&mut next.members).shards[at] = Arc::new(now);
                }
            }
        }
        (next, moved)
    }
}

fn sets_of(block: &Block) -> [Arc<BlockSet>; 3] {
    let [opted_out, bots] = [Mark::OptedOut, Mark::Bot].map(|mark| block.marked(mark).clone());
    [opted_out, bots, Arc::clone(block.consents().unconsented())]
}

fn bitmap(blocks: &[[Arc<BlockSet>; 3]]) -> RoaringBitmap {
    let (mut all, mut scratch) = (RoaringBitmap::new(), Vec::new());
    for (number, sets) in (0..).zip(blocks) {
        debug_assert!(number < u32::MAX / BLOCK, "ordinals are of 32 bits");
        for set in sets {
            all |= set.to_roaring(number, &mut scratch);
        }
    }
    all
}
