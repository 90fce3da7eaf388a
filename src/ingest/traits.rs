//! The registry of traits: which are folded, since when, and whether they hold all that the archive has.

use std::collections::BTreeMap;

use crate::bitmap::TraitId;
use crate::model::Event;
use crate::model::Measure;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::store::journal::Position;
use crate::store::state::TraitRow;

/// The traits that are folded. [`TraitId::ANY`] always is, and is whole.
#[derive(Debug, Clone, Default)]
pub struct Traits {
    set: TraitSet,
    states: BTreeMap<TraitId, State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Events from here on are in its columns.
    from: Position,
    /// Whether earlier ones are too.
    whole: bool,
    /// Whether its columns survive a restart.
    kept: bool,
    /// Facts in deltas of commits up to this one are in its images.
    imaged: u64,
}

impl Traits {
    /// The set that takes events.
    pub fn set(&self) -> &TraitSet {
        &self.set
    }

    /// The id of a trait that is folded.
    pub fn id(&self, spec: &TraitSpec) -> Option<TraitId> {
        self.set.id(spec)
    }

    /// What a trait asks.
    pub fn spec(&self, id: TraitId) -> Option<&TraitSpec> {
        self.set.spec(id)
    }

    /// Whether its columns hold all that the archive has.
    pub fn is_whole(&self, id: TraitId) -> bool {
        id == TraitId::ANY || self.states.get(&id).is_some_and(|state| state.whole)
    }

    /// From where on events are in its columns without being filled in.
    pub fn folded_from(&self, id: TraitId) -> Option<Position> {
        self.states.get(&id).map(|state| state.from)
    }

    /// All ids but [`TraitId::ANY`].
    pub fn ids(&self) -> impl Iterator<Item = TraitId> {
        self.states.keys().copied()
    }

    /// The traits that have to be filled.
    pub fn unfilled(&self) -> impl Iterator<Item = TraitId> {
        self.states.iter().filter(|(_, state)| !state.whole).map(|(id, _)| *id)
    }

    pub(crate) fn facts(&self, event: &Event, out: &mut Vec<(TraitId, Option<Measure>)>) -> u32 {
        self.set.facts(event, out)
    }

    /// Whether its columns are kept in images.
    pub(crate) fn is_kept(&self, id: TraitId) -> bool {
        id == TraitId::ANY || self.states.get(&id).is_some_and(|state| state.kept)
    }

    /// Whether a fact of a delta has to be done again at restart.
    pub(crate) fn wants(&self, id: TraitId, commit: u64) -> bool {
        id == TraitId::ANY || self.states.get(&id).is_some_and(|state| commit > state.imaged)
    }

    /// Adds a stored trait, or refuses one that cannot be kept: it was not whole, or is of a language that
    /// this program does not know.
    pub(crate) fn load(&mut self, row: &TraitRow) -> bool {
        let Some(spec) = row.whole.then(|| TraitSpec::parse(&row.text)).flatten() else {
            return false;
        };
        let id = TraitId(row.id);
        let state = State { from: Position(0), whole: true, kept: true, imaged: row.imaged };
        let is_new = self.set.insert(id, spec).is_ok() && self.set.spec(id).is_some();
        if is_new {
            self.states.insert(id, state);
        }
        is_new
    }

    /// Adds a trait; `whole` where there is nothing to fill it with.
    pub(crate) fn add(
        &mut self,
        id: TraitId,
        spec: TraitSpec,
        from: Position,
        whole: bool,
    ) -> Result<TraitRow, BadTrait> {
        let text = spec.to_string().into();
        self.set.insert(id, spec).map_err(|_| BadTrait)?;
        self.states.insert(id, State { from, whole, kept: whole, imaged: 0 });
        Ok(TraitRow { id: id.0, text, whole, imaged: 0 })
    }

    pub(crate) fn remove(&mut self, id: TraitId) {
        self.set.remove(id);
        self.states.remove(&id);
    }

    /// Starts a trait that is not whole anew: events from `from` on are in its columns.
    pub(crate) fn restart(&mut self, id: TraitId, from: Position) {
        if let Some(state) = self.states.get_mut(&id) {
            state.from = from;
        }
    }

    /// Says that a trait holds all that the archive has.
    pub(crate) fn fill(&mut self, id: TraitId) -> bool {
        self.states.get_mut(&id).is_some_and(|state| !std::mem::replace(&mut state.whole, true))
    }

    /// Says that the commit of this number keeps a trait's columns as images, and gives its row.
    pub(crate) fn keep(&mut self, id: TraitId, commit: u64) -> TraitRow {
        if let Some(state) = self.states.get_mut(&id) {
            state.kept = true;
            state.imaged = commit;
        }
        let text = self.set.spec(id).map(ToString::to_string).unwrap_or_default().into();
        TraitRow { id: id.0, text, whole: true, imaged: commit }
    }
}

/// A trait whose filter cannot be matched, such as a regular expression that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a trait's filter cannot be matched: check its regular expression")]
pub struct BadTrait;
