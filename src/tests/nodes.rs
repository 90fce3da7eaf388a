//! Several processes on one real Redis: they are one store, whoever is asked and whoever dies.

use serde_json::Value;
use serde_json::json;
use std::time::Duration;

use crate::harness::Server;
use crate::redis_server;

/// Some nodes on one Redis, with segments of their own that say the same.
pub(super) struct Nodes {
    /// Ended after the nodes.
    redis: redis_server::Server,
    archive: tempfile::TempDir,
}

const BUYERS: [(&str, &str); 1] = [("buyers", "rule = 'did purchase'")];

impl Nodes {
    pub(super) fn new() -> Self {
        Self { redis: redis_server::Server::start(&[]), archive: tempfile::tempdir().unwrap() }
    }

    /// Whether a text is in a key of Redis, a value of one, or the archive.
    pub(super) fn holds(&self, text: &str) -> bool {
        let mut found = Vec::new();
        for key in self.redis.cli(&["--scan"]).lines() {
            let value = match self.redis.cli(&["type", key]).trim() {
                "string" => self.redis.cli(&["get", key]),
                "hash" => self.redis.cli(&["hgetall", key]),
                "stream" => self.redis.cli(&["xrange", key, "-", "+"]),
                "zset" => self.redis.cli(&["zrange", key, "0", "-1"]),
                "set" => self.redis.cli(&["smembers", key]),
                "list" => self.redis.cli(&["lrange", key, "0", "-1"]),
                "none" => String::new(),
                kind => panic!("a {kind}"),
            };
            if key.contains(text) || value.contains(text) {
                found.push(key.to_owned());
            }
        }
        found.extend(crate::privacy::holding(self.archive.path(), &[text]));
        if !found.is_empty() {
            eprintln!("{text} is in {found:?}");
        }
        !found.is_empty()
    }

    pub(super) fn start(&self, role: &str, settings: &str) -> Server {
        self.start_with(&BUYERS, role, settings)
    }

    fn start_with(&self, segments: &[(&str, &str)], role: &str, settings: &str) -> Server {
        let settings = format!(
            "{settings}\n[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 8\nlanes = 4\n\
             [archive]\npath = \"{}\"\nfile_age = \"1s\"\n",
            self.redis.url(),
            self.archive.path().display()
        );
        Server::start_with(segments, &settings, &["--role", role])
    }
}

/// What the register has of a node that takes events, was last heard of long ago, and is gone.
const GONE: &str = r#"1000 0 500 {"id":"gone","roles":["collect"],"address":null,"mark":500,"lanes":[],"version":"0"}"#;

fn events(users: std::ops::Range<u32>, name: &str) -> Value {
    let one =
        |user| json!({ "site": "t", "event": name, "ids": { "user_id": format!("u{user}") } });
    Value::Array(users.map(one).collect())
}

fn audience(server: &Server) -> Option<u64> {
    let answer = server.api("/api/v1/audiences?settle=true");
    answer.json()["audiences"][0]["members"].as_u64().filter(|_| answer.status == 200)
}

/// Whether the lists of these users say so: the first are in the audience, and the others are not.
fn are_listed(server: &Server, buyers: u32, all: u32) -> bool {
    (0..all).all(|user| {
        let answer = server.api(&format!("/api/v1/profiles/user_id/u{user}/audiences"));
        let expected = if user < buyers { json!(["buyers"]) } else { json!([]) };
        answer.status == 200 && answer.json()["audiences"] == expected
    })
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
        assert!(are_listed(node, 100, 125));
        let profile = node.api("/api/v1/profiles/user_id/u7").json();
        assert_eq!(profile["audiences"], json!(["buyers"]), "{profile}");
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
    assert!(are_listed(&collector, 150, 160) && are_listed(&first, 150, 160));

    second.run();
    first.until("the lanes are shared again", || lanes(&first) == 2.0 && lanes(&second) == 2.0);
    assert_eq!(second.count("did purchase"), 150);
    assert_eq!(second.count("count purchase >= 2"), 0);
    assert_eq!(collector.post_events(&events(150..170, "purchase")).status, 200);
    collector.until("the audience goes on", || audience(&collector) == Some(170));
    assert!(are_listed(&second, 170, 180));
    assert!(second.stop());
}

#[test]
fn every_node_counts_what_audiences_share_over_the_shards_of_all() {
    let segments = ["view", "cart", "purchase"].map(|name| (name, format!("rule = 'did {name}'")));
    let segments = segments.each_ref().map(|(name, text)| (*name, &**text));
    let nodes = Nodes::new();
    let start = |role| nodes.start_with(&segments, role, "");
    let (collector, first, second) = (start("collect"), start("work"), start("work"));
    let lanes = |node: &Server| node.metric("throng_lanes_held");
    first.until("the lanes are shared", || lanes(&first) == 2.0 && lanes(&second) == 2.0);
    // Users by the audiences that they are in.
    let users = [("view", 0..60), ("cart", 20..90), ("purchase", 50..70)];
    for (name, users) in &users {
        assert_eq!(collector.post_events(&events(users.clone(), name)).status, 200);
    }
    let inside = |user: u32, names: &[&str]| {
        users.iter().all(|(name, users)| users.contains(&user) == names.contains(name))
    };
    let settled = || collector.api("/api/v1/audiences?settle=true");
    collector.until("all are counted", || {
        let sizes = |answer: Value| {
            answer["audiences"].as_array().map(|all| {
                all.iter().map(|audience| audience["members"].as_u64()).collect::<Vec<_>>()
            })
        };
        sizes(settled().json()) == Some(vec![Some(70), Some(20), Some(60)])
    });
    for node in [&collector, &first, &second] {
        let asked = node.ok(&["audience", "overlap", "view", "cart", "purchase", "--json"]);
        let answer: Value = serde_json::from_str(&asked).unwrap();
        let regions = answer["regions"].as_array().unwrap();
        assert_eq!((regions.len(), answer["any"].as_u64()), (7, Some(90)), "{answer}");
        for region in regions {
            let names: Vec<&str> =
                region["in"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let expected = (0..90).filter(|user| inside(*user, &names)).count();
            assert_eq!(region["members"], expected, "{answer}");
        }
        let asked = node.ok(&["audience", "overlap", "--matrix", "--json"]);
        let answer: Value = serde_json::from_str(&asked).unwrap();
        // In the order of the ids: cart, purchase, view.
        assert_eq!(
            answer["members"],
            json!([[70, 20, 40], [20, 20, 10], [40, 10, 60]]),
            "{answer}"
        );
    }
}

#[test]
fn a_look_alike_is_trained_over_all_nodes_and_outlives_the_one_that_trained_it() {
    let like = ("like", "[lookalike]\nseed = 'buyers'\nreach = 0.25\n");
    let segments = [BUYERS[0], like, ("viewers", "rule = 'did view'")];
    let nodes = Nodes::new();
    let start = |role| nodes.start_with(&segments, role, "");
    let (collector, mut workers) = (start("collect"), [start("work"), start("work")]);
    let lanes = |node: &Server| node.metric("throng_lanes_held");
    collector.until("the lanes are shared", || workers.iter().all(|node| lanes(node) == 2.0));
    // Every buyer has viewed something, and of the 200 others a quarter.
    for (users, name) in [(0..60, "purchase"), (0..110, "view"), (60..260, "visit")] {
        assert_eq!(collector.post_events(&events(users, name)).status, 200);
    }
    assert_eq!(collector.count("everyone"), 260);
    let publishes = |node: &Server| node.api("/api/v1/audiences").status == 200;
    collector.until("a node publishes", || publishes(&collector));
    let told = collector.ok(&["lookalike", "like", "--train", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["trained"]["candidates"], &told["members"]), (&json!(200), &json!(50)));
    let members = |node: &Server| -> Vec<u32> {
        let told = node.ok(&["audience", "members", "like", "--as", "user_id"]);
        let mut users: Vec<u32> = told.lines().map(|user| user[1..].parse().unwrap()).collect();
        users.sort_unstable();
        users
    };
    let expected: Vec<u32> = (60..110).collect();
    for node in [&collector, &workers[0], &workers[1]] {
        assert_eq!(members(node), expected);
        let why = node.ok(&["why", "like", "user_id", "u77"]);
        assert!(why.contains("is in like") && why.contains("did view"), "{why}");
    }
    let leads = |node: &Server| node.metric("throng_cluster_leader") == 1.0;
    let at = workers.iter().position(leads).unwrap();
    workers[at].kill();
    let other = &workers[1 - at];
    other.until("the lanes of the dead are taken", || lanes(other) == 4.0);
    other.until("the look-alike goes on", || {
        let answer = other.api("/api/v1/audiences/like");
        // One that has just begun to lead knows the state before the members.
        let members = other.api("/api/v1/audiences/like/members?as=user_id");
        answer.status == 200 && answer.json()["state"] == "live" && members.status == 200
    });
    assert_eq!(members(other), expected);
    let now: Value = serde_json::from_str(&other.ok(&["lookalike", "like", "--json"])).unwrap();
    assert_eq!(now["trained"], told["trained"]);
}

#[test]
fn who_publishes_next_begins_with_the_last_audiences_and_their_time() {
    let nodes = Nodes::new();
    let collector = nodes.start("collect", "");
    let mut workers = [nodes.start("work", ""), nodes.start("work", "")];
    assert_eq!(collector.post_events(&events(0..60, "purchase")).status, 200);
    collector.until("the audience is whole", || audience(&collector) == Some(60));
    let leads = |node: &Server| node.metric("throng_cluster_leader") == 1.0;
    collector.until("one leads", || workers.iter().any(leads));
    let at = workers.iter().position(leads).unwrap();
    let listed = |node: &Server| {
        let answer = node.api("/api/v1/audiences");
        (answer.status == 200).then(|| answer.json())
    };
    let mut before = listed(&collector).unwrap();
    assert_eq!(before["audiences"][0]["members"], 60);
    // What it has published is at least that.
    workers[at].kill();
    let other = &workers[1 - at];
    let mut seen = 0;
    other.until("the audience goes on", || {
        let Some(now) = listed(other) else { return false };
        let audience = &now["audiences"][0];
        assert_eq!(audience["members"], 60, "{now}");
        // Lanes whose last owner had not committed that their traits are whole are filled again.
        let is_live = audience["state"] == "live";
        assert!(is_live || audience["state"].as_str().unwrap().starts_with("backfilling"), "{now}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert!(text(&now["true_for"]) >= text(&before["true_for"]), "{before} {now}");
        assert!(now["generation"].as_u64() >= before["generation"].as_u64());
        seen += i32::from(is_live && now["true_for"] != before["true_for"]);
        before = now;
        seen > 5
    });
    assert!(are_listed(other, 60, 70));
    // Who came in before is not counted twice, whoever is asked.
    let came = |node: &Server| {
        let told = node.api("/api/v1/audiences/buyers/history?per=hour").json();
        let rows = told["rows"].as_array().cloned().unwrap_or_default();
        let sum = |field: &str| rows.iter().filter_map(|row| row[field].as_u64()).sum::<u64>();
        (sum("adds"), sum("removes"))
    };
    assert_eq!((came(other), came(&collector)), ((60, 0), (60, 0)));
    assert_eq!(collector.post_events(&events(60..75, "purchase")).status, 200);
    collector.until("the audience goes on", || audience(&collector) == Some(75));
    assert_eq!((came(other), came(&collector)), ((75, 0), (75, 0)));
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

#[test]
fn a_node_that_will_not_come_back_is_listed_and_struck_off() {
    let nodes = Nodes::new();
    let node = nodes.start("all", "");
    let register = "throng:{store}:nodes";
    node.until("the node leads", || node.metric("throng_cluster_leader") == 1.0);
    nodes.redis.cli(&["hset", register, "gone", GONE]);
    let list = || -> Value { serde_json::from_str(&node.ok(&["node", "list", "--json"])).unwrap() };
    let (listed, id) = (list(), std::fs::read_to_string(node.data().join("node.id")).unwrap());
    let of = |id: &str| {
        let rows = listed["nodes"].as_array().unwrap();
        rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{listed}")).clone()
    };
    let (own, gone) = (of(&id), of("gone"));
    assert_eq!(
        (&own["state"], &own["leads"], &gone["state"]),
        (&json!("well"), &json!(true), &json!("silent"))
    );
    assert_eq!(gone["mark"], "1970-01-01T00:00:00.500Z");
    assert!(listed["t_age_ms"].as_i64() > Some(1_000_000_000), "{listed}");
    let table = node.ok(&["node", "list"]);
    assert!(table.contains("`throng node retire gone`"), "{table}");

    let refused = node.throng(&["node", "retire", &id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"), "{refused:?}");
    let said = node.ok(&["node", "retire", "gone"]);
    assert!(said.contains("still count, late"), "{said}");
    assert_eq!(list()["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(node.throng(&["node", "retire", "gone"]).status.code(), Some(1));
    // One that runs is back at once.
    node.ok(&["node", "retire", &id, "--force"]);
    node.until("it beats again", || list()["nodes"].as_array().is_some_and(|all| all.len() == 1));
}

#[test]
fn a_server_with_a_store_of_its_own_has_no_other_nodes() {
    let server = Server::start(&[]);
    let answer = server.throng(&["node", "list"]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("no other nodes"), "{answer:?}");
}

#[test]
fn an_event_that_someone_deletes_from_a_stream_is_missed() {
    let nodes = Nodes::new();
    // Nothing is released meanwhile.
    let node = nodes.start("all", "[ingest]\nhold_fold = true\n");
    node.until("all lanes are held", || node.metric("throng_lanes_held") == 4.0);
    assert_eq!(node.post_events(&events(0..1, "purchase")).status, 200);
    let entry = || {
        (0..4).find_map(|lane| {
            let stream = format!("throng:{{0{lane}}}:ev");
            let entries = nodes.redis.cli(&["xrange", &stream, "-", "+"]);
            let id = entries.lines().next().filter(|id| id.contains('-'))?.to_owned();
            Some((stream, id))
        })
    };
    node.until("the event is in its lane", || entry().is_some());
    assert_eq!(node.metric("throng_journal_imbalance"), 0.0);
    let (stream, id) = entry().unwrap();
    assert_eq!(nodes.redis.cli(&["xdel", &stream, &id]).trim(), "1");
    assert_eq!(node.metric("throng_journal_imbalance"), 1.0);
}
