//! A block: the columns of up to 65,536 profiles of one shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;

use super::TraitId;
use super::attribute::AttributeColumn;
use super::columns::DayColumn;
use super::columns::TraitColumns;
use super::consents::Consents;
use super::loose::Loose;
use super::packed::Packed;
use super::scan::Scan;
use super::set::BlockSet;
use crate::model::BLOCK;
use crate::model::Consent;
use crate::model::Measure;
use crate::model::Namespace;
use crate::model::Value;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_of;
use crate::model::time::day_start;

/// What is remembered of a profile besides events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// It must not be activated.
    OptedOut,
    /// A crawler: its user agent said so.
    Bot,
}

/// The columns of one block. A clone shares everything; what is then changed is copied first, no more
/// than the day it lies in.
///
/// Invariant: every ordinal in a column or set is below the population.
#[derive(Debug, Clone, Default)]
pub struct Block {
    pub(super) population: u32,
    pub(super) traits: BTreeMap<TraitId, Arc<TraitColumns>>,
    pub(super) attributes: BTreeMap<Arc<str>, Arc<AttributeColumn>>,
    pub(super) namespaces: BTreeMap<Namespace, Arc<BlockSet>>,
    pub(super) devices: Arc<BlockSet>,
    pub(super) opted_out: Arc<BlockSet>,
    pub(super) bots: Arc<BlockSet>,
    pub(super) consents: Arc<Consents>,
    /// The facts as windows are read, once one of several days was, and what is other since.
    pub(super) packed: OnceLock<Option<Arc<Packed>>>,
    pub(super) loose: Loose,
    /// The newest day of a fact.
    pub(super) newest: Option<Day>,
}

/// Windows of so few days are read from the days' own columns where nothing is packed yet.
const FEW_DAYS: Day = 2;

impl Block {
    /// A block without profiles.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many ordinals are in use: those below it.
    pub fn population(&self) -> u32 {
        self.population
    }

    /// Says how many ordinals are in use. It never shrinks, and adding to a column makes it large enough.
    pub fn set_population(&mut self, population: u32) {
        self.population = self.population.max(population.min(BLOCK));
    }

    pub(super) fn hold(&mut self, ordinal: u16) {
        self.set_population(u32::from(ordinal) + 1);
    }

    /// Adds a fact; `value` is `Some` for every fact of a trait that measures.
    pub fn add_fact(&mut self, id: TraitId, ordinal: u16, time: Millis, value: Option<Measure>) {
        self.hold(ordinal);
        self.note(id, day_of(time));
        Arc::make_mut(self.traits.entry(id).or_default()).add(ordinal, time, value);
    }

    /// Adds a value of an attribute, null included. Calls are in order of receipt.
    pub fn add_attribute(&mut self, name: &str, ordinal: u16, time: Millis, value: Value) {
        self.hold(ordinal);
        if !self.attributes.contains_key(name) {
            self.attributes.insert(name.into(), Arc::default());
        }
        if let Some(column) = self.attributes.get_mut(name) {
            Arc::make_mut(column).add(ordinal, time, value);
        }
    }

    /// Says that a profile holds an identifier of a namespace.
    pub fn add_namespace(&mut self, namespace: &Namespace, ordinal: u16) {
        self.hold(ordinal);
        match self.namespaces.get_mut(namespace) {
            Some(set) if set.contains(ordinal) => {}
            Some(set) => Arc::make_mut(set).insert(ordinal),
            None => {
                let set = Arc::new([ordinal].into_iter().collect());
                self.namespaces.insert(namespace.clone(), set);
            }
        }
    }

    /// Says that the profile's own identifier is of a device namespace.
    pub fn set_owner_is_device(&mut self, ordinal: u16) {
        self.hold(ordinal);
        Arc::make_mut(&mut self.devices).insert(ordinal);
    }

    /// Sets or takes away a mark.
    pub fn set_mark(&mut self, mark: Mark, ordinal: u16, on: bool) {
        self.hold(ordinal);
        let set = match mark {
            Mark::OptedOut => &mut self.opted_out,
            Mark::Bot => &mut self.bots,
        };
        if set.contains(ordinal) == on {
            return;
        }
        let set = Arc::make_mut(set);
        if on { set.insert(ordinal) } else { set.remove(ordinal) }
    }

    /// The profiles with a mark; the same set, not only an equal one, while none is marked or unmarked.
    pub fn marked(&self, mark: Mark) -> &Arc<BlockSet> {
        match mark {
            Mark::OptedOut => &self.opted_out,
            Mark::Bot => &self.bots,
        }
    }

    /// Puts what a profile allows in the place of what it allowed before.
    pub fn set_consent(&mut self, ordinal: u16, consent: &Consent) {
        self.hold(ordinal);
        Arc::make_mut(&mut self.consents).set(ordinal, consent);
    }

    /// What profiles allowed.
    pub fn consents(&self) -> &Consents {
        &self.consents
    }

    /// The profiles whose own identifier is of a device namespace.
    pub fn devices(&self) -> &BlockSet {
        &self.devices
    }

    /// The profiles that hold an identifier of a namespace; `None` where none does.
    pub fn holders(&self, namespace: &str) -> Option<&BlockSet> {
        let (_, set) = self.namespaces.iter().find(|(name, _)| name.as_str() == namespace)?;
        Some(set)
    }

    /// The namespaces that a profile of the block holds.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.keys()
    }

    /// A trait's columns; `None` where it has no fact.
    pub fn columns(&self, id: TraitId) -> Option<&TraitColumns> {
        self.traits.get(&id).map(|columns| &**columns)
    }

    /// A trait's facts, to be scanned.
    pub fn scan(&self, id: TraitId) -> Scan<'_> {
        Scan::of(self, id)
    }

    /// The facts as they were packed, for a window of so many whole days, and what is other by now.
    pub(super) fn packed(&self, days: Day) -> Option<(&Packed, &Loose)> {
        let packed = match self.packed.get() {
            Some(packed) => packed,
            None if days <= FEW_DAYS => return None,
            None => self.packed.get_or_init(|| Packed::of(self).map(Arc::new)),
        };
        packed.as_deref().map(|packed| (packed, &self.loose))
    }

    /// Whether no trait has a fact as late as this day.
    pub(super) fn is_before(&self, day: Day) -> bool {
        self.newest < Some(day)
    }

    /// Notes that a trait's day is to be other than it was packed.
    pub(super) fn note(&mut self, id: TraitId, day: Day) {
        self.newest = self.newest.max(Some(day));
        if self.packed.get().is_some() && !self.loose.note(id, day) {
            self.unpack();
        }
    }

    fn unpack(&mut self) {
        self.packed = OnceLock::new();
        self.loose = Loose::default();
    }

    /// The traits with facts, ascending.
    pub fn traits(&self) -> impl Iterator<Item = (TraitId, &TraitColumns)> {
        self.traits.iter().map(|(id, columns)| (*id, &**columns))
    }

    /// A trait's facts of one day.
    pub fn day(&self, id: TraitId, day: Day) -> Option<&DayColumn> {
        self.traits.get(&id)?.days.get(day).map(|column| &**column)
    }

    /// An attribute's history; `None` where no profile of the block ever had it.
    pub fn attribute(&self, name: &str) -> Option<&AttributeColumn> {
        self.attributes.get(name).map(|column| &**column)
    }

    /// The attributes by name.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &AttributeColumn)> {
        self.attributes.iter().map(|(name, column)| (&**name, &**column))
    }

    /// Drops a trait's columns.
    pub fn drop_trait(&mut self, id: TraitId) {
        if self.traits.remove(&id).is_some() {
            self.unpack();
        }
    }

    /// Drops what lies before a day: facts, and attribute values but for the newest of each profile.
    pub fn drop_before(&mut self, day: Day) {
        for columns in self.traits.values_mut() {
            if columns.days.first().is_some_and(|first| first < day) {
                Arc::make_mut(columns).drop_before(day);
            }
        }
        self.traits.retain(|_, columns| !columns.is_empty());
        self.unpack();
        let edge = day_start(day);
        for column in self.attributes.values_mut() {
            if column.entries().any(|entry| entry.time < edge) {
                Arc::make_mut(column).drop_before(edge);
            }
        }
        self.attributes.retain(|_, column| !column.is_empty());
    }

    /// The profiles of which nothing is left: no fact, no attribute, no opt-out.
    pub fn bare(&self) -> BlockSet {
        let mut held = BlockSet::new();
        held.union_with(&self.opted_out);
        let all = self.columns(TraitId::ANY).into_iter().flat_map(TraitColumns::days);
        all.for_each(|(_, day)| day.gather(&mut held));
        for column in self.attributes.values() {
            column.entries().for_each(|entry| held.insert(entry.ordinal));
        }
        held.complement(self.population);
        held
    }

    /// Takes profiles of which nothing is left out of all sets. Their ordinals stay in use.
    pub fn forget(&mut self, profiles: &BlockSet) {
        let sets = self.namespaces.values_mut();
        for set in sets.chain([&mut self.devices, &mut self.opted_out, &mut self.bots]) {
            Arc::make_mut(set).subtract(profiles);
        }
        self.namespaces.retain(|_, set| !set.is_empty());
        if !self.consents.is_empty() {
            Arc::make_mut(&mut self.consents).forget(profiles);
        }
    }

    /// The columns, by trait and day, in which any of some profiles has a fact.
    pub fn columns_of(&self, profiles: &BlockSet) -> Vec<(TraitId, Day)> {
        let of = |(id, columns): (&TraitId, &Arc<TraitColumns>)| {
            let id = *id;
            columns.days_of(profiles).into_iter().map(move |day| (id, day))
        };
        self.traits.iter().flat_map(of).collect()
    }

    /// Takes all that is known of profiles out, facts and attributes included. Their ordinals stay in use.
    pub fn erase(&mut self, profiles: &BlockSet) {
        self.forget(profiles);
        for id in self.traits.keys().copied().collect::<Vec<_>>() {
            self.erase_facts(id, profiles);
        }
        for column in self.attributes.values_mut() {
            if column.entries().any(|entry| profiles.contains(entry.ordinal)) {
                Arc::make_mut(column).erase(profiles);
            }
        }
        self.attributes.retain(|_, column| !column.is_empty());
    }

    /// Takes the facts of profiles out of a trait's columns.
    pub fn erase_facts(&mut self, id: TraitId, profiles: &BlockSet) {
        let Some(columns) = self.traits.get_mut(&id) else { return };
        let days = columns.days_of(profiles);
        if days.is_empty() {
            return;
        }
        let columns = Arc::make_mut(columns);
        columns.erase(profiles, &days);
        if columns.is_empty() {
            self.traits.remove(&id);
        }
        days.into_iter().for_each(|day| self.note(id, day));
    }

    /// Adds facts that were gathered elsewhere, such as from the archive, to those of the trait.
    pub fn merge_trait(&mut self, id: TraitId, columns: &TraitColumns) {
        if let Some(ordinal) = columns.largest_ordinal() {
            self.hold(ordinal);
            self.newest = self.newest.max(columns.days.last());
            if self.traits.contains_key(&id) {
                columns.days().for_each(|(day, _)| self.note(id, day));
            } else if self.packed.get().is_some() && !self.loose.note_trait(id) {
                self.unpack();
            }
            Arc::make_mut(self.traits.entry(id).or_default()).merge(columns);
        }
    }

    /// The bytes of memory that a trait's facts of a day take, about.
    pub fn memory_of_day(&self, id: TraitId, day: Day) -> usize {
        self.day(id, day).map_or(0, DayColumn::memory) + self.memory_of_packed_day(id, day)
    }

    /// The bytes of memory of it that windows of whole days read, about.
    pub fn memory_of_packed_day(&self, id: TraitId, day: Day) -> usize {
        let packed = self.packed.get().and_then(Option::as_ref);
        packed.map_or(0, |packed| packed.memory_of(id, day))
    }

    /// The bytes of memory that facts take, about.
    pub fn memory(&self) -> usize {
        let columns: usize = self.traits.values().map(|columns| columns.memory()).sum();
        let packed = self.packed.get().and_then(Option::as_ref);
        columns + packed.map_or(0, |packed| packed.memory())
    }
}
