//! A store that is moved answers as it did, goes on, and comes back.

use super::world::Dice;
use super::world::Home;
use super::world::Redis;
use super::world::Running;
use super::world::append;
use super::world::event;
use super::world::moved;
use super::world::patiently;
use super::world::records;
use crate::ingest::Matches;
use crate::model::Record;
use crate::store::embedded;
use crate::store::journal::Batch;
use crate::store::shelf::Shelf as _;
use crate::store::state::State as _;

#[test]
fn a_store_answers_the_same_wherever_it_is_and_goes_on() {
    for (seed, redis) in (1..).zip(Redis::both()) {
        let home = Home::new(seed);
        let twin = home.twin("data");
        let control = Running::directory(&twin, &twin.join("archive"));
        let expected = control.answers();

        let report = moved(&home.there("data", &redis));
        assert_eq!((report.shards, report.lanes), (super::world::SHARDS, super::world::LANES));
        let count = |what: &str| {
            let found = report.compared.iter().find(|compared| compared.what == what);
            found.unwrap_or_else(|| panic!("{what} was not compared: {report:?}")).from
        };
        for what in ["profiles", "facts", "traits", "imports", "rejected lines", "archive files"] {
            assert!(count(what) > 0, "{what}");
        }
        for what in ["message ids of a day", "message ids of imports", "held by ads"] {
            assert!(count(what) > 0, "{what}");
        }
        assert_eq!((count("dead letters"), count("small values")), (1, 3));

        let archive = home.path("data.away");
        let there = Running::redis(&redis, &archive);
        assert_eq!(there.answers(), expected, "{}", redis.name);
        assert_eq!(there.books(), control.books());
        assert_eq!(there.lanes.dead_letters(None, 9).unwrap().len(), 1);
        let store = redis.store();
        let shelf = crate::store::redis::Shelf::new(store.clone());
        assert_eq!(shelf.get("cookie.key").unwrap().unwrap(), b"a secret of some bytes");
        assert_eq!(shelf.get("segment.good/buyers").unwrap().unwrap(), b"rule = 'did buy'");
        assert!(store.reserve_generations(1).unwrap() > 41);

        // What comes now counts once, also what came before the move already.
        let more = [records(&mut Dice(seed + 100), 40, 300), records(&mut Dice(seed), 30, 0)];
        for running in [&control, &there] {
            more.iter().for_each(|records| append(&*running.sink, records));
        }
        let expected = control.answers();
        assert_eq!(there.answers(), expected, "{}", redis.name);
        let names = ["shelf.b", "shelf.c"];
        names.iter().for_each(|name| _ = shelf.keep(name, b"no part of it").unwrap());
        shelf.keep("segment.made/lookers", b"rule = 'did view'").unwrap();
        there.stop();

        let report = moved(&home.back("data", "other", &redis));
        assert_eq!(report.made, [home.path("segments/lookers.toml")]);
        let text = std::fs::read_to_string(&report.made[0]).unwrap();
        assert_eq!(text, "rule = 'did view'");
        let other = home.path("other");
        let secret = std::fs::read(other.join("cookie.key")).unwrap();
        assert_eq!(secret, b"a secret of some bytes");
        let back = Running::directory(&other, &other.join("archive"));
        assert_eq!(back.answers(), expected, "{}", redis.name);
        assert_eq!(back.books(), control.books());
        let more =
            [records(&mut Dice(seed + 200), 40, 400), records(&mut Dice(seed + 100), 40, 300)];
        for running in [&control, &back] {
            more.iter().for_each(|records| append(&*running.sink, records));
        }
        assert_eq!(back.answers(), control.answers(), "{}", redis.name);
        back.stop();
        control.stop();

        // The source stayed as it was, but for the end that is folded now.
        let state = patiently(|| embedded::State::open(&home.data(), 1)).load().unwrap();
        assert_eq!(state.checkpoint.position, state.archived.position);
        let first = Running::directory(&home.data(), &home.data().join("archive"));
        let answers = first.answers();
        assert_eq!(answers.len(), expected.len());
        first.stop();
    }
}

#[test]
fn lanes_that_number_things_differently_become_one() {
    let [redis, _] = Redis::both();
    let home = Home { dir: tempfile::tempdir().unwrap() };
    let archive = home.path("data.away");
    let there = Running::redis(&redis, &archive);
    // Each lane sees the namespaces in its own order, and none sees all.
    let namespaces = ["x_one", "x_two", "x_three", "x_four"];
    let mut events = Vec::new();
    for n in 0..60_i64 {
        let mut event = event(&format!("u{n}"), "buy", n);
        let namespace = namespaces[usize::try_from(n * 7 % 4).unwrap()];
        event.ids.push(super::world::id(namespace, &format!("v{n}")));
        if n % 3 == 0 {
            event.ids.reverse();
        }
        events.push(Record::Event(event));
    }
    append(&*there.sink, &events);
    there.answers();
    // A record in the wrong lane is put aside, and all lanes count records from 0.
    let stray = event("u1", "buy", 70);
    let store = redis.store();
    let mut strays = 0;
    for lane in 0..store.layout().lanes() {
        let mut batch = Batch::new();
        batch.push_event(&stray).unwrap();
        redis.append(lane, &batch);
        strays += 1;
    }
    let expected = there.answers();
    let letters = there.lanes.dead_letters(None, 99).unwrap();
    assert_eq!(letters.len(), strays - 1);
    there.stop();
    moved(&home.back("data", "other", &redis));
    let other = home.path("other");
    let back = Running::directory(&other, &other.join("archive"));
    assert_eq!(back.answers(), expected);
    let mut identifiers = 0;
    for shard in 0..super::world::SHARDS {
        let everyone = (0..1_000).collect();
        let lane = back.lanes.of_shard(shard).unwrap();
        lane.engine.each_identifier(shard, &everyone, Matches::All, &mut |found| {
            identifiers += 1;
            let value = found.value();
            assert!(value.starts_with(if found.namespace.as_str() == "user_id" {
                "u"
            } else {
                "v"
            }));
        });
    }
    assert_eq!(identifiers, 120);
    assert_eq!(back.lanes.dead_letters(None, 99).unwrap().len(), strays - 1);
    back.stop();
}

#[test]
fn dead_letters_of_one_number_in_two_lanes_are_both_kept() {
    let [redis, _] = Redis::both();
    let home = Home { dir: tempfile::tempdir().unwrap() };
    let there = Running::redis(&redis, &home.path("data.away"));
    let store = redis.store();
    // The first record of each lane, and it belongs to one of them.
    for lane in 0..store.layout().lanes() {
        let mut batch = Batch::new();
        batch.push_event(&event("u1", "buy", 1)).unwrap();
        redis.append(lane, &batch);
    }
    there.answers();
    let mut before: Vec<Vec<u8>> =
        there.lanes.dead_letters(None, 9).unwrap().into_iter().map(|(_, it)| it.bytes).collect();
    there.stop();
    moved(&home.back("data", "other", &redis));
    let state = patiently(|| embedded::State::open(&home.path("other"), 1));
    let mut after: Vec<Vec<u8>> =
        state.dead_letters(None, 9).unwrap().into_iter().map(|letter| letter.bytes).collect();
    before.sort();
    after.sort();
    assert_eq!((before.len(), after), (2, before));
}
