//! How the set of traits changes, and how new ones get the facts of events that came before them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::engine::Engine;
use super::pin::Pin;
use super::traits::BadTrait;
use super::traits::Traits;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::ShardId;
use crate::plan::TraitSpec;

impl Engine {
    /// Folds these traits from now on and no others. The pin shows where that starts: what is new has to be
    /// filled from the archive and the journal up to its position, see [`Traits::unfilled`]; call it within
    /// [`Catalog::pin`](crate::archive::Catalog::pin).
    pub fn set_traits<'a>(
        &self,
        specs: impl IntoIterator<Item = &'a TraitSpec>,
    ) -> Result<Pin, BadTrait> {
        let mut memory = self.shared.memory.write();
        let memory = &mut *memory;
        let mut traits = Traits::clone(&memory.traits);
        let mut unwanted: BTreeSet<TraitId> = traits.ids().collect();
        let mut rows = Vec::new();
        let mut next = memory.next_trait;
        for spec in specs {
            if let Some(id) = traits.id(spec) {
                unwanted.remove(&id);
                continue;
            }
            // A store that has folded nothing has nothing to fill from.
            let whole = memory.next_record == 0;
            rows.push(traits.add(TraitId(next), spec.clone(), memory.position, whole)?);
            next += 1;
        }
        for id in unwanted {
            traits.remove(id);
            memory.shards.iter_mut().for_each(|shard| shard.drop_trait(id));
            memory.pending.dropped_traits.insert(id.0);
        }
        memory.next_trait = next;
        memory.pending.traits.extend(rows.into_iter().map(|row| (row.id, row)));
        memory.traits = Arc::new(traits);
        Ok(Pin::new(memory, memory.true_for))
    }

    /// Starts the traits that are not whole anew, after a fill that did not come to its end: what was
    /// absorbed is dropped, and the pin is where to fill from, as in [`Engine::set_traits`].
    pub fn restart_fill(&self) -> Pin {
        let mut memory = self.shared.memory.write();
        let memory = &mut *memory;
        let mut traits = Traits::clone(&memory.traits);
        for id in memory.traits.unfilled() {
            memory.shards.iter_mut().for_each(|shard| shard.drop_trait(id));
            traits.restart(id, memory.position);
        }
        memory.traits = Arc::new(traits);
        Pin::new(memory, memory.true_for)
    }

    /// Adds facts from the archive to columns of a trait that is not whole: by block of the shard. They are
    /// kept when the trait is whole. Blocks that do not exist are left out.
    pub fn absorb<'a>(
        &self,
        id: TraitId,
        shard: ShardId,
        blocks: impl IntoIterator<Item = (u16, &'a TraitColumns)>,
    ) {
        let mut memory = self.shared.memory.write();
        if memory.traits.spec(id).is_none() || memory.traits.is_whole(id) {
            return;
        }
        let Some(shard) = memory.shards.get_mut(usize::from(shard)) else { return };
        for (block, columns) in blocks {
            shard.absorb(block, id, columns);
        }
    }

    /// Says that traits hold all that the archive has, now that it was absorbed. From here on they count
    /// as whole; the next commit keeps their columns.
    pub fn mark_whole(&self, ids: impl IntoIterator<Item = TraitId>) {
        let mut memory = self.shared.memory.write();
        let memory = &mut *memory;
        let mut traits = Traits::clone(&memory.traits);
        for id in ids {
            if traits.fill(id) {
                memory.pending.filled.insert(id);
            }
        }
        memory.traits = Arc::new(traits);
    }
}
