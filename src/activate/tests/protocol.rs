//! What is sent, what is not, and who is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rig::*;
use crate::activate::Outcome;
use crate::activate::PushError;
use crate::model::Namespace;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;
use crate::store::ledger::Changes;
use crate::store::ledger::DeliveryState;
use crate::store::ledger::Target;

fn whole() -> Arc<Fuse> {
    Fuse::new(i64::MAX)
}

fn rig(members: std::ops::Range<u32>, min_size: u64) -> Rig {
    let mut world = World { generation: 5, identifiers: people(12), ..World::default() };
    world.activations.push(activation("buyers", min_size));
    world.members.insert("buyers".into(), profiles(members));
    Rig::new(world)
}

#[test]
fn a_destination_gets_who_came_and_who_left_and_nothing_else() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.generation, report.true_for), (Some(5), Some(7)));
    assert_eq!((report.members, report.eligible, report.adds, report.removes), (6, 6, 9, 0));
    assert_eq!((report.held, report.batches, report.pending), (9, 3, 0));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));

    // Nothing changed: nothing is sent.
    let report = pusher.run_once(Some("crm"), false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.batches, report.held), (0, 0, 0, 9));
    assert_eq!(files(&rig.out(), "buyers").len(), 3);

    // Profile 1 leaves; its user id stays, because profile 0 has it too.
    rig.world().members.insert("buyers".into(), profiles([0, 2, 3, 4, 5, 7]));
    rig.world().generation = 6;
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.held), (2, 1, 10));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    assert!(rig.remote("buyers").contains(&("user_id".into(), "u00".into())));
    let last = files(&rig.out(), "buyers").pop().unwrap();
    assert_eq!((last.0, last.1), (6, 1));
    assert_eq!(
        std::fs::read_to_string(last.2).unwrap(),
        "action,namespace,value\r\nremove,cookie,c01\r\nadd,cookie,c07\r\nadd,user_id,u03\r\n"
    );
}

#[test]
fn only_the_namespaces_asked_for_are_sent() {
    let rig = rig(0..6, 0);
    rig.world().activations[0].identifiers = Some(vec![Namespace::new("user_id").unwrap()]);
    let pusher = rig.start(&whole());
    pusher.run_once(None, false).unwrap();
    assert_eq!(rig.remote("buyers").len(), 3);
    // Asking for others takes back what is no longer asked for.
    rig.world().activations[0].identifiers = Some(vec![Namespace::new("cookie").unwrap()]);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes), (6, 3));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn below_the_minimum_nothing_is_added_removes_go_on_and_what_is_held_stays() {
    let rig = rig(0..6, 6);
    let pusher = rig.start(&whole());
    rig.world().marked = profiles([5]);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.eligible, report.below_minimum, report.withheld), (5, true, 8));
    assert_eq!((report.adds, rig.remote("buyers").len()), (0, 0));

    rig.world().marked.clear();
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.below_minimum, report.adds), (false, 9));

    // Four leave, one comes: it is not added, and the two that stay are still held.
    rig.world().members.insert("buyers".into(), profiles([0, 1, 11]));
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.withheld, report.held), (0, 6, 2, 3));
    let held: Vec<_> = rig.remote("buyers").into_iter().map(|(_, value)| value).collect();
    assert_eq!(held, ["c00", "c01", "u00"]);
}

#[test]
fn who_opts_out_is_removed_at_once_in_the_same_generation() {
    let rig = rig(0..6, 6);
    let pusher = rig.start(&whole());
    pusher.run_once(None, false).unwrap();
    rig.world().marked = profiles(0..5);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.members, report.eligible, report.removes), (6, 1, 7));
    let last = files(&rig.out(), "buyers").pop().unwrap();
    assert_eq!((last.0, last.1), (5, 6));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn a_segment_that_is_no_longer_activated_is_taken_back() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    pusher.run_once(None, false).unwrap();

    // While it is not known what is activated, or the audience is not whole, nothing is taken back.
    rig.world().ready = false;
    assert!(matches!(pusher.run_once(None, false), Err(PushError::NotReady)));
    rig.world().ready = true;
    let members = rig.world().members.remove("buyers");
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert!(report.trouble.unwrap().contains("first whole audience"));
    assert_eq!(report.held, 9);

    rig.world().activations.clear();
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.generation, report.removes, report.held), (None, 9, 0));
    assert_eq!(rig.remote("buyers").len(), 0);
    assert_eq!(pusher.run_once(None, false).unwrap(), []);

    // And when it comes back, its files follow the earlier ones.
    rig.world().activations.push(activation("buyers", 0));
    rig.world().members.insert("buyers".into(), members.unwrap());
    rig.world().generation = 2;
    pusher.run_once(None, false).unwrap();
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn a_dry_run_counts_and_does_nothing() {
    let rig = rig(0..6, 0);
    let ledger = rig.ledger();
    let pusher = rig.start_with(Arc::clone(&ledger), &whole());
    let report = pusher.run_once(None, true).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.batches, report.dry_run), (9, 0, 3, true));
    assert!(!rig.out().exists());
    assert_eq!(ledger.standings().unwrap(), []);

    // A batch without outcome: of its adds one is no longer wanted, and its remove is wanted back.
    pusher.run_once(None, false).unwrap();
    let changes = Changes {
        adds: vec![identifier("cookie", "c08"), identifier("cookie", "c09")],
        removes: vec![identifier("cookie", "c00")],
    };
    ledger.prepare(&Target::new("crm", "buyers"), 5, 0, changes, 0).unwrap();
    rig.world().members.insert("buyers".into(), profiles([0, 1, 2, 3, 4, 5, 8]));
    let dry = pusher.run_once(None, true).unwrap().remove(0);
    // Added: c08, u04 and c00 again. Removed: c09.
    assert_eq!((dry.adds, dry.removes, dry.batches, dry.pending), (3, 1, 2, 1));
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.batches), (3, 1, 2));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    let deliveries = pusher.deliveries("crm", 3).unwrap();
    assert_eq!(deliveries[2].state, DeliveryState::Withdrawn);
}

#[test]
fn a_batch_without_outcome_is_repeated_under_its_name_while_all_of_it_is_wanted() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    rig.script.lock().push(Outcome::Unknown("no answer".into()));
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.trouble.as_deref(), report.pending), (Some("no answer"), 1));
    rig.world().generation = 9;
    pusher.run_once(None, false).unwrap();
    let names: Vec<_> = files(&rig.out(), "buyers").iter().map(|file| (file.0, file.1)).collect();
    assert_eq!(names, [(5, 1), (9, 1), (9, 2)]);
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn a_batch_is_not_repeated_when_one_of_its_people_changed_sides() {
    // Someone to be added has opted out; someone to be removed has come back.
    for back in [false, true] {
        let rig = rig(0..6, 0);
        let pusher = rig.start(&whole());
        pusher.run_once(None, false).unwrap();
        rig.world().members.insert("buyers".into(), profiles([0, 1, 2, 3, 4, 8]));
        rig.script.lock().push(Outcome::Unknown("no answer".into()));
        let report = pusher.run_once(None, false).unwrap().remove(0);
        assert_eq!(report.pending, 1);
        if back {
            rig.world().members.insert("buyers".into(), profiles([0, 1, 2, 3, 4, 5, 8]));
        } else {
            rig.world().marked = profiles([8]);
        }
        pusher.run_once(None, false).unwrap();
        let deliveries = pusher.deliveries("crm", 9).unwrap();
        let unknown = deliveries.iter().find(|delivery| delivery.failures == 1).unwrap();
        assert_eq!((unknown.adds, unknown.removes), (2, 1));
        assert_eq!(unknown.state, DeliveryState::Withdrawn);
        assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    }
}

#[test]
fn an_unsure_add_is_not_repeated_below_the_minimum_and_made_up_for_above_it() {
    let rig = rig(0..6, 6);
    let pusher = rig.start(&whole());
    rig.script.lock().push(Outcome::Unknown("no answer".into()));
    pusher.run_once(None, false).unwrap();
    rig.world().marked = profiles([5]);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.pending), (0, 0, 0));
    rig.world().marked.clear();
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!(report.adds, 9);
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn a_file_of_a_lost_acknowledgement_counts_as_sent() {
    let rig = rig(0..3, 0);
    rig.world().activations[0].identifiers = Some(vec![Namespace::new("cookie").unwrap()]);
    // Dies after the file is there and before the ledger knows: prepare (2), send (3).
    let fuse = Fuse::new(4);
    rig.start(&fuse).run_once(None, false).unwrap_err();
    assert!(fuse.is_blown());
    assert_eq!(files(&rig.out(), "buyers").len(), 1);
    // Its people have left meanwhile.
    rig.world().members.insert("buyers".into(), profiles([0]));
    let report = rig.start(&whole()).run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.held), (3, 2, 1));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

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
    rig.script.lock().push(Outcome::Retry("no room".into()));
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
    rig.script.lock().push(Outcome::Throttled(Some(asked)));
    at(1_000 + 2 * MINUTE);
    assert_eq!(pusher.tick(), asked);
    assert_eq!(files(&rig.out(), "lookers").len(), 0);
    at(asked);
    pusher.tick();
    assert_eq!(rig.remote("lookers"), rig.world().desired("crm", "lookers"));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));

    // What waits for someone is not tried again until someone asks.
    rig.world().members.insert("buyers".into(), profiles(0..10));
    rig.script.lock().push(Outcome::Fatal("act".into()));
    at(asked + MINUTE);
    assert_eq!(pusher.tick(), asked + 2 * MINUTE);
    assert!(pusher.status().unwrap()[0].segments[0].parked);
    let before = sent();
    at(asked + 2 * MINUTE);
    pusher.tick();
    assert_eq!(sent(), before);
    pusher.run_once(Some("crm"), false).unwrap();
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn threads_push_and_stop() {
    let rig = rig(0..6, 0);
    let pusher = Arc::new(rig.start(&whole()));
    let running = pusher.spawn().unwrap();
    while pusher.status().unwrap()[0].last_success.is_none() {
        std::thread::yield_now();
    }
    drop(running);
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}
