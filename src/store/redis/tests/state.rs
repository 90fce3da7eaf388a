//! The contracts of the state's port, and what is this backend's own.

use std::time::Duration;

use super::both;
use super::fresh_keys;
use super::own;
use super::state;
use crate::store::StoreError;
use crate::store::conformance;
use crate::store::journal::Position;
use crate::store::redis::Lane;
use crate::store::redis::State;
use crate::store::redis::Store;
use crate::store::redis::blob::PART;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::Images;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::Piece;
use crate::store::state::State as Port;

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for (_, link) in both() {
        conformance::state(&mut || Box::new(state(&link, &fresh_keys(), "a")));
    }
}

pub(super) fn commit(number: u64) -> Commit {
    let checkpoint =
        Checkpoint { commit: number, position: Position(number * 100), ..Checkpoint::default() };
    let delta = vec![u8::try_from(number % 251).unwrap(); 1_000];
    Commit { checkpoint, deltas: vec![(0, delta)], ..Commit::default() }
}

/// The commits whose deltas a shard has.
pub(super) fn deltas(state: &State) -> Vec<u64> {
    let mut found = Vec::new();
    let take = &mut |commit, bytes: &[u8]| {
        assert_eq!(bytes, vec![u8::try_from(commit % 251).unwrap(); 1_000]);
        found.push(commit);
        Ok(())
    };
    state.load_deltas(0, take).unwrap();
    found
}

#[test]
fn what_one_owner_kept_the_next_one_has() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let first = state(&link, &keys, "a");
        let large = vec![7; 2 * PART + 5];
        let images = Images {
            shard: 2,
            up_to: 0,
            parts: vec![(Part { block: 9, kind: PartKind::Owners }, large.clone())],
        };
        first.commit_images(&images).unwrap();
        first.commit(&commit(1)).unwrap();
        // The same owner after a restart need not wait for its own lease.
        let second = state(&link, &keys, "a");
        assert_eq!(deltas(&second), [1], "{name}");
        assert_eq!(second.load().unwrap().identity, first.store.identity);
        let mut found = Vec::new();
        let take = &mut |piece: Piece<'_>| {
            let Piece::Image(_, bytes) = piece else { panic!() };
            found.push(bytes.to_vec());
            Ok(())
        };
        second.load_shard(2, take).unwrap();
        assert!(found == [large]);
    }
}

#[test]
fn of_two_owners_the_first_is_fenced_and_leaves_nothing() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let store = Store::open(link.clone(), keys.clone(), 4, 2).unwrap();
        let acquire = |owner: &str, ttl| Lane::acquire(&store, "7", &[0], owner, ttl).unwrap();
        let first = acquire("a", super::TTL).unwrap();
        assert!(acquire("b", super::TTL).is_none());
        first.renew(Duration::from_millis(1)).unwrap();
        let mut second = None;
        super::server::until("the lease ends", || {
            second = acquire("b", super::TTL);
            second.is_some()
        });
        let second = second.unwrap();
        assert_eq!((first.epoch(), second.epoch()), (1, 2));
        let [first, second] = [first, second].map(|lane| State::new(store.clone(), lane.into()));
        second.commit(&commit(1)).unwrap();
        let before = keys_of(&link, &keys);
        let late = Commit { deltas: vec![(0, vec![9; 5_000]), (0, vec![8; 5_000])], ..commit(1) };
        for _ in 0..2 {
            assert!(matches!(first.commit(&late), Err(StoreError::Fenced { .. })), "{name}");
        }
        assert!(matches!(first.load(), Err(StoreError::Fenced { .. })));
        assert_eq!(keys_of(&link, &keys), before);
        assert_eq!(deltas(&second), [1]);
        second.commit(&commit(2)).unwrap();
        second.lane.release().unwrap();
        assert!(acquire("c", super::TTL).is_some());
    }
}

/// How many keys there are below a prefix.
pub(super) fn keys_of(link: &crate::store::redis::Link, keys: &crate::store::redis::Keys) -> usize {
    let mut cmd = redis::cmd("KEYS");
    let pattern = keys.store("").split(':').next().unwrap().to_owned() + ":*";
    cmd.arg(pattern);
    let answers = link.everywhere(&cmd).unwrap();
    answers.iter().map(|(_, keys)| crate::store::redis::reply::items(keys).unwrap().len()).sum()
}

#[test]
fn what_an_owner_left_that_never_counted_is_swept_by_the_next() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let (store, lane) = own(&link, &keys, "a");
        State::new(store.clone(), lane.clone()).commit(&commit(1)).unwrap();
        let before = keys_of(&link, &keys);
        lane.leave_stray(&[vec![1; 200], vec![2; 200]]);
        assert_eq!(keys_of(&link, &keys), before + 2, "{name}");
        let next = state(&link, &keys, "a");
        assert_eq!(keys_of(&link, &keys), before);
        assert_eq!(deltas(&next), [1]);
    }
}

#[test]
fn what_is_replaced_or_dropped_is_deleted() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let state = state(&link, &keys, "a");
        let part = |block| Part { block, kind: PartKind::Profiles };
        let images = |up_to| Images {
            shard: 0,
            up_to,
            parts: vec![(part(0), vec![1; 300]), (part(1), vec![2; 300])],
        };
        for number in 1..=5 {
            state.commit(&commit(number)).unwrap();
        }
        state.commit_images(&images(5)).unwrap();
        let before = keys_of(&link, &keys);
        for number in 6..=9 {
            state.commit(&commit(number)).unwrap();
            state.commit_images(&images(number)).unwrap();
        }
        assert_eq!(keys_of(&link, &keys), before, "{name}");
    }
}

#[test]
fn a_store_keeps_its_shards_and_lanes_and_another_format_is_refused_with_the_way_out() {
    let (_, link) = both().into_iter().next().unwrap();
    let keys = fresh_keys();
    let store = Store::open(link.clone(), keys.clone(), 4, 2).unwrap();
    let again = Store::open(link.clone(), keys.clone(), 8, 3).unwrap();
    assert_eq!(again.identity(), store.identity());
    assert_eq!((again.layout(), again.layout().lanes()), (store.layout(), 2));
    drop(Lane::acquire(&store, "1", &[0, 1], "a", super::TTL).unwrap());
    let other = Lane::acquire(&store, "1", &[0, 2], "a", super::TTL);
    assert!(matches!(other, Err(StoreError::Malformed { .. })));
    for at in [keys.lane("1", "lane"), keys.store("meta")] {
        let mut cmd = redis::cmd("HSET");
        cmd.arg(&at).arg("format").arg("throng-redis-9");
        link.one(&at, cmd).unwrap();
        let refused = match at.ends_with("lane") {
            true => Lane::acquire(&store, "1", &[0, 1], "a", super::TTL).map(drop),
            false => Store::open(link.clone(), keys.clone(), 4, 2).map(drop),
        };
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::Malformed { .. }), "{error:?}");
        assert!(error.to_string().contains("`throng-redis-9`"), "{error}");
        assert!(error.to_string().contains("start the version of Throng"), "{error}");
    }
}
