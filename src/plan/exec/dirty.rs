//! Whom a refresh asks again, and what of them: a profile that got a fact is asked only the rules that read its trait.

use roaring::RoaringBitmap;

use super::came::Came;
use super::crossed::Crossed;
use super::lone;
use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Interval;
use crate::bitmap::RowFact;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Ordinal;
use crate::model::time::Millis;

/// A fact of a profile, without its value.
pub(super) type Fact = (Ordinal, TraitId, Millis);

/// The profiles of a shard that were changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Dirty {
    /// These.
    Some(Touched),
    /// All may be: nothing is known of before.
    All,
}

/// Profiles of whom something is other than before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Touched {
    /// Of whom anything may be.
    pub profiles: RoaringBitmap,
    /// Facts that were added and are in the columns, but for those of days that were dropped; of whom nothing else is
    /// known to be other.
    pub facts: Vec<Fact>,
}

/// So many facts are remembered; of more, only whose they are.
pub(super) const MOST: usize = 1 << 18;

impl Touched {
    /// Profiles of whom anything may be other.
    pub fn wholly(profiles: RoaringBitmap) -> Self {
        Self { profiles, facts: Vec::new() }
    }

    /// Adds facts, of profiles of whom nothing else is other.
    pub fn add(&mut self, facts: Vec<Fact>) {
        match self.facts.is_empty() {
            true => self.facts = facts,
            false => self.facts.extend(facts),
        }
        if self.facts.len() > MOST {
            self.forget_facts();
        }
    }

    /// Remembers only whose the facts are.
    pub fn forget_facts(&mut self) {
        self.profiles.extend(self.facts.drain(..).map(|(ordinal, ..)| ordinal));
    }
}

/// The profiles of a block of whom more may be other than what the facts that came change, those of one block each
/// time. All its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// All of them; in order, once their facts were taken.
    pub(super) list: Vec<u16>,
    marked: BlockSet,
    /// Whether anything may be other of each.
    is_all: bool,
    /// Those of whom anything may be other, in order.
    whole: Vec<u16>,
    /// Those with an event that every rule feels, which may be one that came, if there are any.
    of_all: BlockSet,
    is_of_all: bool,
    /// Those with an event that crossed an edge of a window, of which it is not known what it is a fact of.
    crossed: Vec<u16>,
    /// The traits of which they have a fact that came, or that crossed an edge of a window.
    traits: Vec<(u16, TraitId)>,
    /// When events of theirs came.
    came: Vec<(u16, Millis)>,
    scratch: BlockSet,
}

impl Candidates {
    /// Finds those of a block who are some, whatever of `came` is theirs.
    pub(super) fn find(
        &mut self,
        (number, block): (u32, &Block),
        dirty: &Dirty,
        came: Came<'_>,
        crossed: &Crossed,
    ) {
        self.list.clear();
        self.whole.clear();
        self.crossed.clear();
        self.traits.clear();
        self.came.clear();
        let population = block.population();
        self.is_all = *dirty == Dirty::All;
        let Dirty::Some(Touched { profiles, .. }) = dirty else {
            self.list.extend((0..population).map(low));
            self.marked.fill(population);
            return;
        };
        self.marked.reset(population);
        let first = number * BLOCK;
        let end = u64::from(first) + u64::from(population);
        let changed = profiles.range(first..).take_while(|ordinal| u64::from(*ordinal) < end);
        self.whole.extend(changed.map(low));
        let Self { list, marked, traits, whole, crossed: of_events, .. } = self;
        let mut mark = |low: u16| {
            if marked.insert_new(low) {
                list.push(low);
            }
        };
        whole.iter().for_each(|low| mark(*low));
        crossed.each(block, &mut self.scratch, |id, found| match id {
            Some(id) => traits.extend(found.iter().map(|low| (low, id))),
            None => of_events.extend(found.iter()),
        });
        traits.iter().for_each(|(low, _)| mark(*low));
        of_events.iter().for_each(|low| mark(*low));
        self.is_of_all = crossed.mark_all(block, came, &mut self.of_all);
        if self.is_of_all {
            self.of_all.iter().for_each(mark);
        }
    }

    /// Whether a profile is one.
    pub(super) fn has(&self, ordinal: u16) -> bool {
        self.marked.contains(ordinal)
    }

    /// Adds a profile, which may be one already.
    pub(super) fn add(&mut self, ordinal: u16) {
        if self.marked.insert_new(ordinal) {
            self.list.push(ordinal);
        }
    }

    /// Takes the facts of those who are some, of all that came to the block.
    pub(super) fn take(&mut self, came: Came<'_>) {
        if self.list.is_empty() {
            return;
        }
        for run in came.runs.iter().filter(|run| self.marked.contains(run.ordinal)) {
            for (_, id, time) in came.facts(run) {
                self.traits.push((run.ordinal, *id));
                if *id == TraitId::ANY {
                    self.came.push((run.ordinal, *time));
                }
            }
        }
        self.traits.sort_unstable();
        self.traits.dedup();
        self.came.sort_unstable();
        self.crossed.sort_unstable();
        self.list.sort_unstable();
    }

    /// For what one of them is asked. `facts` are those it has, by trait and time, and `retained` is what counted
    /// before. They are asked in their order, `next` from its default on.
    pub(super) fn why(
        &self,
        ordinal: u16,
        next: &mut Next,
        facts: &[RowFact],
        (retained, crossed): (Interval, &Crossed),
    ) -> Why<'_> {
        let traits = of(&self.traits, &mut next.traits, ordinal);
        let came = of(&self.came, &mut next.came, ordinal);
        if self.is_all || self.whole.binary_search(&ordinal).is_ok() {
            return Why::Any;
        }
        let events = lone::events(facts);
        // How many it had before of those within some times.
        let had = |is_within: &dyn Fn(Millis) -> bool| {
            let all = events.iter().filter(|event| is_within(event.time())).count();
            all.saturating_sub(came.iter().filter(|(_, time)| is_within(*time)).count())
        };
        // What is true of nobody unknown may be true of one who had nothing that counted.
        let was_known = had(&|time| retained.holds(time)) > 0;
        let crossed = &crossed.of_all;
        let is_of_all = self.is_of_all
            && self.of_all.contains(ordinal)
            && had(&|time| crossed.iter().any(|stretch| stretch.holds(time))) > 0;
        match (was_known, is_of_all) {
            (false, _) => Why::New,
            (true, true) => Why::Any,
            (true, false) if self.crossed.binary_search(&ordinal).is_ok() => Why::Own,
            (true, false) => Why::Traits(traits),
        }
    }
}

/// What may be other of a profile.
pub(super) enum Why<'a> {
    /// Anything.
    Any,
    /// Anything, and it was in nothing before: it was not known.
    New,
    /// What rules read of the traits of which it has facts.
    Own,
    /// What rules read of these traits, which are in order.
    Traits(&'a [(u16, TraitId)]),
}

/// Where what is of the next profile is looked for.
#[derive(Debug, Default)]
pub(super) struct Next {
    traits: usize,
    came: usize,
}

/// What is of one ordinal, from a place on, which becomes that of the next.
fn of<'a, T>(all: &'a [(u16, T)], next: &mut usize, ordinal: u16) -> &'a [(u16, T)] {
    let left = all.get(*next..).unwrap_or_default();
    let before = left.iter().take_while(|(other, _)| *other < ordinal).count();
    let left = &left[before..];
    let own = left.iter().take_while(|(other, _)| *other == ordinal).count();
    *next += before + own;
    &left[..own]
}

pub(super) fn low(ordinal: Ordinal) -> u16 {
    // The rest of a division by BLOCK fits.
    u16::try_from(ordinal % BLOCK).unwrap_or(0)
}
