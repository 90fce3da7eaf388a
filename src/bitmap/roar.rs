//! Sets of the blocks of a shard as one roaring bitmap.
//!
//! The bitmap is read from its standard form, which is written as the sets come: so nothing is looked for, and nothing
//! is grown.
//! <https://github.com/RoaringBitmap/RoaringFormatSpec>

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
#[derive(Debug)]
pub struct Roar {
    /// The number of each block with a member, and how many it has less one.
    containers: Vec<(u16, u16)>,
    /// The containers, after room for what begins the form.
    bytes: Vec<u8>,
    room: usize,
}

/// Memory to write with, and that bitmaps were written to.
#[derive(Debug)]
pub struct RoarScratch {
    list: Box<[u16; ROOM]>,
    spare: Vec<Vec<u8>>,
}

impl Default for RoarScratch {
    fn default() -> Self {
        let list = vec![0; ROOM].try_into().unwrap_or_else(|_| Box::new([0; ROOM]));
        Self { list, spare: Vec::new() }
    }
}

impl Roar {
    /// A bitmap of no more than so many blocks.
    pub fn of(blocks: usize, scratch: &mut RoarScratch) -> Self {
        let room = head_of(blocks);
        let mut bytes = scratch.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.resize(room, 0);
        Self { containers: Vec::new(), bytes, room }
    }

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
            let listed = list(words, &mut scratch.list).min(count);
            let from = self.bytes.len();
            self.bytes.resize(from + 2 * count, 0);
            for (two, ordinal) in
                self.bytes[from..].as_chunks_mut::<2>().0.iter_mut().zip(&scratch.list[..listed])
            {
                *two = ordinal.to_le_bytes();
            }
        } else {
            let from = self.bytes.len();
            self.bytes.resize(from + words_of(BLOCK) * 8, 0);
            for (eight, word) in self.bytes[from..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *eight = word.to_le_bytes();
            }
        }
    }

    /// The bitmap of all that was written.
    pub fn finish(self, scratch: &mut RoarScratch) -> RoaringBitmap {
        let Self { containers, mut bytes, room } = self;
        let Some(start) = room.checked_sub(head_of(containers.len())) else {
            debug_assert!(false, "there are no more blocks than was said");
            return RoaringBitmap::new();
        };
        if containers.is_empty() {
            return RoaringBitmap::new();
        }
        // No more than numbers of 16 bits. Where each container begins stays 0: it is not looked at when all are read.
        let count = u32::try_from(containers.len()).unwrap_or(0);
        let each = containers.iter().flat_map(|(block, less)| [*block, *less]);
        let head = [COOKIE, count].into_iter().flat_map(u32::to_le_bytes);
        let head = head.chain(each.flat_map(u16::to_le_bytes));
        bytes[start..].iter_mut().zip(head).for_each(|(byte, said)| *byte = said);
        let read = RoaringBitmap::deserialize_unchecked_from(&bytes[start..]);
        debug_assert!(read.is_ok(), "what was written is a bitmap");
        scratch.spare.push(bytes);
        read.unwrap_or_default()
    }
}

/// The bytes before the first of so many containers.
fn head_of(containers: usize) -> usize {
    8 + containers * 8
}
