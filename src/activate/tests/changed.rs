//! A process that knows what it was last in step with reads those who changed, and ends where one does that reads all.

use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::platform::*;
use super::rig::*;
use super::world::*;
use crate::activate::Caps;
use crate::activate::Place;
use crate::activate::PushReport;
use crate::activate::Pusher;
use crate::activate::Verdict;
use crate::model::Namespace;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::store::ledger::Target;

type Shared = Arc<Mutex<Platform>>;

const CAPS: Caps = Caps { max_rows: 4, namespaces: None, mixes: true, ttl: None, min_size: None };

fn start(rig: &Rig, platform: &Shared, caps: Caps, fuse: &Arc<Fuse>) -> Pusher {
    rig.start_on(PlatformConnector {
        platform: Arc::clone(platform),
        caps,
        tells: Tells::Each,
        place: Place::Named("a1".into()),
        fuse: Arc::clone(fuse),
    })
}

fn push(pusher: &Pusher) -> PushReport {
    let report = pusher.run_once(None, false).unwrap().remove(0);
    assert_eq!(report.trouble, None);
    report
}

#[test]
fn who_did_not_change_is_not_read() {
    let rig = rig(0..10, 0);
    let platform = Shared::default();
    let pusher = start(&rig, &platform, CAPS, &whole());
    let report = push(&pusher);
    assert_eq!((report.changed, report.adds, report.in_step), (None, 15, 0));
    assert!(rig.source.read() >= 10);

    let report = push(&pusher);
    assert_eq!((report.changed, report.batches, report.in_step, report.held), (Some(0), 0, 15, 15));
    assert_eq!(rig.source.read(), 0);

    // 10 comes; 9 goes, and 8 has the user id that they shared.
    rig.world().members.insert("buyers".into(), profiles([0, 1, 2, 3, 4, 5, 6, 7, 8, 10]));
    let report = push(&pusher);
    assert_eq!((report.changed, report.adds, report.removes), (Some(2), 2, 1));
    assert_eq!((report.in_step, report.held), (14, 16));
    // Both, for what they have; 10 again, for what is wanted; and 8, who has what 9 had.
    assert_eq!(rig.source.read(), 4);
    assert_eq!(platform.lock().members["a1"], rig.world().desired("crm", "buyers"));

    // An identifier more.
    let one = profiles([4]).pop_first().unwrap();
    rig.world().identifiers.get_mut(&one).unwrap().push(identifier("crm_id", "k1"));
    let report = push(&pusher);
    assert_eq!((report.changed, report.adds, report.in_step), (Some(1), 1, 16));

    // Of one who is forgotten it is not known any more what was sent.
    rig.world().identifiers.remove(&one);
    let report = push(&pusher);
    assert_eq!((report.changed, report.removes, report.held), (None, 2, 15));
    assert_eq!(platform.lock().members["a1"], rig.world().desired("crm", "buyers"));
    assert_eq!(push(&pusher).changed, Some(0));

    // Everything is read once a day, by a process that starts, and where someone asks for it.
    rig.clock.0.fetch_add(DAY, Ordering::SeqCst);
    assert_eq!(push(&pusher).changed, None);
    assert_eq!(push(&pusher).changed, Some(0));
    assert_eq!(push(&start(&rig, &platform, CAPS, &whole())).changed, None);
    let report = pusher.resync("crm").unwrap().remove(0);
    assert_eq!((report.changed, report.adds), (None, 15));
    // What another process sent meanwhile is not known to this one.
    assert_eq!(push(&pusher).changed, Some(0));
    rig.world().members.insert("buyers".into(), profiles(0..3));
    push(&start(&rig, &platform, CAPS, &whole()));
    assert_eq!(push(&pusher).changed, None);
}

#[test]
fn an_id_that_lapses_goes_by_a_run_that_reads_who_changed() {
    let rig = rig(0..10, 0);
    let platform = Shared::default();
    let pusher = start(&rig, &platform, CAPS, &whole());
    let one = profiles([4]).pop_first().unwrap();
    rig.world().identifiers.get_mut(&one).unwrap().push(identifier("xandr", "old"));
    assert_eq!(push(&pusher).adds, 16);
    // A newer one takes its place, and expires itself.
    let old = rig.world().identifiers.get_mut(&one).unwrap().pop().unwrap();
    rig.world().expired.insert(one, vec![old]);
    rig.world().identifiers.get_mut(&one).unwrap().push(identifier("xandr", "new"));
    let report = push(&pusher);
    assert_eq!((report.changed, report.adds, report.removes, report.held), (Some(1), 1, 1, 16));
    assert_eq!(platform.lock().members["a1"], rig.world().desired("crm", "buyers"));
    let new = rig.world().identifiers.get_mut(&one).unwrap().pop().unwrap();
    rig.world().expired.get_mut(&one).unwrap().push(new);
    let report = push(&pusher);
    assert_eq!((report.changed, report.adds, report.removes, report.held), (Some(1), 0, 1, 15));
    assert_eq!(platform.lock().members["a1"], rig.world().desired("crm", "buyers"));
}

#[test]
fn who_opts_out_and_in_again_while_nothing_else_may_go_comes_back() {
    let rig = rig(0..10, 0);
    let platform = Shared::default();
    let pusher = start(&rig, &platform, CAPS, &whole());
    push(&pusher);
    pusher.set_paused("crm", true).unwrap();
    rig.world().marked = profiles([2, 3]);
    pusher.run_once(None, false).unwrap();
    assert_eq!(platform.lock().members["a1"], rig.world().desired("crm", "buyers"));
    rig.world().marked.clear();
    pusher.set_paused("crm", false).unwrap();
    let report = push(&pusher);
    assert_eq!((report.changed, report.adds), (Some(2), 3));
    assert_eq!(platform.lock().members["a1"], rig.world().desired("crm", "buyers"));
}

/// What happens to a world, step by step.
#[derive(Debug, Clone)]
enum Turn {
    Members(Vec<u32>),
    Come(u32),
    Go(u32),
    Mark(Vec<u32>),
    Unmark,
    /// A profile gets an identifier that another may have.
    Gain(u32, u32),
    Forget(u32),
    Namespaces(bool),
    Minimum(u64),
    Paused(bool),
    /// The answers to the next calls are lost, each after it was made or before.
    Lost(Vec<bool>),
    /// The platform works on what it takes, or does it at once.
    Works(bool),
    Wait,
    /// A run that breaks off after so many steps, and whether the process lives on.
    Run(i64, bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    let one = || 0u32..16;
    let some = move || proptest::collection::vec(one(), 0..16);
    prop_oneof![
        1 => some().prop_map(Turn::Members),
        4 => one().prop_map(Turn::Come),
        4 => one().prop_map(Turn::Go),
        2 => some().prop_map(Turn::Mark),
        2 => Just(Turn::Unmark),
        3 => (one(), 0u32..8).prop_map(|(a, b)| Turn::Gain(a, b)),
        1 => one().prop_map(Turn::Forget),
        1 => any::<bool>().prop_map(Turn::Namespaces),
        1 => (0u64..8).prop_map(Turn::Minimum),
        2 => any::<bool>().prop_map(Turn::Paused),
        1 => proptest::collection::vec(any::<bool>(), 1..3).prop_map(Turn::Lost),
        1 => any::<bool>().prop_map(Turn::Works),
        3 => Just(Turn::Wait),
        2 => (0i64..30, prop::bool::weighted(0.8)).prop_map(|(steps, lives)| Turn::Run(steps, lives)),
        10 => Just(Turn::Run(i64::MAX, true)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_process_that_reads_who_changed_is_in_step_like_one_that_reads_all(
        turns in proptest::collection::vec(turn(), 1..60),
        max_rows in 1usize..6,
        mixes in any::<bool>(),
        stages in any::<bool>(),
        bad in proptest::collection::btree_set(0u32..16, 0..3),
    ) {
        let rig = rig(0..8, 0);
        rig.world().identifiers = people(16);
        let caps = Caps { max_rows, mixes, ..CAPS };
        let platform = Shared::default();
        platform.lock().bad = bad.into_iter().map(|one| format!("c{one:02}")).collect();
        let fuse = whole();
        let mut pusher = start(&rig, &platform, caps.clone(), &fuse);
        let wanted = |rig: &Rig| -> BTreeSet<Known> {
            let bad = platform.lock().bad.clone();
            let desired = rig.world().desired("crm", "buyers");
            desired.into_iter().filter(|(_, value)| !bad.contains(value)).collect()
        };
        let mut narrow = 0;
        let end = [Turn::Paused(false), Turn::Works(false), Turn::Minimum(0)];
        let end = end.into_iter().chain((0..4).flat_map(|_| [Turn::Wait, Turn::Run(i64::MAX, true)]));
        let ends_at = turns.len() + 4;
        for (at, turn) in turns.into_iter().chain(end).enumerate() {
            rig.clock.0.fetch_add(1, Ordering::SeqCst);
            match turn {
                Turn::Members(members) => _ = rig.world().members.insert("buyers".into(), profiles(members)),
                Turn::Come(one) => rig.world().members.get_mut("buyers").unwrap().extend(profiles([one])),
                Turn::Go(one) => {
                    let gone = profiles([one]);
                    rig.world().members.get_mut("buyers").unwrap().retain(|profile| !gone.contains(profile));
                }
                Turn::Mark(marked) => rig.world().marked.extend(profiles(marked)),
                Turn::Unmark => rig.world().marked.clear(),
                Turn::Gain(profile, other) => {
                    let gained = identifier("crm_id", &format!("k{other}"));
                    let profile = profiles([profile]).pop_first().unwrap();
                    if let Some(identifiers) = rig.world().identifiers.get_mut(&profile)
                        && !identifiers.contains(&gained)
                    {
                        identifiers.push(gained);
                    }
                }
                Turn::Forget(one) => {
                    let one = profiles([one]).pop_first().unwrap();
                    rig.world().identifiers.remove(&one);
                }
                Turn::Namespaces(some) => {
                    let asked = some.then(|| vec![Namespace::new("user_id").unwrap()]);
                    rig.world().activations[0].identifiers = asked;
                }
                Turn::Minimum(least) => rig.world().activations[0].min_size = least,
                Turn::Paused(paused) => pusher.set_paused("crm", paused).unwrap(),
                // What is lost of a platform that works on it may be done by it at any time, against all that comes later.
                Turn::Lost(made) if !stages => {
                    let lost = |made| (made, Verdict::Unknown("no answer".into()));
                    platform.lock().script = made.into_iter().map(lost).collect();
                }
                Turn::Works(works) if stages => platform.lock().works = if works { HOUR } else { 0 },
                Turn::Lost(_) | Turn::Works(_) => {}
                Turn::Wait => _ = rig.clock.0.fetch_add(HOUR, Ordering::SeqCst),
                Turn::Run(steps, lives) => {
                    let now = rig.clock.0.load(Ordering::SeqCst);
                    platform.lock().work(now, Tells::Each);
                    fuse.set(if stages { i64::MAX } else { steps });
                    let done = pusher.run_once(None, false);
                    fuse.set(i64::MAX);
                    if !lives {
                        pusher = start(&rig, &platform, caps.clone(), &fuse);
                    }
                    let Ok([report]) = done.as_deref() else { continue };
                    narrow += usize::from(report.changed.is_some());
                    let is_done = report.trouble.is_none() && report.staged == 0;
                    if at > ends_at + 4 {
                        prop_assert!(is_done, "{report:?}");
                    }
                    if !is_done {
                        continue;
                    }
                    let held = platform.lock().members.get("a1").cloned().unwrap_or_default();
                    let wanted = wanted(&rig);
                    prop_assert!(held.is_subset(&wanted), "{held:?} {wanted:?}");
                    if report.below_minimum {
                        continue;
                    }
                    prop_assert_eq!(&held, &wanted);
                    // One that reads all finds nothing to do, and counts the same.
                    rig.clock.0.fetch_add(1, Ordering::SeqCst);
                    let other = start(&rig, &platform, caps.clone(), &whole());
                    let all = other.run_once(None, true).unwrap().remove(0);
                    // But to remove whom the platform knows nothing of.
                    let held = rig.ledger().held(&Target::new("crm", "buyers"), None, 99).unwrap();
                    let stuck = held.iter().filter(|held| held.unsure).count() as u64;
                    let is_bad = |value: &str| platform.lock().bad.contains(value);
                    prop_assert!(held.iter().all(|held| !held.unsure || is_bad(held.identifier.value())));
                    prop_assert_eq!((all.adds, all.removes), (0, stuck));
                    prop_assert_eq!(all.in_step, report.in_step + report.adds - report.settled);
                    // What is refused of a batch of before may be nobody's any more.
                    let refused = report.refused - report.not_removed;
                    prop_assert!(all.refused == refused || (all.refused < refused && report.batches > 0));
                }
            }
        }
        // What cannot be removed is tried again each time, and to find it everything is read.
        prop_assert!(narrow > 0 || !platform.lock().bad.is_empty());
    }
}
