//! Access and erasure on the running product: what is erased is nowhere any more, and does not come back.

use serde_json::Value;
use serde_json::json;
use std::fs;
use std::path::Path;

use std::sync::Arc;

use crate::harness::Answer;
use crate::harness::Server;
use crate::harness::post;
use crate::nodes::Nodes;
use crate::standins::Fault;
use crate::standins::Reply;
use crate::standins::StandIn;
use crate::standins::webhook::Webhook;

/// Someone, by values that are found again wherever they lie.
const ADA: &str = "ada-lovelace-4711@whole.example";
const PAGE: &str = "https://shop.example/only-ada-reads-this";

const SEGMENT: &str = "rule = 'did buy in 30d'\nmin_size = 1\n";
const SENT: &str = "rule = 'did buy in 30d'\nmin_size = 1\n\
                    [[activate]]\ndestination = \"hook\"\nidentifiers = [\"user_id\"]\n";
const SECRET: &str = "a secret of two";

pub(super) fn event(user: &str, name: &str, message: &str) -> Value {
    json!({
        "site": "t", "event": name, "message_id": message,
        "ids": { "cookie": format!("c-{user}"), "user_id": user },
        "props": { "value": 7.5, "note": format!("note of {user}") },
        "attrs": { "plan": format!("plan-of-{user}") },
        "page": { "url": format!("{PAGE}?{user}") },
    })
}

/// The files below a folder that hold a text.
pub(super) fn holding(folder: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                for text in texts {
                    if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                        found.push(format!("{}: {text}", path.display()));
                    }
                }
            }
        }
    }
    found
}

fn erase(server: &Server, arguments: &[&str]) -> Value {
    let all = [&["erase"], arguments, &["--json", "--wait", "30"]].concat();
    let output = server.throng(&all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

fn access(server: &Server, user: &str) -> Value {
    serde_json::from_str(&server.ok(&["access", "user_id", user])).unwrap()
}

/// Nothing is held of someone, and nothing lies anywhere.
fn is_gone(server: &Server, user: &str) {
    let access = access(server, user);
    let parts = ["profiles", "events", "dead_letters", "set_aside", "events_set_aside"];
    for part in parts.iter().chain(&["destinations", "queued", "refused"]) {
        assert_eq!(access[part], json!([]), "{access}");
    }
    let left = holding(server.data(), &[user]);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn who_is_erased_is_nowhere_in_the_data_directory_and_others_are_as_they_were() {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    let others: Vec<Value> =
        (0..200).map(|n| event(&format!("user-{n}"), "buy", &format!("m-{n}"))).collect();
    server.accepts(&others);
    server.accepts(&[event(ADA, "buy", "ada-1"), event(ADA, "look", "ada-2")]);
    assert_eq!(server.count("did buy"), 201);
    let is_listed = |held: &Value| held["audiences"][0]["segments"] == json!(["buyers"]);
    server.until("the audience is told", || is_listed(&access(&server, ADA)));
    let held = access(&server, ADA);
    assert_eq!(held["profiles"].as_array().unwrap().len(), 1);
    assert_eq!(held["events"].as_array().unwrap().len(), 2);
    assert_eq!(held["profiles"][0]["attributes"]["plan"][0]["value"], format!("plan-of-{ADA}"));
    assert!(!holding(server.data(), &[ADA]).is_empty());

    let receipt = erase(&server, &["user_id", ADA]);
    let told = &receipt["receipt"];
    assert_eq!(told["state"], "done", "{receipt}");
    assert_eq!(told["erased"]["profiles"], 1, "{receipt}");
    assert_eq!(told["erased"]["events"], 2, "{receipt}");
    let left = holding(server.data(), &[ADA]);
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(server.count("did buy"), 200);
    assert_eq!(server.members("did buy", "user_id").len(), 200);
    is_gone(&server, ADA);
    // The receipt says who made it, and nothing may be changed of it.
    let file = server.folder().join("receipt.json");
    fs::write(&file, receipt.to_string()).unwrap();
    server.ok(&["receipt", "verify", "receipt.json"]);
    fs::write(&file, receipt.to_string().replace("\"profiles\":1", "\"profiles\":0")).unwrap();
    assert!(!server.throng(&["receipt", "verify", "receipt.json"]).status.success());

    // Whatever is no id is no receipt's.
    for id in ["%C2%84", "..%2Ftoken", "0", &"f".repeat(5_000)] {
        assert_eq!(server.api(&format!("/api/v1/privacy/receipts/{id}")).status, 404, "{id}");
    }
    // It stays so over a kill, and a rule that nobody had asked finds the others alone.
    server.kill();
    server.run();
    assert_eq!(server.count("did buy[value > 7]"), 200);
    let left = holding(server.data(), &[ADA]);
    assert!(left.is_empty(), "{left:#?}");
}

/// An event at a time, as files have it.
fn at(user: &str, time: &str, message: &str) -> Value {
    let mut event = event(user, "buy", message);
    event["time"] = time.into();
    event
}

#[test]
fn what_is_of_before_the_erasure_does_not_come_back_and_who_comes_again_is_new() {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    server.accepts(&[event("ada", "buy", "1"), event("bob", "buy", "2")]);
    let file = server.folder().join("old.ndjson");
    let old = [at("ada", "2026-11-01T10:00:00Z", "3"), at("bob", "2026-11-01T10:00:00Z", "4")];
    fs::write(&file, format!("{}\n{}\n", old[0], old[1])).unwrap();
    server.ok(&["import", "events", "old.ndjson"]);
    assert_eq!(server.count("count buy >= 2"), 2);
    let receipt = erase(&server, &["user_id", "ada"]);
    assert_eq!(receipt["receipt"]["erased"]["events"], 2, "{receipt}");
    // Late, again, by another file, under a message id of its own, and from another device.
    let mut late = at("ada", "2026-11-02T10:00:00Z", "5");
    server.accepts(&[late.clone(), event("bob", "look", "6")]);
    late["ids"]["cookie"] = "c-other".into();
    late["message_id"] = "7".into();
    server.accepts(&[late]);
    fs::write(&file, format!("{}\n{}\n", old[1], old[0])).unwrap();
    let told = server.ok(&["import", "events", "old.ndjson", "--name", "again"]);
    assert!(told.contains("2 lines, 1 accepted (0 counted, 1 duplicates)"), "{told}");
    assert!(told.contains("0 rejected, 1 of erased people left out"), "{told}");
    server.kill();
    server.run();
    assert_eq!(server.members("did buy", "user_id"), ["bob"]);
    assert_eq!(server.members("did buy[value > 7]", "cookie"), ["c-bob"]);
    assert_eq!(access(&server, "ada")["events"], json!([]));
    // A new visit is of a new visitor, with what comes from here on alone.
    server.accepts(&[event("ada", "buy", "8")]);
    assert_eq!(server.members("did buy", "user_id"), ["ada", "bob"]);
    assert_eq!(server.members("count buy >= 2", "user_id"), ["bob"]);
    assert_eq!(server.members("count buy[value > 7] >= 2", "user_id"), ["bob"]);
    assert_eq!(access(&server, "ada")["events"].as_array().unwrap().len(), 1);
    // Unless nothing is to be taken any more.
    erase(&server, &["user_id", "ada", "--suppress"]);
    server.accepts(&[event("ada", "buy", "9")]);
    assert_eq!(server.members("did buy", "user_id"), ["bob"]);
    assert_eq!(access(&server, "ada")["profiles"], json!([]));
}

#[test]
fn all_profiles_of_a_person_go_and_those_that_share_nothing_stay() {
    let server = Server::start(&[]);
    let visit = |cookie: &str, user: Option<&str>| {
        let mut ids = json!({ "cookie": cookie });
        if let Some(user) = user {
            ids["user_id"] = user.into();
        }
        json!({ "site": "t", "event": "buy", "ids": ids })
    };
    server.accepts(&[
        visit("ph-0001", Some("ada")),
        visit("lap-0001", Some("ada")),
        visit("ph-0001", None),
        visit("tablet", Some("bob")),
    ]);
    // A device alone, and what was done on it; the other device of the same user is another profile.
    let receipt = erase(&server, &["cookie", "ph-0001"]);
    assert_eq!(receipt["receipt"]["erased"]["profiles"], 1, "{receipt}");
    assert_eq!(server.members("did buy", "cookie"), ["lap-0001", "tablet"]);
    server.accepts(&[visit("ph-0001", Some("ada")), visit("ph-0001", Some("carl"))]);
    let receipt = erase(&server, &["user_id", "carl", "--person"]);
    assert_eq!(receipt["receipt"]["erased"]["profiles"], 2, "{receipt}");
    assert_eq!(server.members("did buy", "cookie"), ["tablet"]);
    is_gone(&server, "ph-0001");
    is_gone(&server, "lap-0001");
    let wrong = server.throng(&["erase", "email", "nobody"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no e-mail address"), "{wrong:?}");
}

/// A server whose buyers are sent to a webhook.
fn sending_to(standin: &StandIn) -> Server {
    let mut server = Server::start(&[("buyers", SENT)]);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://{}/in?key=k3y\"\n\
         secret = \"file:secret\"\nevery = \"200ms\"\n",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("secret"), format!("{SECRET}\n")).unwrap();
    server.run();
    server
}

fn exercise(server: &Server, right: &str, body: &Value) -> Answer {
    let path = format!("/api/v1/privacy/{right}");
    server.api_send("POST", &path, &body.to_string(), "application/json")
}

#[test]
fn the_first_answer_tells_what_a_destination_has_that_does_not_take_it_back() {
    let receiver = Arc::new(Webhook::new(SECRET));
    let standin = StandIn::start(Arc::clone(&receiver) as _, None);
    let server = sending_to(&standin);
    server.accepts(&["ada", "bob", "carl"].map(|user| event(user, "buy", user)));
    server.until("all are held", || receiver.held("buyers").len() == 3);
    standin.script(vec![Fault::Refuse(Reply::new(503, "later")); 1_000]);
    let answer = exercise(&server, "erase", &json!({ "namespace": "user_id", "value": "ada" }));
    assert_eq!(answer.status, 202, "{answer:?}");
    let pending = answer.json()["receipt"]["pending"].clone();
    let held = json!([{ "destination": "hook", "segment": "buyers", "identifiers": 1 }]);
    assert_eq!(pending["destinations"], held, "{pending}");

    let told = server.ok(&["opt-out", "user_id", "bob"]);
    assert_eq!(told.trim(), "opted out: 1 profile; still to be taken back: 1 of buyers at hook");
    let told = server.ok(&["opt-out", "user_id", "nobody"]);
    assert!(told.contains("no profile has it yet") && !told.contains("hook"), "{told}");
    standin.relent();
    server.until("they are taken back", || receiver.held("buyers").len() == 1);
}

#[test]
fn an_opt_out_reaches_all_of_a_person_where_that_is_asked_and_takes_nothing_it_does_not_know() {
    let server = Server::start(&[]);
    let visit = |cookie: &str, mail: &str| json!({ "site": "t", "event": "buy", "ids": { "cookie": cookie, "email": mail } });
    server.accepts(&[
        visit("phone-01", "ada@example.com"),
        visit("tablet-1", "ada@example.com"),
        visit("other-01", "bob@example.com"),
    ]);
    let is_out = |cookie: &str| {
        let held: Value = serde_json::from_str(&server.ok(&["access", "cookie", cookie])).unwrap();
        held["profiles"][0]["opted_out"].clone()
    };
    let ada = json!({ "namespace": "cookie", "value": "phone-01", "person": true });
    let answer = exercise(&server, "opt-out", &ada);
    assert_eq!((answer.status, &answer.json()["profiles"]), (200, &json!(2)), "{answer:?}");
    assert_eq!(
        ["phone-01", "tablet-1", "other-01"].map(is_out),
        [true, true, false].map(Value::from)
    );
    server.ok(&["opt-out", "cookie", "tablet-1", "--undo"]);
    assert_eq!(["phone-01", "tablet-1"].map(is_out), [true, false].map(Value::from));
    server.ok(&["opt-out", "cookie", "tablet-1", "--person", "--undo"]);
    assert_eq!(["phone-01", "tablet-1"].map(is_out), [false, false].map(Value::from));

    for (right, more) in [("opt-out", "suppress"), ("erase", "opted_out"), ("access", "suppress")] {
        let mut body = json!({ "namespace": "cookie", "value": "phone-01" });
        body[more] = false.into();
        let answer = exercise(&server, right, &body);
        assert_eq!(answer.status, 400, "{right}: {answer:?}");
    }
}

#[test]
fn who_is_erased_leaves_the_audiences_at_once_however_few_of_many_they_are() {
    let server = Server::start(&[("all", "rule = 'everyone'\n")]);
    let visit = |number: u32| json!({ "site": "t", "event": "buy", "ids": { "cookie": format!("e{number}") } });
    let all: Vec<Value> = (0..3_000).map(visit).collect();
    all.chunks(500).for_each(|some| server.accepts(some));
    let listed = || {
        let listed = server.api("/api/v1/audiences?settle=true").json();
        listed["audiences"][0]["members"].as_u64().unwrap_or_default()
    };
    server.until("all are members", || listed() == 3_000);
    // One after the other, so that each refresh asks a few, of shards that were asked before.
    for number in 1..=14 {
        erase(&server, &["cookie", &format!("e{number}")]);
        assert_eq!(listed(), 3_000 - number, "after {number} were erased");
    }
}

#[test]
fn who_comes_with_an_identifier_that_was_opted_out_is_sent_nowhere_either() {
    let receiver = Arc::new(Webhook::new(SECRET));
    let standin = StandIn::start(Arc::clone(&receiver) as _, None);
    let mut server = sending_to(&standin);
    let buy = |server: &Server, cookie: &str, more: Value| {
        let mut ids = json!({ "cookie": cookie });
        ids.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.accepts(&[json!({ "site": "t", "event": "buy", "ids": ids })]);
    };
    let is_out = |server: &Server, cookie: &str| {
        server.count("did buy");
        let held: Value = serde_json::from_str(&server.ok(&["access", "cookie", cookie])).unwrap();
        held["profiles"].as_array().unwrap().iter().all(|profile| profile["opted_out"] == true)
    };
    // Nobody has the one yet, and of the other there is a device.
    buy(&server, "bob-phone", json!({ "user_id": "bob" }));
    server.ok(&["opt-out", "user_id", "ann"]);
    server.ok(&["opt-out", "user_id", "bob"]);
    server.ok(&["opt-out", "email", "Cy@Example.com"]);
    buy(&server, "ann-phone", json!({ "user_id": "ann" }));
    buy(&server, "bob-tablet", json!({ "user_id": "bob" }));
    buy(&server, "cy-phone", json!({ "email": " cy@example.com" }));
    buy(&server, "dan-phone", json!({ "user_id": "dan" }));
    let out = ["ann-phone", "bob-phone", "bob-tablet", "cy-phone"];
    assert_eq!(out.map(|cookie| is_out(&server, cookie)), [true; 4]);
    assert!(!is_out(&server, "dan-phone"));
    server.until("dan alone is held", || receiver.held("buyers").len() == 1);

    // It outlasts the process, and the last word stands.
    server.kill();
    server.run();
    buy(&server, "ann-tablet", json!({ "user_id": "ann" }));
    assert!(is_out(&server, "ann-tablet"));
    server.ok(&["destination", "push", "hook"]);
    assert_eq!(receiver.held("buyers").len(), 1);
    server.ok(&["opt-out", "user_id", "ann", "--undo"]);
    buy(&server, "ann-desk", json!({ "user_id": "ann" }));
    let ann = ["ann-phone", "ann-tablet", "ann-desk"];
    assert_eq!(ann.map(|cookie| is_out(&server, cookie)), [false; 3]);
    server.until("ann is held, too", || receiver.held("buyers").len() == 2);

    // With all that is known of someone it goes, too.
    erase(&server, &["user_id", "bob"]);
    buy(&server, "bob-new", json!({ "user_id": "bob" }));
    assert!(!is_out(&server, "bob-new"));
}

#[test]
fn what_was_set_aside_of_someone_is_told_and_is_erased_and_counted() {
    let limits =
        "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\nrate_per_id = 1\nburst_per_id = 10\n";
    let server = Server::start_with(&[], limits, &[]);
    let url = format!("{}/v1/events", server.collect());
    let send = |user: &str| {
        let body = json!([{ "site": "t", "event": "buy", "ids": { "user_id": user } }]).to_string();
        post(&url, &body, &[("X-Forwarded-For", "192.0.2.1")]).status
    };
    let counted = (0..60).filter(|_| send(ADA) == 200).count();
    let held = access(&server, ADA);
    let aside = held["events_set_aside"].as_array().unwrap();
    assert!(aside.len() > 5, "{held}");
    assert_eq!(held["events"].as_array().unwrap().len() + aside.len(), counted);
    assert_eq!(aside[0]["ids"]["user_id"], ADA, "{held}");
    assert_eq!(held["set_aside"][0]["identifier"]["value"], ADA, "{held}");
    let aside = aside.len();
    let receipt = erase(&server, &["user_id", ADA]);
    assert_eq!(receipt["receipt"]["erased"]["events_set_aside"], aside, "{receipt}");
    is_gone(&server, ADA);
}

#[test]
fn a_destination_is_told_also_while_it_is_paused_and_the_ledger_keeps_no_more_than_that() {
    let receiver = Arc::new(Webhook::new(SECRET));
    let standin = StandIn::start(Arc::clone(&receiver) as _, None);
    let mut server = sending_to(&standin);
    let others: Vec<Value> =
        (0..20).map(|n| event(&format!("user-{n}"), "buy", &format!("m-{n}"))).collect();
    server.accepts(&others);
    server.accepts(&[event(ADA, "buy", "ada-1")]);
    let held = || receiver.held("buyers");
    server.until("all are held", || held().len() == 21);
    server.ok(&["destination", "pause", "hook"]);
    let before = access(&server, ADA);
    assert_eq!(before["destinations"][0]["destination"], "hook", "{before}");
    assert_eq!(before["destinations"][0]["sure"], true, "{before}");
    // It does not answer: what it has is pending, and its identifier is kept for that alone.
    standin.script([Fault::Lose, Fault::Lose]);
    let answer = server.api_send(
        "POST",
        "/api/v1/privacy/erase",
        &json!({ "namespace": "user_id", "value": ADA }).to_string(),
        "application/json",
    );
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["receipt"]["id"].as_str().unwrap().to_owned();
    server.until("the calls are lost", || standin.is_through());
    server.kill();
    server.run();
    let receipt = || -> Value {
        serde_json::from_str(&server.ok(&["receipt", "show", &id, "--json"])).unwrap()
    };
    server.until("it is told", || receipt()["receipt"]["state"] == "done");
    assert_eq!(held().len(), 20);
    assert!(!held().iter().any(|(_, value)| value == ADA));
    is_gone(&server, ADA);
    assert!(server.ok(&["receipt", "list"]).contains(&id));
}

/// Where an erasure is killed, it goes on from there and comes to the same end.
#[test]
fn an_erasure_that_is_killed_anywhere_comes_to_the_same_end() {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    for (round, delay) in [0, 2, 5, 9, 15, 30, 60, 100, 160, 250, 400].into_iter().enumerate() {
        let user = format!("ada-{round}@whole.example");
        server.accepts(&[event(&user, "buy", &format!("{round}-1"))]);
        server.accepts(&[event(&user, "look", &format!("{round}-2")), event("bob", "buy", "b")]);
        let body = json!({ "namespace": "user_id", "value": user }).to_string();
        std::thread::scope(|scope| {
            let url = format!("{}/api/v1/privacy/erase", server.console());
            let token = fs::read_to_string(server.data().join("token")).unwrap();
            scope.spawn(move || {
                let bearer = format!("Bearer {}", token.trim());
                // The answer may never come.
                let _ = ureq::post(&url)
                    .header("Authorization", bearer)
                    .header("Content-Type", "application/json")
                    .send(body);
            });
            std::thread::sleep(std::time::Duration::from_millis(delay));
            server.kill();
        });
        server.run();
        let last = || -> Option<Value> {
            let list = server.ok(&["receipt", "list", "--json"]);
            let all: Vec<Value> = serde_json::from_str(&list).unwrap();
            (all.len() > round).then(|| all[0].clone())
        };
        if last().is_none() {
            // Nothing was kept of it, so nothing was promised.
            assert_eq!(server.count("did look"), 1);
            erase(&server, &["user_id", &user]);
        }
        server.until("it is done", || last().unwrap()["receipt"]["state"] == "done");
        let erased = last().unwrap()["receipt"]["erased"].clone();
        assert_eq!((&erased["profiles"], &erased["events"]), (&json!(1), &json!(2)), "{delay}");
        assert_eq!(server.members("did buy", "user_id"), ["bob"]);
        is_gone(&server, &user);
    }
}

#[test]
fn who_is_erased_on_redis_is_in_no_value_of_any_key_and_no_file() {
    let nodes = Nodes::new();
    let collector = nodes.start("collect", "");
    let first = nodes.start("work", "");
    let second = nodes.start("work", "");
    let others: Vec<Value> =
        (0..60).map(|n| event(&format!("user-{n}"), "purchase", &format!("m-{n}"))).collect();
    collector.accepts(&others);
    collector.accepts(&[event(ADA, "purchase", "ada-1"), event(ADA, "look", "ada-2")]);
    first.until("a node answers", || first.throng(&["eval", "everyone"]).status.success());
    assert_eq!(first.count("did purchase"), 61);
    assert_eq!(access(&second, ADA)["events"].as_array().unwrap().len(), 2);
    assert!(nodes.holds(ADA));
    let receipt = erase(&second, &["user_id", ADA]);
    assert_eq!(receipt["receipt"]["erased"]["events"], 2, "{receipt}");
    assert_eq!(receipt["receipt"]["pending"]["lanes"], 0, "{receipt}");
    for node in [&first, &second, &collector] {
        assert_eq!(node.count("did purchase"), 60);
        let access = access(node, ADA);
        assert_eq!((&access["profiles"], &access["events"]), (&json!([]), &json!([])), "{access}");
    }
    assert!(!nodes.holds(ADA));
    // Late, and again after another has taken the lanes over.
    let mut late = event(ADA, "purchase", "ada-3");
    late["time"] = "2026-11-02T10:00:00Z".into();
    collector.accepts(&[late]);
    drop(second);
    first.until("the lanes are taken over", || first.metric("throng_lanes_held") == 4.0);
    assert_eq!(first.count("did purchase"), 60);
    assert_eq!(first.count("did purchase[value > 7]"), 60);
}
