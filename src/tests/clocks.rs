//! Clocks that jump, forward and back, on nodes that share a store: T neither jumps nor stands still for long, leases
//! do not notice, and what was acknowledged counts.

use serde_json::Value;
use serde_json::json;
use std::path::Path;
use std::path::PathBuf;

use crate::harness::Server;
use crate::redis_server;

const DAY: f64 = 86_400.0;

/// A clock that a test sets, as the system's own is set.
pub(super) struct Clock(tempfile::TempDir);

impl Clock {
    pub(super) fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set("+0");
        clock
    }

    /// Sets it so far off the right time.
    pub(super) fn set(&self, by: &str) {
        let (next, path) = (self.0.path().join("next"), self.path());
        std::fs::write(&next, by).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
        let library = |folder: PathBuf| folder.join("faketime/libfaketimeMT.so.1");
        let library = folders.by_ref().map(library).find(|library: &PathBuf| Path::exists(library));
        let library = library.expect("Debian's faketime is installed");
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.path().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            // What is waited for and how long is no matter of the time of day.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}

/// A collector and a worker whose clocks can be set, and one of each that are right.
struct Town {
    clocks: [Clock; 2],
    collectors: [Server; 2],
    workers: [Server; 2],
    posted: std::cell::Cell<u32>,
    _archive: tempfile::TempDir,
    _redis: redis_server::Server,
}

impl Town {
    fn new() -> Self {
        let redis = redis_server::Server::start(&[]);
        let archive = tempfile::tempdir().unwrap();
        let settings = format!(
            "[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 8\nlanes = 4\n\
             [archive]\npath = \"{}\"\nfile_age = \"1s\"\n",
            redis.url(),
            archive.path().display()
        );
        let clocks = [Clock::new(), Clock::new()];
        let start = |role: &str, environment: &[(&'static str, String)]| {
            Server::start_in(&[], &settings, &["--role", role], environment)
        };
        let collectors = [start("collect", &clocks[0].environment()), start("collect", &[])];
        let workers = [start("work", &clocks[1].environment()), start("work", &[])];
        let posted = std::cell::Cell::new(0);
        let town = Self { clocks, collectors, workers, posted, _archive: archive, _redis: redis };
        town.workers[1].until("the lanes are shared", || {
            town.workers.iter().all(|worker| worker.metric("throng_lanes_held") == 2.0)
        });
        town
    }

    /// Posts events that happened now, to both.
    fn post(&self) {
        let now = throng::net::Clock::now(&throng::net::SystemClock::default());
        for collector in &self.collectors {
            let first = self.posted.get();
            let one = |user: u32| {
                json!({ "site": "t", "event": "purchase", "time": now,
                        "ids": { "user_id": format!("u{user}") } })
            };
            let answer =
                collector.post_events(&Value::Array((first..first + 5).map(one).collect()));
            assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(5)), "{answer:?}");
            self.posted.set(first + 5);
        }
    }

    /// Whether a node that has the right time knows all that was posted, and T is not ahead of it.
    fn all_count(&self, when: &str) {
        let right = &self.workers[1];
        right.until(&format!("{when}: a question is answered"), || {
            right.throng(&["eval", "everyone"]).status.success()
        });
        assert_eq!(right.count("did purchase in 1h"), u64::from(self.posted.get()), "{when}");
        let age = right.metric("throng_cluster_t_age_seconds");
        assert!((0.0..10.0).contains(&age), "{when}: T is {age} s old");
        let lost: f64 =
            self.workers.iter().map(|worker| worker.metric("throng_lanes_lost_total")).sum();
        assert_eq!(lost, 0.0, "{when}");
    }
}

#[test]
fn the_clock_of_a_collector_is_a_day_ahead_and_t_waits_until_it_begins_anew_by_the_right_one() {
    let mut town = Town::new();
    town.post();
    town.all_count("before");
    town.clocks[0].set("+1d");
    let right = &town.collectors[1];
    right.until("it is noticed", || {
        (right.metric("throng_cluster_clock_spread_seconds") - DAY).abs() < 60.0
    });
    town.post();
    let said = right.throng(&["doctor", "--config", "throng.toml"]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.code() == Some(1) && text.contains("clocks"), "{text}");
    assert!(right.metric("throng_cluster_t_age_seconds") >= 0.0);
    // It does not go back while it runs; who stops in good order has shipped everything and is not waited for.
    town.clocks[0].set("+0");
    assert!(town.collectors[0].stop());
    town.collectors[0].run();
    town.post();
    town.all_count("it is set right again");
}

#[test]
fn the_clock_of_a_collector_is_a_day_behind_and_t_waits_until_it_is_set_right() {
    let town = Town::new();
    town.post();
    town.all_count("before");
    town.clocks[0].set("-1d");
    let behind = || town.collectors[0].metric("throng_cluster_t_age_seconds");
    // Its times stand still, and so does T: nothing is told that is not so. What is posted is kept.
    town.post();
    town.collectors[0].until("it is told", || {
        let said = town.collectors[0].throng(&["doctor", "--config", "throng.toml"]);
        String::from_utf8_lossy(&said.stdout).contains("clock") && said.status.code() == Some(1)
    });
    assert!(behind() >= 0.0);
    town.clocks[0].set("+0");
    town.post();
    town.all_count("it is set right again");
}

#[test]
fn the_clock_of_a_worker_is_a_day_off_and_nobody_else_notices() {
    let town = Town::new();
    town.post();
    for by in ["+1d", "-1d", "+0"] {
        town.clocks[1].set(by);
        town.post();
        town.all_count(by);
    }
}
