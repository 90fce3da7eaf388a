//! Appends to all lanes at once: whatever happens on the way, each lane has its frames once and in order.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::both;
use super::faults::changing_cluster;
use super::faults::fail_over;
use super::faults::move_slot;
use super::fresh_keys;
use super::impatient;
use super::proxy::Proxy;
use super::server::Cluster;
use super::server::Server;
use super::server::shared_server;
use super::server::until;
use super::times;
use crate::store::StoreError;
use crate::store::intake::FRAME;
use crate::store::intake::Intake as _;
use crate::store::intake::LaneFrame;
use crate::store::journal::conformance::batch;
use crate::store::journal::conformance::read;
use crate::store::redis::Journal;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::Store;
use crate::store::redis::Streams;
use crate::store::redis::Times;
use crate::store::redis::route;

pub(super) const LANES: u16 = 5;

pub(super) fn streams(link: &Link, keys: &Keys, mode: Mode) -> Streams {
    Streams::new(&Store::open(link.clone(), keys.clone(), 16, LANES).unwrap(), mode)
}

/// A frame for each lane under each number, which is also what it says.
pub(super) fn frames(numbers: impl IntoIterator<Item = u64>) -> Vec<LaneFrame> {
    let of = |number: u64| {
        (0..LANES).map(move |lane| LaneFrame {
            lane,
            first: number,
            number,
            batch: batch([number.cast_signed()]),
        })
    };
    numbers.into_iter().flat_map(of).collect()
}

/// The last number taken, in whichever lane.
fn last_number(streams: &Streams, sender: &str) -> u64 {
    streams.taken(sender).unwrap().into_iter().max().unwrap()
}

/// What the frames of each lane say.
fn said(link: &Link, keys: &Keys) -> Vec<Vec<i64>> {
    let said = |lane| {
        let journal = Journal::open(link.clone(), keys, &format!("{lane:02}"), Mode::Everysec);
        read(&journal.unwrap()).into_iter().map(|(_, said)| said).collect()
    };
    (0..LANES).map(said).collect()
}

fn all(numbers: impl IntoIterator<Item = i64>) -> Vec<Vec<i64>> {
    vec![numbers.into_iter().collect(); usize::from(LANES)]
}

#[test]
fn every_lane_has_its_frames_once_and_in_order_however_they_are_grouped() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let streams = streams(&link, &keys, Mode::Everysec);
        assert_eq!(last_number(&streams, "a"), 0);
        streams.append("a", &[]).unwrap();
        for numbers in [1..3, 1..2, 2..5, 1..5, 4..7] {
            streams.append("a", &frames(numbers)).unwrap();
        }
        streams.append("b", &frames(1..2)).unwrap();
        streams.append("a", &frames([7]).split_off(4)).unwrap();
        let mut expected = all([1, 2, 3, 4, 5, 6, 1]);
        expected[4].push(7);
        assert_eq!(said(&link, &keys), expected, "{name}");
        assert_eq!(["a", "b", "c"].map(|of| last_number(&streams, of)), [7, 1, 0]);
        assert_eq!(streams.look("a").unwrap(), None);
    }
}

#[test]
fn a_frame_that_is_there_in_part_is_refused_and_those_before_and_after_it_are_not_lost() {
    for (name, link) in both() {
        let keys = fresh_keys();
        let streams = streams(&link, &keys, Mode::Everysec);
        let frame = |lane: u16, first: u64, number: u64| {
            let records = batch(first.cast_signed()..=number.cast_signed());
            LaneFrame { lane, first, number, batch: records }
        };
        let both_lanes = |cuts: &[(u64, u64)]| -> Vec<LaneFrame> {
            let of = |lane| cuts.iter().map(move |(first, number)| frame(lane, *first, *number));
            of(0).chain(of(1)).collect()
        };
        streams.append("a", &both_lanes(&[(1, 2), (3, 5)])).unwrap();
        // The second lane has not got the next, nor the third lane anything.
        streams.append("a", &[frame(0, 6, 7)]).unwrap();
        let appended = streams.append("a", &both_lanes(&[(1, 5), (6, 9)])).unwrap();
        assert!(appended.overlaps, "{name}");
        assert_eq!(streams.taken("a").unwrap(), [7, 9, 0, 0, 0]);
        assert!(!streams.append("a", &both_lanes(&[(1, 7), (8, 9)])).unwrap().overlaps);
        let mut expected = all([]);
        expected[0].extend(1..=9);
        expected[1].extend(1..=9);
        assert_eq!(said(&link, &keys), expected, "{name}");
    }
}

#[test]
fn what_is_too_much_for_one_call_goes_in_several() {
    for (_, link) in both() {
        let keys = fresh_keys();
        let streams = streams(&link, &keys, Mode::Everysec);
        let each = i64::try_from(FRAME / 100).unwrap();
        let frame = |number: u64| {
            let first = (number.cast_signed() - 1) * each;
            LaneFrame { lane: 2, first: number, number, batch: batch(first..first + each) }
        };
        let frames: Vec<_> = (1..=5).map(frame).collect();
        assert!(frames.iter().map(|frame| frame.batch.bytes().len()).sum::<usize>() > 2 * FRAME);
        streams.append("a", &frames).unwrap();
        assert_eq!(said(&link, &keys)[2], (0..5 * each).collect::<Vec<_>>());
    }
}

#[test]
fn an_append_whose_answer_is_lost_is_sent_again_and_counts_once() {
    let proxy = Proxy::before(shared_server().port);
    let link = Link::open(&proxy.url(), times()).unwrap();
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Everysec);
    streams.append("a", &frames([1])).unwrap();
    for number in 2..5 {
        let before = proxy.lost();
        proxy.lose("_append");
        streams.append("a", &frames([number])).unwrap();
        assert_eq!(proxy.lost(), before + 1);
    }
    assert_eq!(said(&link, &keys), all(1..5));
}

#[test]
fn a_server_that_stood_still_or_was_killed_has_each_frame_once() {
    let server = Server::start(&["--appendfsync", "always"]);
    let proxy = Proxy::before(server.port);
    let short = Duration::from_millis(300);
    let times = Times { connect: short, response: short, ..times() };
    let link = Link::open(&proxy.url(), times).unwrap();
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Always);
    streams.append("a", &frames([1])).unwrap();
    server.freeze(true);
    let before = proxy.connections();
    std::thread::scope(|scope| {
        scope.spawn(|| streams.append("a", &frames(2..4)).unwrap());
        until("it has tried again", || proxy.connections() >= before + 2);
        server.freeze(false);
    });
    server.restart();
    server.cli(&["function", "flush"]);
    streams.append("a", &frames(3..6)).unwrap();
    assert_eq!(said(&link, &keys), all(1..6));
    assert_eq!(streams.look("a").unwrap(), None);
}

#[test]
fn a_server_without_memory_refuses_until_there_is_some() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let link = impatient(&server.url());
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Everysec);
    streams.append("a", &frames([1])).unwrap();
    assert_eq!(streams.trouble(), None);
    server.cli(&["config", "set", "maxmemory", "1"]);
    assert!(matches!(streams.append("a", &frames([2])), Err(StoreError::Full { .. })));
    assert!(streams.trouble().unwrap().contains("room"));
    server.cli(&["config", "set", "maxmemory", "0"]);
    assert_eq!(streams.trouble(), None);
    streams.append("a", &frames([2])).unwrap();
    assert_eq!(said(&link, &keys), all([1, 2]));
}

#[test]
fn replicas_are_waited_for() {
    let [(_, single), (_, cluster)] = both();
    let keys = fresh_keys();
    streams(&cluster, &keys, Mode::Replicated(1)).append("a", &frames(1..3)).unwrap();
    assert_eq!(said(&cluster, &keys), all(1..3));
    let hasty = impatient(&shared_server().url());
    let refused = streams(&hasty, &keys, Mode::Replicated(1)).append("a", &frames([1]));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert_eq!(said(&single, &keys), all([1]));
}

/// Appends to all lanes until `change` has changed the cluster, and some more; everything is there, once.
fn goes_on_through(cluster: &Cluster, change: impl FnOnce(u16)) {
    let link = Link::open(&cluster.url(), times()).unwrap();
    let keys = fresh_keys();
    let streams = streams(&link, &keys, Mode::Everysec);
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut left = 5;
            while left > 0 {
                left -= u64::from(over.load(Ordering::SeqCst));
                let number = done.load(Ordering::SeqCst) + 1;
                streams.append("a", &frames([number])).unwrap();
                done.store(number, Ordering::SeqCst);
            }
        });
        until("it has begun", || done.load(Ordering::SeqCst) > 3);
        change(route::slot(&keys.lane("00", "ev")));
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(said(&link, &keys), all(1..=done.into_inner().cast_signed()));
    assert_eq!(streams.look("a").unwrap(), None);
}

#[test]
fn appends_go_on_while_a_lane_moves_to_another_node() {
    let cluster = changing_cluster();
    goes_on_through(&cluster, |slot| move_slot(&cluster, slot));
}

#[test]
fn appends_go_on_while_a_replica_takes_over() {
    let cluster = changing_cluster();
    goes_on_through(&cluster, |slot| fail_over(&cluster, slot));
}
