//! Members, and how those of one time differ from those of another.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::model::ShardId;

/// The profiles of whom a rule is true: their ordinals in each shard. What does not change is shared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Members {
    /// One bitmap of ordinals for each shard.
    pub shards: Vec<Arc<RoaringBitmap>>,
}

/// So few are changed where they stand; more with whole containers at once.
const FEW: u64 = 1_000;

/// Who came into an audience and who left it, in one shard.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    /// Those who are in and were not.
    pub entered: RoaringBitmap,
    /// Those who were in and are not.
    pub left: RoaringBitmap,
}

impl Members {
    /// None, of so many shards.
    pub fn none(shards: usize) -> Self {
        Self { shards: vec![Arc::default(); shards] }
    }

    /// Keeps those of some shards alone, which are in order.
    pub fn keep(&mut self, shards: &[ShardId]) {
        for (shard, members) in (0..).zip(&mut self.shards) {
            if shards.binary_search(&shard).is_err() && !members.is_empty() {
                *members = Arc::default();
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|members| members.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|members| members.is_empty())
    }

    /// How many entered and how many left since.
    pub fn moved(&self, before: &Self) -> (u64, u64) {
        let none: Arc<RoaringBitmap> = Arc::default();
        let count = self.shards.len().max(before.shards.len());
        let moved = (0..count).map(|shard| {
            let now = self.shards.get(shard).unwrap_or(&none);
            let then = before.shards.get(shard).unwrap_or(&none);
            if Arc::ptr_eq(now, then) {
                return (0, 0);
            }
            let both = now.intersection_len(then);
            (now.len() - both, then.len() - both)
        });
        moved.fold((0, 0), |(adds, removes), (entered, left)| (adds + entered, removes + left))
    }

    /// Whether they are the same as others; shards that the two share are not looked at.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Arc<RoaringBitmap>, &Arc<RoaringBitmap>)| {
            Arc::ptr_eq(one, other) || one == other
        };
        self.shards.len() == other.shards.len()
            && self.shards.iter().zip(&other.shards).all(is_same)
    }

    /// Who entered and who left since, by shard; shards in which nobody did are left out, and those that the two share
    /// are not looked at.
    pub fn since(&self, before: &Self) -> Vec<(usize, Delta)> {
        let none: Arc<RoaringBitmap> = Arc::default();
        let count = self.shards.len().max(before.shards.len());
        let deltas = (0..count).filter_map(|shard| {
            let now = self.shards.get(shard).unwrap_or(&none);
            let then = before.shards.get(shard).unwrap_or(&none);
            let delta = Delta::between(then, now);
            (!delta.is_empty()).then_some((shard, delta))
        });
        deltas.collect()
    }
}

impl Delta {
    /// From the members of before to those of now.
    pub fn between(before: &Arc<RoaringBitmap>, now: &Arc<RoaringBitmap>) -> Self {
        if Arc::ptr_eq(before, now) {
            return Self::default();
        }
        Self { entered: &**now - &**before, left: &**before - &**now }
    }

    /// Whether nobody entered or left.
    pub fn is_empty(&self) -> bool {
        self.entered.is_empty() && self.left.is_empty()
    }

    /// Takes out who left.
    fn leave(&self, members: &mut RoaringBitmap) {
        match self.left.len() {
            0..=FEW => self.left.iter().for_each(|ordinal| _ = members.remove(ordinal)),
            _ => *members -= &self.left,
        }
    }

    /// Changes members that are those of before it.
    pub(super) fn apply(&self, members: &mut RoaringBitmap) {
        self.leave(members);
        match self.entered.len() {
            0..=FEW => self.entered.iter().for_each(|ordinal| _ = members.insert(ordinal)),
            _ => *members |= &self.entered,
        }
    }

    /// Members made of those of before it, which are left as they are.
    pub(super) fn applied(&self, before: &RoaringBitmap) -> RoaringBitmap {
        // A copy has no room for more than it has: small ones are made anew at once, as large as they are to be.
        const MANY: u64 = 64;
        if self.entered.is_empty() || self.entered.len() * MANY < before.len() {
            let mut members = before.clone();
            self.apply(&mut members);
            return members;
        }
        let mut members = before | &self.entered;
        self.leave(&mut members);
        members
    }

    /// All who entered or left.
    pub fn all(&self) -> RoaringBitmap {
        &self.entered | &self.left
    }
}
