//! Look-alike segments: trained by the process that publishes, over the shards of all nodes, and published as any audience.
//!
//! A training goes in steps ([`Step`]), each answered for the shards that somebody holds and added up: which values
//! attributes have, how many have each feature, what everybody's score is, who of equal ones comes first; at last each
//! holder lists the members of its shards. The holders keep one pin of their columns over all steps. What was learnt goes to
//! the shelf of the store under a print; the members lie with the audiences, under the same print, so that neither a restart
//! nor a shard that changes hands needs another training.

mod keeper;
mod record;
mod step;
mod told;
mod train;

pub(super) use keeper::Keeper;
pub use step::Found;
pub use step::Holds;
pub use step::Step;

use crate::rules::Lookalike;
use crate::rules::Rule;
use crate::rules::Span;
use crate::rules::ast::RuleKind;

/// The rule of who is in the seed.
pub(super) fn seed_rule(lookalike: &Lookalike) -> Rule {
    Rule { kind: RuleKind::Segment(lookalike.seed.clone()), span: Span::default() }
}

/// The rules of a look-alike: the seed's, and who may be chosen.
pub(super) fn rules(lookalike: &Lookalike) -> [Rule; 2] {
    let everyone = || Rule { kind: RuleKind::Everyone, span: Span::default() };
    [seed_rule(lookalike), lookalike.within.clone().unwrap_or_else(everyone)]
}
