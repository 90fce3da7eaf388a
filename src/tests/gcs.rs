//! Audiences on their way into a bucket of Google Cloud Storage.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use super::archive::python;
use super::harness::{Server, post};
use super::killed::Pushes;
use super::push::held;
use super::standins::gcs::Gcs;
use super::standins::{Fault, Reply, StandIn};

const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"bucket\"\n";

fn purchases(server: &Server, users: std::ops::Range<u32>) {
    let events: Vec<Value> = users
        .map(|user| json!({ "site": "t", "event": "purchase", "ids": { "user_id": format!("u{user}") } }))
        .collect();
    server.accepts(&events);
}

/// The official client, which reads what is there.
const READ: &str = r#"
import os, sys
from google.cloud import storage
from google.oauth2.credentials import Credentials
address, folder, token = sys.argv[1:]
client = storage.Client(project="p", credentials=Credentials(token), client_options={"api_endpoint": f"http://{address}"})
for blob in client.list_blobs("partner"):
    path = os.path.join(folder, blob.name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    blob.download_to_filename(path)
"#;

fn start(standin: &StandIn) -> Server {
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"bucket\"\nkind = \"gcs\"\nallow_private = true\npath = \"gs://partner/in box\"\nurl = \"http://{0}\"\n\
         token_url = \"http://{0}/token\"\nrefresh_token = \"file:refresh\"\nclient_id = \"c\"\n\
         client_secret = \"file:refresh\"\nevery = \"1h\"\n",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("refresh"), "r\n").unwrap();
    server.run();
    server
}

#[test]
fn a_bucket_is_kept_in_step_whatever_becomes_of_calls_and_nothing_in_it_is_written_over() {
    let storage = Arc::new(Gcs::new("partner"));
    let standin = StandIn::start(Arc::clone(&storage) as _, None);
    let server = start(&standin);
    assert!(server.ok(&["destination", "test", "bucket"]).contains("ready"));
    assert!(storage.objects().is_empty(), "what is tried is taken away again");
    purchases(&server, 0..300);
    storage.expire_tokens();
    standin.script([
        Fault::Pass,
        Fault::Refuse(Reply::new(503, "busy")),
        Fault::LoseAnswer,
        Fault::Lose,
        Fault::Refuse(Reply::new(429, "{}").with("Retry-After", "1")),
    ]);
    server.until("all are held", || server.push("bucket")["held"] == 300);
    let body = json!({ "site": "t", "event": "x", "ids": { "user_id": "u7" } }).to_string();
    let url = format!("{}/v1/events", server.collect());
    assert_eq!(post(&url, &body, &[("Sec-GPC", "1")]).json()["accepted"], 1);
    server.until("who opted out is removed", || server.push("bucket")["held"] == 299);

    let fetched = tempfile::tempdir().unwrap();
    let read = Command::new(python())
        .args(["-c", READ, &standin.address.to_string()])
        .arg(fetched.path())
        .arg("ya29.1")
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let mut expected: BTreeSet<_> =
        (0..300).map(|user| ("user_id".to_owned(), format!("u{user}"))).collect();
    expected.remove(&("user_id".to_owned(), "u7".to_owned()));
    assert_eq!(held(&fetched.path().join("in box/buyers")), expected);

    // What has the name of the next object, and other content, is not written over.
    let deliveries = server.ok(&["destination", "deliveries", "bucket", "--json"]);
    let last =
        serde_json::from_str::<Value>(&deliveries).unwrap()[0]["generation"].as_u64().unwrap();
    let known = storage.objects();
    for generation in last..last + 40 {
        for seq in 1..4 {
            let name = format!("in box/buyers/{generation}-{seq}.csv");
            if !known.contains_key(&name) {
                storage.put(&name, "theirs");
            }
        }
    }
    purchases(&server, 400..401);
    server.until("it is told", || {
        server.push("bucket")["trouble"]
            .as_str()
            .is_some_and(|why| why.contains("with other content"))
    });
}

#[test]
fn a_crash_at_any_call_leaves_a_bucket_in_step() {
    let storage = Arc::new(Gcs::new("partner"));
    let standin = StandIn::start(Arc::clone(&storage) as _, None);
    let server = start(&standin);
    let has = |people: &BTreeSet<u32>| {
        let mut objects: Vec<_> = storage.objects().into_iter().collect();
        // By generation and number.
        let order = |name: &str| -> Vec<u64> {
            let name = name.rsplit('/').next().unwrap().trim_end_matches(".csv");
            name.split('-').map(|number| number.parse().unwrap()).collect()
        };
        objects.sort_by_key(|(name, _)| order(name));
        let mut held = BTreeSet::new();
        for line in objects.iter().flat_map(|(_, text)| text.lines().skip(1)) {
            match line.split(',').collect::<Vec<_>>()[..] {
                ["add", "user_id", user] => _ = held.insert(user.to_owned()),
                ["remove", "user_id", user] => _ = held.remove(user),
                _ => panic!("{line}"),
            }
        }
        held == people.iter().map(|one| format!("u{one}")).collect()
    };
    let event = |user: u32| json!({ "site": "t", "event": "purchase", "ids": { "user_id": format!("u{user}") } });
    Pushes { server, standin: &standin, destination: "bucket", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
