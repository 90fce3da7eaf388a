//! Audiences on their way to a destination, as files.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::harness::Server;

const DESTINATION: &str = "[[destination]]\nname = \"files\"\nkind = \"file\"\npath = \"pushed\"\n\
                           format = \"csv\"\nevery = \"1h\"\n";
const SEGMENT: &str = "rule = 'did purchase[size > 1] in 1h'\nmin_size = 2\n\
                       [[activate]]\ndestination = \"files\"\n";

fn start() -> Server {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    fs::write(server.folder().join("destinations.toml"), DESTINATION).unwrap();
    server.run();
    server
}

fn purchase(server: &Server, user: &str, size: u64) {
    let event = json!({ "site": "t", "event": "purchase", "ids": { "user_id": user, "crm_id": "7" },
                        "props": { "size": size } });
    assert_eq!(server.post_events(&event).json()["accepted"], 1);
}

#[test]
fn what_the_server_writes_is_its_own_but_for_what_is_pushed() {
    let mut server = start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.data()), 0o700);
    // A directory that was there already may be open: it is told, and what is written into it is closed all the same.
    assert!(server.stop());
    fs::remove_dir_all(server.data()).unwrap();
    fs::create_dir(server.data()).unwrap();
    fs::set_permissions(server.data(), fs::Permissions::from_mode(0o755)).unwrap();
    server.run();
    assert!(server.log().contains("is open to others"), "{}", server.log());
    ["ann", "bob"].iter().for_each(|user| purchase(&server, user, 2));
    server.until("both are pushed", || push(&server)["held"].as_u64() >= Some(2));
    let mut folders = vec![server.data().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            match path.is_dir() {
                true => folders.push(path),
                false => files += 1,
            }
        }
    }
    assert!(files > 5, "{files}");
    // As any program of this user would make them.
    let like = server.folder().join("like");
    fs::create_dir(&like).unwrap();
    fs::write(like.join("file"), "").unwrap();
    let pushed = server.folder().join("pushed/buyers");
    assert_eq!(mode(&pushed), mode(&like));
    let file = fs::read_dir(&pushed).unwrap().next().unwrap().unwrap().path();
    assert_eq!(mode(&file), mode(&like.join("file")));
}

#[test]
fn who_is_suppressed_or_was_not_seen_lately_is_taken_back_and_the_waterfall_says_so() {
    let segments = [
        ("buyers", "rule = 'did purchase'\nmin_size = 1\n[[activate]]\ndestination = \"files\"\n"),
        ("staff", "rule = 'did clock_in'\n"),
        ("seen", "rule = 'did purchase in 1h or did page_view in 1h'\n"),
    ];
    let mut server = Server::start(&segments);
    assert!(server.stop());
    let terms = "suppress = [\"staff\"]\nfresh = \"seen\"\n";
    fs::write(server.folder().join("destinations.toml"), format!("{DESTINATION}{terms}")).unwrap();
    server.run();
    let event = |name: &str, user: u32| json!({ "site": "t", "event": name, "ids": { "user_id": user.to_string() } });
    // Of two days ago, in milliseconds as files have them.
    let made = fs::metadata(server.folder().join("throng.toml")).unwrap().modified().unwrap();
    let time =
        made.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() * 1_000 - 2 * 86_400_000;
    let old = |user: u32| json!({ "site": "t", "event": "purchase", "time": time, "ids": { "user_id": user.to_string() } });
    let mut events: Vec<Value> = (0..10).map(|user| event("purchase", user)).collect();
    assert_eq!(server.post_events(&Value::Array(events.clone())).json()["accepted"], 10);
    server.until("all are held", || push(&server)["held"] == 10);
    events = vec![event("clock_in", 3), event("clock_in", 4)];
    server.post_events(&Value::Array(events));
    // Paused, they go all the same.
    server.ok(&["destination", "pause", "files"]);
    server.until("two are taken back", || {
        let _ = server.throng(&["destination", "push", "files"]);
        held(&server.folder().join("pushed/buyers")).len() == 8
    });
    server.ok(&["destination", "resume", "files"]);
    // Who bought something long ago is a buyer, and was not seen lately.
    let folder = server.folder().join("old.ndjson");
    fs::write(&folder, format!("{}\n", old(77))).unwrap();
    server.ok(&["import", "events", folder.to_str().unwrap()]);
    server.until("the waterfall has them all", || {
        let shown =
            server.ok(&["destination", "waterfall", "files", "--segment", "buyers", "--json"]);
        let shown = serde_json::from_str::<Value>(&shown).unwrap()[0].clone();
        let counts: Vec<u64> = shown["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["count"].as_u64().unwrap())
            .collect();
        counts == [11, 11, 9, 8, 8, 8, 8, 8]
    });
    let shown = server.ok(&["destination", "waterfall", "files"]);
    for part in ["-2 suppressed: in staff", "-1 stale: not in seen", "above minimum", "█"] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    assert!(
        server
            .api("/metrics")
            .body
            .contains(r#"throng_waterfall{destination="files",segment="buyers",step="members"}"#)
    );
}

/// What the files say the destination holds, in the order they were written.
pub(super) fn held(folder: &Path) -> BTreeSet<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    files.sort_by_key(|path| {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (generation, sequence) = stem.split_once('-').unwrap();
        (generation.parse::<u64>().unwrap(), sequence.parse::<u64>().unwrap())
    });
    let mut held = BTreeSet::new();
    for file in files {
        let mut rows = csv::Reader::from_path(&file).unwrap();
        assert_eq!(rows.headers().unwrap(), vec!["action", "namespace", "value"]);
        for row in rows.records() {
            let row = row.unwrap();
            let identifier = (row[1].to_owned(), row[2].to_owned());
            match &row[0] {
                "add" => held.insert(identifier),
                "remove" => held.remove(&identifier),
                other => panic!("{other}"),
            };
        }
    }
    held
}

pub(super) fn push(server: &Server) -> Value {
    let text = server.ok(&["destination", "push", "files", "--json"]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

#[test]
fn a_destination_follows_its_audience() {
    let mut server = start();
    let folder = server.folder().join("pushed").join("buyers");
    purchase(&server, "1", 2);
    assert_eq!(push(&server)["below_minimum"], true);
    assert!(held(&folder).is_empty(), "one member is below min_size");

    purchase(&server, "2", 2);
    let dry: Value =
        serde_json::from_str(&server.ok(&["destination", "push", "files", "--dry-run", "--json"]))
            .unwrap();
    assert_eq!(dry[0]["adds"], 3);
    assert!(held(&folder).is_empty(), "a dry run sends nothing");
    assert_eq!(push(&server)["adds"], 3);
    let id = |namespace: &str, value: &str| (namespace.to_owned(), value.to_owned());
    let both = BTreeSet::from([id("user_id", "1"), id("user_id", "2"), id("crm_id", "7")]);
    assert_eq!(held(&folder), both);
    assert_eq!(push(&server)["adds"], 0, "nothing is sent twice");

    server.kill();
    server.run();
    assert_eq!(push(&server)["adds"], 0, "nor after a kill");

    // The shared identifier stays while one member has it.
    let narrower = SEGMENT.replace("size > 1", "size > 2");
    purchase(&server, "2", 3);
    server.write_segment("buyers", &narrower);
    server.until("the edited rule is live", || {
        server.api("/api/v1/audiences/buyers").json()["members"] == 1
    });
    assert_eq!(push(&server)["removes"], 1);
    assert_eq!(held(&folder), BTreeSet::from([id("user_id", "2"), id("crm_id", "7")]));

    fs::remove_file(server.folder().join("segments/buyers.toml")).unwrap();
    server.until("the segment is gone", || server.api("/api/v1/audiences/buyers").status == 404);
    push(&server);
    assert!(held(&folder).is_empty(), "a segment that is gone holds nothing anywhere");
    let listed = server.ok(&["destination", "list"]);
    let line = listed.lines().find(|line| line.starts_with("files ")).unwrap();
    assert!(line.contains(" s ago") && line.contains(" in ") && line.ends_with("well"), "{listed}");
}

#[test]
fn a_folder_that_is_gone_or_a_retention_too_short_empties_no_destination() {
    let mut server = start();
    let folder = server.folder().join("pushed").join("buyers");
    purchase(&server, "1", 2);
    purchase(&server, "2", 2);
    push(&server);
    let full = held(&folder);
    assert_eq!(full.len(), 3);

    // Started with a folder that is not there, as by a slip of the pen.
    let (segments, aside) = (server.folder().join("segments"), server.folder().join("aside"));
    assert!(server.stop());
    fs::rename(&segments, &aside).unwrap();
    server.run();
    assert_eq!(push(&server)["removes"], 0);
    assert!(server.api("/api/v1/audiences").body.contains("cannot be read"));
    assert_eq!(held(&folder), full);
    fs::rename(&aside, &segments).unwrap();
    server.until("the folder is read again", || {
        !server.api("/api/v1/audiences").body.contains("cannot be read")
    });

    // Nobody touches the file, and it reaches too far back all at once.
    server.write_segment("buyers", &SEGMENT.replace("in 1h", "in 60d"));
    server.until("the longer window is live", || {
        server.api("/api/v1/segments/buyers").body.contains("60d")
    });
    push(&server);
    assert!(server.stop());
    let settings = server.folder().join("throng.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("[events]\nretention = \"30d\"\n{text}")).unwrap();
    server.run();
    let output = server.throng(&["destination", "push", "files", "--json"]).stdout;
    let report = serde_json::from_slice::<Value>(&output).unwrap()[0].clone();
    assert_eq!((&report["removes"], &report["held"]), (&json!(0), &json!(3)), "{report}");
    assert_eq!(held(&folder), full);
    assert!(server.api("/api/v1/audiences").body.contains(r#""frozen":true"#));
}
