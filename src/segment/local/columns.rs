//! Columns made beside the fold: of traits that are filled, and of rules that no segment asks.

use std::collections::BTreeMap;
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

    /// Puts the columns into a snapshot, beside its own.
    pub(super) fn apply(&self, snapshot: &mut Snapshot) {
        for (blocks, made) in snapshot.shards.iter_mut().zip(&self.shards) {
            for (block, traits) in blocks.iter_mut().zip(made) {
                if traits.is_empty() {
                    continue;
                }
                let block = Arc::make_mut(block);
                for (id, columns) in traits {
                    block.merge_trait(*id, columns);
                }
            }
        }
    }

    /// Adds the facts of other columns.
    pub(super) fn merge(&mut self, other: &Self) {
        self.shards.resize_with(self.shards.len().max(other.shards.len()), Vec::new);
        for (own, other) in self.shards.iter_mut().zip(&other.shards) {
            own.resize_with(own.len().max(other.len()), BTreeMap::new);
            for (own, other) in own.iter_mut().zip(other) {
                for (id, columns) in other {
                    own.entry(*id).or_default().merge(columns);
                }
            }
        }
    }

    /// Parts the columns by trait; one without facts has none.
    pub(super) fn split(self) -> BTreeMap<TraitId, Self> {
        let mut split: BTreeMap<TraitId, Self> = BTreeMap::new();
        let count = self.shards.len();
        for (shard, blocks) in self.shards.into_iter().enumerate() {
            for (block, traits) in blocks.into_iter().enumerate() {
                for (id, columns) in traits {
                    let own = split.entry(id).or_insert_with(|| Self::new(count));
                    own.shards[shard].resize_with(block + 1, BTreeMap::new);
                    own.shards[shard][block].insert(id, columns);
                }
            }
        }
        split
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
