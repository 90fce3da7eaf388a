//! From what was sent to what is folded: events in their canonical form, appended in batches.
//!
//! Decides what an event is, never who may send one: origin and consent are the listener's.

pub mod canonical;
pub mod record;
