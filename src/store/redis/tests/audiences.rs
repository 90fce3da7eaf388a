//! The contracts of the audiences' port, and who may write them.

use std::sync::Arc;

use super::TTL;
use super::both;
use super::fresh_keys;
use super::own;
use crate::store::StoreError;
use crate::store::audiences::Audiences as Port;
use crate::store::audiences::Content;
use crate::store::audiences::Cut;
use crate::store::audiences::Last;
use crate::store::audiences::VersionKey;
use crate::store::audiences::conformance;
use crate::store::redis::Audiences;
use crate::store::redis::Keys;
use crate::store::redis::Lane;
use crate::store::redis::Link;
use crate::store::redis::Lookups;
use crate::store::redis::Store;

/// The audiences of a store of four shards in one lane.
pub(super) fn audiences(link: &Link, keys: &Keys) -> (Audiences, Store) {
    let store = Store::open(link.clone(), keys.clone(), 4, 1).unwrap();
    let lane = Lane::acquire(&store, "00", &[0, 1, 2, 3], "a", TTL).unwrap();
    (Audiences::new(Arc::new(lane.expect("nobody else has it"))), store)
}

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for (_, link) in both() {
        conformance::audiences(&mut || Box::new(audiences(&link, &fresh_keys()).0));
    }
}

#[test]
fn it_keeps_the_contracts_of_lists() {
    for (_, link) in both() {
        conformance::lists(&mut || {
            let (audiences, store) = audiences(&link, &fresh_keys());
            (Arc::new(audiences), Arc::new(Lookups::new(store)))
        });
    }
}

fn cut(generation: u64) -> Cut {
    let key = VersionKey { segment: "buyers".into(), shard: 1, generation };
    // Too large to lie in the index.
    let members = Arc::new((0..2_000).map(|ordinal| ordinal * 40).collect());
    let of = Last { generation, true_for: 3 };
    Cut { of, put: vec![(key, Some(Content { rule: 5, members }))], drop: Vec::new() }
}

#[test]
fn the_next_owner_has_what_was_kept_and_the_one_before_keeps_nothing() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let (_, lane) = own(&link, &keys, "a");
        let first = Audiences::new(lane);
        first.keep(&cut(10)).unwrap();
        let (_, lane) = own(&link, &keys, "a");
        let next = Audiences::new(lane);
        assert!(matches!(first.keep(&cut(11)), Err(StoreError::Fenced { .. })), "{name}");
        let mut found = Vec::new();
        let take = &mut |key, content| {
            found.push((key, content));
            Ok(())
        };
        next.load(take).unwrap();
        assert_eq!((next.last().unwrap(), found), (Some(cut(10).of), cut(10).put), "{name}");
    }
}
