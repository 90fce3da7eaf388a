//! An audience on its way to LinkedIn.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::sync::Arc;

use super::harness::{Server, post};
use super::killed::Pushes;
use super::standins::linkedin::{LinkedIn, User, wrong};
use super::standins::{Fault, StandIn};

const TOKEN: &str = "a-token";
const ACCOUNT: &str = "urn:li:sponsoredAccount:123";
const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"ads\"\n";

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server that has nothing to send yet, and sends nothing by itself for an hour.
fn start(standin: &StandIn, more: &str) -> Server {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    configure(&server, standin, more);
    fs::write(server.folder().join("token"), TOKEN).unwrap();
    server.run();
    server.until("the first run is over", || {
        let status = status(&server);
        !status["last_run"].is_null() && status["segments"] == json!([])
    });
    server
}

fn configure(server: &Server, standin: &StandIn, more: &str) {
    let destination = format!(
        "[[destination]]\nname = \"ads\"\nkind = \"linkedin\"\nallow_private = true\nurl = \"http://{}/rest\"\naccount = \"123\"\n\
         source = \"A SOURCE\"\ntoken = \"file:token\"\nevery = \"1h\"\n{more}",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
}

fn status(server: &Server) -> Value {
    server.api("/api/v1/destinations/ads").json()
}

/// In lower case where the person is even.
fn device(person: u32) -> String {
    let device = format!("{person:08}-0000-4000-8000-00000000abcd");
    if person.is_multiple_of(2) { device } else { device.to_uppercase() }
}

/// An e-mail address, of some a device, and a name that goes nowhere.
fn event(person: u32) -> Value {
    let email = hash(&format!("{person}@example.com"));
    let mut ids = json!({ "user_id": person.to_string(), "email_sha256": email });
    if person.is_multiple_of(5) {
        ids["gaid"] = json!(device(person));
    }
    if person == 1 {
        // Sorts before all others, and is none.
        ids["gaid"] = json!("-odd-");
    }
    json!({ "site": "t", "event": "purchase", "ids": ids })
}

fn purchases(server: &Server, people: Range<u32>) {
    let events: Vec<Value> = people.map(event).collect();
    server.accepts(&events);
}

/// What the platform should hold of a person.
fn users(person: u32) -> Vec<User> {
    let email = ("SHA256_EMAIL".to_owned(), hash(&format!("{person}@example.com")));
    let device =
        person.is_multiple_of(5).then(|| ("GOOGLE_AID".to_owned(), device(person).to_lowercase()));
    [Some(email), device].into_iter().flatten().collect()
}

fn trouble(server: &Server) -> String {
    let report = server.push("ads");
    report["trouble"].as_str().unwrap_or_else(|| panic!("no trouble: {report}")).to_owned()
}

/// Waits until so many are to be added and removed.
fn waits_for(server: &Server, adds: usize, removes: usize) {
    server.until("what is to be sent is known", || {
        let dry = server.ok(&["destination", "push", "ads", "--dry-run", "--json"]);
        let dry = serde_json::from_str::<Value>(&dry).unwrap()[0].clone();
        (&dry["adds"], &dry["removes"]) == (&json!(adds), &json!(removes))
    });
}

#[test]
fn a_segment_is_made_once_and_kept_in_step_whatever_becomes_of_calls() {
    let platform = Arc::new(LinkedIn::new(ACCOUNT, TOKEN));
    platform.set_slow(2);
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server = start(&standin, "");
    purchases(&server, 0..5_100);
    let mut expected: BTreeSet<User> = (0..5_100).flat_map(users).collect();
    waits_for(&server, expected.len() + 1, 0);
    assert_eq!(platform.calls(), [""; 0], "a dry run sends nothing");
    assert!(server.ok(&["destination", "test", "ads"]).contains("ready"));

    standin.script([Fault::Pass, Fault::Lose]);
    trouble(&server);
    assert_eq!(platform.of("buyers").len(), 0);
    standin.script([Fault::Pass, Fault::LoseAnswer]);
    trouble(&server);
    let [segment] = platform.of("buyers")[..] else { panic!("{:?}", platform.calls()) };
    // It is not there for two calls; nobody has to do anything.
    let told = trouble(&server);
    assert!(told.contains("it is not there yet") && told.contains("answered 404"), "{told}");
    let shown = status(&server)["segments"][0].clone();
    assert!(shown["parked"] == false && shown["retry_at"].is_string(), "{shown}");

    let bad = (hash("7@example.com"), device(10));
    platform.set_bad(&[(&bad.0, 400), (&bad.1, 422)]);
    expected.remove(&("SHA256_EMAIL".to_owned(), bad.0));
    expected.remove(&("GOOGLE_AID".to_owned(), bad.1));
    let conflict = || Fault::Refuse(wrong(409, "CONFLICT", "Busy"));
    let later = || Fault::Refuse(wrong(429, "TOO_MANY", "Later").with("Retry-After", "1"));
    let busy = Fault::Refuse(wrong(503, "BUSY", "Busy"));
    standin.script([later(), Fault::LoseAnswer, busy, Fault::Lose, conflict(), Fault::Pass]);
    standin.script([Fault::LoseAnswer, later()]);
    let in_step = |expected: &BTreeSet<User>| {
        server.until("the platform is in step", || {
            server.push("ads")["trouble"].is_null() && platform.members(segment) == *expected
        });
    };
    in_step(&expected);
    let report = server.push("ads");
    assert!(standin.is_through());
    let counts = (&report["refused"], &report["held"], &report["trouble"]);
    assert_eq!(counts, (&json!(3), &json!(expected.len()), &Value::Null), "{report}");
    assert_eq!(platform.largest(), (5_000, false));
    let calls = platform.calls().len();
    server.push("ads");
    assert_eq!(platform.calls().len(), calls, "what is refused is not sent again");

    // Who comes, and who opts out, go in one call.
    let url = format!("{}/v1/events", server.collect());
    let taken = post(&url, &event(60).to_string(), &[("Sec-GPC", "1")]);
    assert_eq!(taken.json()["accepted"], 1, "{taken:?}");
    for user in users(60) {
        assert!(expected.remove(&user));
    }
    purchases(&server, 5_101..5_104);
    expected.extend((5_101..5_104).flat_map(users));
    waits_for(&server, 3, 2);
    in_step(&expected);
    assert_eq!(platform.largest(), (5_000, true));
    assert_eq!(platform.of("buyers"), [segment]);

    fs::remove_file(server.folder().join("segments/buyers.toml")).unwrap();
    in_step(&BTreeSet::new());
}

#[test]
fn a_token_and_a_version_that_are_refused_wait_for_someone() {
    let platform = Arc::new(LinkedIn::new(ACCOUNT, TOKEN));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let mut server = start(&standin, "");
    purchases(&server, 0..30);
    let expected: BTreeSet<User> = (0..30).flat_map(users).collect();
    waits_for(&server, expected.len() + 1, 0);

    fs::write(server.folder().join("token"), "another").unwrap();
    let told = trouble(&server);
    assert!(told.contains("give it a new one") && told.contains("answered 401"), "{told}");
    assert_eq!(status(&server)["segments"][0]["parked"], true);
    let test = server.throng(&["destination", "test", "ads"]);
    assert_eq!(test.status.code(), Some(1));
    fs::write(server.folder().join("token"), TOKEN).unwrap();
    let report = server.push("ads");
    assert_eq!((&report["held"], &report["trouble"]), (&json!(expected.len()), &Value::Null));
    let [segment] = platform.of("buyers")[..] else { panic!("{:?}", platform.calls()) };
    assert_eq!(platform.members(segment), expected);

    assert!(server.stop());
    configure(&server, &standin, "version = \"202510\"\n");
    server.run();
    let test = server.throng(&["destination", "test", "ads"]);
    let said = String::from_utf8_lossy(&test.stdout) + String::from_utf8_lossy(&test.stderr);
    assert!(said.contains("another `version`"), "{said}");
    assert_eq!(test.status.code(), Some(1));
}

#[test]
fn a_crash_at_any_call_leaves_a_segment_in_step() {
    let platform = Arc::new(LinkedIn::new(ACCOUNT, TOKEN));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let has = |people: &BTreeSet<u32>| match &platform.of("buyers")[..] {
        [segment] => platform.members(*segment) == people.iter().copied().flat_map(users).collect(),
        _ => false,
    };
    let server = start(&standin, "");
    Pushes { server, standin: &standin, destination: "ads", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
