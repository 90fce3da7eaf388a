//! What others read from the engine beside pins: identifiers of many profiles, dead letters, metrics.

use std::collections::HashSet;

use roaring::RoaringBitmap;
use serde::Deserialize;
use serde::Serialize;

use super::engine::Engine;
use super::engine::Health;
use super::engine::Stats;
use super::identity::Dictionary;
use super::matches::Matches;
use super::memory::Memory;
use super::packed::pack;
use super::packed::unpack;
use crate::metrics::Metrics;
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
/// Further identifiers looked at at a time.
const OTHERS_AT_A_TIME: u32 = 16 * 1024;

/// How far the identifiers of a shard's profiles are. What came since an earlier watermark can be told; while
/// `loaded` and `forgotten` are as before, no profile has lost one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Tells this process's numbers from those of others that held the shard.
    pub loaded: u64,
    /// How many further identifiers there are.
    pub others: u32,
    /// How many profiles are forgotten.
    pub forgotten: u64,
}

impl Engine {
    /// How far the identifiers of a shard's profiles are.
    pub fn watermark(&self, shard: ShardId) -> Watermark {
        let memory = self.shared.memory.read();
        let Some(shard) = memory.shards.get(usize::from(shard)) else {
            return Watermark::default();
        };
        Watermark {
            loaded: self.shared.loaded,
            others: shard.dictionary.others(),
            forgotten: shard.dictionary.forgotten().len(),
        }
    }

    /// The profiles of a shard that got further identifiers since it had so many.
    pub fn grown(&self, shard: ShardId, others: u32) -> RoaringBitmap {
        let memory = self.shared.memory.read();
        memory
            .shards
            .get(usize::from(shard))
            .map(|s| s.dictionary.grown(others))
            .unwrap_or_default()
    }

    /// The profiles of a shard of which an id of a partner may have come to count since a time, or has expired; others may
    /// be among them.
    pub fn rematched(&self, shard: ShardId, since: Millis) -> RoaringBitmap {
        let (now, lifetimes) = (self.shared.clock.now(), &self.shared.options.lifetimes);
        let memory = self.shared.memory.read();
        let shard = memory.shards.get(usize::from(shard));
        shard.map(|shard| shard.dictionary.rematched(since, now, lifetimes)).unwrap_or_default()
    }

    /// Those of some profiles of a shard that have an identifier in one of some namespaces that counts now.
    pub fn matching(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        namespaces: &[String],
    ) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        let mut read = |memory: &Memory, ordinals: &[Ordinal]| {
            let dictionary = &memory.shards[usize::from(shard)].dictionary;
            let wanted = namespaces.iter().filter_map(|name| memory.namespaces.get(name));
            let wanted: Vec<u16> = wanted.collect();
            let is_wanted =
                |packed: &[u8]| unpack(packed).is_ok_and(|(number, _)| wanted.contains(&number));
            let has = |ordinal: &&Ordinal| {
                let others = self.current(memory, dictionary, **ordinal);
                dictionary.owner(**ordinal).into_iter().chain(others).any(is_wanted)
            };
            ordinals.iter().filter(has).copied().collect::<Vec<_>>()
        };
        self.in_turns(shard, profiles, &mut read, &mut |some| {
            found.extend(some);
            true
        });
        found
    }

    /// The profiles that have one of some identifiers, as owners or as others, by shard.
    pub fn holding(&self, identifiers: &[Identifier]) -> Vec<RoaringBitmap> {
        let mut found = vec![RoaringBitmap::new(); usize::from(self.shared.keys.shards())];
        let mut wanted: HashSet<Vec<u8>> = HashSet::with_capacity(identifiers.len());
        for identifiers in identifiers.chunks(AT_A_TIME) {
            let memory = self.shared.memory.read();
            for identifier in identifiers {
                let Some(number) = memory.namespaces.get(identifier.namespace.as_str()) else {
                    continue;
                };
                if let Some((shard, ordinal)) = memory.find(identifier) {
                    found[usize::from(shard)].insert(ordinal);
                }
                let mut packed = Vec::new();
                pack(number, identifier.value(), &mut packed);
                wanted.insert(packed);
            }
        }
        for (shard, found) in found.iter_mut().enumerate() {
            let mut from = 0;
            loop {
                let memory = self.shared.memory.read();
                let dictionary = &memory.shards[shard].dictionary;
                if wanted.is_empty() || from >= dictionary.others() {
                    *found -= &**dictionary.forgotten();
                    break;
                }
                dictionary.each_other(from, OTHERS_AT_A_TIME, &mut |ordinal, packed| {
                    if wanted.contains(packed) {
                        found.insert(ordinal);
                    }
                });
                from = from.saturating_add(OTHERS_AT_A_TIME);
            }
        }
        found
    }

    /// Gives the identifiers of profiles of a shard, the owner of each and then its others.
    pub fn each_identifier(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        matches: Matches,
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
                    let others = match matches {
                        Matches::Current => self.current(memory, dictionary, *ordinal),
                        Matches::All => dictionary.others_of(*ordinal),
                    };
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

    /// Gives each of some profiles of a shard with the hash in lists of the identifier that owns it; none of one that
    /// is forgotten.
    pub fn list_hashes(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        each: &mut dyn FnMut(Ordinal, Option<u64>),
    ) {
        let mut read = |memory: &Memory, ordinals: &[Ordinal]| {
            let dictionary = &memory.shards[usize::from(shard)].dictionary;
            let hash = |packed: &[u8]| {
                let owner = memory.namespaces.identifier(packed).ok()?;
                Some(memory.keys.list_hash(owner.namespace.as_str(), owner.value()))
            };
            let with_hash =
                |ordinal: &Ordinal| (*ordinal, dictionary.owner(*ordinal).and_then(hash));
            ordinals.iter().map(with_hash).collect::<Vec<_>>()
        };
        self.in_turns(shard, profiles, &mut read, &mut |found| {
            found.into_iter().for_each(|(ordinal, hash)| each(ordinal, hash));
            true
        });
    }

    fn current<'m>(
        &self,
        memory: &Memory,
        dictionary: &'m Dictionary,
        ordinal: Ordinal,
    ) -> Vec<&'m [u8]> {
        let (now, lifetimes) = (self.shared.clock.now(), &self.shared.options.lifetimes);
        dictionary.current_others(ordinal, &memory.namespaces, lifetimes, now)
    }

    /// Gives the values that profiles of a shard hold in a namespace, as owners or as others, in no order, until
    /// `each` says that it wants no more; tells whether it wants more. An owner's value comes once.
    pub fn values(
        &self,
        owners: bool,
        shard: ShardId,
        profiles: &RoaringBitmap,
        namespace: &Namespace,
        each: &mut dyn FnMut(&str) -> bool,
    ) -> bool {
        let Some(number) = self.shared.memory.read().namespaces.get(namespace.as_str()) else {
            return true;
        };
        let mut wanted = true;
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
                if owners {
                    dictionary.owner(*ordinal).into_iter().for_each(&mut take);
                } else {
                    self.current(memory, dictionary, *ordinal).into_iter().for_each(&mut take);
                }
            }
            values
        };
        self.in_turns(shard, profiles, &mut read, &mut |values: Vec<Box<str>>| {
            wanted = values.iter().all(|value| each(value));
            wanted
        });
        wanted
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

    /// What stands in the way of taking events, if anything does.
    pub fn trouble(&self) -> Option<String> {
        match self.health() {
            Health::FoldWaits(reason) => Some(reason),
            // Events are taken and folded; the commit is tried again.
            Health::CommitWaits(_) | Health::Well => None,
        }
    }
}

impl Stats {
    /// Of two lanes together.
    pub(super) fn joined(self, other: Self) -> Self {
        let mut counters = self.counters;
        counters.counted += other.counters.counted;
        counters.duplicates += other.counters.duplicates;
        counters.dead_letters += other.counters.dead_letters;
        counters.out_of_range += other.counters.out_of_range;
        counters.facts += other.counters.facts;
        Self {
            counters,
            profiles: self.profiles + other.profiles,
            facts: self.facts + other.facts,
            columns_bytes: self.columns_bytes + other.columns_bytes,
            dictionary_bytes: self.dictionary_bytes + other.dictionary_bytes,
            dedup_bytes: self.dedup_bytes + other.dedup_bytes,
            traits: self.traits.max(other.traits),
            lag: self.lag.max(other.lag),
        }
    }

    /// Sets the metrics that a scrape asks for.
    pub(super) fn measure(&self, metrics: &Metrics) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        let seconds = |millis: Millis| millis as f64 / 1000.0;
        metrics.ingest_fold_lag.set(seconds(self.lag));
        metrics.profiles.set(number(self.profiles));
        metrics.facts.set(number(self.facts));
        metrics.traits.set(number(self.traits));
        for (part, bytes) in [
            ("columns", self.columns_bytes),
            ("dictionary", self.dictionary_bytes),
            ("dedup", self.dedup_bytes),
        ] {
            metrics.memory_bytes.with_label_values(&[part]).set(number(bytes));
        }
    }
}
