//! Rules, audiences and what their author is told, through the command line of a running server.

use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::harness::{Server, get};

fn event(user: &str, name: &str, props: Value) -> Value {
    json!({ "site": "t", "event": name, "ids": { "user_id": user }, "props": props })
}

fn shop() -> Server {
    let server = Server::start(&[
        ("buyers", "rule = 'did purchase'\n"),
        ("big-spenders", "rule = 'segment buyers and sum purchase.value >= 100'\nmin_size = 1\n"),
    ]);
    let answer = server.post_events(&json!([
        event("1", "purchase", json!({ "value": 60, "sku": "a" })),
        event("1", "purchase", json!({ "value": "40.00", "sku": "b" })),
        event("2", "purchase", json!({ "value": 99.99, "sku": "a" })),
        event("3", "page_view", json!({})),
    ]));
    assert_eq!(answer.json()["accepted"], 4, "{answer:?}");
    server
}

#[test]
fn a_rule_is_answered_for_everything_acknowledged_before_it_was_asked() {
    let server = shop();
    assert_eq!(server.count("everyone"), 3);
    assert_eq!(server.members("segment big-spenders", "user_id"), ["1"]);
    assert_eq!(server.members("count purchase = 1 or not did purchase", "user_id"), ["2", "3"]);
    // A trait that no segment asks is filled from what was received before.
    assert_eq!(server.members("did purchase[sku = \"b\"] in 1h", "user_id"), ["1"]);
    for user in 4..=40 {
        server.post_events(&event(&user.to_string(), "purchase", json!({ "value": 1 })));
        assert_eq!(server.count("did purchase"), user - 1);
    }
    let json: Value = serde_json::from_str(&server.ok(&["eval", "everyone", "--json"])).unwrap();
    assert_eq!(json["count"], 40);
    assert_eq!(json["level"], "person");
    assert!(json["true_for"].is_string() && json["at"].is_string() && json["took_ms"].is_number());
}

#[test]
fn an_audience_follows_its_events_and_its_file() {
    let server = shop();
    let members =
        |id: &str| server.api(&format!("/api/v1/audiences/{id}")).json()["members"].clone();
    server.until("both buyers are in", || members("buyers") == 2);
    assert_eq!(server.ok(&["audience", "members", "big-spenders", "--as", "user_id"]).trim(), "1");
    assert!(server.ok(&["audience", "list"]).contains("big-spenders"));

    server.write_segment("buyers", "rule = 'did purchase[sku = \"b\"]'\n");
    server.until("the edited rule is live", || members("buyers") == 1);

    server.write_segment("buyers", "rule = 'did purchase['\n");
    server.until("the wrong rule is told", || {
        server.api("/api/v1/audiences").body.contains("expected")
    });
    assert_eq!(members("buyers"), 1);
    assert!(server.log().contains("buyers"), "{}", server.log());

    let headers = server.api("/api/v1/audiences/buyers/members?as=user_id");
    assert_eq!(headers.body, "\"1\"\n");
    assert!(headers.headers.contains_key("Throng-Generation"));
    assert!(headers.headers.contains_key("Throng-True-For"));
}

#[test]
fn an_audience_says_when_it_changed_and_how_far_behind_it_is() {
    let mut server = shop();
    let told = |server: &Server, id: &str| {
        server.api("/api/v1/audiences?settle=true");
        server.api(&format!("/api/v1/audiences/{id}")).json()
    };
    let before = told(&server, "buyers")["changed_at"].clone();
    let sent = server.post_events(&event("7", "purchase", json!({ "total": 1 })));
    assert_eq!(sent.json()["accepted"], 1);
    let told_now = told(&server, "buyers");
    let changed = told_now["changed_at"].clone();
    assert!(changed.as_str() > before.as_str(), "{told_now}");
    assert!(changed.as_str() <= told_now["true_for"].as_str(), "{told_now}");
    assert!(told_now["lag_ms"].as_i64().unwrap() < 10_000, "{told_now}");
    // Nobody else came or went, then or after a restart.
    let sent = server.post_events(&event("7", "page_view", json!({})));
    assert_eq!(sent.json()["accepted"], 1);
    assert_eq!(told(&server, "buyers")["changed_at"], changed);
    server.stop();
    server.run();
    server.until("it is evaluated", || told(&server, "buyers")["state"] == "live");
    assert_eq!(told(&server, "buyers")["changed_at"], changed);
    let shown = server.ok(&["audience", "list"]);
    assert!(shown.contains("CHANGED") && shown.contains(" s  "), "{shown}");
    let shown = server.ok(&["audience", "show", "buyers"]);
    assert!(shown.contains(&format!("changed_at    {}", changed.as_str().unwrap())), "{shown}");
    assert!(shown.contains("\nlag           "), "{shown}");
}

#[test]
fn what_audiences_share_adds_up_to_each_of_them() {
    let server = shop();
    server.write_segment("visitors", "rule = 'did page_view'\n");
    server.write_segment("devices", "level = \"device\"\nrule = 'did purchase'\n");
    let sent = server.post_events(&event("1", "page_view", json!({})));
    assert_eq!(sent.json()["accepted"], 1);
    server.until("all are counted", || {
        let listed = server.api("/api/v1/audiences?settle=true").json();
        let sizes = listed["audiences"].as_array().unwrap().iter();
        sizes.filter(|audience| audience["members"].as_u64().is_some()).count() == 4
    });
    let overlap =
        |arguments: &[&str]| server.throng(&[&["audience", "overlap"], arguments].concat());
    let asked = overlap(&["visitors", "buyers", "big-spenders", "--json"]);
    let answer: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(answer["any"], 3, "{answer}");
    let regions = answer["regions"].as_array().unwrap();
    assert_eq!(regions.len(), 7, "{answer}");
    let region = |inside: &[&str]| {
        regions.iter().find(|region| region["in"] == json!(inside)).unwrap()["members"].clone()
    };
    assert_eq!(region(&["visitors", "buyers", "big-spenders"]), 1);
    assert_eq!((region(&["visitors"]), region(&["buyers"])), (json!(1), json!(1)));
    assert_eq!(region(&["visitors", "buyers"]), 0);
    for audience in answer["audiences"].as_array().unwrap() {
        let inside = |region: &&Value| region["in"].as_array().unwrap().contains(&audience["id"]);
        let sum: u64 =
            regions.iter().filter(inside).map(|region| region["members"].as_u64().unwrap()).sum();
        assert_eq!(audience["members"], sum, "{answer}");
        assert_eq!(audience["generation"], answer["generation"]);
    }
    let drawn = server.ok(&["audience", "overlap", "visitors", "buyers"]);
    assert!(drawn.contains("● ●        1   33 %  ████"), "{drawn}");

    let pairs = overlap(&["--matrix", "buyers", "--against", "visitors,big-spenders", "--json"]);
    let answer: Value = serde_json::from_slice(&pairs.stdout).unwrap();
    assert_eq!(answer["members"], json!([[1, 1]]), "{answer}");
    let every = overlap(&["--matrix"]);
    let drawn = String::from_utf8_lossy(&every.stdout);
    assert!(drawn.contains("  2  buyers              2  ▒ 50 █100 ▒ 50"), "{drawn}");
    assert!(String::from_utf8_lossy(&every.stderr).contains("level device: devices"));

    for (arguments, code, part) in [
        (&["buyers", "gone"][..], 1, "there is no segment gone"),
        (&["buyers", "devices"], 1, "one level"),
        (&["a", "b", "c", "d", "e", "f", "g"], 2, "7 audiences are named"),
        (&["--matrix", "buyers", "buyers"], 2, "twice"),
    ] {
        let output = overlap(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && text.contains(part), "{arguments:?}: {text}");
    }
    let answer = server.api_send("POST", "/api/v1/overlap", "{}", "application/json");
    assert!(answer.status == 422 && answer.body.contains("`audiences`"), "{answer:?}");
}

#[test]
fn a_segment_is_written_and_removed_through_the_api_when_nothing_becomes_wrong() {
    let server = shop();
    let file = |id: &str| server.folder().join(format!("segments/{id}.toml"));
    let put = |id: &str, text: &str| {
        server.api_send("PUT", &format!("/api/v1/segments/{id}"), text, "application/toml")
    };
    let delete =
        |id: &str| server.api_send("DELETE", &format!("/api/v1/segments/{id}"), "", "text/plain");

    let answer = put("one-timers", "rule = 'count purchase = 1'\n");
    assert_eq!(
        (answer.status, answer.json()["id"].as_str()),
        (201, Some("one-timers")),
        "{answer:?}"
    );
    let shown = server.api("/api/v1/segments/one-timers").json();
    assert_eq!(shown["toml"], "rule = 'count purchase = 1'\n");
    assert!(file("one-timers").is_file());
    let sent = json!({ "toml": "rule = 'count purchse >= 2'\n" }).to_string();
    let path = "/api/v1/segments/one-timers";
    let answer = server.api_send("PUT", path, &sent, "application/json");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["diagnostics"][0]["code"], "unknown-event", "{answer:?}");

    let answer = put("one-timers", "rule = 'count purchase ='\n");
    assert_eq!(
        (answer.status, answer.json()["diagnostics"][0]["severity"].as_str()),
        (422, Some("error"))
    );
    for id in ["Upper", "..%2Fescaped", "."] {
        let answer = put(id, "rule = 'everyone'\n");
        assert!([404, 422].contains(&answer.status), "{id}: {answer:?}");
    }
    let files = std::fs::read_dir(server.folder().join("segments")).unwrap().count();
    assert_eq!(files, 3);

    // Another segment asks it: it can neither go nor become a look-alike.
    let answer = delete("buyers");
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("big-spenders"), "{answer:?}");
    let answer = put("buyers", "[lookalike]\nseed = 'one-timers'\nreach = 0.1\n");
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(std::fs::read_to_string(file("buyers")).unwrap().contains("did purchase"));
    for (id, status) in [("big-spenders", 204), ("buyers", 204), ("buyers", 404)] {
        assert_eq!(delete(id).status, status, "{id}");
    }
    assert!(!file("buyers").exists());
    assert_eq!(server.api("/api/v1/segments/buyers").status, 404);
}

#[test]
fn members_under_what_is_no_namespace_are_refused() {
    let server = shop();
    server.until("the audience is there", || {
        server.api("/api/v1/audiences/buyers").json()["members"] == 2
    });
    let answer = server.api("/api/v1/audiences/buyers/members?as=User-Id");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("User-Id"), "{answer:?}");
    assert_eq!(server.api("/api/v1/audiences/buyers/members?as=unheard_of").status, 200);
    let output = server.throng(&["eval", "did purchase", "--members", "User-Id"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_wrong_file_keeps_its_last_good_version_over_a_restart() {
    let mut server = shop();
    let members =
        |server: &Server| server.api("/api/v1/audiences/buyers").json()["members"].clone();
    server.until("both buyers are in", || members(&server) == 2);
    server.write_segment("buyers", "rule = 'did'\n");
    assert!(server.stop());
    server.run();
    server.until("the last good version stands", || members(&server) == 2);
}

#[test]
fn a_segment_is_live_once_the_namespace_it_names_has_been_seen() {
    let server = Server::start(&[("members", "rule = 'has loyalty_card'\n")]);
    assert_eq!(server.api("/api/v1/audiences/members").status, 404);
    let event = json!({ "site": "t", "event": "visit", "ids": { "loyalty_card": "7" } });
    assert_eq!(server.post_events(&event).json()["accepted"], 1);
    server.until("the segment is live", || {
        server.api("/api/v1/audiences/members").json()["members"] == 1
    });
}

#[test]
fn a_wrong_rule_is_explained_and_exits_with_one() {
    let server = shop();
    for (rule, part) in [
        ("did purchase in 91d", "retention"),
        ("did purchase[", "expected"),
        ("segment buyrs", "buyers"),
        ("has emial_sha256 and", "expected"),
        ("did purchase between 1d and 2d ago", "between"),
        ("did purchase[sku matches \"(\"]", "expression"),
    ] {
        let output = server.throng(&["eval", rule]);
        assert_eq!(output.status.code(), Some(1), "{rule}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(part), "{rule}: {text}");
        assert!(output.stdout.is_empty());
    }
    // Warnings do not stop an answer.
    let output = server.throng(&["eval", "did purchse"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0");
    assert!(String::from_utf8_lossy(&output.stderr).contains("purchase"));
}

#[test]
fn the_past_is_answered_as_far_as_it_is_kept() {
    let segments = [("visitors", "rule = 'did visit in 2d'\n")];
    let server = Server::start_with(&segments, "[events]\nretention = \"3d\"\n", &[]);
    let at = |hours: i64| {
        let now = throng::net::Clock::now(&throng::net::SystemClock::default());
        throng::model::time::format_rfc3339(now - hours * throng::model::time::HOUR)
    };
    for (user, hours) in [("1", 1), ("2", 30), ("3", 60)] {
        let mut event = event(user, "visit", json!({}));
        event["time"] = json!(at(hours));
        assert_eq!(server.post_events(&event).json()["accepted"], 1);
    }
    let ask = |at: &str, rule: &str| server.throng(&["eval", rule, "--at", at]);
    assert_eq!(String::from_utf8_lossy(&ask("-2h", "did visit in 2d").stdout).trim(), "1");
    assert_eq!(String::from_utf8_lossy(&ask("-2h", "everyone").stdout).trim(), "2");
    let refused = ask("-2d", "did visit in 2d");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("earliest"));
    assert_eq!(String::from_utf8_lossy(&ask("-2d", "did visit").stdout).trim(), "1");

    let members = |at: &str| {
        server.throng(&["audience", "members", "visitors", "--as", "user_id", "--at", at])
    };
    assert_eq!(String::from_utf8_lossy(&members("-2h").stdout).trim(), "2");
    assert_eq!(String::from_utf8_lossy(&members("-20h").stdout).lines().count(), 2);
    let refused = members("-2d");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("earliest"));
    let answer = server.api("/api/v1/audiences/visitors/members?as=user_id&at=noon");
    assert!(answer.status == 422 && answer.body.contains("noon"), "{answer:?}");
}

#[test]
fn the_history_of_an_audience_goes_on_where_a_server_was_killed() {
    let mut server = shop();
    let is_known = |server: &Server, id: &str, members: u64| {
        server.until("the audience is counted", || {
            server.api(&format!("/api/v1/audiences/{id}")).json()["members"] == members
        });
    };
    let moved = |server: &Server, per: &str| -> (u64, u64) {
        let told = server.ok(&["audience", "history", "buyers", "--per", per, "--json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        let rows = told["rows"].as_array().unwrap();
        let sum = |field: &str| rows.iter().map(|row| row[field].as_u64().unwrap()).sum();
        let (adds, removes) = (sum("adds"), sum("removes"));
        assert_eq!(rows.last().unwrap()["members"], adds - removes, "{told}");
        (adds, removes)
    };
    is_known(&server, "buyers", 2);
    assert_eq!((moved(&server, "hour"), moved(&server, "day")), ((2, 0), (2, 0)));
    server.kill();
    server.run();
    assert_eq!(server.post_events(&event("5", "purchase", json!({}))).json()["accepted"], 1);
    is_known(&server, "buyers", 3);
    assert_eq!(moved(&server, "hour"), (3, 0));
    server.write_segment("buyers", "rule = 'did purchase[sku = \"b\"]'\n");
    is_known(&server, "buyers", 1);
    assert_eq!((moved(&server, "hour"), moved(&server, "day")), ((3, 2), (3, 2)));
    let drawn = server.ok(&["audience", "history", "buyers", "--from", "-2h"]);
    assert!(drawn.contains("+3") && drawn.contains("██"), "{drawn}");

    for (arguments, code, part) in [
        (&["gone"][..], 1, "there is no segment gone"),
        (&["buyers", "--from", "once"], 2, "expected a time"),
    ] {
        let output = server.throng(&[&["audience", "history"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && text.contains(part), "{arguments:?}: {text}");
    }
}

#[test]
fn why_says_clause_by_clause_what_was_found() {
    let server = shop();
    let text = server.ok(&["why", "big-spenders", "user_id", "2"]);
    assert!(text.contains("99.99"), "{text}");
    let json: Value =
        serde_json::from_str(&server.ok(&["why", "big-spenders", "user_id", "1", "--json"]))
            .unwrap();
    assert_eq!(json["member"], true);
    assert_eq!(json["rule"]["parts"][1]["events"][0]["properties"], json!({ "value": 40 }));
    assert!(json["since"].is_string() && json["until"].is_string(), "{json}");
    // What a filter compares is read from the events, which the columns do not keep.
    let small = "rule = 'count purchase[value < 99 and sku exists] >= 3'";
    let path = "/api/v1/segments/small";
    assert_eq!(server.api_send("PUT", path, small, "application/toml").status, 201);
    let json: Value =
        serde_json::from_str(&server.ok(&["why", "small", "user_id", "1", "--events", "--json"]))
            .unwrap();
    assert_eq!(
        (&json["member"], &json["nearest"][0]["short"], &json["rule"]["found"]["count"]),
        (&json!(false), &json!(1), &json!(2)),
        "{json}"
    );
    // They came at once, and so in no order.
    let told: Vec<&Value> =
        json["rule"]["events"].as_array().unwrap().iter().map(|e| &e["properties"]).collect();
    for properties in [json!({ "value": "40.00", "sku": "b" }), json!({ "value": 60, "sku": "a" })]
    {
        assert!(told.contains(&&properties), "{json}");
    }
    let output = server.throng(&["why", "big-spenders", "user_id", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(server.ok(&["explain", "segment buyers or segment big-spenders"]).contains("purchase"));
}

#[test]
fn the_private_listener_wants_a_token() {
    let server = shop();
    let url = format!("{}/api/v1/audiences", server.console());
    assert_eq!(get(&url, &[]).status, 401);
    assert_eq!(get(&url, &[("Authorization", "Bearer wrong")]).status, 401);
    assert_eq!(get(&format!("{}/livez", server.console()), &[]).status, 200);
    assert_eq!(get(&format!("{}/readyz", server.console()), &[]).status, 200);
    let metrics = get(&format!("{}/metrics", server.console()), &[]);
    assert!(metrics.body.contains("throng_collect_events_total"), "{metrics:?}");
    let token = server.ok(&["token", "create", "scraper", "--scope", "metrics"]);
    let bearer = format!("Bearer {}", token.trim());
    assert_eq!(get(&url, &[("Authorization", &bearer)]).status, 403);
    // Who is refused is counted.
    let metrics = get(&format!("{}/metrics", server.console()), &[]).body;
    let refused = r#"throng_http_responses_total{class="4xx",listener="private"} 3"#;
    assert!(metrics.contains(refused), "{metrics}");
    assert!(server.ok(&["token", "list"]).contains("scraper"));
    server.ok(&["token", "revoke", "scraper"]);
    assert_eq!(get(&url, &[("Authorization", &bearer)]).status, 401);
}

#[test]
fn an_answer_by_lines_ends_in_the_number_or_a_problem_and_then_the_members() {
    let server = Server::start(&[]);
    for user in ["1", "2"] {
        let event = json!({ "site": "t", "event": "view", "ids": { "user_id": user } });
        assert_eq!(server.post_events(&event).json()["accepted"], 1);
    }
    let ask = |body: Value| -> Vec<Value> {
        let answer = server.api_send("POST", "/api/v1/eval", &body.to_string(), "application/json");
        assert_eq!(answer.status, 200);
        let lines = answer.body.lines().map(|line| serde_json::from_str(line).unwrap());
        // How often it is told how far the answer is, is a matter of the machine.
        lines.filter(|line: &Value| line["stage"].is_null()).collect()
    };
    let lines = ask(json!({ "rule": "did view", "members": "user_id", "progress": true }));
    assert_eq!(lines[0]["count"], 2);
    let members: BTreeSet<&str> = lines[1..].iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(members, BTreeSet::from(["1", "2"]));
    let lines = ask(json!({ "rule": "did", "progress": true }));
    assert_eq!((lines.len(), &lines[0]["problem"]["status"]), (1, &json!(422)));
    let wrong = server.throng(&["eval", "did"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("error["));
    assert_eq!(server.ok(&["eval", "did view", "--members", "cookie"]), "");
}

#[test]
fn a_retention_that_is_raised_takes_more_of_the_past_from_then_on() {
    let mut server = Server::start_with(&[("ever", "rule = 'did x'\n")], "", &[]);
    let settings = server.folder().join("throng.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let restart = |server: &mut Server, retention: &str| {
        assert!(server.stop());
        let text = format!("[events]\nretention = \"{retention}\"\n{text}");
        std::fs::write(&settings, text).unwrap();
        server.run();
    };
    let now = throng::net::Clock::now(&throng::net::SystemClock::default());
    let send = |server: &Server, id: &str, days: i64| {
        let time = now - days * 86_400_000;
        let event = json!({ "site": "t", "event": "x", "time": time, "ids": { "user_id": id } });
        server.accepts(&[event]);
    };
    restart(&mut server, "30d");
    send(&server, "now", 0);
    assert_eq!(server.count("everyone"), 1);
    restart(&mut server, "90d");
    send(&server, "old", 60);
    assert_eq!(server.count("everyone"), 2);
    assert_eq!(server.count("did x"), 2);
    assert_eq!(server.count("did x in 80d"), 2);
    assert_eq!(server.count("did x in 50d"), 1);
}
