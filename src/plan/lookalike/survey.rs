//! The survey: which values the attributes have, so that the frequent ones become features.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use super::SUPPORT;
use super::feature::Feature;
use super::feature::Plain;
use super::feature::is_name;
use super::feature::number;
use super::feature::plain;
use super::whom::OTHER;
use super::whom::ROLES;
use super::whom::SEED;
use super::whom::Whom;
use super::whom::role;
use crate::bitmap::AttributeColumn;
use crate::bitmap::Block;
use crate::model::ShardId;
use crate::model::time::Millis;

/// A shard tells of so many attributes at most: those that the most profiles have.
const ATTRIBUTES: usize = 64;
/// A shard tells so many values of an attribute at most: the most frequent of the seed, and of the others.
const TOLD: usize = 64;
/// So many of each become features.
const VALUES: usize = 16;
/// A number's attribute becomes so many features at most, of about equally many profiles.
const BINS: u64 = 8;

/// By [`code`]: how many profiles have a number, and the least of them.
type Numbers = BTreeMap<u16, (u64, i64)>;

/// How many of the seed, and of the others, have something.
pub(super) type Pair = [u64; 2];

/// What was seen of attributes, among the profiles that are learnt from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Of the seed and of the others: learnt from, and held out.
    pub sizes: [u64; 4],
    attributes: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    plain: Vec<(Plain, Pair)>,
    numbers: Numbers,
}

impl Survey {
    /// Looks at one shard.
    pub fn of(shard: ShardId, blocks: &[Arc<Block>], whom: &Whom, now: Millis) -> Self {
        let mut sizes = [0u64; ROLES];
        let mut all: HashMap<&str, (HashMap<Plain, Pair>, Numbers)> = HashMap::new();
        for (place, block) in blocks.iter().enumerate() {
            let marks = whom.marks(shard, place, block);
            marks.iter().for_each(|mark| sizes[role(*mark)] += 1);
            for (name, column) in block.attributes().filter(|(name, _)| is_name(name)) {
                let (plains, numbers) = all.entry(name).or_default();
                let counts = counted(column, &marks, now);
                for (value, counts) in column.values().zip(counts) {
                    let of = [counts[SEED], counts[OTHER]];
                    if of == [0, 0] {
                        continue;
                    }
                    for value in plain(value) {
                        add(plains.entry(value).or_default(), of);
                    }
                    if let Some(number) = number(value) {
                        let (count, least) = numbers.entry(code(number)).or_insert((0, number));
                        *count += of[0] + of[1];
                        *least = number.min(*least);
                    }
                }
            }
        }
        let mut attributes: Vec<(String, Seen)> = all
            .into_iter()
            .map(|(name, (plains, numbers))| {
                (name.to_owned(), Seen { plain: foremost(plains, TOLD), numbers })
            })
            .filter(|(_, seen)| seen.weight() > 0)
            .collect();
        attributes
            .sort_by_cached_key(|(name, seen)| (std::cmp::Reverse(seen.weight()), name.clone()));
        attributes.truncate(ATTRIBUTES);
        let [seed, other, seed_held, other_held, _] = sizes;
        let sizes = [seed, other, seed_held, other_held];
        Self { sizes, attributes: attributes.into_iter().collect() }
    }

    /// Adds what was seen in other shards.
    pub fn add(&mut self, other: Self) {
        for (size, more) in self.sizes.iter_mut().zip(other.sizes) {
            *size += more;
        }
        for (name, seen) in other.attributes {
            let mine = self.attributes.entry(name).or_default();
            let mut plains: BTreeMap<Plain, Pair> =
                std::mem::take(&mut mine.plain).into_iter().collect();
            for (value, of) in seen.plain {
                add(plains.entry(value).or_default(), of);
            }
            mine.plain = plains.into_iter().collect();
            for (code, (more, number)) in seen.numbers {
                let (count, least) = mine.numbers.entry(code).or_insert((0, number));
                *count += more;
                *least = number.min(*least);
            }
        }
    }

    /// The features of attributes that enough profiles have, in order.
    pub fn features(&self) -> Vec<Feature> {
        let mut by_weight: Vec<(&String, &Seen)> = self.attributes.iter().collect();
        by_weight.sort_by_key(|(name, seen)| (std::cmp::Reverse(seen.weight()), *name));
        let mut features = Vec::new();
        for (attribute, seen) in by_weight.into_iter().take(ATTRIBUTES) {
            let frequent = seen.plain.iter().filter(|(_, of)| of[0] + of[1] >= SUPPORT).cloned();
            for (value, _) in foremost(frequent, VALUES) {
                features.push(Feature::Value { attribute: attribute.clone(), value });
            }
            seen.bins(attribute, &mut features);
        }
        features.sort_unstable();
        features
    }
}

impl Seen {
    /// How many values there are, of all profiles.
    fn weight(&self) -> u64 {
        let plain: u64 = self.plain.iter().map(|(_, of)| of[0] + of[1]).sum();
        plain + self.numbers.values().map(|(count, _)| count).sum::<u64>()
    }

    fn bins(&self, attribute: &str, out: &mut Vec<Feature>) {
        let total: u64 = self.numbers.values().map(|(count, _)| count).sum();
        if total < SUPPORT {
            return;
        }
        let mut edges = Vec::new();
        let mut inside = 0;
        for (count, least) in self.numbers.values() {
            if inside * BINS >= total {
                edges.push(*least);
                inside = 0;
            }
            inside += count;
        }
        let from = std::iter::once(None).chain(edges.iter().copied().map(Some));
        let to = edges.iter().copied().map(Some).chain([None]);
        for (from, to) in from.zip(to) {
            out.push(Feature::Number { attribute: attribute.to_owned(), from, to });
        }
    }
}

fn add(pair: &mut Pair, more: Pair) {
    pair[0] += more[0];
    pair[1] += more[1];
}

/// The values that the most of the seed have, and of the others, in order.
fn foremost(values: impl IntoIterator<Item = (Plain, Pair)>, most: usize) -> Vec<(Plain, Pair)> {
    let mut all: Vec<(Plain, Pair)> = values.into_iter().collect();
    all.sort_unstable();
    if all.len() <= most {
        return all;
    }
    let mut kept = BTreeMap::new();
    for whose in [SEED, OTHER] {
        // Stable: of equally frequent ones the first in order.
        all.sort_by_key(|(_, of)| std::cmp::Reverse(of[whose]));
        let frequent = all.iter().take(most).filter(|(_, of)| of[whose] > 0);
        kept.extend(frequent.cloned());
        all.sort_unstable();
    }
    kept.into_iter().collect()
}

/// How many profiles of each role have each value of a column now.
pub(super) fn counted(column: &AttributeColumn, marks: &[u8], now: Millis) -> Vec<[u64; ROLES]> {
    let mut counts = vec![[0; ROLES]; column.value_count()];
    for (mark, number) in marks.iter().zip(latest(column, marks.len(), now)) {
        if let Some(counts) = counts.get_mut(number as usize) {
            counts[role(*mark)] += 1;
        }
    }
    counts
}

/// The number of each profile's value.
pub(super) fn latest(column: &AttributeColumn, population: usize, now: Millis) -> Vec<u32> {
    let mut times = vec![0; population];
    let mut numbers = vec![AttributeColumn::NO_VALUE; population];
    column.latest(now, &mut times, &mut numbers);
    numbers
}

/// A number from 0 that grows with another: 32 steps for each doubling.
fn code(number: i64) -> u16 {
    const STEPS: u64 = 32;
    let size = number.unsigned_abs();
    let steps = if size < STEPS {
        size
    } else {
        let shift = u64::from(size.ilog2()) - u64::from(STEPS.ilog2());
        (shift + 1) * STEPS + (size >> shift) % STEPS
    };
    let steps = u16::try_from(steps).unwrap_or(u16::MAX / 4);
    let middle = u16::MAX / 2;
    if number < 0 { middle - steps } else { middle + steps }
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn larger_numbers_have_no_smaller_codes() {
        let mut numbers = vec![0, i64::MAX, i64::MIN + 1];
        for shift in 0..56 {
            for step in 0..70 {
                let number = (64 + step) << shift >> 6;
                numbers.extend([number, -number]);
            }
        }
        numbers.sort_unstable();
        for pair in numbers.windows(2) {
            assert!(code(pair[0]) <= code(pair[1]), "{pair:?}");
        }
        for whole in 1..32i64 {
            assert_ne!(code(whole * 10_000), code((whole + 1) * 10_000), "{whole}");
        }
    }
}
