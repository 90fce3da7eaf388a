use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::ByteSize;
use crate::config::Durability;
use crate::ingest::tests::sent::Hand;
use crate::ingest::tests::sent::batch;
use crate::ingest::tests::sent::expected;
use crate::ingest::tests::sent::held;
use crate::ingest::tests::world::TestClock;
use crate::ingest::tests::world::copy_dir;
use crate::ingest::tests::world::message;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::journal::Options;
use crate::store::journal::Batch;
use crate::store::journal::EventNo;
use crate::store::journal::Sink as _;
use crate::store::redis::Claims as ClaimsInRedis;
use crate::store::redis::Journal as JournalInRedis;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::Store;
use crate::store::redis::Streams;
use crate::store::redis::Times;
use crate::store::redis::tests::fresh_keys;
use crate::store::redis::tests::proxy::Proxy;
use crate::store::redis::tests::server::Server;
use crate::store::redis::tests::server::shared_cluster;
use crate::store::redis::tests::server::shared_server;
use crate::store::redis::tests::server::until;
use crate::store::redis::tests::times;

const IDENTITY: Identity = Identity { shards: 16, key: [5; 16] };
const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory with a journal, and what ships it.
struct Node {
    data: TempDir,
    journal: Arc<EmbeddedJournal>,
    clock: Arc<TestClock>,
    metrics: Metrics,
    shipper: Shipper,
}

impl Node {
    fn open(
        data: TempDir,
        intake: Arc<dyn Intake>,
        claims: Arc<dyn Claims>,
        (identity, layout): (Identity, Layout),
        keep: Duration,
    ) -> Self {
        let options = Options {
            segment_bytes: 4_000,
            durable_to: shipped(data.path()).unwrap(),
            ..Options::new(Durability::Disk)
        };
        let (journal, _) = EmbeddedJournal::open(&data.path().join("spool"), options).unwrap();
        let journal = Arc::new(journal);
        let clock = Arc::new(TestClock(AtomicI64::new(0)));
        let metrics = Metrics::new();
        let shipper = Shipper::open(Parts {
            data: Some(data.path().to_owned()),
            sender: "n1".into(),
            journal: journal.clone(),
            intake,
            claims,
            identity,
            layout,
            store: "s1".into(),
            keep,
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        Self { data, journal, clock, metrics, shipper: shipper.unwrap() }
    }

    /// One whose events go into a hand.
    fn by_hand(hand: &Arc<Hand>) -> Self {
        Self::again_by_hand(hand, tempfile::tempdir().unwrap())
    }

    fn again_by_hand(hand: &Arc<Hand>, data: TempDir) -> Self {
        let claims = Lanes::new(link(&shared_server().url())).claims();
        let store = (IDENTITY, Layout::new(IDENTITY.shards, 4));
        Self::open(data, hand.clone(), claims, store, Duration::ZERO)
    }

    fn append(&self, numbers: impl IntoIterator<Item = i64>) {
        Journal::append(&*self.journal, &batch(numbers)).unwrap();
    }

    fn start(&self) -> JoinHandle<()> {
        self.shipper.start(&Workers::new(self.metrics.clone())).unwrap()
    }

    /// Ships all that is there, and ends.
    fn ship(&self) {
        let thread = self.start();
        assert!(self.shipper.stop(PATIENCE));
        thread.join().unwrap();
    }
}

/// A store in Redis, as one link sees it.
struct Lanes {
    link: Link,
    keys: Keys,
    store: Store,
}

impl Lanes {
    fn new(link: Link) -> Self {
        let keys = fresh_keys();
        let store = Store::open(link.clone(), keys.clone(), 16, 5).unwrap();
        Self { link, keys, store }
    }

    fn node(&self, data: TempDir) -> Node {
        self.node_that_keeps(data, Duration::ZERO)
    }

    fn node_that_keeps(&self, data: TempDir, keep: Duration) -> Node {
        let streams = Arc::new(Streams::new(&self.store, Mode::Everysec));
        let store = (self.store.identity(), self.store.layout());
        Node::open(data, streams, self.claims(), store, keep)
    }

    fn claims(&self) -> Arc<dyn Claims> {
        Arc::new(ClaimsInRedis::new(self.store.clone()))
    }

    fn fresh_node(&self) -> Node {
        self.node(tempfile::tempdir().unwrap())
    }

    /// Whether each lane has its own of these events, once and in order.
    fn check(&self, numbers: impl IntoIterator<Item = i64>) {
        let held = held(&self.link, &self.keys, &self.store);
        assert_eq!(held, expected(&self.store, numbers));
    }
}

fn link(url: &str) -> Link {
    Link::open(url, times()).unwrap()
}

#[test]
fn what_was_appended_is_in_the_lanes_once_and_given_up_here() {
    for url in [shared_server().url(), shared_cluster().url()] {
        let lanes = Lanes::new(link(&url));
        let node = lanes.fresh_node();
        for first in (0..600).step_by(3) {
            node.append(first..first + 3);
        }
        assert!(!node.shipper.has_shipped());
        node.ship();
        lanes.check(0..600);
        assert!(node.shipper.has_shipped());
        assert!(node.journal.begin().0 > node.journal.end().0 - 8_000);
        assert_eq!(node.metrics.shipped_records.get(), 600);
        assert_eq!((node.metrics.spool_bytes.get(), node.metrics.ship_errors.get()), (0, 0));
        // The next process goes on there.
        let data = node.data;
        drop(node.shipper);
        drop(node.journal);
        let node = lanes.node(data);
        node.append(600..603);
        node.ship();
        assert_eq!(node.metrics.shipped_records.get(), 3);
        lanes.check(0..603);
    }
}

#[test]
fn a_shipper_that_begins_anywhere_before_ships_nothing_twice() {
    let lanes = Lanes::new(link(&shared_server().url()));
    let node = lanes.fresh_node();
    let mut places = vec![Position(0)];
    for first in (0..60).step_by(4) {
        node.append(first..first + 4);
        places.push(node.journal.end());
    }
    let whole = tempfile::tempdir().unwrap();
    copy_dir(node.data.path(), whole.path());
    node.ship();
    lanes.check(0..60);
    for shipped in places {
        let again = tempfile::tempdir().unwrap();
        copy_dir(whole.path(), again.path());
        Place { shipped, ..Place::default() }.write(again.path()).unwrap();
        lanes.node(again).ship();
        lanes.check(0..60);
    }
    // Without a place it begins at the beginning.
    std::fs::write(whole.path().join("shipped"), "nonsense").unwrap();
    let node = lanes.node(whole);
    node.append(60..70);
    node.ship();
    lanes.check(0..70);
}

/// Ships frames in groups of its own, as a shipper does.
struct Cutter {
    streams: Streams,
    taken: Vec<u64>,
    next: usize,
}

impl Cutter {
    fn ship(&mut self, lanes: &Lanes, frames: &[Frame], many: usize) {
        let splitter = Splitter::new(lanes.store.identity(), lanes.store.layout());
        let to = frames.len().min(self.next + many);
        loop {
            let mut group = Group::default();
            for frame in &frames[self.next..to] {
                group.add(frame, &splitter, &self.taken);
            }
            match group.ship("n1", &self.streams, &*lanes.claims()).unwrap() {
                None => break,
                Some(Back::Lost(lost)) => panic!("{lost:?}"),
                Some(Back::Overlaps) => self.taken = self.streams.taken("n1").unwrap(),
            }
        }
        self.next = to;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn two_that_ship_the_same_in_other_groups_ship_nothing_twice(
        sizes in prop::collection::vec(1..9_i64, 20..60),
        turns in prop::collection::vec((any::<bool>(), 1..12_usize), 30..60),
    ) {
        let lanes = Lanes::new(link(&shared_server().url()));
        let node = lanes.fresh_node();
        let mut events = 0;
        for size in sizes {
            node.append(events..events + size);
            events += size;
        }
        let mut reader = Journal::reader(&*node.journal, Position(0));
        let frames: Vec<Frame> = std::iter::from_fn(|| reader.next().unwrap()).collect();
        let cutter = || Cutter {
            streams: Streams::new(&lanes.store, Mode::Everysec),
            taken: Vec::new(),
            next: 0,
        };
        let mut cutters = [cutter(), cutter()];
        let last = [(false, usize::MAX / 2), (true, usize::MAX / 2)];
        for (which, many) in turns.into_iter().chain(last) {
            cutters[usize::from(which)].ship(&lanes, &frames, many);
        }
        lanes.check(0..events);
    }
}

#[test]
fn answers_that_are_lost_make_nothing_count_twice() {
    let proxy = Proxy::before(shared_server().port);
    let lanes = Lanes::new(link(&proxy.url()));
    let node = lanes.fresh_node();
    let thread = node.start();
    for number in 0..30 {
        let lost = proxy.lost();
        proxy.lose("_append");
        node.append(number * 3..number * 3 + 3);
        until("an answer is lost", || proxy.lost() > lost);
    }
    assert!(node.shipper.stop(PATIENCE));
    thread.join().unwrap();
    lanes.check(0..90);
}

#[test]
fn a_server_that_is_killed_frozen_or_without_its_functions_gets_all_once() {
    let server = Server::start(&["--appendfsync", "always"]);
    let proxy = Proxy::before(server.port);
    let short = Duration::from_millis(300);
    // Its patience ends too, so that the shipper has to try again itself.
    let times = Times { connect: short, response: short, patience: short * 2 };
    let lanes = Lanes::new(Link::open(&proxy.url(), times).unwrap());
    let node = lanes.fresh_node();
    let thread = node.start();
    let over = AtomicBool::new(false);
    let appended = std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let mut next = 0;
            while !over.load(Ordering::SeqCst) {
                if next > node.metrics.shipped_records.get().cast_signed() + 500 {
                    std::thread::yield_now();
                    continue;
                }
                node.append(next..next + 5);
                next += 5;
            }
            next
        });
        let records = || node.metrics.shipped_records.get();
        let goes_on = |what: &str| {
            let before = records();
            until(what, || records() > before);
        };
        goes_on("the first are shipped");
        for _ in 0..2 {
            server.restart();
            goes_on("it goes on after a crash");
            let errors = node.metrics.ship_errors.get();
            server.freeze(true);
            until("it gives up on an answer", || node.metrics.ship_errors.get() > errors);
            server.freeze(false);
            goes_on("it goes on after standing still");
            server.cli(&["function", "flush"]);
            goes_on("it goes on without functions");
        }
        over.store(true, Ordering::SeqCst);
        appending.join().unwrap()
    });
    assert!(node.shipper.stop(PATIENCE));
    thread.join().unwrap();
    assert!(node.shipper.has_shipped());
    // What reads them has more patience.
    let lanes = Lanes { link: link(&server.url()), ..lanes };
    lanes.check(0..appended);
}

#[test]
fn a_journal_that_was_taken_back_ships_what_comes_then() {
    let lanes = Lanes::new(link(&shared_server().url()));
    let node = lanes.fresh_node();
    node.append(0..10);
    node.ship();
    let before = tempfile::tempdir().unwrap();
    copy_dir(node.data.path(), before.path());
    node.append(10..20);
    node.append(20..30);
    node.ship();
    // Other events come to lie where those did.
    let node = lanes.node(before);
    node.append(30..40);
    node.ship();
    lanes.check(0..40);
    let (data, shipper) = (node.data, node.shipper);
    drop((node.journal, shipper));
    let node = lanes.node(data);
    node.append(40..50);
    node.ship();
    lanes.check(0..50);
    // A directory that kept nothing but the node's name.
    let node = lanes.fresh_node();
    node.append(50..60);
    node.ship();
    lanes.check(0..60);
}

#[test]
fn the_mark_is_the_oldest_event_that_waits_or_the_clock() {
    let hand = Arc::new(Hand::default());
    let node = Node::by_hand(&hand);
    let at = |now| node.clock.0.store(now, Ordering::SeqCst);
    at(100);
    assert_eq!(node.shipper.mark(), 100);
    hand.set(|hand| hand.is_shut = true);
    let thread = node.start();
    at(200);
    node.append([150, 160]);
    // Nothing later than what was known before it came.
    assert_eq!(node.shipper.mark().max(150), 150);
    hand.until(|hand| hand.calls == 1);
    at(300);
    node.append([290]);
    assert_eq!(node.shipper.mark(), 150);
    assert_eq!(node.metrics.spool_oldest.get().to_bits(), 0.15_f64.to_bits());
    hand.set(|hand| hand.is_shut = false);
    until("both are shipped", || node.shipper.has_shipped());
    assert_eq!(node.shipper.mark(), 300);
    at(299);
    assert_eq!(node.shipper.mark(), 300);
    assert!(node.shipper.stop(PATIENCE));
    thread.join().unwrap();
    assert_eq!(node.metrics.spool_oldest.get().to_bits(), 0);
}

#[test]
fn a_spool_takes_so_much_and_goes_on_when_there_is_room() {
    let hand = Arc::new(Hand::default());
    hand.set(|hand| hand.refuses = true);
    let node = Node::by_hand(&hand);
    let spool = Spool::new(&node.shipper, ByteSize(2_000), false);
    let thread = node.start();
    let mut taken = 0;
    let refused = loop {
        match spool.append(&batch([taken])) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1_000);
    };
    assert!(matches!(&refused, JournalError::NoRoom(_)), "{refused:?}");
    for told in [refused.to_string(), spool.trouble().unwrap()] {
        assert!(told.contains("2000B") && told.contains("journal.spool"), "{told}");
    }
    hand.until(|hand| hand.calls > 1);
    assert!(node.metrics.spool_bytes.get() <= 4_000);
    hand.set(|hand| hand.refuses = false);
    until("there is room", || spool.append(&batch([taken])).is_ok());
    assert!(node.shipper.stop(PATIENCE));
    thread.join().unwrap();
    assert_eq!(spool.trouble(), None);
    assert_eq!(i64::from(hand.taken().iter().sum::<u32>()), taken + 1);
    assert!(node.metrics.ship_errors.get() > 0);
}

#[test]
fn a_stop_ends_though_the_store_is_away_and_the_next_start_ships_the_rest() {
    let hand = Arc::new(Hand::default());
    hand.set(|hand| hand.refuses = true);
    let node = Node::by_hand(&hand);
    node.append([1, 2]);
    let thread = node.start();
    hand.until(|hand| hand.calls > 0);
    assert!(!node.shipper.stop(Duration::from_millis(10)));
    thread.join().unwrap();
    hand.set(|hand| hand.refuses = false);
    let data = node.data;
    drop((node.journal, node.shipper));
    Node::again_by_hand(&hand, data).ship();
    assert_eq!(hand.taken(), [2]);
}

#[test]
fn the_message_ids_of_what_is_shipped_are_claimed_for_their_events() {
    let lanes = Lanes::new(link(&shared_server().url()));
    let node = lanes.fresh_node();
    for first in (0..40).step_by(4) {
        let mut batch = Batch::new();
        for number in first..first + 4 {
            let id = format!("m{number}");
            batch.push(&message(&format!("visitor {number}"), &id, number)).unwrap();
        }
        Journal::append(&*node.journal, &batch).unwrap();
    }
    node.ship();
    let keys = crate::ingest::identity::Keys::new(lanes.store.identity());
    let mut events = 0;
    for lane in 0..lanes.store.layout().lanes() {
        let tag = lanes.store.layout().tag(lane);
        let journal =
            JournalInRedis::open(lanes.link.clone(), &lanes.keys, &tag, Mode::Everysec).unwrap();
        let mut reader = journal.reader(Position(0));
        while let Some(frame) = reader.next().unwrap() {
            for record in frame.records() {
                let (record, bytes) = record.unwrap();
                let Record::Event(event) = Record::decode(bytes).unwrap() else { panic!() };
                let id = event.message_id.unwrap();
                let hash = keys.hash(b"message", &[event.site.as_bytes(), id.as_bytes()]);
                let own = Claimant { lane, event: EventNo { record, part: 0 } };
                let claim = Claim { hash, passes: true, received: event.received, event: own };
                assert_eq!(lanes.claims().look(&[claim]).unwrap(), [Some(own)]);
                events += 1;
            }
        }
    }
    assert_eq!(events, 40);
}

#[test]
fn what_lanes_have_lost_is_shipped_again_as_long_as_it_is_here() {
    let server = Server::start(&["--appendfsync", "always"]);
    let lanes = Lanes::new(link(&server.url()));
    let node = lanes.node_that_keeps(tempfile::tempdir().unwrap(), KEEP);
    let spool = Spool::new(&node.shipper, ByteSize(1 << 30), false);
    let thread = node.start();
    let ship = |numbers: std::ops::Range<i64>| {
        numbers.for_each(|number| node.append([number]));
        until("all is shipped", || node.shipper.has_shipped());
    };
    ship(0..300);
    let kept = server.kept();
    ship(300..400);
    server.take_back(kept);
    // Nothing comes after it that would show it.
    let mark = node.shipper.mark();
    until("it is shipped again", || node.metrics.shipped_records.get() >= 500);
    until("all is shipped", || node.shipper.has_shipped());
    lanes.check(0..400);
    assert!(node.shipper.mark() >= mark);

    let kept = server.kept();
    ship(400..500);
    server.take_back(kept);
    node.append([500]);
    until("it is shipped again", || node.metrics.shipped_records.get() >= 700);
    assert!(node.shipper.stop(PATIENCE));
    thread.join().unwrap();
    lanes.check(0..501);

    // While no process runs that would remember.
    let kept = server.kept();
    let data = node.data;
    drop((node.journal, node.shipper, spool));
    let node = lanes.node_that_keeps(data, KEEP);
    node.append(501..600);
    node.ship();
    server.take_back(kept);
    let data = node.data;
    drop((node.journal, node.shipper));
    let node = lanes.node_that_keeps(data, KEEP);
    let spool = Spool::new(&node.shipper, ByteSize(1 << 30), false);
    node.append([600]);
    node.ship();
    lanes.check(0..601);
    assert_eq!(spool.lost(), 0);
}

#[test]
fn what_is_lost_and_given_up_here_is_told() {
    let server = Server::start(&["--appendfsync", "always"]);
    let lanes = Lanes::new(link(&server.url()));
    let node = lanes.fresh_node();
    let spool = Spool::new(&node.shipper, ByteSize(1 << 30), false);
    let thread = node.start();
    let kept = server.kept();
    (0..200).for_each(|number| node.append([number]));
    until("all is shipped", || node.shipper.has_shipped());
    until("most is given up here", || node.journal.begin().0 + 8_000 > node.journal.end().0);
    server.take_back(kept);
    // What was given up is not looked for: what comes next shows it.
    (200..220).for_each(|number| node.append([number]));
    until("it is told", || spool.lost() > 0);
    assert!(node.shipper.stop(PATIENCE));
    thread.join().unwrap();
    let found: usize = held(&lanes.link, &lanes.keys, &lanes.store).iter().map(Vec::len).sum();
    assert!((20..200).contains(&found), "{found}");
}

#[test]
fn what_another_store_has_acknowledged_is_not_compared() {
    let lanes = Lanes::new(link(&shared_server().url()));
    let node = lanes.node_that_keeps(tempfile::tempdir().unwrap(), KEEP);
    node.append(0..10);
    node.ship();
    // As after a move: what was shipped is there, and nobody knows who has sent it.
    let other = Lanes::new(link(&shared_server().url()));
    let data = node.data;
    let place = Place::read(data.path()).unwrap().unwrap();
    assert!(place.acknowledged.iter().any(|number| *number > 0));
    Place { store: "another".into(), ..place }.write(data.path()).unwrap();
    drop((node.journal, node.shipper));
    let node = other.node_that_keeps(data, KEEP);
    node.append(10..20);
    node.ship();
    other.check(10..20);
}
