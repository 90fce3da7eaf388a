//! Whole audiences on their way to LiveRamp, wherever files are put.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use super::archive::keys;
use super::archive::python;
use super::harness::Server;
use super::harness::post;
use super::object_store::ACCESS;
use super::object_store::BUCKET;
use super::object_store::ObjectStore;
use super::object_store::SECRET;
use super::sftp::Sshd;
use super::sftp::user;
use super::standins::Fault;
use super::standins::Reply;
use super::standins::StandIn;
use super::standins::gcs::Gcs;

const SEGMENT: &str = "rule = 'did purchase in 1h'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"files\"\n[[activate]]\ndestination = \"s3\"\n\
                       [[activate]]\ndestination = \"gcs\"\n[[activate]]\ndestination = \"sftp\"\n";
const NAMES: [&str; 4] = ["files", "s3", "gcs", "sftp"];

/// A server that writes the same audience to a folder, two buckets and a server.
struct Places {
    server: Server,
    store: ObjectStore,
    storage: Arc<Gcs>,
    standin: StandIn,
    sshd: Sshd,
}

const FETCH: &str = r#"
import sys, boto3
endpoint, access, secret, bucket, folder = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret, region_name="us-east-1")
for found in s3.list_objects_v2(Bucket=bucket, Prefix="lr/").get("Contents", []):
    s3.download_file(bucket, found["Key"], folder + "/" + found["Key"].removeprefix("lr/"))
"#;

impl Places {
    fn start(segments: &[(&str, &str)]) -> Self {
        let (store, sshd) = (ObjectStore::start(), Sshd::new());
        let storage = Arc::new(Gcs::new("partner"));
        let standin = StandIn::start(Arc::clone(&storage) as _, None);
        let mut server = Server::start_in(segments, "", &[], &keys(SECRET));
        assert!(server.stop());
        let of_all = "format = \"liveramp\"\nevery = \"1h\"\n\
                      columns = { phone = \"phone_national_sha1\", email = \"email_sha256\", crm = \"crm_id\" }\n";
        let destinations = [
            "kind = \"file\"\npath = \"pushed\"\n".to_owned(),
            format!(
                "kind = \"s3\"\nallow_private = true\npath = \"s3://{BUCKET}/lr\"\nendpoint = \"{}\"\naccess_key = \"env:KEY_OF_TEST\"\n\
                 secret_key = \"env:SECRET_OF_TEST\"\n",
                store.endpoint()
            ),
            format!(
                "kind = \"gcs\"\nallow_private = true\npath = \"gs://partner/lr\"\nurl = \"http://{0}\"\ntoken_url = \"http://{0}/token\"\n\
                 refresh_token = \"file:refresh\"\nclient_id = \"c\"\nclient_secret = \"file:refresh\"\n",
                standin.address
            ),
            format!(
                "kind = \"sftp\"\nallow_private = true\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\npath = \"{}\"\nhost_key = \"{}\"\nkey = \"file:{}\"\n",
                sshd.port,
                user(),
                sshd.at("inbox").display(),
                sshd.fingerprint(),
                sshd.at("client").display()
            ),
        ];
        let destinations: String = NAMES
            .iter()
            .zip(destinations)
            .map(|(name, kind)| format!("[[destination]]\nname = \"{name}\"\n{kind}{of_all}"))
            .collect();
        fs::write(server.folder().join("destinations.toml"), destinations).unwrap();
        fs::write(server.folder().join("refresh"), "r\n").unwrap();
        server.run();
        Self { server, store, storage, standin, sshd }
    }

    /// Pushes to all; the report of each.
    fn push(&self) -> Vec<Value> {
        NAMES.map(|name| self.server.push(name)).to_vec()
    }

    /// The files at each place, by name.
    fn files(&self) -> [BTreeMap<String, String>; 4] {
        let read = |folder: &std::path::Path| -> BTreeMap<String, String> {
            let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
            let entries = entries.map(|entry| entry.unwrap());
            let text = |entry: &fs::DirEntry| fs::read_to_string(entry.path()).unwrap();
            entries.map(|one| (one.file_name().into_string().unwrap(), text(&one))).collect()
        };
        let fetched = tempfile::tempdir().unwrap();
        let ran = Command::new(python())
            .args(["-c", FETCH, &self.store.endpoint(), ACCESS, SECRET, BUCKET])
            .arg(fetched.path())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let objects = self.storage.objects();
        let objects = objects.into_iter();
        let objects =
            objects.map(|(name, text)| (name.strip_prefix("lr/").unwrap().to_owned(), text));
        [
            read(&self.server.folder().join("pushed")),
            read(fetched.path()),
            objects.collect(),
            read(&self.sshd.fetch()),
        ]
    }

    /// The last file, which is the same everywhere, and how many there are.
    fn last(&self) -> (String, usize) {
        let number = |name: &str| -> (u64, u64) {
            let (generation, seq) = name
                .strip_prefix("buyers_")
                .unwrap()
                .strip_suffix(".csv")
                .unwrap()
                .split_once('-')
                .unwrap();
            (generation.parse().unwrap(), seq.parse().unwrap())
        };
        let all = self.files();
        let last = all.each_ref().map(|files| {
            let last = files.iter().max_by_key(|(name, _)| number(name)).unwrap();
            (last.1.clone(), files.len())
        });
        for (at, one) in NAMES.iter().zip(&last) {
            assert!(*one == last[0], "{at} has {} files, the last of {} bytes", one.1, one.0.len());
        }
        last[0].clone()
    }
}

/// What a reader of CSV makes of a file: the values of each column.
fn columns(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in reader.records() {
        let row = row.unwrap();
        assert_eq!(row.iter().skip(1).filter(|cell| !cell.is_empty()).count(), 1, "{row:?}");
        for (name, cell) in names.iter().zip(row.iter()).filter(|(_, cell)| !cell.is_empty()) {
            assert!(
                columns.entry(name.clone()).or_default().insert(cell.to_owned()),
                "{cell} twice"
            );
        }
    }
    columns
}

fn purchase(person: u32) -> Value {
    json!({ "site": "t", "event": "purchase", "ids": {
        "cookie": format!("c{person}"), "crm_id": format!("\"{person}\", and more"),
        "email": format!("Jane.Doe+News{person}@gmail.com"), "phone": format!("+1 (206) 555-{person:04}") } })
}

#[test]
fn the_same_whole_audience_is_everywhere_and_follows_what_changes_alone() {
    let mut places = Places::start(&[("buyers", SEGMENT)]);
    let few: Vec<Value> = (100..108).map(purchase).collect();
    places.server.accepts(&few);
    for report in places.push() {
        let note = report["note"].as_str().unwrap_or_default();
        assert!(note.contains("24 lines, and LiveRamp takes no fewer than 25"), "{report}");
    }
    assert!(places.files().iter().all(BTreeMap::is_empty));
    let more: Vec<Value> = (108..130).map(purchase).collect();
    places.server.accepts(&more);
    let vector = json!({ "site": "t", "event": "purchase", "ids": {
        "cookie": "v", "email": " Jane.Doe+News@gmail.com", "phone": "+1 (206) 555-0100" } });
    places.server.accepts(&[vector]);
    // Calls that go wrong are made again, under the same name.
    places.standin.script([
        Fault::Pass,
        Fault::Refuse(Reply::new(503, "busy")),
        Fault::LoseAnswer,
        Fault::Pass,
        Fault::LoseAnswer,
    ]);
    places.server.until("all have it", || {
        places.push().iter().all(|report| report["trouble"].is_null())
            && places.standin.is_through()
    });
    let (text, count) = places.last();
    assert_eq!(count, 1);
    assert!(
        text.starts_with("audience_key,crm,email,phone\n\"") && !text.ends_with('\n'),
        "{text}"
    );
    let found = columns(&text);
    // The phone of the vector is that of number 100, too.
    assert_eq!(["crm", "email", "phone"].map(|name| found[name].len()), [30, 31, 30]);
    assert_eq!(found["audience_key"].len(), 91);
    assert!(
        found["email"].contains("f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a")
    );
    assert!(found["phone"].contains("4147a9251399181cf7aee7bfdc969ab835aa5d89"));
    assert!(found["crm"].contains("\"107\", and more") && !text.contains("c107"));

    // Nothing changed, also for the next process.
    assert!(places.push().iter().all(|report| report["note"].is_null()));
    assert!(places.server.stop());
    places.server.run();
    places.push();
    assert_eq!(places.last().1, 1);

    let body = json!({ "site": "t", "event": "x", "ids": { "cookie": "c107" } }).to_string();
    let url = format!("{}/v1/events", places.server.collect());
    assert_eq!(post(&url, &body, &[("Sec-GPC", "1")]).json()["accepted"], 1);
    places.server.until("who opted out is in no new file", || {
        places.push();
        !places.last().0.contains("\"\"107\"\", and more")
    });
    let (text, count) = places.last();
    let now = columns(&text);
    assert_eq!((count, now["audience_key"].len()), (2, 88));
    assert!(now["audience_key"].is_subset(&found["audience_key"]), "who stays has the same key");

    // A segment that is gone leaves a file with nobody in it.
    fs::remove_file(places.server.folder().join("segments/buyers.toml")).unwrap();
    places.server.until("nobody is there", || {
        places.push();
        places.last().0 == "audience_key,crm,email,phone"
    });
    assert_eq!(fs::read_dir(places.server.data().join("snapshots")).unwrap().count(), 0);
}

#[test]
fn a_file_of_many_parts_comes_whole() {
    let places = Places::start(&[]);
    let file = places.server.folder().join("events.ndjson");
    let event = |person: u32| {
        let id = format!("{person:06}{}", "x".repeat(240));
        json!({ "site": "t", "event": "purchase", "ids": { "crm_id": id } }).to_string() + "\n"
    };
    fs::write(&file, (0..65_000).map(event).collect::<String>()).unwrap();
    places.server.ok(&["import", "events", file.to_str().unwrap()]);
    // Before that, a run by schedule could have a part of it.
    places.server.write_segment("buyers", SEGMENT);
    places.server.until("all are members", || {
        places.server.api("/api/v1/audiences/buyers").json()["members"] == 65_000
    });
    // It takes a part of what was sent, and says so.
    places.storage.take_less_once();
    places.server.until("all have it", || {
        places.push().iter().all(|report| report["held"] == 65_000 && report["trouble"].is_null())
    });
    let (text, count) = places.last();
    assert!(count == 1 && text.len() > 17 << 20, "{count} files, {} bytes", text.len());
    assert_eq!(columns(&text)["crm"].len(), 65_000);
}
