//! A running deployment on Redis is backed up while it goes on, and while nodes of it die; what is restored is served
//! from a data directory, and then from another Redis.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backup::{load, same, texts, visit};
use super::harness::{Server, THRONG};
use super::nodes::Nodes;
use super::redis_server;

/// What a server counts, asked through its data directory.
fn members(server: &Server, data: &str, rule: &str) -> BTreeSet<String> {
    let text = server.ok(&["--data", data, "eval", rule, "--members", "user_id"]);
    text.lines().map(str::to_owned).collect()
}

/// Sends all of it again: each counts once.
fn send_again(server: &Server, data: &str, all: &[u64]) {
    for users in all.chunks(400) {
        let again: Vec<Value> = users.iter().map(|user| visit(*user)).collect();
        assert_eq!(server.post_events(&json!(again)).json()["accepted"], users.len());
    }
    let all = texts(all.iter().copied());
    for rule in ["count visit = 1", "count visit[n > 0] = 1", "did visit"] {
        same(&members(server, data, rule), &all, rule);
    }
}

/// Starts a backup by a node, and waits until the copy has begun.
fn begun(node: &Server, dir: &Path) -> Child {
    let child = Command::new(THRONG)
        .current_dir(node.folder())
        .args(["backup", "--json"])
        .arg(dir)
        .env_remove("THRONG_DATA")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    node.until("the lanes are copied", || dir.join("state.redb").exists());
    child
}

#[test]
fn what_a_deployment_acknowledged_before_a_backup_counts_once_after_its_restore() {
    let nodes = Nodes::new();
    let mut collector = nodes.start("collect", "");
    let mut first = nodes.start("work", "");
    let mut second = nodes.start("work", "");
    let taken = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let url = format!("{}/v1/events", collector.collect());
    let senders: Vec<_> = (1..=3)
        .map(|sender| {
            let (url, taken, stop) = (url.clone(), taken.clone(), stop.clone());
            std::thread::spawn(move || load(url, sender * 1_000_000, taken, stop))
        })
        .collect();
    let files = |node: &Server| {
        let metrics = node.api("/metrics").body;
        let of = |line: &str| Some(line.strip_prefix("throng_archive_files ")?.trim() != "0");
        metrics.lines().find_map(of) == Some(true)
    };
    first.until("there is an archive", || files(&first) && files(&second));
    let put =
        first.api_send("PUT", "/api/v1/segments/lookers", "rule = 'did visit'", "application/toml");
    assert!(put.status < 300, "{put:?}");

    // A worker dies in the middle of one.
    let before = taken.lock().unwrap().clone();
    let copy = collector.folder().join("copy");
    let backup = begun(&collector, &copy);
    second.kill();
    let output = backup.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}\n{}", collector.log());
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["counts"]["counted"].as_u64() >= Some(before.len() as u64), "{summary}");
    assert_eq!(summary["counts"]["counted"], summary["counts"]["profiles"], "{summary}");
    assert_eq!(summary["made_segments"], 1, "{summary}");
    collector.ok(&["backup", "--verify", "copy"]);

    // The node that copies dies in the middle of another: the rest goes on, and can be asked for the next.
    second.run();
    let cut = second.folder().join("cut");
    let backup = begun(&second, &cut);
    second.kill();
    let output = backup.wait_with_output().unwrap();
    if !output.status.success() {
        let found = collector.throng(&["backup", "--verify", cut.to_str().unwrap()]);
        assert_eq!(found.status.code(), Some(1), "{found:?}");
    }
    let mut tries = 0..;
    first.until("what it had pinned is let go", || {
        let dir = format!("another{}", tries.next().unwrap());
        first.throng(&["backup", &dir]).status.success()
    });
    std::thread::sleep(Duration::from_millis(50));
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let all = taken.lock().unwrap().clone();
    assert!(all.len() > before.len());
    same(
        &collector.members("count visit = 1", "user_id").into_iter().collect(),
        &texts(all.iter().copied()),
        "after all that",
    );
    collector.kill();
    first.kill();
    // Redis and the archive are gone.
    drop(nodes);

    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data").to_str().unwrap().to_owned();
    let told = collector.ok(&["restore", "copy", "--data", &data]);
    assert!(told.contains("segments.made"), "{told}");
    let mut embedded = Server::start_with(&[], "", &["--data", &data]);
    let lost: Vec<_> =
        texts(before).difference(&members(&embedded, &data, "did visit")).cloned().collect();
    assert!(lost.is_empty(), "{lost:?}\n{}", embedded.log());
    send_again(&embedded, &data, &all);
    assert!(embedded.stop());

    let redis = redis_server::Server::start(&[]);
    let archive = home.path().join("away");
    let moved = ["move", "--from", &data, "--to", &redis.url(), "--archive"];
    embedded.ok(&[&moved[..], &[archive.to_str().unwrap(), "--config", "throng.toml"]].concat());
    let settings = format!(
        "[store]\nbackend = \"redis\"\nurl = \"{}\"\n[archive]\npath = \"{}\"\n",
        redis.url(),
        archive.display()
    );
    let shared = Server::start_with(&[], &settings, &[]);
    shared.until("its lanes are taken", || shared.throng(&["eval", "everyone"]).status.success());
    send_again(&shared, "data", &all);
}
