//! What many audiences share two by two in one shard.

use std::iter::Peekable;

use roaring::RoaringBitmap;
use roaring::bitmap::Iter;

/// Ordinals of a block, and its bits in words.
const BLOCK: usize = 1 << 16;
const WORDS: usize = BLOCK / 64;
/// So few members of a block are looked up one by one.
const FEW: usize = 128;

/// The members of an audience in one block, as bits: two are compared by as many words as there are, where bitmaps
/// that keep thousands of values in a list would be merged value by value, for each of 5,000 pairs.
struct Block {
    bits: Box<[u64; WORDS]>,
    /// How many.
    members: usize,
    /// The words from here on are empty.
    end: usize,
    /// The first of them.
    few: Vec<usize>,
}

impl Block {
    fn empty() -> Self {
        Self { bits: Box::new([0; WORDS]), members: 0, end: 0, few: Vec::new() }
    }

    /// Takes the members of a block, which are the next to come.
    fn take(&mut self, block: u32, from: &mut Peekable<Iter<'_>>) {
        self.bits[..self.end].fill(0);
        self.few.clear();
        (self.members, self.end) = (0, 0);
        while let Some(ordinal) = from.next_if(|ordinal| ordinal >> 16 == block) {
            let at = ordinal as usize % BLOCK;
            self.bits[at / 64] |= 1 << (at % 64);
            self.end = at / 64 + 1;
            self.members += 1;
            if self.few.len() < FEW {
                self.few.push(at);
            }
        }
    }

    fn has(&self, at: usize) -> bool {
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }

    /// How many the two share.
    fn shared(&self, other: &Self) -> u64 {
        let (less, more) =
            if self.members <= other.members { (self, other) } else { (other, self) };
        if less.members <= FEW {
            return less.few.iter().map(|at| u64::from(more.has(*at))).sum();
        }
        let end = less.end.min(more.end);
        let words = less.bits[..end].iter().zip(&more.bits[..end]);
        words.map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }
}

/// Adds to `sizes` how many members each two of `wanted`, which are places of `audiences`, share.
pub(super) fn count(audiences: &[&RoaringBitmap], wanted: &[(usize, usize)], sizes: &mut [u64]) {
    let mut next: Vec<_> = audiences.iter().map(|audience| audience.iter().peekable()).collect();
    let mut blocks: Vec<Block> = audiences.iter().map(|_| Block::empty()).collect();
    loop {
        let first = next.iter_mut().filter_map(|next| next.peek().map(|ordinal| ordinal >> 16));
        let Some(block) = first.min() else { return };
        for (members, next) in blocks.iter_mut().zip(&mut next) {
            members.take(block, next);
        }
        for ((a, b), size) in wanted.iter().zip(&mut *sizes) {
            *size += blocks[*a].shared(&blocks[*b]);
        }
    }
}
