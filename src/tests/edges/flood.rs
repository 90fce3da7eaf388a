//! Floods, from one address, of one site, of one identifier: who is told to wait, who is set aside, and that nothing is lost.

use serde_json::Value;
use serde_json::json;

use super::wire::Answer;
use super::wire::assert_well;
use super::wire::send;
use crate::harness::Server;
use crate::harness::get;

/// Behind a proxy on this machine, each client with an address of its own.
fn start(limits: &str) -> Server {
    let settings = format!(
        "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\n{limits}\n[[site]]\nkey = \"other\"\nconsent = \"none\"\n\
         trusted = [\"203.0.113.9\"]\n"
    );
    Server::start_with(&[], &settings, &[])
}

fn event(site: &str, id: &str) -> Value {
    json!({ "site": site, "event": "e", "ids": { "user_id": id } })
}

fn post(server: &Server, from: &str, events: &[Value]) -> Answer {
    let body = Value::from(events.to_vec()).to_string();
    send(server, "POST", "/v1/events", &[("X-Forwarded-For", from)], body.as_bytes())
}

fn pixel(server: &Server, from: &str, id: &str) -> bool {
    let path = format!("/pixel.gif?s=t&e=e&id.user_id={id}");
    send(server, "GET", &path, &[("X-Forwarded-For", from)], b"").is_gif()
}

fn outcome(server: &Server, endpoint: &str, outcome: &str) -> u64 {
    let name =
        format!("throng_collect_events_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}} ");
    let text = get(&format!("{}/metrics", server.console()), &[]).body;
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

fn quarantine(server: &Server) -> Value {
    serde_json::from_str(&server.ok(&["quarantine", "list", "--json"])).unwrap()
}

#[test]
fn an_address_and_a_site_that_send_too_much_are_told_to_wait_and_trusted_ones_are_not() {
    let server = start(
        "rate_per_address = 1\nburst_per_address = 5\nrate_per_site = 1\nburst_per_site = 12",
    );
    let five = vec![event("t", "1"); 5];
    assert_eq!(post(&server, "192.0.2.1", &five).status, 200);
    let refused = post(&server, "192.0.2.1", &five);
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((4..=6).contains(&wait), "{wait}");
    // The site's own bucket is what all addresses share, and another site has another.
    assert_eq!(post(&server, "192.0.2.2", &five).status, 200);
    assert_eq!(post(&server, "192.0.2.3", &five).status, 429);
    assert_eq!(post(&server, "192.0.2.4", &[event("other", "1")]).status, 200);
    // An address that one site trusts is limited for the others.
    let many = vec![event("other", "2"); 40];
    assert_eq!(post(&server, "203.0.113.9", &many).status, 200);
    assert_eq!(post(&server, "203.0.113.9", &vec![event("t", "2"); 5]).status, 429);
    // Nor is what comes from this machine.
    assert!((0..20).all(|_| post(&server, "127.0.0.1", &five).status == 200));
    assert!((0..20).all(|_| pixel(&server, "192.0.2.1", "1")));
    assert!(outcome(&server, "pixel", "rate_limited") >= 18);
    assert_eq!(outcome(&server, "events", "rate_limited"), 15);
    assert_eq!(outcome(&server, "events", "accepted"), 5 + 5 + 1 + 40 + 100);
    assert_well(&server);
}

#[test]
fn an_identifier_that_keeps_sending_is_set_aside_and_comes_back_whole() {
    let mut server = start("rate_per_id = 1\nburst_per_id = 10");
    let flood = |server: &Server| post(server, "192.0.2.1", &[event("t", "flood")]).status;
    let mut taken = 0;
    // So many at once, then it has to wait.
    while flood(&server) == 200 {
        taken += 1;
        assert!(taken < 30);
    }
    assert!(taken >= 10, "{taken}");
    let refused = post(&server, "192.0.2.9", &[event("t", "flood"), event("t", "neighbour")]);
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some());
    // One that goes on all the same is set aside, and answered again.
    let mut tries = 0;
    while flood(&server) != 200 {
        tries += 1;
        assert!(tries < 40);
    }
    let mut aside = 1;
    for _ in 0..20 {
        // A trusted server's are no others, and neighbours count.
        let batch = [event("t", "flood"), event("t", "neighbour")];
        let answer = post(&server, "127.0.0.1", &batch);
        assert!(answer.text().contains(r#""accepted":2"#), "{}", answer.text());
        assert!(pixel(&server, "192.0.2.3", "flood"));
        aside += 2;
    }
    let counted = outcome(&server, "events", "set_aside") + outcome(&server, "pixel", "set_aside");
    assert_eq!(counted, aside);
    assert_eq!(server.count("did e"), 2);
    assert_eq!(server.count(&format!("count e > {}", taken.max(20))), 0);
    let seen = quarantine(&server);
    assert_eq!(seen.as_array().map(Vec::len), Some(1), "{seen}");
    let found = |seen: &Value| {
        (seen[0]["namespace"].clone(), seen[0]["value"].clone(), seen[0]["events"].clone())
    };
    assert_eq!(found(&seen), (json!("user_id"), json!("flood"), json!(aside)));
    assert!(server.ok(&["quarantine", "list"]).contains("flood"));

    // It outlasts the process.
    server.kill();
    server.run();
    assert_eq!(quarantine(&server), seen);
    assert_eq!(post(&server, "127.0.0.1", &[event("t", "flood")]).status, 200);
    aside += 1;

    let restored = server.ok(&["quarantine", "restore", "user_id", "flood"]);
    assert!(restored.contains(&format!("{aside} events")), "{restored}");
    assert_eq!(quarantine(&server), json!([]));
    let all = taken + aside;
    assert_eq!(server.count(&format!("count e >= {all}")), 1);
    assert_eq!(server.count(&format!("count e > {all}")), 0);
    // What it sends now counts at once.
    assert_eq!(post(&server, "127.0.0.1", &[event("t", "flood")]).status, 200);
    assert_eq!(server.count(&format!("count e > {all}")), 1);
    let output = server.throng(&["quarantine", "restore", "user_id", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let without = get(&format!("{}/api/v1/quarantine", server.console()), &[]);
    assert_eq!(without.status, 401);
    assert_well(&server);
}

#[test]
fn who_is_set_aside_can_still_say_no() {
    let server = start("rate_per_id = 1\nburst_per_id = 5");
    let post = |headers: &[(&str, &str)]| {
        let body = event("other", "flood").to_string();
        let from = [("X-Forwarded-For", "192.0.2.1")];
        send(&server, "POST", "/v1/events", &[&from, headers].concat(), body.as_bytes()).status
    };
    let held = || -> Value {
        serde_json::from_str(&server.ok(&["access", "user_id", "flood", "--json"])).unwrap()
    };
    let mut tries = 0;
    while quarantine(&server) == json!([]) {
        post(&[]);
        tries += 1;
        assert!(tries < 100);
    }
    assert_eq!(held()["profiles"][0]["opted_out"], false);
    // The site records all the same, and marks who says it.
    assert_eq!(post(&[("Sec-GPC", "1")]), 200);
    server.until("the mark", || held()["profiles"][0]["opted_out"] == true);
    server.ok(&["quarantine", "restore", "user_id", "flood"]);
    assert_eq!(held()["profiles"][0]["opted_out"], true);
}
