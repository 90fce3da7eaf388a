//! The rows of a shard, kept from one time that its rules are asked to the next.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::came::ByBlock;
use super::dirty::Fact;
use super::dirty::MOST;
use crate::bitmap::Block;
use crate::bitmap::Rows;
use crate::model::BLOCK;

/// The rows of a shard's blocks, as far as they were made.
#[derive(Debug, Default)]
pub struct ShardRows {
    blocks: Vec<Option<Rows>>,
    /// Facts that the columns have got since, and the rows have not: they are added block by block, so that what is
    /// looked at next is at hand.
    came: Vec<Fact>,
}

impl ShardRows {
    /// Forgets all: they are made of the columns when they are needed.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.came.clear();
    }

    /// Adds facts that the columns have got, each of a profile.
    pub fn add(&mut self, facts: &[Fact]) {
        if self.blocks.iter().all(Option::is_none) {
            // Those that are made of the columns will have them.
            return;
        }
        match self.came.len() + facts.len() {
            0..=MOST => self.came.extend_from_slice(facts),
            _ => self.clear(),
        }
    }

    /// Forgets the rows of the blocks of profiles whose facts were taken out of the columns.
    pub fn forget(&mut self, erased: &RoaringBitmap) {
        let mut from = 0;
        while let Some(ordinal) = erased.range(from..).next() {
            let block = ordinal / BLOCK;
            if let Some(slot) = self.blocks.get_mut(block as usize) {
                *slot = None;
            }
            let Some(next) = (block + 1).checked_mul(BLOCK) else { return };
            from = next;
        }
    }

    /// The bytes of memory they take, about.
    pub fn memory(&self) -> usize {
        let rows: usize = self.blocks.iter().flatten().map(Rows::memory).sum();
        rows + self.came.capacity() * size_of::<Fact>()
    }

    /// Brings the rows there are up to the columns of these blocks.
    pub(super) fn settle(&mut self, blocks: &[Arc<Block>]) {
        if self.blocks.iter().any(Option::is_some) {
            let came = ByBlock::new(&self.came, blocks);
            for (number, slot) in (0u32..).zip(&mut self.blocks).take(blocks.len()) {
                let Some(rows) = slot else { continue };
                let came = came.of(number);
                rows.fetch_heads(came.runs.iter().map(|run| run.ordinal));
                let mut facts = came.runs.iter().flat_map(|run| {
                    came.facts(run).iter().map(|(_, id, time)| (run.ordinal, *id, *time))
                });
                if !facts.all(|(ordinal, id, time)| rows.add(ordinal, id, time)) {
                    *slot = None;
                }
            }
        }
        self.came.clear();
    }

    /// The rows of a block. They are made where they are missing, if they can be.
    pub(super) fn of(&mut self, number: usize, block: &Block) -> Option<&Rows> {
        if self.blocks.len() <= number {
            self.blocks.resize_with(number + 1, || None);
        }
        let slot = &mut self.blocks[number];
        if slot.is_none() {
            *slot = Rows::of(block);
        }
        slot.as_ref()
    }
}
