//! From rules to answers: checks, traits, one shared graph of all rules, and its exact evaluation.
//!
//! Between `rules`, which has the trees, and `segment`, which keeps audiences. Pure: the instant and the
//! columns are arguments, and what to do about a trait that is not whole yet is the caller's concern.

mod check;
mod compile;
mod cost;
mod exec;
mod explain;
mod graph;
mod library;
pub mod lookalike;
mod number;
#[cfg(test)]
pub(crate) mod oracle;
pub mod property;
pub mod test;
pub mod traits;
mod why;
mod window;

pub use check::Context;
pub use check::Schema;
pub use check::check;
pub use check::check_rule;
pub use compile::CompileError;
pub use compile::Program;
pub use compile::Question;
pub use compile::traits_of;
pub use cost::RuleCost;
pub use exec::Again;
pub use exec::Answers;
pub use exec::Delta;
pub use exec::Dirty;
pub use exec::Earlier;
pub use exec::Members;
pub use exec::Repeated;
pub use exec::ShardRows;
pub use exec::Touched;
pub use explain::ExplainedPart;
pub use explain::ExplainedRule;
pub use explain::Explanation;
pub use library::Library;
pub use library::references_of;
pub use traits::TraitSet;
pub use traits::TraitSpec;
pub use why::Completion;
pub use why::Contribution;
pub use why::Membership;
pub use why::Need;
pub use why::Why;
pub use why::WhyError;
pub use why::why;
pub use window::Moment;
pub use window::TooEarly;
