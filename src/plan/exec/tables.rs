//! What of a program is the same for all profiles and instants, laid out for profiles that are asked one by one.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashMap;

use super::groups::Comparison;
use super::needed::Needed;
use super::needed::Rest;
use crate::bitmap::Bit;
use crate::bitmap::FactRange;
use crate::bitmap::TraitId;
use crate::bitmap::Within;
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
    pub(super) none: Vec<bool>,
    pub(super) of_trait: HashMap<TraitId, Vec<NodeId>>,
    pub(super) of_attribute: BTreeMap<Box<str>, Vec<NodeId>>,
    pub(super) of_namespace: Vec<(Box<str>, NodeId)>,
    pub(super) parents: Vec<Vec<NodeId>>,
    /// What each node asks.
    pub(super) steps: Vec<Step>,
    /// The parts of the nodes that have some, those of a node together.
    pub(super) parts: Vec<u32>,
    /// What counts are compared with.
    pub(super) counts: Vec<Within>,
    pub(super) comparisons: Vec<Option<Comparison>>,
    /// The outputs that each node is the root of.
    pub(super) outputs: Vec<Vec<u32>>,
    /// The outputs that facts of each trait can change, ascending, those of a trait together.
    reached: Vec<Reached>,
    /// Which of them are those of a trait: each lies at its number, cut to the size of the table, or at the first free
    /// place from there on. Registered numbers follow each other, so hardly two meet.
    reached_by: Vec<Option<(TraitId, Range<u32>)>>,
    /// The outputs that are true of a profile that has nothing.
    pub(super) true_of_none: Vec<u32>,
    /// By output, what a profile needs for the rule to be true of it.
    pub(super) needed: Vec<Needed>,
}

/// What a node asks, in little room. The most frequent leaves lie here, and need no more than the facts and their range.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
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
pub(super) fn combine(node: &Node, answers: &[bool]) -> bool {
    match node {
        Node::And(parts) => parts.iter().all(|part| answers[*part]),
        Node::Or(parts) => parts.iter().any(|part| answers[*part]),
        Node::Not(part) => !answers[*part],
        _ => false,
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
