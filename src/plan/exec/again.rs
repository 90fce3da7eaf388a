//! Rules asked again: only of the profiles of whom something may be other than it was at an earlier instant.
//!
//! Who these are is known: those that the fold changed, whom the caller names, and those of whom a fact crossed an
//! edge of a window meanwhile. Where they are few in a block they are asked one by one, from rows; where they are
//! many the block is evaluated, and what comes out of it for others is left aside.

use std::sync::Arc;
use std::sync::OnceLock;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::answers::Answers;
use super::answers::Gathered;
use super::came::ByBlock;
use super::crossed::Crossed;
use super::dirty::Candidates;
use super::dirty::Dirty;
use super::dirty::Next;
use super::dirty::Why;
use super::groups::Groups;
use super::lone;
use super::lone::Lone;
use super::lone::Profile;
use super::shard_rows::ShardRows;
use super::sifted::Sifted;
use super::tables;
use super::tables::Ranges;
use super::tables::Tables;
use super::worker::Worker;
use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Interval;
use crate::bitmap::Rows;
use crate::bitmap::Snapshot;
use crate::model::BLOCK;
use crate::model::time::Millis;
use crate::plan::compile::Program;
use crate::plan::window::Moment;
use crate::rules::Level;

/// Fewer than one in so many profiles of a block are few.
const FEW: u32 = 64;

/// A program whose rules are asked again and again.
#[derive(Debug)]
pub struct Repeated {
    program: Program,
    tables: Tables,
    few: u32,
}

/// Rules asked again after some time.
pub struct Again<'a> {
    of: &'a Repeated,
    snapshot: &'a Snapshot,
    /// What counted before.
    retained: Interval,
    now: Moment,
    crossed: Crossed,
    ranges: Vec<Ranges>,
    /// What blocks are evaluated with, once one is.
    groups: OnceLock<Groups>,
}

impl Repeated {
    /// The rules of a program.
    pub fn new(program: Program) -> Self {
        Self { tables: Tables::new(&program), program, few: FEW }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Says that fewer than one in so many profiles of a block are few.
    #[cfg(test)]
    pub(crate) fn set_few(&mut self, few: u32) {
        self.few = few;
    }

    /// Asks at `now`, where the answers at `before` are known. Both are instants for which the columns were or are
    /// true. Changes of the columns in between are for the caller to name.
    pub fn again<'a>(&'a self, snapshot: &'a Snapshot, before: Millis, now: Millis) -> Again<'a> {
        let moment = |at: Millis| Moment { now: at, true_for: at, retention: snapshot.retention };
        let program = &self.program;
        let ranges = program.graph.nodes.iter().map(|node| tables::ranges(node, moment(now)));
        Again {
            of: self,
            snapshot,
            retained: moment(before).retained(),
            now: moment(now),
            crossed: Crossed::new(program, moment(before), moment(now)),
            ranges: ranges.collect(),
            groups: OnceLock::new(),
        }
    }
}

impl Again<'_> {
    /// Asks in all shards, with up to `threads` threads: in each of those that were changed and of those that time
    /// changed. Rows are made where they are missing.
    pub fn ask(&self, dirty: &[Dirty], rows: &mut [ShardRows], threads: usize) -> Vec<Answers> {
        let shards = self.snapshot.shards.iter().zip(dirty).zip(rows).enumerate();
        let next = Mutex::new(shards);
        let done = Mutex::new(Vec::new());
        let work = || {
            loop {
                // Bound, so that the lock is not held while a shard is asked.
                let taken = next.lock().next();
                let Some((shard, ((blocks, dirty), rows))) = taken else { return };
                let answers = self.shard(blocks, dirty, rows);
                done.lock().push((shard, answers));
            }
        };
        if threads <= 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads.min(self.snapshot.shards.len()) {
                    scope.spawn(work);
                }
            });
        }
        let mut done = done.into_inner();
        done.sort_unstable_by_key(|(shard, _)| *shard);
        done.into_iter().map(|(_, answers)| answers).collect()
    }

    fn shard(&self, blocks: &[Arc<Block>], dirty: &Dirty, rows: &mut ShardRows) -> Answers {
        let outputs = &self.of.program.outputs;
        let mut gathered = Gathered::default();
        let facts = match dirty {
            Dirty::Some(touched) => &touched.facts[..],
            Dirty::All => &[],
        };
        rows.settle(blocks);
        let facts = ByBlock::new(facts, blocks);
        let (mut candidates, mut sifted) = (Candidates::default(), Sifted::default());
        let (mut mask, mut bytes) = (BlockSet::new(), Vec::new());
        let (mut worker, mut lone) = (None, None);
        for (number, block) in (0u32..).zip(blocks) {
            let came = facts.of(number);
            candidates.find((number, block), dirty, came, &self.crossed);
            let others = came.runs.iter().filter(|run| !candidates.has(run.ordinal)).count();
            let count = (candidates.list.len() + others) as u64;
            if count == 0 {
                continue;
            }
            let is_few = count * u64::from(self.of.few) <= u64::from(block.population());
            let rows = if is_few { rows.of(number as usize, block) } else { None };
            if let Some(rows) = rows {
                let lone = lone.get_or_insert_with(|| {
                    Lone::new(&self.of.program, &self.of.tables, self.now, &self.ranges)
                });
                let tables = &self.of.tables;
                sifted.sift(came, rows, tables, self.retained, &mut candidates);
                candidates.take(came);
                self.alone((number, block), &candidates, rows, lone, &mut gathered);
                self.left((number, block), &sifted, rows, lone, &mut gathered);
                continue;
            }
            came.runs.iter().for_each(|run| candidates.add(run.ordinal));
            let list = &candidates.list;
            gathered.evaluated.extend(list.iter().map(|low| number * BLOCK + u32::from(*low)));
            gathered.found.resize_with(outputs.len(), RoaringBitmap::new);
            let worker: &mut Worker<'_> = worker.get_or_insert_with(|| {
                let groups = || Groups::new(&self.of.program, self.now, self.snapshot);
                Worker::new(&self.of.program, self.groups.get_or_init(groups), self.now)
            });
            mask.reset(block.population());
            list.iter().for_each(|low| mask.insert(*low));
            let mut answer = BlockSet::new();
            worker.block(block, |output, set| {
                answer.copy_from(set);
                answer.intersect_with(&mask);
                if !answer.is_empty() {
                    gathered.found[output] |= answer.to_roaring(number, &mut bytes);
                }
            });
        }
        gathered.answers(&self.of.program, &self.of.tables, *dirty == Dirty::All)
    }

    /// Asks who may be in more than what facts that came can change.
    fn alone(
        &self,
        (number, block): (u32, &Block),
        candidates: &Candidates,
        rows: &Rows,
        lone: &mut Lone<'_>,
        gathered: &mut Gathered,
    ) {
        if candidates.list.is_empty() {
            return;
        }
        let outputs = &self.of.program.outputs;
        rows.fetch(candidates.list.iter().copied());
        let (mut next, mut scratch) = (Next::default(), Vec::new());
        for within in candidates.list.iter().copied() {
            let facts = rows.facts(within, &mut scratch);
            let signature = rows.head(within).signature();
            let profile = Profile { block, ordinal: within, facts, signature };
            let ordinal = number * BLOCK + u32::from(within);
            let is_device = block.devices().contains(within);
            let is_known = lone.is_known(facts);
            // One who is not known any longer is in nothing, whatever it is that changed.
            let before = (self.retained, &self.crossed);
            match candidates.why(within, &mut next, facts, before) {
                Why::Traits(traits) if is_known => {
                    let traits = traits.iter().map(|(_, id)| *id);
                    lone.ask_reached(&profile, traits, |output, is_true| {
                        gathered.answer(outputs, (output, ordinal), is_true, is_device);
                    });
                    continue;
                }
                Why::Own if is_known => {
                    lone.ask_reached(&profile, lone::traits(facts), |output, is_true| {
                        gathered.answer(outputs, (output, ordinal), is_true, is_device);
                    });
                    continue;
                }
                Why::New => {
                    // It was in nothing: what it is not in now is not looked up.
                    if is_known {
                        lone.ask_true(&profile, |output| {
                            gathered.answer(outputs, (output, ordinal), true, is_device);
                        });
                    }
                    continue;
                }
                _ => gathered.whole.push(ordinal),
            }
            if !is_known {
                continue;
            }
            let differing = &mut gathered.differing;
            lone.ask_all(&profile, |output| {
                if is_device || outputs[output as usize].level != Level::Device {
                    differing.push((output, ordinal));
                }
            });
            gathered.known[0].insert(ordinal);
            if is_device {
                gathered.known[1].insert(ordinal);
            }
        }
    }

    /// Asks what is left of facts that came.
    fn left(
        &self,
        (number, block): (u32, &Block),
        sifted: &Sifted,
        rows: &Rows,
        lone: &mut Lone<'_>,
        gathered: &mut Gathered,
    ) {
        let outputs = &self.of.program.outputs;
        rows.fetch(sifted.list.iter().copied());
        let mut scratch = Vec::new();
        for (within, asked) in sifted.list.iter().zip(sifted.each()) {
            let facts = rows.facts(*within, &mut scratch);
            // The event that made it known counts still: of whom one has left, that is a candidate.
            debug_assert!(lone.is_known(facts), "who was known is known");
            let ordinal = number * BLOCK + u32::from(*within);
            let is_device = block.devices().contains(*within);
            let signature = rows.head(*within).signature();
            let profile = Profile { block, ordinal: *within, facts, signature };
            lone.ask_some(&profile, asked, |output, is_rising, is_true| {
                if is_true || !is_rising {
                    gathered.answer(outputs, (output, ordinal), is_true, is_device);
                }
            });
        }
    }
}
