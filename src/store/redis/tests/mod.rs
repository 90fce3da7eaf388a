mod audiences;
mod audit;
pub(crate) mod certificates;
mod checkup;
mod claims;
mod faults;
mod journal;
mod ledger;
mod lost;
mod moved;
mod pinned;
#[expect(dead_code, reason = "the integration tests use all of it")]
pub(crate) mod proxy;
mod registry;
#[expect(dead_code, reason = "the integration tests use all of it")]
pub(crate) mod server;
mod shelf;
mod shipped;
mod sizes;
mod spooled;
mod state;
mod streams;
mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Keys;
use super::Lane;
use super::Link;
use super::State;
use super::Store;
use super::Times;
use server::shared_cluster;
use server::shared_server;

/// Keys that no other test has.
pub(crate) fn fresh_keys() -> Keys {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Keys::new(&format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Times for a machine that does more than one thing.
pub(crate) fn times() -> Times {
    Times {
        connect: Duration::from_secs(5),
        response: Duration::from_secs(10),
        patience: Duration::from_secs(60),
    }
}

/// A link that gives up soon.
fn impatient(url: &str) -> Link {
    let patience = Duration::from_millis(600);
    Link::open(url, Times { patience, response: patience, ..times() }).unwrap()
}

/// Both topologies, each with a name for messages.
pub(crate) fn both() -> [(&'static str, Link); 2] {
    let open = |url: String| Link::open(&url, times()).unwrap();
    [("server", open(shared_server().url())), ("cluster", open(shared_cluster().url()))]
}

const TTL: Duration = Duration::from_secs(600);

/// A store of four shards in one lane, opened by an owner.
fn own(link: &Link, keys: &Keys, owner: &str) -> (Store, Arc<Lane>) {
    let store = Store::open(link.clone(), keys.clone(), 4, 2).unwrap();
    let lane = Lane::acquire(&store, "000", &[0, 1, 2, 3], owner, TTL).unwrap();
    (store, Arc::new(lane.expect("nobody else has it")))
}

fn state(link: &Link, keys: &Keys, owner: &str) -> State {
    let (store, lane) = own(link, keys, owner);
    State::new(store, lane)
}
