//! What is the same for all blocks of one evaluation: intervals, which leaves share a scan, the order
//! in which parts are asked.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::bitmap::Block;
use crate::bitmap::Interval;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::plan::compile::Program;
use crate::plan::graph::Kind;
use crate::plan::graph::Node;
use crate::plan::graph::NodeId;
use crate::plan::number;
use crate::plan::number::Band;
use crate::plan::window::Moment;
use crate::rules::ast::Cmp;

/// Leaves that one scan answers.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) scan: Scan,
    pub(super) leaves: Vec<(NodeId, Comparison)>,
}

/// What is scanned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scan {
    Facts { id: TraitId, interval: Interval, kind: Kind },
    Attribute(Box<str>),
}

/// What a leaf does with what a scan found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Comparison {
    Band(Band),
    Mean(Cmp, i128),
    /// Asks the test of the program's attribute leaf.
    Test,
}

/// Everything about one evaluation that does not depend on the block.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) groups: Vec<Group>,
    /// The group of each leaf that is in one.
    pub(super) of_node: Vec<Option<usize>>,
    /// The interval of each leaf with a window.
    pub(super) intervals: Vec<Interval>,
    /// The facts that leaves and groups read, in order, and which of them each node and each group reads.
    pub(super) asked: Vec<(TraitId, Interval)>,
    pub(super) asked_by: Vec<usize>,
    /// The parts of each conjunction or disjunction, the cheapest first.
    pub(super) order: BTreeMap<NodeId, Vec<NodeId>>,
    /// How often each node is read for one block.
    pub(super) uses: Vec<u32>,
    /// Whether a profile of whom the node is true is known for sure, since it has a retained event.
    pub(super) implies_known: Vec<bool>,
}

impl Groups {
    pub(super) fn new(program: &Program, moment: Moment, snapshot: &Snapshot) -> Self {
        let nodes = &program.graph.nodes;
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<Scan, usize> = HashMap::new();
        let mut of_node = vec![None; nodes.len()];
        let mut intervals = vec![Interval::EMPTY; nodes.len()];
        for (node_id, node) in nodes.iter().enumerate() {
            let (scan, comparison) = match node {
                Node::Did(_, window) | Node::First(_, window) | Node::Sequence { window, .. } => {
                    intervals[node_id] = moment.interval(*window);
                    continue;
                }
                Node::Measure(id, window, kind, cmp, limit) => {
                    let interval = moment.interval(*window);
                    let comparison = Comparison::new(*kind, *cmp, limit);
                    (Scan::Facts { id: *id, interval, kind: *kind }, comparison)
                }
                Node::Attribute(name, _) => (Scan::Attribute(name.clone()), Comparison::Test),
                _ => continue,
            };
            let place = *places.entry(scan.clone()).or_insert_with(|| {
                groups.push(Group { scan, leaves: Vec::new() });
                groups.len() - 1
            });
            groups[place].leaves.push((node_id, comparison));
            of_node[node_id] = Some(place);
        }
        let mut this = Self {
            groups,
            of_node,
            intervals,
            asked: Vec::new(),
            asked_by: vec![0; nodes.len()],
            order: BTreeMap::new(),
            uses: vec![0; nodes.len()],
            implies_known: Vec::with_capacity(nodes.len()),
        };
        for node in nodes {
            let implies = this.implies(node);
            this.implies_known.push(implies);
        }
        this.ask(program);
        this.sort(program, moment, snapshot);
        this.count_uses(program);
        this
    }

    fn ask(&mut self, program: &Program) {
        let asked = |id: NodeId| match (&program.graph.nodes[id], self.of_node[id]) {
            (Node::Did(of, _), _) => Some((*of, self.intervals[id])),
            (Node::Measure(of, ..), Some(group)) => match &self.groups[group].scan {
                Scan::Facts { interval, .. } => Some((*of, *interval)),
                Scan::Attribute(_) => None,
            },
            _ => None,
        };
        let by_node: Vec<_> = (0..program.graph.nodes.len()).map(asked).collect();
        self.asked = by_node.iter().flatten().copied().collect();
        self.asked.sort_unstable();
        self.asked.dedup();
        let place = |asked| self.asked.binary_search(&asked).unwrap_or(0);
        self.asked_by = by_node.into_iter().map(|asked| asked.map_or(0, place)).collect();
    }

    fn implies(&self, node: &Node) -> bool {
        let of = |part: &NodeId| self.implies_known[*part];
        match node {
            Node::Did(..) | Node::First(..) | Node::Sequence { .. } | Node::LastAfter(..) => true,
            Node::Measure(_, _, kind, cmp, limit) => {
                let limit = number::scaled(limit).unwrap_or_default();
                match kind {
                    Kind::Count | Kind::Days => !Band::of_count(*cmp, limit).holds(0),
                    Kind::Sum => !Band::of_measure(*cmp, limit).holds(0),
                    Kind::Min | Kind::Max | Kind::Avg => true,
                }
            }
            Node::And(parts) => parts.iter().any(of),
            Node::Or(parts) => parts.iter().all(of),
            Node::False => true,
            Node::True | Node::Not(_) | Node::Has(_) | Node::Attribute(..) => false,
        }
    }

    fn sort(&mut self, program: &Program, moment: Moment, snapshot: &Snapshot) {
        let sample = snapshot.shards.iter().flatten().find(|block| block.population() > 0);
        let mut costs: Vec<u64> = Vec::with_capacity(program.graph.nodes.len());
        for (id, node) in program.graph.nodes.iter().enumerate() {
            let cost = match node {
                Node::And(parts) | Node::Or(parts) => {
                    let mut order = parts.clone();
                    order.sort_by_key(|part| costs[*part]);
                    self.order.insert(id, order);
                    parts.iter().fold(0u64, |sum, part| sum.saturating_add(costs[*part]))
                }
                Node::Not(part) => costs[*part],
                leaf => {
                    sample.map_or(0, |block| leaf_cost(leaf, self.intervals[id], moment, block))
                }
            };
            costs.push(cost);
        }
    }

    fn count_uses(&mut self, program: &Program) {
        let nodes = &program.graph.nodes;
        for node in nodes {
            match node {
                Node::And(parts) => {
                    for part in parts {
                        // A conjunction subtracts what a negation negates.
                        let read = if let Node::Not(inner) = nodes[*part] { inner } else { *part };
                        self.uses[read] += 1;
                    }
                }
                Node::Or(parts) => parts.iter().for_each(|part| self.uses[*part] += 1),
                Node::Not(part) => self.uses[*part] += 1,
                _ => {}
            }
        }
        for output in &program.outputs {
            self.uses[output.root] += 1;
        }
    }
}

/// About what a leaf costs in a block, in facts read.
fn leaf_cost(node: &Node, interval: Interval, moment: Moment, block: &Block) -> u64 {
    let weight = |id: &TraitId, interval: Interval| block.scan(*id).weight(interval);
    match node {
        Node::Did(id, _) => weight(id, interval),
        Node::Measure(id, window, ..) => 4096 + 2 * weight(id, moment.interval(*window)),
        Node::First(id, _) => 64 + weight(id, moment.retained()),
        Node::Sequence { first, then, .. } => {
            4096 + 4 * (weight(first, moment.retained()) + weight(then, interval))
        }
        Node::LastAfter(last, after) => {
            8192 + 2 * (weight(last, moment.retained()) + weight(after, moment.retained()))
        }
        Node::Attribute(name, _) => {
            8192 + block.attribute(name).map_or(0, |column| 2 * column.len() as u64)
        }
        _ => 1,
    }
}
