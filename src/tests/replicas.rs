//! `redis-replicated(1)`: nothing is acknowledged before a replica has it, and what was survives the primary.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::outages::Site;
use crate::redis_server;
use crate::redis_server::until;

/// Posts once more, and sees that it is not answered before `mend` has been.
fn waits_for(site: &Site, mend: impl FnOnce()) {
    let (answered, mended) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !site.post() {
                assert!(mended.load(Ordering::SeqCst) || !answered.load(Ordering::SeqCst));
                std::thread::sleep(Duration::from_millis(50));
            }
            answered.store(true, Ordering::SeqCst);
        });
        // Longer than WAIT waits in one call.
        std::thread::sleep(Duration::from_millis(1_500));
        assert!(!answered.load(Ordering::SeqCst), "no replica has it");
        mended.store(true, Ordering::SeqCst);
        mend();
        until("it is acknowledged", || answered.load(Ordering::SeqCst));
    });
}

#[test]
fn nothing_is_acknowledged_while_the_replica_is_frozen_or_gone() {
    let primary = redis_server::Server::start(&["--min-replicas-to-write", "1"]);
    let of = format!("127.0.0.1 {}", primary.port);
    let replica = redis_server::Server::start(&["--replicaof", &of]);
    let is_up = || primary.cli(&["info", "replication"]).contains("state=online");
    until("the replica follows", is_up);
    let site = Site::new("redis", &primary.url(), "redis-replicated(1)");
    replica.freeze(true);
    waits_for(&site, || replica.freeze(false));
    site.all_count("the replica was frozen");
    replica.kill();
    waits_for(&site, || replica.restart());
    site.all_count("the replica was killed");
    assert_eq!(site.collector.metric("throng_journal_lost_bytes_total"), 0.0);
}

#[test]
fn what_a_replica_has_survives_the_primary() {
    let cluster = redis_server::Cluster::start();
    let primary = |node: &&redis_server::Server| node.cli(&["role"]).starts_with("master");
    for node in &cluster.nodes {
        node.cli(&["config", "set", "min-replicas-to-write", "1"]);
    }
    let site = Site::new("redis-cluster", &cluster.url(), "redis-replicated(1)");
    let dies = cluster.nodes.iter().find(primary).unwrap();
    let follows = format!("master_port:{}\r", dies.port);
    let replica = cluster.nodes.iter().find(|n| n.cli(&["info", "replication"]).contains(&follows));
    let replica = replica.unwrap();
    site.during(|| {
        dies.kill();
        until("the replica takes over", || replica.cli(&["role"]).starts_with("master"));
        // With the settings that it was started with, and then as the others.
        dies.restart();
        dies.cli(&["config", "set", "min-replicas-to-write", "1"]);
    });
    site.all_count("the primary was killed");
    assert_eq!(site.collector.metric("throng_journal_lost_bytes_total"), 0.0);
}
