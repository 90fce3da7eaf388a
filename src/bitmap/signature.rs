//! Signatures: what the head of a profile tells of its traits, as a small filter that lets all pass who have one.

use super::TraitId;

/// So many traits have a bit of their own, if their numbers follow each other; a head of 32 bytes has room for no more.
const BITS: u32 = 160;
const WORDS: usize = BITS.div_ceil(u64::BITS) as usize;

/// A signature where it is kept, in less room.
pub(super) type Kept = [u32; BITS as usize / 32];

/// The place of a trait's bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bit(u32);

/// A set of traits, each with a bit that it may share with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Signature([u64; WORDS]);

impl Bit {
    /// That of a trait.
    pub fn of(id: TraitId) -> Self {
        Self(id.0 % BITS)
    }
}

impl Signature {
    /// That of whoever may have facts of all traits.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// That of one trait.
    pub fn of(id: TraitId) -> Self {
        let mut signature = Self::default();
        signature.set(Bit::of(id));
        signature
    }

    /// Sets a bit.
    #[inline]
    pub fn set(&mut self, bit: Bit) {
        self.0[bit.0 as usize / 64] |= 1 << (bit.0 % 64);
    }

    /// Whether a bit is set.
    #[inline]
    pub fn has(self, bit: Bit) -> bool {
        self.0[bit.0 as usize / 64] >> (bit.0 % 64) & 1 == 1
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

    #[inline]
    pub(super) fn kept([a, b, c, d, e]: Kept) -> Self {
        let [a, b, c, d, e] = [a, b, c, d, e].map(u64::from);
        Self([a | b << 32, c | d << 32, e])
    }

    /// Sets a bit of one that is kept.
    #[inline]
    pub(super) fn set_kept(kept: &mut Kept, bit: Bit) {
        kept[bit.0 as usize / 32] |= 1 << (bit.0 % 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trait_has_its_bit_and_none_of_those_near_it() {
        for id in [0, 1, 31, 32, 63, 64, 127, 128, 159, 160, 1000, u32::MAX].map(TraitId) {
            let (one, mut kept) = (Signature::of(id), Kept::default());
            Signature::set_kept(&mut kept, Bit::of(id));
            assert_eq!(Signature::kept(kept), one);
            assert!(one.has(Bit::of(id)) && one.meets(one) && one.count() == 1);
            for other in (1..BITS).map(|more| TraitId(id.0.wrapping_sub(more))) {
                let is_same = id.0 % BITS == other.0 % BITS;
                let other = Signature::of(other);
                assert_eq!(one.meets(other), is_same);
                assert_eq!(one.union(other).count(), if is_same { 1 } else { 2 });
            }
        }
        assert!(Signature::ALL.meets(Signature::of(TraitId(159))));
        assert!(!Signature::ALL.meets(Signature::default()));
    }
}
