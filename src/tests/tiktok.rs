//! An audience on its way to TikTok.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::sync::Arc;

use super::harness::{Server, post};
use super::killed::Pushes;
use super::standins::tiktok::{Cell, TikTok, says};
use super::standins::{Fault, StandIn};

const TOKEN: &str = "a-token";
const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"ads\"\n";

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server that has nothing to send yet, and sends nothing by itself for an hour.
fn start(standin: &StandIn, more: &str) -> Server {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"ads\"\nkind = \"tiktok\"\nallow_private = true\nurl = \"http://{}/open_api/v1.3\"\naccount = \"7001\"\n\
         token = \"file:token\"\nevery = \"1h\"\n{more}",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("token"), TOKEN).unwrap();
    server.run();
    server.until("the first run is over", || {
        let status = status(&server);
        !status["last_run"].is_null() && status["segments"] == json!([])
    });
    server
}

fn status(server: &Server) -> Value {
    server.api("/api/v1/destinations/ads").json()
}

fn phone(person: u32) -> String {
    hash(&format!("+1206555{person:04}"))
}

/// In lower case where the person is even.
fn device(person: u32, is_apple: bool) -> String {
    let device = format!("{person:08}-0000-4000-8{:03}-00000000abcd", u32::from(is_apple));
    if person.is_multiple_of(2) { device } else { device.to_uppercase() }
}

/// All that is known of a person: an e-mail address, of some a telephone or devices, and a name that goes nowhere.
fn ids(person: u32) -> Value {
    let email = hash(&format!("{person}@example.com"));
    let mut ids = json!({ "user_id": person.to_string(), "email_sha256": email });
    if person.is_multiple_of(4) {
        ids["phone_e164_sha256"] = json!(phone(person));
    }
    if person.is_multiple_of(3) {
        ids["idfa"] = json!(device(person, true));
    }
    if person.is_multiple_of(5) {
        ids["gaid"] = json!(device(person, false));
    }
    ids
}

fn event(person: u32) -> Value {
    json!({ "site": "t", "event": "purchase", "ids": ids(person) })
}

fn purchases(server: &Server, people: Range<u32>) {
    let events: Vec<Value> = people.map(event).collect();
    server.accepts(&events);
}

/// What the platform should hold of a person.
fn cells(person: u32) -> Vec<Cell> {
    let hashed = |device: String| hash(&device.to_lowercase());
    [
        Some(("EMAIL_SHA256", hash(&format!("{person}@example.com")))),
        person.is_multiple_of(4).then(|| ("PHONE_SHA256", phone(person))),
        person.is_multiple_of(3).then(|| ("IDFA_SHA256", hashed(device(person, true)))),
        person.is_multiple_of(5).then(|| ("AAID_SHA256", hashed(device(person, false)))),
    ]
    .into_iter()
    .flatten()
    .map(|(column, hash)| (column.to_owned(), hash))
    .collect()
}

fn trouble(server: &Server) -> String {
    let report = server.push("ads");
    report["trouble"].as_str().unwrap_or_else(|| panic!("no trouble: {report}")).to_owned()
}

fn dry_run(server: &Server) -> Value {
    let dry = server.ok(&["destination", "push", "ads", "--dry-run", "--json"]);
    serde_json::from_str::<Value>(&dry).unwrap()[0].clone()
}

#[test]
fn an_audience_is_made_once_and_kept_in_step_whatever_becomes_of_calls() {
    let platform = Arc::new(TikTok::new("7001", TOKEN));
    for number in 0..130 {
        platform.add_audience(&format!("1{number}"), &format!("another {number}"), true);
    }
    platform.add_audience("666", "buyers", false);
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server = start(&standin, "");
    purchases(&server, 0..1_200);
    let mut expected: BTreeSet<Cell> = (0..1_200).flat_map(cells).collect();
    server.until("all are to be added", || dry_run(&server)["adds"] == expected.len());
    assert_eq!(platform.calls(), [""; 0], "a dry run sends nothing");
    assert!(server.ok(&["destination", "test", "ads"]).contains("ready"));

    standin.script([Fault::Refuse(says(40_100, "Too many requests: QPS limit"))]);
    assert!(trouble(&server).contains("asks to wait"));
    // It looks through two pages, and makes one.
    standin.script([Fault::Pass, Fault::Pass, Fault::Lose]);
    trouble(&server);
    assert_eq!(platform.named("buyers").len(), 0);
    standin.script([Fault::Pass, Fault::Pass, Fault::LoseAnswer]);
    trouble(&server);
    assert_eq!(platform.named("buyers").len(), 1);

    let bad = hash("7@example.com");
    platform.set_bad(&[&bad]);
    expected.remove(&("EMAIL_SHA256".to_owned(), bad));
    let busy = || Fault::Refuse(says(50_000, "System error"));
    let (pass, lost) = (|| Fault::Pass, || Fault::LoseAnswer);
    // Two pages, and then calls that lose an answer or themselves.
    standin.script([pass(), pass(), lost(), busy(), Fault::Lose, pass(), pass(), lost(), busy()]);
    let audience = || platform.named("buyers").remove(0);
    let in_step = |expected: &BTreeSet<Cell>| {
        server.until("the platform is in step", || {
            server.push("ads")["trouble"].is_null() && platform.members(&audience()) == *expected
        });
    };
    in_step(&expected);
    assert!(standin.is_through());
    let report = server.push("ads");
    let counts = (&report["refused"], &report["held"], &report["trouble"]);
    assert_eq!(counts, (&json!(1), &json!(expected.len()), &Value::Null), "{report}");
    let calls = platform.calls().len();
    server.push("ads");
    assert_eq!(platform.calls().len(), calls, "what is refused is not sent again");

    // Who opts out goes.
    let url = format!("{}/v1/events", server.collect());
    let taken = post(&url, &event(60).to_string(), &[("Sec-GPC", "1")]);
    assert_eq!(taken.json()["accepted"], 1, "{taken:?}");
    for cell in cells(60) {
        assert!(expected.remove(&cell));
    }
    in_step(&expected);
    assert_eq!(platform.named("buyers").len(), 1);

    fs::remove_file(server.folder().join("segments/buyers.toml")).unwrap();
    in_step(&BTreeSet::new());
    // Finding the bad one took more calls than a second has.
    let (busiest, calls) = (platform.busiest(), platform.calls().len());
    assert!(busiest <= 10 && calls > 30, "{busiest} of {calls}");
}

#[test]
fn what_waits_for_someone_waits_and_what_waits_for_the_platform_does_not() {
    let platform = Arc::new(TikTok::new("7001", TOKEN));
    platform.add_audience("23857", "loyal buyers", true);
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server = start(&standin, "audiences = { buyers = \"23857\" }\n");
    purchases(&server, 0..30);
    let expected: BTreeSet<Cell> = (0..30).flat_map(cells).collect();
    server.until("all are to be added", || dry_run(&server)["adds"] == expected.len());

    platform.set_updating(true);
    let told = trouble(&server);
    assert!(told.contains("cannot be changed now (40002: Audience is being updated"), "{told}");
    let segment = status(&server)["segments"][0].clone();
    assert_eq!(segment["parked"], false, "{segment}");
    assert!(segment["retry_at"].is_string(), "{segment}");
    platform.set_updating(false);

    fs::write(server.folder().join("token"), "another").unwrap();
    let told = trouble(&server);
    assert!(told.contains("give it a new one (40105"), "{told}");
    assert_eq!(status(&server)["segments"][0]["parked"], true);
    let test = server.throng(&["destination", "test", "ads"]);
    assert_eq!(test.status.code(), Some(1));
    fs::write(server.folder().join("token"), TOKEN).unwrap();
    let report = server.push("ads");
    assert_eq!((&report["held"], &report["trouble"]), (&json!(expected.len()), &Value::Null));
    assert_eq!(platform.members("23857"), expected);
    let calls = platform.calls();
    let mapped = calls.iter().filter(|path| *path == "/segment/mapping/").count();
    assert_eq!((mapped, calls.len()), (3, 4), "it is neither looked for nor made: {calls:?}");
}

#[test]
fn a_crash_at_any_call_leaves_an_audience_in_step() {
    let platform = Arc::new(TikTok::new("7001", TOKEN));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let has = |people: &BTreeSet<u32>| match &platform.named("buyers")[..] {
        [audience] => {
            platform.members(audience) == people.iter().copied().flat_map(cells).collect()
        }
        _ => false,
    };
    let server = start(&standin, "");
    Pushes { server, standin: &standin, destination: "ads", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
