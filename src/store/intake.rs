//! The way of records into lanes: a sender appends frames to the journals of all lanes at once, and reads none.

use crate::store::StoreError;
use crate::store::journal::Batch;

/// A frame takes no more bytes than this, unless one record does: a store that works through one call at a time is
/// held up by no call for long.
pub const FRAME: usize = 1 << 20;

/// A frame on its way to a lane.
pub struct LaneFrame {
    /// The lane.
    pub lane: u16,
    /// What it holds of the lane's begins with what has this number of the sender's, from 1 and below 2^53.
    pub first: u64,
    /// And ends with what has this one, which is the first or above it.
    pub number: u64,
    /// Its records.
    pub batch: Batch,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Appended {
    /// Of each frame, which number its first record has in its lane, where that is known: it is of those that were
    /// taken by this very call.
    pub firsts: Vec<Option<u64>>,
    /// Where lanes have lost frames that were acknowledged to the sender: those of them get nothing of this call.
    pub lost: Option<Lost>,
    /// Whether a lane has a part of what is in one frame, and so takes nothing: the sender is to cut its frames anew,
    /// without what is there.
    pub overlaps: bool,
}

/// Frames of a sender that lanes have lost, as a failover of theirs does. The sender may send them again, and what
/// comes after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The number of the first of them, or one before it.
    pub first: u64,
    /// How many bytes of frames are lost, of those that are remembered.
    pub bytes: u64,
}

/// Takes frames for all lanes of a store.
pub trait Intake: Send + Sync {
    /// Appends frames to their lanes and returns when all are as durable as the mode promises. Blocks.
    ///
    /// In each lane a sender's numbers grow, and a frame holds all that the sender has for the lane between its two
    /// numbers. One whose number is not above the last one taken there was taken earlier and is left out, so all of
    /// it may be sent again, in calls of any size; one that was taken in part is refused. After an error any of the
    /// frames may have been taken; a sender that goes on with later ones gives these up.
    ///
    /// A lane that has lost what was acknowledged takes nothing and says so, once: who calls again goes on there.
    fn append(&self, sender: &str, frames: &[LaneFrame]) -> Result<Appended, StoreError>;

    /// Looks whether the lanes still have what was acknowledged to a sender.
    fn look(&self, sender: &str) -> Result<Option<Lost>, StoreError>;

    /// The last number that was acknowledged to a sender in each lane.
    fn acknowledged(&self, sender: &str) -> Vec<u64>;

    /// Says what was acknowledged to a sender by an earlier process, lane by lane.
    fn resume(&self, sender: &str, acknowledged: &[u64]);

    /// The last number taken of a sender in each lane; 0 in one that does not know it.
    fn taken(&self, sender: &str) -> Result<Vec<u64>, StoreError>;

    /// Why frames are refused, where they are: what the last append that failed was told, until what stood in its
    /// way is gone.
    fn trouble(&self) -> Option<String>;
}
