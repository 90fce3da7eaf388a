//! What `config/redis` ships: the settings start a server that keeps every mode's promise but `always`, and the
//! user of the list may do all that the ports do, and nothing else.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::audiences::audiences;
use super::journal::journal;
use super::ledger::ledger;
use super::server::Server;
use super::server::shared_cluster;
use super::sizes::claim;
use super::state;
use super::times;
use crate::store::audiences::conformance as audience_conformance;
use crate::store::claims::Claims as _;
use crate::store::conformance;
use crate::store::health::Checkup as _;
use crate::store::health::Finding;
use crate::store::intake::Intake as _;
use crate::store::intake::LaneFrame;
use crate::store::journal::Journal as _;
use crate::store::journal::conformance::batch;
use crate::store::ledger::Ledger as Port;
use crate::store::redis::AuditLog;
use crate::store::redis::Checkup;
use crate::store::redis::Claims;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Lookups;
use crate::store::redis::Mode;
use crate::store::redis::Sizes;
use crate::store::redis::Store;
use crate::store::redis::Streams;
use crate::store::sizes::Sizes as _;

const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/redis/redis.conf");
const USERS: &str = include_str!("../../../../config/redis/users.acl");

/// Makes the shipped user, who may use the keys of these tests instead of the product's.
pub(super) fn let_in(server: &Server) {
    let line = USERS.lines().find(|line| line.starts_with("user throng ")).unwrap();
    let words = line.split_whitespace().skip(2);
    let words: Vec<&str> =
        words.map(|word| if word == "~throng:*" { "~acl*:*" } else { word }).collect();
    assert!(words.contains(&"~acl*:*") && words.contains(&"-@all"));
    let answer = server.cli(&[&["acl", "setuser", "throng"], &words[..]].concat());
    assert_eq!(answer.trim(), "OK");
}

fn as_user(url: &str) -> Link {
    Link::open(&url.replace("redis://", "redis://throng:change-me@"), times()).unwrap()
}

fn keys() -> Keys {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Keys::new(&format!("acl{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn all_ports(link: &Link) {
    conformance::state(&mut || Box::new(state(link, &keys(), "a")));
    for contract in crate::store::ledger::conformance::ALL {
        let keys = keys();
        contract(&|| Arc::new(ledger(link, &keys)) as Arc<dyn Port>);
    }
    let journal = journal(link, &keys());
    journal.append(&batch([1])).unwrap();
    assert_eq!(crate::store::journal::conformance::read(&journal), [(0, 1)]);
    let store = Store::open(link.clone(), keys(), 4, 2).unwrap();
    let frame = LaneFrame { lane: 1, first: 1, number: 1, batch: batch([1]) };
    // It asks with WAIT, though for none.
    Streams::new(&store, Mode::Replicated(0)).append("a", &[frame]).unwrap();
    assert_eq!(Streams::new(&store, Mode::Everysec).taken("a").unwrap(), [0, 1]);
    audience_conformance::audiences(&mut || Box::new(audiences(link, &keys()).0));
    audience_conformance::lists(&mut || {
        let (audiences, store) = audiences(link, &keys());
        (Arc::new(audiences), Arc::new(Lookups::new(store)))
    });
    for contract in crate::store::audit::conformance::ALL {
        let store = Store::open(link.clone(), keys(), 4, 2).unwrap();
        contract(&|| Arc::new(AuditLog::new(store.clone())));
    }
    claim(&store);
    Sizes::new(store.clone()).measure().unwrap();
    // Backups read all claims.
    Claims::new(store).each(&mut |_| Ok(())).unwrap();
    let refused = |finding: &Finding| finding.found.contains("does not let its user");
    let found = Checkup::new(link.clone(), Mode::Everysec).check();
    assert!(!found.iter().any(refused), "{found:?}");
}

#[test]
fn the_shipped_settings_and_user_are_enough() {
    let server = Server::start(&["--include", SETTINGS]);
    let_in(&server);
    let link = as_user(&server.url());
    assert_eq!(Mode::Everysec.verify(&link).unwrap(), Vec::<String>::new());
    let advice = Mode::Always.verify(&link).unwrap();
    assert!(advice[0].contains("appendfsync always"), "{advice:?}");
    all_ports(&link);
    // Keys of others, and what reads or deletes everything, are closed.
    for denied in [
        &["get", "other:key"][..],
        &["flushall"],
        &["keys", "*"],
        &["config", "set", "save", "1 1"],
    ] {
        let login = ["--user", "throng", "--pass", "change-me", "--no-auth-warning"];
        let answer = server.cli(&[&login[..], denied].concat());
        assert!(answer.contains("NOPERM"), "{denied:?}: {answer}");
    }
}

#[test]
fn the_shipped_user_is_enough_on_a_cluster() {
    let cluster = shared_cluster();
    cluster.nodes.iter().for_each(let_in);
    all_ports(&as_user(&cluster.url()));
}
