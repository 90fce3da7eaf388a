//! The register of nodes where there is one process: in memory, and its own leader.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::model::Millis;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::nodes::FORGOTTEN;
use crate::store::nodes::Heard;
use crate::store::nodes::Listed;
use crate::store::nodes::MAX_NODES;
use crate::store::nodes::Node;
use crate::store::nodes::Nodes;
use crate::store::nodes::crowded;

/// The nodes of one process.
pub struct Registry {
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    nodes: BTreeMap<String, Heard>,
    lead: Lead,
}

#[derive(Default)]
struct Lead {
    id: String,
    term: u64,
    until: Millis,
}

impl Registry {
    /// Nobody yet. The store's clock is this one.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Nodes for Registry {
    fn beat(&self, node: &Node, clock: Millis) -> Result<(), StoreError> {
        node.check()?;
        let mut known = self.known.lock();
        let heard = self.clock.now();
        if !known.nodes.contains_key(&node.id) && known.nodes.len() >= MAX_NODES {
            known.nodes.retain(|_, old| old.node.mark.is_some() || old.heard + FORGOTTEN > heard);
            if known.nodes.len() >= MAX_NODES {
                return Err(crowded());
            }
        }
        let row = Heard { node: node.clone(), heard, offset: clock.saturating_sub(heard) };
        known.nodes.insert(node.id.clone(), row);
        Ok(())
    }

    fn list(&self) -> Result<Listed, StoreError> {
        let known = self.known.lock();
        Ok(Listed { store_time: self.clock.now(), nodes: known.nodes.values().cloned().collect() })
    }

    fn leave(&self, id: &str) -> Result<(), StoreError> {
        self.retire(id).map(drop)
    }

    fn retire(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.known.lock().nodes.remove(id).is_some())
    }

    fn strike(&self, id: &str, heard: Millis) -> Result<bool, StoreError> {
        let nodes = &mut self.known.lock().nodes;
        let is_same = nodes.get(id).is_some_and(|node| node.heard == heard);
        Ok(is_same && nodes.remove(id).is_some())
    }

    fn lead(&self, id: &str, ttl: Duration) -> Result<Option<u64>, StoreError> {
        let lead = &mut self.known.lock().lead;
        let now = self.clock.now();
        let is_held = lead.until > now;
        if is_held && lead.id != id {
            return Ok(None);
        }
        if !is_held {
            // As in Redis, so that it grows over a restart too.
            lead.term = (lead.term + 1).max(u64::try_from(now).unwrap_or_default());
            id.clone_into(&mut lead.id);
        }
        lead.until = now.saturating_add(Millis::try_from(ttl.as_millis()).unwrap_or(Millis::MAX));
        Ok(Some(lead.term))
    }

    fn leader(&self) -> Result<Option<(String, u64)>, StoreError> {
        let lead = &self.known.lock().lead;
        Ok((lead.until > self.clock.now()).then(|| (lead.id.clone(), lead.term)))
    }

    fn resign(&self, id: &str) -> Result<(), StoreError> {
        let lead = &mut self.known.lock().lead;
        if lead.id == id {
            lead.until = Millis::MIN;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SystemClock;
    use crate::store::nodes::conformance;

    #[test]
    fn it_keeps_the_contracts_of_the_port() {
        for contract in conformance::ALL {
            contract(&Registry::new(Arc::new(SystemClock::default())));
        }
    }
}
