//! Redis comes back without the end of what it had acknowledged, as after a failover or a power cut.

use std::time::Duration;

use redis::Value;

use super::fresh_keys;
use super::server::Server;
use super::streams::frames;
use super::streams::streams;
use super::times;
use crate::store::StoreError;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::claims::Claims as _;
use crate::store::intake::Intake as _;
use crate::store::intake::LaneFrame;
use crate::store::intake::Lost;
use crate::store::journal::EventNo;
use crate::store::journal::Journal as _;
use crate::store::journal::JournalError;
use crate::store::journal::Position;
use crate::store::journal::conformance::batch;
use crate::store::journal::conformance::read;
use crate::store::redis::Claims;
use crate::store::redis::Journal;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::Store;
use crate::store::state::Checkpoint;
use crate::store::state::State as _;

fn start() -> (Server, Link) {
    let server = Server::start(&["--appendfsync", "always"]);
    let link = Link::open(&server.url(), times()).unwrap();
    (server, link)
}

fn journal(link: &Link, keys: &Keys) -> Journal {
    Journal::open(link.clone(), keys, "03", Mode::Everysec).unwrap()
}

/// The bytes of the frames that these tests send, each as large as the other.
fn bytes(frames: u64) -> u64 {
    frames * batch([1]).bytes().len() as u64
}

#[test]
fn a_sender_is_told_of_what_is_gone_before_anything_later_is_taken() {
    let (server, link) = start();
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Everysec);
    assert_eq!(streams.append("a", &frames(1..4)).unwrap().lost, None);
    let kept = server.kept();
    streams.append("a", &frames(4..6)).unwrap();
    assert_eq!(streams.look("a").unwrap(), None);
    server.take_back(kept);
    let lanes = u64::from(LANES);
    let lost = Some(Lost { first: 4, bytes: bytes(2 * lanes) });
    assert_eq!(streams.append("a", &frames([6])).unwrap().lost, lost);
    let said =
        || read(&journal(&link, &keys)).into_iter().map(|(_, said)| said).collect::<Vec<_>>();
    assert_eq!(said(), [1, 2, 3]);
    // Once told it may send them again.
    assert_eq!(streams.append("a", &frames(2..7)).unwrap().lost, None);
    assert_eq!(said(), [1, 2, 3, 4, 5, 6]);

    let kept = server.kept();
    streams.append("a", &frames([7])).unwrap();
    server.take_back(kept);
    let lost = Some(Lost { first: 7, bytes: bytes(lanes) });
    assert_eq!(streams.look("a").unwrap(), lost);
    assert_eq!(streams.look("a").unwrap(), None);
    // Another process of the same sender knows what it was told.
    let next = super::streams::streams(&link, &keys, Mode::Everysec);
    next.resume("a", &[7; LANES as usize]);
    assert_eq!(next.look("a").unwrap(), Some(Lost { first: 7, bytes: 0 }));
    next.append("a", &frames([7])).unwrap();
    assert_eq!(said(), [1, 2, 3, 4, 5, 6, 7]);
}

const LANES: u16 = super::streams::LANES;

#[test]
fn a_reader_that_was_ahead_of_a_failover_notices_though_all_sizes_are_the_same() {
    let (server, link) = start();
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Everysec);
    let append = |number| _ = streams.append(&format!("s{number}"), &frames([number])).unwrap();
    append(1);
    let journal = journal(&link, &keys);
    let mut reader = journal.reader(Position(0));
    let mut next = || reader.next().map(|frame| frame.map(|frame| frame.end));
    assert!(next().unwrap().is_some());
    // Another process goes on: nothing is missing, and the reader goes on too.
    server.restart();
    append(2);
    append(3);
    assert!(next().unwrap().is_some() && next().unwrap().is_some());
    let kept = server.kept();
    append(4);
    assert!(next().unwrap().is_some());
    server.take_back(kept);
    append(5);
    assert_eq!(journal.end().0, bytes(4));
    assert_eq!(next().unwrap(), None);
    append(6);
    assert!(matches!(next(), Err(JournalError::Damaged(_))));
    let said: Vec<i64> = read(&self::journal(&link, &keys)).into_iter().map(|(_, s)| s).collect();
    assert_eq!(said, [1, 2, 3, 5, 6]);
}

#[test]
fn a_reader_notices_a_failover_by_a_frame_that_lies_across_its_place() {
    let (server, link) = start();
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Everysec);
    let append = |sender: &str, first: u64, number: u64| {
        let batch = batch(first.cast_signed()..=number.cast_signed());
        streams.append(sender, &[LaneFrame { lane: 3, first, number, batch }]).unwrap();
    };
    append("a", 1, 1);
    let kept = server.kept();
    append("a", 2, 2);
    let journal = journal(&link, &keys);
    let mut reader = journal.reader(Position(0));
    assert!(reader.next().unwrap().is_some() && reader.next().unwrap().is_some());
    server.take_back(kept);
    append("b", 3, 5);
    let error = reader.next().unwrap_err();
    assert!(matches!(error, JournalError::OutOfRange { .. }), "{error}");
}

#[test]
fn a_claim_does_not_outlive_its_event() {
    let (server, link) = start();
    let keys = fresh_keys();
    let store = Store::open(link.clone(), keys.clone(), 8, 4).unwrap();
    let (claims, streams) = (Claims::new(store.clone()), streams_of(&store));
    let send = |sender: &str, lane: u16| {
        let frame = LaneFrame { lane, first: 1, number: 1, batch: batch([1]) };
        let record = streams.append(sender, &[frame]).unwrap().firsts[0].unwrap();
        Claimant { lane, event: EventNo { record, part: 0 } }
    };
    let claim =
        |id: u64, received: i64, event| Claim { hash: [id, id], passes: id < 9, received, event };
    let early = send("a", 1);
    // The lane as it is now comes back; the claims stay, for they lie on another node.
    let tag = store.layout().tag(1);
    let lane: Vec<(String, Value)> = ["ev", "log"]
        .map(|name| {
            let key = keys.lane(&tag, name);
            let dumped = link.one(&key, redis::cmd("DUMP").arg(&key).clone()).unwrap();
            (key, dumped)
        })
        .into();
    let lost = send("b", 1);
    let given = claims.claim(&[claim(1, 0, early), claim(2, 0, lost), claim(9, 0, lost)]).unwrap();
    assert_eq!(given, [early, lost, lost]);
    for (key, dumped) in &lane {
        let Value::BulkString(bytes) = dumped else { panic!() };
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(&bytes[..]).arg("REPLACE");
        link.one(key, restore).unwrap();
    }
    // While the same process holds the lane nothing can be lost of it.
    let other = send("c", 2);
    assert_eq!(claims.claim(&[claim(2, 5, other)]).unwrap(), [lost]);
    server.restart();
    // In the same period, a later one, and for good; and what was not lost stays.
    let half = crate::store::claims::WINDOW / 2;
    let asked = [claim(1, half, other), claim(2, half, other), claim(9, half, other)];
    assert_eq!(claims.claim(&asked).unwrap(), [early, other, other]);
    // The number of the event that is gone is not given again.
    let again = send("d", 1);
    assert!(again.event.record > lost.event.record + 1_000_000);
    let asked = [claim(1, 9, again), claim(2, 9, again), claim(9, 9, again), claim(3, 9, again)];
    assert_eq!(claims.claim(&asked).unwrap(), [early, other, other, again]);
    server.restart();
    assert_eq!(claims.claim(&[claim(3, 9, other)]).unwrap(), [again]);
}

fn streams_of(store: &Store) -> crate::store::redis::Streams {
    crate::store::redis::Streams::new(store, Mode::Everysec)
}

#[test]
fn a_lane_remembers_so_many_gaps() {
    let (_server, link) = start();
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Everysec);
    streams.append("a", &frames([1])).unwrap();
    let log = keys.lane("03", "log");
    for number in 2..80 {
        let mut other = redis::cmd("HSET");
        link.one(&log, other.arg(&log).arg("run").arg(format!("{number:x}")).clone()).unwrap();
        streams.append("a", &frames([number])).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let gaps = link.one(&log, redis::cmd("HGET").arg(&log).arg("gaps").clone()).unwrap();
    let Value::BulkString(gaps) = gaps else { panic!() };
    let gaps = String::from_utf8(gaps).unwrap();
    assert_eq!(gaps.lines().count(), 64);
    let all: Vec<_> = super::super::journal::gaps(&gaps).collect();
    assert!(all.len() == 64 && all.iter().all(|gap| gap.start < gap.end), "{gaps}");
    assert!(all.windows(2).all(|pair| pair[1].end < pair[0].start), "{gaps}");
}

#[test]
fn who_has_folded_what_is_gone_commits_nothing_of_it() {
    let (server, link) = start();
    let (keys, other) = (fresh_keys(), fresh_keys());
    for (keys, appends) in [(&keys, false), (&other, true)] {
        let state = super::state(&link, keys, "a");
        let journal = Journal::open(link.clone(), keys, "000", Mode::Everysec).unwrap();
        let at = |number: u64| {
            let mut commit = super::state::commit(number);
            let (position, next_record) = (journal.end(), journal.next_record());
            commit.checkpoint =
                Checkpoint { commit: number, position, next_record, ..commit.checkpoint };
            commit
        };
        journal.append(&batch([1])).unwrap();
        state.commit(&at(1)).unwrap();
        let kept = server.kept();
        journal.append(&batch([2])).unwrap();
        // Folded, and not committed when it is lost.
        let ahead = at(2);
        server.take_back(kept);
        let journal = Journal::open(link.clone(), keys, "000", Mode::Everysec).unwrap();
        if appends {
            journal.append(&batch([3])).unwrap();
            assert_eq!(journal.end(), ahead.checkpoint.position);
        }
        assert!(matches!(state.commit(&ahead), Err(StoreError::Fenced { .. })));
        let next = super::state(&link, keys, "a");
        assert_eq!(next.load().unwrap().checkpoint.commit, 1);
        let mut commit = super::state::commit(2);
        let (position, next_record) = (journal.end(), journal.next_record());
        commit.checkpoint = Checkpoint { commit: 2, position, next_record, ..commit.checkpoint };
        next.commit(&commit).unwrap();
    }
}
