//! What other segment files would change, shown and done through the command line of a running server.

use std::fs;

use serde_json::{Value, json};

use super::harness::Server;

const DESTINATIONS: &str = "[[destination]]\nname = \"files\"\nkind = \"file\"\npath = \"pushed\"\n\
                            format = \"csv\"\nevery = \"1h\"\n";
const BUYERS: &str = "rule = 'did purchase'\n[[activate]]\ndestination = \"files\"\n";
const BIG: &str = "rule = 'segment buyers and sum purchase.value >= 100'\n";

/// A shop with three segments, and a folder of other files.
fn shop() -> Server {
    let mut server = Server::start(&[
        ("buyers", BUYERS),
        ("big-spenders", BIG),
        ("old", "rule = 'did page_view'\n"),
    ]);
    assert!(server.stop());
    fs::write(server.folder().join("destinations.toml"), DESTINATIONS).unwrap();
    server.run();
    let event = |user: u32, name: &str, value: u32, sku: &str| {
        json!({ "site": "t", "event": name, "ids": { "user_id": user.to_string() },
                "props": { "value": value, "sku": sku } })
    };
    let events = json!([
        event(1, "purchase", 150, "a"),
        event(2, "purchase", 150, "b"),
        event(3, "purchase", 10, "b"),
        event(4, "page_view", 0, "a"),
    ]);
    assert_eq!(server.post_events(&events).json()["accepted"], 4);
    let wanted = server.folder().join("wanted");
    fs::create_dir(&wanted).unwrap();
    let buyers = BUYERS.replace("did purchase", "did purchase[sku = \"b\"]");
    fs::write(wanted.join("buyers.toml"), buyers).unwrap();
    fs::write(wanted.join("big-spenders.toml"), BIG).unwrap();
    fs::write(wanted.join("lookers.toml"), "rule = 'not segment buyers'\n").unwrap();
    server
}

fn plan(server: &Server, more: &[&str]) -> Value {
    serde_json::from_str(&server.ok(&[&["plan", "wanted", "--json"], more].concat())).unwrap()
}

fn rules(server: &Server) -> Vec<(String, String)> {
    let live = server.api("/api/v1/segments").json();
    let all = live["segments"].as_array().unwrap().iter();
    let id = |segment: &Value| segment["id"].as_str().unwrap().to_owned();
    all.map(|segment| {
        let whole = server.api(&format!("/api/v1/segments/{}", id(segment))).json();
        (id(segment), whole["toml"].as_str().unwrap().to_owned())
    })
    .collect()
}

#[test]
fn a_plan_says_who_would_come_and_go_and_changes_nothing() {
    let server = shop();
    let before = rules(&server);
    let plan = plan(&server, &["--prune"]);
    let said = |list: &str| -> Vec<Value> {
        let effects = plan[list].as_array().unwrap().iter();
        effects
            .map(|effect| {
                let of = |name: &str| effect[name].clone();
                json!([
                    of("segment"),
                    of("action"),
                    of("before"),
                    of("after"),
                    of("added"),
                    of("removed")
                ])
            })
            .collect()
    };
    let expected = [
        json!(["buyers", "change", 3, 2, 0, 1]),
        json!(["lookers", "add", null, 2, 2, 0]),
        json!(["old", "remove", 1, null, 0, 1]),
    ];
    assert_eq!(said("changes"), expected);
    assert_eq!(said("affected"), [json!(["big-spenders", "refer", 2, 1, 0, 1])]);
    assert_eq!(plan["affected"][0]["through"], json!(["buyers"]));
    assert_eq!(plan["unchanged"], 1);
    let sent = json!([{ "destination": "files", "adds": 0, "removes": 1 }]);
    assert_eq!(plan["destinations"], sent);
    // One that asks what nobody asked before has to be filled.
    assert_eq!(plan["changes"][0]["cost"]["new_traits"], 1);
    assert_eq!(rules(&server), before);

    let text = server.throng(&["plan", "wanted", "--prune", "--exit-code"]);
    assert_eq!(text.status.code(), Some(1));
    let text = String::from_utf8(text.stdout).unwrap();
    let last = "Plan: 1 to add, 1 to change, 1 to remove, 1 affected by them; 1 as they are to be.";
    assert!(text.contains(last), "{text}");
    assert!(text.contains("files: 0 members would come, and 1 would go"), "{text}");
    // Only what is named where not all is.
    let one = server.ok(&["plan", "wanted/lookers.toml", "--json"]);
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["changes"].as_array().unwrap().len(), 1);
    // Those who buy are as they are.
    assert_eq!(one["changes"][0]["after"], 1);
}

#[test]
fn a_plan_is_done_as_it_stands_or_not_at_all() {
    let server = shop();
    let before = rules(&server);
    server.ok(&["plan", "wanted", "--prune", "--out", "p.json"]);
    let unasked = server.throng(&["apply", "p.json"]);
    assert_eq!(unasked.status.code(), Some(2), "nobody can be asked");
    // Somebody changes what it depends on.
    server.write_segment("big-spenders", "rule = 'segment buyers'\n");
    let stale = server.throng(&["apply", "p.json", "--yes"]);
    assert_eq!(stale.status.code(), Some(1));
    let why = String::from_utf8(stale.stderr).unwrap();
    assert!(why.contains("big-spenders has been changed") && why.contains("plan again"), "{why}");
    server.write_segment("big-spenders", BIG);
    // And somebody what has nothing to do with it.
    server.write_segment("others", "rule = 'did search'\n");
    let done = server.ok(&["apply", "p.json", "--yes"]);
    assert!(done.ends_with("Done: 3 changes are live.\n"), "{done}");
    let live = rules(&server);
    assert_ne!(live, before);
    let ids: Vec<&str> = live.iter().map(|(id, _)| &**id).collect();
    assert_eq!(ids, ["big-spenders", "buyers", "lookers", "others"]);
    assert_eq!(server.count("segment lookers"), 2);
    let again = server.throng(&["plan", "wanted", "--exit-code"]);
    assert_eq!(again.status.code(), Some(0));
    assert!(server.ok(&["apply", "wanted"]).starts_with("Nothing to do"));
    // Done already: it does not hold.
    assert_eq!(server.throng(&["apply", "p.json", "--yes"]).status.code(), Some(1));

    // One that is wrong, by itself or beside the others, keeps all of them back.
    let wanted = server.folder().join("wanted");
    fs::write(wanted.join("new.toml"), "rule = 'did search'\n").unwrap();
    for (wrong, says) in [("rule = 'did'\n", "wrong.toml"), ("rule = 'segment nobody'\n", "nobody")]
    {
        fs::write(wanted.join("wrong.toml"), wrong).unwrap();
        let refused = server.throng(&["apply", "wanted", "--yes"]);
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(why.contains(says), "{why}");
    }
    assert_eq!(rules(&server), live);
    // Which is told from what would change, and for machines.
    for wrong in ["rule = 'did'\n", "rule = 'segment nobody'\n"] {
        fs::write(wanted.join("wrong.toml"), wrong).unwrap();
        let refused = server.throng(&["--json", "plan", "wanted", "--exit-code"]);
        assert_eq!(refused.status.code(), Some(2));
        let problem: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert!(problem["detail"].as_str().unwrap().contains("wrong.toml"), "{problem}");
        assert_eq!(server.throng(&["plan", "wanted"]).status.code(), Some(1));
    }
    fs::remove_file(wanted.join("wrong.toml")).unwrap();
    assert_eq!(server.throng(&["plan", "wanted", "--exit-code"]).status.code(), Some(1));
    let single = server.throng(&["plan", "wanted/new.toml", "--prune"]);
    assert_eq!(single.status.code(), Some(2), "--prune takes folders");
}

#[test]
fn a_plan_says_what_is_wrong_already_and_what_goes_nowhere() {
    let server = shop();
    server.write_segment("first", "rule = 'did search'\n");
    server
        .write_segment("second", "rule = 'segment first'\n[[activate]]\ndestination = 'nosuch'\n");
    server.until("both are live", || server.ok(&["audience", "list"]).contains("second"));
    let doctor = || String::from_utf8(server.throng(&["doctor"]).stdout).unwrap();
    assert!(doctor().contains("second: no destination is named `nosuch`"), "{}", doctor());
    server.write_segment("second", "rule = 'did search and segment first'\n");
    let goes = server.folder().join("goes");
    fs::create_dir(&goes).unwrap();
    fs::write(
        goes.join("second.toml"),
        "rule = 'segment first'\n[[activate]]\ndestination = 'nosuch'\n",
    )
    .unwrap();
    let text = server.ok(&["plan", "goes"]);
    assert!(text.contains("nosuch is no destination of the server"), "{text}");
    // Somebody removes a file that another names: both folders are as they are, and not as they should be.
    fs::remove_file(server.folder().join("segments/first.toml")).unwrap();
    server.until("it is told", || doctor().contains("wrong: second"));
    let segments = server.folder().join("segments").display().to_string();
    for prune in [[].as_slice(), &["--prune"]] {
        let refused = server.throng(&[&["plan", &segments], prune].concat());
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(why.contains("second.toml") && why.contains("first"), "{why}");
    }
}
