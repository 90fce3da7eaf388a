//! An audience on its way into a bucket, read there by AWS's own library.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::archive::{keys, python};
use super::harness::Server;
use super::object_store::{ACCESS, BUCKET, ObjectStore, SECRET};

const SEGMENT: &str = "rule = 'did purchase in 1h'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"bucket\"\nidentifiers = [\"user_id\"]\n";

/// Applies the files of a segment in their order.
const READ: &str = r#"
import sys, csv, io, json, boto3
endpoint, access, secret, bucket, prefix = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret, region_name="us-east-1")
names = [o["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix) for o in page.get("Contents", [])]
numbers = lambda name: [int(n) for n in name.rsplit("/", 1)[1].removesuffix(".csv").split("-")]
held = set()
for name in sorted(names, key=numbers):
    text = s3.get_object(Bucket=bucket, Key=name)["Body"].read().decode()
    for row in csv.DictReader(io.StringIO(text, newline="")):
        (held.add if row["action"] == "add" else held.discard)(row["value"])
print(json.dumps({"files": len(names), "held": sorted(held)}))
"#;

fn read(store: &ObjectStore, prefix: &str) -> (u64, BTreeSet<String>) {
    let output = Command::new(python())
        .args(["-c", READ, &store.endpoint(), ACCESS, SECRET, BUCKET, prefix])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let held = read["held"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
    (read["files"].as_u64().unwrap(), held.collect())
}

fn purchases(server: &Server, users: std::ops::Range<u32>) {
    let one = |user: u32| json!({ "site": "t", "event": "purchase", "ids": { "user_id": user.to_string() } });
    let events: Vec<Value> = users.map(one).collect();
    assert_eq!(server.post_events(&Value::Array(events.clone())).json()["accepted"], events.len());
}

fn users(users: std::ops::Range<u32>) -> BTreeSet<String> {
    users.map(|user| user.to_string()).collect()
}

#[test]
fn a_bucket_is_kept_in_step_and_nothing_in_it_is_written_over() {
    let store = ObjectStore::start();
    let mut server = Server::start_in(&[("buyers", SEGMENT)], "", &[], &keys(SECRET));
    assert!(server.stop());
    let destination = |prefix: &str| {
        format!(
            "[[destination]]\nname = \"bucket\"\nkind = \"s3\"\nallow_private = true\npath = \"s3://{BUCKET}/{prefix}\"\n\
             endpoint = \"{}\"\naccess_key = \"env:KEY_OF_TEST\"\nsecret_key = \"file:key\"\nevery = \"1h\"\n",
            store.endpoint()
        )
    };
    let file = server.folder().join("destinations.toml");
    fs::write(&file, destination("partner/a")).unwrap();
    fs::write(server.folder().join("key"), "wrong").unwrap();
    server.run();
    purchases(&server, 0..300);
    server.until("keys are refused", || {
        server.push("bucket")["trouble"]
            .as_str()
            .is_some_and(|why| why.contains("does not know these keys"))
    });
    assert_eq!(server.throng(&["destination", "test", "bucket"]).status.code(), Some(1));
    // Another key is read without a restart.
    fs::write(server.folder().join("key"), SECRET).unwrap();
    server.until("the bucket is in step", || server.push("bucket")["held"] == 300);
    assert!(server.ok(&["destination", "test", "bucket"]).contains("ready"));
    assert_eq!(read(&store, "partner/a/buyers/"), (1, users(0..300)));

    purchases(&server, 300..310);
    server.kill();
    server.run();
    server.until("it goes on", || server.push("bucket")["held"] == 310);
    let (files, held) = read(&store, "partner/a/");
    assert!(files >= 2 && held == users(0..310), "{files}");

    // Another installation that was given the same place does not write over what is there.
    let mut other = Server::start_in(&[("buyers", SEGMENT)], "", &[], &keys(SECRET));
    assert!(other.stop());
    fs::write(other.folder().join("destinations.toml"), destination("partner/a")).unwrap();
    fs::write(other.folder().join("key"), SECRET).unwrap();
    other.run();
    purchases(&other, 900..901);
    other.until("it is refused, or has other names", || {
        let report = other.push("bucket");
        let is_other = |why: &str| why.contains("written from another data directory");
        report["trouble"].as_str().is_some_and(is_other) || report["held"] == 1
    });
    assert!(users(0..310).is_subset(&read(&store, "partner/a/").1));

    fs::remove_file(server.folder().join("segments/buyers.toml")).unwrap();
    server.until("nothing is held", || {
        let output = server.throng(&["destination", "push", "bucket", "--json"]);
        let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
        reports.as_array().unwrap().iter().all(|report| report["held"] == 0)
            && read(&store, "partner/a/").1.is_disjoint(&users(0..310))
    });
}
