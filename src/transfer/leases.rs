//! Lanes in Redis are held while they are moved: their leases are renewed by a thread.

use std::sync::Arc;
use std::time::Duration;

use super::MoveError;
use super::OWNER;
use super::renewing::Renewing;
use super::unfit;
use crate::store::chain;
use crate::store::lanes::Hold;
use crate::store::lanes::LaneStore;
use crate::store::lanes::Taken;
use crate::store::redis::Store;

/// For how long lanes are taken.
const LEASE: Duration = Duration::from_secs(60);
/// How often leases are renewed.
const RENEW: Duration = Duration::from_secs(10);

/// Leases that are renewed until this is dropped, and then given up.
pub(super) struct Leases {
    holds: Arc<Vec<Box<dyn Hold>>>,
    renewing: Option<Renewing>,
}

impl Leases {
    /// Takes every lane of a store, or tells who has one.
    pub(super) fn take(store: &Store) -> Result<(Self, Vec<Taken>), MoveError> {
        let mut holds: Vec<Box<dyn Hold>> = Vec::new();
        let mut lanes = Vec::new();
        for number in 0..store.layout().lanes() {
            let owner = store.owner(number)?;
            let Some(taken) = store.take(number, OWNER, LEASE)? else {
                holds.iter().for_each(|hold| _ = hold.release());
                let owner = owner.unwrap_or_else(|| "another process".to_owned());
                let why = format!(
                    "a server runs on it: lane {number} is held by {owner}; stop all servers first"
                );
                return Err(unfit("Redis", why));
            };
            let Taken { state, journal, audiences, hold } = taken;
            holds.push(hold);
            lanes.push(Taken { state, journal, audiences, hold: Box::new(Nothing) });
        }
        let holds = Arc::new(holds);
        let held = holds.clone();
        let renewing = Renewing::start(RENEW, move || {
            for hold in held.iter() {
                if let Err(error) = hold.renew(LEASE) {
                    // What is written then is refused, and says so.
                    tracing::warn!(error = %chain(&error), "a lease could not be renewed");
                }
            }
        })?;
        Ok((Self { holds, renewing: Some(renewing) }, lanes))
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.renewing = None;
        for hold in self.holds.iter() {
            // Where it cannot be given up it ends by itself.
            let _ = hold.release();
        }
    }
}

/// In the place of a hold that is kept elsewhere.
struct Nothing;

impl Hold for Nothing {
    fn epoch(&self) -> u64 {
        0
    }

    fn renew(&self, _ttl: Duration) -> Result<(), crate::store::StoreError> {
        Ok(())
    }

    fn release(&self) -> Result<(), crate::store::StoreError> {
        Ok(())
    }
}
