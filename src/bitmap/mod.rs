//! Columns: what the events of a block say to each trait, kept so that windows are cut exactly.
//!
//! ```text
//! Snapshot ── shard ── Block (65,536 ordinals)
//!                        ├─ trait ── day ── DayColumn: base + tail, each sorted by time
//!                        ├─ attribute ── entries in order of receipt, values interned
//!                        └─ sets: namespaces, devices, marks, consents
//! ```
//!
//! Below `plan`, which asks, and `ingest`, which folds. Pure: it knows neither rules nor events, and
//! stores nothing; images of columns are bytes that a store keeps.

mod attribute;
mod block;
mod codec;
mod columns;
mod consents;
mod days;
mod kernels;
mod loose;
mod packed;
mod roar;
mod rowfact;
mod rows;
mod scan;
mod set;
mod signature;
mod summed;
#[cfg(test)]
mod tests;
mod times;
mod unary;

pub use attribute::AttributeColumn;
pub use block::Block;
pub use block::Mark;
pub use columns::DayColumn;
pub use columns::TraitColumns;
pub use consents::Consents;
pub use roar::Roar;
pub use roar::RoarScratch;
pub use rowfact::FactRange;
pub use rowfact::RowFact;
pub use rows::Head;
pub use rows::Rows;
pub use scan::Found;
pub use scan::Interval;
pub use scan::Scan;
pub use scan::sequence;
pub use set::BlockSet;
pub use signature::Bit;
pub use signature::Signature;
pub use summed::Within;
pub use unary::Unary;

use std::sync::Arc;

use crate::model::time::Millis;

/// The number of a trait, given by the registry and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraitId(pub u32);

impl TraitId {
    /// Every event of the profile: what makes it known.
    pub const ANY: Self = Self(0);
}

/// The columns of all shards at one position of the journal.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The blocks of each shard, in the order of their ordinals.
    pub shards: Vec<Vec<Arc<Block>>>,
    /// T: every event acknowledged before it is in the columns.
    pub true_for: Millis,
    /// How long events count.
    pub retention: Millis,
}
