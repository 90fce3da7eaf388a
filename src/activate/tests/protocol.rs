//! What is sent, what is not, and who is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rig::*;
use super::world::*;
use crate::activate::NoAudience;
use crate::activate::PushError;
use crate::activate::Verdict;
use crate::model::Namespace;
use crate::model::time::MINUTE;
use crate::store::ledger::Changes;
use crate::store::ledger::DeliveryState;
use crate::store::ledger::Target;

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
fn who_opts_out_is_removed_while_there_is_no_audience() {
    for why in [NoAudience::NotWhole, NoAudience::NotCommitted] {
        let rig = rig(0..6, 0);
        let pusher = rig.start(&whole());
        pusher.run_once(None, false).unwrap();
        rig.world().missing = Some(why);
        rig.clock.0.store(9, Ordering::SeqCst);
        // Profile 0 has the user id of profile 1 and may be sent, so it stays.
        rig.world().marked = profiles([1]);
        for dry_run in [true, false] {
            let report = pusher.run_once(None, dry_run).unwrap().remove(0);
            assert_eq!((report.adds, report.removes, report.batches), (0, 1, 1), "{report:?}");
            assert_eq!(report.trouble, Some(why.to_string()));
        }
        assert!(!rig.remote("buyers").contains(&("cookie".into(), "c01".into())));
        assert_eq!(rig.remote("buyers").len(), 8);
        // Such a run is no success, and comes again soon.
        let status = pusher.status().unwrap().remove(0);
        assert_eq!((status.last_run, status.last_success), (Some(9), Some(0)));
        assert!(status.next_run.unwrap() < MINUTE && !status.segments[0].parked);

        rig.world().marked = profiles([0, 1]);
        let report = pusher.run_once(None, false).unwrap().remove(0);
        assert_eq!((report.removes, report.held), (2, 6));
        assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
        let report = pusher.run_once(None, false).unwrap().remove(0);
        assert_eq!((report.removes, report.batches), (0, 0));

        rig.world().missing = None;
        rig.world().marked.clear();
        let report = pusher.run_once(None, false).unwrap().remove(0);
        assert_eq!((report.adds, report.trouble), (3, None));
        assert_eq!(pusher.status().unwrap()[0].last_success, Some(9));
    }
}

#[test]
fn who_opted_out_of_a_batch_without_verdict_is_removed_while_there_is_no_audience() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    pusher.run_once(None, false).unwrap();
    rig.world().members.insert("buyers".into(), profiles(0..8));
    rig.script.lock().push(Verdict::Unknown("no answer".into()));
    assert_eq!(pusher.run_once(None, false).unwrap()[0].pending, 1);
    rig.world().missing = Some(NoAudience::NotWhole);
    rig.world().marked = profiles([6, 7]);
    for dry_run in [true, false] {
        // Both cookies and the user id that the two share.
        let report = pusher.run_once(None, dry_run).unwrap().remove(0);
        assert_eq!((report.adds, report.removes), (0, 3));
    }
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    assert_eq!(rig.ledger().standings().unwrap()[0].held, 9);
}

#[test]
fn a_batch_without_verdict_waits_as_it_is_while_somebody_else_is_removed() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    pusher.run_once(None, false).unwrap();
    rig.world().members.insert("buyers".into(), profiles(0..8));
    rig.script.lock().push(Verdict::Unknown("no answer".into()));
    assert_eq!(pusher.run_once(None, false).unwrap()[0].pending, 1);
    let target = Target::new("crm", "buyers");
    let prepared = || rig.ledger().prepared(&target).unwrap();
    let before = prepared();
    rig.world().missing = Some(NoAudience::NotWhole);
    // Profile 0 has the user id of profile 1 and may be sent, so it stays.
    rig.world().marked = profiles([1]);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.pending), (0, 1, 1));
    assert_eq!(prepared(), before);
    rig.world().missing = None;
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.adds, report.removes, report.batches), (3, 0, 1));
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

    // Nor while its file cannot be read and there is no good version of it; but opt-outs are removed.
    rig.world().activations.clear();
    rig.world().unreadable.insert("buyers".into());
    rig.world().marked = profiles([2]);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.removes, report.held), (1, 8), "{report:?}");
    rig.world().unreadable.clear();

    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.generation, report.removes, report.held), (None, 8, 0));
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

    // A batch without verdict: of its adds one is no longer wanted, and its remove is wanted back.
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
fn a_batch_without_verdict_is_repeated_under_its_name_while_all_of_it_is_wanted() {
    let rig = rig(0..6, 0);
    let pusher = rig.start(&whole());
    rig.script.lock().push(Verdict::Unknown("no answer".into()));
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
        rig.script.lock().push(Verdict::Unknown("no answer".into()));
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
    rig.script.lock().push(Verdict::Unknown("no answer".into()));
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
