//! What the engine knows of erasure: whether an event is of someone who was erased, and how what the store has of them
//! is written over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::engine::Engine;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Print;
use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::suppression::Suppression;

impl Engine {
    /// Whether an event is of an identifier that was erased, and of before that.
    pub fn is_erased(&self, event: &Event) -> bool {
        self.shared.options.suppression.takes(self.shared.keys.identity(), event)
    }

    /// What was erased.
    pub fn suppression(&self) -> &Suppression {
        &self.shared.options.suppression
    }

    /// The hash that an identifier is known by once it is erased.
    pub fn print(&self, identifier: &Identifier) -> Print {
        self.shared.keys.print(identifier.namespace.as_str(), identifier.value())
    }

    /// The shard of the profile that an identifier owns, or would, of which the hash alone is known.
    pub fn shard_of_print(&self, print: Print) -> ShardId {
        self.shared.keys.place_of(print).shard
    }

    /// Whether something has come since it was last asked that is of someone who was erased: it is not counted, and lies
    /// in the journal.
    pub fn take_late(&self) -> bool {
        self.shared.late.swap(false, Ordering::AcqRel)
    }

    /// How many profiles were erased since the start. What was read of profiles while it was another number may have
    /// facts of one that is gone.
    pub fn erasures(&self) -> u64 {
        self.shared.memory.read().erased
    }

    /// Writes over what the store keeps of what is gone.
    pub fn scrub(&self) -> Result<(), StoreError> {
        self.shared.state.scrub()
    }

    /// Makes images in the place of all that some shards have gained, so that nothing is left in the store of what
    /// they have lost; tells whether that was done in time.
    pub fn compact(&self, shards: &[ShardId], timeout: Duration) -> bool {
        let shared = &self.shared;
        let wishes: Vec<(ShardId, u64)> = {
            let mut wanted = shared.wanted.lock();
            let last = wanted.values().max().copied().unwrap_or_default();
            let wishes = shards.iter().copied().zip(last + 1..);
            wishes.inspect(|(shard, number)| _ = wanted.insert(*shard, *number)).collect()
        };
        shared.wait(timeout, |_| {
            let wanted = shared.wanted.lock();
            // A later wish for the same shard is fulfilled after this one.
            let is_open = |(shard, number): &&(ShardId, u64)| {
                wanted.get(shard).is_some_and(|open| open >= number)
            };
            let Some((next, _)) = wishes.iter().find(is_open) else { return true };
            shared.compact.lock().get_or_insert(*next);
            shared.asked.store(true, Ordering::Release);
            false
        })
    }
}
