//! Two hundred rules on the same events have the same members on every store.

use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::harness::Server;
use crate::redis_server;

const HOUR: i64 = 3_600_000;

/// A generator that gives the same numbers every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const NAMES: [&str; 4] = ["purchase", "view", "search", "signup"];

/// Lines of an import: people with several ids, ties of attributes, and message ids that come again, also with
/// events of others.
fn lines(now: i64) -> String {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let mut text = String::new();
    for line in 0..4000u64 {
        let person = dice.roll(150);
        let mut ids = json!({ "user_id": format!("u{person}") });
        if dice.roll(3) == 0 {
            ids["cookie"] = json!(format!("c{}", dice.roll(200)));
        }
        if dice.roll(5) == 0 {
            ids["crm_id"] = json!(format!("k{}", person / 2));
        }
        // Half an hour from every whole hour before now: no window's edge passes while the test runs.
        let hours = i64::try_from(dice.roll(24 * 60)).unwrap();
        let time = now - hours * HOUR - HOUR / 2;
        let mut event = json!({
            "site": "t", "event": NAMES[usize::try_from(dice.roll(4)).unwrap()], "time": time, "ids": ids,
            "props": { "value": dice.roll(100), "sku": format!("s{}", dice.roll(9)) },
        });
        if dice.roll(4) == 0 {
            let country = ["FR", "DE", "US"][usize::try_from(dice.roll(3)).unwrap()];
            event["attrs"] = json!({ "country": country, "tier": dice.roll(4) });
        }
        if dice.roll(2) == 0 {
            let id = if dice.roll(10) == 0 { dice.roll(line + 1) } else { line };
            event["message_id"] = json!(format!("m{id}"));
        }
        writeln!(text, "{event}").unwrap();
    }
    text
}

fn rules() -> Vec<String> {
    let mut rules = Vec::new();
    for name in NAMES {
        for days in [1, 3, 7, 30] {
            rules.push(format!("did {name} in {days}d"));
            rules.push(format!("count {name} in {days}d >= 3"));
            rules.push(format!("not did {name} in {days}d"));
            rules.push(format!("sum {name}.value in {days}d > 200"));
            rules.push(format!("did {name}[value >= 50] in {days}d"));
            rules.push(format!("did {name}[sku = \"s3\"] in {days}d"));
            rules.push(format!("profile.tier >= 2 and not did {name} in {days}d"));
        }
        for other in NAMES.iter().filter(|other| **other != name) {
            rules.push(format!("did {name} and did {other}"));
            rules.push(format!("did {name} in 7d and not did {other} in 3d"));
            rules.push(format!("did {name} then {other} within 2d"));
            rules.push(format!("last {name} after last {other}"));
        }
        for tier in 0..4 {
            rules.push(format!("did {name} and profile.tier = {tier}"));
        }
        for country in ["FR", "DE", "US"] {
            rules.push(format!("profile.country = \"{country}\" or count {name} >= 5"));
        }
        rules.push(format!("avg {name}.value >= 40"));
        rules.push(format!("days {name} in 30d >= 4"));
        rules.push(format!("count {name} <= 2"));
        rules.push(format!("has crm_id and did {name}"));
        rules.push(format!("max {name}.value in 30d >= 95"));
        rules.push(format!("first {name} in 20d"));
        rules.push(format!("count {name} between 9d and 3d ago >= 1"));
    }
    rules.truncate(200);
    rules
}

/// The members of every audience, once all lines are in.
fn members(server: &Server, file: &str, count: usize) -> BTreeMap<String, Vec<String>> {
    server.until("a node answers", || server.throng(&["eval", "everyone"]).status.success());
    server.ok(&["import", "events", file]);
    let mut audiences = serde_json::Value::Null;
    server.until("the audiences are whole", || {
        let answer = server.api("/api/v1/audiences?settle=true");
        if answer.status == 200 {
            audiences = answer.json()["audiences"].clone();
        }
        audiences.as_array().is_some_and(|all| {
            all.len() == count && all.iter().all(|audience| audience["state"] == "live")
        })
    });
    let mut members = BTreeMap::new();
    for audience in audiences.as_array().unwrap() {
        let id = audience["id"].as_str().unwrap();
        let answer = server.api(&format!("/api/v1/audiences/{id}/members?as=user_id"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut values: Vec<String> = answer.body.lines().map(str::to_owned).collect();
        values.sort();
        values.push(format!("{} profiles", audience["members"]));
        members.insert(id.to_owned(), values);
    }
    members
}

/// The audiences that each identifier's list has. Those that own no profile are in none.
fn lists(server: &Server) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for (namespace, letter, count) in
        [("user_id", 'u', 150), ("cookie", 'c', 200), ("crm_id", 'k', 5)]
    {
        for number in 0..count {
            let path = format!("/api/v1/profiles/{namespace}/{letter}{number}/audiences");
            let answer = server.api(&path);
            assert_eq!(answer.status, 200, "{answer:?}");
            let audiences = answer.json()["audiences"].as_array().unwrap().clone();
            let ids = audiences.iter().map(|id| id.as_str().unwrap().to_owned());
            all.insert(format!("{letter}{number}"), ids.collect());
        }
    }
    all
}

#[test]
fn two_hundred_rules_have_the_same_members_on_every_store() {
    let now = throng::net::Clock::now(&throng::net::SystemClock::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, lines(now)).unwrap();
    let file = file.to_str().unwrap();
    let rules = rules();
    assert_eq!(rules.len(), 200);
    let named: Vec<(String, String)> = rules
        .iter()
        .enumerate()
        .map(|(at, rule)| (format!("s{at:03}"), format!("rule = '''{rule}'''")))
        .collect();
    let segments: Vec<(&str, &str)> = named.iter().map(|(id, text)| (&**id, &**text)).collect();

    let embedded = Server::start(&segments);
    let expected = members(&embedded, file, segments.len());
    assert!(expected.values().filter(|members| members.len() > 1).count() > 150);
    let listed = lists(&embedded);
    assert!(listed.values().filter(|ids| ids.len() > 20).count() > 250);
    drop(embedded);

    let (server, cluster) = (redis_server::Server::start(&[]), redis_server::Cluster::start());
    for (name, url) in [("server", server.url()), ("cluster", cluster.url())] {
        let settings = |archive: &str| {
            format!(
                "[store]\nbackend = \"redis\"\nurl = \"{url}\"\nshards = 12\nlanes = 6\n\
                 [archive]\npath = \"{archive}\"\nfile_age = \"1s\"\n"
            )
        };
        let archive = tempfile::tempdir().unwrap();
        let settings = settings(archive.path().to_str().unwrap());
        let one = Server::start_with(&segments, &settings, &["--role", "all"]);
        let other = Server::start_with(&segments, &settings, &["--role", "work"]);
        let found = members(&one, file, segments.len());
        for (id, expected) in &expected {
            let rule = &rules[id[1..].parse::<usize>().unwrap()];
            assert_eq!(&found[id], expected, "{name}: {rule}");
        }
        // Read by who does not publish.
        assert_eq!(lists(&other), listed, "{name}");
    }
}
