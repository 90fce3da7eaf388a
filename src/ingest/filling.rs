//! How the set of traits changes, and how new ones get the facts of events that came before them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::Engine;
use super::pin::Pin;
use super::traits::BadTrait;
use super::traits::Traits;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::Millis;
use crate::model::ShardId;
use crate::plan::TraitSpec;

impl Engine {
    /// Folds these traits from now on and no others, as [`Engine::ask_traits`] without grace does.
    pub fn set_traits<'a>(
        &self,
        specs: impl IntoIterator<Item = &'a TraitSpec>,
    ) -> Result<Pin, BadTrait> {
        self.ask_traits(specs, 0, 0)
    }

    /// Folds these traits from now on, and for as long as `grace` those that were asked before: who asks one again
    /// finds it whole. The pin shows where that starts: what is new has to be
    /// filled from the archive and the journal up to its position, see [`Traits::unfilled`]; call it within
    /// [`Catalog::pin`](crate::archive::Catalog::pin).
    pub fn ask_traits<'a>(
        &self,
        specs: impl IntoIterator<Item = &'a TraitSpec>,
        now: Millis,
        grace: Millis,
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
                rows.extend(traits.ask(id));
                continue;
            }
            // A store that has folded nothing has nothing to fill from.
            let whole = memory.next_record == 0;
            rows.push(traits.add(TraitId(next), spec.clone(), memory.position, whole)?);
            next += 1;
        }
        for id in unwanted {
            if let Some(row) = traits.unask(id, now, grace) {
                rows.push(row);
                continue;
            }
            traits.remove(id);
            memory.shards.iter_mut().for_each(|shard| shard.drop_trait(id));
            memory.pending.dropped_traits.insert(id.0);
        }
        memory.next_trait = next;
        memory.pending.traits.extend(rows.into_iter().map(|row| (row.id, row)));
        memory.traits = Arc::new(traits);
        Ok(Pin::new(memory, memory.true_for))
    }

    /// What is the store's alone, and is no key.
    pub fn mark_of_store(&self) -> [u64; 2] {
        self.shared.keys.hash(b"store", &[])
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
    /// as whole; the next commit keeps their columns, and its number is returned.
    pub fn mark_whole(&self, ids: impl IntoIterator<Item = TraitId>) -> u64 {
        let mut memory = self.shared.memory.write();
        let memory = &mut *memory;
        let mut traits = Traits::clone(&memory.traits);
        for id in ids {
            if traits.fill(id) {
                memory.pending.filled.insert(id);
            }
        }
        memory.traits = Arc::new(traits);
        memory.commit + 1
    }

    /// Asks for a commit, and waits until the one of this number is kept; tells whether it is.
    pub fn wait_for_commit(&self, number: u64, timeout: Duration) -> bool {
        self.shared.wait(timeout, |progress| {
            let is_kept = progress.committed.commit >= number;
            if !is_kept {
                self.shared.asked.store(true, Ordering::Release);
            }
            is_kept
        })
    }
}
