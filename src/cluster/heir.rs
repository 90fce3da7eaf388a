//! Ships what nodes have left in the store that are gone, so that T need not wait for them.
//!
//! The leader does it. A node that takes events without a journal of its own has all that it acknowledged in a spool
//! in the store; once that is shipped by somebody, the node holds nothing back and is struck off. One that was only
//! silent registers again with its next beat.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use super::Member;
use super::horizon::SILENT;
use crate::ingest::ship::Heir;
use crate::net::Workers;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::nodes::Heard;
use crate::store::nodes::Nodes;
use crate::store::spools::RENEWED;

/// How often the leader looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Inheriting {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inheriting {
    /// Looks from now on, while this node leads.
    pub fn start(
        member: Arc<Member>,
        nodes: Arc<dyn Nodes>,
        heir: Heir,
        workers: &Workers,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = workers.spawn("heir", move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if member.is_leader()
                    && let Err(error) = inherit(&*nodes, &heir)
                {
                    tracing::warn!(error = %chain(&error), "what nodes have left is not shipped yet");
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Inheriting {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it was told when it happened.
            let _ = thread.join();
        }
    }
}

/// Ships what is in the spools of nodes that are silent or not known, and strikes these off.
pub fn inherit(nodes: &dyn Nodes, heir: &Heir) -> Result<(), StoreError> {
    let spools = heir.spools.list()?;
    if spools.is_empty() {
        return Ok(());
    }
    let listed = nodes.list()?;
    let mut struck: Vec<&Heard> = Vec::new();
    for registered in &spools {
        let spool = &registered.spool;
        let node = listed.nodes.iter().find(|heard| heard.node.id == spool.node);
        if node.is_some_and(|node| listed.store_time.saturating_sub(node.heard) < SILENT) {
            continue;
        }
        let records = heir.ship(spool)?;
        if records > 0 {
            tracing::warn!(node = spool.node, records, "shipped what a silent node had left");
        }
        match node {
            Some(node) => struck.push(node),
            None if listed.store_time.saturating_sub(registered.renewed) > RENEWED => {
                heir.spools.delete(&spool.sender)?;
            }
            None => {}
        }
    }
    // Only after all spools of a node: T goes on without it.
    for heard in struck {
        if heard.node.mark.is_some() && nodes.strike(&heard.node.id, heard.heard)? {
            tracing::warn!(
                node = heard.node.id,
                "a silent node is struck off: all it took is in the lanes"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::metrics::Metrics;
    use crate::model::Choice;
    use crate::model::Identifier;
    use crate::model::Millis;
    use crate::model::Namespace;
    use crate::model::Record;
    use crate::net::Clock;
    use crate::store::embedded::Registry;
    use crate::store::journal::Batch;
    use crate::store::journal::Journal as _;
    use crate::store::journal::Position;
    use crate::store::nodes::Node;
    use crate::store::nodes::Roles;
    use crate::store::redis::Claims;
    use crate::store::redis::Mode;
    use crate::store::redis::SpooledJournal;
    use crate::store::redis::Spools;
    use crate::store::redis::Store;
    use crate::store::redis::Streams;
    use crate::store::redis::tests::both;
    use crate::store::redis::tests::fresh_keys;

    #[derive(Debug, Default)]
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now(&self) -> Millis {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn node(id: &str) -> Node {
        Node {
            id: id.to_owned(),
            roles: Roles::ALL,
            address: None,
            mark: Some(5),
            lanes: Vec::new(),
            version: String::new(),
        }
    }

    fn left(store: &Store, node: &str) -> SpooledJournal {
        let journal =
            SpooledJournal::new(store, Mode::Everysec, node, &Workers::new(Metrics::new()))
                .unwrap();
        let mut batch = Batch::new();
        for at in 0..10 {
            let namespace = Namespace::new("user_id").unwrap();
            let identifier = Identifier::new(namespace, &format!("{node} {at}")).unwrap();
            let choice = Choice { identifier, opted_out: at % 2 == 0, received: at };
            batch.push(&Record::Choice(choice)).unwrap();
        }
        journal.append(&batch).unwrap();
        journal
    }

    #[test]
    fn what_silent_nodes_have_left_is_shipped_and_they_hold_nothing_back() {
        for (name, link) in both() {
            let store = Store::open(link, fresh_keys(), 8, 4).unwrap();
            let (spools, claims) = (Spools::new(store.clone()), Claims::new(store.clone()));
            let heir = Heir {
                spools: Arc::new(spools),
                intake: Arc::new(Streams::new(&store, Mode::Everysec)),
                claims: Arc::new(claims),
                identity: store.identity(),
                layout: store.layout(),
            };
            let clock = Arc::new(Hands::default());
            let nodes = Registry::new(clock.clone());
            let of = ["alive", "silent", "gone"].map(|node| left(&store, node));
            for id in ["alive", "silent", "disk"] {
                nodes.beat(&node(id), 0).unwrap();
            }
            clock.0.store(SILENT, Ordering::Relaxed);
            nodes.beat(&node("alive"), SILENT).unwrap();
            let known = || -> Vec<String> {
                nodes.list().unwrap().nodes.into_iter().map(|heard| heard.node.id).collect()
            };
            let is_left = |journal: &SpooledJournal| {
                let left = heir.spools.read(&journal.spool().sender, Position::default());
                !left.unwrap().is_empty()
            };
            inherit(&nodes, &heir).unwrap();
            // One with a journal on its own disk stays: nobody else knows what it holds.
            assert_eq!(known(), ["alive", "disk"], "{name}");
            assert_eq!(of.each_ref().map(is_left), [true, false, false], "{name}");
            // Known until nobody can be there any more who appends to them.
            assert_eq!(heir.spools.list().unwrap().len(), 3, "{name}");
            clock.0.store(Millis::MAX, Ordering::Relaxed);
            nodes.beat(&node("alive"), 0).unwrap();
            inherit(&nodes, &heir).unwrap();
            let registered = heir.spools.list().unwrap();
            assert_eq!(registered.len(), 1, "{name}");
            assert_eq!(registered[0].spool.node, "alive", "{name}");
        }
    }
}
