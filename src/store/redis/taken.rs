//! How the lanes of a store in Redis are taken.

use std::sync::Arc;
use std::time::Duration;

use super::Audiences;
use super::Journal;
use super::Lane;
use super::Mode;
use super::State;
use super::Store;
use crate::store::StoreError;
use crate::store::lanes::Hold;
use crate::store::lanes::LaneStore;
use crate::store::lanes::Layout;
use crate::store::lanes::Taken;

impl LaneStore for Store {
    fn layout(&self) -> Layout {
        Store::layout(self)
    }

    fn take(&self, lane: u16, owner: &str, ttl: Duration) -> Result<Option<Taken>, StoreError> {
        let layout = Store::layout(self);
        let tag = layout.tag(lane);
        let Some(taken) = Lane::acquire(self, &tag, &layout.shards_of(lane), owner, ttl)? else {
            return Ok(None);
        };
        let taken = Arc::new(taken);
        // Nothing is appended by who folds.
        let journal = Journal::open(self.link.clone(), &self.keys, &tag, Mode::Everysec)?;
        let journal = journal.watched_by(&self.watch);
        Ok(Some(Taken {
            state: Arc::new(State::new(self.clone(), taken.clone())),
            journal: Arc::new(journal),
            audiences: Arc::new(Audiences::new(taken.clone())),
            hold: Box::new(Held(taken)),
        }))
    }
}

struct Held(Arc<Lane>);

impl Hold for Held {
    fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    fn renew(&self, ttl: Duration) -> Result<(), StoreError> {
        self.0.renew(ttl)
    }

    fn release(&self) -> Result<(), StoreError> {
        self.0.release()
    }
}
