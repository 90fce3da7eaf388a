//! From counts to weights.

use serde::Deserialize;
use serde::Serialize;

use super::count::Counts;
use super::feature::Feature;

/// A feature that fewer profiles have, of the seed and the others together, says nothing.
pub const SUPPORT: u64 = 10;
/// A weight of so much doubles the odds.
pub const UNIT: i32 = 64;
/// No feature weighs more, either way: 256 times as likely.
const HEAVIEST: i64 = 8 * UNIT as i64;
/// So many features are used at most.
const MOST: usize = 200;
/// So many profiles, with the feature as frequent as among all, are added to both sides, so that few profiles say little.
const PRIOR: u128 = 10;

/// A feature, how many have it, and what it weighs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// How many of the seed have it, of those that were learnt from.
    pub seed: u64,
    /// How many of the others.
    pub others: u64,
    /// What it adds to a score, in 1/[`UNIT`] of a doubling of the odds; 0 where it is not used.
    pub weight: i32,
    /// The rule of the seed asks for it, so it is not used.
    pub asked: bool,
}

/// What was learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// How many profiles it was learnt from, of the seed and of the others.
    pub sizes: [u64; 2],
    /// The features, those first that tell the most.
    pub rows: Vec<Row>,
}

impl Learnt {
    /// The features that are used, with their weights.
    pub fn weights(&self) -> Vec<(Feature, i32)> {
        let used = self.rows.iter().filter(|row| row.weight != 0);
        used.map(|row| (row.feature.clone(), row.weight)).collect()
    }
}

/// Learns what each feature weighs; `is_asked` tells those that the seed's own rule asks for.
///
/// What was done adds the logarithm of how many times its odds are higher in the seed; a value of an attribute, of which a
/// profile has one, that of how many times it is more frequent.
pub fn learn(features: &[Feature], counts: &Counts, is_asked: &dyn Fn(&Feature) -> bool) -> Learnt {
    let [seed_size, others_size] = counts.sizes;
    let mut rows: Vec<(u128, Row)> = Vec::new();
    for (feature, [seed, others]) in features.iter().zip(&counts.features) {
        let (seed, others) = (*seed, *others);
        if seed + others < SUPPORT {
            continue;
        }
        let weight = weight(feature, [seed, others], counts.sizes);
        let asked = is_asked(feature);
        // By how much it moves scores: its weight, and the shares of those who have it.
        let told = u128::from(weight.unsigned_abs())
            * (u128::from(seed) * u128::from(others_size)
                + u128::from(others) * u128::from(seed_size));
        let feature = feature.clone();
        rows.push((told, Row { feature, seed, others, weight, asked }));
    }
    rows.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.feature.cmp(&other.feature)));
    let mut used = 0;
    let rows = rows.into_iter().filter_map(|(_, mut row)| {
        if row.asked {
            row.weight = 0;
            return Some(row);
        }
        used += 1;
        (used <= MOST).then_some(row)
    });
    Learnt { sizes: counts.sizes, rows: rows.collect() }
}

fn weight(feature: &Feature, having: [u64; 2], sizes: [u64; 2]) -> i32 {
    let [seed, others] = having.map(u128::from);
    let [seed_size, others_size] = sizes.map(u128::from);
    let all = seed_size + others_size;
    // The shares of both, each over the same denominator but for its size.
    let share = |count: u128, of: u128| count * all + PRIOR * of;
    let has = seed + others;
    let up = log2(share(seed, has) * (others_size + PRIOR));
    let down = log2(share(others, has) * (seed_size + PRIOR));
    let mut weight = up - down;
    if matches!(feature, Feature::Did(_)) && has < all {
        let has_not = all - has;
        let up = log2(share(seed_size - seed, has_not) * (others_size + PRIOR));
        let down = log2(share(others_size - others, has_not) * (seed_size + PRIOR));
        weight -= up - down;
    }
    let unit = 1i64 << (FRACTION - UNIT.ilog2());
    let rounded = (weight + unit / 2).div_euclid(unit);
    i32::try_from(rounded.clamp(-HEAVIEST, HEAVIEST)).unwrap_or(0)
}

/// Places after the point of [`log2`].
const FRACTION: u32 = 24;

/// The logarithm of a number above 0, digit by digit.
fn log2(number: u128) -> i64 {
    let whole = number.max(1).ilog2();
    // From 1 to 2, with 63 places after the point.
    let mut rest = if whole > 63 { number >> (whole - 63) } else { number.max(1) << (63 - whole) };
    let mut log = i64::from(whole);
    for _ in 0..FRACTION {
        rest = (rest * rest) >> 63;
        log <<= 1;
        if rest >> 64 > 0 {
            rest >>= 1;
            log |= 1;
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithm_is_what_floats_say() {
        for number in [1u128, 2, 3, 5, 7, 1000, 12_345_678_901, 1 << 90, (1 << 100) + 12_345] {
            #[expect(clippy::cast_precision_loss, reason = "floats are what it is held against")]
            let (exact, found) =
                ((number as f64).log2(), log2(number) as f64 / f64::from(1 << FRACTION));
            assert!((exact - found).abs() < 1e-5, "{number}: {exact} {found}");
        }
    }

    #[test]
    fn a_weight_doubles_the_odds_and_few_say_little() {
        let value =
            Feature::Value { attribute: "a".into(), value: super::super::Plain::Bool(true) };
        let did = Feature::Did("did a".into());
        let sizes = [1_000_000, 100_000_000];
        // Twice as frequent, four times, and a fourth.
        assert_eq!(weight(&value, [20_000, 1_000_000], sizes), UNIT);
        assert_eq!(weight(&value, [40_000, 1_000_000], sizes), 2 * UNIT);
        assert_eq!(weight(&value, [2_500, 1_000_000], sizes), -2 * UNIT);
        // From one in three to two in three the odds are four times as high.
        assert_eq!(weight(&did, [200_000, 10_000_000], [300_000, 30_000_000]), 2 * UNIT);
        assert_eq!(weight(&did, [300_000, 30_000_000], [300_000, 30_000_000]), 0);
        // Nobody of a small seed has it: it weighs, but not more than the seed can say.
        assert!((-4 * UNIT..-2 * UNIT).contains(&weight(
            &value,
            [0, 1_000_000],
            [100, 10_000_000]
        )));
        assert!(weight(&value, [0, 10], [100, 10_000_000]).abs() <= 4 * UNIT);
    }
}
