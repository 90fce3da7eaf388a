//! Redis is killed, frozen, moved, emptied of its functions and out of memory while events come in: what was
//! acknowledged counts, once.

use serde_json::Value;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::Server;
use crate::redis_server;

/// A collector and a worker on some Redis.
struct Site {
    collector: Server,
    worker: Server,
    next: AtomicU32,
    acknowledged: AtomicU32,
    _archive: tempfile::TempDir,
}

impl Site {
    fn new(backend: &str, url: &str, durability: &str) -> Self {
        let archive = tempfile::tempdir().unwrap();
        let settings = format!(
            "[journal]\ndurability = \"{durability}\"\n\
             [store]\nbackend = \"{backend}\"\nurl = \"{url}\"\nshards = 8\nlanes = 4\n\
             [archive]\npath = \"{}\"\nfile_age = \"1s\"\n",
            archive.path().display()
        );
        let segments = [("buyers", "rule = 'did purchase'")];
        let site = Self {
            collector: Server::start_with(&segments, &settings, &["--role", "collect"]),
            worker: Server::start_with(&segments, &settings, &["--role", "work"]),
            next: AtomicU32::new(0),
            acknowledged: AtomicU32::new(0),
            _archive: archive,
        };
        site.post();
        site.all_count("at the start");
        site
    }

    /// Posts some events of people that nobody knew; tells whether they were acknowledged.
    fn post(&self) -> bool {
        const SOME: u32 = 10;
        let first = self.next.fetch_add(SOME, Ordering::Relaxed);
        let one = |user: u32| json!({ "site": "t", "event": "purchase", "ids": { "user_id": format!("u{user}") } });
        let events = Value::Array((first..first + SOME).map(one).collect());
        let accepted = self.collector.post_events(&events).status == 200;
        if accepted {
            self.acknowledged.fetch_add(SOME, Ordering::Relaxed);
        }
        accepted
    }

    /// Posts while something is done, and until events are acknowledged again after it.
    fn during(&self, fault: impl FnOnce()) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    self.post();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            fault();
            over.store(true, Ordering::Release);
        });
        self.collector.until("events are acknowledged again", || self.post());
    }

    /// Waits until all that was acknowledged counts; nobody counts twice, and nobody who was never sent.
    fn all_count(&self, after: &str) {
        let number = |rule: &str| -> Option<u64> {
            let output = self.worker.throng(&["eval", rule]);
            output.status.success().then(|| {
                String::from_utf8_lossy(&output.stdout).trim().parse().expect("it is a number")
            })
        };
        let mut found = None;
        self.worker.until(&format!("{after}: a node answers"), || {
            found = number("did purchase");
            found.is_some()
        });
        let (acknowledged, sent) =
            (self.acknowledged.load(Ordering::Relaxed), self.next.load(Ordering::Relaxed));
        let found = found.unwrap();
        assert!(
            (u64::from(acknowledged)..=u64::from(sent)).contains(&found),
            "{after}: {found} of {acknowledged} acknowledged and {sent} sent"
        );
        assert_eq!(number("count purchase >= 2"), Some(0), "{after}");
    }
}

#[test]
fn a_server_that_is_killed_frozen_emptied_or_full_loses_nothing_that_was_acknowledged() {
    for durability in ["disk", "redis-everysec"] {
        let redis = redis_server::Server::start(&[]);
        let site = Site::new("redis", &redis.url(), durability);
        site.during(|| redis.restart());
        site.all_count(&format!("{durability}: killed and started again"));
        site.during(|| {
            redis.freeze(true);
            std::thread::sleep(Duration::from_secs(4));
            redis.freeze(false);
        });
        site.all_count(&format!("{durability}: frozen for longer than an answer may take"));
        site.during(|| {
            redis.cli(&["function", "flush"]);
        });
        site.all_count(&format!("{durability}: without its functions"));
        site.during(|| {
            redis.cli(&["config", "set", "maxmemory", "1mb"]);
            std::thread::sleep(Duration::from_secs(1));
            redis.cli(&["config", "set", "maxmemory", "0"]);
        });
        site.all_count(&format!("{durability}: out of memory"));
    }
}

#[test]
fn a_collector_and_a_worker_that_are_killed_lose_nothing_that_was_acknowledged() {
    let redis = redis_server::Server::start(&[]);
    let mut site = Site::new("redis", &redis.url(), "disk");
    // What is acknowledged while Redis is away lies on the collector's disk alone.
    redis.freeze(true);
    assert!(site.post() && site.post());
    site.collector.kill();
    redis.freeze(false);
    site.collector.run();
    assert!(site.post());
    site.all_count("the collector was killed with events on its disk");
    site.during(|| {});
    site.worker.kill();
    assert!(site.post());
    site.worker.run();
    site.all_count("the worker was killed");
}

#[test]
fn a_cluster_that_fails_over_and_moves_slots_loses_nothing_that_was_acknowledged() {
    let cluster = redis_server::Cluster::start();
    let site = Site::new("redis-cluster", &cluster.url(), "disk");
    let replica = |at: usize| {
        cluster.nodes.iter().filter(|n| n.cli(&["role"]).starts_with("slave")).nth(at).unwrap()
    };
    site.during(|| {
        let promoted = replica(0);
        promoted.cli(&["cluster", "failover"]);
        redis_server::until("the replica leads", || promoted.cli(&["role"]).starts_with("master"));
    });
    site.all_count("after a failover");
    site.during(|| {
        // Every slot that holds something goes to another primary, one by one.
        let primaries: Vec<_> =
            cluster.nodes.iter().filter(|node| node.cli(&["role"]).starts_with("master")).collect();
        let (from, to) = (primaries[0], primaries[1]);
        let id = |node: &redis_server::Server| node.cli(&["cluster", "myid"]).trim().to_owned();
        let (source, target) = (id(from), id(to));
        let keys = from.cli(&["--scan"]);
        let tags: BTreeSet<&str> =
            keys.lines().filter_map(|key| key.split_inclusive('}').next()).collect();
        assert!(!tags.is_empty());
        for tag in tags {
            let slot = from.cli(&["cluster", "keyslot", tag]).trim().to_owned();
            to.cli(&["cluster", "setslot", &slot, "importing", &source]);
            from.cli(&["cluster", "setslot", &slot, "migrating", &target]);
            loop {
                let keys = from.cli(&["cluster", "getkeysinslot", &slot, "20"]);
                let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
                if keys.is_empty() {
                    break;
                }
                let port = to.port.to_string();
                let head = ["migrate", "127.0.0.1", &port, "", "0", "5000", "replace", "keys"];
                from.cli(&head.into_iter().chain(keys).collect::<Vec<_>>());
            }
            for node in &primaries {
                node.cli(&["cluster", "setslot", &slot, "node", &target]);
            }
        }
    });
    site.all_count("after slots moved");
}
