//! What the profiles of a block allowed: a set for each purpose, and one for each vendor.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::set::BlockSet;
use crate::model::Consent;
use crate::model::LOOK_ALIKES;
use crate::model::Purposes;

/// Profiles by the number of what they allowed; no set is empty.
pub(super) type Sets<K> = BTreeMap<K, Arc<BlockSet>>;

/// What is allowed by profiles whom a signal asked; of the others nothing is known, and nothing is forbidden.
///
/// A clone shares every set; one that is then changed is copied first.
///
/// Invariant: whoever is in a set of a purpose or a vendor is among those who were asked.
#[derive(Debug, Clone, Default)]
pub struct Consents {
    asked: Arc<BlockSet>,
    purposes: Sets<u8>,
    vendors: Sets<u16>,
    /// Those who were asked and may not be in audiences: it follows from the others.
    unconsented: Arc<BlockSet>,
}

impl Consents {
    /// Whether nobody was asked.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Those whom a signal asked.
    pub fn asked(&self) -> &BlockSet {
        &self.asked
    }

    /// Those who allowed a purpose.
    pub fn purpose(&self, purpose: u8) -> Option<&BlockSet> {
        self.purposes.get(&purpose).map(|set| &**set)
    }

    /// What a profile allowed; `None` where no signal asked it.
    pub fn of(&self, ordinal: u16) -> Option<Consent> {
        let purposes = self.purposes.iter().filter(|(_, set)| set.contains(ordinal));
        let vendors = self.vendors.iter().filter(|(_, set)| set.contains(ordinal));
        self.asked.contains(ordinal).then(|| Consent {
            purposes: purposes.map(|(purpose, _)| *purpose).collect(),
            vendors: vendors.map(|(vendor, _)| *vendor).collect(),
        })
    }

    /// Those who may not be in audiences; the same set, not only an equal one, while nobody comes or goes.
    pub fn unconsented(&self) -> &Arc<BlockSet> {
        &self.unconsented
    }

    /// Those who may not be made known to a vendor.
    pub fn unconsented_to(&self, vendor: u16) -> BlockSet {
        let mut without = BlockSet::clone(&self.asked);
        if let Some(consenting) = self.vendors.get(&vendor) {
            without.subtract(consenting);
            without.union_with(&self.unconsented);
        }
        without
    }

    /// Those who were asked and may not teach look-alikes, nor be chosen by them.
    pub fn without_look_alikes(&self) -> impl Iterator<Item = u16> {
        let allow = LOOK_ALIKES.map(|purpose| self.purpose(purpose));
        let allows = move |ordinal| allow.iter().flatten().any(|set| set.contains(ordinal));
        self.asked.iter().filter(move |ordinal| !allows(*ordinal))
    }

    /// Puts what a profile allows in the place of what it allowed before.
    pub(super) fn set(&mut self, ordinal: u16, consent: &Consent) {
        put(&mut self.asked, ordinal, true);
        let purposes = consent.purposes;
        put_all(&mut self.purposes, ordinal, purposes.iter(), |key| purposes.contains(key));
        let vendors = &consent.vendors;
        put_all(&mut self.vendors, ordinal, vendors.iter().copied(), |key| vendors.contains(&key));
        put(&mut self.unconsented, ordinal, !consent.allows_audiences());
    }

    /// Takes profiles out, as if nobody had asked them.
    pub(super) fn forget(&mut self, profiles: &BlockSet) {
        let sets = self.purposes.values_mut().chain(self.vendors.values_mut());
        for set in sets.chain([&mut self.asked, &mut self.unconsented]) {
            Arc::make_mut(set).subtract(profiles);
        }
        self.purposes.retain(|_, set| !set.is_empty());
        self.vendors.retain(|_, set| !set.is_empty());
    }

    /// The sets of purposes, then those of vendors, by their numbers.
    pub(super) fn sets(&self) -> (&Sets<u8>, &Sets<u16>) {
        (&self.purposes, &self.vendors)
    }

    /// Those of the sets; `None` where they break the invariant or are of no purpose.
    pub(super) fn from_sets(
        asked: BlockSet,
        purposes: Sets<u8>,
        vendors: Sets<u16>,
    ) -> Option<Self> {
        let are_purposes = purposes.keys().all(|purpose| (1..=Purposes::MAX).contains(purpose));
        let within = |set: &Arc<BlockSet>| set.iter().all(|ordinal| asked.contains(ordinal));
        if !are_purposes || !purposes.values().chain(vendors.values()).all(within) {
            return None;
        }
        let of =
            |purpose| purposes.get(&purpose).map_or_else(BlockSet::new, |set| BlockSet::clone(set));
        let mut in_audiences = of(3);
        in_audiences.intersect_with(&of(4));
        let mut unconsented = asked.clone();
        unconsented.subtract(&in_audiences);
        Some(Self { asked: Arc::new(asked), purposes, vendors, unconsented: Arc::new(unconsented) })
    }
}

/// Puts an ordinal into a set, or out of it.
fn put(set: &mut Arc<BlockSet>, ordinal: u16, is_in: bool) {
    if set.contains(ordinal) != is_in {
        let set = Arc::make_mut(set);
        if is_in { set.insert(ordinal) } else { set.remove(ordinal) }
    }
}

/// Puts an ordinal into the sets of some keys, and out of those of all others.
fn put_all<K: Ord + Copy>(
    sets: &mut Sets<K>,
    ordinal: u16,
    keys: impl Iterator<Item = K>,
    has: impl Fn(K) -> bool,
) {
    for key in keys {
        sets.entry(key).or_default();
    }
    sets.iter_mut().for_each(|(key, set)| put(set, ordinal, has(*key)));
    sets.retain(|_, set| !set.is_empty());
}
