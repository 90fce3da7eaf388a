//! Columns for rules that no segment asks: made from the archive, kept in a bounded cache, brought up to
//! date from the journal, and never folded on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Segments;
use super::ask::AskError;
use super::columns::Columns;
use super::scan::Scan;
use super::scan::ScanError;
use crate::archive;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::ingest::Pin;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::store::journal::JournalError;
use crate::store::journal::Position;

/// Traits here have numbers that the registry does not come to.
const FIRST: u32 = 1 << 31;
/// Beyond so much memory the cache starts anew.
const MOST_BYTES: usize = 256 << 20;
/// Beyond so many traits as well: a rule asked once is rarely asked again.
const MOST_TRAITS: usize = 4096;

/// The cache.
#[derive(Default)]
pub(super) struct Cache {
    traits: TraitSet,
    next: u32,
    columns: Columns,
    /// The columns hold every event before it.
    position: Position,
}

impl Cache {
    fn is_full(&self) -> bool {
        self.traits.iter().count() > MOST_TRAITS || self.columns.memory() > MOST_BYTES
    }

    /// Forgets everything; numbers of traits are not given again.
    fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

impl Segments {
    /// Pins everything acknowledged up to now with the columns of some traits, and the set that names them.
    pub(super) fn snapshot_with(
        &self,
        specs: &[TraitSpec],
        cancelled: &AtomicBool,
    ) -> Result<(Arc<Snapshot>, TraitSet), AskError> {
        let engine = &self.parts.engine;
        let pin = engine.settle(super::PATIENCE).map_err(|_| AskError::Behind)?;
        let (set, missing) = kept(specs, &pin)?;
        if missing.is_empty() {
            return Ok((pin.snapshot, set));
        }
        let true_for = pin.snapshot.true_for;
        drop(pin);
        let mut cache = self.adhoc.lock();
        // Pinned under the lock, so that the cache never knows more than the pin.
        let (held, pin) = self.parts.catalog.pin(&*self.parts.journal, |_| engine.pin());
        let (mut set, missing) = kept(specs, &pin)?;
        if cache.is_full() {
            cache.clear();
        }
        self.bring_up_to_date(&mut cache, &held, &pin, cancelled)?;
        let mut new = TraitSet::new();
        for spec in &missing {
            if cache.traits.id(spec).is_none() && new.id(spec).is_none() {
                let id = TraitId(FIRST + cache.next);
                cache.next += 1;
                insert(&mut new, id, spec)?;
            }
        }
        if new.iter().next().is_some() {
            let mut columns = Columns::new(pin.snapshot.shards.len());
            self.scan(&pin, &new, cancelled).all(held, &mut columns, &mut |_| {})?;
            cache.columns.join(columns);
            for (id, spec) in new.iter() {
                insert(&mut cache.traits, id, spec)?;
            }
        }
        for spec in missing {
            if let Some(id) = cache.traits.id(spec) {
                insert(&mut set, id, spec)?;
            }
        }
        let asked: BTreeSet<TraitId> = set.iter().map(|(id, _)| id).collect();
        let mut snapshot = Snapshot::clone(&pin.snapshot);
        // Everything acknowledged before the first pin is in the second.
        snapshot.true_for = snapshot.true_for.max(true_for);
        cache.columns.apply(&mut snapshot, &asked);
        Ok((Arc::new(snapshot), set))
    }

    fn bring_up_to_date(
        &self,
        cache: &mut Cache,
        held: &archive::Pin,
        pin: &Pin,
        cancelled: &AtomicBool,
    ) -> Result<(), AskError> {
        // Before the archive's end the fold has forgotten which events were not counted.
        if cache.position < held.reached.position {
            cache.clear();
        }
        if cache.traits.iter().next().is_some() && cache.position < pin.position {
            let mut reader = self.parts.journal.reader(cache.position);
            let traits = std::mem::take(&mut cache.traits);
            let read = self.scan(pin, &traits, cancelled).tail(&mut *reader, &mut cache.columns);
            match read {
                Ok(()) => cache.traits = traits,
                // What was read in part cannot be told from the rest.
                Err(ScanError::Journal(JournalError::OutOfRange { .. })) => cache.clear(),
                Err(error) => {
                    cache.clear();
                    return Err(error.into());
                }
            }
        }
        cache.position = pin.position;
        Ok(())
    }

    fn scan<'a>(
        &'a self,
        pin: &'a Pin,
        traits: &'a TraitSet,
        cancelled: &'a AtomicBool,
    ) -> Scan<'a> {
        Scan { engine: &self.parts.engine, pin, traits, cancelled }
    }
}

/// The traits that the pin has columns of, under their ids, and those that it lacks.
fn kept<'a>(specs: &'a [TraitSpec], pin: &Pin) -> Result<(TraitSet, Vec<&'a TraitSpec>), AskError> {
    let mut set = TraitSet::new();
    let mut missing = Vec::new();
    for spec in specs {
        match pin.traits.id(spec) {
            Some(id) if pin.traits.is_whole(id) => insert(&mut set, id, spec)?,
            _ => missing.push(spec),
        }
    }
    Ok((set, missing))
}

fn insert(set: &mut TraitSet, id: TraitId, spec: &TraitSpec) -> Result<(), AskError> {
    set.insert(id, spec.clone()).map_err(|error| AskError::NotYet(error.to_string()))
}
