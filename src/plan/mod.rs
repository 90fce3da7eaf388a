//! From rules to answers: checks, traits, one shared graph of all rules, and its exact evaluation.
//!
//! Between `rules`, which has the trees, and `segment`, which keeps audiences. Pure: the instant and the
//! columns are arguments, and what to do about a trait that is not whole yet is the caller's concern.

pub mod property;
pub mod test;
pub mod traits;

pub use traits::TraitSet;
pub use traits::TraitSpec;
