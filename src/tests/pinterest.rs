//! Audiences on their way to customer lists of Pinterest.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::harness::{Server, post};
use super::killed::Pushes;
use super::standins::pinterest::Pinterest;
use super::standins::{Fault, Reply, StandIn};

const TOKEN: &str = "a token";
const SEGMENT: &str = "rule = 'did purchase in 1h'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"pins\"\n";

/// A server with the destination; `more` are further settings of it.
fn start(standin: &StandIn, every: &str, more: &str) -> Server {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"pins\"\nkind = \"pinterest\"\nallow_private = true\nurl = \"http://{}/v5\"\naccount = \"5497\"\n\
         token = \"file:token\"\nevery = \"{every}\"\n{more}",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("token"), format!("{TOKEN}\n")).unwrap();
    server.run();
    server
}

const NAMED: &str = "audiences = { buyers = \"643\" }\n";

fn started(every: &str, more: &str) -> (Arc<Pinterest>, StandIn, Server) {
    let platform = Arc::new(Pinterest::new("5497", TOKEN, "643"));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server = start(&standin, every, more);
    (platform, standin, server)
}

fn purchase(namespace: &str, value: &str) -> Value {
    json!({ "site": "t", "event": "purchase", "ids": { namespace: value } })
}

fn email(number: u32) -> String {
    format!("someone-{number}@example.com")
}

fn purchases(server: &Server, people: std::ops::Range<u32>) {
    for from in people.clone().step_by(500) {
        let to = people.end.min(from + 500);
        let events: Vec<Value> = (from..to).map(|one| purchase("email", &email(one))).collect();
        let count = events.len();
        assert_eq!(server.post_events(&Value::Array(events)).json()["accepted"], count);
    }
}

/// Somebody's browser says that they want to be in no audience.
fn opt_out(server: &Server, number: u32) {
    let url = format!("{}/v1/events", server.collect());
    let body = purchase("email", &email(number)).to_string();
    assert_eq!(post(&url, &body, &[("Sec-GPC", "1")]).json()["accepted"], 1);
}

fn hash(number: u32) -> String {
    Sha256::digest(email(number)).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hashes(people: std::ops::Range<u32>) -> BTreeSet<String> {
    people.map(hash).collect()
}

#[test]
fn a_list_is_kept_in_step_whatever_becomes_of_calls() {
    let (platform, standin, mut server) = started("100ms", NAMED);
    assert!(server.ok(&["destination", "test", "pins"]).contains("ready"));
    standin.script([
        Fault::Refuse(Reply::new(500, r#"{"code":12,"message":"Something went wrong"}"#)),
        Fault::LoseAnswer,
        Fault::Lose,
        // What answers here is not the platform.
        Fault::Refuse(Reply::new(200, "<html>hello</html>")),
        Fault::Refuse(Reply::new(413, "")),
        Fault::Refuse(Reply::new(429, r#"{"code":8,"message":"slow"}"#).with("Retry-After", "1")),
        Fault::LoseAnswer,
    ]);
    purchases(&server, 0..2_000);
    let in_step = |expected: &BTreeSet<String>| {
        server.until("the list is in step", || {
            // Sooner than it tries again by itself.
            server.push("pins");
            standin.is_through() && platform.held("643") == *expected
        });
    };
    in_step(&hashes(0..2_000));
    assert!((1..=2_000).contains(&platform.largest()));

    // Who opts out is removed by a call whose answer is lost, and stays away.
    standin.script([Fault::LoseAnswer]);
    opt_out(&server, 7);
    let mut without = hashes(0..2_000);
    without.remove(&hash(7));
    in_step(&without);

    // A server that is killed while an answer is under way asks again too.
    standin.script([Fault::LoseAnswer]);
    purchases(&server, 2_000..2_100);
    server.until("the call was made", || standin.is_through());
    server.kill();
    server.run();
    without.extend(hashes(2_000..2_100));
    server.until("all are there", || platform.held("643") == without);

    fs::remove_file(server.folder().join("segments/buyers.toml")).unwrap();
    server.until("nothing is held", || platform.held("643").is_empty());
    assert!(!server.api("/api/v1/destinations/pins").body.contains(TOKEN));
}

#[test]
fn a_record_that_is_refused_costs_no_other() {
    let (platform, _standin, server) = started("1h", NAMED);
    purchases(&server, 0..999);
    // It is no hash, and not sent.
    let event = purchase("email_sha256", "someone@example.com");
    assert_eq!(server.post_events(&event).json()["accepted"], 1);
    platform.refuse(Some(&hash(500)));
    let dry = server.ok(&["destination", "push", "pins", "--dry-run", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&dry).unwrap()[0]["adds"], 1_000);
    assert_eq!(platform.calls(), 0, "a dry run sends nothing");
    let report = server.push("pins");
    assert_eq!((&report["adds"], &report["refused"]), (&json!(998), &json!(2)), "{report}");
    let mut expected = hashes(0..999);
    expected.remove(&hash(500));
    assert_eq!(platform.held("643"), expected);
    let calls = platform.calls();
    assert!(calls < 2 * 11, "{calls} calls to find one of a thousand");
    platform.refuse(None);
    assert_eq!(server.push("pins")["batches"], 0, "what was refused is not sent again");
    assert_eq!(platform.calls(), calls);
}

#[test]
fn what_is_refused_waits_for_someone_and_a_wait_is_kept() {
    let (platform, standin, mut server) = started("1h", NAMED);
    purchases(&server, 0..3);
    standin.script([Fault::Refuse(Reply::new(401, r#"{"code":2,"message":"who are you?"}"#))]);
    let trouble = server.push("pins")["trouble"].to_string();
    assert!(trouble.contains("who are you?") && trouble.contains("a new one"), "{trouble}");
    let destination = server.api("/api/v1/destinations/pins").json();
    assert_eq!(destination["segments"][0]["parked"], true);
    assert_eq!(server.push("pins")["held"], 3);
    assert_eq!(platform.held("643"), hashes(0..3));

    // Who asks to be left alone is, also by hand.
    let calls = platform.calls();
    standin.script([Fault::Refuse(Reply::new(429, "{}").with("Retry-After", "3600"))]);
    purchases(&server, 3..4);
    for _ in 0..3 {
        let report = server.push("pins");
        assert_eq!(report["trouble"], "the destination asks to wait", "{report}");
    }
    assert_eq!(platform.calls(), calls);
    assert!(server.stop());
    server.run();
    server.until("what was left goes", || {
        server.push("pins");
        platform.held("643") == hashes(0..4)
    });
}

#[test]
fn a_segment_without_a_list_says_what_to_do_and_sends_nothing() {
    let (platform, _standin, mut server) = started("1h", "");
    purchases(&server, 0..3);
    let trouble = server.push("pins")["trouble"].to_string();
    assert!(trouble.contains("make one there") && trouble.contains("`audiences`"), "{trouble}");
    let test = server.throng(&["destination", "test", "pins"]);
    assert_eq!(test.status.code(), Some(1));
    assert_eq!((platform.calls(), platform.held("643").len()), (0, 0));
    let file = server.folder().join("destinations.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(server.stop());
    fs::write(&file, text + NAMED).unwrap();
    server.run();
    server.until("it goes once a list is named", || {
        server.push("pins");
        platform.held("643") == hashes(0..3)
    });
}

#[test]
fn a_crash_at_any_call_leaves_a_list_in_step() {
    let (platform, standin, server) = started("1h", NAMED);
    let has =
        |people: &BTreeSet<u32>| platform.held("643") == people.iter().copied().map(hash).collect();
    let event = |person| purchase("email", &email(person));
    Pushes { server, standin: &standin, destination: "pins", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
