//! What a profile has to have done for a rule to be true of it: most rules need not be looked at any further.

use crate::bitmap::Signature;
use crate::bitmap::TraitId;
use crate::plan::compile::Program;
use crate::plan::graph::Node;

/// So many are kept of a node's: one that fails is enough.
const MOST: usize = 4;

/// What a profile needs that has got a fact of some trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest([Signature; REST]);

/// So many are kept of those that a fact does not meet by itself.
const REST: usize = 2;

impl Rest {
    /// Whether the profile of a head with this signature may have what is needed.
    #[inline]
    pub(super) fn may_have(&self, signature: Signature) -> bool {
        // All are looked at: it takes less than to guess which one fails.
        self.0.iter().fold(1, |all, needed| all & u8::from(needed.meets(signature))) == 1
    }
}

/// Signatures: of each, a profile needs a bit.
#[derive(Debug, Clone, Default)]
pub(super) struct Needed(Vec<Signature>);

impl Needed {
    /// Those of every node; `none` are the nodes' answers for a profile that has nothing.
    pub(super) fn of_all(program: &Program, none: &[bool]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::with_capacity(none.len());
        for (node, none) in program.graph.nodes.iter().zip(none) {
            let needed = match node {
                Node::And(parts) => parts.iter().flat_map(|part| all[*part].0.clone()).collect(),
                Node::Or(parts) => {
                    let least = |part: &usize| all[*part].0.first().copied();
                    let mut all = parts.iter().map(least);
                    let any = all.try_fold(Signature::default(), |a, b| Some(a.union(b?)));
                    any.into_iter().collect()
                }
                Node::Did(id, _) | Node::First(id, _) | Node::LastAfter(id, _) => {
                    vec![Signature::of(*id)]
                }
                Node::Sequence { first, then, .. } => {
                    [first, then].map(|id| Signature::of(*id)).to_vec()
                }
                Node::Measure(id, ..) if !none => vec![Signature::of(*id)],
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
    fn least(mut needed: Vec<Signature>) -> Self {
        needed.sort_unstable_by_key(|needed| (needed.count(), *needed));
        needed.dedup();
        needed.truncate(MOST);
        Self(needed)
    }

    /// What is needed beside a fact of a trait.
    pub(super) fn beside(&self, id: TraitId) -> Rest {
        let mut rest = [Signature::ALL; REST];
        let needed = self.0.iter().filter(|needed| !needed.meets(Signature::of(id)));
        rest.iter_mut().zip(needed).for_each(|(rest, needed)| *rest = *needed);
        Rest(rest)
    }

    /// Whether a profile with a signature may have what is needed.
    pub(super) fn may_have(&self, signature: Signature) -> bool {
        self.0.iter().all(|needed| needed.meets(signature))
    }
}
