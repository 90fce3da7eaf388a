//! A set of ordinals of one block, as a bitset: what rules are combined from.

use roaring::RoaringBitmap;

use super::kernels;
use crate::model::BLOCK;

/// A set of 16-bit ordinals. It is as long as its largest member needs, or longer.
#[derive(Debug, Clone, Default)]
pub struct BlockSet {
    words: Vec<u64>,
}

/// How many words a population takes.
pub(super) fn words_of(population: u32) -> usize {
    (population.min(BLOCK) as usize).div_ceil(64)
}

impl BlockSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the set and makes room for ordinals below `population`.
    pub fn reset(&mut self, population: u32) {
        self.words.clear();
        self.words.resize(words_of(population), 0);
    }

    /// Makes it the set of all ordinals below `population`.
    pub fn fill(&mut self, population: u32) {
        let population = population.min(BLOCK);
        self.words.clear();
        self.words.resize(words_of(population), u64::MAX);
        if let (Some(last), rest @ 1..) = (self.words.last_mut(), population % 64) {
            *last = (1 << rest) - 1;
        }
    }

    /// Adds an ordinal.
    #[inline]
    pub fn insert(&mut self, ordinal: u16) {
        let word = usize::from(ordinal >> 6);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (ordinal & 63);
    }

    /// Adds ordinals for which there is room.
    pub(super) fn add_all(&mut self, ordinals: &[u16]) {
        kernels::add(&mut self.words, ordinals);
    }

    /// Adds an ordinal and says whether it was missing.
    #[inline]
    pub fn insert_new(&mut self, ordinal: u16) -> bool {
        let is_new = !self.contains(ordinal);
        self.insert(ordinal);
        is_new
    }

    /// Removes an ordinal.
    pub fn remove(&mut self, ordinal: u16) {
        if let Some(word) = self.words.get_mut(usize::from(ordinal >> 6)) {
            *word &= !(1 << (ordinal & 63));
        }
    }

    /// Whether an ordinal is in the set.
    #[inline]
    pub fn contains(&self, ordinal: u16) -> bool {
        self.words
            .get(usize::from(ordinal >> 6))
            .is_some_and(|word| word >> (ordinal & 63) & 1 == 1)
    }

    /// How many ordinals it has.
    pub fn len(&self) -> u32 {
        kernels::count(&self.words)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        kernels::is_empty(&self.words)
    }

    /// The ordinals in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0u16..).zip(&self.words).flat_map(|(place, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                // A word has 64 bits.
                let bit = u16::try_from(rest.trailing_zeros()).unwrap_or(0);
                rest &= rest - 1;
                Some(place * 64 + bit)
            })
        })
    }

    /// The words, 64 ordinals each, the lowest first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Makes it the set of the places whose value passes.
    #[inline]
    pub fn select<T: Copy>(&mut self, values: &[T], passes: impl Fn(T) -> bool) {
        self.words.clear();
        self.words.extend(values.chunks(64).take(words_of(BLOCK)).map(|chunk| {
            // Flags first, then bits: the compiler makes vectors of the first.
            let mut flags = [0u8; 64];
            for (flag, value) in flags.iter_mut().zip(chunk) {
                *flag = u8::from(passes(*value));
            }
            kernels::bits(&flags)
        }));
    }

    /// The words, for a scan that fills them.
    pub(super) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Makes it equal to another, keeping its memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.words.clear();
        self.words.extend_from_slice(&other.words);
    }

    /// Adds the ordinals of another set.
    pub fn union_with(&mut self, other: &Self) {
        self.union_with_words(&other.words);
    }

    pub(super) fn copy_from_words(&mut self, words: &[u64]) {
        self.words.clear();
        self.words.extend_from_slice(words);
    }

    pub(super) fn union_with_words(&mut self, words: &[u64]) {
        if self.words.len() < words.len() {
            self.words.resize(words.len(), 0);
        }
        kernels::union(&mut self.words, words);
    }

    /// Keeps the ordinals that are in another set too.
    pub fn intersect_with(&mut self, other: &Self) {
        self.words.truncate(other.words.len());
        kernels::intersect(&mut self.words, &other.words);
    }

    /// Removes the ordinals of another set.
    pub fn subtract(&mut self, other: &Self) {
        self.subtract_words(&other.words);
    }

    pub(super) fn subtract_words(&mut self, words: &[u64]) {
        kernels::subtract(&mut self.words, words);
    }

    /// Makes it its complement among the ordinals below `population`.
    pub fn complement(&mut self, population: u32) {
        let population = population.min(BLOCK);
        self.words.resize(words_of(population), 0);
        for word in &mut self.words {
            *word = !*word;
        }
        if let (Some(last), rest @ 1..) = (self.words.last_mut(), population % 64) {
            *last &= (1 << rest) - 1;
        }
    }

    /// The set as a roaring bitmap of a shard's ordinals; `bytes` is scratch.
    pub fn to_roaring(&self, block: u32, bytes: &mut Vec<u8>) -> RoaringBitmap {
        bytes.resize(self.words.len() * 8, 0);
        for (eight, word) in bytes.chunks_exact_mut(8).zip(&self.words) {
            eight.copy_from_slice(&word.to_le_bytes());
        }
        RoaringBitmap::from_lsb0_bytes(block * BLOCK, bytes)
    }
}

impl FromIterator<u16> for BlockSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ordinals: I) -> Self {
        let mut set = Self::new();
        for ordinal in ordinals {
            set.insert(ordinal);
        }
        set
    }
}

/// Sets are equal when their members are.
impl PartialEq for BlockSet {
    fn eq(&self, other: &Self) -> bool {
        let length = self.words.len().min(other.words.len());
        let rest = self.words[length..].iter().chain(&other.words[length..]);
        self.words[..length] == other.words[..length] && rest.into_iter().all(|word| *word == 0)
    }
}

impl Eq for BlockSet {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sets_agree_with_an_ordered_set(
            a in proptest::collection::btree_set(0u16..300, 0..40),
            b in proptest::collection::btree_set(0u16..300, 0..40),
            population in 300u32..400,
        ) {
            let set = |s: &BTreeSet<u16>| s.iter().copied().collect::<BlockSet>();
            let (left, right) = (set(&a), set(&b));
            let mut union = left.clone();
            union.union_with(&right);
            prop_assert_eq!(&union, &set(&(&a | &b)));
            let mut both = left.clone();
            both.intersect_with(&right);
            prop_assert_eq!(&both, &set(&(&a & &b)));
            let mut less = left.clone();
            less.subtract(&right);
            prop_assert_eq!(&less, &set(&(&a - &b)));
            let mut other = left.clone();
            other.complement(population);
            prop_assert_eq!(u64::from(other.len()) + a.len() as u64, u64::from(population));
            other.complement(population);
            prop_assert_eq!(&other, &left);
            prop_assert_eq!(left.iter().collect::<Vec<_>>(), a.iter().copied().collect::<Vec<_>>());
            let mut bytes = Vec::new();
            let roaring: Vec<u32> = left.to_roaring(2, &mut bytes).into_iter().collect();
            prop_assert_eq!(roaring, a.iter().map(|o| 131_072 + u32::from(*o)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_full_block_is_full() {
        let mut set = BlockSet::new();
        set.fill(BLOCK);
        assert_eq!(set.len(), BLOCK);
        assert!(set.contains(u16::MAX));
        set.complement(BLOCK);
        assert!(set.is_empty());
    }
}
