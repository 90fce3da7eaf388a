//! What a process without a journal of its own has acknowledged is in the lanes once, whatever becomes of it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use super::Heir;
use super::Parts;
use super::Shipper;
use super::Spool;
use crate::config::ByteSize;
use crate::ingest::tests::sent::batch;
use crate::ingest::tests::sent::expected;
use crate::ingest::tests::sent::held;
use crate::ingest::tests::world::TestClock;
use crate::metrics::Metrics;
use crate::net::Workers;
use crate::store::chain;
use crate::store::claims::Claims;
use crate::store::intake::Intake;
use crate::store::journal::Journal;
use crate::store::journal::Sink as _;
use crate::store::redis::Claims as ClaimsInRedis;
use crate::store::redis::Keys;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::SpooledJournal;
use crate::store::redis::Spools;
use crate::store::redis::Store;
use crate::store::redis::Streams;
use crate::store::redis::tests::both;
use crate::store::redis::tests::fresh_keys;
use crate::store::redis::tests::proxy::Proxy;
use crate::store::redis::tests::server::shared_cluster;
use crate::store::redis::tests::server::shared_server;
use crate::store::redis::tests::times;

/// A store, and one process that takes events.
struct World {
    link: Link,
    keys: Keys,
    store: Store,
    journal: Arc<SpooledJournal>,
    heir: Heir,
    shipper: Shipper,
}

impl World {
    fn new(link: Link) -> Self {
        let keys = fresh_keys();
        let store = Store::open(link.clone(), keys.clone(), 16, 5).unwrap();
        let journal = Arc::new(
            SpooledJournal::new(&store, Mode::Everysec, "n1", &Workers::new(Metrics::new()))
                .unwrap(),
        );
        let intake: Arc<dyn Intake> = Arc::new(Streams::new(&store, Mode::Everysec));
        let claims: Arc<dyn Claims> = Arc::new(ClaimsInRedis::new(store.clone()));
        let (identity, layout) = (store.identity(), store.layout());
        let shipper = Shipper::open(Parts {
            data: None,
            sender: journal.spool().sender.clone(),
            journal: journal.clone(),
            intake: intake.clone(),
            claims: claims.clone(),
            identity,
            layout,
            store: "s1".into(),
            keep: std::time::Duration::ZERO,
            clock: Arc::new(TestClock(AtomicI64::new(0))),
            metrics: Metrics::new(),
        });
        let spools = Arc::new(Spools::new(store.clone()));
        let heir = Heir { spools, intake, claims, identity, layout };
        Self { link, keys, store, journal, heir, shipper: shipper.unwrap() }
    }

    fn append(&self, numbers: std::ops::Range<i64>) {
        Journal::append(&*self.journal, &batch(numbers)).unwrap();
    }

    fn start(&self) -> std::thread::JoinHandle<()> {
        self.shipper.start(&Workers::new(Metrics::new())).unwrap()
    }

    fn holds(&self, numbers: std::ops::Range<i64>) {
        assert_eq!(held(&self.link, &self.keys, &self.store), expected(&self.store, numbers));
    }
}

#[test]
fn appends_of_many_threads_are_in_the_lanes_once_whatever_is_lost_on_the_way() {
    let proxy = Proxy::before(shared_server().port);
    for url in [proxy.url(), shared_cluster().url()] {
        let world = World::new(Link::open(&url, times()).unwrap());
        let thread = world.start();
        // One of them goes on only with what is in the lanes.
        let ways = [false, true].map(|waits| Spool::new(&world.shipper, ByteSize(9 << 20), waits));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (way, proxy) = (&ways[usize::from(thread == 0)], &proxy);
                scope.spawn(move || {
                    for number in 0..50 {
                        match number % 20 - thread {
                            0 => proxy.lose("_spool"),
                            1 => proxy.lose("_append"),
                            2 => proxy.lose("HSETNX"),
                            3 => proxy.lose("_enlist"),
                            _ => {}
                        }
                        let first = thread * 1_000 + number * 5;
                        way.append(&batch(first..first + 5)).unwrap();
                    }
                });
            }
        });
        assert!(world.shipper.stop(Duration::from_secs(60)));
        thread.join().unwrap();
        let held = held(&world.link, &world.keys, &world.store);
        for thread in 0..4 {
            let own = |number: &i64| number / 1_000 == thread;
            let held: Vec<Vec<i64>> =
                held.iter().map(|lane| lane.iter().copied().filter(own).collect()).collect();
            assert_eq!(held, expected(&world.store, thread * 1_000..thread * 1_000 + 250));
        }
        let left = world.heir.spools.read(&world.journal.spool().sender, world.journal.begin());
        assert_eq!(left.unwrap(), []);
    }
    assert!(proxy.lost() > 0);
}

#[test]
fn what_a_process_has_left_is_shipped_once_by_whoever_comes_first() {
    for (name, link) in both() {
        let world = World::new(link);
        for at in 0..20 {
            world.append(at * 10..at * 10 + 10);
        }
        let listed: Vec<_> =
            world.heir.spools.list().unwrap().into_iter().map(|found| found.spool).collect();
        assert_eq!(listed, [world.journal.spool().clone()], "{name}");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| world.heir.ship(world.journal.spool()).unwrap());
            }
        });
        world.holds(0..200);
        // It was only silent.
        world.append(200..210);
        let thread = world.start();
        assert!(world.shipper.stop(Duration::from_secs(60)));
        thread.join().unwrap();
        world.holds(0..210);
        assert_eq!(world.heir.ship(world.journal.spool()).unwrap(), 0, "{name}");
        // Its successor on the same node clears up, and another node leaves it alone.
        world.heir.clear("n2", None).unwrap();
        world.heir.clear("n1", Some(&world.journal.spool().sender)).unwrap();
        assert_eq!(world.heir.spools.list().unwrap().len(), 1, "{name}");
        world.heir.clear("n1", None).unwrap();
        assert_eq!(world.heir.spools.list().unwrap(), [], "{name}");
    }
}

#[test]
fn a_large_batch_goes_in_parts_and_a_small_bound_refuses_more() {
    let world = World::new(Link::open(&shared_server().url(), times()).unwrap());
    let bound = Spool::new(&world.shipper, ByteSize(1_000), false);
    let many = batch(0..20_000);
    assert!(many.bytes().len() > 1 << 20);
    bound.append(&many).unwrap();
    let error = bound.append(&batch([1])).unwrap_err();
    let why = chain(&error);
    assert!(why.contains("wait to be shipped"), "{why}");
    let thread = world.start();
    assert!(world.shipper.stop(Duration::from_secs(60)));
    thread.join().unwrap();
    world.holds(0..20_000);
}
