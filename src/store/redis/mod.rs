//! The shared backend: many processes on one Redis server (7.0 or later) or one Redis Cluster.
//!
//! A **lane** is a set of shards that share one hash tag, one stream of events and one checkpoint; every key
//! of a lane is `throng:{TAG}:…`, so that it lies on one node and fails over as one. What changes a lane is
//! one Redis Function of `throng.lua`, which compares before it writes: each may be repeated, and a timeout
//! is never taken for a failure. Nothing here blocks a connection, and no call writes much more than 1 MiB
//! but the append of a larger frame.

mod audiences;
mod audit;
mod blob;
mod checkup;
mod claims;
mod draft;
mod functions;
mod journal;
mod keys;
mod lane;
mod lease;
mod ledger;
mod link;
mod lists;
mod mode;
mod moved;
mod nodes;
mod page;
mod pinned;
mod reader;
mod registry;
mod reply;
mod route;
mod shelf;
mod sizes;
mod spooled;
mod spools;
mod spread;
mod state;
mod state_change;
mod store;
mod streams;
mod taken;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod watch;

pub use audiences::Audiences;
pub use audit::AuditLog;
pub use checkup::Checkup;
pub use claims::Claims;
pub use journal::Journal;
pub use keys::Keys;
pub use lane::Lane;
pub use ledger::Ledger;
pub use link::Link;
pub use lists::Lookups;
pub use mode::Mode;
pub use nodes::Times;
pub use pinned::NoPin;
pub use pinned::Pin;
pub use pinned::Pinned;
pub use registry::Registry;
pub use shelf::Shelf;
pub use sizes::Sizes;
pub use spooled::SpooledJournal;
pub use spools::Spools;
pub use state::State;
pub use store::Store;
pub use streams::Streams;
