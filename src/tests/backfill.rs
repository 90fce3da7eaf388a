//! A new rule sees the past: its traits are filled from the archive while events come in, and a kill costs nothing.

use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

use super::archive::{in_bucket, keys};
use super::harness::Server;
use super::object_store::{ObjectStore, SECRET};

const USERS: u32 = 400;
const DAYS: u32 = 12;

/// An event a user and day, as long ago.
fn past(server: &Server) {
    let now = jiff::Timestamp::now();
    let mut all = Vec::new();
    for user in 0..USERS {
        for day in 0..DAYS {
            let time = now - jiff::SignedDuration::from_hours(i64::from(day) * 24);
            all.push(json!({ "site": "t", "event": "visit", "time": time.to_string(),
                             "ids": { "user_id": format!("u{user}") }, "props": { "n": user } }));
        }
    }
    for events in all.chunks(400) {
        let accepted = server.post_events(&Value::Array(events.to_vec())).json();
        assert_eq!(accepted["accepted"], events.len());
    }
}

fn audience(server: &Server, id: &str) -> Value {
    let answer = server.api(&format!("/api/v1/audiences/{id}"));
    if answer.status == 200 { answer.json() } else { Value::Null }
}

#[test]
fn a_fill_shows_how_far_it_is_goes_on_after_a_kill_and_counts_each_event_once() {
    let store = ObjectStore::start();
    let settings = format!("{}[segments]\nevery = \"50ms\"\n", in_bucket(&store, "fill"));
    let mut server = Server::start_in(&[], &settings, &[], &keys(SECRET));
    past(&server);
    server.until("the bucket has all", || server.metric("throng_archive_pending_bytes") == 0.0);
    // The store stands still in the middle of a fill: each rule is a try.
    let mut found = None;
    for attempt in 0..20 {
        let id = format!("loyal{attempt}");
        server.write_segment(&id, &format!("rule = 'count visit[n >= {attempt}] >= {DAYS}'"));
        let mut percent = 0;
        server.until("it is filled, or half filled", || {
            let audience = audience(&server, &id);
            percent = audience["backfill"].as_u64().unwrap_or(0);
            if percent > 0 {
                store.freeze(true);
            }
            percent > 0 || audience["state"] == "live"
        });
        if percent > 0 {
            found = Some((attempt, id));
            break;
        }
    }
    let (least, id) = found.expect("no fill was seen on its way");
    let mut seen = Value::Null;
    server.until("the audience says how far it is, as the metric does", || {
        seen = audience(&server, &id);
        seen["backfill"].as_f64() == Some(server.metric("throng_fill_percent"))
    });
    let percent = seen["backfill"].as_u64().unwrap();
    assert!((1..100).contains(&percent));
    assert_eq!(seen["state"], format!("backfilling {percent} %"));
    let listed = server.ok(&["audience", "list"]);
    assert!(listed.contains(&format!("backfilling {percent} %")), "{listed}");
    assert!(server.ok(&["audience", "show", &id]).contains("backfilling"));
    assert_eq!(server.metric("throng_traits_unfilled"), 1.0);
    // Folding goes on meanwhile, for users old and new.
    let visit = |user: u32| {
        json!({ "site": "t", "event": "visit", "ids": { "user_id": format!("u{user}") },
                "props": { "n": user } })
    };
    let more: Value = (0..USERS + 40).map(visit).collect();
    for events in more.as_array().unwrap().chunks(400) {
        assert_eq!(server.post_events(&json!(events)).json()["accepted"], events.len());
    }
    server.kill();
    server.run();
    server.until("it goes on where it was", || {
        audience(&server, &id)["backfill"].as_u64().is_some_and(|now| now >= percent)
    });
    server.kill();
    store.freeze(false);
    server.run();
    server.until("it is whole", || audience(&server, &id)["state"] == "live");
    assert_eq!(audience(&server, &id)["members"], u64::from(USERS - least));
    assert_eq!(server.metric("throng_fill_percent"), 100.0);
    // Each event once: 12 of the past and one that came meanwhile.
    for (rule, count) in [
        (format!("count visit[n >= {least}] = {}", DAYS + 1), USERS - least),
        (format!("count visit[n >= {least}] = 1"), 40),
        (format!("count visit[n >= {least}] > {}", DAYS + 1), 0),
    ] {
        assert_eq!(server.count(&rule), u64::from(count), "{rule}");
    }
    assert!(!server.data().join("fills/lane-0").exists());
}

#[test]
fn a_past_that_cannot_be_read_is_told_and_is_read_once_it_is_back() {
    let mut server = Server::start_with(
        &[],
        "[archive]\nfile_age = \"1s\"\n[segments]\nevery = \"50ms\"\n",
        &[],
    );
    past(&server);
    let below = |folders: Vec<PathBuf>| -> Vec<PathBuf> {
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let archive = server.data().join("archive");
    let files = || below(below(below(vec![archive.clone()])));
    server.until("all is archived", || {
        !files().is_empty() && server.metric("throng_archive_pending_bytes") == 0.0
    });
    server.stop();
    let file = files().pop().expect("a file of the archive");
    let away = server.folder().join("away");
    fs::rename(&file, &away).unwrap();
    server.run();
    server.write_segment("loyal", &format!("rule = 'count visit[n >= 0] >= {DAYS}'"));
    let state = || audience(&server, "loyal")["state"].as_str().unwrap_or_default().to_owned();
    server.until("it says why", || state().starts_with("failing: its past cannot be read: "));
    assert!(state().contains(".parquet"), "{}", state());
    let doctor = String::from_utf8(server.throng(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("the audience loyal is failing: its past cannot be read"), "{doctor}");
    let asked = server.throng(&["eval", "count visit[n >= 1] >= 2"]);
    assert_eq!(asked.status.code(), Some(3));
    let told = String::from_utf8(asked.stderr).unwrap();
    assert!(told.contains("503") && told.contains(".parquet"), "{told}");
    // An empty folder was swept away.
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::rename(&away, &file).unwrap();
    server.until("it is filled", || state() == "live");
    assert_eq!(audience(&server, "loyal")["members"], USERS);
}
