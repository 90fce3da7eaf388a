//! Who is who: which shard an identifier belongs to, its profile's ordinal there, and a profile's identifiers.
//!
//! ```text
//! identifier ── keyed hash ─┬─ shard
//!                           └─ fingerprint ── index ── ordinal ── arena: identifiers by ordinal, packed
//! ```
//!
//! An event belongs to the profile of its first identifier. Its other identifiers are listed with that
//! profile and lead nowhere: nothing is linked here.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::matches::Lifetimes;
use super::matches::Matched;
use super::matches::counts;
use super::packed;
use super::packed::Arena;
use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::Print;
use crate::model::ShardId;
use crate::store::state::Identity;

/// The keyed hashes of a store. Visitors choose what is hashed, so none of it is guessable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    identity: Identity,
}

/// Where an identifier is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its shard.
    pub(crate) shard: ShardId,
    /// Tells it from most others of the shard.
    pub(crate) print: u32,
}

impl Keys {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity }
    }

    pub(crate) fn shards(&self) -> u16 {
        self.identity.shards
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The place of an identifier.
    pub(crate) fn place(&self, namespace: &str, value: &str) -> Place {
        self.place_of(self.identity.print(namespace, value))
    }

    /// The hash that an identifier is placed by.
    pub(crate) fn print(&self, namespace: &str, value: &str) -> Print {
        self.identity.print(namespace, value)
    }

    /// The place of an identifier of which the hash alone is known.
    pub(crate) fn place_of(&self, Print([high, low]): Print) -> Place {
        let shard = high % u64::from(self.identity.shards.max(1));
        let [a, b, c, d, ..] = low.to_le_bytes();
        Place {
            shard: ShardId::try_from(shard).expect("it is below the number of shards"),
            print: u32::from_le_bytes([a, b, c, d]),
        }
    }

    /// Tells an identifier in lists from others.
    pub(crate) fn list_hash(&self, namespace: &str, value: &str) -> u64 {
        self.hash(b"list", &[namespace.as_bytes(), value.as_bytes()])[0]
    }

    /// A hash of parts, for one purpose.
    pub(crate) fn hash(&self, purpose: &[u8], parts: &[&[u8]]) -> [u64; 2] {
        self.identity.hash(purpose, parts)
    }
}

/// So many namespaces get a number, besides those that are reserved; events of any other are put aside.
const MAX_NAMESPACES: usize = 4096;

/// Namespaces by number and back.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    names: Vec<Namespace>,
    numbers: HashMap<Box<str>, u16>,
}

impl Namespaces {
    /// Takes stored namespaces, which must be numbered from 0 without a gap.
    pub(crate) fn load(stored: Vec<(u16, Namespace)>) -> Result<Self, Malformed> {
        let mut namespaces = Self::default();
        for (number, namespace) in stored {
            if namespaces.get(namespace.as_str()).is_some()
                || namespaces.push(&namespace) != Some(number)
            {
                return Err(Malformed("a namespace's number"));
            }
        }
        Ok(namespaces)
    }

    /// Numbers namespaces that always have room, however many others visitors have named; returns the
    /// numbers that are new.
    pub(crate) fn reserve<'a>(&mut self, known: impl Iterator<Item = &'a Namespace>) -> Vec<u16> {
        let fresh: Vec<_> = known.filter(|name| self.get(name.as_str()).is_none()).collect();
        fresh.into_iter().filter_map(|name| self.push(name)).collect()
    }

    fn push(&mut self, namespace: &Namespace) -> Option<u16> {
        let number = u16::try_from(self.names.len()).ok()?;
        self.names.push(namespace.clone());
        self.numbers.insert(namespace.as_str().into(), number);
        Some(number)
    }

    /// The number of a namespace, and whether it is new; `None` where there are too many.
    pub(crate) fn number(&mut self, namespace: &Namespace) -> Option<(u16, bool)> {
        if let Some(number) = self.numbers.get(namespace.as_str()) {
            return Some((*number, false));
        }
        if self.names.len() >= MAX_NAMESPACES {
            return None;
        }
        Some((self.push(namespace)?, true))
    }

    /// The number of a namespace that was seen.
    pub(crate) fn get(&self, namespace: &str) -> Option<u16> {
        self.numbers.get(namespace).copied()
    }

    /// The namespace of a number.
    pub(crate) fn name(&self, number: u16) -> Result<&Namespace, Malformed> {
        self.names.get(usize::from(number)).ok_or(Malformed("an unknown namespace"))
    }

    /// All that were seen.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.names.iter()
    }

    /// The identifier of packed bytes.
    pub(crate) fn identifier(&self, packed: &[u8]) -> Result<Identifier, Malformed> {
        let (number, value) = packed::unpack(packed)?;
        let namespace = self.name(number)?.clone();
        Identifier::new(namespace, &value).map_err(|_| Malformed("an identifier"))
    }
}

/// A fingerprint and the place of what it is of.
#[derive(Debug, Clone, Copy)]
struct Slot {
    print: u32,
    at: u32,
}

/// Spreads a fingerprint over 64 bits. It comes of a keyed hash, so the table is safe from chosen keys.
fn spread(print: u32) -> u64 {
    u64::from(print).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The profiles of a shard by their identifiers.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    owners: Arena,
    index: HashTable<Slot>,
    others: Arena,
    /// Of each entry of `others`: its profile, and the entry before it of the same profile.
    links: Vec<(Ordinal, u32)>,
    /// The last entry of each profile that has one.
    last: HashMap<Ordinal, u32>,
    /// Entries of `others` by fingerprints of profile and identifier.
    known: HashTable<Slot>,
    /// When entries of `others` were last matched.
    matched: Matched,
    /// Ordinals of forgotten profiles: they are not given again.
    forgotten: Arc<RoaringBitmap>,
}

/// The fingerprint of a further identifier as one of a profile.
fn of_profile(print: u32, ordinal: Ordinal) -> u32 {
    print ^ ordinal.wrapping_mul(0x9e37_79b1)
}

/// Ends a list of further identifiers.
const NONE: u32 = u32::MAX;

impl Dictionary {
    /// How many ordinals were given, those of forgotten profiles included.
    pub(crate) fn len(&self) -> u32 {
        self.owners.len()
    }

    /// How many profiles there are.
    pub(crate) fn profiles(&self) -> u64 {
        u64::from(self.len()) - self.forgotten.len()
    }

    /// The ordinals of forgotten profiles.
    pub(crate) fn forgotten(&self) -> &Arc<RoaringBitmap> {
        &self.forgotten
    }

    /// How many further identifiers there are, of all profiles.
    pub(crate) fn others(&self) -> u32 {
        self.others.len()
    }

    /// Gives the further identifiers from a number on, at most `limit`, each with the profile whose it is; one of a
    /// forgotten profile may be among them.
    pub(crate) fn each_other(&self, from: u32, limit: u32, give: &mut dyn FnMut(Ordinal, &[u8])) {
        self.others.each(from, limit, &mut |at, packed| give(self.links[at as usize].0, packed));
    }

    /// Whose further identifiers came since there were so many.
    pub(crate) fn grown(&self, others: u32) -> RoaringBitmap {
        let since = self.links.get(others as usize..).unwrap_or_default();
        let mut grown: RoaringBitmap = since.iter().map(|(ordinal, _)| *ordinal).collect();
        grown -= &*self.forgotten;
        grown
    }

    /// The profile that an identifier owns.
    pub(crate) fn find(&self, print: u32, packed: &[u8]) -> Option<Ordinal> {
        let slot = self.index.find(spread(print), |slot| {
            slot.print == print && self.owners.get(slot.at) == packed
        })?;
        Some(slot.at)
    }

    /// The profiles whose owner's identifier `is_it` takes, among those of a fingerprint.
    pub(crate) fn owned(&self, print: u32, is_it: impl Fn(&[u8]) -> bool) -> Option<Ordinal> {
        let slot = self
            .index
            .find(spread(print), |slot| slot.print == print && is_it(self.owners.get(slot.at)))?;
        Some(slot.at)
    }

    /// Adds a profile that was not found; `None` where the shard has no ordinal left.
    pub(crate) fn insert(&mut self, print: u32, packed: &[u8]) -> Option<Ordinal> {
        let at = self.owners.push(packed)?;
        self.index.insert_unique(spread(print), Slot { print, at }, |slot| spread(slot.print));
        Some(at)
    }

    /// Adds an ordinal whose profile is forgotten; `None` where none is left.
    pub(crate) fn insert_forgotten(&mut self) -> Option<()> {
        let at = self.owners.push(&packed::FORGOTTEN)?;
        Arc::make_mut(&mut self.forgotten).insert(at);
        Some(())
    }

    /// Forgets profiles: nothing leads to them any more. Their bytes stay in memory until a restart, since
    /// an image may be made of them as they were.
    pub(crate) fn forget(&mut self, profiles: &RoaringBitmap) {
        *Arc::make_mut(&mut self.forgotten) |= profiles;
        self.index.retain(|slot| !profiles.contains(slot.at));
    }

    /// Adds a further identifier to a profile; tells whether it is new there.
    pub(crate) fn add_other(&mut self, ordinal: Ordinal, print: u32, packed: &[u8]) -> bool {
        if self.entry(ordinal, print, packed).is_some() {
            return false;
        }
        let print = of_profile(print, ordinal);
        let Some(at) = self.others.push(packed) else { return false };
        let before = self.last.insert(ordinal, at).unwrap_or(NONE);
        self.links.push((ordinal, before));
        self.known.insert_unique(spread(print), Slot { print, at }, |slot| spread(slot.print));
        true
    }

    /// The entry of a further identifier of a profile.
    fn entry(&self, ordinal: Ordinal, print: u32, packed: &[u8]) -> Option<u32> {
        let print = of_profile(print, ordinal);
        let slot = self.known.find(spread(print), |slot| {
            slot.print == print
                && self.links[slot.at as usize].0 == ordinal
                && self.others.get(slot.at) == packed
        })?;
        Some(slot.at)
    }

    /// Notes when a further identifier of a profile was matched, in seconds since 1970; tells whether it is news.
    pub(crate) fn matched(
        &mut self,
        ordinal: Ordinal,
        print: u32,
        packed: &[u8],
        time: u32,
    ) -> bool {
        let entry = self.entry(ordinal, print, packed);
        entry.is_some_and(|entry| self.matched.note(entry, ordinal, time))
    }

    /// Notes the same of one by its place among those of its profile; tells whether there is such a place.
    pub(crate) fn matched_at(&mut self, ordinal: Ordinal, place: u64, time: u32) -> bool {
        let entries = self.past(&self.forgotten, u32::MAX).entries(ordinal);
        let entry = usize::try_from(place).ok().and_then(|place| entries.get(place).copied());
        entry.inspect(|entry| _ = self.matched.note(*entry, ordinal, time)).is_some()
    }

    /// Whose ids may have come to count since a time, or have expired; others may be among them.
    pub(crate) fn rematched(
        &self,
        since: Millis,
        now: Millis,
        lifetimes: &Lifetimes,
    ) -> RoaringBitmap {
        let mut changed = self.matched.changed(since, now, lifetimes);
        changed -= &*self.forgotten;
        changed
    }

    /// The packed further identifiers of a profile that count now: of those that were matched the newest of each
    /// namespace, and that until its lifetime is over.
    pub(crate) fn current_others(
        &self,
        ordinal: Ordinal,
        namespaces: &Namespaces,
        lifetimes: &Lifetimes,
        now: Millis,
    ) -> Vec<&[u8]> {
        let mut entries = self.past(&self.forgotten, u32::MAX).entries(ordinal);
        if !self.matched.is_empty() {
            self.keep_current(&mut entries, namespaces, lifetimes, now);
        }
        entries.into_iter().map(|entry| self.others.get(entry)).collect()
    }

    /// Leaves out of the entries of one profile what does not count.
    fn keep_current(
        &self,
        entries: &mut Vec<u32>,
        namespaces: &Namespaces,
        lifetimes: &Lifetimes,
        now: Millis,
    ) {
        let number = |entry: u32| packed::namespace(self.others.get(entry));
        // A few, whatever a visitor sends: of each namespace that was matched the newest, by its time and place.
        let mut newest: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
        for entry in entries.iter().copied() {
            let time = self.matched.time(entry);
            if let Some(of) = number(entry).filter(|_| time > 0) {
                let known = newest.entry(of).or_default();
                *known = (time, entry).max(*known);
            }
        }
        newest.retain(|of, (time, _)| {
            let lifetime = namespaces.name(*of).ok().and_then(|name| lifetimes.get(name.as_str()));
            counts(*time, lifetime.copied(), now)
        });
        let current: HashSet<u32> = newest.into_values().map(|(_, entry)| entry).collect();
        entries.retain(|entry| self.matched.time(*entry) == 0 || current.contains(entry));
    }

    /// When the further identifiers of a profile were matched, by their places; 0 of those that were not.
    pub(crate) fn match_times(&self, ordinal: Ordinal) -> Vec<u32> {
        self.past(&self.forgotten, u32::MAX).match_times(ordinal)
    }

    /// The packed identifier that owns a profile; `None` of one that is not, or is forgotten.
    pub(crate) fn owner(&self, ordinal: Ordinal) -> Option<&[u8]> {
        let is_known = ordinal < self.owners.len() && !self.forgotten.contains(ordinal);
        is_known.then(|| self.owners.get(ordinal))
    }

    /// The packed further identifiers of a profile in the order they came; none of one that is forgotten.
    pub(crate) fn others_of(&self, ordinal: Ordinal) -> Vec<&[u8]> {
        self.past(&self.forgotten, u32::MAX).others_of(ordinal)
    }

    /// The dictionary as it was when these profiles were forgotten, and it had so many further identifiers.
    pub(crate) fn past<'a>(&'a self, forgotten: &'a RoaringBitmap, others: u32) -> Past<'a> {
        Past { dictionary: self, forgotten, others }
    }

    /// The bytes of memory it takes, about.
    pub(crate) fn memory(&self) -> usize {
        let table = |table: &HashTable<Slot>| table.allocation_size();
        self.owners.memory()
            + self.others.memory()
            + table(&self.index)
            + table(&self.known)
            + self.links.capacity() * size_of::<(Ordinal, u32)>()
            + self.last.capacity() * 9
            + self.matched.memory()
            + self.forgotten.serialized_size()
    }
}

/// A dictionary as it was at some time before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past<'a> {
    dictionary: &'a Dictionary,
    forgotten: &'a RoaringBitmap,
    others: u32,
}

impl<'a> Past<'a> {
    /// The packed identifier that owned a profile, or what stands for a forgotten one.
    pub(crate) fn owner(self, ordinal: Ordinal) -> &'a [u8] {
        if self.forgotten.contains(ordinal) {
            &packed::FORGOTTEN
        } else {
            self.dictionary.owners.get(ordinal)
        }
    }

    /// The packed further identifiers of a profile in the order they came.
    pub(crate) fn others_of(self, ordinal: Ordinal) -> Vec<&'a [u8]> {
        let entries = self.entries(ordinal).into_iter();
        entries.map(|entry| self.dictionary.others.get(entry)).collect()
    }

    /// When they were matched, as is known by now; 0 of those that were not.
    pub(crate) fn match_times(self, ordinal: Ordinal) -> Vec<u32> {
        if self.dictionary.matched.is_empty() {
            return Vec::new();
        }
        let entries = self.entries(ordinal).into_iter();
        entries.map(|entry| self.dictionary.matched.time(entry)).collect()
    }

    fn entries(self, ordinal: Ordinal) -> Vec<u32> {
        let mut found = Vec::new();
        if self.forgotten.contains(ordinal) {
            return found;
        }
        let mut at = self.dictionary.last.get(&ordinal).copied().unwrap_or(NONE);
        while at != NONE {
            if at < self.others {
                found.push(at);
            }
            at = self.dictionary.links[at as usize].1;
        }
        found.reverse();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(Identity { shards: 16, key: [7; 16] })
    }

    fn packed(value: &str) -> (u32, Vec<u8>) {
        let mut bytes = Vec::new();
        packed::pack(0, value, &mut bytes);
        (keys().place("cookie", value).print, bytes)
    }

    #[test]
    fn profiles_are_numbered_in_order_of_arrival_and_found_again() {
        let mut dictionary = Dictionary::default();
        let value = |n: u64| format!("{:032x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for n in 0..10_000 {
            let (print, bytes) = packed(&value(n));
            assert_eq!(dictionary.find(print, &bytes), None);
            assert_eq!(dictionary.insert(print, &bytes), Some(u32::try_from(n).unwrap()));
        }
        for n in 0..10_000 {
            let (print, bytes) = packed(&value(n));
            assert_eq!(dictionary.find(print, &bytes), Some(u32::try_from(n).unwrap()));
        }
        let (print, bytes) = packed("someone else");
        assert_eq!(dictionary.find(print, &bytes), None);
        let bytes = dictionary.memory() / 10_000;
        assert!(bytes <= 40, "{bytes} bytes a profile");
    }

    #[test]
    fn further_identifiers_are_listed_once_and_in_order() {
        let mut dictionary = Dictionary::default();
        for value in ["a", "b"] {
            let (print, bytes) = packed(value);
            dictionary.insert(print, &bytes);
        }
        let mut add = |ordinal, value| {
            let (print, bytes) = packed(value);
            dictionary.add_other(ordinal, print, &bytes)
        };
        assert!(add(0, "x") && add(1, "x") && add(0, "y"));
        assert!(!add(0, "x") && !add(0, "y"));
        let none = RoaringBitmap::new();
        let list = |ordinal, limit| {
            let packed = dictionary.past(&none, limit).others_of(ordinal);
            packed.iter().map(|p| packed::unpack(p).unwrap().1).collect::<Vec<_>>()
        };
        assert_eq!(dictionary.grown(0).iter().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(dictionary.grown(2).iter().collect::<Vec<_>>(), [0]);
        assert!(dictionary.grown(3).is_empty() && dictionary.grown(4).is_empty());
        assert_eq!(list(0, 3), ["x", "y"]);
        assert_eq!(list(0, 2), ["x"]);
        assert_eq!(list(1, 3), ["x"]);
    }

    #[test]
    fn a_known_namespace_has_room_whatever_visitors_have_named() {
        let mut namespaces = Namespaces::default();
        let name = |n: usize| Namespace::new(&format!("n{n}")).unwrap();
        assert!((0..MAX_NAMESPACES).all(|n| namespaces.number(&name(n)).is_some()));
        assert_eq!(namespaces.number(&name(MAX_NAMESPACES)), None);
        let gaid = Namespace::new("gaid").unwrap();
        let reserved = namespaces.reserve([&name(3), &gaid].into_iter());
        assert_eq!(reserved, [u16::try_from(MAX_NAMESPACES).unwrap()]);
        assert_eq!(namespaces.number(&gaid), Some((reserved[0], false)));
        assert!(namespaces.reserve([&gaid].into_iter()).is_empty());
    }

    #[test]
    fn a_hash_keeps_its_parts_apart() {
        let keys = keys();
        assert_ne!(keys.hash(b"a", &[b"b", b"c"]), keys.hash(b"a", &[b"bc", b""]));
        assert_ne!(keys.hash(b"a", &[b"b"]), keys.hash(b"b", &[b"b"]));
    }
}
