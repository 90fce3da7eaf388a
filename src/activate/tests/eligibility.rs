//! Who may go to a destination, beside what the rule says, and what is told of those who may not.

use super::rig::*;
use super::world::*;
use crate::activate::Waterfall;
use crate::model::Namespace;

fn counts(waterfall: &Waterfall) -> Vec<(&str, u64)> {
    waterfall.steps.iter().map(|step| (step.step, step.count)).collect()
}

fn reasons(waterfall: &Waterfall) -> Vec<(&str, u64)> {
    let lost = waterfall.steps.iter().flat_map(|step| &step.lost);
    lost.map(|lost| (lost.why.as_str(), lost.count)).collect()
}

/// Six buyers who are held, with a segment of staff and one of those who were seen lately.
fn with_terms() -> Rig {
    let rig = rig(0..6, 0);
    let mut world = rig.world();
    world.suppress = vec!["staff".into()];
    world.fresh = Some("seen".into());
    world.members.insert("staff".into(), profiles([]));
    world.members.insert("seen".into(), profiles(0..12));
    drop(world);
    rig.start(&whole()).run_once(None, false).unwrap();
    assert_eq!(rig.remote("buyers").len(), 9);
    rig
}

#[test]
fn whoever_a_term_keeps_out_is_removed_through_every_guard() {
    for term in ["staff", "seen", "consent"] {
        for guard in ["none", "drain", "pause", "minimum"] {
            let mut rig = with_terms();
            let changed = if term == "seen" { profiles(3..12) } else { profiles(0..3) };
            if term == "consent" {
                let mut world = rig.world();
                world.vendor = Some(755);
                // Of another vendor, and of all who name none: it is nothing to this one.
                world.unconsented.insert(Some(21), profiles(0..12));
                world.unconsented.insert(None, profiles(0..12));
                world.unconsented.insert(Some(755), profiles(0..3));
            } else {
                rig.world().members.insert(term.into(), changed);
            }
            match guard {
                "drain" => {
                    rig.few = 1;
                    // All others would go, too, and may not.
                    rig.world().members.insert("buyers".into(), profiles([]));
                }
                "pause" => rig.ledger().set_paused("crm", true).unwrap(),
                "minimum" => rig.world().activations[0].min_size = 100,
                _ => {}
            }
            let report = rig.start(&whole()).run_once(None, false).unwrap().remove(0);
            assert_eq!(report.trouble.is_some(), matches!(guard, "drain" | "pause"), "{report:?}");
            // The other three may stay, with the user id that one of them shares with the third.
            let held: Vec<String> =
                rig.remote("buyers").into_iter().map(|(_, value)| value).collect();
            assert_eq!(held, ["c03", "c04", "c05", "u01", "u02"], "{term} {guard}");
        }
    }
}

#[test]
fn while_it_is_not_known_who_may_go_nobody_is_added_and_who_is_known_not_to_is_removed() {
    let rig = with_terms();
    rig.world().members.remove("staff");
    rig.world().marked = profiles([0, 1]);
    rig.world().members.insert("buyers".into(), profiles(0..9));
    let report = rig.start(&whole()).run_once(None, false).unwrap().remove(0);
    let trouble = report.trouble.as_deref().unwrap();
    assert!(trouble.starts_with("staff, which `suppress` or `fresh`"), "{trouble}");
    assert!(trouble.contains("take it out of destinations.toml"), "{trouble}");
    assert_eq!((report.adds, report.removes), (0, 3));
    rig.world().members.insert("staff".into(), profiles([2]));
    let report = rig.start(&whole()).run_once(None, false).unwrap().remove(0);
    assert_eq!(report.trouble, None);
    assert_eq!(rig.remote("buyers"), rig.world().desired("crm", "buyers"));
}

#[test]
fn a_waterfall_says_at_which_step_members_are_lost_and_why() {
    let rig = with_terms();
    let mut world = rig.world();
    world.members.insert("buyers".into(), profiles(0..12));
    // Marks of even ordinals are those who opted out, of odd ones bots.
    world.marked = profiles([0, 1, 2]);
    world.unconsented.insert(None, profiles([2, 4]));
    world.members.insert("staff".into(), profiles([2, 3]));
    world.members.insert("seen".into(), profiles(0..11));
    world.activations[0].identifiers = Some(vec![Namespace::new("cookie").unwrap()]);
    let of_last = world.identifiers.keys().next_back().copied().unwrap();
    world.identifiers.get_mut(&of_last).unwrap().retain(|one| one.namespace.as_str() == "user_id");
    drop(world);
    let pusher = rig.start(&whole());
    let shown = pusher.waterfalls("crm").unwrap().remove(0);
    let profiles = [
        ("members", 12),
        ("reachable", 11),
        ("consented", 6),
        ("fresh", if of_last == (2, 11) { 6 } else { 5 }),
    ];
    assert_eq!(counts(&shown)[..4], profiles);
    let lost = [
        ("no identifier that the destination takes", 1),
        ("opted out", 2),
        ("no consent for the destination", 1),
        ("a bot", 1),
        ("suppressed: in staff", 1),
    ];
    assert_eq!(reasons(&shown)[..5], lost, "{shown:?}");
    // The cookie of 5 is held, of the others not yet, and that of 4 may not stay.
    let identifiers: Vec<(&str, u64)> = counts(&shown)[5..].to_vec();
    assert_eq!(identifiers, [("identifiers", 6), ("sent", 1), ("accepted", 1)]);
    pusher.run_once(None, false).unwrap();
    let shown = pusher.waterfalls("crm").unwrap().remove(0);
    assert_eq!(counts(&shown)[5..], [("identifiers", 6), ("sent", 6), ("accepted", 6)]);
    let metrics = rig.metrics.render();
    let line = |step: &str, count: u64| {
        format!(
            "throng_waterfall{{destination=\"crm\",segment=\"buyers\",step=\"{step}\"}} {count}"
        )
    };
    for (step, count) in counts(&shown) {
        assert!(metrics.contains(&line(step, count)), "{step} {count}:\n{metrics}");
    }
    // Of a segment that goes nowhere any more nothing is shown.
    rig.world().activations.clear();
    pusher.run_once(None, false).unwrap();
    pusher.run_once(None, false).unwrap();
    assert!(!rig.metrics.render().contains("throng_waterfall{"));
}
