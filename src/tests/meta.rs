//! An audience on its way to Meta: a stand-in that the official SDK was tried on, too.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use super::archive::python;
use super::harness::{Server, post};
use super::killed::Pushes;
use super::standins::meta::{Cell, Meta, throttled};
use super::standins::{Fault, Reply, StandIn};

const TOKEN: &str = "EAAB-token";
const SECRET: &str = "app secret";
const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"meta\"\n";

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn start(standin: &StandIn, more: &str) -> Server {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"meta\"\nkind = \"meta\"\nallow_private = true\nurl = \"http://{}/v25.0\"\naccount = \"77\"\n\
         token = \"file:token\"\nsecret = \"file:secret\"\nevery = \"1h\"\n{more}",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("token"), TOKEN).unwrap();
    fs::write(server.folder().join("secret"), SECRET).unwrap();
    server.run();
    server
}

/// Someone who buys: each has an e-mail address, every third a device, and a name that goes nowhere.
fn event(person: u32) -> Value {
    let email = hash(&format!("{person}@example.com"));
    let mut ids = json!({ "user_id": person.to_string(), "email_sha256": email });
    if person.is_multiple_of(3) {
        ids["idfa"] = json!(format!("{person:08}-0000-4000-8000-000000000000"));
    }
    json!({ "site": "t", "event": "purchase", "ids": ids })
}

fn purchases(server: &Server, people: std::ops::Range<u32>) {
    let events: Vec<Value> = people.map(event).collect();
    server.accepts(&events);
}

/// A person whose browser asks that nothing be sold.
fn opt_out(server: &Server, person: u32) {
    let body = json!({ "site": "t", "event": "visit", "ids": { "user_id": person.to_string() } });
    let url = format!("{}/v1/events", server.collect());
    assert_eq!(post(&url, &body.to_string(), &[("Sec-GPC", "1")]).json()["accepted"], 1);
}

fn cells(people: impl IntoIterator<Item = u32>) -> BTreeSet<Cell> {
    let of = |person: u32| {
        let email = ("EMAIL".to_owned(), hash(&format!("{person}@example.com")));
        let device = person
            .is_multiple_of(3)
            .then(|| ("MADID".to_owned(), format!("{person:08}-0000-4000-8000-000000000000")));
        [Some(email), device].into_iter().flatten()
    };
    people.into_iter().flat_map(of).collect()
}

#[test]
fn an_audience_is_made_once_and_kept_in_step() {
    let platform = Arc::new(Meta::new("77", TOKEN, Some(SECRET)));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server = start(&standin, "");
    purchases(&server, 0..1_200);
    server.until("the audience is there", || {
        let dry = server.ok(&["destination", "push", "meta", "--dry-run", "--json"]);
        serde_json::from_str::<Value>(&dry).unwrap()[0]["adds"] == 1_600
    });
    assert_eq!(platform.named("buyers"), [""; 0], "a dry run makes nothing");
    assert!(server.ok(&["destination", "test", "meta"]).contains("ready"));

    // One row that the platform counts as invalid, and calls that go wrong.
    let bad = hash("7@example.com");
    platform.set_bad(&[&bad]);
    standin.script([Fault::Refuse(Reply::new(503, "busy"))]);
    assert!(server.push("meta")["trouble"].as_str().unwrap().contains("503"));
    standin.script([Fault::Lose]);
    let lost = server.push("meta");
    assert!(lost["trouble"].is_string(), "{lost}");
    // Whether it was made is for a person to say.
    let told = server.push("meta")["trouble"].as_str().unwrap().to_owned();
    assert!(told.contains("write its id into `audiences`"), "{told}");
    assert_eq!(platform.named("buyers"), [""; 0]);
}

#[test]
fn one_bad_row_costs_itself_and_whoever_opts_out_is_removed() {
    let platform = Arc::new(Meta::new("77", TOKEN, Some(SECRET)));
    platform.add_audience("23857");
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server = start(&standin, "audiences = { buyers = \"23857\" }\n");
    purchases(&server, 0..1_200);
    let bad = hash("7@example.com");
    platform.set_bad(&[&bad]);
    standin.script([Fault::LoseAnswer, Fault::Refuse(Reply::new(500, "oops")), Fault::LoseAnswer]);
    let mut expected = cells(0..1_200);
    expected.remove(&("EMAIL".to_owned(), bad));
    server.until("the platform is in step", || server.push("meta")["held"] == 1_599);
    assert!(standin.is_through());
    assert_eq!(platform.members("23857"), expected);
    assert_eq!(server.push("meta")["refused"], 1);
    let shown = server.ok(&["destination", "waterfall", "meta", "--json"]);
    let shown = serde_json::from_str::<Value>(&shown).unwrap()[0].clone();
    assert_eq!(shown["matched"], serde_json::json!({ "least": 1_500, "most": 1_699 }));
    let last = &shown["steps"][7];
    assert_eq!((&last["step"], &last["count"]), (&"accepted".into(), &1_599.into()), "{shown}");
    assert_eq!(last["lost"][0]["count"], 1, "{shown}");
    let refused = server.ok(&["destination", "refused", "meta"]);
    assert!(refused.contains(&hash("7@example.com")) && refused.contains("buyers"), "{refused}");
    let calls = platform.calls().len();
    server.push("meta");
    assert_eq!(platform.calls().len(), calls, "what is refused is not sent again");

    opt_out(&server, 8);
    let gone = ("EMAIL".to_owned(), hash("8@example.com"));
    server.until("who opted out is removed", || {
        server.push("meta");
        !platform.members("23857").contains(&gone)
    });
    assert!(platform.calls().iter().all(|(_, rows)| *rows > 0));

    // Paused, nobody is added, and whoever opts out is removed all the same.
    assert!(server.ok(&["destination", "pause", "meta"]).contains("meta is paused"));
    purchases(&server, 1_500..1_502);
    opt_out(&server, 10);
    let gone = ("EMAIL".to_owned(), hash("10@example.com"));
    server.until("who opted out is removed while it is paused", || {
        let report = server.push("meta");
        assert!(
            report["trouble"].as_str().unwrap().contains("destination resume meta"),
            "{report}"
        );
        !platform.members("23857").contains(&gone)
    });
    assert!(platform.members("23857").is_disjoint(&cells(1_500..1_502)));
    assert_eq!(server.api("/api/v1/destinations/meta").json()["paused"], true);
    assert!(server.ok(&["destination", "resume", "meta"]).contains("goes on"));
    server.until("it goes on", || cells(1_500..1_502).is_subset(&platform.members("23857")));

    // What was refused is sent again when someone asks, and all of it when someone says so.
    platform.set_bad(&[]);
    server.ok(&["destination", "replay", "meta"]);
    let again = ("EMAIL".to_owned(), hash("7@example.com"));
    assert!(platform.members("23857").contains(&again));
    assert!(server.ok(&["destination", "refused", "meta"]).contains("has taken all"));
    let before = platform.members("23857");
    platform.forget_members("23857");
    server.ok(&["destination", "resync", "meta"]);
    assert_eq!(platform.members("23857"), before);
    server.ok(&["destination", "reseed", "meta"]);
    assert_eq!(platform.members("23857"), before);

    // A token that is refused waits for another, which is read without a restart.
    platform.set_token("EAAB-new");
    purchases(&server, 2_000..2_003);
    server.until("the token is refused", || {
        server.push("meta")["trouble"].as_str().is_some_and(|why| why.contains("give it a new one"))
    });
    fs::write(server.folder().join("token"), "EAAB-new").unwrap();
    let added = cells(2_000..2_003);
    server.until("it goes on", || {
        server.push("meta");
        added.is_subset(&platform.members("23857"))
    });

    // What asks to wait is waited for.
    standin.script([Fault::Refuse(throttled(30))]);
    purchases(&server, 3_000..3_001);
    server.until("the platform was asked", || {
        server.push("meta");
        standin.is_through()
    });
    let told = server.api("/api/v1/destinations/meta").json();
    assert!(told["segments"][0]["retry_at"].is_string(), "{told}");
    platform.set_busy(10);
}

const SDK: &str = r#"
import sys, json
from facebook_business.session import FacebookSession
from facebook_business.api import FacebookAdsApi
from facebook_business.adobjects.customaudience import CustomAudience
FacebookSession.GRAPH = sys.argv[1]
FacebookAdsApi.init(access_token="EAAB-token", app_secret="app secret")
audience = CustomAudience("23857")
audience.add_users("EMAIL_SHA256", ["Jane.Doe+News@gmail.com", "b@example.com"])
audience.add_users(["EMAIL", "EXTERN_ID"], [["c@example.com", "u-1"]], is_raw=True)
answer = audience.remove_users("EMAIL_SHA256", ["b@example.com"])
print(json.dumps(answer.json()))
"#;

#[test]
fn the_official_sdk_finds_the_stand_in_as_it_expects() {
    let platform = Arc::new(Meta::new("77", TOKEN, Some(SECRET)));
    platform.add_audience("23857");
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let output = Command::new(python())
        .args(["-c", SDK, &format!("http://{}", standin.address)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let members = platform.members("23857");
    let jane = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
    assert!(members.contains(&("EMAIL".to_owned(), jane.to_owned())), "{members:?}");
    assert!(members.contains(&("EMAIL".to_owned(), hash("c@example.com"))), "{members:?}");
    assert_eq!(members.len(), 3, "{members:?}");
}

#[test]
fn a_crash_at_any_call_leaves_an_audience_in_step() {
    let platform = Arc::new(Meta::new("77", TOKEN, Some(SECRET)));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let has = |people: &BTreeSet<u32>| match &platform.named("buyers")[..] {
        [audience] => platform.members(audience) == cells(people.iter().copied()),
        _ => false,
    };
    let server = start(&standin, "");
    Pushes { server, standin: &standin, destination: "meta", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
