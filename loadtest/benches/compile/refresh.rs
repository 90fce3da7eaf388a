//! A refresh after one profile in a hundred changed.

use crate::common::TRAITS;
use crate::facts::{END, SHARDS, place};
use crate::{median, timed};
use loadtest::random::Random;
use std::sync::Arc;
use std::time::Instant;
use throng::bitmap::{Snapshot, TraitId};
use throng::model::time::{DAY, MINUTE};
use throng::model::{Millis, Ordinal};
use throng::plan::{Answers, Dirty, Earlier, Members, Program, Repeated, ShardRows, Touched};

/// When windows cut days, as they do at all instants but those at which a day begins.
const MIDDAY: Millis = END + DAY / 2;
/// How many refreshes follow one another, and how many of them are not counted: rows are made in the first.
const ROUNDS: usize = 24;
const FIRST: usize = 4;

/// Milliseconds that a refresh takes, and that all asked anew does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refreshed {
    /// After what.
    pub(crate) when: &'static str,
    pub(crate) ms: f64,
    pub(crate) anew_ms: f64,
}

impl Refreshed {
    pub(crate) fn ratio(self) -> f64 {
        self.anew_ms / self.ms
    }
}

/// Facts by shard, each of a profile.
type Facts = Vec<Vec<(Ordinal, TraitId, Millis)>>;

/// All that is measured: the same refresh again and again, as all else here is; and refreshes one after another, between
/// which the fold leaves little in the caches.
pub(crate) fn all(program: &Program, before: &Snapshot, visitors: u32) -> Vec<Refreshed> {
    let same = |when, last, now| same(program, before, visitors, (when, last, now));
    vec![
        same("1 % changed", END, END),
        same("1 % changed at midday", MIDDAY, MIDDAY),
        same("1 % changed and a minute passed", MIDDAY, MIDDAY + MINUTE),
        one_after_another(program, before, visitors),
    ]
}

/// Refreshes at an instant, where the last one was at another and the events came half way between; what it finds is
/// compared with all asked anew.
fn same(
    program: &Program,
    before: &Snapshot,
    visitors: u32,
    (when, last, now): (&'static str, Millis, Millis),
) -> Refreshed {
    let members = program.run(before, last, 1).expect("within retention");
    let mut after = before.clone();
    let facts = come(&mut after, visitors, last + (now - last) / 2, &mut Random::new(9));
    let dirty = dirty(facts);
    let anew = || program.run(&after, now, 1).expect("within retention");
    let (found, anew_ms) = (anew(), timed(anew));
    let repeated = Repeated::new(program.clone());
    let mut rows: Vec<ShardRows> = (0..SHARDS).map(|_| ShardRows::default()).collect();
    let mut refresh = || {
        let mut members = members.clone();
        let answers = repeated.again(&after, last, now).ask(&dirty, &mut rows, 1);
        patch(&mut members, &answers, None);
        members
    };
    assert_eq!(refresh(), found, "a refresh finds what all asked anew do");
    Refreshed { when, ms: timed(refresh), anew_ms }
}

fn one_after_another(program: &Program, before: &Snapshot, visitors: u32) -> Refreshed {
    let mut members = program.run(before, MIDDAY, 1).expect("within retention");
    let (mut after, mut random) = (before.clone(), Random::new(9));
    let repeated = Repeated::new(program.clone());
    let mut rows: Vec<ShardRows> = (0..SHARDS).map(|_| ShardRows::default()).collect();
    let each = members.len() * before.shards.len();
    let mut earlier: Vec<Earlier> = (0..each).map(|_| Earlier::default()).collect();
    let (mut times, mut anew) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let facts = come(&mut after, visitors, MIDDAY, &mut random);
        let begun = Instant::now();
        rows.iter_mut().zip(&facts).for_each(|(rows, facts)| rows.add(facts));
        let answers = repeated.again(&after, MIDDAY, MIDDAY).ask(&dirty(facts), &mut rows, 1);
        patch(&mut members, &answers, Some(&mut earlier));
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        if round % 5 == FIRST {
            let begun = Instant::now();
            let found = program.run(&after, MIDDAY, 1).expect("within retention");
            anew.push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!(members, found, "a refresh finds what all asked anew do");
        }
    }
    let ms = median(times.split_off(FIRST));
    Refreshed { when: "1 % changed, one refresh after another", ms, anew_ms: median(anew) }
}

/// One event of one visitor in a hundred comes.
fn come(columns: &mut Snapshot, visitors: u32, at: Millis, random: &mut Random) -> Facts {
    let mut came = vec![Vec::new(); columns.shards.len()];
    for _ in 0..visitors.div_ceil(100) {
        let visitor = u32::try_from(random.below(u64::from(visitors))).expect("32 bits");
        let (shard, ordinal) = place(visitor);
        let block = Arc::make_mut(&mut columns.shards[shard][(ordinal >> 16) as usize]);
        let low = u16::try_from(ordinal & 0xffff).expect("16 bits");
        let id = TraitId(1 + u32::try_from(random.below(u64::from(TRAITS))).expect("few"));
        for id in [TraitId::ANY, id] {
            block.add_fact(id, low, at, None);
            came[shard].push((ordinal, id, at));
        }
    }
    came
}

fn dirty(facts: Facts) -> Vec<Dirty> {
    let touched = facts.into_iter().map(|facts| {
        let mut touched = Touched::default();
        touched.add(facts);
        Dirty::Some(touched)
    });
    touched.collect()
}

/// Changes the members to those of now; `earlier` has those of before the last refresh, of each rule and shard.
fn patch(members: &mut [Members], answers: &[Answers], mut earlier: Option<&mut [Earlier]>) {
    for (output, members) in members.iter_mut().enumerate() {
        for (shard, (members, of_shard)) in members.shards.iter_mut().zip(answers).enumerate() {
            let mut none = Earlier::default();
            let earlier = match &mut earlier {
                Some(earlier) => &mut earlier[output * answers.len() + shard],
                None => &mut none,
            };
            if let Some((next, _)) = earlier.next(members, of_shard, output) {
                *members = next;
            }
        }
    }
}
