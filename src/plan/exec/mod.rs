//! Evaluation over blocks: every rule of a program is answered while a block's columns are warm.
//!
//! A node's answer is a bitset of the block, made when first asked for and given back when the last
//! that asks has read it. Leaves that differ only in what they compare a count, a sum or an attribute
//! with share one scan.

mod again;
mod answers;
mod came;
mod compare;
mod crossed;
mod dirty;
mod earlier;
mod groups;
mod lone;
mod members;
mod needed;
mod shard_rows;
mod sifted;
mod tables;
mod touched;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

pub use self::again::Again;
pub use self::again::Repeated;
pub use self::answers::Answers;
pub use self::dirty::Dirty;
pub use self::dirty::Touched;
pub use self::earlier::Earlier;
use self::groups::Groups;
pub use self::members::Delta;
pub use self::members::Members;
pub use self::shard_rows::ShardRows;
use self::worker::Worker;
use super::compile::Program;
use super::window::Moment;
use super::window::TooEarly;
use crate::bitmap::Roar;
use crate::bitmap::Snapshot;
use crate::model::time::Millis;

/// What one node of a program cost, and how many profiles it is true of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Profiles known at the instant, of whom it is true.
    pub(super) members: u64,
    /// In the unit of the clock that was given.
    pub(super) time: u64,
    /// Of columns and of the answers of its parts that were read.
    pub(super) bytes: u64,
}

/// The parts of each conjunction and disjunction in the order in which they are asked.
pub(super) fn order(
    program: &Program,
    snapshot: &Snapshot,
    now: Millis,
) -> std::collections::BTreeMap<super::graph::NodeId, Vec<super::graph::NodeId>> {
    Groups::new(program, Moment::of(snapshot, now), snapshot).order
}

impl Program {
    /// Answers every rule at `now`, with up to `threads` threads.
    ///
    /// # Errors
    /// A written window reaches before the retained events at a past `now`.
    pub fn run(
        &self,
        snapshot: &Snapshot,
        now: Millis,
        threads: usize,
    ) -> Result<Vec<Members>, TooEarly> {
        let outputs = self.outputs.len();
        let shards = self.each_shard(snapshot, now, threads, |worker, blocks| {
            let mut scratch = std::mem::take(&mut worker.roar);
            let mut answers: Vec<Roar> =
                (0..outputs).map(|_| Roar::of(blocks.len(), &mut scratch)).collect();
            for (place, block) in (0u32..).zip(blocks) {
                worker.block(block, |output, set| answers[output].put(place, set, &mut scratch));
            }
            let answers = answers.into_iter().map(|answer| answer.finish(&mut scratch));
            let answers = answers.collect::<Vec<_>>();
            worker.roar = scratch;
            answers
        })?;
        let mut members: Vec<Members> =
            (0..outputs).map(|_| Members { shards: Vec::with_capacity(shards.len()) }).collect();
        for answers in shards {
            for (members, answer) in members.iter_mut().zip(answers) {
                members.shards.push(Arc::new(answer));
            }
        }
        Ok(members)
    }

    /// Counts the members of every rule at `now`, without listing them.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn count(
        &self,
        snapshot: &Snapshot,
        now: Millis,
        threads: usize,
    ) -> Result<Vec<u64>, TooEarly> {
        let shards = self.each_shard(snapshot, now, threads, |worker, blocks| {
            let mut counts = vec![0u64; self.outputs.len()];
            for block in blocks {
                worker.block(block, |output, set| counts[output] += u64::from(set.len()));
            }
            counts
        })?;
        let mut total = vec![0; self.outputs.len()];
        for counts in shards {
            for (total, count) in total.iter_mut().zip(counts) {
                *total += count;
            }
        }
        Ok(total)
    }

    /// Evaluates every node on its own and says what each cost. `clock` tells a time in any unit.
    pub(super) fn measure(
        &self,
        snapshot: &Snapshot,
        now: Millis,
        clock: &(dyn Fn() -> u64 + Sync),
    ) -> Result<Vec<Cost>, TooEarly> {
        let shards = self.each_shard(snapshot, now, 1, |worker, blocks| {
            let mut costs = vec![Cost::default(); self.graph.nodes.len()];
            for block in blocks {
                worker.measure(block, clock, &mut costs);
            }
            costs
        })?;
        let mut total = vec![Cost::default(); self.graph.nodes.len()];
        for costs in shards {
            for (total, cost) in total.iter_mut().zip(costs) {
                total.members += cost.members;
                total.time += cost.time;
                total.bytes += cost.bytes;
            }
        }
        Ok(total)
    }

    /// Runs `f` once for each shard, in parallel, and returns the results in the order of the shards.
    fn each_shard<T: Send>(
        &self,
        snapshot: &Snapshot,
        now: Millis,
        threads: usize,
        f: impl Fn(&mut Worker<'_>, &[std::sync::Arc<crate::bitmap::Block>]) -> T + Sync,
    ) -> Result<Vec<T>, TooEarly> {
        let moment = Moment::of(snapshot, now);
        for output in &self.outputs {
            moment.admits(output.reach)?;
        }
        let groups = Groups::new(self, moment, snapshot);
        let shards = &snapshot.shards;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut worker = Worker::new(self, &groups, moment);
            let mut done = Vec::new();
            loop {
                let shard = next.fetch_add(1, Ordering::Relaxed);
                let Some(blocks) = shards.get(shard) else { return done };
                done.push((shard, f(&mut worker, blocks)));
            }
        };
        let threads = threads.clamp(1, shards.len().max(1));
        let mut done = if threads == 1 {
            work()
        } else {
            std::thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let results = running.into_iter().flat_map(|thread| match thread.join() {
                    Ok(done) => done,
                    Err(panic) => std::panic::resume_unwind(panic),
                });
                results.collect()
            })
        };
        done.sort_unstable_by_key(|(shard, _)| *shard);
        Ok(done.into_iter().map(|(_, result)| result).collect())
    }
}
