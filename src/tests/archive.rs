//! The archive, read by tools that others wrote.

use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::harness::Server;
use super::object_store::{ACCESS, BUCKET, ObjectStore, SECRET};
use super::redis_server;

/// The Python that `make test` prepares.
pub(super) fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make tools` once", python.display());
    python
}

const READ: &str = r#"
import sys, duckdb, pandas, glob, json
files = sorted(glob.glob(sys.argv[1] + "/**/*.parquet", recursive=True))
assert files, "no files"
rows = duckdb.sql(f"select event, ids, props, epoch_ms(time) from read_parquet({files!r}, hive_partitioning=true)").fetchall()
frame = pandas.concat(pandas.read_parquet(file) for file in files)
assert len(frame) == len(rows), (len(frame), len(rows))
values = sorted(json.loads(props)["n"] for _, _, props, _ in rows)
print(json.dumps({"rows": len(rows), "distinct": len(set(values)), "time": min(row[3] for row in rows)}))
"#;

#[test]
fn duckdb_and_pandas_read_every_counted_event_once() {
    let mut server = Server::start_with(
        &[],
        "[archive]\nfile_age = \"1s\"\n[events]\nretention = \"36500d\"\n",
        &[],
    );
    let post = |server: &Server, from: u32| {
        let events: Vec<_> = (from..from + 100)
            .map(|n| {
                json!({ "site": "t", "event": "visit", "message_id": format!("m{n}"),
                        "time": "1969-12-31T23:59:59.999Z", "ids": { "user_id": n.to_string() },
                        "props": { "n": n, "odd": "é\u{1f600}\"" } })
            })
            .collect();
        assert_eq!(server.post_events(&json!(events)).json()["accepted"], 100);
    };
    post(&server, 0);
    post(&server, 50); // Half of them are duplicates.
    let pending = |server: &Server| {
        let metrics = server.api("/metrics").body;
        let line = metrics.lines().find(|l| l.starts_with("throng_archive_pending_bytes")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    server.until("the archive has all", || pending(&server) == 0.0);
    server.kill();
    server.run();
    post(&server, 100);
    server.until("the archive has all again", || pending(&server) == 0.0);
    // Of a day that is over four files of a shard become one.
    for from in [200, 300, 400, 500, 600] {
        post(&server, from);
        server.until("the archive has all again", || pending(&server) == 0.0);
    }
    server.until("files become fewer", || {
        (1.0..65.0).contains(&server.metric("throng_archive_files"))
    });
    let read = || {
        Command::new(python())
            .args(["-c", READ])
            .arg(server.data().join("archive"))
            .output()
            .unwrap()
    };
    // A file that was listed may be part of a larger one, and gone, when it is read.
    let is_gone = |output: &Output| {
        let error = String::from_utf8_lossy(&output.stderr);
        ["No files found that match", "FileNotFoundError"].iter().any(|gone| error.contains(gone))
    };
    let mut output = read();
    for _ in 0..5 {
        if !is_gone(&output) {
            break;
        }
        output = read();
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.trim(), r#"{"rows": 700, "distinct": 700, "time": -1}"#);
    // A rule that nobody asked before is answered from it.
    assert_eq!(server.count("did visit[n >= 650]"), 50);
}

/// The same of a bucket: pandas by its own reader of S3, `DuckDB` over the same files.
const READ_BUCKET: &str = r#"
import sys, duckdb, pandas, json, pyarrow.fs, pyarrow.dataset
endpoint, path, access, secret = sys.argv[1:]
s3 = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, access_key=access, secret_key=secret, region="us-east-1")
events = pyarrow.dataset.dataset(path, filesystem=s3, format="parquet", partitioning="hive", exclude_invalid_files=True)
rows = duckdb.sql("select count(*), count(distinct event), count(distinct (sequence, shard)), sum(cast(props->>'n' as int)) from events").fetchall()[0]
frame = pandas.concat(pandas.read_parquet(file, filesystem=s3) for file in events.files)
assert len(frame) == rows[0], (len(frame), rows)
print(json.dumps(rows))
"#;

/// Settings of a server whose archive is in a bucket.
pub(super) fn in_bucket(store: &ObjectStore, prefix: &str) -> String {
    format!(
        "[archive]\nallow_private = true\npath = \"s3://{BUCKET}/{prefix}\"\nendpoint = \"{}\"\nfile_age = \"1s\"\n\
         access_key = \"env:KEY_OF_TEST\"\nsecret_key = \"env:SECRET_OF_TEST\"\n",
        store.endpoint()
    )
}

pub(super) fn keys(secret: &str) -> [(&'static str, String); 2] {
    [("KEY_OF_TEST", ACCESS.to_owned()), ("SECRET_OF_TEST", secret.to_owned())]
}

fn visits(users: std::ops::Range<u32>, event: &str) -> serde_json::Value {
    let one = |n: u32| {
        json!({ "site": "t", "event": event, "message_id": format!("{event}{n}"),
                "ids": { "user_id": format!("u{n}") }, "props": { "n": n } })
    };
    users.map(one).collect()
}

fn read_bucket(store: &ObjectStore, prefix: &str) -> String {
    let output = Command::new(python())
        .args(["-c", READ_BUCKET, &store.endpoint(), &format!("{BUCKET}/{prefix}"), ACCESS, SECRET])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_archive_in_a_bucket_outlives_its_server_and_ours_and_is_backed_up() {
    let store = ObjectStore::start();
    let mut server = Server::start_in(&[], &in_bucket(&store, "one"), &[], &keys(SECRET));
    let pending = |server: &Server| server.metric("throng_archive_pending_bytes");
    assert_eq!(server.post_events(&visits(0..100, "visit")).json()["accepted"], 100);
    server.until("the bucket has all", || pending(&server) == 0.0);
    // While the store is away events are taken and counted, and the journal keeps them.
    store.kill();
    assert_eq!(server.post_events(&visits(100..150, "visit")).json()["accepted"], 50);
    server.until("it says so", || server.log().contains("the archive cannot go on"));
    assert!(!server.log().contains(SECRET));
    let doctor = server.throng(&["doctor"]);
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(!doctor.status.success() && told.contains("s3://events/one takes nothing"), "{told}");
    assert!(pending(&server) > 0.0);
    server.kill();
    server.run();
    let members = server.api("/api/v1/audiences");
    assert_eq!(members.status, 200, "a start asks nothing of the store: {members:?}");
    store.restart();
    server.until("the bucket has all again", || pending(&server) == 0.0);
    assert_eq!(read_bucket(&store, "one"), "[150, 1, 150, 11175]");
    assert!(!server.data().join("archive").exists());
    // A rule that nobody asked before is answered from it, and a backup has its files.
    assert_eq!(server.count("did visit[n >= 90]"), 60);
    server.ok(&["backup", "copy"]);
    server.ok(&["backup", "--verify", "copy"]);
    assert!(server.folder().join("copy/archive").is_dir());
    assert!(server.ok(&["doctor"]).contains("s3://events/one takes files"));
}

#[test]
fn a_wrong_key_is_told_and_its_events_are_kept_until_it_is_right() {
    let store = ObjectStore::start();
    let mut server = Server::start_in(&[], &in_bucket(&store, ""), &[], &keys("not-this-one"));
    assert_eq!(server.post_events(&visits(0..10, "visit")).json()["accepted"], 10);
    server.until("it says so", || server.log().contains("the store does not know these keys"));
    assert!(!server.log().contains("not-this-one"));
    assert_eq!(server.count("did visit"), 10);
    server.kill();
    server.set_environment(&keys(SECRET));
    server.run();
    server.until("the bucket has all", || server.metric("throng_archive_pending_bytes") == 0.0);
    assert_eq!(read_bucket(&store, ""), "[10, 1, 10, 45]");
}

#[test]
fn workers_share_a_bucket_and_read_what_a_dead_one_wrote() {
    let store = ObjectStore::start();
    let redis = redis_server::Server::start(&[]);
    let settings = format!(
        "[store]\nbackend = \"redis\"\nurl = \"{}\"\nshards = 8\nlanes = 4\n{}",
        redis.url(),
        in_bucket(&store, "shared")
    );
    let start = |role: &str| Server::start_in(&[], &settings, &["--role", role], &keys(SECRET));
    let collector = start("collect");
    let (first, mut second) = (start("work"), start("work"));
    let lanes = |node: &Server| node.metric("throng_lanes_held");
    first.until("the lanes are shared", || lanes(&first) == 2.0 && lanes(&second) == 2.0);
    let pending = |node: &Server| node.metric("throng_archive_pending_bytes");
    for batch in 0..5 {
        let events = visits(batch * 100..(batch + 1) * 100, "visit");
        assert_eq!(collector.post_events(&events).json()["accepted"], 100);
    }
    collector.until("a node answers", || collector.throng(&["eval", "everyone"]).status.success());
    assert_eq!(collector.count("everyone"), 500);
    first.until("the bucket has all", || pending(&first) == 0.0 && pending(&second) == 0.0);
    assert_eq!(read_bucket(&store, "shared"), "[500, 1, 500, 124750]");
    second.kill();
    first.until("the lanes of the dead are taken", || lanes(&first) == 4.0);
    first.until("a node answers", || first.throng(&["eval", "everyone"]).status.success());
    assert_eq!(first.count("did visit[n >= 450]"), 50);
    assert_eq!(collector.post_events(&visits(0..40, "view")).json()["accepted"], 40);
    assert_eq!(first.count("did view and did visit[n < 20]"), 20);
    first.until("the bucket has all again", || pending(&first) == 0.0);
    assert_eq!(read_bucket(&store, "shared"), "[540, 2, 540, 125530]");
}

#[test]
fn a_store_moves_into_a_bucket_and_out_of_it() {
    let store = ObjectStore::start();
    let redis = redis_server::Server::start(&[]);
    let url = redis.url();
    let mut embedded = Server::start(&[]);
    let set = |name: &str, key: &str| {
        let path = embedded.folder().join(name);
        std::fs::write(&path, key).unwrap();
        format!("archive.{name}=file:{}", path.display())
    };
    let (access, secret) = (set("access_key", ACCESS), set("secret_key", SECRET));
    let endpoint = format!("archive.endpoint={}", store.endpoint());
    let keys_of = |arguments: &[&str]| -> Vec<String> {
        let private = "archive.allow_private=true".to_owned();
        let sets =
            [&endpoint, &access, &secret, &private].map(|set| ["--set".to_owned(), set.clone()]);
        arguments.iter().map(|a| (*a).to_owned()).chain(sets.into_iter().flatten()).collect()
    };
    assert_eq!(embedded.post_events(&visits(0..60, "visit")).json()["accepted"], 60);
    assert!(embedded.stop());
    let bucket = format!("s3://{BUCKET}/moved");
    let there = keys_of(&["move", "--from", "data", "--to", &url, "--archive", &bucket, "--json"]);
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    let answer: serde_json::Value = serde_json::from_str(&embedded.ok(&there)).unwrap();
    assert_eq!((&answer["same"], &answer["archive"]), (&json!(true), &json!(bucket)), "{answer}");
    assert_eq!(read_bucket(&store, "moved"), "[60, 1, 60, 1770]");

    let settings =
        format!("[store]\nbackend = \"redis\"\nurl = \"{url}\"\n{}", in_bucket(&store, "moved"));
    let mut shared = Server::start_in(&[], &settings, &[], &keys(SECRET));
    shared.until("its lanes are taken", || shared.throng(&["eval", "everyone"]).status.success());
    assert_eq!(shared.post_events(&visits(50..80, "visit")).json()["accepted"], 30);
    assert_eq!(shared.count("did visit[n >= 40]"), 40);
    assert!(shared.stop());
    let back = keys_of(&["move", "--from", &url, "--to", "other", "--archive", "other/archive"]);
    let at = format!("archive.path={bucket}");
    let back: Vec<&str> = back.iter().map(String::as_str).chain(["--set", &at]).collect();
    let text = embedded.ok(&back);
    assert!(!text.contains("DIFFERS"), "{text}");
    let data = embedded.folder().join("other").to_str().unwrap().to_owned();
    let again = Server::start_with(&[], "", &["--data", &data]);
    let count = again.throng(&["--data", &data, "eval", "did visit[n >= 40]"]).stdout;
    assert_eq!(count, b"40\n");
}
