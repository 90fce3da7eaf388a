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
pub(super) struct Site {
    pub(super) collector: Server,
    pub(super) worker: Server,
    pub(super) next: AtomicU32,
    pub(super) acknowledged: AtomicU32,
    _archive: tempfile::TempDir,
}

/// So many events are posted at once.
pub(super) const SOME: u32 = 10;

impl Site {
    pub(super) fn new(backend: &str, url: &str, durability: &str) -> Self {
        Self::by(backend, [url, url], durability, &[&[]; 2])
    }

    /// The collector reaches Redis under one address and the worker under another, each in an environment.
    pub(super) fn by(
        backend: &str,
        urls: [&str; 2],
        durability: &str,
        environment: &[&[(&'static str, String)]; 2],
    ) -> Self {
        let archive = tempfile::tempdir().unwrap();
        let settings = |url: &str| {
            format!(
                "[journal]\ndurability = \"{durability}\"\n\
                 [store]\nbackend = \"{backend}\"\nurl = \"{url}\"\nshards = 8\nlanes = 4\n\
                 [archive]\npath = \"{}\"\nfile_age = \"1s\"\n",
                archive.path().display()
            )
        };
        let start = |role: &'static str, at: usize| {
            let segments = [("buyers", "rule = 'did purchase'")];
            let arguments = ["--role", role];
            Server::start_in(&segments, &settings(urls[at]), &arguments, environment[at])
        };
        let site = Self {
            collector: start("collect", 0),
            worker: start("work", 1),
            next: AtomicU32::new(0),
            acknowledged: AtomicU32::new(0),
            _archive: archive,
        };
        site.post();
        site.all_count("at the start");
        site
    }

    /// Posts some events of people that nobody knew; tells whether they were acknowledged.
    pub(super) fn post(&self) -> bool {
        let first = self.next.fetch_add(SOME, Ordering::Relaxed);
        // One in two has no message id, which would hide that it came twice.
        let accepted = self.post_those(first, |user| user % 2 == 0);
        if accepted {
            self.acknowledged.fetch_add(SOME, Ordering::Relaxed);
        }
        accepted
    }

    /// Posts some events from a number on, with message ids where wanted; tells whether they were acknowledged.
    pub(super) fn post_those(&self, first: u32, has_id: impl Fn(u32) -> bool) -> bool {
        let one = |user: u32| {
            let ids = json!({ "user_id": format!("u{user}") });
            let mut event = json!({ "site": "t", "event": "purchase", "ids": ids });
            if has_id(user) {
                event["message_id"] = json!(format!("m{user}"));
            }
            event
        };
        let events = Value::Array((first..first + SOME).map(one).collect());
        self.collector.post_events(&events).status == 200
    }

    /// Posts while something is done, and until events are acknowledged again after it.
    pub(super) fn during(&self, fault: impl FnOnce()) {
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
    pub(super) fn all_count(&self, after: &str) {
        let found = self.count(after);
        let (acknowledged, sent) =
            (self.acknowledged.load(Ordering::Relaxed), self.next.load(Ordering::Relaxed));
        assert!(
            (u64::from(acknowledged)..=u64::from(sent)).contains(&found),
            "{after}: {found} of {acknowledged} acknowledged and {sent} sent"
        );
    }

    /// How many people have an event; none has two, and the books balance.
    pub(super) fn count(&self, after: &str) -> u64 {
        let found = self.number("did purchase", after);
        assert_eq!(self.number("count purchase >= 2", after), 0, "{after}");
        assert_eq!(self.worker.metric("throng_journal_imbalance"), 0.0, "{after}");
        found
    }

    /// How many a rule holds, once a node answers.
    pub(super) fn number(&self, rule: &str, after: &str) -> u64 {
        let mut found = None;
        self.worker.until(&format!("{after}: a node answers"), || {
            let output = self.worker.throng(&["eval", rule]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            found = output.status.success().then(|| text.trim().parse().expect("it is a number"));
            found.is_some()
        });
        found.unwrap()
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
