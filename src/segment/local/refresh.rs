//! The refresh: what changed since the last one is found, and only of that the rules are asked again.
//!
//! Known of the last refresh are its instant and, for each segment that was answered, its members. For these the fold
//! tells whom it changed since, lane by lane, and the columns whom time did. A segment that is new or whose rule is
//! another is asked of all, and so is every segment in the shards of a lane that was not held then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::Holding;
use super::Local;
use super::barred::Barred;
use super::evaluate::Answerable;
use super::evaluate::compile;
use super::lists::Profiles;
use super::lists::ToList;
use super::shown;
use super::watched::Watched;
use crate::ingest::Pin;
use crate::ingest::Traits;
use crate::model::Millis;
use crate::model::ShardId;
use crate::plan::Earlier;
use crate::plan::Members;
use crate::plan::Question;
use crate::plan::Repeated;
use crate::segment::AskError;
use crate::segment::Of;
use crate::segment::Outcome;
use crate::segment::Refreshed;
use crate::segment::refresh::Compiled;
use crate::store::audiences::BARRED;
use crate::store::audiences::RulePrint;
use crate::store::journal::Position;

/// The last refresh, and what is known since.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) last: Option<Kept>,
    /// The lanes, and what of them changed since.
    pub(super) watched: BTreeMap<u16, Watched>,
    pub(super) programs: Programs,
}

/// The audiences of the last refresh, and what they followed from.
pub(super) struct Kept {
    pub(super) now: Millis,
    pub(super) compiled: Arc<Compiled>,
    pub(super) refreshed: Arc<Of<Refreshed>>,
    to_list: ToList,
    barred: Barred,
    /// Of each lane, what was folded.
    lanes: Vec<(u16, Position)>,
}

/// What the last refresh came to, at the time it was for.
pub(super) struct Made {
    pub(super) to_list: ToList,
    /// Of each lane, what was folded.
    pub(super) lanes: Vec<(u16, Position)>,
}

impl Kept {
    /// The members of a segment whose rule is the same still.
    fn members(&self, id: &str, compiled: &Compiled) -> Option<&Arc<Members>> {
        let is_same = || {
            // Mostly all rules are.
            std::ptr::eq(&*self.compiled, compiled)
                || self.compiled.prints.get(id) == compiled.prints.get(id)
        };
        match self.refreshed.found.segments.get(id) {
            Some(Outcome::Members(members)) if is_same() => Some(members),
            _ => None,
        }
    }
}

/// Programs of the rules that are asked again, which are the same from one refresh to the next.
#[derive(Default)]
pub(super) struct Programs {
    of: Option<Arc<Compiled>>,
    ids: Vec<String>,
    made: Vec<(Arc<Traits>, Arc<Repeated>)>,
    /// Of each of these rules and each shard in which its members changed.
    earlier: HashMap<(usize, usize), Earlier>,
    /// Where a test says who are few.
    #[cfg(test)]
    pub(super) few: Option<u32>,
}

impl Programs {
    /// The program of some segments for the traits of each pin.
    fn of(
        &mut self,
        compiled: &Arc<Compiled>,
        known: &[(&str, Question<'_>)],
        pins: &[Pin],
    ) -> Result<Vec<Arc<Repeated>>, AskError> {
        let is_same = self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, compiled))
            && self.ids.iter().map(String::as_str).eq(known.iter().map(|(id, _)| *id));
        if !is_same {
            self.of = Some(compiled.clone());
            self.ids = known.iter().map(|(id, _)| (*id).to_owned()).collect();
            self.made.clear();
            self.earlier.clear();
        }
        let before = std::mem::take(&mut self.made);
        let alike = |one: &Arc<Traits>, other: &Arc<Traits>| {
            Arc::ptr_eq(one, other) || one.set().iter().eq(other.set().iter())
        };
        let mut programs = Vec::with_capacity(pins.len());
        for Pin { traits, .. } in pins {
            let mut made = before.iter().chain(&self.made);
            if let Some((_, program)) = made.find(|(of, _)| alike(of, traits)) {
                let program = program.clone();
                if !self.made.iter().any(|(of, _)| alike(of, traits)) {
                    self.made.push((traits.clone(), program.clone()));
                }
                programs.push(program);
                continue;
            }
            let questions: Vec<Question<'_>> = known.iter().map(|(_, asked)| *asked).collect();
            let program = compile(&questions, &compiled.library, traits.set())?;
            #[cfg_attr(not(test), expect(unused_mut, reason = "a test says who are few"))]
            let mut program = Repeated::new(program);
            #[cfg(test)]
            self.few.iter().for_each(|few| program.set_few(*few));
            let program = Arc::new(program);
            self.made.push((traits.clone(), program.clone()));
            programs.push(program);
        }
        Ok(programs)
    }
}

impl Standing {
    /// Pins the lanes, and notes what changed in them.
    fn pin(&mut self, holdings: &[Arc<Holding>], shards: u16) -> Vec<Pin> {
        self.watched.retain(|number, watched| {
            let held = holdings.iter().find(|holding| holding.lane.number == *number);
            held.is_some_and(|holding| Arc::ptr_eq(&holding.lane, &watched.lane))
        });
        let pins = holdings.iter().map(|holding| {
            let (pin, changes) = holding.lane.engine.pin_changes();
            let watched = self.watched.entry(holding.lane.number);
            let watched =
                watched.or_insert_with(|| Watched::new(holding.lane.clone(), &pin, shards));
            watched.note(&pin, changes);
            pin
        });
        pins.collect()
    }

    /// Asks the rules of known segments again in the shards of all lanes.
    fn ask_again(
        &mut self,
        known: &[(&str, Question<'_>)],
        (pins, programs): (&[Pin], &[Arc<Repeated>]),
        holdings: &[Arc<Holding>],
        (at, threads): (Millis, usize),
        compiled: &Compiled,
    ) -> (Vec<Arc<Members>>, Profiles) {
        let mut moved = Profiles::new();
        let Some(last) = &self.last else { return (Vec::new(), moved) };
        let before = known.iter().filter_map(|(id, _)| last.members(id, compiled));
        let mut all: Vec<Arc<Members>> = before.cloned().collect();
        let held = shards_of(holdings);
        if held != last.refreshed.shards {
            all.iter_mut().for_each(|members| Arc::make_mut(members).keep(&held));
        }
        for ((holding, pin), program) in holdings.iter().zip(pins).zip(programs) {
            let Some(watched) = self.watched.get_mut(&holding.lane.number) else { continue };
            let dirty = watched.dirty(pin, last.now);
            let again = program.again(&pin.snapshot, last.now, at);
            let answers = again.ask(&dirty, &mut watched.rows, threads);
            for shard in holding.lane.shards.iter().map(|shard| usize::from(*shard)) {
                let Some(answers) = answers.get(shard).filter(|answers| !answers.is_empty()) else {
                    continue;
                };
                let mut of_shard = Vec::new();
                let asked =
                    all.iter_mut().enumerate().filter(|(place, _)| answers.is_asked(*place));
                for (place, members) in asked {
                    let before = &members.shards[shard];
                    let mut new = Earlier::default();
                    let earlier = self.programs.earlier.get_mut(&(place, shard));
                    let next = earlier.unwrap_or(&mut new).next(before, answers, place);
                    if !new.is_empty() {
                        self.programs.earlier.insert((place, shard), new);
                    }
                    if let Some((now, delta)) = next {
                        of_shard.extend(delta.entered.iter().chain(&delta.left));
                        Arc::make_mut(members).shards[shard] = now;
                    }
                }
                of_shard.sort_unstable();
                of_shard.dedup();
                // There are no more shards than a u16 counts.
                let shard = ShardId::try_from(shard).unwrap_or(ShardId::MAX);
                moved.insert(shard, of_shard.into_iter().collect());
            }
        }
        (all, moved)
    }
}

impl Local {
    /// See [`Shards::refresh`](crate::segment::Shards::refresh).
    pub(super) fn refreshed(
        &self,
        compiled: &Arc<Compiled>,
        at: Millis,
    ) -> Result<Arc<Of<Refreshed>>, AskError> {
        let mut standing = self.standing.lock();
        let started = Instant::now();
        let holdings = self.holdings();
        self.keep_traits(&holdings, compiled, at);
        let pins = standing.pin(&holdings, self.lanes.shards());
        let Answerable { outcomes: mut segments, asked, listed } =
            self.answerable(compiled, pins.iter().map(|pin| &*pin.traits));
        let (known, new): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(id, _)| {
            standing.last.as_ref().is_some_and(|last| last.members(id, compiled).is_some())
        });
        // What may fail comes first: until all is answered, what changed is remembered.
        for id in listed {
            let members = match compiled.prints.get(id) {
                Some(print) => self.listed(id, *print, &holdings)?,
                None => None,
            };
            let outcome = members.map_or(Outcome::Training, Outcome::Members);
            segments.insert(id.to_owned(), outcome);
        }
        self.tidy_trainings(&|id| compiled.live.segments.contains_key(id));
        let programs = standing.programs.of(compiled, &known, &pins)?;
        if !new.is_empty() {
            let pinned: Vec<_> =
                holdings.iter().map(|h| h.lane.shards.clone()).zip(&pins).collect();
            let questions: Vec<Question<'_>> = new.iter().map(|(_, question)| *question).collect();
            let grounds = Self::grounds_of_pins(&pinned, at);
            let results = self.run(&questions, &compiled.library, &grounds, at)?;
            for ((id, _), members) in new.iter().zip(results) {
                segments.insert((*id).to_owned(), Outcome::Members(Arc::new(members)));
            }
        }
        let (barred, out) = {
            let shards = holdings.iter().map(|holding| &*holding.lane.shards);
            let lanes: Vec<_> = shards.zip(&pins).collect();
            let before = standing.last.as_ref().map(|last| &last.barred);
            Barred::next(before, &lanes, self.lanes.shards())
        };
        let mut moved = None;
        if !known.is_empty() {
            let of = (&pins[..], &programs[..]);
            let (all, mut who) =
                standing.ask_again(&known, of, &holdings, (at, self.threads), compiled);
            let last = standing.last.as_ref().filter(|last| {
                let held = shards_of(&holdings);
                new.is_empty()
                    && Arc::ptr_eq(&last.compiled, compiled)
                    && held == last.refreshed.shards
            });
            for (shard, out) in out {
                *who.entry(shard).or_default() |= out;
            }
            moved = last.map(|last| (last.to_list.shown.clone(), Arc::new(who)));
            for ((id, _), members) in known.iter().zip(all) {
                segments.insert((*id).to_owned(), Outcome::Members(members));
            }
        }
        let before = standing.last.as_ref();
        let mut shown = shown::next(
            before.map(|last| (&*last.to_list.shown, &*last.refreshed.shards)),
            compiled,
            &segments,
            &holdings,
            self.lanes.shards(),
        )?;
        shown.insert(BARRED.to_owned(), (RulePrint::default(), barred.members.clone()));
        let shown = match before.filter(|last| shown::are_same(&last.to_list.shown, &shown)) {
            Some(last) => last.to_list.shown.clone(),
            None => Arc::new(shown),
        };
        for (holding, pin) in holdings.iter().zip(&pins) {
            if let Some(watched) = standing.watched.get_mut(&holding.lane.number) {
                watched.done(pin);
            }
        }
        self.audits.offer((&holdings, &pins), compiled, &segments, at);
        let shards = shards_of(&holdings);
        let same = standing.last.as_ref().filter(|last| {
            let before = &last.refreshed;
            before.shards == shards
                && are_same(&before.found.segments, &segments)
                // Lists are written with a generation, and who is barred now must not wait for another change.
                && Arc::ptr_eq(&last.barred.members, &barred.members)
        });
        let refreshed = match same {
            Some(last) => last.refreshed.clone(),
            None => Arc::new(Of { shards, found: Refreshed { segments } }),
        };
        self.metrics.segment_refresh_duration.observe(started.elapsed().as_secs_f64());
        let lanes = holdings.iter().zip(&pins).map(|(h, pin)| (h.lane.number, pin.position));
        standing.last = Some(Kept {
            now: at,
            compiled: compiled.clone(),
            refreshed: refreshed.clone(),
            to_list: ToList { shown, moved },
            barred,
            lanes: lanes.collect(),
        });
        Ok(refreshed)
    }

    /// The last refresh, where that was for this time.
    pub(super) fn made_at(&self, at: Millis) -> Option<Made> {
        let standing = self.standing.lock();
        let Kept { to_list, lanes, .. } = standing.last.as_ref().filter(|last| last.now == at)?;
        Some(Made { to_list: to_list.clone(), lanes: lanes.clone() })
    }
}

fn shards_of(holdings: &[Arc<Holding>]) -> Vec<ShardId> {
    let mut shards: Vec<ShardId> =
        holdings.iter().flat_map(|holding| holding.lane.shards.iter().copied()).collect();
    shards.sort_unstable();
    shards
}

/// Whether all outcomes are those of before, members not only equal but shared.
fn are_same(before: &BTreeMap<String, Outcome>, now: &BTreeMap<String, Outcome>) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|((id, before), (other, now))| {
            id == other
                && match (before, now) {
                    (Outcome::Members(before), Outcome::Members(now)) => Arc::ptr_eq(before, now),
                    (before, now) => before == now,
                }
        })
}
