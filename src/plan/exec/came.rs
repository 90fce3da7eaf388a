//! The facts that came to a shard, by block and profile.

use std::sync::Arc;

use super::dirty::Fact;
use super::dirty::low;
use crate::bitmap::Block;
use crate::model::BLOCK;

/// Facts of one profile that came one after the other, as those of an event do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    /// The profile, within its block.
    pub(super) ordinal: u16,
    /// Where they lie among those of the shard: from here to before there.
    from: u32,
    to: u32,
}

/// The facts that came to a shard, in their order; and the runs of each block, in theirs.
#[derive(Debug)]
pub(super) struct ByBlock<'a> {
    facts: &'a [Fact],
    /// Where the runs of each block end.
    ends: Vec<usize>,
    runs: Vec<Run>,
}

/// What came to a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came<'a> {
    pub(super) runs: &'a [Run],
    facts: &'a [Fact],
}

impl<'a> ByBlock<'a> {
    /// Those of the profiles that the blocks have.
    pub(super) fn new(facts: &'a [Fact], blocks: &[Arc<Block>]) -> Self {
        let populations: Vec<u32> = blocks.iter().map(|block| block.population()).collect();
        let place = |ordinal: u32| {
            let number = (ordinal / BLOCK) as usize;
            populations.get(number).is_some_and(|all| ordinal % BLOCK < *all).then_some(number)
        };
        // No more are given than 32 bits count.
        let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let mut all: Vec<(u32, u32)> = Vec::with_capacity(facts.len());
        // Where the next of each block goes: in the end, where those of each block end.
        let mut next = vec![0; populations.len() + 1];
        let mut last = None;
        for (from, (ordinal, ..)) in facts.iter().enumerate() {
            if last.replace(*ordinal) == Some(*ordinal) {
                continue;
            }
            all.push((*ordinal, at(from)));
            if let Some(number) = place(*ordinal) {
                next[number + 1] += 1;
            }
        }
        let mut sum = 0;
        for count in &mut next {
            sum += *count;
            *count = sum;
        }
        let mut runs = vec![Run::default(); sum];
        let ends = all.iter().skip(1).map(|(_, from)| *from).chain([at(facts.len())]);
        for ((ordinal, from), to) in all.iter().zip(ends) {
            if let Some(number) = place(*ordinal) {
                runs[next[number]] = Run { ordinal: low(*ordinal), from: *from, to };
                next[number] += 1;
            }
        }
        next.truncate(populations.len());
        Self { facts, ends: next, runs }
    }

    /// Those of a block.
    pub(super) fn of(&self, number: u32) -> Came<'_> {
        let number = number as usize;
        let from = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        Came { runs: &self.runs[from..self.ends[number]], facts: self.facts }
    }
}

impl<'a> Came<'a> {
    /// The facts of a run.
    #[inline]
    pub(super) fn facts(self, run: &Run) -> &'a [Fact] {
        &self.facts[run.from as usize..run.to as usize]
    }
}
