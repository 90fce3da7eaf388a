//! The engine on its threads.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::T0;
use super::world::TestClock;
use super::world::World;
use super::world::event;
use super::world::options;
use crate::ingest::Engine;
use crate::ingest::Health;
use crate::metrics::Metrics;
use crate::model::Record;
use crate::net::Clock;
use crate::net::Workers;
use crate::store::embedded::State;
use crate::store::embedded::state_tests::Faulty;
use crate::store::journal::Journal;

const LONG: Duration = Duration::from_secs(60);

/// An engine on the world's journal, with a store of its own.
fn started_with(world: &World, state: State) -> Arc<Engine> {
    let engine = Engine::open(
        Arc::new(state),
        Arc::clone(&world.journal) as _,
        Arc::new(TestClock(AtomicI64::new(T0))),
        Arc::new(Metrics::new()),
        options(),
    )
    .unwrap();
    engine.start(&Workers::new(Metrics::new())).unwrap();
    engine
}

fn started(world: &World) -> Arc<Engine> {
    let dir = world.dir.path().join("second");
    std::fs::create_dir_all(&dir).unwrap();
    started_with(world, State::open(&dir, 4).unwrap())
}

#[test]
fn what_was_acknowledged_is_in_a_settled_pin() {
    let world = World::new(options());
    let engine = started(&world);
    for n in 0..50 {
        world.append(&[Record::Event(event(&format!("c{n}"), "view", T0))]);
        let pin = engine.settle(LONG).unwrap();
        assert_eq!(pin.next_record, n + 1);
        assert!(pin.position >= world.journal.end());
        assert_eq!(pin.snapshot.true_for, T0);
    }
    assert_eq!(engine.health(), Health::Well);
    assert!(engine.commit(LONG));
    assert_eq!(engine.committed().next_record, 50);
    engine.hold(true);
    engine.stop();
    // A stop is a commit and no loss: the next process has it all.
    world.append(&[Record::Event(event("last", "view", T0))]);
    drop(engine);
    let engine = started(&world);
    assert_eq!(engine.committed().next_record, 50);
    assert_eq!(engine.settle(LONG).unwrap().next_record, 51);
    assert_eq!(engine.stats().counters.counted, 51);
}

#[test]
fn an_ask_for_a_commit_of_what_is_kept_ends() {
    let world = World::new(options());
    let engine = started(&world);
    engine.shared.asked.store(true, Ordering::Release);
    // The fold looks again in a moment, and then rests.
    while engine.shared.asked.load(Ordering::Acquire) {
        engine.shared.wait(Duration::from_millis(5), |_| false);
    }
}

#[test]
fn a_fold_that_is_held_back_is_said_to_be_behind() {
    let world = World::new(options());
    let engine = started(&world);
    engine.hold(true);
    // Whatever step was under way has ended when this is seen to wait.
    world.append(&[Record::Event(event("a", "view", T0))]);
    let first = engine.settle(Duration::from_millis(1));
    engine.hold(false);
    assert_eq!(engine.settle(LONG).unwrap().next_record, 1);
    assert!(first.is_err() || first.is_ok_and(|pin| pin.next_record == 1));
}

#[test]
fn a_pin_is_true_for_the_clock_where_all_is_folded() {
    let mut world = World::new(options());
    world.send(&[Record::Event(event("a", "view", T0))]);
    world.clock.0.store(T0 + 5, Ordering::Relaxed);
    assert_eq!(world.engine.pin().snapshot.true_for, T0 + 5);
    world.append(&[Record::Event(event("a", "view", T0))]);
    world.clock.0.store(T0 + 9, Ordering::Relaxed);
    let behind = world.engine.pin().snapshot.true_for;
    assert!(behind < world.clock.now(), "{behind}");
    world.fold_all();
    assert_eq!(world.engine.pin().snapshot.true_for, T0 + 9);
}

#[test]
fn everyone_is_each_profile_of_each_shard() {
    let mut world = World::new(options());
    let cookies: Vec<_> = (0..40).map(|n| format!("c{n}")).collect();
    let views = cookies.iter().map(|cookie| Record::Event(event(cookie, "view", T0)));
    world.append(&views.collect::<Vec<_>>());
    world.fold_all();
    let everyone = world.engine.pin().everyone();
    assert_eq!(everyone.iter().map(roaring::RoaringBitmap::len).sum::<u64>(), 40);
    for cookie in &cookies {
        let (shard, ordinal) = world.engine.find(&event(cookie, "view", T0).ids[0]).unwrap();
        assert!(everyone[usize::from(shard)].contains(ordinal));
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_lost() {
    let world = World::new(options());
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let engine = started_with(&world, disk.state(dir.path()));
    let send = |cookie: &str| world.append(&[Record::Event(event(cookie, "view", T0))]);
    send("a");
    engine.settle(LONG).unwrap();
    assert!(engine.commit(LONG));
    disk.is_full(true);
    send("b");
    engine.settle(LONG).unwrap();
    assert!(!engine.commit(Duration::from_millis(1)));
    let said = engine.shared.wait(LONG, |progress| progress.store_trouble.is_some());
    assert!(said && matches!(engine.health(), Health::CommitWaits(_)));
    // Folding goes on, and so does what asks.
    send("c");
    assert_eq!(engine.settle(LONG).unwrap().next_record, 3);
    assert_eq!(engine.committed().next_record, 1);
    disk.is_full(false);
    assert!(engine.commit(LONG));
    assert_eq!((engine.committed().next_record, engine.health()), (3, Health::Well));
    drop(engine);
    let engine = started_with(&world, State::open(dir.path(), 4).unwrap());
    assert_eq!(engine.committed().next_record, 3);
    assert_eq!(engine.settle(LONG).unwrap().next_record, 3);
    assert_eq!(engine.stats().counters.counted, 3);
}
