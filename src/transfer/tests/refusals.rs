//! What is not moved, and what is said.

use super::world::Home;
use super::world::LONG;
use super::world::Redis;
use super::world::Running;
use super::world::append;
use super::world::event;
use super::world::moved;
use super::world::run;
use crate::metrics::Metrics;
use crate::model::ImportLines;
use crate::model::Record;
use crate::net::Workers;
use crate::store::embedded::lock::DataLock;
use crate::store::journal::Batch;
use crate::store::journal::Journal as _;
use crate::store::lanes::LaneStore as _;
use crate::store::nodes::Node;
use crate::store::nodes::Nodes as _;
use crate::store::nodes::Role;
use crate::store::redis::Mode;
use crate::store::redis::Registry;
use crate::store::redis::SpooledJournal;
use crate::transfer::MoveError;
use crate::transfer::Options;
use crate::transfer::Place;
use crate::transfer::transfer;

fn refused(options: &Options, said: &[&str]) {
    says(&run(options, &mut |_| true).unwrap_err(), said);
}

fn says(error: &MoveError, said: &[&str]) {
    let text = crate::store::chain(error);
    for words in said {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
}

#[test]
fn a_place_is_a_directory_or_redis_and_its_password_is_not_shown() {
    let place: Place = "rediss://admin:s3cret@a:1,rediss://b:2".parse().unwrap();
    assert_eq!(place.to_string(), "rediss://a:1,rediss://b:2");
    assert_eq!(format!("{place:?}"), "rediss://a:1,rediss://b:2");
    assert_eq!("./data".parse(), Ok(Place::Directory("./data".into())));
    for wrong in ["", "http://a:1", "file:///data"] {
        let error = wrong.parse::<Place>().unwrap_err().to_string();
        assert!(error.contains("./data") && error.contains("redis://"), "{error}");
    }
}

#[test]
fn a_source_that_a_server_has_and_a_target_that_is_not_empty_are_refused() {
    let [redis, _] = Redis::both();
    let home = Home::new(50);
    let there = home.there("data", &redis);
    let lock = DataLock::take(&home.data()).unwrap();
    let error = transfer(&there, &mut |_| true).unwrap_err();
    says(&error, &["another server (pid", "data"]);
    drop(lock);
    refused(&home.there("nowhere", &redis), &["it holds no store"]);
    assert!(!home.path("nowhere").exists());
    refused(&home.back("data", "other", &redis), &["there is no store"]);
    assert!(!home.path("other").exists());

    moved(&there);
    refused(&there, &["there is a store already"]);
    let elsewhere =
        Options { archive: crate::archive::Home::from(&home.path("elsewhere")), ..there.clone() };
    refused(&elsewhere, &["is not there", "archive.path"]);
    assert!(!home.path("elsewhere").exists());
    let back = home.back("data", "other", &redis);
    std::fs::create_dir(home.path("other")).unwrap();
    std::fs::write(home.path("other/notes.txt"), "mine").unwrap();
    refused(&back, &["is not empty"]);
    assert_eq!(std::fs::read_dir(home.path("other")).unwrap().count(), 2);
    std::fs::remove_file(home.path("other/notes.txt")).unwrap();

    // Half of another store.
    std::fs::write(home.path("other/move-unfinished"), "0123").unwrap();
    refused(&back, &["half of another store"]);
    std::fs::remove_file(home.path("other/move-unfinished")).unwrap();

    let store = redis.store();
    let taken = store.take(1, "worker-7", LONG).unwrap().unwrap();
    refused(&back, &["a server runs on it", "lane 1", "worker-7"]);
    taken.hold.release().unwrap();
    moved(&back);
}

#[test]
fn a_node_that_runs_or_may_have_something_left_is_named() {
    let [redis, _] = Redis::both();
    let home = Home::new(51);
    moved(&home.there("data", &redis));
    let back = home.back("data", "other", &redis);
    let nodes = Registry::new(redis.store());
    let mut node = Node {
        id: "edge-1".into(),
        roles: [Role::Collect].into_iter().collect(),
        address: Some("10.0.0.7:8081".into()),
        mark: Some(5),
        lanes: Vec::new(),
        version: "1".into(),
    };
    nodes.beat(&node, 5).unwrap();
    refused(&back, &["a server runs on it", "edge-1", "10.0.0.7:8081"]);
    nodes.leave("edge-1").unwrap();
    // One that was killed long ago.
    node.id = "edge-2".into();
    nodes.beat(&node, 5).unwrap();
    let key = format!("{:?}", redis.keys);
    let key = format!("{}:{{store}}:nodes", key.split('"').nth(1).unwrap());
    let server = crate::store::redis::tests::server::shared_server();
    let row = server.cli(&["hget", &key, "edge-2"]);
    let (_, rest) = row.trim_end().split_once(' ').unwrap();
    server.cli(&["hset", &key, "edge-2", &format!("1000 {rest}")]);
    refused(&back, &["edge-2", "throng node retire edge-2"]);
    // Where it had no journal of its own, all that it took is here.
    let spool = SpooledJournal::new(
        &redis.store(),
        Mode::Everysec,
        "edge-2",
        &Workers::new(Metrics::new()),
    )
    .unwrap();
    let mut batch = Batch::new();
    batch.push(&Record::Event(event("left behind", "buy", 1))).unwrap();
    spool.append(&batch).unwrap();
    moved(&back);
    assert_eq!(nodes.list().unwrap().nodes, []);
    let running = Running::directory(&home.path("other"), &home.path("other/archive"));
    assert!(running.answers().values().any(|found| found.contains("left behind")));
    running.stop();
}

#[test]
fn an_import_that_some_lanes_have_more_of_has_to_be_run_to_its_end_first() {
    let [redis, _] = Redis::both();
    let home = Home { dir: tempfile::tempdir().unwrap() };
    let there = Running::redis(&redis, &home.path("data.away"));
    append(&*there.sink, &[Record::Event(event("u", "buy", 1))]);
    let lines = ImportLines {
        import: "crm.ndjson".into(),
        first_line: 1,
        lines: 2,
        events: Vec::new(),
        rejected: Vec::new(),
    };
    let mut batch = Batch::new();
    batch.push(&Record::Import(lines.clone())).unwrap();
    redis.append(1, &batch);
    there.answers();
    there.stop();
    let back = home.back("data", "other", &redis);
    refused(&back, &["crm.ndjson", "run it again to its end"]);
    let there = Running::redis(&redis, &home.path("data.away"));
    append(&*there.sink, &[Record::Import(lines)]);
    there.answers();
    there.stop();
    moved(&back);
}
