//! What is older than the retention goes, also where nothing comes any more.

use serde_json::Value;
use serde_json::json;
use std::fs;

use crate::clocks::Clock;
use crate::harness::Server;
use crate::harness::post;
use crate::privacy::holding;

const ADA: &str = "ada-of-long-ago";
const FLOOD: &str = "flood-of-long-ago";

/// An event without attributes, which would stay.
fn buy(user: &str) -> Value {
    json!({ "site": "t", "event": "buy", "ids": { "user_id": user } })
}

#[test]
fn what_is_older_than_the_retention_goes_where_nothing_comes_any_more() {
    let clock = Clock::new();
    let settings = "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\nrate_per_id = 1\nburst_per_id = 5\n\
                    [events]\nretention = \"7d\"\n[archive]\nfile_age = \"1s\"\n";
    let mut server = Server::start_in(&[], settings, &[], &clock.environment());
    server.accepts(&[buy(ADA)]);
    let url = format!("{}/v1/events", server.collect());
    let flood = json!([{ "site": "t", "event": "e", "ids": { "user_id": FLOOD } }]).to_string();
    for _ in 0..40 {
        post(&url, &flood, &[("X-Forwarded-For", "192.0.2.1")]);
    }
    assert_eq!(server.count("did buy"), 1);
    let access = |server: &Server, user: &str| -> Value {
        serde_json::from_str(&server.ok(&["access", "user_id", user])).unwrap()
    };
    let archived = |server: &Server| {
        let days = fs::read_dir(server.data().join("archive"));
        days.map_or(0, |days| {
            days.filter(|day| day.as_ref().is_ok_and(|day| day.path().is_dir())).count()
        })
    };
    server.until("it is in the archive", || archived(&server) > 0);
    assert_ne!(access(&server, FLOOD)["events_set_aside"], json!([]));
    assert!(!holding(&server.data().join("journal"), &[ADA]).is_empty());

    // As long as the retention has it, a day or a start changes nothing.
    assert!(server.stop());
    clock.set("+3d");
    server.run();
    assert_eq!(server.count("did buy"), 1);
    server.until("the journal is begun anew", || {
        holding(&server.data().join("journal"), &[ADA]).is_empty()
    });
    assert_eq!(access(&server, ADA)["events"].as_array().map(Vec::len), Some(1));
    assert_ne!(access(&server, FLOOD)["events_set_aside"], json!([]));

    assert!(server.stop());
    clock.set("+20d");
    server.run();
    server.until("the archive has nothing", || archived(&server) == 0);
    server.until("nothing is told", || access(&server, ADA)["profiles"] == json!([]));
    assert_eq!(access(&server, ADA)["events"], json!([]));
    server.until("nothing is set aside", || {
        server.ok(&["quarantine", "list", "--json"]).trim() == "[]"
    });
    for part in ["journal", "archive", "quarantine", "quarantine.json"] {
        let path = server.data().join(part);
        let is_in_file = fs::read_to_string(&path).is_ok_and(|text| text.contains(FLOOD));
        assert!(!is_in_file && holding(&path, &[ADA, FLOOD]).is_empty(), "{part}");
    }
    // Who comes now is counted as ever, and nobody else.
    server.accepts(&[buy("bob")]);
    assert_eq!(server.members("did buy", "user_id"), ["bob"]);
}
