//! The graph that all rules share: each distinct part is one node, simplified as it is made.

use std::collections::HashMap;

use super::window::Window;
use crate::bitmap::TraitId;
use crate::model::Decimal;
use crate::rules::Rule;
use crate::rules::ast;
use crate::rules::ast::Cmp;

/// The number of a node; the parts of a node have smaller ones.
pub(super) type NodeId = usize;

/// How a measure adds up its facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Count,
    Days,
    Sum,
    Min,
    Max,
    Avg,
}

/// A part of a rule, true or false of each profile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    True,
    False,
    /// Two parts or more, ascending.
    And(Vec<NodeId>),
    /// Two parts or more, ascending.
    Or(Vec<NodeId>),
    Not(NodeId),
    Has(Box<str>),
    Attribute(Box<str>, ast::Test),
    Did(TraitId, Window),
    Measure(TraitId, Window, Kind, Cmp, Decimal),
    Sequence {
        first: TraitId,
        then: TraitId,
        within: i64,
        window: Window,
    },
    First(TraitId, Window),
    LastAfter(TraitId, TraitId),
}

/// Nodes, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    /// The clause that each leaf was first written as.
    pub(super) clauses: Vec<Option<Rule>>,
    index: HashMap<Node, NodeId>,
}

impl Graph {
    /// The node of a leaf, made of `clause` where it is new.
    pub(super) fn leaf(&mut self, node: Node, clause: Option<&Rule>) -> NodeId {
        if let Some(id) = self.index.get(&node) {
            return *id;
        }
        let id = self.nodes.len();
        self.index.insert(node.clone(), id);
        self.nodes.push(node);
        self.clauses.push(clause.cloned());
        id
    }

    pub(super) fn constant(&mut self, value: bool) -> NodeId {
        self.leaf(if value { Node::True } else { Node::False }, None)
    }

    pub(super) fn not(&mut self, part: NodeId) -> NodeId {
        match self.nodes[part] {
            Node::True => self.constant(false),
            Node::False => self.constant(true),
            Node::Not(inner) => inner,
            _ => self.leaf(Node::Not(part), None),
        }
    }

    pub(super) fn and(&mut self, parts: Vec<NodeId>) -> NodeId {
        self.combine(parts, true)
    }

    pub(super) fn or(&mut self, parts: Vec<NodeId>) -> NodeId {
        self.combine(parts, false)
    }

    fn combine(&mut self, mut parts: Vec<NodeId>, all: bool) -> NodeId {
        let (neutral, decisive) =
            if all { (Node::True, Node::False) } else { (Node::False, Node::True) };
        parts.sort_unstable();
        parts.dedup();
        parts.retain(|part| self.nodes[*part] != neutral);
        let opposed = |part: &NodeId| match self.nodes[*part] {
            Node::Not(inner) => parts.binary_search(&inner).is_ok(),
            _ => false,
        };
        if parts.iter().any(|part| self.nodes[*part] == decisive) || parts.iter().any(opposed) {
            return self.constant(!all);
        }
        // a and (a or b) is a; a or (a and b) is a.
        let absorbed = |part: &NodeId| match &self.nodes[*part] {
            Node::Or(inner) if all => inner.iter().any(|i| parts.binary_search(i).is_ok()),
            Node::And(inner) if !all => inner.iter().any(|i| parts.binary_search(i).is_ok()),
            _ => false,
        };
        let kept: Vec<NodeId> = parts.iter().filter(|part| !absorbed(part)).copied().collect();
        match kept.as_slice() {
            [] => self.constant(all),
            [only] => *only,
            _ => self.leaf(if all { Node::And(kept) } else { Node::Or(kept) }, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_change_nothing_fall_away() {
        let mut graph = Graph::default();
        let [a, b] = ["a", "b"].map(|ns| graph.leaf(Node::Has(ns.into()), None));
        let (yes, no) = (graph.constant(true), graph.constant(false));
        let not_a = graph.not(a);
        assert_eq!(graph.not(not_a), a);
        assert_eq!(graph.and(vec![a, not_a]), no);
        assert_eq!(graph.or(vec![a, not_a, b]), yes);
        assert_eq!(graph.and(vec![a, yes, a]), a);
        let either = graph.or(vec![b, a]);
        assert_eq!(graph.and(vec![either, a]), a);
        let both = graph.and(vec![a, b]);
        assert_eq!(graph.or(vec![both, a]), a);
        assert_eq!(graph.and(vec![b, a]), both);
        assert_eq!(graph.and(vec![]), yes);
        assert_eq!(graph.or(vec![no, no]), no);
    }
}
