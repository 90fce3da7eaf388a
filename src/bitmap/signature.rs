//! Signatures: what the head of a profile tells of its traits, as a small filter that lets all pass who have one.

use super::TraitId;

/// So many traits have a bit of their own, if their numbers follow each other; a head of 32 bytes has room for no more.
const BITS: u32 = 160;
const WORDS: usize = BITS as usize / 32;

/// The place of a trait's bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bit(u32);

/// A set of traits, each with a bit that it may share with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Signature([u32; WORDS]);

impl Bit {
    /// That of a trait.
    pub fn of(id: TraitId) -> Self {
        Self(id.0 % BITS)
    }
}

impl Signature {
    /// That of whoever may have facts of all traits.
    pub const ALL: Self = Self([u32::MAX; WORDS]);

    /// That of one trait.
    pub fn of(id: TraitId) -> Self {
        let mut signature = Self::default();
        signature.set(Bit::of(id));
        signature
    }

    /// Sets a bit.
    #[inline]
    pub fn set(&mut self, bit: Bit) {
        self.0[bit.0 as usize / 32] |= 1 << (bit.0 % 32);
    }

    /// Whether a bit is set.
    #[inline]
    pub fn has(self, bit: Bit) -> bool {
        self.0[bit.0 as usize / 32] >> (bit.0 % 32) & 1 == 1
    }

    /// Whether a bit is set in both.
    #[inline]
    pub fn meets(self, other: Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |all, (one, other)| all | one & other) != 0
    }

    /// The bits that are set in one of the two.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// How many bits are set.
    pub fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}
