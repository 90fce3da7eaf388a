//! What a stop, a kill and a restart leave: every acknowledged event, once.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::harness::{Server, THRONG};

fn visit(user: u64) -> Value {
    json!({ "site": "t", "event": "visit", "message_id": user.to_string(),
            "ids": { "user_id": user.to_string() }, "props": { "n": user } })
}

#[test]
fn a_clean_stop_removes_the_run_file_and_forgets_nothing() {
    let mut server = Server::start(&[("visitors", "rule = 'did visit'\n")]);
    assert_eq!(server.post_events(&visit(1)).json()["accepted"], 1);
    assert_eq!(server.count("did visit"), 1);
    assert!(server.stop());
    assert!(!server.data().join("run.json").exists());
    let output = server.throng(&["eval", "everyone"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("throng serve"));
    server.run();
    assert_eq!(server.count("did visit"), 1);
    assert_eq!(server.post_events(&visit(1)).json()["accepted"], 1);
    assert_eq!(server.count("count visit = 1"), 1, "a duplicate over a restart does not count");
}

#[test]
fn acknowledged_events_are_counted_once_after_every_kill() {
    let mut server = Server::start_with(
        &[("visitors", "rule = 'count visit = 1'\n")],
        "[archive]\nfile_age = \"1s\"\n",
        &[],
    );
    let mut next = 1;
    let mut acknowledged: Vec<u64> = Vec::new();
    for round in 0..6u64 {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("{}/v1/events", server.collect());
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let (taken, stop, url) = (taken.clone(), stop.clone(), url.clone());
                let first = next + sender * 100_000;
                std::thread::spawn(move || {
                    let agent: ureq::Agent = ureq::Agent::config_builder()
                        .http_status_as_error(false)
                        .timeout_global(Some(Duration::from_secs(10)))
                        .build()
                        .into();
                    let mut user = first;
                    while !stop.load(Ordering::Relaxed) && user < first + 2_000 {
                        let batch: Vec<Value> = (user..user + 3).map(visit).collect();
                        let sent = agent
                            .post(&url)
                            .content_type("application/json")
                            .send(json!(batch).to_string())
                            .and_then(|mut answer| answer.body_mut().read_to_string());
                        let Ok(text) = sent else { return };
                        let Ok(answer) = serde_json::from_str::<Value>(&text) else { return };
                        if answer["accepted"] == 3 {
                            taken.lock().unwrap().extend(user..user + 3);
                        }
                        user += 3;
                    }
                })
            })
            .collect();
        next += 1_000_000;
        // The length of a round decides what the kill hits: an append, a commit, an archive cut.
        std::thread::sleep(Duration::from_millis(150 + round * 370));
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }
        acknowledged.append(&mut taken.lock().unwrap());
        server.run();
        let mut expected: Vec<String> = acknowledged.iter().map(u64::to_string).collect();
        expected.sort();
        for rule in ["count visit = 1", "count visit[n > 0] = 1"] {
            let members = server.members(rule, "user_id");
            let lost: Vec<_> =
                expected.iter().filter(|user| members.binary_search(user).is_err()).collect();
            assert!(lost.is_empty(), "round {round}, {rule}: lost {lost:?}\n{}", server.log());
        }
        assert_eq!(server.count("count visit > 1"), 0, "round {round}: counted twice");
        assert_eq!(server.count("count visit[n >= 1] > 1"), 0, "round {round}: archived twice");
    }
    assert!(!acknowledged.is_empty());
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let server = Server::start(&[]);
    let output = server.command().output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&server.pid().to_string()), "{text}");
    assert!(server.data().join("run.json").exists(), "the first one's run file stands");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(THRONG)
        .current_dir(folder.path())
        .args(["serve", "--set", &format!("collect.listen={address}")])
        .args(["--set", "console.listen=127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&address) && text.contains("collect.listen"), "{text}");
}

#[test]
fn wrong_settings_are_all_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.toml"), "[colect]\n[journal]\ndurability = \"tape\"\n")
        .unwrap();
    let output = std::process::Command::new(THRONG)
        .current_dir(folder.path())
        .args(["serve", "--config", "x.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("`collect`") && text.contains("journal.durability"), "{text}");
}
