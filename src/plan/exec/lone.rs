//! Profiles asked one by one, from their rows: the cost is that of what a profile has, whatever the number of rules.
//!
//! Of a profile without facts and attributes every node has one answer, the same for all. What a profile has changes
//! some leaves, and these some of the nodes above them; no other node is looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::groups::Comparison;
use super::tables::Ranges;
use super::tables::Step;
use super::tables::Tables;
use super::tables::combine;
use crate::bitmap::Block;
use crate::bitmap::FactRange;
use crate::bitmap::RowFact;
use crate::bitmap::Signature;
use crate::bitmap::TraitId;
use crate::model::time::Millis;
use crate::model::time::day_of;
use crate::plan::compile::Program;
use crate::plan::graph::Kind;
use crate::plan::graph::Node;
use crate::plan::graph::NodeId;
use crate::plan::number;
use crate::plan::window::Moment;

/// Asks profiles, one after the other. All its memory is used again.
pub(super) struct Lone<'a> {
    program: &'a Program,
    tables: &'a Tables,
    now: Millis,
    /// The events that count.
    events: FactRange,
    /// By node.
    ranges: &'a [Ranges],
    answers: Vec<bool>,
    /// The nodes whose answer is not that for a profile that has nothing.
    changed: Vec<NodeId>,
    waiting: BinaryHeap<Reverse<NodeId>>,
    leaves: Vec<NodeId>,
    /// The outputs that are asked of a profile that is not asked everything.
    outputs: Vec<u32>,
    /// The answers of a profile that is not asked everything, and for which of these profiles each was found.
    found: Vec<(u32, bool)>,
    number: u32,
}

/// One that is asked.
#[derive(Clone, Copy)]
pub(super) struct Profile<'a> {
    pub(super) block: &'a Block,
    pub(super) ordinal: u16,
    /// In order.
    pub(super) facts: &'a [RowFact],
    /// The signature of these.
    pub(super) signature: Signature,
}

impl<'a> Lone<'a> {
    pub(super) fn new(
        program: &'a Program,
        tables: &'a Tables,
        moment: Moment,
        ranges: &'a [Ranges],
    ) -> Self {
        Self {
            program,
            tables,
            now: moment.now,
            events: FactRange::new(TraitId::ANY, moment.retained()),
            ranges,
            answers: tables.none.clone(),
            changed: Vec::new(),
            waiting: BinaryHeap::new(),
            leaves: Vec::new(),
            outputs: Vec::new(),
            found: vec![(0, false); program.graph.nodes.len()],
            number: 0,
        }
    }

    /// Whether a profile with these facts, which are in order, is known.
    pub(super) fn is_known(&self, facts: &[RowFact]) -> bool {
        self.events.is_in(facts)
    }

    /// Asks one profile that is known what facts of some traits can change.
    pub(super) fn ask_reached(
        &mut self,
        profile: &Profile<'_>,
        traits: impl Iterator<Item = TraitId>,
        mut answer: impl FnMut(u32, bool),
    ) {
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.clear();
        for id in traits {
            let reached = self.tables.reached(id).iter();
            let reached = reached.filter(|reached| reached.rest.may_have(profile.signature));
            outputs.extend(reached.map(|reached| reached.output));
        }
        outputs.sort_unstable();
        outputs.dedup();
        let asked = outputs.iter().map(|output| (*output, ()));
        self.ask_some(profile, asked, |output, (), is_true| answer(output, is_true));
        self.outputs = outputs;
    }

    /// Asks one profile that is known some outputs. Gives the answer of each, with what it came with; not of those that
    /// it lacks what is needed for, of which it never was a member either.
    ///
    /// It is asked from the outputs down, and no further than an answer needs: they are few of all.
    pub(super) fn ask_some<T>(
        &mut self,
        profile: &Profile<'_>,
        outputs: impl Iterator<Item = (u32, T)>,
        mut answer: impl FnMut(u32, T, bool),
    ) {
        self.number = self.number.wrapping_add(1);
        if self.number == 0 {
            self.found.fill((0, false));
            self.number = 1;
        }
        for (output, with) in outputs {
            if self.tables.needed[output as usize].may_have(profile.signature) {
                answer(
                    output,
                    with,
                    self.node(profile, self.program.outputs[output as usize].root),
                );
            }
        }
    }

    fn node(&mut self, profile: &Profile<'_>, node: NodeId) -> bool {
        let tables = self.tables;
        let step = tables.steps[node];
        match step {
            Step::Known(answer) => return answer,
            Step::Not(part) => return !self.node(profile, part as usize),
            Step::Did(bit) => {
                return profile.signature.has(bit) && self.ranges[node][0].is_in(profile.facts);
            }
            Step::Count(bit, within) => {
                let has_some = profile.signature.has(bit);
                let count = if has_some { self.ranges[node][0].count_in(profile.facts) } else { 0 };
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                return tables.counts[within as usize].holds(count);
            }
            Step::All(_) | Step::Any(_) | Step::Leaf => {}
        }
        let (number, found) = self.found[node];
        if number == self.number {
            return found;
        }
        let ask = |part: &u32| self.node(profile, *part as usize);
        let answer = match step {
            Step::All((from, to)) => tables.parts[from as usize..to as usize].iter().all(ask),
            Step::Any((from, to)) => tables.parts[from as usize..to as usize].iter().any(ask),
            _ => self.leaf(profile, node),
        };
        self.found[node] = (self.number, answer);
        answer
    }

    /// Asks one profile that is known everything. Gives the outputs whose answer is true.
    pub(super) fn ask_true(&mut self, profile: &Profile<'_>, mut is_true: impl FnMut(u32)) {
        let mut differing = std::mem::take(&mut self.outputs);
        differing.clear();
        self.ask_all(profile, |output| differing.push(output));
        differing.sort_unstable();
        let tables = self.tables;
        let is_false = |output: u32| !tables.none(self.program.outputs[output as usize].root);
        differing.iter().copied().filter(|output| is_false(*output)).for_each(&mut is_true);
        let others = tables.true_of_none.iter().copied();
        others.filter(|output| differing.binary_search(output).is_err()).for_each(is_true);
        self.outputs = differing;
    }

    /// Asks one profile that is known everything. Gives the outputs whose answer is not that for a profile that has
    /// nothing.
    ///
    /// It is asked from what it has up: that is little of what all rules ask.
    pub(super) fn ask_all(&mut self, profile: &Profile<'_>, mut differs: impl FnMut(u32)) {
        let &Profile { block, ordinal, facts, .. } = profile;
        let mut leaves = std::mem::take(&mut self.leaves);
        leaves.clear();
        for id in traits(facts) {
            leaves.extend(self.tables.of_trait.get(&id).into_iter().flatten());
        }
        for leaf in leaves.drain(..) {
            let answer = self.leaf(profile, leaf);
            self.set(leaf, answer);
        }
        self.leaves = leaves;
        for (namespace, leaf) in &self.tables.of_namespace {
            self.set(*leaf, holds(block, ordinal, namespace));
        }
        for (name, tests) in &self.tables.of_attribute {
            let column = block.attribute(name);
            let value = column.and_then(|column| column.value_at(ordinal, self.now));
            let Some((_, value)) = value else { continue };
            for leaf in tests {
                let test = self.program.tests.get(leaf);
                self.set(*leaf, test.is_some_and(|test| test.passes_value(value)));
            }
        }
        while let Some(Reverse(node)) = self.waiting.pop() {
            while self.waiting.peek() == Some(&Reverse(node)) {
                self.waiting.pop();
            }
            let answer = combine(&self.program.graph.nodes[node], &self.answers);
            self.set(node, answer);
        }
        for node in self.changed.drain(..) {
            self.answers[node] = self.tables.none[node];
            self.tables.outputs[node].iter().for_each(|output| differs(*output));
        }
    }

    /// Notes a node's answer. Each is noted once for a profile, the parts of a node before it.
    fn set(&mut self, node: NodeId, answer: bool) {
        if self.answers[node] != answer {
            self.answers[node] = answer;
            self.changed.push(node);
            self.waiting.extend(self.tables.parents[node].iter().map(|parent| Reverse(*parent)));
        }
    }

    fn leaf(&self, profile: &Profile<'_>, leaf: NodeId) -> bool {
        let &Profile { block, ordinal, facts, .. } = profile;
        let [range, back] = self.ranges[leaf];
        match &self.program.graph.nodes[leaf] {
            Node::Did(..) => range.is_in(facts),
            Node::First(..) => back.cut(facts).first().is_some_and(|first| range.holds(*first)),
            Node::Sequence { within: length, .. } => {
                let (starts, ends) = (back.cut(facts), range.cut(facts));
                ends.iter().any(|end| {
                    let before = starts.partition_point(|start| start.time() < end.time());
                    let last = before.checked_sub(1).map(|last| starts[last]);
                    last.is_some_and(|last| {
                        end.time().abs_diff(last.time()) <= length.unsigned_abs()
                    })
                })
            }
            Node::LastAfter(..) => {
                let latest = |range: FactRange| range.cut(facts).last().map(|fact| fact.time());
                latest(range).is_some() && latest(range) > latest(back)
            }
            Node::Measure(_, _, kind, ..) => {
                let Some(comparison) = self.tables.comparisons[leaf] else { return false };
                measure(block, ordinal, range.cut(facts), (*kind, comparison))
            }
            Node::Has(namespace) => holds(block, ordinal, namespace),
            Node::Attribute(name, _) => {
                let column = block.attribute(name);
                let value = column.and_then(|column| column.value_at(ordinal, self.now));
                let test = self.program.tests.get(&leaf);
                value.zip(test).is_some_and(|((_, value), test)| test.passes_value(value))
            }
            Node::True | Node::False | Node::And(_) | Node::Or(_) | Node::Not(_) => false,
        }
    }
}

fn holds(block: &Block, ordinal: u16, namespace: &str) -> bool {
    block.holders(namespace).is_some_and(|set| set.contains(ordinal))
}

/// The facts of [`TraitId::ANY`], which come first.
pub(super) fn events(facts: &[RowFact]) -> &[RowFact] {
    let count = facts.iter().take_while(|fact| fact.id() == TraitId::ANY).count();
    &facts[..count]
}

/// The traits of facts that are in order, each once.
pub(super) fn traits(facts: &[RowFact]) -> impl Iterator<Item = TraitId> {
    facts.chunk_by(|a, b| a.id() == b.id()).map(|of_one| of_one[0].id())
}

fn measure(
    block: &Block,
    ordinal: u16,
    facts: &[RowFact],
    (kind, comparison): (Kind, Comparison),
) -> bool {
    let band = |value: i128| matches!(comparison, Comparison::Band(band) if band.holds(value));
    match kind {
        Kind::Count => return band(facts.len() as i128),
        Kind::Days => {
            let days = facts.chunk_by(|a, b| day_of(a.time()) == day_of(b.time())).count();
            return band(days as i128);
        }
        Kind::Sum | Kind::Min | Kind::Max | Kind::Avg => {}
    }
    // Facts of one millisecond are found together.
    let times = facts.chunk_by(|a, b| a == b).map(|alike| alike[0]);
    let values = times.flat_map(|fact| {
        let (columns, time) = (block.columns(fact.id()), fact.time());
        let found = columns.map(|columns| columns.facts_of(ordinal, time, time));
        found.unwrap_or_default().into_iter().filter_map(|(_, value)| value)
    });
    let mut values = values.map(|value| i128::from(value.0));
    match kind {
        Kind::Min => values.min().is_some_and(band),
        Kind::Max => values.max().is_some_and(band),
        Kind::Sum => band(values.sum()),
        _ => {
            let (mut sum, mut count) = (0, 0);
            values.by_ref().for_each(|value| (sum, count) = (sum + value, count + 1));
            let Comparison::Mean(cmp, limit) = comparison else { return false };
            count > 0 && number::mean_passes(sum, count, cmp, limit)
        }
    }
}
