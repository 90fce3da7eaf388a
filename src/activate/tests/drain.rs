//! Much that would be removed at once waits for someone's word.

use std::sync::atomic::Ordering;

use super::rig::*;
use super::world::*;
use crate::model::time::MINUTE;

/// A rig in step, with twelve profiles in the audience, of which few removals are few.
fn in_step() -> Rig {
    let mut rig = rig(0..12, 0);
    rig.few = 1;
    rig.start(&whole()).run_once(None, false).unwrap();
    assert_eq!(rig.remote("buyers").len(), 18);
    rig
}

#[test]
fn an_audience_that_is_empty_all_at_once_removes_nobody_but_who_opted_out() {
    let rig = in_step();
    let pusher = rig.start(&whole());
    rig.world().members.insert("buyers".into(), profiles([]));
    // Profile 1 shares its user id with profile 0, who may be sent.
    rig.world().marked = profiles([1]);
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!((report.removes, report.held), (1, 17));
    let trouble = report.trouble.unwrap();
    assert!(trouble.starts_with("17 of 18 would be removed, more than the 30 %"), "{trouble}");
    assert!(trouble.contains("throng destination push crm --drain"), "{trouble}");
    assert!(!rig.remote("buyers").contains(&("cookie".into(), "c01".into())));
    assert!(rig.metrics.render().contains("throng_delivery_parked{destination=\"crm\"} 1"));
    assert!(pusher.status().unwrap()[0].segments[0].parked);

    // It comes back by itself: so does the destination.
    rig.world().members.insert("buyers".into(), profiles(0..12));
    rig.clock.0.store(MINUTE, Ordering::SeqCst);
    pusher.tick();
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
    assert!(!pusher.status().unwrap()[0].segments[0].parked);
    assert!(rig.metrics.render().contains("throng_delivery_parked{destination=\"crm\"} 0"));
}

#[test]
fn what_is_meant_is_removed() {
    let rig = in_step();
    let pusher = rig.start(&whole());
    rig.world().members.insert("buyers".into(), profiles(0..2));
    let dry = pusher.run_once(None, true).unwrap().remove(0);
    assert_eq!((dry.removes, rig.remote("buyers").len()), (15, 18));
    assert!(dry.trouble.is_some(), "a dry run says that it would be held back");
    assert!(pusher.run_once(None, false).unwrap()[0].trouble.is_some());
    let report = pusher.drain_once("crm").unwrap().remove(0);
    assert_eq!((report.removes, report.trouble), (15, None));
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn a_part_that_is_small_or_opted_out_or_of_a_segment_that_goes_nowhere_any_more_is_removed() {
    for change in 0..3 {
        let rig = in_step();
        match change {
            // 4 of 18 are less than 30 %.
            0 => _ = rig.world().members.insert("buyers".into(), profiles(0..9)),
            1 => rig.world().marked = profiles(0..11),
            _ => rig.world().activations.clear(),
        }
        let report = rig.start(&whole()).run_once(None, false).unwrap().remove(0);
        assert_eq!(report.trouble, None, "{change}");
        assert!(report.removes >= 4, "{change}: {report:?}");
        assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"), "{change}");
    }
}
