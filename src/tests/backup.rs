//! A copy of a running server, and what a server on it makes of it.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::harness::{Server, THRONG};
use super::push::{held, push};

const SETTINGS: &str = "[archive]\nfile_age = \"1s\"\n";
const DESTINATION: &str = "[[destination]]\nname = \"files\"\nkind = \"file\"\npath = \"pushed\"\n\
                           format = \"csv\"\nevery = \"1h\"\n";
const SEGMENT: &str = "rule = 'count visit = 1 and not did leave'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"files\"\n";

pub(super) fn visit(user: u64) -> Value {
    json!({ "site": "t", "event": "visit", "message_id": user.to_string(),
            "ids": { "user_id": user.to_string() }, "props": { "n": user } })
}

pub(super) fn texts(users: impl IntoIterator<Item = u64>) -> BTreeSet<String> {
    users.into_iter().map(|user| user.to_string()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Says which are too few or too many, and no others.
pub(super) fn same<T: Ord + std::fmt::Debug>(
    found: &BTreeSet<T>,
    expected: &BTreeSet<T>,
    what: &str,
) {
    let wrong: Vec<_> = found.symmetric_difference(expected).collect();
    assert!(wrong.is_empty(), "{what}: {} of {}: {wrong:?}", wrong.len(), expected.len());
}

/// Posts visits of ever further users until it is told to stop.
pub(super) fn load(url: String, first: u64, taken: Arc<Mutex<Vec<u64>>>, stop: Arc<AtomicBool>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let mut user = first;
    while !stop.load(Ordering::Relaxed) {
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
}

#[test]
fn what_was_acknowledged_before_a_backup_counts_once_after_its_restore() {
    let mut server = Server::start_with(&[("visitors", SEGMENT)], SETTINGS, &[]);
    assert!(server.stop());
    fs::write(server.folder().join("destinations.toml"), DESTINATION).unwrap();
    server.run();
    let pushed = server.folder().join("pushed/visitors");
    for user in 1..=50 {
        assert_eq!(server.post_events(&visit(user)).json()["accepted"], 1);
    }
    push(&server);
    assert_eq!(held(&pushed).len(), 50);

    let taken = Arc::new(Mutex::new((1..=50).collect::<Vec<u64>>()));
    let stop = Arc::new(AtomicBool::new(false));
    let url = format!("{}/v1/events", server.collect());
    let senders: Vec<_> = (1..=3)
        .map(|sender| {
            let (url, taken, stop) = (url.clone(), taken.clone(), stop.clone());
            std::thread::spawn(move || load(url, sender * 1_000_000, taken, stop))
        })
        .collect();
    let has = |files: &str| {
        let metrics = server.api("/metrics").body;
        metrics.lines().any(|l| l.strip_prefix(files).is_some_and(|n| n.trim() != "0"))
    };
    server.until("there is an archive", || has("throng_archive_files "));
    let before = taken.lock().unwrap().clone();
    let summary: Value = serde_json::from_str(&server.ok(&["backup", "copy", "--json"])).unwrap();
    assert!(summary["counts"]["archive_files"].as_u64() > Some(0), "{summary}");
    server.ok(&["backup", "--verify", "copy"]);

    // The server went on, and so did its destination: one whom the copy has in has left since.
    let leave = json!({ "site": "t", "event": "leave", "ids": { "user_id": "1" } });
    assert_eq!(server.post_events(&leave).json()["accepted"], 1);
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    push(&server);
    let user = |user: &str| ("user_id".to_owned(), user.to_owned());
    assert!(!held(&pushed).contains(&user("1")));
    server.kill();

    fs::rename(server.data(), server.folder().join("lost")).unwrap();
    let told = server.ok(&["restore", "copy"]);
    assert!(told.contains("restored") && told.contains(summary["true_for"].as_str().unwrap()));
    server.run();
    let lost: Vec<_> = {
        let members: BTreeSet<_> = server.members("did visit", "user_id").into_iter().collect();
        texts(before).difference(&members).cloned().collect()
    };
    assert!(lost.is_empty(), "{lost:?}\n{}", server.log());
    // Sent again, what is in the copy is a duplicate and the rest counts: all of it is there once.
    let all = taken.lock().unwrap().clone();
    for users in all.chunks(400) {
        let again: Vec<Value> = users.iter().map(|user| visit(*user)).collect();
        assert_eq!(server.post_events(&json!(again)).json()["accepted"], users.len());
    }
    let all = texts(all);
    for rule in
        ["count visit = 1", "count visit[n > 0] = 1", "count visit[n >= 1] < 2 and did visit"]
    {
        let members: BTreeSet<_> = server.members(rule, "user_id").into_iter().collect();
        same(&members, &all, rule);
    }
    assert_eq!(server.count("did leave"), 0);

    let report = push(&server);
    assert_eq!(report["trouble"], Value::Null, "{report}");
    let all: BTreeSet<_> = all.iter().map(|one| user(one)).collect();
    same(&held(&pushed), &all, "who left after the backup is in again");
    assert_eq!(push(&server)["adds"], 0);
}

/// What each file of a folder holds.
fn contents(dir: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name(), entry.metadata().unwrap().len())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_copy_that_is_not_whole_is_refused_with_the_file_named() {
    let server = Server::start(&[("visitors", "rule = 'did visit'\n")]);
    assert_eq!(server.post_events(&visit(1)).json()["accepted"], 1);
    server.ok(&["backup", "copy"]);
    let copy = server.folder().join("copy");
    let refused = |arguments: &[&str], what: &[&str]| {
        let output = server.throng(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        for what in what {
            assert!(said(&output).contains(what), "{arguments:?}: {}", said(&output));
        }
        assert!(!server.folder().join("new").exists(), "{arguments:?} leaves something");
    };
    let restore = ["restore", "copy", "--data", "new"];

    let ledger = fs::read(copy.join("ledger.redb")).unwrap();
    let mut bad = ledger.clone();
    bad[5_000] ^= 1;
    fs::write(copy.join("ledger.redb"), bad).unwrap();
    fs::rename(copy.join("cookie.key"), copy.join("elsewhere")).unwrap();
    refused(&restore, &["ledger.redb has other bytes", "cookie.key is missing"]);
    refused(&["backup", "--verify", "copy"], &["ledger.redb has other bytes"]);
    fs::write(copy.join("ledger.redb"), &ledger[..5_000]).unwrap();
    refused(&restore, &["ledger.redb has 5000 bytes of"]);
    fs::write(copy.join("ledger.redb"), ledger).unwrap();
    fs::rename(copy.join("elsewhere"), copy.join("cookie.key")).unwrap();

    let manifest = fs::read_to_string(copy.join("backup.json")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(manifest.contains(from));
        fs::write(copy.join("backup.json"), manifest.replacen(from, to, 1)).unwrap();
    };
    with("\"format\": 1", "\"format\": 2");
    refused(&restore, &["backup format 2", "a later one"]);
    with("\"throng\"", "\"another\"");
    refused(&restore, &["another program"]);
    with("\"path\": \"token\"", "\"path\": \"../token\"");
    refused(&restore, &["../token"]);
    fs::write(copy.join("backup.json"), &manifest[..manifest.len() / 2]).unwrap();
    refused(&restore, &["backup.json"]);
    fs::remove_file(copy.join("backup.json")).unwrap();
    refused(&restore, &["no backup"]);
    fs::write(copy.join("backup.json"), &manifest).unwrap();

    // Whole again, but not into these.
    refused(&["restore", "copy", "--data", "copy/new"], &["lies in the backup"]);
    fs::create_dir(server.folder().join("full")).unwrap();
    fs::write(server.folder().join("full/x"), "x").unwrap();
    refused(&["restore", "copy", "--data", "full"], &["not empty"]);
    let taken = server.throng(&["restore", "copy"]);
    assert_eq!(taken.status.code(), Some(3), "{taken:?}");
    assert!(said(&taken).contains(&format!("pid {}", server.pid())), "{}", said(&taken));
    let before = contents(&copy);
    let mut serve = server.command();
    let serve = serve.args(["--data", "copy"]).output().unwrap();
    assert_eq!(serve.status.code(), Some(3), "{serve:?}");
    assert!(said(&serve).contains("throng restore"), "{}", said(&serve));
    assert_eq!(contents(&copy), before, "nor does a server change it");
    server.ok(&restore);
    use std::os::unix::fs::PermissionsExt;
    for secret in ["token", "cookie.key", "segments/visitors.toml"] {
        for place in ["copy", "new"] {
            let path = server.folder().join(place).join(secret);
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

#[test]
fn a_directory_that_cannot_take_a_backup_is_told_and_left_alone() {
    let mut server = Server::start(&[]);
    let refused = |server: &Server, dir: &str, what: &str| {
        let output = server.throng(&["backup", dir]);
        assert_eq!(output.status.code(), Some(1), "{dir}: {output:?}");
        assert!(said(&output).contains(what), "{dir}: {}", said(&output));
    };
    refused(&server, "data/copy", "in the data directory");
    fs::create_dir_all(server.folder().join("full")).unwrap();
    std::os::unix::fs::symlink(server.data(), server.folder().join("link")).unwrap();
    refused(&server, "link/copy", "in the data directory");
    fs::write(server.folder().join("full/x"), "x").unwrap();
    refused(&server, "full", "not empty");
    refused(&server, "full/x/copy", "cannot");
    server.ok(&["backup", "copy"]);
    refused(&server, "copy", "a backup already");
    assert_eq!(contents(&server.folder().join("full")).len(), 1);
    let answer = server.api_send("POST", "/api/v1/backup", r#"{"dir":"here"}"#, "application/json");
    assert_eq!((answer.status, answer.body.contains("whole path")), (409, true), "{answer:?}");
    assert!(server.stop());
    assert_eq!(server.throng(&["backup", "later"]).status.code(), Some(3));
}

#[test]
fn a_server_that_is_killed_in_a_backup_leaves_none() {
    let mut server = Server::start(&[]);
    assert_eq!(server.post_events(&visit(1)).json()["accepted"], 1);
    let signal = |server: &Server, signal| {
        let pid = i32::try_from(server.pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    let mut rounds = 0..50;
    let name = loop {
        let name = format!("copy-{}", rounds.next().expect("no backup was met half-way"));
        let copy = server.folder().join(&name);
        let mut asking = Command::new(THRONG)
            .current_dir(server.folder())
            .args(["backup", &name])
            .env_remove("THRONG_DATA")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !copy.join("state.redb").exists() && asking.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        signal(&server, rustix::process::Signal::STOP);
        let is_half = copy.join("state.redb").exists() && !copy.join("backup.json").exists();
        if is_half {
            server.kill();
            assert_eq!(asking.wait().unwrap().code(), Some(3));
            break name;
        }
        signal(&server, rustix::process::Signal::CONT);
        asking.wait().unwrap();
    };
    let copy = server.folder().join(&name);
    assert!(!copy.join("backup.json").exists());
    for arguments in [&["backup", "--verify", &name][..], &["restore", &name, "--data", "new"]] {
        let output = server.throng(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said(&output).contains("cut short"), "{}", said(&output));
    }
    server.run();
    assert_eq!(server.count("did visit"), 1);
    server.ok(&["backup", "another"]);
    server.ok(&["backup", "--verify", "another"]);
}
