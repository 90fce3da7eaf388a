//! Audiences on their way to The Trade Desk.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use super::archive::python;
use super::harness::{Server, post};
use super::killed::Pushes;
use super::standins::trade_desk::{Members, TradeDesk};
use super::standins::{Fault, Reply, StandIn};

const TOKEN: &str = "a token";
const SECRET: &str = "a secret of two";
const SEGMENT: &str = "rule = 'did purchase in 1h'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"ttd\"\n";
/// What a member stays unless the destination says otherwise: 30 days.
const MINUTES: u64 = 43_200;

/// A server with the destination; `more` are further settings of it.
fn start(standin: &StandIn, every: &str, more: &str) -> Server {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"ttd\"\nkind = \"trade-desk\"\nallow_private = true\nurl = \"http://{}\"\naccount = \"adv1\"\n\
         token = \"file:token\"\nevery = \"{every}\"\n{more}",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("token"), format!("{TOKEN}\n")).unwrap();
    fs::write(server.folder().join("secret"), format!("{SECRET}\n")).unwrap();
    server.run();
    server
}

fn device(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-0000000000aa")
}

fn purchase(namespace: &str, value: &str) -> Value {
    json!({ "site": "t", "event": "purchase", "ids": { namespace: value } })
}

fn purchases(server: &Server, devices: std::ops::Range<u32>) {
    for from in devices.clone().step_by(500) {
        let to = devices.end.min(from + 500);
        let events: Vec<Value> = (from..to).map(|one| purchase("gaid", &device(one))).collect();
        let count = events.len();
        assert_eq!(server.post_events(&Value::Array(events)).json()["accepted"], count);
    }
}

/// The browser of a device says that it wants to be in no audience.
fn opt_out(server: &Server, number: u32) {
    let body = purchase("gaid", &device(number)).to_string();
    let url = format!("{}/v1/events", server.collect());
    assert_eq!(post(&url, &body, &[("Sec-GPC", "1")]).json()["accepted"], 1);
}

fn members(devices: std::ops::Range<u32>) -> Members {
    devices.map(|one| (("DAID".to_owned(), device(one)), MINUTES)).collect()
}

#[test]
fn an_advertiser_is_kept_in_step_whatever_becomes_of_calls() {
    let platform = Arc::new(TradeDesk::new("adv1", TOKEN, Some(SECRET)));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let mut server = start(&standin, "100ms", "secret = \"file:secret\"\n");
    assert!(server.ok(&["destination", "test", "ttd"]).contains("ready"));
    standin.script([
        Fault::Refuse(Reply::new(503, "\"dropped\"")),
        Fault::LoseAnswer,
        Fault::Lose,
        // What answers here is not the platform.
        Fault::Refuse(Reply::new(200, "<html>hello</html>")),
        Fault::Refuse(Reply::new(413, "\"too large\"")),
        Fault::Refuse(Reply::new(429, "{}").with("Retry-After", "1")),
        Fault::LoseAnswer,
    ]);
    purchases(&server, 0..3_500);
    let in_step = |expected: &Members| {
        server.until("the platform is in step", || {
            // Sooner than it tries again by itself.
            server.push("ttd");
            standin.is_through() && platform.held("buyers") == *expected
        });
    };
    in_step(&members(0..3_500));
    assert!((1..=1_600).contains(&platform.largest()));
    let (_, repeats) = platform.calls();
    assert!(repeats >= 1, "an answer that was lost is asked for again with the same bytes");

    // Who opts out is removed by a call whose answer is lost, and stays away.
    standin.script([Fault::LoseAnswer]);
    opt_out(&server, 7);
    let mut without = members(0..3_500);
    without.remove(&("DAID".to_owned(), device(7)));
    in_step(&without);

    // A server that is killed while an answer is under way asks again too.
    standin.script([Fault::LoseAnswer]);
    purchases(&server, 3_500..3_600);
    server.until("the call was made", || standin.is_through());
    server.kill();
    server.run();
    without.extend(members(3_500..3_600));
    server.until("all are there", || platform.held("buyers") == without);

    fs::remove_file(server.folder().join("segments/buyers.toml")).unwrap();
    server.until("nothing is held", || platform.held("buyers").is_empty());
    let shown = server.api("/api/v1/destinations/ttd").body;
    assert!(!shown.contains(TOKEN) && !shown.contains(SECRET), "{shown}");
}

#[test]
fn a_row_that_is_refused_costs_no_other() {
    let platform = Arc::new(TradeDesk::new("adv1", TOKEN, None));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server =
        start(&standin, "1h", "ttl = \"10d\"\naudiences = { buyers = \"auto_intenders\" }\n");
    purchases(&server, 0..998);
    // One is nobody's there, and one, which comes before it in order, is none at all and not sent.
    let tdid = "AAAAAAAA-0000-4000-8000-000000000000";
    let events = [purchase("ttd", tdid), purchase("gaid", "0-none")];
    assert_eq!(server.post_events(&json!(events)).json()["accepted"], 2);
    platform.refuse(&device(500));
    let dry = server.ok(&["destination", "push", "ttd", "--dry-run", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&dry).unwrap()[0]["adds"], 1_000);
    assert_eq!(platform.calls().0, 0, "a dry run sends nothing");
    let report = server.push("ttd");
    assert_eq!((&report["adds"], &report["refused"]), (&json!(998), &json!(2)), "{report}");
    let mut expected = members(0..998);
    expected.remove(&("DAID".to_owned(), device(500)));
    expected.insert(("TDID".to_owned(), tdid.to_owned()), MINUTES);
    expected.values_mut().for_each(|minutes| *minutes = 10 * 24 * 60);
    assert_eq!(platform.held("auto_intenders"), expected);
    assert_eq!(server.push("ttd")["batches"], 0, "what was refused is not sent again");
    assert_eq!(platform.calls().0, 1);
    // Whom the platform does not know any more need not be removed.
    platform.refuse(&device(501));
    opt_out(&server, 501);
    let report = server.push("ttd");
    assert_eq!((&report["removes"], &report["trouble"]), (&json!(1), &Value::Null), "{report}");
    assert_eq!(server.push("ttd")["batches"], 0);
}

#[test]
fn a_token_that_is_refused_waits_for_someone_and_a_wait_is_kept() {
    let platform = Arc::new(TradeDesk::new("adv1", TOKEN, None));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let mut server = start(&standin, "1h", "");
    purchases(&server, 0..3);
    standin.script([Fault::Refuse(Reply::new(401, "\"who are you?\""))]);
    let trouble = server.push("ttd")["trouble"].to_string();
    assert!(trouble.contains("answered 401") && trouble.contains("give new ones"), "{trouble}");
    let destination = server.api("/api/v1/destinations/ttd").json();
    assert_eq!(destination["segments"][0]["parked"], true);
    assert_eq!(server.push("ttd")["held"], 3);
    assert_eq!(platform.held("buyers"), members(0..3));

    // Who asks to be left alone is, also by hand.
    let calls = platform.calls();
    standin.script([Fault::Refuse(Reply::new(429, "{}").with("Retry-After", "3600"))]);
    purchases(&server, 3..4);
    for _ in 0..3 {
        let report = server.push("ttd");
        assert_eq!(report["trouble"], "the destination asks to wait", "{report}");
    }
    assert_eq!(platform.calls(), calls);
    assert!(server.stop());
    server.run();
    server.until("what was left goes", || {
        server.push("ttd");
        platform.held("buyers") == members(0..4)
    });
}

#[test]
fn a_crash_at_any_call_leaves_an_advertiser_in_step() {
    let platform = Arc::new(TradeDesk::new("adv1", TOKEN, Some(SECRET)));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let server = start(&standin, "1h", "secret = \"file:secret\"\n");
    let has = |people: &BTreeSet<u32>| {
        let members = people.iter().map(|one| (("DAID".to_owned(), device(*one)), MINUTES));
        platform.held("buyers") == members.collect()
    };
    let event = |person| purchase("gaid", &device(person));
    Pushes { server, standin: &standin, destination: "ttd", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}

/// The official client, on the stand-in. The address of a client is not used for data: each call names it.
const CLIENT: &str = r#"
import sys
from datetime import datetime, timezone
from ttd_data import DataClient
from ttd_data.models import AdvertiserDataResponseErrorCode
url, token = sys.argv[1:]
client = DataClient(ttd_auth=token)
def send(trace, *items):
    done = client.advertiser.ingest_advertiser_data(
        advertiser_id="adv1", data_load_trace_id=trace, data_origins=[{"id": "adv1", "type": "Advertiser"}],
        items=[{**who, "data": [{"name": "buyers", "ttl_in_minutes": minutes, **more}]} for who, minutes, more in items],
        server_url=url)
    return done.advertiser_data_server_response.failed_lines or []
uuid = lambda number: f"{number:08x}-0000-4000-8000-0000000000aa"
now = {"timestamp_utc": datetime.now(timezone.utc)}
failed = send("one", ({"daid": uuid(1)}, 43200, {}), ({"tdid": uuid(2)}, 43200, now), ({"daid": uuid(3)}, 43200, {}),
              ({"daid": uuid(4)}, 1440, {}), ({"uid2": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="}, 43200, {}))
[line] = failed
assert (line.item_number, line.data_number, line.data_name) == ("3", "1", "buyers"), line
assert line.error_code == AdvertiserDataResponseErrorCode.USER_NOT_MAPPED, line
assert list(send("two", ({"daid": uuid(1)}, 0, {}), ({"daid": uuid(4)}, 43200, {}))) == []
print("done")
"#;

#[test]
fn the_official_client_finds_the_stand_in_as_it_expects() {
    let platform = Arc::new(TradeDesk::new("adv1", TOKEN, None));
    platform.refuse(&device(3));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let ran = Command::new(python())
        .args(["-c", CLIENT, &format!("http://{}", standin.address), TOKEN])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let uid2 = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let expected = [("TDID", device(2)), ("DAID", device(4)), ("UID2", uid2.to_owned())];
    let expected: Members =
        expected.into_iter().map(|(kind, value)| ((kind.to_owned(), value), MINUTES)).collect();
    assert_eq!(platform.held("buyers"), expected);
    assert_eq!(platform.calls(), (2, 0));
}
