//! The fold from outside: records in, state out, with real files underneath.

mod counting;
mod engine;
mod erase;
mod matches;
mod random;
mod restart;
pub(super) mod sent;
pub(super) mod world;
