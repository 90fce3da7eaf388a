//! Ids of partners: the newest of each counts, for a while.

use std::sync::atomic::Ordering;

use super::world::T0;
use super::world::World;
use super::world::event;
use super::world::id;
use super::world::options;
use crate::ingest::Matches;
use crate::ingest::Options;
use crate::model::Event;
use crate::model::ID_MATCH;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Record;
use crate::model::time::DAY;
use crate::model::time::HOUR;

fn world() -> World {
    let lifetimes = [("xandr".to_owned(), 30 * DAY), ("ttd".to_owned(), 10 * DAY)];
    World::new(Options { lifetimes: lifetimes.into(), ..options() })
}

fn matched(cookie: &str, other: &Identifier, time: Millis) -> Record {
    let ids = vec![id("cookie", cookie), other.clone()];
    Record::Event(Event { ids, received: time, ..event(cookie, ID_MATCH, time) })
}

/// The identifiers of a cookie but for itself: those that count, and all.
fn others(world: &World, cookie: &str) -> [Vec<String>; 2] {
    let (shard, ordinal) = world.engine.find(&id("cookie", cookie)).unwrap();
    let of = |matches| {
        let mut found = Vec::new();
        let profiles = [ordinal].into_iter().collect();
        world.engine.each_identifier(shard, &profiles, matches, &mut |one| {
            found.push(format!("{}:{}", one.namespace, one.value()));
        });
        found.split_off(1)
    };
    let current = of(Matches::Current);
    let shown = world.engine.identifiers(shard, ordinal);
    let shown = shown.iter().skip(1).map(|one| format!("{}:{}", one.namespace, one.value()));
    assert_eq!(shown.collect::<Vec<_>>(), current);
    [current, of(Matches::All)]
}

fn at(world: &World, time: Millis) {
    world.clock.0.store(time, Ordering::SeqCst);
}

#[test]
fn the_newest_id_of_a_partner_counts_until_its_lifetime_is_over() {
    let mut world = world();
    let [a, b, t] = [id("xandr", "a"), id("xandr", "b"), id("ttd", "t")];
    let mut stated = event("c1", "view", T0);
    stated.ids.extend([id("user_id", "u"), id("xandr", "stated")]);
    world.send(&[
        Record::Event(stated),
        matched("c1", &a, T0),
        matched("c1", &t, T0 + HOUR),
        matched("c1", &b, T0 + 2 * HOUR),
        // One that was received before, and comes later.
        matched("c1", &a, T0 + HOUR),
    ]);
    let all = ["user_id:u", "xandr:stated", "xandr:a", "ttd:t", "xandr:b"];
    let check = |world: &World, current: &[&str]| {
        assert_eq!(others(world, "c1"), [current, &all[..]]);
    };
    at(&world, T0 + 3 * HOUR);
    check(&world, &["user_id:u", "xandr:stated", "ttd:t", "xandr:b"]);
    at(&world, T0 + HOUR + 10 * DAY);
    check(&world, &["user_id:u", "xandr:stated", "xandr:b"]);
    at(&world, T0 + 2 * HOUR + 30 * DAY - 1);
    check(&world, &["user_id:u", "xandr:stated", "xandr:b"]);
    at(&world, T0 + 2 * HOUR + 30 * DAY);
    // What an event states otherwise does not expire, and what expired lets nothing older come back.
    check(&world, &["user_id:u", "xandr:stated"]);
    let now = T0 + 31 * DAY;
    at(&world, now);
    world.send(&[matched("c1", &a, now)]);
    check(&world, &["user_id:u", "xandr:stated", "xandr:a"]);

    // Kept: by deltas, by images, and by both.
    world.commit();
    let mut world = world.crash();
    at(&world, now);
    check(&world, &["user_id:u", "xandr:stated", "xandr:a"]);
    world.send(&[matched("c1", &b, now + HOUR), matched("c2", &t, now)]);
    for more in 0..200 {
        world.send(&[Record::Event(event(&format!("more{more}"), "view", now))]);
        world.commit();
    }
    let world = world.crash();
    at(&world, now + HOUR);
    check(&world, &["user_id:u", "xandr:stated", "xandr:b"]);
    assert_eq!(others(&world, "c2")[0], ["ttd:t"]);
    let (shard, _) = world.engine.find(&id("cookie", "c2")).unwrap();
    let everyone = &world.engine.pin().everyone()[usize::from(shard)];
    let matching = world.engine.matching(shard, everyone, &["ttd".to_owned()]);
    assert_eq!(matching.len(), 1);
    at(&world, now + 10 * DAY);
    assert_eq!(world.engine.matching(shard, everyone, &["ttd".to_owned()]).len(), 0);
}

#[test]
fn who_is_told_of_since_a_time_is_whoever_gained_or_lost_one() {
    let mut world = world();
    let records: Vec<_> = (0..200)
        .map(|n| {
            let time = T0 + n * 7 * HOUR;
            matched(&format!("c{}", n % 40), &id("xandr", &format!("x{n}")), time)
        })
        .collect();
    world.send(&records);
    let last = T0 + 199 * 7 * HOUR;
    let current = |world: &World, time| {
        at(world, time);
        let all = (0..40).map(|n| others(world, &format!("c{n}"))[0].clone());
        all.collect::<Vec<_>>()
    };
    for hours in [1, 5, 24, 24 * 7, 24 * 40] {
        for start in (0..24 * 45).step_by(31) {
            let since = last + start * HOUR;
            let before = current(&world, since);
            let after = current(&world, since + hours * HOUR);
            for n in 0..40 {
                let (shard, ordinal) = world.engine.find(&id("cookie", &format!("c{n}"))).unwrap();
                let is_told = world.engine.rematched(shard, since).contains(ordinal);
                assert!(is_told || before[n] == after[n], "c{n}: {hours} h from {start} h on");
            }
        }
    }
}
