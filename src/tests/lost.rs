//! Redis comes back without the end of what it had acknowledged: a power cut before it synced, a failover to a replica
//! that was behind. What a collector still has on its disk is not lost; what only Redis had is, and that is told.

use std::sync::atomic::Ordering;

use crate::outages::SOME;
use crate::outages::Site;
use crate::redis_server;

const MODES: [&str; 2] = ["disk", "redis-everysec"];

fn lost(site: &Site) -> f64 {
    site.collector.metric("throng_journal_lost_bytes_total")
}

#[test]
fn what_redis_forgets_is_shipped_again_or_told_and_the_books_balance() {
    for durability in MODES {
        let redis = redis_server::Server::start(&["--appendfsync", "always"]);
        let site = Site::new("redis", &redis.url(), durability);
        let shipped = || site.collector.metric("throng_spool_bytes") == 0.0;
        assert!(site.post() && site.post());
        site.all_count("before");
        site.collector.until("all is shipped", shipped);
        let kept = redis.kept();
        let first = site.next.fetch_add(FORGOTTEN, Ordering::Relaxed);
        let blocks = || (first..first + FORGOTTEN).step_by(SOME as usize);
        blocks().for_each(|first| assert!(site.post_those(first, |_| true)));
        site.acknowledged.fetch_add(FORGOTTEN, Ordering::Relaxed);
        // The worker has folded and committed it, and what it knows is ahead of what comes back.
        site.all_count("before it is forgotten");
        site.collector.until("all is shipped", shipped);
        redis.take_back(kept);
        site.collector.until("events are acknowledged again", || site.post());
        if durability == "disk" {
            // Nothing that was acknowledged is missing.
            is_shipped_again(&site);
            site.all_count("disk: what Redis forgot was shipped again");
            assert_eq!(lost(&site), 0.0);
            continue;
        }
        is_told(&site);
        // Who sends it again is heard, also under the same message ids.
        blocks().for_each(|first| assert!(site.post_those(first, |_| true)));
        site.all_count("what was forgotten was sent again");
    }
}

const FORGOTTEN: u32 = 20 * SOME;

/// Waits until the collector has noticed, and all is in the lanes again. Before, a worker may know what is gone.
fn is_shipped_again(site: &Site) {
    site.collector.until("it is shipped again", || {
        site.collector.log().contains("it is shipped again")
            && site.collector.metric("throng_spool_bytes") == 0.0
    });
}

/// Waits until what is lost is told. What a collector had still in memory is not lost; and no more is than came in
/// between.
fn is_told(site: &Site) {
    let acknowledged = || u64::from(site.acknowledged.load(Ordering::Relaxed));
    let mut found = 0;
    site.collector.until("it is told", || {
        let posted = site.post();
        found = site.number("did purchase", "some of it is gone");
        posted && (lost(site) > 0.0 || found >= acknowledged())
    });
    // The last posts may still be on their way to a worker that takes its lanes up again.
    site.collector.until("no more is gone than came in between", || {
        found = site.number("did purchase", "some of it is gone");
        found + u64::from(FORGOTTEN) >= acknowledged()
    });
    assert_eq!(lost(site) > 0.0, site.collector.log().contains("is lost"));
}

/// The primary of a lane and its replica.
fn pair(cluster: &redis_server::Cluster) -> [&redis_server::Server; 2] {
    let nodes = &cluster.nodes;
    let has = |node: &&redis_server::Server| node.cli(&["exists", "throng:{00}:ev"]).trim() == "1";
    let primary = nodes.iter().find(has).unwrap();
    let follows = format!("master_port:{}\r", primary.port);
    let is_its =
        |node: &&redis_server::Server| node.cli(&["info", "replication"]).contains(&follows);
    [primary, nodes.iter().find(is_its).unwrap()]
}

#[test]
fn a_replica_that_was_behind_takes_over_and_what_it_lacks_is_shipped_or_may_be_sent_again() {
    for durability in MODES {
        let cluster = redis_server::Cluster::start();
        let site = Site::new("redis-cluster", &cluster.url(), durability);
        (0..5).for_each(|_| assert!(site.post()));
        site.all_count("before");
        let shipped = || site.collector.metric("throng_spool_bytes") == 0.0;
        site.collector.until("all is shipped", shipped);
        let [primary, replica] = pair(&cluster);
        redis_server::until("the replica has all", || {
            let offset = |node: &redis_server::Server, of: &str| {
                let info = node.cli(&["info", "replication"]);
                info.lines().find_map(|line| line.strip_prefix(of)).map(str::to_owned)
            };
            offset(primary, "master_repl_offset:") == offset(replica, "slave_repl_offset:")
        });
        // It gets nothing more.
        primary.cli(&["acl", "setuser", "default", "-psync", "-sync"]);
        primary.cli(&["client", "kill", "type", "replica"]);
        redis_server::until("the replica is cut off", || {
            primary.cli(&["info", "replication"]).contains("connected_slaves:0")
        });
        let first = site.next.fetch_add(FORGOTTEN, Ordering::Relaxed);
        let blocks = || (first..first + FORGOTTEN).step_by(SOME as usize);
        blocks().for_each(|first| assert!(site.post_those(first, |_| true)));
        site.acknowledged.fetch_add(FORGOTTEN, Ordering::Relaxed);
        site.all_count("before the failover");
        site.collector.until("all is shipped", shipped);
        replica.cli(&["cluster", "failover", "takeover"]);
        redis_server::until("the old primary follows", || {
            replica.cli(&["role"]).starts_with("master")
                && primary.cli(&["role"]).starts_with("slave")
        });
        if durability == "disk" {
            is_shipped_again(&site);
            site.all_count("disk: what the replica lacked was shipped again");
            assert_eq!(lost(&site), 0.0);
            continue;
        }
        is_told(&site);
        // The claims of what was lost lie on other nodes, and were not.
        blocks().for_each(|first| assert!(site.post_those(first, |_| true)));
        let after = "what was lost was sent again";
        let found = site.number("did purchase", after);
        let acknowledged = site.acknowledged.load(Ordering::Relaxed);
        assert!(found >= u64::from(acknowledged), "{found} of {acknowledged}");
        // Of those that were not lost some have lost their claims, which lay on that node.
        assert!(site.number("count purchase >= 2", after) <= u64::from(FORGOTTEN));
        assert_eq!(site.number("count purchase >= 3", after), 0);
        assert_eq!(site.worker.metric("throng_journal_imbalance"), 0.0);
    }
}
