//! When lanes run, what stands in their way, and who is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rig::*;
use super::world::*;
use crate::activate::NoAudience;
use crate::activate::Verdict;
use crate::metrics::Metrics;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;
use crate::net::Workers;

#[test]
fn one_destinations_trouble_is_not_anothers_and_it_is_told() {
    let rig = rig(0..6, 0);
    let mut other = activation("buyers", 0);
    other.destination = "ads".into();
    rig.world().activations.push(other.clone());
    other.destination = "nowhere".into();
    rig.world().activations.push(other);
    std::fs::write(rig.out(), "in the way").unwrap();
    let pusher = rig.start_named(rig.ledger(), &whole(), &["crm", "ads"]);
    let reports = pusher.run_once(None, false).unwrap();
    let trouble = reports[0].trouble.as_deref().unwrap();
    assert!(trouble.contains("is not a folder; give the destination another path"), "{trouble}");
    assert_eq!((reports[0].pending, reports[0].held), (1, 0));
    assert_eq!((reports[1].trouble.as_deref(), reports[1].held), (None, 9));
    assert!(reports[2].trouble.as_deref().unwrap().contains("no destination is named `nowhere`"));

    let status = pusher.status().unwrap();
    assert_eq!(status[0].segments[0].trouble.as_deref(), Some(trouble));
    assert!(!status[0].segments[0].parked);
    assert_eq!((status[0].oldest_pending, status[0].last_success), (Some(0), None));
    assert_eq!((status[1].oldest_pending, status[1].last_success), (None, Some(0)));
    assert_eq!(pusher.deliveries("crm", 9).unwrap()[0].failures, 1);
    assert_eq!(pusher.check("crm").unwrap().unwrap_err(), trouble);
    assert_eq!(pusher.check("ads").unwrap(), Ok(()));
    let text = rig.metrics.render();
    for line in [
        "throng_delivery_attempts_total{destination=\"crm\",result=\"retry\"} 1",
        "throng_delivery_attempts_total{destination=\"ads\",result=\"accepted\"} 3",
        "throng_delivery_identifiers_total{destination=\"ads\",operation=\"add\"} 9",
        "throng_delivery_identifiers_total{destination=\"crm\",operation=\"add\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }

    std::fs::remove_file(rig.out()).unwrap();
    assert_eq!(pusher.run_once(Some("crm"), false).unwrap()[0].held, 9);
    assert_eq!(pusher.status().unwrap()[0].segments[0].trouble, None);
    let error = pusher.run_once(Some("fax"), false).unwrap_err().to_string();
    assert_eq!(error, "no destination is named `fax`; there is crm, ads");
}

#[test]
fn lanes_run_by_schedule_and_failures_come_back_sooner() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    let at = |time: i64| rig.clock.0.store(time, Ordering::SeqCst);
    let sent = || files(&rig.out(), "buyers").len();
    at(1_000);
    assert_eq!(pusher.tick(), 1_000 + MINUTE);
    assert_eq!(sent(), 3);
    rig.world().members.insert("buyers".into(), profiles(0..7));
    at(999 + MINUTE);
    pusher.tick();
    assert_eq!(sent(), 3);
    at(1_000 + MINUTE);
    rig.script.lock().push(Verdict::Retry("no room".into()));
    let retry_at = pusher.tick();
    assert!((1_000 + MINUTE + SECOND..=1_000 + MINUTE + 2 * SECOND).contains(&retry_at));
    at(retry_at - 1);
    pusher.tick();
    assert_eq!(sent(), 3);
    at(retry_at);
    assert_eq!(pusher.tick(), 1_000 + 2 * MINUTE);
    assert_eq!(sent(), 4);

    // Nothing goes to a destination that asks to wait, other segments included.
    rig.world().activations.push(activation("lookers", 0));
    rig.world().members.insert("lookers".into(), profiles(0..1));
    rig.world().members.insert("buyers".into(), profiles(0..9));
    let asked = 1_000 + 2 * MINUTE + 5 * SECOND;
    rig.script.lock().push(Verdict::Throttled(Some(asked)));
    at(1_000 + 2 * MINUTE);
    assert_eq!(pusher.tick(), asked);
    assert_eq!(files(&rig.out(), "lookers").len(), 0);
    at(asked);
    pusher.tick();
    assert_eq!(rig.remote("lookers"), rig.world().desired("crm", "lookers"));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));

    // What waits for someone is not tried again until someone asks.
    rig.world().members.insert("buyers".into(), profiles(0..10));
    rig.script.lock().push(Verdict::Fatal("act".into()));
    at(asked + MINUTE);
    assert_eq!(pusher.tick(), asked + 2 * MINUTE);
    assert!(pusher.status().unwrap()[0].segments[0].parked);
    let before = sent();
    at(asked + 2 * MINUTE);
    pusher.tick();
    assert_eq!(sent(), before);
    // But who opts out is removed, and that is all.
    rig.world().marked = profiles([3]);
    at(asked + 3 * MINUTE);
    pusher.tick();
    assert_eq!(sent(), before + 1);
    assert!(!rig.remote("buyers").contains(&("cookie".into(), "c03".into())));
    assert!(pusher.status().unwrap()[0].segments[0].parked);
    assert!(!rig.remote("buyers").contains(&("cookie".into(), "c09".into())));
    pusher.run_once(Some("crm"), false).unwrap();
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    assert!(!pusher.status().unwrap()[0].segments[0].parked);
}

#[test]
fn a_ledger_that_fails_while_a_retry_is_due_is_asked_again_after_a_pause() {
    let rig = rig(0..6, 0);
    let fuse = whole();
    let pusher = rig.start(&fuse);
    let at = |time: i64| rig.clock.0.store(time, Ordering::SeqCst);
    rig.script.lock().push(Verdict::Retry("no room".into()));
    let mut next = pusher.tick();
    fuse.set(-1);
    for _ in 0..3 {
        at(next);
        let after = pusher.tick();
        assert!(after >= next + SECOND, "{next}, {after}");
        next = after;
    }
    // Nor is there a hurry while it is not known what is activated.
    fuse.set(i64::MAX);
    rig.world().ready = false;
    at(next);
    assert_eq!(pusher.tick(), next + SECOND);
    rig.world().ready = true;
    at(next + SECOND);
    pusher.tick();
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    assert_eq!(pusher.status().unwrap()[0].trouble, None);
}

#[test]
fn a_ledger_that_fails_at_the_start_is_counted() {
    let rig = rig(0..6, 0);
    let pusher = Arc::new(rig.start_named(rig.ledger(), &Fuse::new(-1), &[]));
    drop(pusher.spawn(&Workers::new(Metrics::new())).unwrap());
    let text = rig.metrics.render();
    assert!(text.contains("throng_store_errors_total{operation=\"ledger\"} 1"), "{text}");
}

#[test]
fn threads_push_and_stop() {
    let rig = rig(0..6, 0);
    let pusher = Arc::new(rig.start(&whole()));
    let running = pusher.spawn(&Workers::new(Metrics::new())).unwrap();
    while pusher.status().unwrap()[0].last_success.is_none() {
        std::thread::yield_now();
    }
    drop(running);
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn what_fails_for_72_hours_waits_for_someone_also_in_another_process() {
    const HOURS_72: i64 = 72 * 60 * MINUTE;
    let rig = rig(0..6, 0);
    let fails = || rig.script.lock().push(Verdict::Retry("no room".into()));
    let mut pusher = rig.start(&whole());
    fails();
    pusher.tick();
    for (at, is_parked) in [(HOURS_72 - 60 * MINUTE, false), (HOURS_72, true)] {
        rig.clock.0.store(at, Ordering::SeqCst);
        fails();
        pusher.tick();
        let segment = pusher.status().unwrap().remove(0).segments.remove(0);
        assert_eq!((segment.parked, segment.retry_at.is_none()), (is_parked, is_parked));
    }
    let text = rig.metrics.render();
    assert!(text.contains("throng_delivery_parked{destination=\"crm\"} 1"), "{text}");
    rig.clock.0.store(2 * HOURS_72, Ordering::SeqCst);
    pusher.tick();
    assert_eq!(files(&rig.out(), "buyers").len(), 0, "it is not tried by itself");

    // A new process tries once: the batch that it finds says since when it waits.
    pusher = rig.start(&whole());
    fails();
    pusher.tick();
    let segment = pusher.status().unwrap().remove(0).segments.remove(0);
    assert_eq!(segment.trouble.as_deref(), Some("did not work for 72 hours: no room"));
    assert!(segment.parked);
    pusher.run_once(None, false).unwrap();
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    assert!(!pusher.status().unwrap()[0].segments[0].parked);
}

#[test]
fn what_waited_for_an_audience_for_days_is_tried_again_when_it_first_fails() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    rig.world().missing = Some(NoAudience::NotWhole);
    pusher.tick();
    rig.clock.0.store(100 * 60 * MINUTE, Ordering::SeqCst);
    rig.world().missing = None;
    rig.script.lock().push(Verdict::Retry("no room".into()));
    pusher.tick();
    let segment = pusher.status().unwrap().remove(0).segments.remove(0);
    assert_eq!((segment.parked, segment.trouble.as_deref()), (false, Some("no room")));
}
