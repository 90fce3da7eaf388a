//! A store that another is moved to.

use std::sync::Arc;

use super::TTL;
use super::both;
use super::fresh_keys;
use super::state::commit;
use super::state::deltas;
use super::state::keys_of;
use crate::model::Choice;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Record;
use crate::store::journal::Batch;
use crate::store::journal::Journal as _;
use crate::store::journal::Position;
use crate::store::redis::Journal;
use crate::store::redis::Lane;
use crate::store::redis::Mode;
use crate::store::redis::Shelf;
use crate::store::redis::State;
use crate::store::redis::Store;
use crate::store::shelf::Shelf as _;
use crate::store::state::Identity;
use crate::store::state::State as _;

fn choice() -> Record {
    let identifier = Identifier::new(Namespace::new("cookie").unwrap(), "a").unwrap();
    Record::Choice(Choice { identifier, opted_out: true, received: 1 })
}

const IDENTITY: Identity = Identity { shards: 4, key: [3; 16] };

#[test]
fn it_takes_nobody_before_it_is_whole_and_begins_anew_for_the_same_store_alone() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let receive =
            |identity| Store::receive(link.clone(), keys.clone(), identity, 2, "./data").unwrap();
        let find = || Store::find(link.clone(), keys.clone());
        assert!(find().unwrap().is_none(), "{name}");
        let store = receive(IDENTITY).unwrap();
        store.reserve_generations(7).unwrap();
        Shelf::new(store.clone()).keep("a", b"1").unwrap();
        let lane = Lane::acquire(&store, "00", &[0, 1], "mover", TTL).unwrap().unwrap();
        State::new(store.clone(), Arc::new(lane)).commit(&commit(1)).unwrap();
        for refused in [find().map(drop), Store::open(link.clone(), keys.clone(), 4, 2).map(drop)] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("half of a store"), "{error}");
        }
        let before = keys_of(&link, &keys);
        assert!(receive(Identity { key: [4; 16], ..IDENTITY }).is_none());
        assert_eq!(keys_of(&link, &keys), before);
        let store = receive(IDENTITY).unwrap();
        assert_eq!(keys_of(&link, &keys), 1);
        assert_eq!(store.reserve_generations(1).unwrap(), 1);
        store.finish().unwrap();
        let found = find().unwrap().unwrap();
        assert_eq!((found.identity(), found.layout().lanes()), (IDENTITY, 2));
        assert!(receive(IDENTITY).is_none());
        // What is below the prefix and is no store is nobody's to delete.
        let keys = fresh_keys();
        let mut cmd = redis::cmd("SET");
        cmd.arg(keys.store("other")).arg("1");
        link.one(&keys.store("other"), cmd).unwrap();
        assert!(Store::receive(link.clone(), keys.clone(), IDENTITY, 2, "").unwrap().is_none());
        assert_eq!(keys_of(&link, &keys), 1);
    }
}

#[test]
fn a_lane_s_journal_goes_on_where_another_ended() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let store = Store::receive(link.clone(), keys.clone(), IDENTITY, 2, "").unwrap().unwrap();
        assert_eq!(store.owner(1).unwrap(), None);
        store.begin_lane(1, Position(1_000), 70).unwrap();
        store.begin_lane(1, Position(1_000), 70).unwrap();
        let journal = Journal::open(link.clone(), &keys, "01", Mode::Everysec).unwrap();
        assert_eq!((journal.begin(), journal.end()), (Position(1_000), Position(1_000)), "{name}");
        assert_eq!(journal.next_record(), 70);
        let mut reader = journal.reader(Position(1_000));
        assert!(reader.next().unwrap().is_none());
        let mut batch = Batch::new();
        for _ in 0..2 {
            batch.push(&choice()).unwrap();
        }
        let appended = journal.append(&batch).unwrap();
        let frame = reader.next().unwrap().unwrap();
        assert_eq!((frame.start, frame.first, frame.count), (Position(1_000), 70, 2));
        assert_eq!(frame.end, appended.end);
        assert_eq!(journal.balance().unwrap().missing(), 0);
        store.begin_lane(1, Position(1_000), 70).unwrap_err();
        let lane = Lane::acquire(&store, "01", &[2, 3], "mover", TTL).unwrap().unwrap();
        assert_eq!(store.owner(1).unwrap().as_deref(), Some("mover"));
        let state = State::new(store, Arc::new(lane));
        state.commit(&commit(1)).unwrap();
        assert_eq!(deltas(&state), [1]);
    }
}
