//! Spools in the store: what a process without a journal of its own has acknowledged and not yet shipped into the
//! lanes.
//!
//! The process ships from its memory and never reads its spool. If it dies, another reads what is left and ships it
//! under the same name, which counts once, whoever else ships it too.

use crate::model::Millis;
use crate::model::time::SECOND;
use crate::store::StoreError;
use crate::store::journal::Frame;
use crate::store::journal::Position;

/// So long after its last renewal a spool's process is known to acknowledge nothing more unless it renews first.
pub const RENEWED: Millis = 60 * SECOND;

/// Whose a spool is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spool {
    /// The name under which its frames are shipped.
    pub sender: String,
    /// The node that it is of.
    pub node: String,
}

/// A spool on the register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registered {
    /// Whose it is.
    pub spool: Spool,
    /// When its process said last that it is there, by the store's clock.
    pub renewed: Millis,
}

/// The spools of a store. Calls block, and each may be repeated.
pub trait Spools: std::fmt::Debug + Send + Sync {
    /// Registers a spool, or renews that. Nothing is acknowledged that was appended to one that was not renewed in
    /// half of [`RENEWED`].
    fn register(&self, spool: &Spool) -> Result<(), StoreError>;

    /// All that are registered, in order.
    fn list(&self) -> Result<Vec<Registered>, StoreError>;

    /// What is left in a spool from a position on, in order, some of it.
    fn read(&self, sender: &str, from: Position) -> Result<Vec<Frame>, StoreError>;

    /// Gives up what ends at or before a position: it is shipped.
    fn release(&self, sender: &str, before: Position) -> Result<(), StoreError>;

    /// Deletes a spool that nobody appends to any more.
    fn delete(&self, sender: &str) -> Result<(), StoreError>;
}
