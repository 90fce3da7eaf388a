//! Columns made beside the fold: of traits that are filled, and of rules that no segment asks.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::bitmap::Snapshot;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::ShardId;

/// The columns of some traits, by shard, block and trait.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    shards: Vec<Vec<BTreeMap<TraitId, TraitColumns>>>,
}

impl Columns {
    /// No columns yet, for a store of so many shards.
    pub(super) fn new(shards: usize) -> Self {
        Self { shards: vec![Vec::new(); shards] }
    }

    /// Adds a fact.
    pub(super) fn add(
        &mut self,
        (shard, ordinal): (ShardId, Ordinal),
        id: TraitId,
        time: Millis,
        value: Option<Measure>,
    ) {
        let Some(blocks) = self.shards.get_mut(usize::from(shard)) else { return };
        let block = usize::try_from(ordinal / BLOCK).expect("a block's number is 16 bits");
        let within = u16::try_from(ordinal % BLOCK).expect("a block has 65,536 ordinals");
        if blocks.len() <= block {
            blocks.resize_with(block + 1, BTreeMap::new);
        }
        blocks[block].entry(id).or_default().add(within, time, value);
    }

    /// Puts the columns of some traits into a snapshot, beside its own.
    pub(super) fn apply(&self, snapshot: &mut Snapshot, asked: &BTreeSet<TraitId>) {
        for (blocks, made) in snapshot.shards.iter_mut().zip(&self.shards) {
            for (block, traits) in blocks.iter_mut().zip(made) {
                let mut asked = traits.iter().filter(|(id, _)| asked.contains(id)).peekable();
                if asked.peek().is_none() {
                    continue;
                }
                let block = Arc::make_mut(block);
                for (id, columns) in asked {
                    block.merge_trait(*id, columns);
                }
            }
        }
    }

    /// Takes in the columns of other traits.
    pub(super) fn join(&mut self, other: Self) {
        self.shards.resize_with(self.shards.len().max(other.shards.len()), Vec::new);
        for (own, other) in self.shards.iter_mut().zip(other.shards) {
            own.resize_with(own.len().max(other.len()), BTreeMap::new);
            for (own, other) in own.iter_mut().zip(other) {
                own.extend(other);
            }
        }
    }

    /// About how many bytes of memory the columns take.
    pub(super) fn memory(&self) -> usize {
        self.shards.iter().flatten().flat_map(BTreeMap::values).map(TraitColumns::memory).sum()
    }

    /// The columns of one trait in one shard, by block.
    pub(super) fn of(
        &self,
        id: TraitId,
        shard: ShardId,
    ) -> impl Iterator<Item = (u16, &TraitColumns)> {
        let blocks = self.shards.get(usize::from(shard)).map(Vec::as_slice).unwrap_or_default();
        (0u16..).zip(blocks).filter_map(move |(block, traits)| Some((block, traits.get(&id)?)))
    }
}
