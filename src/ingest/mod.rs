//! From what was sent to what is known: events in their canonical form, appended in batches, then folded.
//!
//! ```text
//! canonical ──► record ──► journal ──► Fold ──► Memory ──cut──► Committer ──► store::state
//!               batches                dedup    shards          deltas, images
//!                                                 └── Engine: pins, waits, traits, lookups
//! ```
//!
//! Decides what an event is, never who may send one: origin and consent are the listener's. State is the
//! fold of the journal: what is committed and the journal behind the checkpoint give the same memory
//! again. Rules are not evaluated here.

pub mod canonical;
mod changes;
mod claim;
mod commit;
mod cpu;
mod delta;
mod engine;
mod erase;
mod filling;
mod fold;
mod identity;
mod images;
mod importer;
mod lanes;
mod load;
mod matches;
mod memory;
mod message_ids;
mod packed;
mod pin;
mod quarantine;
mod reads;
pub mod record;
mod run;
mod schema;
mod seen;
mod shard;
mod shared;
pub mod ship;
mod skips;
mod split;
#[cfg(test)]
mod tests;
mod traits;
mod whole;

pub use changes::Changes;
pub use engine::Engine;
pub use engine::Health;
pub use engine::SettleError;
pub use engine::Stats;
pub use importer::ImportError;
pub use importer::Importer;
pub use importer::Progress;
pub use importer::Taken;
pub use lanes::BadLetterNo;
pub use lanes::Lane;
pub use lanes::Lanes;
pub use lanes::LetterNo;
pub use matches::Lifetimes;
pub use matches::Matches;
pub use memory::first_kept;
pub use message_ids::MessageIds;
pub use pin::Pin;
pub use pin::marked;
pub use quarantine::Aside;
pub use quarantine::Quarantine;
pub use quarantine::QuarantineError;
pub use reads::Watermark;
pub use schema::Schema;
pub use shared::Options;
pub use traits::BadTrait;
pub use traits::Traits;
pub use whole::Content;
pub use whole::Numbers;
pub use whole::Stored;
pub use whole::TakeImage;

use crate::model::Identifier;
use crate::store::audiences::Whose;
use crate::store::state::Identity;

/// Whose list an identifier has that owns a profile, wherever that is held.
pub fn whose(identity: Identity, identifier: &Identifier) -> Whose {
    let keys = identity::Keys::new(identity);
    let (namespace, value) = (identifier.namespace.as_str(), identifier.value());
    let shard = keys.place(namespace, value).shard;
    Whose { shard, ordinal: None, hash: keys.list_hash(namespace, value) }
}
