//! The registry of traits: which are folded, since when, and whether they hold all that the archive has.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::bitmap::TraitId;
use crate::model::Event;
use crate::model::Measure;
use crate::model::Millis;
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
    /// Since when nobody asks it; `None` where somebody does.
    unasked: Option<Millis>,
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

    /// The traits that nobody asks.
    pub fn unasked(&self) -> impl Iterator<Item = TraitId> {
        self.states.iter().filter(|(_, state)| state.unasked.is_some()).map(|(id, _)| *id)
    }

    /// Whether these traits are known to be asked now, all others not to be, and none of them for longer than
    /// `grace`: then nothing is to be done.
    pub fn are_asked(&self, specs: &[TraitSpec], now: Millis, grace: Millis) -> bool {
        let asked: BTreeSet<TraitId> = specs.iter().filter_map(|spec| self.id(spec)).collect();
        asked.len() == specs.len()
            && self.states.iter().all(|(id, state)| match state.unasked {
                None => asked.contains(id),
                Some(since) => !asked.contains(id) && is_within(since, now, grace),
            })
    }

    /// Says that nobody asks a trait from now on, and gives its row; `None` where it goes: it is not whole, or was
    /// asked last longer than `grace` ago.
    pub(crate) fn unask(&mut self, id: TraitId, now: Millis, grace: Millis) -> Option<TraitRow> {
        let state = self.states.get_mut(&id).filter(|state| state.whole)?;
        let since = *state.unasked.get_or_insert(now);
        if is_within(since, now, grace) { self.row(id) } else { None }
    }

    /// Says that somebody asks a trait, and gives its row where that is new.
    pub(crate) fn ask(&mut self, id: TraitId) -> Option<TraitRow> {
        self.states.get_mut(&id)?.unasked.take()?;
        self.row(id)
    }

    /// A trait's row as the store has to have it before the next commit of its images.
    fn row(&self, id: TraitId) -> Option<TraitRow> {
        let State { kept, imaged, unasked, .. } = *self.states.get(&id)?;
        let text = self.set.spec(id)?.to_string().into();
        Some(TraitRow { id: id.0, text, whole: kept, imaged, unasked })
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
        let state = State {
            from: Position(0),
            whole: true,
            kept: true,
            imaged: row.imaged,
            unasked: row.unasked,
        };
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
        self.states.insert(id, State { from, whole, kept: whole, imaged: 0, unasked: None });
        Ok(TraitRow { id: id.0, text, whole, imaged: 0, unasked: None })
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
        let mut unasked = None;
        if let Some(state) = self.states.get_mut(&id) {
            state.kept = true;
            state.imaged = commit;
            unasked = state.unasked;
        }
        let text = self.set.spec(id).map(ToString::to_string).unwrap_or_default().into();
        TraitRow { id: id.0, text, whole: true, imaged: commit, unasked }
    }
}

fn is_within(since: Millis, now: Millis, grace: Millis) -> bool {
    now.saturating_sub(since) < grace
}

/// A trait whose filter cannot be matched, such as a regular expression that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a trait's filter cannot be matched: check its regular expression")]
pub struct BadTrait;
