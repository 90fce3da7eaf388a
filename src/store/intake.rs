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
    /// The sender's number for it, from 1 and below 2^53.
    pub number: u64,
    /// Its records.
    pub batch: Batch,
}

/// Takes frames for all lanes of a store.
pub trait Intake: Send + Sync {
    /// Appends frames to their lanes and returns when all are as durable as the mode promises. Blocks.
    ///
    /// In each lane a sender's numbers grow. A frame whose number is not above the last one taken there was taken
    /// earlier and is left out, so all of it may be sent again, grouped in any way. After an error any of the frames
    /// may have been taken; a sender that goes on with later ones gives these up.
    ///
    /// Tells of each frame which number its first record has in its lane, where that is known: it is of those that
    /// were taken by this very call.
    fn append(&self, sender: &str, frames: &[LaneFrame]) -> Result<Vec<Option<u64>>, StoreError>;

    /// The last number taken of a sender, in whichever lane; 0 of one that is not known.
    fn last_number(&self, sender: &str) -> Result<u64, StoreError>;

    /// Why frames are refused, where they are: what the last append that failed was told, until what stood in its
    /// way is gone.
    fn trouble(&self) -> Option<String>;

    /// How many bytes of frames that were acknowledged to this process are gone again: a failover lost them, within
    /// what the mode allows.
    fn lost(&self) -> u64;
}
