//! Ships what a process has left in its spool that ended before it had shipped it.

use std::sync::Arc;

use super::Back;
use super::Group;
use crate::ingest::split::Splitter;
use crate::store::StoreError;
use crate::store::claims::Claims;
use crate::store::intake::Intake;
use crate::store::journal::Frame;
use crate::store::journal::Position;
use crate::store::lanes::Layout;
use crate::store::spools::Registered;
use crate::store::spools::Spool;
use crate::store::spools::Spools;
use crate::store::state::Identity;

/// Ships what others have left.
#[derive(Clone)]
pub struct Heir {
    /// The spools of the store.
    pub spools: Arc<dyn Spools>,
    /// Where to.
    pub intake: Arc<dyn Intake>,
    /// Where the message ids of what is shipped are claimed.
    pub claims: Arc<dyn Claims>,
    /// The store's identity.
    pub identity: Identity,
    /// The store's lanes.
    pub layout: Layout,
}

impl Heir {
    /// Ships all that a spool holds, and tells how many records that were. It may be shipped again, by its own
    /// process too: it counts once.
    pub fn ship(&self, spool: &Spool) -> Result<u64, StoreError> {
        let splitter = Splitter::new(self.identity, self.layout);
        let (mut at, mut records) = (Position(0), 0);
        let mut taken = self.intake.taken(&spool.sender)?;
        loop {
            let frames = self.spools.read(&spool.sender, at)?;
            let Some(last) = frames.last() else { return Ok(records) };
            at = last.end;
            for frame in &frames {
                records += self.ship_frame(spool, frame, &splitter, &mut taken)?;
            }
            self.spools.release(&spool.sender, at)?;
        }
    }

    fn ship_frame(
        &self,
        spool: &Spool,
        frame: &Frame,
        splitter: &Splitter,
        taken: &mut Vec<u64>,
    ) -> Result<u64, StoreError> {
        loop {
            let mut group = Group::default();
            group.add(frame, splitter, taken);
            match group.ship(&spool.sender, &*self.intake, &*self.claims)? {
                None => return Ok(group.records),
                // What lanes have lost of those before is here no more; what they have now counts.
                Some(Back::Lost(_) | Back::Overlaps) => {
                    *taken = self.intake.taken(&spool.sender)?
                }
            }
        }
    }

    /// Ships and deletes what processes of a node have left that are known to have ended.
    pub fn clear(&self, node: &str, except: Option<&str>) -> Result<(), StoreError> {
        for Registered { spool, .. } in self.spools.list()? {
            if spool.node == node && Some(&*spool.sender) != except {
                let records = self.ship(&spool)?;
                self.spools.delete(&spool.sender)?;
                if records > 0 {
                    tracing::info!(
                        "shipped {records} records that this node had left in the store"
                    );
                }
            }
        }
        Ok(())
    }
}
