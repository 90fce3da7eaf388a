//! What a profile has to have done for a rule to be true of it: most rules need not be looked at any further.

use crate::bitmap::TraitId;
use crate::plan::compile::Program;
use crate::plan::graph::Node;

/// So many are kept of a node's: one that fails is enough.
const MOST: usize = 4;

/// A set of traits that is never said to be without one of its own; it may seem to have others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traits([u64; 4]);

impl Traits {
    pub(super) fn add(&mut self, id: TraitId) {
        self.0[(id.0 >> 6) as usize & 3] |= 1 << (id.0 & 63);
    }

    fn of(id: TraitId) -> Self {
        let mut traits = Self::default();
        traits.add(id);
        traits
    }

    fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|place| self.0[place] | other.0[place]))
    }

    /// How many it seems to have.
    fn len(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn meets(self, other: Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |all, (word, other)| all | (word & other)) != 0
    }
}

/// Sets of traits: of each, a profile needs one.
#[derive(Debug, Clone, Default)]
pub(super) struct Needed(Vec<Traits>);

impl Needed {
    /// Those of every node; `none` are the nodes' answers for a profile that has nothing.
    pub(super) fn of_all(program: &Program, none: &[bool]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::with_capacity(none.len());
        for (node, none) in program.graph.nodes.iter().zip(none) {
            let needed = match node {
                Node::And(parts) => parts.iter().flat_map(|part| all[*part].0.clone()).collect(),
                Node::Or(parts) => {
                    let least = |part: &usize| all[*part].0.first().copied();
                    let any: Option<Vec<Traits>> = parts.iter().map(least).collect();
                    any.into_iter()
                        .map(|any| any.into_iter().fold(Traits::default(), Traits::union))
                        .collect()
                }
                Node::Did(id, _) | Node::First(id, _) | Node::LastAfter(id, _) => {
                    vec![Traits::of(*id)]
                }
                Node::Sequence { first, then, .. } => vec![Traits::of(*first), Traits::of(*then)],
                Node::Measure(id, ..) if !none => vec![Traits::of(*id)],
                Node::Measure(..)
                | Node::True
                | Node::False
                | Node::Not(_)
                | Node::Has(_)
                | Node::Attribute(..) => Vec::new(),
            };
            all.push(Self::least(needed));
        }
        all
    }

    /// Those that fewest meet.
    fn least(mut needed: Vec<Traits>) -> Self {
        needed.sort_by_key(|traits| traits.len());
        needed.dedup();
        needed.truncate(MOST);
        Self(needed)
    }

    /// Whether a profile that has facts of some traits may have what is needed.
    pub(super) fn may_have(&self, traits: Traits) -> bool {
        self.0.iter().all(|needed| needed.meets(traits))
    }
}
