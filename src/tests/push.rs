//! Audiences on their way to a destination, as files.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
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
    assert!(server.ok(&["destination", "list"]).contains("files"));
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
