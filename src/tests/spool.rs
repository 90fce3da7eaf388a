//! A collector while Redis is away: it answers from its own disk until that is full, and says what of it is.

use serde_json::Value;
use serde_json::json;
use std::fs;

use crate::disk::SmallDisk;
use crate::harness::Answer;
use crate::harness::Server;
use crate::harness::get;
use crate::outages::Site;
use crate::redis_server;

/// A Redis, and a node on it that does everything and has its data where the test says.
fn start(settings: &str, arguments: &[&str]) -> (redis_server::Server, Server) {
    let redis = redis_server::Server::start(&[]);
    let settings = format!(
        "{settings}[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 8\nlanes = 4\n",
        redis.url()
    );
    let server = Server::start_with(&[], &settings, arguments);
    (redis, server)
}

fn post(server: &Server, users: std::ops::Range<usize>) -> Answer {
    let one = |user: usize| {
        json!({ "site": "t", "event": "purchase", "ids": { "user_id": format!("u{user}") },
                "props": { "note": "x".repeat(2_000) } })
    };
    server.post_events(&Value::Array(users.map(one).collect()))
}

/// Fills the spool, and tells how many events it took, and how it refused the next.
fn fill(server: &Server) -> (usize, Answer) {
    const SOME: usize = 40;
    for first in (0..20_000).step_by(SOME) {
        let answer = post(server, first..first + SOME);
        if answer.status != 200 {
            return (first, answer);
        }
    }
    panic!("it takes more than it may");
}

fn is_refused_for(server: &Server, answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("Retry-After"));
    let ready = get(&format!("{}/readyz", server.console()), &[]);
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains(what), "{ready:?}");
    assert!(server.log().contains(what), "{}", server.log());
    assert_eq!(get(&format!("{}/livez", server.console()), &[]).status, 200);
    let hit = format!("{}/pixel.gif?s=t&id.user_id=p&p.note={}", server.collect(), "x".repeat(500));
    server.until("a hit is dropped, and still answered with the image", || {
        // A hit is smaller than what was refused; some may still fit.
        for _ in 0..20 {
            let pixel = get(&hit, &[]);
            assert_eq!((pixel.status, pixel.body.starts_with("GIF89a")), (200, true));
        }
        let metrics = get(&format!("{}/metrics", server.console()), &[]).body;
        let dropped = r#"throng_collect_events_total{endpoint="pixel",outcome="dropped"} "#;
        metrics.lines().any(|line| line.strip_prefix(dropped).is_some_and(|count| count != "0"))
    });
}

fn recovers(server: &Server, acknowledged: usize, data: &[&str]) {
    // Before anybody sends again: a sender may wait for just this.
    server.until("it is ready again", || {
        get(&format!("{}/readyz", server.console()), &[]).status == 200
    });
    server.until("events are taken again", || post(server, 100_000..100_001).status == 200);
    server.until("every acknowledged event is counted", || {
        let output = server.throng(&[&["eval", "count purchase = 1"], data].concat());
        let counted: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0);
        counted > acknowledged
    });
    assert_eq!(server.metric("throng_spool_bytes"), 0.0);
}

#[test]
fn a_spool_that_is_as_full_as_it_may_be_answers_503_says_so_and_recovers() {
    let (redis, server) = start("[journal]\nspool = \"1MiB\"\n", &[]);
    redis.kill();
    let (acknowledged, refused) = fill(&server);
    is_refused_for(&server, &refused, "journal.spool");
    assert!(!server.log().contains("disk is full"), "{}", server.log());
    redis.restart();
    recovers(&server, acknowledged, &[]);
}

#[test]
fn a_disk_that_is_full_while_redis_is_away_answers_503_says_so_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path()) else {
        // Only root may mount; elsewhere the journal's own tests stand for a full disk.
        eprintln!("left out: this user may not mount a small file system");
        return;
    };
    let data = folder.path().join("data");
    let data = ["--data", data.to_str().unwrap()];
    let (redis, server) = start("[journal]\nspool = \"64MiB\"\n", &data);
    redis.kill();
    let (acknowledged, refused) = fill(&server);
    is_refused_for(&server, &refused, "disk is full");
    assert!(!server.log().contains("journal.spool"), "{}", server.log());
    // What is shipped makes room, and nothing else does.
    redis.restart();
    recovers(&server, acknowledged, &data);
    drop(server);
    assert!(fs::read_dir(folder.path()).unwrap().count() > 0);
}

#[test]
fn a_collector_that_is_killed_while_redis_is_away_collects_at_once() {
    let redis = redis_server::Server::start(&["--appendfsync", "always"]);
    let mut site = Site::new("redis", &redis.url(), "disk");
    redis.kill();
    assert!(site.post());
    site.collector.kill();
    site.collector.run();
    assert!(site.post(), "{}", site.collector.log());
    assert_eq!(get(&format!("{}/readyz", site.collector.console()), &[]).status, 200);
    // And once more, with what it took alone.
    site.collector.kill();
    site.collector.run();
    assert!(site.post());
    redis.restart();
    site.collector
        .until("the others hear of it", || site.collector.log().contains("the store is there"));
    site.all_count("the collector began while Redis was away");

    // Who has left is not waited for, and so waits for the store.
    let listed = site.collector.data().join("store.listed");
    assert!(listed.is_file());
    assert!(site.collector.stop());
    assert!(!listed.exists());
    site.collector.run();
    assert!(site.post());
    site.all_count("the collector left and came back");

    // Another store in the place of the one that is known gets nothing.
    redis.wipe();
    site.collector.kill();
    site.collector.run();
    assert!(site.post());
    redis.restart();
    redis_server::until("it ends", || site.collector.has_ended() == Some(3));
    assert!(site.collector.log().contains("another store"), "{}", site.collector.log());
}
