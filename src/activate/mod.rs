//! Keeps destinations in step with audiences.
//!
//! ```text
//! audience ─ kept out ───► desired identifiers ┐ merge,   batches      send      acknowledge
//!                          ledger: what is held ┴ sorted ─► outbox ──► connector ──► ledger
//! ```
//! The merge is of everything; while it is known what a destination was last in step with, it is of the identifiers of
//! those alone who came or went since, by bitmaps. Each destination has a lane: its own schedule, thread, troubles and retries. A batch is written down
//! before it is sent and applied to the ledger when the destination has it; one without verdict is looked
//! at first, and repeated only if every line of it is still wanted. Audiences come from outside, whole and
//! from committed state; while there is none, only who opted out is removed. Rules are not evaluated here.

mod audience;
mod basis;
mod connector;
pub mod connectors;
mod delta;
mod eligibility;
mod identifiers;
mod lane;
mod live;
mod push;
mod report;
mod run;
mod shared;
mod snapshot;
mod waterfall;

pub use audience::{Activation, Audiences, NoAudience, WholeAudience};
pub use connector::{Caps, Connector, Encoded, Found, Place, Verdict};
pub use live::LiveAudiences;
pub use push::{PushError, PushThreads, Pusher};
pub use report::{DestinationStatus, KeptOut, PushReport, TargetStatus};
pub use waterfall::{Lost, Matched, Step, Waterfall};

#[cfg(test)]
mod tests;
