//! Sets of the blocks of a shard as one roaring bitmap.
//!
//! The bitmap is read from its standard form, which is written as the sets come: so nothing is looked for, and nothing
//! is grown.
//! <https://github.com/RoaringBitmap/RoaringFormatSpec>

use std::io::Read;

use roaring::RoaringBitmap;

use super::kernels;
use super::kernels::ROOM;
use super::set::BlockSet;
use super::set::words_of;
use crate::model::BLOCK;

/// A container has no more members as a list: with more it is a set of bits.
const LONGEST_LIST: usize = 4096;
/// What begins the form, where no container is of runs.
const COOKIE: u32 = 12346;

/// A bitmap that is written.
#[derive(Debug, Default)]
pub struct Roar {
    /// The number of each block with a member, and how many it has less one.
    containers: Vec<(u16, u16)>,
    data: Vec<u8>,
}

/// Memory to write with.
#[derive(Debug)]
pub struct RoarScratch(Box<[u16; ROOM]>);

impl Default for RoarScratch {
    fn default() -> Self {
        Self(vec![0; ROOM].try_into().unwrap_or_else(|_| Box::new([0; ROOM])))
    }
}

impl Roar {
    /// Writes the members of the next block. Blocks come in their order.
    pub fn put(&mut self, block: u32, set: &BlockSet, scratch: &mut RoarScratch) {
        let words = set.words();
        let count = kernels::count(words) as usize;
        let (Ok(block), Some(less)) = (u16::try_from(block), count.checked_sub(1)) else { return };
        // A block has no more than 65,536.
        self.containers.push((block, u16::try_from(less).unwrap_or(u16::MAX)));
        if count <= LONGEST_LIST {
            let is_few = count < words.len();
            let list = if is_few { kernels::list_few } else { kernels::list };
            let listed = list(words, &mut scratch.0).min(count);
            let from = self.data.len();
            self.data.resize(from + 2 * count, 0);
            for (two, ordinal) in self.data[from..].chunks_exact_mut(2).zip(&scratch.0[..listed]) {
                two.copy_from_slice(&ordinal.to_le_bytes());
            }
        } else {
            let from = self.data.len();
            self.data.resize(from + words_of(BLOCK) * 8, 0);
            for (eight, word) in self.data[from..].chunks_exact_mut(8).zip(words) {
                eight.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// The bitmap of all that was written.
    pub fn finish(self) -> RoaringBitmap {
        let Self { containers, data } = self;
        if containers.is_empty() {
            return RoaringBitmap::new();
        }
        let mut head = Vec::with_capacity(8 + containers.len() * 8);
        head.extend(COOKIE.to_le_bytes());
        // No more than numbers of 16 bits.
        head.extend(u32::try_from(containers.len()).unwrap_or(0).to_le_bytes());
        for (block, less) in &containers {
            head.extend(block.to_le_bytes());
            head.extend(less.to_le_bytes());
        }
        // Where each container begins, which is not looked at when all are read.
        head.resize(head.len() + containers.len() * 4, 0);
        let read = RoaringBitmap::deserialize_unchecked_from(head.chain(&data[..]));
        debug_assert!(read.is_ok(), "what was written is a bitmap");
        read.unwrap_or_default()
    }
}
