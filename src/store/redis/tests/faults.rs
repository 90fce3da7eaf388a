//! What goes wrong between Throng and Redis, and in Redis: nothing is done twice, and nothing is lost.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use parking_lot::MutexGuard;

use super::both;
use super::fresh_keys;
use super::impatient;
use super::journal::journal;
use super::ledger::ledger;
use super::own;
use super::proxy::Proxy;
use super::server::Cluster;
use super::server::Server;
use super::server::shared_cluster;
use super::server::shared_server;
use super::server::until;
use super::state;
use super::state::commit;
use super::state::deltas;
use super::times;
use crate::store::StoreError;
use crate::store::journal::Journal as _;
use crate::store::journal::JournalError;
use crate::store::journal::conformance::batch;
use crate::store::journal::conformance::read;
use crate::store::ledger::Changes;
use crate::store::ledger::Ledger as _;
use crate::store::ledger::Target;
use crate::store::redis::Link;
use crate::store::redis::State;
use crate::store::redis::Times;
use crate::store::redis::route;
use crate::store::state::State as _;

fn said(journal: &crate::store::redis::Journal) -> Vec<i64> {
    read(journal).into_iter().map(|(_, said)| said).collect()
}

fn changes(value: &str) -> Changes {
    let namespace = crate::model::Namespace::new("user_id").unwrap();
    let adds = vec![crate::model::Identifier::new(namespace, value).unwrap()];
    Changes { adds, removes: Vec::new() }
}

#[test]
fn a_call_whose_answer_is_lost_takes_effect_once() {
    let proxy = Proxy::before(shared_server().port);
    let link = Link::open(&proxy.url(), times()).unwrap();
    let keys = fresh_keys();
    let losing = |name, act: &mut dyn FnMut()| {
        let before = proxy.lost();
        proxy.lose(name);
        act();
        assert_eq!(proxy.lost(), before + 1, "{name}");
    };
    let mut owned = None;
    losing("_acquire", &mut || owned = Some(own(&link, &keys, "a")));
    let (store, lane) = owned.unwrap();
    assert_eq!(lane.epoch(), 1);
    let state = State::new(store, lane.clone());
    for number in 1..=3 {
        losing("_commit", &mut || state.commit(&commit(number)).unwrap());
    }
    assert_eq!(lane.changes(), 3);
    assert_eq!(deltas(&state), [1, 2, 3]);
    let journal = journal(&link, &keys);
    for number in 0..3 {
        losing("_append", &mut || _ = journal.append(&batch([number])).unwrap());
    }
    assert_eq!(said(&journal), [0, 1, 2]);
    losing("_release", &mut || journal.release(journal.end()).unwrap());
    assert_eq!(journal.balance().unwrap().missing(), 0);
    let ledger = ledger(&link, &keys);
    let target = Target::new("crm", "buyers");
    let mut made = None;
    losing("_prepare", &mut || {
        made = Some(ledger.prepare(&target, 1, 0, changes("x"), 0).unwrap())
    });
    let made = made.unwrap();
    assert_eq!(ledger.prepared(&target).unwrap(), std::slice::from_ref(&made));
    losing("_note", &mut || ledger.failed(&made, "no").unwrap());
    losing("_settle", &mut || ledger.acknowledge(&made, 1).unwrap());
    let deliveries = ledger.deliveries("crm", 9).unwrap();
    assert_eq!((deliveries.len(), deliveries[0].failures), (1, 1));
    assert_eq!(ledger.standings().unwrap()[0].held, 1);
}

#[test]
fn a_commit_given_up_with_its_answer_lost_is_known_by_the_next() {
    let proxy = Proxy::before(shared_server().port);
    let link = impatient(&proxy.url());
    let state = state(&link, &fresh_keys(), "a");
    state.commit(&commit(1)).unwrap();
    // An owner who gives up has to be told whether it counted.
    let hasty = Times { patience: Duration::ZERO, ..times() };
    let (store, lane) = (state.store.clone(), state.lane.clone());
    let hasty = lane.through(Link::open(&proxy.url(), hasty).unwrap());
    let hasty = State::new(store, Arc::new(hasty));
    proxy.lose("_commit");
    assert!(matches!(hasty.commit(&commit(2)), Err(StoreError::Unavailable { .. })));
    assert_eq!(hasty.load().unwrap().checkpoint.commit, 2);
    hasty.commit(&commit(2)).unwrap();
    hasty.commit(&commit(3)).unwrap();
    assert_eq!(deltas(&hasty), [1, 2, 3]);
}

#[test]
fn what_redis_has_kept_outlives_its_crash() {
    let server = Server::start(&["--appendfsync", "always"]);
    let link = Link::open(&server.url(), times()).unwrap();
    let keys = fresh_keys();
    let state = state(&link, &keys, "a");
    let journal = journal(&link, &keys);
    for number in 0_i64..3 {
        state.commit(&commit(number.cast_unsigned() + 1)).unwrap();
        journal.append(&batch([number])).unwrap();
        server.restart();
    }
    assert_eq!(deltas(&state), [1, 2, 3]);
    assert_eq!(said(&journal), [0, 1, 2]);
}

#[test]
fn a_server_that_stood_still_does_nothing_twice() {
    let server = Server::start(&[]);
    let proxy = Proxy::before(server.port);
    let short = Duration::from_millis(300);
    let link =
        Link::open(&proxy.url(), Times { connect: short, response: short, ..times() }).unwrap();
    let keys = fresh_keys();
    let state = state(&link, &keys, "a");
    let journal = journal(&link, &keys);
    let ledger = ledger(&link, &keys);
    let target = Target::new("crm", "buyers");
    let made = ledger.prepare(&target, 1, 0, changes("x"), 0).unwrap();
    server.freeze(true);
    let before = proxy.connections();
    std::thread::scope(|scope| {
        scope.spawn(|| state.commit(&commit(1)).unwrap());
        scope.spawn(|| journal.append(&batch([7])).unwrap());
        scope.spawn(|| ledger.acknowledge(&made, 1).unwrap());
        until("each has given up on an answer and tried again", || {
            proxy.connections() >= before + 6
        });
        server.freeze(false);
    });
    assert_eq!(deltas(&state), [1]);
    assert_eq!(state.lane.changes(), 1);
    assert_eq!(said(&journal), [7]);
    assert_eq!(ledger.standings().unwrap()[0].held, 1);
    assert_eq!(journal.balance().unwrap().added, 1);
}

#[test]
fn functions_that_a_server_forgot_are_loaded_again() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let state = state(&link, &keys, "a");
        let journal = journal(&link, &keys);
        for number in 0_i64..3 {
            shared_server().cli(&["function", "flush"]);
            for node in &shared_cluster().nodes {
                node.cli(&["function", "flush"]);
            }
            state.commit(&commit(number.cast_unsigned() + 1)).unwrap();
            journal.append(&batch([number])).unwrap();
        }
        assert_eq!(deltas(&state), [1, 2, 3], "{name}");
        assert_eq!(said(&journal), [0, 1, 2]);
    }
}

#[test]
fn a_server_without_memory_refuses_and_goes_on_when_there_is_some() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let link = impatient(&server.url());
    let keys = fresh_keys();
    let state = state(&link, &keys, "a");
    let journal = journal(&link, &keys);
    state.commit(&commit(1)).unwrap();
    let end = journal.append(&batch([0])).unwrap().end;
    assert_eq!(journal.trouble(), None);
    server.cli(&["config", "set", "maxmemory", "1"]);
    assert!(matches!(state.commit(&commit(2)), Err(StoreError::Full { .. })));
    assert!(matches!(journal.append(&batch([1])), Err(JournalError::NoRoom(_))));
    assert!(journal.trouble().unwrap().contains("has no room left"));
    // What is there can be read, held on to, and given up.
    state.lane.renew(super::TTL).unwrap();
    journal.release(end).unwrap();
    assert_eq!((journal.begin(), deltas(&state)), (end, vec![1]));
    server.cli(&["config", "set", "maxmemory", "0"]);
    assert_eq!(journal.trouble(), None);
    state.commit(&commit(2)).unwrap();
    journal.append(&batch([2])).unwrap();
    assert_eq!(deltas(&state), [1, 2]);
    assert_eq!(said(&journal), [2]);
}

#[test]
fn a_call_goes_on_while_others_forget_where_keys_lie() {
    let link = Link::open(&shared_server().url(), times()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (forgetful, done) = (link.clone(), over.clone());
    let forgetting = std::thread::spawn(move || {
        while !done.load(Ordering::SeqCst) {
            forgetful.nodes.forget();
        }
    });
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut cmd = redis::cmd("EXISTS");
        send.send(link.one("x", cmd.arg("x").clone()).is_ok()).unwrap();
    });
    // A thread that waits for itself would never come back.
    assert_eq!(receive.recv_timeout(super::server::PATIENCE * 2), Ok(true));
    over.store(true, Ordering::SeqCst);
    forgetting.join().unwrap();
}

/// A cluster whose nodes change, for one test at a time.
pub(super) fn changing_cluster() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    CLUSTER.get_or_init(|| Mutex::new(Cluster::start())).lock()
}

/// Commits and appends until `change` has changed the cluster, and some more; everything is there, once.
fn goes_on_through(cluster: &Cluster, change: impl FnOnce(u16)) {
    let link = Link::open(&cluster.url(), times()).unwrap();
    let keys = fresh_keys();
    let state = state(&link, &keys, "a");
    let journal = journal(&link, &keys);
    let over = AtomicBool::new(false);
    let (commits, appends) = std::thread::scope(|scope| {
        let go_on = |act: &dyn Fn(u64)| {
            let mut done = 0;
            let mut last = false;
            while !last {
                last = over.load(Ordering::SeqCst) && done >= 5;
                done += 1;
                act(done);
            }
            done
        };
        let commits = scope.spawn({
            let state = &state;
            move || go_on(&|number| state.commit(&commit(number)).unwrap())
        });
        let appends = scope.spawn({
            let journal = &journal;
            move || go_on(&|n| _ = journal.append(&batch([n.cast_signed()])).unwrap())
        });
        until("both have begun", || state.lane.changes() > 3 && journal.next_record() > 3);
        change(route::slot(&keys.lane("000", "lane")));
        over.store(true, Ordering::SeqCst);
        (commits.join().unwrap(), appends.join().unwrap())
    });
    assert_eq!(deltas(&state), (1..=commits).collect::<Vec<_>>());
    assert_eq!(said(&journal), (1..=appends.cast_signed()).collect::<Vec<_>>());
    assert_eq!(journal.balance().unwrap().missing(), 0);
    assert_eq!(journal.lost(), 0);
}

/// The node that holds a slot, by its place, and the ids of all nodes.
fn holder(cluster: &Cluster, slot: u16) -> (usize, Vec<String>) {
    let ids: Vec<_> =
        cluster.nodes.iter().map(|node| node.cli(&["cluster", "myid"]).trim().to_owned()).collect();
    let at = cluster.nodes.iter().position(|node| {
        let keys = node.cli(&["cluster", "nodes"]);
        let mine = keys.lines().find(|line| line.contains("myself,master")).unwrap_or_default();
        mine.split(' ')
            .skip(8)
            .filter_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
            })
            .any(|(first, last)| (first..=last).contains(&slot))
    });
    (at.unwrap(), ids)
}

/// Moves a slot to another node, some keys at a time, so that calls find some here and some there.
pub(super) fn move_slot(cluster: &Cluster, slot: u16) {
    let (from, ids) = holder(cluster, slot);
    let masters: Vec<_> = (0..6)
        .filter(|at| cluster.nodes[*at].cli(&["info", "replication"]).contains("role:master"))
        .collect();
    let to = *masters.iter().find(|at| **at != from).unwrap();
    let slot = slot.to_string();
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let set = |node: &Server, args: &[&str]| {
        let said = node.cli(&[&["cluster", "setslot", &slot], args].concat());
        assert!(said.contains("OK"), "{said}");
    };
    set(target, &["importing", &ids[from]]);
    set(source, &["migrating", &ids[to]]);
    let port = target.port.to_string();
    loop {
        let found = source.cli(&["cluster", "getkeysinslot", &slot, "8"]);
        let found: Vec<_> = found.split_whitespace().collect();
        if found.is_empty() {
            break;
        }
        let migrate = ["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"];
        source.cli(&[&migrate[..], &found].concat());
    }
    set(target, &["node", &ids[to]]);
    set(source, &["node", &ids[to]]);
}

/// Has a replica take over from the node that holds a slot.
pub(super) fn fail_over(cluster: &Cluster, slot: u16) {
    let (from, ids) = holder(cluster, slot);
    let nodes = cluster.nodes[from].cli(&["cluster", "nodes"]);
    let replica = nodes
        .lines()
        .find(|line| line.contains("slave") && line.contains(&ids[from]))
        .and_then(|line| line.split(' ').next())
        .unwrap();
    let at = ids.iter().position(|id| id == replica).unwrap();
    let said = cluster.nodes[at].cli(&["cluster", "failover"]);
    assert!(said.contains("OK"), "{said}");
    until("the replica is the primary", || holder(cluster, slot).0 == at);
}

#[test]
fn a_lane_goes_on_while_its_slot_moves_to_another_node() {
    let cluster = changing_cluster();
    goes_on_through(&cluster, |slot| move_slot(&cluster, slot));
}

#[test]
fn a_lane_goes_on_while_a_replica_takes_over() {
    let cluster = changing_cluster();
    goes_on_through(&cluster, |slot| fail_over(&cluster, slot));
}
