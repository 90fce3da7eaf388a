//! `throng move`: a store leaves its data directory for Redis, answers there, and comes back.

use serde_json::Value;
use serde_json::json;

use crate::harness::Server;
use crate::redis_server;

const BUYERS: [(&str, &str); 1] = [("buyers", "rule = 'did purchase'")];

fn events(users: std::ops::Range<u32>, name: &str) -> Value {
    let one = |user| {
        json!({
            "site": "t", "event": name, "ids": { "user_id": format!("u{user}") },
            "message_id": format!("{name} {user}"),
        })
    };
    Value::Array(users.map(one).collect())
}

fn said(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_store_goes_to_redis_and_comes_back() {
    let redis = redis_server::Server::start(&[]);
    let url = redis.url();
    let mut embedded = Server::start(&BUYERS);
    assert_eq!(embedded.post_events(&events(0..40, "purchase")).status, 200);
    assert_eq!(embedded.count("did purchase"), 40);
    let there =
        ["move", "--config", "throng.toml", "--from", "data", "--to", &url, "--archive", "away"];
    let output = embedded.throng(&there);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("another server (pid"), "{}", said(&output));
    assert_eq!(embedded.post_events(&events(30..50, "view")).status, 200);
    assert!(embedded.stop());

    for wrong in [["--from", "data", "--to", "other"], ["--from", &url, "--to", &url]] {
        let output = embedded.throng(&[&["move"][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("one of them is a data directory"), "{}", said(&output));
    }
    let text = embedded.ok(&there);
    let profiles = text.lines().find(|line| line.starts_with("profiles")).unwrap();
    assert_eq!(profiles.split_whitespace().collect::<Vec<_>>(), ["profiles", "50", "50", "same"]);
    let archive = embedded.folder().canonicalize().unwrap().join("away");
    assert!(text.contains(&format!("url = \"{url}\"")), "{text}");
    assert!(text.contains(&format!("path = \"{}\"", archive.display())), "{text}");
    assert!(!text.contains("DIFFERS"), "{text}");

    let settings = format!(
        "[store]\nbackend = \"redis\"\nurl = \"{url}\"\n[archive]\npath = \"{}\"\n",
        archive.display()
    );
    let mut shared = Server::start_with(&BUYERS, &settings, &[]);
    shared.until("its lanes are taken", || shared.throng(&["eval", "everyone"]).status.success());
    assert_eq!(shared.count("did purchase"), 40);
    assert_eq!(shared.count("did view and not did purchase"), 10);
    // Twice, and once more what came before the move.
    for name in ["view", "purchase"] {
        assert_eq!(shared.post_events(&events(35..60, name)).status, 200);
    }
    assert_eq!(shared.count("count view in 1h >= 1"), 30);
    assert_eq!(shared.count("count purchase in 1h >= 2"), 0);
    let put =
        shared.api_send("PUT", "/api/v1/segments/lookers", "rule = 'did view'", "application/toml");
    assert!(put.status < 300, "{put:?}");
    let data = shared.folder().join("other");
    let data = data.to_str().unwrap().to_owned();
    let back = ["move", "--config", "throng.toml", "--from", &url, "--to", &data, "--archive"];
    let files = format!("{data}/archive");
    let back = [&back[..], &[&files, "--json"]].concat();
    let output = shared.throng(&back);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("a server runs on it"), "{}", said(&output));
    assert!(shared.stop());

    let answer: Value = serde_json::from_str(&shared.ok(&back)).unwrap();
    assert_eq!(answer["same"], true, "{answer}");
    let made = answer["made"][0].as_str().unwrap();
    assert!(made.ends_with("lookers.toml"), "{answer}");
    assert!(shared.folder().join("segments/lookers.toml").is_file());
    let again = Server::start_with(&BUYERS, "", &["--data", &data]);
    let count = |rule| again.throng(&["--data", &data, "eval", rule]).stdout;
    assert_eq!(count("did purchase"), b"60\n");
    assert_eq!(count("count view in 1h >= 1"), b"30\n");
    assert_eq!(again.post_events(&events(55..70, "purchase")).status, 200);
    assert_eq!(count("did purchase"), b"70\n");
    assert_eq!(count("count purchase in 1h >= 2"), b"0\n");
}
