//! Profiles asked one by one, from their rows: the cost is that of what a profile has, whatever the number of rules.
//!
//! Of a profile without facts and attributes every node has one answer, the same for all. What a profile has changes
//! some leaves, and these some of the nodes above them; no other node is looked at.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::ops::Range;

use hashbrown::HashMap;

use super::groups::Comparison;
use super::needed::Needed;
use super::needed::Rest;
use crate::bitmap::Bit;
use crate::bitmap::Block;
use crate::bitmap::FactRange;
use crate::bitmap::RowFact;
use crate::bitmap::Signature;
use crate::bitmap::TraitId;
use crate::bitmap::Within;
use crate::model::time::Millis;
use crate::model::time::day_of;
use crate::plan::compile::Program;
use crate::plan::graph::Kind;
use crate::plan::graph::Node;
use crate::plan::graph::NodeId;
use crate::plan::number;
use crate::plan::number::Band;
use crate::plan::window::Moment;
use crate::plan::window::Window;

/// What is the same for all profiles and instants.
#[derive(Debug)]
pub(super) struct Tables {
    /// Each node's answer for a profile that has nothing.
    none: Vec<bool>,
    of_trait: HashMap<TraitId, Vec<NodeId>>,
    of_attribute: BTreeMap<Box<str>, Vec<NodeId>>,
    of_namespace: Vec<(Box<str>, NodeId)>,
    parents: Vec<Vec<NodeId>>,
    /// What each node asks.
    steps: Vec<Step>,
    /// The parts of the nodes that have some, those of a node together.
    parts: Vec<u32>,
    /// What counts are compared with.
    counts: Vec<Within>,
    comparisons: Vec<Option<Comparison>>,
    /// The outputs that each node is the root of.
    outputs: Vec<Vec<u32>>,
    /// The outputs that facts of each trait can change, ascending, those of a trait together.
    reached: Vec<Reached>,
    /// Which of them are those of a trait: each lies at its number, cut to the size of the table, or at the first free
    /// place from there on. Registered numbers follow each other, so hardly two meet.
    reached_by: Vec<Option<(TraitId, Range<u32>)>>,
    /// The outputs that are true of a profile that has nothing.
    true_of_none: Vec<u32>,
    /// By output, what a profile needs for the rule to be true of it.
    needed: Vec<Needed>,
}

/// What a node asks, in little room. The most frequent leaves lie here, and need no more than the facts and their range.
#[derive(Debug, Clone, Copy)]
enum Step {
    Known(bool),
    /// Of these parts, from one to before another.
    All((u32, u32)),
    Any((u32, u32)),
    Not(u32),
    /// Whether there is a fact; of whom lacks the bit there is none.
    Did(Bit),
    /// Whether there are as many as is said there.
    Count(Bit, u32),
    /// Another leaf.
    Leaf,
}

/// The number of a node, or a place among parts of nodes: there are fewer than 32 bits count.
fn small(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// The facts that a leaf is about: those of its trait that lie in its window, and of what it looks back to, if it does.
pub(super) type Ranges = [FactRange; 2];

/// The ranges of a node at an instant.
pub(super) fn ranges(node: &Node, moment: Moment) -> Ranges {
    let within = |id: TraitId, window: Window| FactRange::new(id, moment.interval(window));
    let ever = |id: TraitId| within(id, Window::Retained);
    match node {
        Node::Did(id, window) | Node::Measure(id, window, ..) => {
            [within(*id, *window), FactRange::EMPTY]
        }
        Node::First(id, window) => [within(*id, *window), ever(*id)],
        Node::Sequence { first, then, window, .. } => [within(*then, *window), ever(*first)],
        Node::LastAfter(last, after) => [ever(*last), ever(*after)],
        Node::True
        | Node::False
        | Node::And(_)
        | Node::Or(_)
        | Node::Not(_)
        | Node::Has(_)
        | Node::Attribute(..) => [FactRange::EMPTY; 2],
    }
}

/// An output that facts of a trait can change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    /// What is needed beside.
    pub(super) rest: Rest,
    pub(super) output: u32,
    /// Whether they make it true where they change it.
    pub(super) is_rising: bool,
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
            steps: Vec::with_capacity(nodes.len()),
            parts: Vec::new(),
            counts: Vec::new(),
            comparisons: vec![None; nodes.len()],
            outputs: vec![Vec::new(); nodes.len()],
            reached: Vec::new(),
            reached_by: Vec::new(),
            true_of_none: Vec::new(),
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
            let step = this.step(id, node);
            this.steps.push(step);
        }
        for (place, output) in (0..).zip(&program.outputs) {
            this.outputs[output.root].push(place);
            if this.none[output.root] {
                this.true_of_none.push(place);
            }
        }
        let needed = Needed::of_all(program, &this.none);
        this.needed = program.outputs.iter().map(|output| needed[output.root].clone()).collect();
        this.find_reached(program);
        this
    }

    /// What a node asks; its parts, and what it compares a count with, are put down.
    fn step(&mut self, id: NodeId, node: &Node) -> Step {
        let mut range = |parts: &[NodeId]| {
            let from = self.parts.len();
            self.parts.extend(parts.iter().map(|part| small(*part)));
            (small(from), small(self.parts.len()))
        };
        match node {
            Node::True => Step::Known(true),
            Node::False => Step::Known(false),
            Node::And(parts) => Step::All(range(parts)),
            Node::Or(parts) => Step::Any(range(parts)),
            Node::Not(part) => Step::Not(small(*part)),
            Node::Did(of, _) => Step::Did(Bit::of(*of)),
            Node::Measure(of, _, Kind::Count, ..) => match self.comparisons[id] {
                Some(Comparison::Band(band)) => {
                    self.counts.push(band.narrow());
                    Step::Count(Bit::of(*of), small(self.counts.len() - 1))
                }
                _ => Step::Known(false),
            },
            Node::Measure(..)
            | Node::Has(_)
            | Node::Attribute(..)
            | Node::First(..)
            | Node::Sequence { .. }
            | Node::LastAfter(..) => Step::Leaf,
        }
    }

    fn find_reached(&mut self, program: &Program) {
        // With whether it is rising; of the same, those that are not come first.
        let mut pairs: Vec<(TraitId, u32, bool)> = Vec::new();
        // For which output each node was last come to, under an even number of negations and under an odd one.
        let mut come_to = vec![[None; 2]; program.graph.nodes.len()];
        for (output, root) in (0u32..).zip(program.outputs.iter().map(|output| output.root)) {
            let mut waiting = vec![(root, false)];
            while let Some((node, is_negated)) = waiting.pop() {
                if come_to[node][usize::from(is_negated)].replace(output) == Some(output) {
                    continue;
                }
                let mut of_trait = |id: &TraitId, is_rising: bool| {
                    pairs.push((*id, output, is_rising && !is_negated));
                };
                match &program.graph.nodes[node] {
                    Node::And(parts) | Node::Or(parts) => {
                        waiting.extend(parts.iter().map(|part| (*part, is_negated)));
                    }
                    Node::Not(part) => waiting.push((*part, !is_negated)),
                    Node::Did(id, _) => of_trait(id, true),
                    // One that came may lie before the window.
                    Node::First(id, _) => of_trait(id, false),
                    Node::Measure(id, _, kind, ..) => {
                        let is_count = matches!(kind, Kind::Count | Kind::Days);
                        let more = |band: Band| !band.outside && band.hi == i128::MAX;
                        let is_more = matches!(self.comparisons[node], Some(Comparison::Band(band)) if more(band));
                        of_trait(id, is_count && is_more);
                    }
                    Node::Sequence { first, then, .. } => {
                        of_trait(first, true);
                        of_trait(then, true);
                    }
                    Node::LastAfter(last, after) => {
                        of_trait(last, true);
                        of_trait(after, false);
                    }
                    Node::True | Node::False | Node::Has(_) | Node::Attribute(..) => {}
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup_by_key(|(id, output, _)| (*id, *output));
        // More places than traits: some are free.
        self.reached_by = vec![None; (2 * self.of_trait.len() + 1).next_power_of_two()];
        for of_one in pairs.chunk_by(|a, b| a.0 == b.0) {
            let from = self.reached.len();
            self.reached.extend(of_one.iter().map(|&(id, output, is_rising)| Reached {
                rest: self.needed[output as usize].beside(id),
                output,
                is_rising,
            }));
            // There are fewer than 32 bits count: each is of an output and one of its leaves.
            let [from, to] = [from, self.reached.len()].map(|at| u32::try_from(at).unwrap_or(0));
            let at = self.place_of(of_one[0].0);
            self.reached_by[at] = Some((of_one[0].0, from..to));
        }
    }

    /// Where a trait lies in the table of what is reached, or would.
    #[inline]
    fn place_of(&self, id: TraitId) -> usize {
        let mask = self.reached_by.len() - 1;
        let mut at = id.0 as usize & mask;
        while self.reached_by[at].as_ref().is_some_and(|(other, _)| *other != id) {
            at = (at + 1) & mask;
        }
        at
    }

    /// The outputs that facts of a trait can change.
    #[inline]
    pub(super) fn reached(&self, id: TraitId) -> &[Reached] {
        match &self.reached_by[self.place_of(id)] {
            Some((_, of_it)) => &self.reached[of_it.start as usize..of_it.end as usize],
            None => &[],
        }
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
