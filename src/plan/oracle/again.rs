//! Rules asked again of whom something changed, against all profiles asked anew and the naive evaluator.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use roaring::RoaringBitmap;

use super::World;
use super::agree::place;
use super::cases;
use super::generate;
use super::generate::History;
use crate::bitmap::Block;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::time::day_of;
use crate::model::time::day_start;
use crate::plan;
use crate::plan::Dirty;
use crate::plan::Earlier;
use crate::plan::Library;
use crate::plan::Members;
use crate::plan::Moment;
use crate::plan::Program;
use crate::plan::Question;
use crate::plan::Repeated;
use crate::plan::ShardRows;
use crate::plan::Touched;
use crate::plan::TraitSet;
use crate::rules;
use crate::rules::Body;
use crate::rules::Level;

/// Columns that grow as the fold makes them grow, and what it says of it.
struct Store {
    traits: TraitSet,
    blocks: [Vec<Block>; 2],
    profiles: Vec<(Identifier, (ShardId, Ordinal))>,
    dirty: [Touched; 2],
    added: [Vec<(Ordinal, TraitId, i64)>; 2],
    erased: [RoaringBitmap; 2],
}

impl Store {
    fn fold(&mut self, event: &Event) {
        let before = self.profiles.len();
        let known = place(&mut self.profiles, event.owner());
        let is_new = self.profiles.len() > before;
        let (shard, at) = self.profiles[known].1;
        let shard = usize::from(shard);
        let block = &mut self.blocks[shard][(at / BLOCK) as usize];
        let ordinal = u16::try_from(at % BLOCK).unwrap();
        let mut facts = Vec::new();
        self.traits.facts(event, &mut facts);
        for (id, value) in facts {
            block.add_fact(id, ordinal, event.time, value);
            self.added[shard].push((at, id, event.time));
            self.dirty[shard].add(vec![(at, id, event.time)]);
        }
        for (name, value) in &event.attrs {
            block.add_attribute(name, ordinal, event.time, value.clone());
        }
        let mut is_other = is_new || !event.attrs.is_empty();
        for id in &event.ids {
            let holders = block.holders(id.namespace.as_str());
            is_other |= !holders.is_some_and(|holders| holders.contains(ordinal));
            block.add_namespace(&id.namespace, ordinal);
        }
        if event.owner().namespace.is_device() {
            block.set_owner_is_device(ordinal);
        }
        if is_other {
            self.dirty[shard].profiles.insert(at);
        }
    }

    /// Erases a profile; whoever comes with its identifier is another.
    fn erase(&mut self, place: usize) -> Identifier {
        let (owner, (shard, at)) = &mut self.profiles[place];
        let gone = Identifier::new(owner.namespace.clone(), &format!("gone-{place}")).unwrap();
        let shard = usize::from(*shard);
        let low = u16::try_from(*at % BLOCK).unwrap();
        self.blocks[shard][(*at / BLOCK) as usize].erase(&[low].into_iter().collect());
        self.dirty[shard].profiles.insert(*at);
        self.dirty[shard].forget_facts();
        self.erased[shard].insert(*at);
        std::mem::replace(owner, gone)
    }

    fn snapshot(&self, true_for: i64, retention: i64) -> Snapshot {
        let shards =
            self.blocks.iter().map(|blocks| blocks.iter().cloned().map(Arc::new).collect());
        Snapshot { shards: shards.collect(), true_for, retention }
    }

    /// Drops what no instant from here on can see, as the fold does when a day turns.
    fn turn(&mut self, first_day: i64) {
        for block in self.blocks.iter_mut().flatten() {
            block.drop_before(first_day);
        }
    }
}

fn edge(at: i64, history: &History) -> i64 {
    Moment { now: at, true_for: at, retention: history.retention }.edge()
}

fn check(history: &History, few: u32, threads: usize) -> TestCaseResult {
    let mut library = Library::new();
    let mut segments = BTreeMap::new();
    for (i, rule) in history.segments.iter().enumerate() {
        library.insert(&format!("s-{i}"), Body::Rule(rule.clone()));
        segments.insert(format!("s-{i}"), rule.clone());
    }
    let mut traits = TraitSet::new();
    for (id, spec) in (1..).zip(plan::traits_of(&history.rules, &library).unwrap()) {
        traits.insert(TraitId(id), spec).unwrap();
    }
    let questions: Vec<Question<'_>> = history
        .rules
        .iter()
        .flat_map(|rule| [Level::Person, Level::Device].map(|level| Question { rule, level }))
        .collect();
    let program = Program::compile(&questions, &library, &traits).unwrap();
    let mut repeated = Repeated::new(program.clone());
    repeated.set_few(few);
    let mut store = Store {
        traits,
        blocks: [vec![Block::new()], vec![Block::new(), Block::new()]],
        profiles: Vec::new(),
        dirty: Default::default(),
        added: Default::default(),
        erased: Default::default(),
    };
    let mut gone: Vec<(Identifier, usize)> = Vec::new();
    let mut folded: Vec<(usize, Event)> = Vec::new();
    let mut turned = None;
    let mut rows = [ShardRows::default(), ShardRows::default()];
    let mut members: Vec<Members> = vec![Members::none(2); questions.len()];
    let mut earlier: Vec<[Earlier; 2]> = (0..questions.len())
        .map(|_| [Earlier::of_larger_than(0), Earlier::of_larger_than(0)])
        .collect();
    let mut held: Vec<(Vec<Members>, Vec<Members>)> = Vec::new();
    let mut before = None;
    let earliest = *history.instants.iter().min().unwrap();
    for (step, now) in history.instants.iter().enumerate() {
        for (_, event) in history.events.iter().filter(|(place, _)| *place == step) {
            let mut event = event.clone();
            // That an attribute was set to null is dropped with its day, so that an older value which comes later
            // yet stands: nothing tells any more which was the newer one.
            if turned.is_some_and(|first_day| day_of(event.time) < first_day) {
                event.attrs.clear();
            }
            store.fold(&event);
            folded.push((step, event));
        }
        if step % 2 == 1 && !store.profiles.is_empty() {
            gone.push((store.erase(step * 7 % store.profiles.len()), step));
        }
        let later = history.instants[step..].iter().min().unwrap_or(&earliest);
        let first_day = day_of(later - history.retention);
        store.turn(first_day);
        turned = turned.max(Some(first_day));
        let snapshot = store.snapshot(*now, history.retention);
        for ((rows, added), erased) in rows.iter_mut().zip(&mut store.added).zip(&mut store.erased)
        {
            rows.add(&std::mem::take(added));
            rows.forget(&std::mem::take(erased));
        }
        // What was dropped is found no more, so it must not have counted before.
        let known = before.filter(|before| day_start(first_day) <= edge(*before, history));
        let dirty = std::mem::take(&mut store.dirty).map(|dirty| match known {
            Some(_) => Dirty::Some(dirty),
            None => Dirty::All,
        });
        let again = repeated.again(&snapshot, before.unwrap_or(*now), *now);
        let answers = again.ask(&dirty, &mut rows, threads);
        let is_gone = |place: usize, event: &Event| {
            gone.iter().any(|(owner, step)| owner == event.owner() && place <= *step)
        };
        let seen = folded.iter().filter(|(p, e)| !is_gone(*p, e));
        let seen: Vec<Event> = seen.map(|(_, event)| event.clone()).collect();
        let world = World {
            events: &seen,
            segments: &segments,
            now: *now,
            true_for: *now,
            retention: history.retention,
        };
        let anew = program.run(&snapshot, *now, 1).unwrap();
        for (place, question) in questions.iter().enumerate() {
            let then = members[place].clone();
            let mut deltas = Vec::new();
            for (shard, answers) in answers.iter().enumerate() {
                let before = &then.shards[shard];
                let delta = answers.delta(place, before);
                let next = earlier[place][shard].next(before, answers, place);
                prop_assert_eq!(&delta, &next.as_ref().map(|(_, delta)| delta.clone()));
                if let Some((now, delta)) = next {
                    members[place].shards[shard] = now;
                    deltas.push((shard, delta));
                }
            }
            let rule = || rules::print_inline(question.rule);
            prop_assert_eq!(
                &members[place],
                &anew[place],
                "step {} of {:?}: {}",
                step,
                history.instants,
                rule()
            );
            prop_assert_eq!(deltas, members[place].since(&then), "what changed: {}", rule());
            for (owner, (shard, ordinal)) in &store.profiles {
                let truth = world.member(question.rule, question.level, owner).unwrap();
                let found = members[place].shards[usize::from(*shard)].contains(*ordinal);
                prop_assert_eq!(found, truth, "{} at step {}: {}", owner.value(), step, rule());
            }
        }
        before = Some(*now);
        // Whoever has members of a while ago has them unchanged.
        if step % 3 == 0 {
            let copied = members.iter().map(|members| Members {
                shards: members.shards.iter().map(|s| Arc::new(RoaringBitmap::clone(s))).collect(),
            });
            held.push((members.clone(), copied.collect()));
        }
    }
    for (held, copied) in held {
        prop_assert_eq!(held, copied);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn who_is_asked_again_is_who_may_have_changed(
        history in generate::history(),
        few in proptest::sample::select(vec![0, 1, 64, u32::MAX]),
        threads in 1usize..3,
    ) {
        check(&history, few, threads)?;
    }

    // Of one with a new attribute or identifier everything is asked, so that what is sifted is seldom among the others.
    #[test]
    fn of_whom_nothing_but_facts_came_what_these_may_change_is_asked(
        mut history in generate::history(),
        few in proptest::sample::select(vec![0, 1]),
    ) {
        for (_, event) in &mut history.events {
            event.attrs.clear();
            event.ids.truncate(1);
            // What is asked of the properties leaves few facts over.
            event.name = if event.name.len() == 4 { "view" } else { "buy" }.into();
        }
        check(&history, few, 1)?;
    }
}

#[test]
fn facts_of_one_millisecond_are_measured_each() {
    let (rule, _) = rules::parse("sum x.v in 1d = 7 and avg x.v in 1d = 3.5 and count x in 1d = 2");
    let library = Library::new();
    let mut traits = TraitSet::new();
    let mut block = Block::new();
    let at = day_start(100);
    for (id, spec) in (1..).zip(plan::traits_of([&rule], &library).unwrap()) {
        for units in [30_000, 40_000] {
            let value = spec.is_measured().then_some(crate::model::Measure(units));
            block.add_fact(TraitId(id), 3, at, value);
            block.add_fact(TraitId::ANY, 3, at, None);
        }
        traits.insert(TraitId(id), spec).unwrap();
    }
    let question = Question { rule: &rule, level: Level::Person };
    let mut repeated = Repeated::new(Program::compile(&[question], &library, &traits).unwrap());
    let shards = vec![vec![Arc::new(block)]];
    let snapshot = Snapshot { shards, true_for: at, retention: 90 * 86_400_000 };
    for few in [0, u32::MAX] {
        repeated.set_few(few);
        let dirty = [Dirty::Some(Touched::wholly(RoaringBitmap::from_iter([3])))];
        let answers = repeated.again(&snapshot, at, at).ask(&dirty, &mut [ShardRows::default()], 1);
        assert_eq!(answers[0].members(0).iter().collect::<Vec<_>>(), [3], "few: {few}");
    }
}

#[test]
fn a_profile_that_nothing_happened_to_is_not_asked() {
    let (rule, _) = rules::parse("not did x in 2d");
    let library = Library::new();
    let mut traits = TraitSet::new();
    for (id, spec) in (1..).zip(plan::traits_of([&rule], &library).unwrap()) {
        traits.insert(TraitId(id), spec).unwrap();
    }
    let question = Question { rule: &rule, level: Level::Person };
    let repeated = Repeated::new(Program::compile(&[question], &library, &traits).unwrap());
    let mut block = Block::new();
    for ordinal in 0..1000u16 {
        let time = day_start(100) + i64::from(ordinal) * 1000;
        block.add_fact(TraitId::ANY, ordinal, time, None);
        block.add_fact(TraitId(1), ordinal, time, None);
    }
    let day = 86_400_000;
    let shards = vec![vec![Arc::new(block)]];
    let snapshot = Snapshot { shards, true_for: 0, retention: 90 * day };
    let asked = |before: i64, now: i64| {
        let dirty = [Dirty::Some(Touched::wholly(RoaringBitmap::from_iter([7])))];
        let mut rows = [ShardRows::default()];
        let answers = repeated.again(&snapshot, before, now).ask(&dirty, &mut rows, 1);
        answers[0].asked(0).expect("one was named").iter().collect::<Vec<_>>()
    };
    // Two days later the minute from 600 s on leaves the window, and nobody else is looked at.
    let at = day_start(102) + 600_000;
    assert_eq!(asked(at, at + 59_999), [7]);
    let minute: Vec<u32> = [7].into_iter().chain(600..660).collect();
    assert_eq!(asked(at, at + 60_000), minute);
    assert_eq!(asked(at - 1, at + 59_999), [7].into_iter().chain(540..600).collect::<Vec<u32>>());
}
