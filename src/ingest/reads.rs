//! What others read from the engine beside pins: identifiers of many profiles, dead letters, metrics.

use std::collections::HashSet;

use roaring::RoaringBitmap;

use super::engine::Engine;
use super::engine::Health;
use super::memory::Memory;
use super::packed::unpack;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::state::DeadLetter;

/// Profiles read at a time: the fold waits no longer than that takes.
const AT_A_TIME: usize = 1024;

impl Engine {
    /// Gives the identifiers of profiles of a shard, the owner of each and then its others.
    pub fn each_identifier(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        each: &mut dyn FnMut(&Identifier),
    ) {
        let mut found = Vec::new();
        self.in_turns(
            shard,
            profiles,
            &mut |memory, ordinals| {
                found.clear();
                let dictionary = &memory.shards[usize::from(shard)].dictionary;
                for ordinal in ordinals {
                    let owner = dictionary.owner(*ordinal);
                    let others = dictionary.others_of(*ordinal);
                    for packed in owner.into_iter().chain(others) {
                        found.extend(memory.namespaces.identifier(packed));
                    }
                }
                std::mem::take(&mut found)
            },
            &mut |identifiers: Vec<Identifier>| {
                identifiers.iter().for_each(&mut *each);
                true
            },
        );
    }

    /// Gives the values that profiles hold in a namespace, each once, in no order, until `each` says that it
    /// wants no more. `profiles` has a bitmap for each shard.
    pub fn members_of(
        &self,
        profiles: &[RoaringBitmap],
        namespace: &Namespace,
        each: &mut dyn FnMut(&str) -> bool,
    ) {
        let Some(number) = self.shared.memory.read().namespaces.get(namespace.as_str()) else {
            return;
        };
        // An owner is there once; only a value that others hold too can come twice. Kept are keyed hashes
        // of 128 bits: among billions no two are equal, and nobody can make two.
        let mut shared: HashSet<[u64; 2]> = HashSet::new();
        let hash = |value: &str| self.shared.keys.hash(b"member", &[value.as_bytes()]);
        let mut wanted = true;
        for is_first_pass in [true, false] {
            for (shard, profiles) in (0..).zip(profiles) {
                let mut read = |memory: &Memory, ordinals: &[Ordinal]| {
                    let dictionary = &memory.shards[usize::from(shard)].dictionary;
                    let mut values: Vec<Box<str>> = Vec::new();
                    let mut take = |packed: &[u8]| {
                        if let Ok((of, value)) = unpack(packed)
                            && of == number
                        {
                            values.push(value.into());
                        }
                    };
                    for ordinal in ordinals {
                        if is_first_pass {
                            dictionary.others_of(*ordinal).into_iter().for_each(&mut take);
                        } else {
                            dictionary.owner(*ordinal).into_iter().for_each(&mut take);
                        }
                    }
                    values
                };
                self.in_turns(shard, profiles, &mut read, &mut |values: Vec<Box<str>>| {
                    for value in values {
                        let is_new = if is_first_pass {
                            shared.insert(hash(&value))
                        } else {
                            shared.is_empty() || !shared.contains(&hash(&value))
                        };
                        if is_new {
                            wanted = each(&value);
                        }
                        if !wanted {
                            return false;
                        }
                    }
                    true
                });
                if !wanted {
                    return;
                }
            }
        }
    }

    /// Reads profiles some at a time, and gives what was read after the memory has been let go.
    fn in_turns<T>(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        read: &mut dyn FnMut(&Memory, &[Ordinal]) -> T,
        give: &mut dyn FnMut(T) -> bool,
    ) {
        let mut profiles = profiles.iter();
        loop {
            let ordinals: Vec<Ordinal> = profiles.by_ref().take(AT_A_TIME).collect();
            if ordinals.is_empty() {
                return;
            }
            let read = {
                let memory = self.shared.memory.read();
                if memory.shards.get(usize::from(shard)).is_none() {
                    return;
                }
                read(&memory, &ordinals)
            };
            if !give(read) {
                return;
            }
        }
    }

    /// One dead letter.
    pub fn dead_letter(&self, event: EventNo) -> Result<Option<DeadLetter>, StoreError> {
        self.shared.state.dead_letter(event)
    }

    /// Deletes dead letters; tells how many there were.
    pub fn drop_dead_letters(&self, events: &[EventNo]) -> Result<u64, StoreError> {
        self.shared.state.drop_dead_letters(events)
    }

    /// The number of a new generation: larger than any before, over restarts too.
    pub fn next_generation(&self) -> Result<u64, StoreError> {
        // Numbers are set aside by the thousand, so that most cost no write.
        let mut numbers = self.generations.lock();
        if let Some(number) = numbers.next() {
            return Ok(number);
        }
        let first = self.shared.state.reserve_generations(1000)?;
        *numbers = first..first + 1000;
        numbers.next().ok_or_else(|| unreachable!("a thousand numbers were set aside"))
    }

    /// What stands in the way of taking events, if anything does.
    pub fn trouble(&self) -> Option<String> {
        match self.health() {
            Health::FoldWaits(reason) => Some(reason),
            // Events are taken and folded; the commit is tried again.
            Health::CommitWaits(_) | Health::Well => None,
        }
    }

    /// Sets the metrics that a scrape asks for.
    pub fn measure(&self) {
        let stats = self.stats();
        let metrics = &self.shared.metrics;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        let seconds = |millis: Millis| millis as f64 / 1000.0;
        metrics.ingest_fold_lag.set(seconds(stats.lag));
        metrics.clock_behind.set(seconds(self.shared.clock.behind()));
        metrics.profiles.set(number(stats.profiles));
        metrics.facts.set(number(stats.facts));
        metrics.traits.set(number(stats.traits));
        for (part, bytes) in [
            ("columns", stats.columns_bytes),
            ("dictionary", stats.dictionary_bytes),
            ("dedup", stats.dedup_bytes),
        ] {
            metrics.memory_bytes.with_label_values(&[part]).set(number(bytes));
        }
        if let Some(bytes) = self.shared.state.bytes() {
            metrics.store_bytes.set(number(bytes));
        }
        let journal = self.shared.journal.end().0.saturating_sub(self.shared.journal.begin().0);
        metrics.journal_bytes.set(number(journal));
    }
}
