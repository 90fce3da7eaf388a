//! Scores in order: how well they tell the held out apart, and where the best end.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::whom::OTHER_HELD;
use super::whom::SEED_HELD;
use super::whom::Scored;
use super::whom::first;
use super::whom::may;
use super::whom::order;
use super::whom::role;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::rules::Reach;
use roaring::RoaringBitmap;

/// How many profiles have each score, in order of the scores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram(pub Vec<(i32, u64)>);

/// What all have come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scores {
    /// Those that may be chosen.
    pub candidates: Histogram,
    /// The seed, as far as it was held out.
    pub seed: Histogram,
    /// The others, as far as they were held out.
    pub others: Histogram,
}

/// The share of pairs, one of the seed and one of the others, in which that of the seed has the higher score; equal ones
/// count half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auc {
    /// Twice the pairs, equal ones once.
    pub doubled: u64,
    /// The pairs.
    pub pairs: u64,
}

/// Where the best end: those of a higher score are taken, and of the same score those that come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The least score.
    pub score: i32,
    /// The last number, in [`order`], of those who have it.
    pub order: u64,
}

impl Histogram {
    /// Adds those of other shards.
    pub fn add(&mut self, other: &Self) {
        let mut all: BTreeMap<i32, u64> = std::mem::take(&mut self.0).into_iter().collect();
        other.0.iter().for_each(|(score, count)| *all.entry(*score).or_default() += count);
        self.0 = all.into_iter().collect();
    }

    /// How many profiles there are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Scores {
    /// The scores of one shard.
    pub fn of(blocks: &[Scored]) -> Self {
        let mut all: [BTreeMap<i32, u64>; 3] = Default::default();
        for Scored { marks, scores } in blocks {
            for (mark, score) in marks.iter().zip(scores) {
                let held = match role(*mark) {
                    SEED_HELD => Some(1),
                    OTHER_HELD => Some(2),
                    _ => None,
                };
                let of = may(*mark).then_some(0);
                for place in of.into_iter().chain(held) {
                    *all[place].entry(*score).or_default() += 1;
                }
            }
        }
        let [candidates, seed, others] = all.map(|all| Histogram(all.into_iter().collect()));
        Self { candidates, seed, others }
    }

    /// Adds those of other shards.
    pub fn add(&mut self, other: &Self) {
        self.candidates.add(&other.candidates);
        self.seed.add(&other.seed);
        self.others.add(&other.others);
    }

    /// How well the score tells the held out apart; `None` where a side has nobody.
    pub fn auc(&self) -> Option<Auc> {
        let mut below = 0u128;
        let mut doubled = 0u128;
        let mut others = self.others.0.iter().peekable();
        for (score, count) in &self.seed.0 {
            while let Some((_, more)) = others.next_if(|(other, _)| other < score) {
                below += u128::from(*more);
            }
            let equal = others.peek().filter(|(other, _)| other == score).map_or(0, |(_, n)| *n);
            doubled += u128::from(*count) * (2 * below + u128::from(equal));
        }
        let mut pairs = u128::from(self.seed.len()) * u128::from(self.others.len());
        // Beyond 64 bits both lose the same digits.
        while pairs > u128::from(u64::MAX / 2) {
            (pairs, doubled) = (pairs / 2, doubled / 2);
        }
        let (doubled, pairs) = (u64::try_from(doubled).ok()?, u64::try_from(pairs).ok()?);
        (pairs > 0).then_some(Auc { doubled, pairs })
    }
}

impl Auc {
    /// As a share: 0.5 where the score says nothing, 1 where it tells all apart.
    #[expect(clippy::cast_precision_loss, reason = "a share to be read")]
    pub fn share(self) -> f64 {
        self.doubled as f64 / self.pairs as f64 / 2.0
    }
}

/// How many are chosen of so many: the share, rounded half up, and one at least where there is one.
pub fn chosen(candidates: u64, reach: Reach) -> u64 {
    let exact = u128::from(candidates) * u128::from(reach.0);
    let rounded = (exact + 500_000) / 1_000_000;
    u64::try_from(rounded).unwrap_or(u64::MAX).max(1).min(candidates)
}

/// The score at which so many are reached, and how many of those who have it are still to be taken.
pub fn line(candidates: &Histogram, chosen: u64) -> Option<(i32, u64)> {
    let mut left = chosen;
    for (score, count) in candidates.0.iter().rev() {
        if left <= *count {
            return (left > 0).then_some((*score, left));
        }
        left -= count;
    }
    None
}

/// Of the candidates of one score whose number begins with the `bits` bits of `prefix`, how many have each of the next 16.
pub fn ties(
    shard: ShardId,
    blocks: &[Scored],
    score: i32,
    prefix: u64,
    bits: u32,
) -> BTreeMap<u16, u64> {
    let mut found = BTreeMap::new();
    each(shard, blocks, &mut |own, _, number| {
        let is_so = bits == 0 || number >> (64 - bits) == prefix;
        if own == score && is_so {
            let next = u16::try_from(number >> (48 - bits) & 0xffff).unwrap_or(u16::MAX);
            *found.entry(next).or_default() += 1;
        }
    });
    found
}

/// One step nearer to the last who is taken, from how many have each of the next 16 bits after a prefix: that profile's number,
/// or at least all numbers up to its own; else the longer prefix, with how many of it are still to be taken.
pub fn narrowed(
    found: &BTreeMap<u16, u64>,
    (prefix, bits): (u64, u32),
    wanted: &mut u64,
) -> Result<u64, (u64, u32)> {
    for (next, count) in found {
        let longer = prefix << 16 | u64::from(*next);
        let bits = bits + 16;
        if *wanted == *count {
            // All numbers that begin so.
            return Ok((longer << (64 - bits)) | u64::MAX.checked_shr(bits).unwrap_or(0));
        }
        if *wanted < *count {
            return Err((longer, bits));
        }
        *wanted -= count;
    }
    Ok(u64::MAX)
}

/// The candidates of a shard that are taken.
pub fn taken(shard: ShardId, blocks: &[Scored], cut: Cut) -> RoaringBitmap {
    let mut found = RoaringBitmap::new();
    each(shard, blocks, &mut |score, ordinal, number| {
        if score > cut.score || (score == cut.score && number <= cut.order) {
            found.insert(ordinal);
        }
    });
    found
}

/// The score, the ordinal and the number of each candidate.
fn each(shard: ShardId, blocks: &[Scored], f: &mut dyn FnMut(i32, Ordinal, u64)) {
    for (place, Scored { marks, scores }) in blocks.iter().enumerate() {
        for ((mark, score), ordinal) in marks.iter().zip(scores).zip(first(place)..) {
            if may(*mark) {
                f(*score, ordinal, order(shard, ordinal));
            }
        }
    }
}
