//! The nouns of Throng: what a thing is, what its bytes look like, and nothing about where it goes.
//!
//! Pure: no clock, no I/O, no async, no log. Everything else names this module; it names none.

pub mod codec;
pub mod consent;
pub mod decimal;
pub mod erasure;
pub mod event;
pub mod glance;
pub mod hex;
pub mod identifier;
pub mod outcome;
pub mod owner;
pub mod record;
pub mod rfc3339;
pub mod time;
pub mod value;

pub use codec::Malformed;
pub use consent::{Consent, LOOK_ALIKES, Purposes};
pub use decimal::{Decimal, Measure};
pub use erasure::{Erasure, MOST_ERASED, OptOut, Print};
pub use event::{Device, Event, ID_MATCH, Page, Source};
pub use glance::Glance;
pub use hex::hex;
pub use identifier::{Identifier, InvalidIdentifier, Namespace, NamespaceOrder};
pub use outcome::{FoldOutcome, Outcome};
pub use record::{Choice, ImportLines, Record, RejectedLine};
pub use time::Millis;
pub use value::{Number, Value};

/// The number of a shard, from 0 to S − 1.
pub type ShardId = u16;

/// The dense number of a profile in its shard, given in order of arrival and never reused.
pub type Ordinal = u32;

/// How many ordinals a block of columns holds.
pub const BLOCK: u32 = 65_536;
