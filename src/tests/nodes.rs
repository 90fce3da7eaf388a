//! Several processes on one real Redis: they are one store, whoever is asked and whoever dies.

use serde_json::Value;
use serde_json::json;
use std::time::Duration;

use crate::harness::Server;
use crate::redis_server;

/// Some nodes on one Redis, with segments of their own that say the same.
struct Nodes {
    /// Ended after the nodes.
    redis: redis_server::Server,
    archive: tempfile::TempDir,
}

const BUYERS: [(&str, &str); 1] = [("buyers", "rule = 'did purchase'")];

impl Nodes {
    fn new() -> Self {
        Self { redis: redis_server::Server::start(&[]), archive: tempfile::tempdir().unwrap() }
    }

    fn start(&self, role: &str, settings: &str) -> Server {
        let settings = format!(
            "{settings}\n[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 8\nlanes = 4\n\
             [archive]\npath = \"{}\"\nfile_age = \"1s\"\n",
            self.redis.url(),
            self.archive.path().display()
        );
        Server::start_with(&BUYERS, &settings, &["--role", role])
    }
}

fn events(users: std::ops::Range<u32>, name: &str) -> Value {
    let one =
        |user| json!({ "site": "t", "event": name, "ids": { "user_id": format!("u{user}") } });
    Value::Array(users.map(one).collect())
}

fn audience(server: &Server) -> Option<u64> {
    let answer = server.api("/api/v1/audiences?settle=true");
    answer.json()["audiences"][0]["members"].as_u64().filter(|_| answer.status == 200)
}

#[test]
fn every_node_answers_for_all_and_one_that_dies_is_replaced() {
    let nodes = Nodes::new();
    let collector = nodes.start("collect", "");
    let first = nodes.start("work", "");
    let mut second = nodes.start("work", "");
    assert_eq!(collector.post_events(&events(0..100, "purchase")).status, 200);
    assert_eq!(collector.post_events(&events(50..120, "view")).status, 200);
    for node in [&collector, &first, &second] {
        node.until("a node answers", || node.throng(&["eval", "everyone"]).status.success());
        assert_eq!(node.count("did purchase"), 100);
        assert_eq!(node.count("did view and not did purchase"), 20);
        assert_eq!(node.members("did purchase and did view", "user_id").len(), 50);
        node.until("the audience is whole", || audience(node) == Some(100));
        let why = node.ok(&["why", "buyers", "user_id", "u7"]);
        assert!(why.starts_with("the profile is in buyers"), "{why}");
    }
    // A message id counts once, whoever brings it and wherever that is folded.
    let sent = (0..40u32).map(|at| {
        json!({ "site": "t", "event": "signup", "message_id": format!("m{}", at % 20),
                "ids": { "user_id": format!("u{}", 1000 + at) } })
    });
    assert_eq!(collector.post_events(&Value::Array(sent.collect())).status, 200);
    assert_eq!(first.count("did signup"), 20);
    // Each holds its share.
    let lanes = |node: &Server| node.metric("throng_lanes_held");
    first.until("the lanes are shared", || lanes(&first) == 2.0 && lanes(&second) == 2.0);

    second.kill();
    assert_eq!(collector.post_events(&events(100..150, "purchase")).status, 200);
    first.until("the lanes of the dead are taken", || lanes(&first) == 4.0);
    first.until("a node answers", || first.throng(&["eval", "everyone"]).status.success());
    assert_eq!(collector.count("did purchase"), 150);
    assert_eq!(collector.count("did signup"), 20);
    collector.until("the audience goes on", || audience(&collector) == Some(150));

    second.run();
    first.until("the lanes are shared again", || lanes(&first) == 2.0 && lanes(&second) == 2.0);
    assert_eq!(second.count("did purchase"), 150);
    assert_eq!(second.count("count purchase >= 2"), 0);
    assert!(second.stop());
}

#[test]
fn an_owner_that_was_thought_dead_writes_nothing_when_it_wakes() {
    let nodes = Nodes::new();
    let collector = nodes.start("collect", "");
    let first = nodes.start("work", "");
    let second = nodes.start("work", "");
    collector.post_events(&events(0..50, "purchase"));
    collector.until("a node answers", || collector.throng(&["eval", "everyone"]).status.success());
    assert_eq!(collector.count("did purchase"), 50);
    let lanes = |node: &Server| node.metric("throng_lanes_held");
    first.until("the lanes are shared", || lanes(&first) == 2.0 && lanes(&second) == 2.0);

    second.freeze(true);
    collector.post_events(&events(25..100, "purchase"));
    first.until("the lanes of the frozen are taken", || lanes(&first) == 4.0);
    std::thread::sleep(Duration::from_millis(100));
    second.freeze(false);
    collector.post_events(&events(100..110, "purchase"));
    first.until("the lanes are shared again", || lanes(&first) == 2.0 && lanes(&second) == 2.0);
    for node in [&collector, &first, &second] {
        node.until("a node answers", || node.throng(&["eval", "everyone"]).status.success());
        assert_eq!(node.count("did purchase"), 110);
        assert_eq!(node.count("count purchase >= 2"), 25);
    }
}
