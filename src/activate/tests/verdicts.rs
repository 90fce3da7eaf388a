//! What the engine makes of verdicts other than yes and no.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::platform::*;
use super::rig::*;
use super::world::*;
use crate::activate::Caps;
use crate::activate::Place;
use crate::activate::PushReport;
use crate::activate::Verdict;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::model::time::MINUTE;
use crate::store::ledger::Target;

type Shared = Arc<Mutex<Platform>>;

fn connector(platform: &Shared, fuse: &Arc<Fuse>) -> PlatformConnector {
    PlatformConnector {
        platform: Arc::clone(platform),
        caps: Caps { max_rows: 8, namespaces: None, mixes: true, ttl: None, min_size: None },
        tells: Tells::Each,
        place: Place::Named("a1".into()),
        fuse: Arc::clone(fuse),
    }
}

/// What a platform holds in the end: who is desired, but for those that it takes for nobody.
fn desired(rig: &Rig, platform: &Shared) -> BTreeSet<Known> {
    let bad = platform.lock().bad.clone();
    let desired = rig.world().desired("crm", "buyers");
    desired.into_iter().filter(|(_, value)| !bad.contains(value)).collect()
}

fn members(platform: &Shared, audience: &str) -> BTreeSet<Known> {
    platform.lock().members.get(audience).cloned().unwrap_or_default()
}

#[test]
fn a_line_that_is_refused_costs_no_other_and_is_not_sent_again() {
    for tells in [Tells::Each, Tells::Some] {
        let rig = rig(0..12, 0);
        let platform = Shared::default();
        platform.lock().bad = ["c03".to_owned(), "c07".to_owned()].into();
        let pusher = || rig.start_on(PlatformConnector { tells, ..connector(&platform, &whole()) });
        let report = pusher().run_once(None, false).unwrap().remove(0);
        assert_eq!((report.adds, report.refused, report.held), (16, 2, 16), "{tells:?}");
        assert_eq!(report.trouble, None);
        assert_eq!(members(&platform, "a1"), desired(&rig, &platform));

        // Known in another process, too.
        rig.clock.0.store(1, Ordering::SeqCst);
        let calls = platform.lock().calls.len();
        let report = pusher().run_once(None, false).unwrap().remove(0);
        assert_eq!((report.adds, report.refused, report.batches), (0, 2, 0));
        assert_eq!(platform.lock().calls.len(), calls);
        let target = Target::new("crm", "buyers");
        let refused = rig.ledger().refused(&target, None, 9).unwrap();
        let values: Vec<&str> = refused.iter().map(|one| one.identifier.value()).collect();
        assert_eq!(values, ["c03", "c07"]);
        assert!(!refused[0].why.is_empty());

        rig.clock.0.store(2, Ordering::SeqCst);
        // Who leaves is forgotten, and sent again when they come back.
        rig.world().members.insert("buyers".into(), profiles((0..12).filter(|p| *p != 3)));
        pusher().run_once(None, false).unwrap();
        assert_eq!(rig.ledger().refused(&target, None, 9).unwrap().len(), 1);
        platform.lock().bad.clear();
        rig.world().members.insert("buyers".into(), profiles(0..12));
        let report = pusher().run_once(None, false).unwrap().remove(0);
        assert_eq!(report.refused, 1, "the other waits for someone's word");
        rig.ledger().forget_refused(&target, &[refused[1].identifier.clone()]).unwrap();
        pusher().run_once(None, false).unwrap();
        assert_eq!(members(&platform, "a1"), rig.world().desired("crm", "buyers"));
    }
}

#[test]
fn a_removal_that_is_refused_is_tried_again() {
    let rig = rig(0..12, 0);
    let platform = Shared::default();
    let pusher = rig.start_on(connector(&platform, &whole()));
    pusher.run_once(None, false).unwrap();
    rig.world().marked = profiles([3, 4]);
    platform.lock().bad = ["c03".to_owned()].into();
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.refused, report.not_removed), (1, 1));
    assert!(members(&platform, "a1").contains(&("cookie".into(), "c03".into())));
    platform.lock().bad.clear();
    pusher.run_once(None, false).unwrap();
    assert_eq!(members(&platform, "a1"), rig.world().desired("crm", "buyers"));
}

#[test]
fn where_most_is_refused_somebody_has_to_look() {
    // Many that are wrong are found, each; not where nearly all are.
    for (bad, parks) in [(150, false), (1_000, true)] {
        let rig = Rig::new(World {
            identifiers: people(1_000),
            members: [("buyers".to_owned(), profiles(0..1_000))].into(),
            activations: vec![activation("buyers", 0)],
            generation: 1,
            ..World::default()
        });
        let platform = Shared::default();
        let names = (0..bad).flat_map(|n| [format!("c{n:02}"), format!("u{:02}", n / 2)]);
        platform.lock().bad = names.collect();
        let caps = Caps { max_rows: 50, namespaces: None, mixes: true, ttl: None, min_size: None };
        let connector = connector(&platform, &whole());
        let pusher = rig.start_on(PlatformConnector { caps, tells: Tells::Some, ..connector });
        let report = pusher.run_once(None, false).unwrap().remove(0);
        let trouble = report.trouble.unwrap_or_default();
        assert_eq!(trouble.contains("most of what is sent is refused"), parks, "{bad}: {trouble}");
        assert_eq!(pusher.status().unwrap()[0].segments[0].parked, parks);
        if parks {
            assert!(platform.lock().calls.len() < 1_100, "{}", platform.lock().calls.len());
        } else {
            assert_eq!(members(&platform, "a1"), desired(&rig, &platform));
        }
    }
}

#[test]
fn what_the_platform_works_on_is_asked_for_and_nothing_overtakes_it() {
    let rig = rig(0..12, 0);
    let platform = Shared::default();
    platform.lock().works = HOUR;
    platform.lock().bad = ["c05".to_owned()].into();
    let pusher = rig.start_on(connector(&platform, &whole()));
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.staged, report.adds, report.pending, report.held), (3, 0, 3, 0));
    // Somebody leaves meanwhile: that waits for what was sent before.
    rig.world().members.insert("buyers".into(), profiles(0..11));
    let calls = platform.lock().calls.len();
    for now in [MINUTE, HOUR / 2, HOUR - 1] {
        rig.clock.0.store(now, Ordering::SeqCst);
        let report = rig.start_on(connector(&platform, &whole())).run_once(None, false).unwrap();
        let trouble = report[0].trouble.clone().unwrap();
        assert_eq!(trouble, "the destination works on 3 batches that it has taken");
        assert!(
            !rig.start_on(connector(&platform, &whole())).status().unwrap()[0].segments[0].parked
        );
    }
    assert_eq!(platform.lock().calls.len(), calls);
    rig.clock.0.store(HOUR, Ordering::SeqCst);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.refused, report.staged), (17, 1, 1));
    rig.clock.0.store(2 * HOUR, Ordering::SeqCst);
    pusher.run_once(None, false).unwrap();
    assert_eq!(members(&platform, "a1"), desired(&rig, &platform));
}

#[test]
fn what_the_platform_works_on_for_days_counts_as_waiting() {
    let rig = rig(0..12, 0);
    let platform = Shared::default();
    platform.lock().works = 9 * DAY;
    rig.clock.0.store(DAY, Ordering::SeqCst);
    let pusher = rig.start_on(connector(&platform, &whole()));
    pusher.run_once(None, false).unwrap();
    for (hours, waits_since) in [(47, 0.0), (49, 86_400.0)] {
        rig.clock.0.store(DAY + hours * HOUR, Ordering::SeqCst);
        pusher.run_once(None, false).unwrap();
        let gauge = rig.metrics.delivery_oldest_pending.with_label_values(&["crm"]);
        assert!((gauge.get() - waits_since).abs() < 1.0, "{hours}: {}", gauge.get());
    }
}

#[test]
fn halves_of_what_was_worked_on_are_waited_for_and_no_line_is_in_two_batches() {
    let rig = rig(0..12, 0);
    let platform = Shared::default();
    platform.lock().works = HOUR;
    platform.lock().bad = ["c05".to_owned()].into();
    let start =
        || rig.start_on(PlatformConnector { tells: Tells::Some, ..connector(&platform, &whole()) });
    start().run_once(None, false).unwrap();
    for hour in 1..12 {
        rig.clock.0.store(hour * HOUR, Ordering::SeqCst);
        start().run_once(None, false).unwrap();
        let ledger = rig.ledger();
        let target = Target::new("crm", "buyers");
        let open = ledger.prepared(&target).unwrap();
        let lines: Vec<_> = open.iter().flat_map(|batch| &batch.changes.adds).collect();
        let each: BTreeSet<_> = lines.iter().collect();
        assert_eq!(each.len(), lines.len(), "after {hour} hours: {lines:?}");
    }
    let report = start().run_once(None, false).unwrap().remove(0);
    assert_eq!((report.pending, report.refused, report.held), (0, 1, 17), "{report:?}");
    assert_eq!(members(&platform, "a1"), desired(&rig, &platform));
}

#[test]
fn what_the_platform_has_lost_is_sent_again() {
    let rig = rig(0..12, 0);
    let platform = Shared::default();
    platform.lock().works = HOUR;
    let pusher = rig.start_on(connector(&platform, &whole()));
    pusher.run_once(None, false).unwrap();
    platform.lock().lose_jobs();
    platform.lock().works = 0;
    rig.clock.0.store(HOUR, Ordering::SeqCst);
    for _ in 0..4 {
        pusher.run_once(None, false).unwrap();
    }
    assert_eq!(members(&platform, "a1"), rig.world().desired("crm", "buyers"));
}

#[test]
fn where_a_batch_cannot_do_both_all_that_comes_goes_first() {
    let rig = rig(0..6, 0);
    let platform = Shared::default();
    let caps = Caps { max_rows: 2, namespaces: None, mixes: false, ttl: None, min_size: None };
    let pusher = rig.start_on(PlatformConnector { caps, ..connector(&platform, &whole()) });
    pusher.run_once(None, false).unwrap();
    platform.lock().calls.clear();
    rig.world().members.insert("buyers".into(), profiles(4..12));
    pusher.drain_once("crm").unwrap();
    assert_eq!(members(&platform, "a1"), rig.world().desired("crm", "buyers"));
    let calls = platform.lock().calls.clone();
    assert!(calls.iter().all(|(_, adds, removes)| *adds == 0 || *removes == 0), "{calls:?}");
    let first_removal = calls.iter().position(|(_, adds, _)| *adds == 0).unwrap();
    assert!(calls[first_removal..].iter().all(|(_, adds, _)| *adds == 0), "{calls:?}");
}

#[test]
fn an_audience_is_made_once() {
    let made = |lists: bool, script: Vec<(bool, Verdict)>| {
        let rig = rig(0..6, 0);
        let platform = Shared::default();
        platform.lock().lists = lists;
        platform.lock().script = script;
        let start = || {
            let of = PlatformConnector { place: Place::Made, ..connector(&platform, &whole()) };
            rig.start_on(of)
        };
        let run = |_| start().run_once(None, false).unwrap().remove(0);
        let mut reports: Vec<PushReport> = (0..3).map(run).collect();
        let last = reports.remove(2);
        let members = members(&platform, "buyers!").len();
        (platform.lock().made.len(), members, last.trouble)
    };
    let nine = 9;
    assert_eq!(made(false, Vec::new()), (1, nine, None));
    assert_eq!(made(true, Vec::new()), (1, nine, None));
    let busy = || (false, Verdict::Retry("busy".into()));
    assert_eq!(made(false, vec![busy()]), (1, nine, None));
    // Made, and the answer lost: it is found, or somebody has to say.
    let lost = || (true, Verdict::Unknown("lost".into()));
    assert_eq!(made(true, vec![lost()]), (1, nine, None));
    let (count, members, trouble) = made(false, vec![lost()]);
    assert_eq!((count, members), (1, 0));
    assert!(trouble.unwrap().contains("write its id into `audiences`"));
}

#[test]
fn a_paused_destination_loses_who_opts_out_and_nobody_else() {
    let rig = rig(0..8, 0);
    let platform = Shared::default();
    let pusher = rig.start_on(connector(&platform, &whole()));
    pusher.run_once(None, false).unwrap();
    let before = members(&platform, "a1");
    pusher.set_paused("crm", true).unwrap();
    rig.world().members.insert("buyers".into(), profiles(2..12));
    rig.world().marked = profiles([4]);
    // In another process as well.
    for pusher in [&pusher, &rig.start_on(connector(&platform, &whole()))] {
        let report = pusher.run_once(None, false).unwrap().remove(0);
        assert!(report.trouble.unwrap().contains("throng destination resume crm"));
        let status = pusher.status().unwrap().remove(0);
        assert!(status.paused && !status.segments[0].parked);
    }
    let after = members(&platform, "a1");
    assert!(after.is_subset(&before) && !after.contains(&("cookie".into(), "c04".into())));
    assert!(after.contains(&("cookie".into(), "c00".into())), "who only left stays");
    pusher.set_paused("crm", false).unwrap();
    // Its own schedule takes it up at once.
    pusher.tick();
    assert_eq!(members(&platform, "a1"), rig.world().desired("crm", "buyers"));
}

#[test]
fn what_a_destination_lost_is_sent_again_when_someone_says_so() {
    let rig = rig(0..8, 0);
    let platform = Shared::default();
    let pusher = rig.start_on(connector(&platform, &whole()));
    pusher.run_once(None, false).unwrap();
    let before = members(&platform, "a1");
    platform.lock().members.clear();
    pusher.run_once(None, false).unwrap();
    assert!(members(&platform, "a1").is_empty(), "nobody knows that it lost it");
    pusher.resync("crm").unwrap();
    assert_eq!(members(&platform, "a1"), before);
    platform.lock().calls.clear();
    let report = pusher.reseed("crm").unwrap().remove(0);
    let total = before.len() as u64;
    assert_eq!((report.adds, report.removes, report.held), (total, total, total));
    assert_eq!(members(&platform, "a1"), before);
    platform.lock().bad = ["c05".to_owned()].into();
    rig.clock.0.store(1, Ordering::SeqCst);
    pusher.reseed("crm").unwrap();
    platform.lock().bad.clear();
    rig.clock.0.store(2, Ordering::SeqCst);
    let refused = pusher.refused("crm", 9).unwrap();
    assert_eq!((refused.len(), &*refused[0].0), (1, "buyers"));
    let report = pusher.replay("crm").unwrap().remove(0);
    assert_eq!((report.adds, report.refused), (1, 0));
    assert_eq!(members(&platform, "a1"), before);
}

#[test]
fn nobody_ends_at_the_platform_who_is_still_in_the_audience() {
    let rig = rig(0..40, 0);
    let platform = Shared::default();
    let ttl = 10 * DAY;
    let caps = Caps { max_rows: 8, namespaces: None, mixes: true, ttl: Some(ttl), min_size: None };
    let start =
        || rig.start_on(PlatformConnector { caps: caps.clone(), ..connector(&platform, &whole()) });
    let desired = rig.world().desired("crm", "buyers");
    let mut most = 0;
    // It stands still for four days once.
    for day in (1..60).filter(|day| !(20..24).contains(day)) {
        rig.clock.0.store(day * DAY, Ordering::SeqCst);
        for turn in 0..2 {
            let report = start().run_once(None, false).unwrap().remove(0);
            if day > 1 {
                assert!(turn == 0 || report.adds == 0, "once a day");
                // All that was due meanwhile is made up for at once.
                most = most.max(if day == 24 { 0 } else { report.adds });
            }
        }
        let platform = platform.lock();
        for one in &desired {
            let came = platform.came[&("a1".to_owned(), one.clone())];
            assert!(day * DAY - came < ttl, "{one:?} has ended on day {day}");
        }
    }
    assert!(most < desired.len() as u64, "not all on one day");
    assert_eq!(members(&platform, "a1"), desired);
}

/// Kills the process at each step of a run that is partly refused, split, or worked on.
#[test]
fn after_a_crash_at_any_step_the_platform_holds_who_is_desired() {
    for (tells, works) in
        [(Tells::Each, 0), (Tells::Some, 0), (Tells::Each, MINUTE), (Tells::Some, MINUTE)]
    {
        for place in [Place::Named("a1".into()), Place::Made] {
            let mut steps = 0;
            loop {
                let rig = rig(0..7, 0);
                let platform = Shared::default();
                platform.lock().lists = true;
                platform.lock().bad = ["c03".to_owned()].into();
                platform.lock().works = works;
                let audience = if place == Place::Made { "buyers!" } else { "a1" };
                let start = |fuse: &Arc<Fuse>| {
                    rig.start_on(PlatformConnector {
                        tells,
                        place: place.clone(),
                        ..connector(&platform, fuse)
                    })
                };
                let fuse = Fuse::new(steps);
                let turn = |fuse: &Arc<Fuse>, from: i64| {
                    for now in [from, from + MINUTE, from + 2 * MINUTE] {
                        rig.clock.0.store(now, Ordering::SeqCst);
                        let _ = start(fuse).run_once(None, false);
                    }
                };
                turn(&fuse, 0);
                rig.world().members.insert("buyers".into(), profiles(1..8));
                turn(&fuse, HOUR);
                let is_whole = !fuse.is_blown();
                for hour in 2..8 {
                    turn(&whole(), hour * HOUR);
                }
                let now = rig.clock.0.load(Ordering::SeqCst);
                platform.lock().work(now + HOUR, tells);
                let said = format!("{tells:?} {works} {place:?}, dead after {steps} steps");
                assert_eq!(members(&platform, audience), desired(&rig, &platform), "{said}");
                assert!(platform.lock().made.len() <= 1, "{said}");
                if is_whole {
                    break;
                }
                steps += 1;
            }
            assert!(steps > 10);
        }
    }
}

#[test]
fn one_bad_line_among_ten_thousand_costs_itself() {
    for tells in [Tells::Each, Tells::Some] {
        let mut rig = Rig::new(World {
            identifiers: people(10_000),
            members: [("buyers".to_owned(), profiles(0..10_000))].into(),
            activations: vec![activation("buyers", 0)],
            generation: 1,
            ..World::default()
        });
        rig.part_bytes = 1 << 20;
        let platform = Shared::default();
        platform.lock().bad = ["c7777".to_owned()].into();
        let caps = Caps { max_rows: 10_000, ..connector(&platform, &whole()).caps };
        let connector = PlatformConnector { tells, caps, ..connector(&platform, &whole()) };
        let report = rig.start_on(connector).run_once(None, false).unwrap().remove(0);
        assert_eq!((report.trouble, report.refused, report.held), (None, 1, 14_999), "{tells:?}");
        let desired = desired(&rig, &platform);
        assert_eq!((desired.len(), members(&platform, "a1")), (14_999, desired));
    }
}
