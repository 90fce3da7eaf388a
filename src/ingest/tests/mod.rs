//! The fold from outside: records in, state out, with real files underneath.

mod counting;
mod engine;
mod random;
mod restart;
pub(super) mod sent;
pub(super) mod world;
