//! Whom is learnt from, who is held out, and who may be chosen: a byte for each profile of a block.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::bitmap::Block;
use crate::model::BLOCK;
use crate::model::Ordinal;
use crate::model::ShardId;

/// One profile of so many is held out.
const HELD_OUT: u64 = 5;

/// The profiles of one shard.
#[derive(Debug, Clone)]
pub struct Whom {
    /// The members of the seed.
    pub seed: Arc<RoaringBitmap>,
    /// All that are known.
    pub everyone: Arc<RoaringBitmap>,
    /// Who may be chosen, were it not for the seed.
    pub within: Arc<RoaringBitmap>,
}

/// The profiles of one block, and what each has come to.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    pub(super) marks: Vec<u8>,
    pub(super) scores: Vec<i32>,
}

/// In which of the counts a profile is.
pub(super) const SEED: usize = 0;
pub(super) const OTHER: usize = 1;
pub(super) const SEED_HELD: usize = 2;
pub(super) const OTHER_HELD: usize = 3;
pub(super) const NOBODY: usize = 4;
/// How many counts there are.
pub(super) const ROLES: usize = 5;
/// Set where a profile may be chosen.
const MAY: u8 = 8;

pub(super) fn role(mark: u8) -> usize {
    usize::from(mark & 7)
}

#[expect(clippy::cast_possible_truncation, reason = "a role is less than 8")]
fn mark(role: usize) -> u8 {
    role as u8
}

pub(super) fn may(mark: u8) -> bool {
    mark & MAY != 0
}

/// A number for each profile, different for each, that follows from nothing it did.
pub fn order(shard: ShardId, ordinal: Ordinal) -> u64 {
    // Each step can be undone, so no two profiles have the same.
    let mut mixed =
        (u64::from(shard) << 32 | u64::from(ordinal)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Whether a profile is held out.
pub(super) fn is_held_out(shard: ShardId, ordinal: Ordinal) -> bool {
    order(shard, ordinal).is_multiple_of(HELD_OUT)
}

/// The first ordinal of a block.
pub(super) fn first(place: usize) -> Ordinal {
    u32::try_from(place).map_or(u32::MAX, |place| place.saturating_mul(BLOCK))
}

impl Whom {
    /// The marks of one block's profiles.
    pub(super) fn marks(&self, shard: ShardId, place: usize, block: &Block) -> Vec<u8> {
        let first = first(place);
        let mut marks = vec![mark(NOBODY); block.population() as usize];
        let each = |set: &RoaringBitmap, f: &mut dyn FnMut(usize, Ordinal)| {
            let end = first.saturating_add(block.population());
            for ordinal in set.range(first..end) {
                f((ordinal - first) as usize, ordinal);
            }
        };
        each(&self.everyone, &mut |at, ordinal| {
            marks[at] = if is_held_out(shard, ordinal) { mark(OTHER_HELD) } else { mark(OTHER) };
        });
        each(&self.within, &mut |at, _| {
            if role(marks[at]) != NOBODY {
                marks[at] |= MAY;
            }
        });
        each(&self.seed, &mut |at, _| match role(marks[at]) {
            OTHER => marks[at] = mark(SEED),
            OTHER_HELD => marks[at] = mark(SEED_HELD),
            _ => {}
        });
        for at in block.consents().without_look_alikes() {
            if let Some(marked) = marks.get_mut(usize::from(at)) {
                *marked = mark(NOBODY);
            }
        }
        marks
    }
}
