//! Whatever step is the last before a crash, and whatever changes before the next start, the folder's
//! reader ends with the people who should be held.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::rig::*;
use super::world::*;
use crate::activate::NoAudience;
use crate::model::Namespace;

fn world(members: impl IntoIterator<Item = u32>) -> World {
    let mut world = World { generation: 1, identifiers: people(16), ..World::default() };
    world.activations.push(activation("buyers", 0));
    world.members.insert("buyers".into(), profiles(members));
    world
}

#[test]
fn a_crash_after_any_step_leaves_a_destination_that_converges() {
    let mut steps = 0;
    loop {
        let mut blown = false;
        // What has changed when the process is back: nothing, who is in, who may be sent, everything.
        for change in 0..4 {
            let rig = Rig::new(world(0..8));
            rig.start(&Fuse::new(i64::MAX)).run_once(None, false).unwrap();
            rig.world().generation = 2;
            rig.world().members.insert("buyers".into(), profiles(4..12));
            let fuse = Fuse::new(steps);
            let _ = rig.start(&fuse).run_once(None, false);
            blown |= fuse.is_blown();
            match change {
                0 => {}
                1 => _ = rig.world().members.insert("buyers".into(), profiles(0..5)),
                2 => rig.world().marked = profiles(0..10),
                _ => rig.world().activations.clear(),
            }
            rig.world().generation += 1;
            rig.start(&Fuse::new(i64::MAX)).run_once(None, false).unwrap();
            let desired = rig.world().desired("crm", "buyers");
            assert_eq!(rig.remote("buyers"), desired, "{steps} steps, change {change}");
            let ledger = rig.ledger();
            let standings = ledger.standings().unwrap();
            let held = standings.first().map_or(0, |standing| standing.held);
            assert_eq!(held, desired.len() as u64, "{steps} steps, change {change}");
        }
        steps += 1;
        if !blown {
            break;
        }
    }
    assert!(steps > 20, "only {steps} steps");
}

/// What happens to a world, step by step.
#[derive(Debug, Clone)]
enum Turn {
    Members(Vec<u32>),
    Mark(Vec<u32>),
    /// Who may not go to the destination, by a segment, and who alone may, by another.
    Suppress(Vec<u32>),
    Fresh(Vec<u32>),
    Unmark,
    /// A profile gains an identifier that another may have.
    Gain(u32, u32),
    Minimum(u64),
    Namespaces(bool),
    Activate(bool),
    /// The audience goes, or comes back.
    Missing(Option<NoAudience>),
    /// A run that dies after so many steps, in a process that starts anew.
    Run(i64),
    /// The reader applies what is there and clears the folder.
    Collect,
}

fn turn() -> impl Strategy<Value = Turn> {
    let some = || proptest::collection::vec(0u32..16, 0..16);
    prop_oneof![
        3 => some().prop_map(Turn::Members),
        1 => some().prop_map(Turn::Mark),
        1 => some().prop_map(Turn::Suppress),
        1 => proptest::collection::vec(0u32..16, 8..40).prop_map(Turn::Fresh),
        1 => Just(Turn::Unmark),
        1 => (0u32..16, 0u32..16).prop_map(|(a, b)| Turn::Gain(a, b)),
        1 => (0u64..8).prop_map(Turn::Minimum),
        1 => any::<bool>().prop_map(Turn::Namespaces),
        1 => prop::bool::weighted(0.8).prop_map(Turn::Activate),
        1 => prop_oneof![Just(None), Just(Some(NoAudience::NotWhole))].prop_map(Turn::Missing),
        5 => (0i64..30).prop_map(Turn::Run),
        1 => Just(Turn::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_destination_converges_on_who_is_eligible(
        turns in proptest::collection::vec(turn(), 1..24),
        max_rows in 1usize..6,
        part_bytes in 1usize..120,
    ) {
        let mut world = world(0..4);
        world.suppress = vec!["staff".into()];
        world.fresh = Some("seen".into());
        world.members.extend([("staff".into(), profiles([])), ("seen".into(), profiles(0..16))]);
        let mut rig = Rig::new(world);
        (rig.max_rows, rig.part_bytes) = (max_rows, part_bytes);
        let mut collected = Lines::new();
        for turn in turns {
            match turn {
                Turn::Members(members) => {
                    let mut world = rig.world();
                    world.generation += 1;
                    world.members.insert("buyers".into(), profiles(members));
                }
                Turn::Mark(marked) => rig.world().marked.extend(profiles(marked)),
                Turn::Suppress(staff) => _ = rig.world().members.insert("staff".into(), profiles(staff)),
                Turn::Fresh(seen) => _ = rig.world().members.insert("seen".into(), profiles(seen)),
                Turn::Unmark => rig.world().marked.clear(),
                Turn::Gain(profile, other) => {
                    let gained = identifier("crm_id", &format!("k{other}"));
                    let profile = profiles([profile]).pop_first().unwrap();
                    rig.world().identifiers.get_mut(&profile).unwrap().push(gained);
                }
                Turn::Minimum(min_size) => {
                    rig.world().activations.iter_mut().for_each(|one| one.min_size = min_size);
                }
                Turn::Namespaces(some) => {
                    let asked = some.then(|| vec![Namespace::new("user_id").unwrap()]);
                    rig.world().activations.iter_mut().for_each(|one| one.identifiers = asked.clone());
                }
                Turn::Activate(on) => {
                    rig.world().activations.clear();
                    if on {
                        rig.world().activations.push(activation("buyers", 0));
                    }
                }
                Turn::Missing(why) => rig.world().missing = why,
                Turn::Run(steps) => _ = rig.start(&Fuse::new(steps)).run_once(None, false),
                Turn::Collect => {
                    replay(&rig.out(), "buyers", &mut collected);
                    let _ = std::fs::remove_dir_all(rig.out());
                }
            }
        }
        // Without an audience the reader holds no one who opted out; below a minimum, no one who should not
        // be held.
        let held = |collected: &Lines| {
            let mut held = collected.clone();
            replay(&rig.out(), "buyers", &mut held);
            held
        };
        rig.world().missing = Some(NoAudience::NotWhole);
        rig.start(&Fuse::new(i64::MAX)).run_once(None, false).unwrap();
        prop_assert!(held(&collected).is_subset(&rig.world().in_use()));
        rig.world().missing = None;
        rig.start(&Fuse::new(i64::MAX)).run_once(None, false).unwrap();
        let desired = rig.world().desired("crm", "buyers");
        prop_assert!(held(&collected).is_subset(&desired));
        rig.world().activations.iter_mut().for_each(|one| one.min_size = 0);
        rig.start(&Fuse::new(i64::MAX)).run_once(None, false).unwrap();
        prop_assert_eq!(held(&collected), desired);
        // In step: one more run says nothing.
        let reports = rig.start(&Fuse::new(i64::MAX)).run_once(None, false).unwrap();
        prop_assert!(reports.iter().all(|report| report.batches == 0));
        // Each name once, with its bytes.
        let names: BTreeMap<_, _> =
            files(&rig.out(), "buyers").into_iter().map(|(g, s, path)| ((g, s), path)).collect();
        prop_assert_eq!(names.len(), files(&rig.out(), "buyers").len());
    }
}
