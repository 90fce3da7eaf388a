//! Profiles asked one by one, from their rows: the cost is that of what a profile has, whatever the number of rules.
//!
//! Of a profile without facts and attributes every node has one answer, the same for all. What a profile has changes
//! some leaves, and these some of the nodes above them; no other node is looked at.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

use hashbrown::HashMap;

use super::groups::Comparison;
use super::needed::Needed;
use super::needed::Traits;
use crate::bitmap::Block;
use crate::bitmap::Interval;
use crate::bitmap::RowFacts;
use crate::bitmap::TraitId;
use crate::model::time::Millis;
use crate::model::time::day_of;
use crate::plan::compile::Program;
use crate::plan::graph::Kind;
use crate::plan::graph::Node;
use crate::plan::graph::NodeId;
use crate::plan::number;
use crate::plan::number::Band;
use crate::plan::window::Moment;

/// What is the same for all profiles and instants.
#[derive(Debug)]
pub(super) struct Tables {
    /// Each node's answer for a profile that has nothing.
    none: Vec<bool>,
    of_trait: HashMap<TraitId, Vec<NodeId>>,
    of_attribute: BTreeMap<Box<str>, Vec<NodeId>>,
    of_namespace: Vec<(Box<str>, NodeId)>,
    parents: Vec<Vec<NodeId>>,
    comparisons: Vec<Option<Comparison>>,
    /// The outputs that each node is the root of.
    outputs: Vec<Vec<usize>>,
    /// The outputs that facts of each trait can change, ascending, once that was asked.
    reached: HashMap<TraitId, OnceLock<Vec<usize>>>,
    /// By output, what a profile needs for the rule to be true of it.
    needed: Vec<Needed>,
}

impl Tables {
    pub(super) fn new(program: &Program) -> Self {
        let nodes = &program.graph.nodes;
        let mut this = Self {
            none: Vec::with_capacity(nodes.len()),
            of_trait: HashMap::new(),
            of_attribute: BTreeMap::new(),
            of_namespace: Vec::new(),
            parents: vec![Vec::new(); nodes.len()],
            comparisons: vec![None; nodes.len()],
            outputs: vec![Vec::new(); nodes.len()],
            reached: HashMap::new(),
            needed: Vec::new(),
        };
        for (id, node) in nodes.iter().enumerate() {
            let mut of_trait = |of: &TraitId| this.of_trait.entry(*of).or_default().push(id);
            match node {
                Node::True | Node::False => {}
                Node::And(parts) | Node::Or(parts) => {
                    parts.iter().for_each(|part| this.parents[*part].push(id));
                }
                Node::Not(part) => this.parents[*part].push(id),
                Node::Has(namespace) => this.of_namespace.push((namespace.clone(), id)),
                Node::Attribute(name, _) => {
                    this.of_attribute.entry(name.clone()).or_default().push(id);
                }
                Node::Did(of, _) | Node::First(of, _) => of_trait(of),
                Node::Measure(of, _, kind, cmp, limit) => {
                    of_trait(of);
                    this.comparisons[id] = Some(Comparison::new(*kind, *cmp, limit));
                }
                Node::Sequence { first, then, .. } if first == then => of_trait(first),
                Node::Sequence { first, then, .. } => [first, then].into_iter().for_each(of_trait),
                Node::LastAfter(last, after) => [last, after].into_iter().for_each(of_trait),
            }
            let none = match node {
                Node::True => true,
                Node::And(_) | Node::Or(_) | Node::Not(_) => combine(node, &this.none),
                Node::Measure(_, _, Kind::Count | Kind::Days | Kind::Sum, ..) => {
                    matches!(this.comparisons[id], Some(Comparison::Band(band)) if band.holds(0))
                }
                _ => false,
            };
            this.none.push(none);
        }
        for (place, output) in program.outputs.iter().enumerate() {
            this.outputs[output.root].push(place);
        }
        let needed = Needed::of_all(program, &this.none);
        this.needed = program.outputs.iter().map(|output| needed[output.root].clone()).collect();
        this.reached = this.of_trait.keys().map(|id| (*id, OnceLock::new())).collect();
        this
    }

    /// The outputs that facts of a trait can change; `None` where no rule reads it.
    fn reached(&self, program: &Program, id: TraitId) -> Option<&[usize]> {
        Some(self.reached.get(&id)?.get_or_init(|| {
            let nodes = &program.graph.nodes;
            let leaves = self.of_trait.get(&id).cloned().unwrap_or_default();
            let (mut above, mut waiting) = (vec![false; nodes.len()], leaves);
            while let Some(node) = waiting.pop() {
                if !std::mem::replace(&mut above[node], true) {
                    waiting.extend(&self.parents[node]);
                }
            }
            let outputs = program.outputs.iter().enumerate();
            outputs.filter(|(_, output)| above[output.root]).map(|(place, _)| place).collect()
        }))
    }

    /// The answer of a rule for a profile that has nothing.
    pub(super) fn none(&self, root: NodeId) -> bool {
        self.none[root]
    }
}

/// The answer of a node, from those of its parts.
fn combine(node: &Node, answers: &[bool]) -> bool {
    match node {
        Node::And(parts) => parts.iter().all(|part| answers[*part]),
        Node::Or(parts) => parts.iter().any(|part| answers[*part]),
        Node::Not(part) => !answers[*part],
        _ => false,
    }
}

/// Asks profiles, one after the other. All its memory is used again.
pub(super) struct Lone<'a> {
    program: &'a Program,
    tables: &'a Tables,
    moment: Moment,
    intervals: &'a [Interval],
    /// The facts of those that are asked.
    pub(super) facts: RowFacts,
    answers: Vec<bool>,
    /// The nodes whose answer is not that for a profile that has nothing.
    changed: Vec<NodeId>,
    waiting: BinaryHeap<Reverse<NodeId>>,
    leaves: Vec<NodeId>,
    /// The outputs that are asked of a profile that is not asked everything.
    outputs: Vec<usize>,
    is_output: Vec<bool>,
    /// The answers of a profile that is not asked everything, and for which of these profiles each was found.
    found: Vec<(u32, bool)>,
    number: u32,
}

impl<'a> Lone<'a> {
    pub(super) fn new(
        program: &'a Program,
        tables: &'a Tables,
        moment: Moment,
        intervals: &'a [Interval],
    ) -> Self {
        Self {
            program,
            tables,
            moment,
            intervals,
            facts: RowFacts::default(),
            answers: tables.none.clone(),
            changed: Vec::new(),
            waiting: BinaryHeap::new(),
            leaves: Vec::new(),
            outputs: Vec::new(),
            is_output: vec![false; program.outputs.len()],
            found: vec![(0, false); program.graph.nodes.len()],
            number: 0,
        }
    }

    /// Whether a profile with these facts, in order of trait and time, is known.
    pub(super) fn is_known(&self, facts: &[(TraitId, Millis)]) -> bool {
        let retained = self.moment.retained();
        events(facts).iter().any(|(_, time)| retained.holds(*time))
    }

    /// The outputs that facts of some traits can change.
    pub(super) fn reached(&mut self, traits: impl Iterator<Item = TraitId>) -> &[usize] {
        self.outputs.clear();
        for id in traits {
            let Some(reached) = self.tables.reached(self.program, id) else { continue };
            for output in reached {
                if !std::mem::replace(&mut self.is_output[*output], true) {
                    self.outputs.push(*output);
                }
            }
        }
        self.outputs.iter().for_each(|output| self.is_output[*output] = false);
        &self.outputs
    }

    /// Asks one profile that is known, whose facts these are in order of trait and time: everything, or the outputs
    /// that were said to be reached last. Gives those of them whose answer is not that for a profile that has nothing.
    pub(super) fn ask(
        &mut self,
        block: &Block,
        ordinal: u16,
        facts: &[(TraitId, Millis)],
        is_whole: bool,
        differs: impl FnMut(usize),
    ) {
        if is_whole {
            self.ask_all(block, ordinal, facts, differs);
        } else {
            self.ask_reached(block, ordinal, facts, differs);
        }
    }

    /// From the outputs down, and no further than an answer needs: what is reached is little of all.
    fn ask_reached(
        &mut self,
        block: &Block,
        ordinal: u16,
        facts: &[(TraitId, Millis)],
        mut differs: impl FnMut(usize),
    ) {
        self.number = self.number.wrapping_add(1);
        if self.number == 0 {
            self.found.fill((0, false));
            self.number = 1;
        }
        let mut has = Traits::default();
        facts.iter().for_each(|(id, _)| has.add(*id));
        let outputs = std::mem::take(&mut self.outputs);
        for output in &outputs {
            if !self.tables.needed[*output].may_have(has) {
                // Not true, as of a profile that has nothing.
                continue;
            }
            let root = self.program.outputs[*output].root;
            if self.node(block, ordinal, facts, root) != self.tables.none[root] {
                differs(*output);
            }
        }
        self.outputs = outputs;
    }

    fn node(
        &mut self,
        block: &Block,
        ordinal: u16,
        facts: &[(TraitId, Millis)],
        node: NodeId,
    ) -> bool {
        let (number, found) = self.found[node];
        if number == self.number {
            return found;
        }
        let program = self.program;
        let mut ask = |part: &NodeId| self.node(block, ordinal, facts, *part);
        let answer = match &program.graph.nodes[node] {
            Node::True => true,
            Node::False => false,
            Node::And(parts) => parts.iter().all(ask),
            Node::Or(parts) => parts.iter().any(ask),
            Node::Not(part) => !ask(part),
            Node::Has(namespace) => holds(block, ordinal, namespace),
            Node::Attribute(name, _) => {
                let column = block.attribute(name);
                let value = column.and_then(|column| column.value_at(ordinal, self.moment.now));
                let test = self.program.tests.get(&node);
                value.zip(test).is_some_and(|((_, value), test)| test.passes_value(value))
            }
            _ => self.leaf(block, ordinal, facts, node),
        };
        self.found[node] = (self.number, answer);
        answer
    }

    /// From what the profile has up: what it has is little of what all rules ask.
    fn ask_all(
        &mut self,
        block: &Block,
        ordinal: u16,
        facts: &[(TraitId, Millis)],
        mut differs: impl FnMut(usize),
    ) {
        let mut leaves = std::mem::take(&mut self.leaves);
        leaves.clear();
        for group in facts.chunk_by(|a, b| a.0 == b.0) {
            leaves.extend(self.tables.of_trait.get(&group[0].0).into_iter().flatten());
        }
        for leaf in leaves.drain(..) {
            let answer = self.leaf(block, ordinal, facts, leaf);
            self.set(leaf, answer);
        }
        self.leaves = leaves;
        for (namespace, leaf) in &self.tables.of_namespace {
            self.set(*leaf, holds(block, ordinal, namespace));
        }
        for (name, tests) in &self.tables.of_attribute {
            let column = block.attribute(name);
            let value = column.and_then(|column| column.value_at(ordinal, self.moment.now));
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

    fn leaf(&self, block: &Block, ordinal: u16, facts: &[(TraitId, Millis)], leaf: NodeId) -> bool {
        let interval = self.intervals[leaf];
        let retained = self.moment.retained();
        let within = |id: TraitId, interval: Interval| cut(of(facts, id), interval);
        match &self.program.graph.nodes[leaf] {
            // Most have few: to look at each takes less than to look for some.
            Node::Did(id, _) if facts.len() <= 32 => {
                facts.iter().any(|(of, time)| of == id && interval.holds(*time))
            }
            Node::Did(id, _) => !within(*id, interval).is_empty(),
            Node::First(id, _) => {
                within(*id, retained).first().is_some_and(|(_, time)| interval.holds(*time))
            }
            Node::Sequence { first, then, within: length, .. } => {
                let (starts, ends) = (within(*first, retained), within(*then, interval));
                ends.iter().any(|(_, end)| {
                    let before = starts.partition_point(|(_, start)| start < end);
                    before
                        .checked_sub(1)
                        .is_some_and(|last| end.abs_diff(starts[last].1) <= length.unsigned_abs())
                })
            }
            Node::LastAfter(last, after) => {
                let latest = |id| within(id, retained).last().map(|(_, time)| *time);
                latest(*last).is_some() && latest(*last) > latest(*after)
            }
            Node::Measure(id, _, kind, ..) => {
                let Some(comparison) = self.tables.comparisons[leaf] else { return false };
                measure(block, ordinal, within(*id, interval), (*kind, comparison))
            }
            _ => false,
        }
    }
}

fn holds(block: &Block, ordinal: u16, namespace: &str) -> bool {
    block.holders(namespace).is_some_and(|set| set.contains(ordinal))
}

/// The facts of [`TraitId::ANY`], which come first.
pub(super) fn events(facts: &[(TraitId, Millis)]) -> &[(TraitId, Millis)] {
    let count = facts.iter().take_while(|(id, _)| *id == TraitId::ANY).count();
    &facts[..count]
}

/// The facts of one trait.
fn of(facts: &[(TraitId, Millis)], id: TraitId) -> &[(TraitId, Millis)] {
    let from = facts.partition_point(|(other, _)| *other < id);
    let to = facts.partition_point(|(other, _)| *other <= id);
    &facts[from..to]
}

/// The facts of one trait that lie in an interval.
fn cut(facts: &[(TraitId, Millis)], interval: Interval) -> &[(TraitId, Millis)] {
    let from = facts.partition_point(|(_, time)| *time < interval.lo);
    let to = facts.partition_point(|(_, time)| *time <= interval.hi);
    &facts[from..to.max(from)]
}

fn measure(
    block: &Block,
    ordinal: u16,
    facts: &[(TraitId, Millis)],
    (kind, comparison): (Kind, Comparison),
) -> bool {
    let band = |value: i128| matches!(comparison, Comparison::Band(band) if band.holds(value));
    match kind {
        Kind::Count => return band(facts.len() as i128),
        Kind::Days => {
            let days = facts.chunk_by(|(_, a), (_, b)| day_of(*a) == day_of(*b)).count();
            return band(days as i128);
        }
        Kind::Sum | Kind::Min | Kind::Max | Kind::Avg => {}
    }
    // Facts of one millisecond are found together.
    let times = facts.chunk_by(|a, b| a == b).map(|alike| alike[0]);
    let values = times.flat_map(|(id, time)| {
        let columns = block.columns(id);
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

impl Comparison {
    /// How a measure is compared with a number. One that compiled is within range.
    pub(super) fn new(
        kind: Kind,
        cmp: crate::rules::ast::Cmp,
        limit: &crate::model::Decimal,
    ) -> Self {
        let limit = number::scaled(limit).unwrap_or_default();
        match kind {
            Kind::Count | Kind::Days => Self::Band(Band::of_count(cmp, limit)),
            Kind::Sum | Kind::Min | Kind::Max => Self::Band(Band::of_measure(cmp, limit)),
            Kind::Avg => Self::Mean(cmp, limit),
        }
    }
}
