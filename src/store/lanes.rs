//! Lanes: which shards share a stream, a checkpoint and an owner, and how an owner takes them.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::audiences::Audiences;
use crate::store::journal::Journal;
use crate::store::state::State;

/// How the shards of a store lie in its lanes: each lane has a run of them, and all have as many but for one.
/// Both numbers are fixed when the store is made.
///
/// Invariant: `1 <= lanes <= shards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    shards: u16,
    lanes: u16,
}

impl Layout {
    /// So many shards in so many lanes, or in fewer where there are not as many shards.
    pub fn new(shards: u16, lanes: u16) -> Self {
        let shards = shards.max(1);
        Self { shards, lanes: lanes.clamp(1, shards) }
    }

    /// How many shards there are.
    pub fn shards(self) -> u16 {
        self.shards
    }

    /// How many lanes there are.
    pub fn lanes(self) -> u16 {
        self.lanes
    }

    /// The lane of a shard.
    pub fn lane_of(self, shard: ShardId) -> u16 {
        let (shards, lanes) = (u32::from(self.shards), u32::from(self.lanes));
        let lane = ((u32::from(shard) + 1) * lanes - 1) / shards;
        u16::try_from(lane.min(lanes - 1)).expect("there are at most 65,535 lanes")
    }

    /// The shards of a lane; none of one that is not there.
    pub fn shards_of(self, lane: u16) -> Vec<ShardId> {
        let first = |lane: u16| {
            let first = u32::from(lane) * u32::from(self.shards) / u32::from(self.lanes);
            u16::try_from(first).unwrap_or(u16::MAX).min(self.shards)
        };
        (first(lane)..first(lane.saturating_add(1))).collect()
    }

    /// What a lane is called in the names of keys.
    pub fn tag(self, lane: u16) -> String {
        let width = (self.lanes - 1).to_string().len().max(2);
        format!("{lane:0width$}")
    }
}

/// A store whose lanes are taken by one owner at a time.
pub trait LaneStore: Send + Sync {
    /// How its shards lie in lanes.
    fn layout(&self) -> Layout;

    /// Takes a lane for `ttl`; `None` while another owner has it. An owner of the same name gives way at once.
    ///
    /// What is written through the ports fails with [`StoreError::Fenced`] once another has taken the lane, and
    /// changes nothing.
    fn take(&self, lane: u16, owner: &str, ttl: Duration) -> Result<Option<Taken>, StoreError>;
}

/// A lane that was taken.
pub struct Taken {
    /// What is kept of its fold.
    pub state: Arc<dyn State>,
    /// Its journal.
    pub journal: Arc<dyn Journal>,
    /// The audiences of its shards.
    pub audiences: Arc<dyn Audiences>,
    /// The hold on it.
    pub hold: Box<dyn Hold>,
}

/// The hold on a lane.
pub trait Hold: Send + Sync {
    /// How often the lane was taken, this time included.
    fn epoch(&self) -> u64;

    /// Holds on for `ttl` from now on.
    fn renew(&self, ttl: Duration) -> Result<(), StoreError>;

    /// Lets go, so that another need not wait.
    fn release(&self) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_lies_in_one_lane_and_no_lane_has_two_more_than_another() {
        for (shards, lanes) in [(1, 1), (4, 9), (16, 16), (64, 16), (100, 7), (4096, 4095)] {
            let layout = Layout::new(shards, lanes);
            let all: Vec<_> = (0..layout.lanes()).map(|lane| layout.shards_of(lane)).collect();
            assert_eq!(all.concat(), (0..shards).collect::<Vec<_>>());
            let sizes = || all.iter().map(Vec::len);
            assert!(sizes().min().unwrap() > 0 && sizes().max() <= sizes().min().map(|n| n + 1));
            for (lane, held) in (0..).zip(&all) {
                assert!(held.iter().all(|shard| layout.lane_of(*shard) == lane));
            }
            assert!(layout.shards_of(layout.lanes()).is_empty());
        }
        assert_eq!(Layout::new(0, 0), Layout::new(1, 1));
        let tags = |lanes| Layout::new(4096, lanes).tag(7);
        assert_eq!([tags(9), tags(16), tags(101)], ["07", "07", "007"]);
    }
}
