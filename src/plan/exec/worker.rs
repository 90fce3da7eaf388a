//! One thread's scratch, and the evaluation of one block with it.

use super::Cost;
use super::compare;
use super::groups::Comparison;
use super::groups::Groups;
use super::groups::Scan;
use super::touched;
use crate::bitmap::AttributeColumn;
use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Found;
use crate::bitmap::Interval;
use crate::bitmap::RoarScratch;
use crate::bitmap::Scan as Facts;
use crate::bitmap::TraitId;
use crate::bitmap::Unary;
use crate::bitmap::sequence;
use crate::model::Measure;
use crate::model::time::Millis;
use crate::plan::compile::Program;
use crate::plan::graph::Kind;
use crate::plan::graph::Node;
use crate::plan::graph::NodeId;
use crate::plan::number;
use crate::plan::number::Band;
use crate::plan::window::Moment;
use crate::rules::Level;

/// Facts are few that are fewer than one for so many profiles: to sum them up, a pass over all is saved. (The blocks of
/// tests are small, and both ways are to be tried.)
const FEW_SUMMED: u64 = if cfg!(test) { 1 } else { 4 };

/// Evaluates blocks one after the other. All its memory is used again.
pub(super) struct Worker<'a> {
    program: &'a Program,
    groups: &'a Groups,
    moment: Moment,
    /// The answers that are still to be read.
    slots: Vec<Option<BlockSet>>,
    /// How often each answer will yet be read.
    left: Vec<u32>,
    pool: Vec<BlockSet>,
    /// Where the block has the facts that are asked for.
    found: Vec<Found>,
    /// Counts or sums of few facts, all 0 but while they are compared, and the ordinals of these facts.
    few: Vec<i64>,
    touched: Vec<u16>,
    /// Facts of days in part, to be added up.
    edges: Vec<(u16, i64)>,
    unary: Unary,
    small: Vec<u8>,
    counts: Vec<u32>,
    units: Vec<i64>,
    times: Vec<Millis>,
    sums: Vec<i128>,
    numbers: Vec<u32>,
    passes: Vec<bool>,
    /// What answers are written with.
    pub(super) roar: RoarScratch,
}

impl<'a> Worker<'a> {
    pub(super) fn new(program: &'a Program, groups: &'a Groups, moment: Moment) -> Self {
        Self {
            program,
            groups,
            moment,
            slots: vec![None; program.graph.nodes.len()],
            left: Vec::new(),
            pool: Vec::new(),
            found: Vec::new(),
            few: Vec::new(),
            touched: Vec::new(),
            edges: Vec::new(),
            unary: Unary::default(),
            small: Vec::new(),
            counts: Vec::new(),
            units: Vec::new(),
            times: Vec::new(),
            sums: Vec::new(),
            numbers: Vec::new(),
            passes: Vec::new(),
            roar: RoarScratch::default(),
        }
    }

    /// Answers every rule for one block.
    pub(super) fn block(&mut self, block: &Block, mut answer: impl FnMut(usize, &BlockSet)) {
        self.left.clone_from(&self.groups.uses);
        block.find(&self.groups.asked, &mut self.found);
        let mut known = None;
        let mut scratch = self.take();
        for (place, output) in self.program.outputs.iter().enumerate() {
            self.eval(block, output.root);
            if let Some(root) = self.slots[output.root].take() {
                let is_known = self.groups.implies_known[output.root];
                if is_known && output.level != Level::Device {
                    answer(place, &root);
                } else {
                    scratch.copy_from(&root);
                    if !is_known {
                        scratch.intersect_with(known.get_or_insert_with(|| self.known(block)));
                    }
                    if output.level == Level::Device {
                        scratch.intersect_with(block.devices());
                    }
                    answer(place, &scratch);
                }
                self.slots[output.root] = Some(root);
            }
            self.release(output.root);
        }
        self.pool.push(scratch);
        self.pool.extend(known);
        let pool = &mut self.pool;
        pool.extend(self.slots.iter_mut().filter_map(Option::take));
    }

    /// Evaluates every node of one block by itself, adding to what each costs.
    pub(super) fn measure(&mut self, block: &Block, clock: &dyn Fn() -> u64, costs: &mut [Cost]) {
        self.left = vec![u32::MAX; self.slots.len()];
        block.find(&self.groups.asked, &mut self.found);
        let known = self.known(block);
        let mut set = self.take();
        for (node, cost) in costs.iter_mut().enumerate() {
            cost.bytes += touched::bytes(self.program, self.groups, self.moment, block, node);
            let start = clock();
            self.eval(block, node);
            cost.time += clock().saturating_sub(start);
            if let Some(answer) = &self.slots[node] {
                set.copy_from(answer);
                set.intersect_with(&known);
                cost.members += u64::from(set.len());
            }
        }
        self.pool.extend([set, known]);
        let pool = &mut self.pool;
        pool.extend(self.slots.iter_mut().filter_map(Option::take));
    }

    fn known(&mut self, block: &Block) -> BlockSet {
        let mut known = self.take();
        self.did(block, TraitId::ANY, self.moment.retained(), &mut known);
        known
    }

    fn take(&mut self) -> BlockSet {
        self.pool.pop().unwrap_or_default()
    }

    fn release(&mut self, node: NodeId) {
        self.left[node] = self.left[node].saturating_sub(1);
        if self.left[node] == 0
            && let Some(set) = self.slots[node].take()
        {
            self.pool.push(set);
        }
    }

    /// Sees to it that a node's slot holds its answer.
    fn eval(&mut self, block: &Block, id: NodeId) {
        if self.slots[id].is_some() {
            return;
        }
        if let Some(group) = self.groups.of_node[id] {
            return self.group(block, group);
        }
        let program = self.program;
        let interval = self.groups.intervals[id];
        let population = block.population();
        let mut out = self.take();
        match &program.graph.nodes[id] {
            Node::True => out.fill(population),
            Node::False => out.reset(population),
            Node::And(_) => self.and(block, id, &mut out),
            Node::Or(_) => self.or(block, id, &mut out),
            Node::Not(part) => {
                self.eval(block, *part);
                if let Some(set) = &self.slots[*part] {
                    out.copy_from(set);
                }
                self.release(*part);
                out.complement(population);
            }
            Node::Has(namespace) => match block.holders(namespace) {
                Some(set) => out.copy_from(set),
                None => out.reset(population),
            },
            Node::Did(trait_id, _) => {
                out.reset(population);
                self.facts(block, *trait_id, id).did(interval, &mut out);
            }
            Node::First(trait_id, _) => {
                self.did(block, *trait_id, interval, &mut out);
                let retained = self.moment.retained();
                // None may lie before the window: an empty window leaves nothing to look before.
                if !interval.is_empty() && interval.lo > retained.lo {
                    let before = Interval { lo: retained.lo, hi: interval.lo - 1 };
                    let mut earlier = self.take();
                    self.did(block, *trait_id, before, &mut earlier);
                    out.subtract(&earlier);
                    self.pool.push(earlier);
                }
            }
            Node::Sequence { first, then, within, .. } => {
                out.reset(population);
                if let (Some(first), Some(then)) = (block.columns(*first), block.columns(*then)) {
                    let mut seen = self.take();
                    seen.reset(population);
                    self.times.resize(population as usize, 0);
                    let from = self.moment.edge();
                    let scratch = (&mut seen, &mut self.times[..]);
                    sequence((first, from), (then, interval), *within, scratch, &mut out);
                    self.pool.push(seen);
                }
            }
            Node::LastAfter(last, after) => self.last_after(block, *last, *after, &mut out),
            // These are in groups.
            Node::Measure(..) | Node::Attribute(..) => {}
        }
        self.slots[id] = Some(out);
    }

    fn or(&mut self, block: &Block, id: NodeId, out: &mut BlockSet) {
        let groups = self.groups;
        out.reset(block.population());
        for part in &groups.order[&id] {
            if let Node::Did(of, _) = &self.program.graph.nodes[*part]
                && self.left[*part] == 1
                && self.slots[*part].is_none()
            {
                // Nobody else reads it: it needs no set of its own.
                self.facts(block, *of, *part).did(groups.intervals[*part], out);
                self.left[*part] = 0;
                continue;
            }
            self.eval(block, *part);
            if let Some(set) = &self.slots[*part] {
                out.union_with(set);
            }
            self.release(*part);
        }
    }

    fn and(&mut self, block: &Block, id: NodeId, out: &mut BlockSet) {
        let mut is_first = true;
        let nodes = &self.program.graph.nodes;
        let groups = self.groups;
        for part in &groups.order[&id] {
            if !is_first && out.is_empty() {
                return;
            }
            let (read, negated) = match nodes[*part] {
                Node::Not(inner) => (inner, true),
                _ => (*part, false),
            };
            self.eval(block, read);
            if is_first && !negated && self.left[read] == 1 {
                // Nobody else reads it: it is taken as it is.
                if let Some(set) = self.slots[read].take() {
                    self.pool.push(std::mem::replace(out, set));
                }
            } else if let Some(set) = &self.slots[read] {
                match (is_first, negated) {
                    (true, false) => out.copy_from(set),
                    (false, false) => out.intersect_with(set),
                    (true, true) => {
                        out.copy_from(set);
                        out.complement(block.population());
                    }
                    (false, true) => out.subtract(set),
                }
            }
            is_first = false;
            self.release(read);
        }
    }

    /// The facts that a node asks for.
    fn facts<'b>(&self, block: &'b Block, of: TraitId, node: NodeId) -> Facts<'b> {
        let facts = block.scan(of);
        match self.found.get(self.groups.asked_by[node]) {
            Some(found) => facts.at(*found),
            None => facts,
        }
    }

    fn did(&mut self, block: &Block, id: TraitId, interval: Interval, out: &mut BlockSet) {
        out.reset(block.population());
        block.scan(id).did(interval, out);
    }

    fn last_after(&mut self, block: &Block, last: TraitId, after: TraitId, out: &mut BlockSet) {
        let population = block.population();
        let retained = self.moment.retained();
        out.reset(population);
        let Some(last) = block.columns(last) else { return };
        self.units.resize(population as usize, 0);
        last.last(retained, out, &mut self.units);
        if let Some(after) = block.columns(after) {
            let (mut seen, mut later) = (self.take(), self.take());
            seen.reset(population);
            self.times.resize(population as usize, 0);
            after.last(retained, &mut seen, &mut self.times);
            later.reset(population);
            for ordinal in out.iter().filter(|ordinal| seen.contains(*ordinal)) {
                let place = usize::from(ordinal);
                if self.times[place] >= self.units[place] {
                    later.insert(ordinal);
                }
            }
            out.subtract(&later);
            self.pool.extend([seen, later]);
        }
    }

    /// Answers all leaves of a group with one scan.
    fn group(&mut self, block: &Block, place: usize) {
        let group = &self.groups.groups[place];
        match &group.scan {
            Scan::Attribute(name) => self.attribute(block, place, name),
            Scan::Facts { id, interval, kind } => {
                let facts = match group.leaves.first() {
                    Some((leaf, _)) => self.facts(block, *id, *leaf),
                    None => block.scan(*id),
                };
                let population = block.population();
                match kind {
                    Kind::Count => self.count(place, population, facts, *interval),
                    Kind::Days => {
                        let mut seen = self.take();
                        reset(&mut self.counts, population, 0);
                        facts.count_days(*interval, &mut seen, &mut self.counts);
                        self.pool.push(seen);
                        self.bands(place, |this, band, out| {
                            compare::select_u32(&this.counts, band, out);
                        });
                    }
                    Kind::Sum => self.sum(place, population, facts, *interval),
                    Kind::Min => {
                        reset(&mut self.units, population, i64::MAX);
                        facts.min(*interval, &mut self.units);
                        self.extremes(place, i64::MAX);
                    }
                    Kind::Max => {
                        reset(&mut self.units, population, i64::MIN);
                        facts.max(*interval, &mut self.units);
                        self.extremes(place, i64::MIN);
                    }
                    Kind::Avg => self.mean(place, population, facts, *interval),
                }
            }
        }
    }

    fn bands(&mut self, place: usize, select: impl Fn(&Self, Band, &mut BlockSet)) {
        let groups = self.groups;
        for (leaf, comparison) in &groups.groups[place].leaves {
            if let Comparison::Band(band) = comparison {
                let mut out = self.take();
                select(self, *band, &mut out);
                self.slots[*leaf] = Some(out);
            }
        }
    }

    /// Compares what few facts have come to in `few`: only their profiles are looked at, since all others have 0.
    fn compare_few(&mut self, place: usize, population: u32) {
        let groups = self.groups;
        let leaves = &groups.groups[place].leaves;
        if let [(leaf, Comparison::Band(band))] = leaves[..]
            && !band.holds(0)
        {
            // One pass: who is met again has 0 by then, and stays as it is.
            let mut out = self.take();
            out.reset(population);
            for ordinal in self.touched.drain(..) {
                let value = std::mem::take(&mut self.few[usize::from(ordinal)]);
                if value != 0 && band.holds(i128::from(value)) {
                    out.insert(ordinal);
                }
            }
            self.slots[leaf] = Some(out);
            return;
        }
        for (leaf, comparison) in leaves {
            let Comparison::Band(band) = *comparison else { continue };
            let mut out = self.take();
            if band.holds(0) {
                out.fill(population);
            } else {
                out.reset(population);
            }
            for ordinal in &self.touched {
                if band.holds(i128::from(self.few[usize::from(*ordinal)])) {
                    out.insert(*ordinal);
                } else {
                    out.remove(*ordinal);
                }
            }
            self.slots[*leaf] = Some(out);
        }
        self.touched.drain(..).for_each(|ordinal| self.few[usize::from(ordinal)] = 0);
    }

    fn count(&mut self, place: usize, population: u32, facts: Facts<'_>, interval: Interval) {
        let stop = self.groups.groups[place].leaves.iter().map(|(_, comparison)| {
            if let Comparison::Band(band) = comparison { band.stop() } else { 1 }
        });
        let stop = stop.max().unwrap_or(1);
        match u8::try_from(stop) {
            Ok(stop) if stop <= Unary::MOST => {
                self.unary.reset(population, stop);
                facts.count_few(interval, &mut self.unary);
                self.bands(place, |this, band, out| {
                    compare::select_unary(&this.unary, stop, band, (population, out));
                });
            }
            Ok(_) => {
                reset(&mut self.small, population, 0);
                facts.count_small(interval, &mut self.small);
                self.bands(place, |this, band, out| compare::select_u8(&this.small, band, out));
            }
            Err(_) => {
                reset(&mut self.counts, population, 0);
                facts.count(interval, &mut self.counts);
                self.bands(place, |this, band, out| compare::select_u32(&this.counts, band, out));
            }
        }
    }

    fn sum(&mut self, place: usize, population: u32, facts: Facts<'_>, interval: Interval) {
        let is_small = facts.sum_bound(interval) <= i64::MAX as u128;
        if is_small && self.sum_by_ordinal(place, population, facts, interval) {
            return;
        }
        if is_small && facts.weight(interval) * FEW_SUMMED < u64::from(population) {
            self.few.resize(crate::model::BLOCK as usize, 0);
            facts.each_value(interval, |ordinal, value| {
                self.touched.push(ordinal);
                self.few[usize::from(ordinal)] += value;
            });
            return self.compare_few(place, population);
        }
        if is_small {
            reset(&mut self.units, population, 0);
            facts.sum_small(interval, &mut self.units);
            self.bands(place, |this, band, out| compare::select_i64(&this.units, band, out));
        } else {
            reset(&mut self.sums, population, 0);
            facts.sum(interval, &mut self.sums);
            self.bands(place, |this, band, out| {
                out.select(&this.sums, |sum| band.holds(sum));
            });
        }
    }

    /// Adds up what is kept by ordinal; `false` where it is not, or another way is better.
    fn sum_by_ordinal(
        &mut self,
        place: usize,
        population: u32,
        facts: Facts<'_>,
        interval: Interval,
    ) -> bool {
        let groups = self.groups;
        let [(leaf, Comparison::Band(band))] = groups.groups[place].leaves[..] else {
            return false;
        };
        if band.holds(0) {
            return false;
        }
        let mut out = self.take();
        out.reset(population);
        let is_done = facts.select_sums(interval, band.narrow(), &mut self.edges, &mut out);
        match is_done {
            true => self.slots[leaf] = Some(out),
            false => self.pool.push(out),
        }
        is_done
    }

    /// Compares least or greatest values; `none` stands where there is no value, which passes nothing.
    fn extremes(&mut self, place: usize, none: i64) {
        let limit = i128::from(Measure::MAX.0);
        self.bands(place, |this, band, out| {
            if band.outside {
                out.select(&this.units, |value| value != none && band.holds(i128::from(value)));
            } else {
                let (lo, hi) = (band.lo.max(-limit), band.hi.min(limit));
                compare::select_i64(&this.units, Band { lo, hi, ..band }, out);
            }
        });
    }

    fn mean(&mut self, place: usize, population: u32, facts: Facts<'_>, interval: Interval) {
        reset(&mut self.sums, population, 0);
        reset(&mut self.counts, population, 0);
        facts.sum(interval, &mut self.sums);
        facts.count(interval, &mut self.counts);
        let groups = self.groups;
        for (leaf, comparison) in &groups.groups[place].leaves {
            if let Comparison::Mean(cmp, limit) = *comparison {
                let mut out = self.take();
                out.reset(population);
                for (ordinal, (sum, count)) in
                    (0u16..=u16::MAX).zip(self.sums.iter().zip(&self.counts))
                {
                    if *count > 0 && number::mean_passes(*sum, *count, cmp, limit) {
                        out.insert(ordinal);
                    }
                }
                self.slots[*leaf] = Some(out);
            }
        }
    }

    fn attribute(&mut self, block: &Block, place: usize, name: &str) {
        let population = block.population();
        let column = block.attribute(name);
        if let Some(column) = column {
            self.times.resize(population as usize, 0);
            self.numbers.resize(population as usize, 0);
            column.latest(self.moment.now, &mut self.times, &mut self.numbers);
        }
        let (program, groups) = (self.program, self.groups);
        for (leaf, _) in &groups.groups[place].leaves {
            let mut out = self.take();
            match (column, program.tests.get(leaf)) {
                (Some(column), Some(test)) => {
                    // Each distinct value is tested once.
                    self.passes.clear();
                    self.passes.extend(column.values().map(|value| test.passes_value(value)));
                    let passes = &self.passes;
                    out.select(&self.numbers, |number| {
                        number != AttributeColumn::NO_VALUE && passes[number as usize]
                    });
                }
                _ => out.reset(population),
            }
            self.slots[*leaf] = Some(out);
        }
    }
}

fn reset<T: Copy>(values: &mut Vec<T>, population: u32, value: T) {
    values.clear();
    values.resize(population as usize, value);
}
