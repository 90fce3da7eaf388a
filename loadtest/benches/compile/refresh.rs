//! A refresh after one profile in a hundred changed.

use crate::common::TRAITS;
use crate::facts::{END, SHARDS, place};
use crate::timed;
use loadtest::random::Random;
use std::sync::Arc;
use throng::bitmap::{Snapshot, TraitId};
use throng::model::Millis;
use throng::plan::{Answers, Dirty, Earlier, Members, Program, Repeated, ShardRows, Touched};

/// Milliseconds that a refresh takes, and that all asked anew does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refreshed {
    pub(crate) ms: f64,
    pub(crate) anew_ms: f64,
}

impl Refreshed {
    pub(crate) fn ratio(self) -> f64 {
        self.anew_ms / self.ms
    }
}

/// Refreshes at an instant, where the last one was at `END` and the events came half way between; what it finds is compared
/// with all asked anew.
pub(crate) fn measure(
    program: Program,
    before: &Snapshot,
    visitors: u32,
    now: Millis,
) -> Refreshed {
    let came = END + (now - END) / 2;
    let members = program.run(before, END, 1).expect("within retention");
    let mut random = Random::new(9);
    let mut after = before.clone();
    let mut dirty = vec![Touched::default(); before.shards.len()];
    for _ in 0..visitors.div_ceil(100) {
        let visitor = u32::try_from(random.below(u64::from(visitors))).expect("32 bits");
        let (shard, ordinal) = place(visitor);
        let block = Arc::make_mut(&mut after.shards[shard][(ordinal >> 16) as usize]);
        let low = u16::try_from(ordinal & 0xffff).expect("16 bits");
        let id = TraitId(1 + u32::try_from(random.below(u64::from(TRAITS))).expect("few"));
        block.add_fact(TraitId::ANY, low, came, None);
        block.add_fact(id, low, came, None);
        dirty[shard].add(vec![(ordinal, TraitId::ANY, came), (ordinal, id, came)]);
    }
    let dirty: Vec<Dirty> = dirty.into_iter().map(Dirty::Some).collect();
    let anew = || program.run(&after, now, 1).expect("within retention");
    let (found, anew_ms) = (anew(), timed(anew));
    let repeated = Repeated::new(program.clone());
    let mut rows: Vec<ShardRows> = (0..SHARDS).map(|_| ShardRows::default()).collect();
    let mut refresh =
        || patch(&members, &repeated.again(&after, END, now).ask(&dirty, &mut rows, 1));
    assert_eq!(refresh(), found, "a refresh finds what all asked anew do");
    Refreshed { ms: timed(refresh), anew_ms }
}

fn patch(members: &[Members], answers: &[Answers]) -> Vec<Members> {
    let mut now = members.to_vec();
    for (output, members) in now.iter_mut().enumerate() {
        for (members, answers) in members.shards.iter_mut().zip(answers) {
            if let Some(delta) = answers.delta(output, members) {
                *members = Earlier::default().next(members, delta);
            }
        }
    }
    now
}
