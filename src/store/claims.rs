//! Message ids of a store with several lanes: which event each of them counts for.
//!
//! One `(site, message_id)` counts once, whoever brought it: two events with the same may belong to profiles of
//! different lanes. So whoever folds an event that has one claims it for that event first, and counts it where no
//! other has. A claim may be repeated: it is the event's that was given it.

use crate::model::Millis;
use crate::store::StoreError;
use crate::store::journal::EventNo;

/// For how long a message id counts once, in milliseconds of receive time.
pub const WINDOW: Millis = crate::model::time::DAY;

/// How often something is to be swept, in milliseconds.
pub const SWEEP: Millis = 10 * crate::model::time::SECOND;

/// An event of one of the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    /// The lane.
    pub lane: u16,
    /// The event in its journal.
    pub event: EventNo,
}

/// A message id on its way to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its keyed hash.
    pub hash: [u64; 2],
    /// Whether it counts once within [`WINDOW`], or else once for good.
    pub passes: bool,
    /// When the event was received.
    pub received: Millis,
    /// The event.
    pub event: Claimant,
}

/// Takes claims one by one.
pub type TakeClaimed<'a> = &'a mut dyn FnMut(Claim) -> Result<(), StoreError>;

/// Who has claimed which message id. Calls block.
pub trait Claims: std::fmt::Debug + Send + Sync {
    /// Who has claimed each, where someone has.
    fn look(&self, claims: &[Claim]) -> Result<Vec<Option<Claimant>>, StoreError>;

    /// Claims each that nobody has claimed, in order; tells whose each is then.
    fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimant>, StoreError>;

    /// Gives some of the room back of claims made in the name of a lane's tag that [`WINDOW`] has passed. Called by
    /// whoever holds the lane, once in [`SWEEP`].
    fn sweep(&self, lane: u16, now: Millis) -> Result<(), StoreError>;

    /// Gives all claims that there were before, in no order and perhaps more than once. Some that no longer count may
    /// be among them, and some that are made meanwhile.
    fn each(&self, take: TakeClaimed<'_>) -> Result<(), StoreError>;
}
