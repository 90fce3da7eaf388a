//! Audiences outlive the process that published them.

use std::sync::atomic::Ordering;

use super::LONG;
use super::Rig;
use crate::metrics::Metrics;
use crate::net::Workers;
use crate::segment::AudienceState;
use crate::segment::Shards;
use crate::segment::refresh::Last;

const FILES: [(&str, &str); 4] = [
    ("buyers", "rule = 'did purchase'"),
    ("edited", "rule = 'did view'"),
    ("gone", "rule = 'did purchase'"),
    ("through", "rule = 'segment edited'"),
];

fn count(rig: &Rig, id: &str) -> Option<u64> {
    rig.segments.generation().audiences.get(id)?.count
}

#[test]
fn a_new_start_begins_with_the_last_generation_and_its_time_does_not_go_back() {
    let rig = Rig::new(&FILES);
    for user in ["1", "2", "3"] {
        rig.event(user, "purchase", 0);
    }
    rig.event("1", "view", 0);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
    let mut last = Last::default();
    while count(&rig, "buyers") != Some(3) || count(&rig, "through") != Some(1) {
        rig.segments.refresh(&mut last);
    }
    // Nothing has changed, and more time has passed than is put on record at once.
    rig.clock.0.fetch_add(20_000, Ordering::Relaxed);
    rig.segments.refresh(&mut last);
    let before = rig.segments.generation();
    assert_eq!(before.true_for, rig.clock.0.load(Ordering::Relaxed));

    std::fs::write(rig.file("edited"), "rule = 'count view >= 2'").unwrap();
    std::fs::remove_file(rig.file("gone")).unwrap();
    let rig = rig.reopen(-60_000);
    // Nothing is folded or evaluated yet.
    let taken = rig.segments.generation();
    assert_eq!((taken.number, taken.true_for), (before.number, before.true_for));
    let ids: Vec<&String> = taken.audiences.keys().collect();
    assert_eq!(ids, ["buyers", "edited", "through"]);
    for (id, is_same) in [("buyers", true), ("edited", false), ("through", false)] {
        let (now, then) = (&taken.audiences[id], &before.audiences[id]);
        assert_eq!(now.members, then.members, "{id}");
        assert_eq!((now.count, now.true_for), (then.count, then.true_for), "{id}");
        assert_eq!(now.state == AudienceState::Live, is_same, "{id}");
    }
    // The clock was set back: until it has come as far, nothing is published.
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
    let mut last = Last::default();
    rig.segments.refresh(&mut last);
    assert_eq!(rig.segments.generation().true_for, before.true_for);
    rig.clock.0.fetch_add(60_001, Ordering::Relaxed);
    while count(&rig, "edited") != Some(0) || count(&rig, "buyers") != Some(3) {
        rig.segments.refresh(&mut last);
    }
    assert!(rig.segments.generation().number > before.number);
    rig.leave();
    let kept = rig.local.kept(rig.segments.generation().number).unwrap();
    assert_eq!(kept.found.keys().collect::<Vec<_>>(), ["buyers", "edited", "through"]);
    rig.engine.stop();
}

#[test]
fn after_a_crash_the_first_refresh_catches_up_with_what_was_not_kept() {
    let rig = Rig::new(&FILES);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let mut last = Last::default();
    let buyers = |rig: &Rig, last: &mut Last, expected: u64| {
        rig.clock.0.fetch_add(1_000, Ordering::Relaxed);
        rig.engine.settle(LONG).unwrap();
        while count(rig, "buyers") != Some(expected) {
            rig.segments.refresh(last);
        }
        rig.segments.generation()
    };
    rig.event("1", "purchase", 0);
    let kept = buyers(&rig, &mut last, 1);
    rig.leave();
    rig.event("2", "purchase", 0);
    let seen = buyers(&rig, &mut last, 2);
    let rig = rig.crash(1_000);
    let taken = rig.segments.generation();
    assert_eq!((taken.number, taken.true_for), (kept.number, kept.true_for));
    assert_eq!(count(&rig, "buyers"), Some(1));
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let now = buyers(&rig, &mut Last::default(), 2);
    assert!(now.number > seen.number && now.true_for > seen.true_for);
    let hour = &now.hour.tallies["buyers"];
    assert_eq!((hour.members, hour.adds, hour.removes), (2, 2, 0));
    rig.engine.stop();
}
