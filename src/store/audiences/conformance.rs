//! What every backend of the port must do, run by the tests of each.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::Audiences;
use super::BARRED;
use super::Content;
use super::Cut;
use super::Found;
use super::Last;
use super::Lists;
use super::Lookups;
use super::Names;
use super::Version;
use super::VersionKey;
use super::Whose;
use crate::model::ShardId;
use crate::store::StoreError;

/// All contracts of [`Audiences`]; `fresh` makes an empty store of 4 shards.
pub(crate) fn audiences(fresh: &mut dyn FnMut() -> Box<dyn Audiences>) {
    a_cut_is_kept_once_and_whole(&*fresh());
    versions_come_and_go_by_their_keys(&*fresh());
    an_error_of_who_reads_ends_the_reading(&*fresh());
}

fn key(segment: &str, shard: ShardId, generation: u64) -> VersionKey {
    VersionKey { segment: segment.into(), shard, generation }
}

/// A generation that is true for a time before 1970.
fn cut(generation: u64, put: Vec<Version>, drop: Vec<VersionKey>) -> Cut {
    Cut { of: Last { generation, true_for: -7 }, put, drop }
}

fn last(audiences: &dyn Audiences) -> Option<u64> {
    let last = audiences.last().unwrap()?;
    assert_eq!(last.true_for, -7);
    Some(last.generation)
}

fn members(rule: u64, ordinals: std::ops::Range<u32>) -> Option<Content> {
    // Every other one: no run of bits makes them small.
    Some(Content { rule, members: Arc::new(ordinals.step_by(2).collect()) })
}

fn all(audiences: &dyn Audiences) -> Vec<Version> {
    let mut found = Vec::new();
    audiences
        .load(&mut |key, content| {
            found.push((key, content));
            Ok(())
        })
        .unwrap();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn a_cut_is_kept_once_and_whole(audiences: &dyn Audiences) {
    assert_eq!(last(audiences), None);
    assert!(all(audiences).is_empty());
    let put = vec![
        (key("buyers", 0, 10), members(1, 0..10)),
        (key("buyers", 3, 10), members(1, 0..300_000)),
        (key("none", 3, 10), members(2, 0..0)),
    ];
    let first = cut(10, put.clone(), Vec::new());
    audiences.keep(&first).unwrap();
    // A cut whose answer was lost is kept again.
    audiences.keep(&first).unwrap();
    let earlier = cut(9, vec![(key("late", 0, 9), None)], Vec::new());
    audiences.keep(&earlier).unwrap();
    assert_eq!(all(audiences), put);
    assert_eq!(last(audiences), Some(10));
    // Nothing has changed, but the cut is a later one.
    audiences.keep(&cut(12, Vec::new(), Vec::new())).unwrap();
    assert_eq!((last(audiences), all(audiences).len()), (Some(12), 3));
}

fn versions_come_and_go_by_their_keys(audiences: &dyn Audiences) {
    // Ids that are the beginning of others.
    let old = vec![
        (key("a", 1, 5), members(1, 0..4)),
        (key("a", 2, 5), members(1, 4..8)),
        (key("ab", 1, 5), members(7, 0..1)),
    ];
    audiences.keep(&cut(5, old.clone(), Vec::new())).unwrap();
    let new = vec![(key("a", 1, 7), members(2, 0..500_000)), (key("ab", 1, 7), None)];
    audiences.keep(&cut(7, new.clone(), Vec::new())).unwrap();
    let mut expected: Vec<Version> = old.iter().chain(&new).cloned().collect();
    expected.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(all(audiences), expected);
    let drop = vec![key("a", 1, 5), key("ab", 1, 5), key("ab", 1, 7), key("never", 0, 1)];
    audiences.keep(&cut(8, Vec::new(), drop)).unwrap();
    assert_eq!(all(audiences), [new[0].clone(), old[1].clone()]);
}

fn an_error_of_who_reads_ends_the_reading(audiences: &dyn Audiences) {
    let put = (0..4).map(|shard| (key("a", shard, 1), members(1, 0..9))).collect();
    audiences.keep(&cut(1, put, Vec::new())).unwrap();
    let mut taken = 0;
    let give_up = &mut |_, _| {
        taken += 1;
        Err(StoreError::Refused { what: String::new(), hint: String::new() })
    };
    assert!(audiences.load(give_up).is_err());
    assert_eq!(taken, 1);
}

/// What writes lists, and what finds them.
pub(crate) type Both = (Arc<dyn Audiences>, Arc<dyn Lookups>);

/// All contracts of lists; `fresh` makes an empty store of 4 shards.
pub(crate) fn lists(fresh: &mut dyn FnMut() -> Both) {
    what_was_listed_is_found(&fresh());
    a_list_that_is_found_is_of_the_generation_that_it_says(&fresh());
}

fn whose(profile: u32) -> Whose {
    let hash = u64::from(profile).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let shard = ShardId::try_from(profile % 4).unwrap();
    Whose { shard, ordinal: Some(profile / 4), hash: hash ^ (hash >> 29) }
}

/// Who is in which of the segments in a generation: a third changes from one to the next.
fn numbers(profile: u32, generation: u64) -> Vec<u32> {
    let turn = if profile.is_multiple_of(3) { u32::try_from(generation).unwrap() } else { 0 };
    (1..=6 + turn).filter(|number| (profile + turn).is_multiple_of(number + 1)).collect()
}

/// The number that is no segment's.
const OUT: u32 = 3;

fn names(generation: u64) -> Names {
    let most = 6 + u32::try_from(generation).unwrap();
    let name = |number| if number == OUT { BARRED.into() } else { format!("s{number}").into() };
    (1..=most).map(|number| (number, name(number))).collect()
}

fn change(profiles: std::ops::Range<u32>, generation: u64, is_whole: bool) -> Lists {
    let before = |profile| if is_whole { Vec::new() } else { numbers(profile, generation - 1) };
    let now = profiles.clone().map(|profile| (profile, numbers(profile, generation)));
    let changed = now.filter(|(profile, now)| before(*profile) != *now);
    Lists {
        of: Last { generation, true_for: 1_000 + generation.cast_signed() },
        names: names(generation),
        changed: changed.map(|(profile, now)| (whose(profile), now)).collect(),
        is_whole,
        total: profiles.filter(|profile| !numbers(*profile, generation).is_empty()).count() as u64,
    }
}

fn agrees(profile: u32, found: &Found) {
    let generation = found.of.generation;
    assert_eq!(found.of.true_for, 1_000 + generation.cast_signed());
    let numbers = numbers(profile, generation);
    let of_segments = numbers.iter().filter(|number| **number != OUT);
    let mut expected: Vec<Arc<str>> =
        of_segments.map(|number| (*names(generation)[number]).into()).collect();
    expected.sort_unstable();
    assert_eq!(found.segments, expected, "profile {profile} in generation {generation}");
    assert_eq!(found.is_barred, numbers.contains(&OUT), "profile {profile}");
}

fn what_was_listed_is_found((audiences, lookups): &Both) {
    assert_eq!(lookups.look(whose(1)).unwrap(), None);
    assert_eq!(lookups.look_all(&[whose(1), whose(2)]).unwrap(), [None, None]);
    assert_eq!(lookups.look_all(&[]).unwrap(), []);
    assert_eq!(audiences.listed(0).unwrap(), None);
    // None at first, then more than the buckets of before have room for, and fewer again.
    let mut generation = 0;
    for profiles in [0, 40, 2_000, 2_100, 200, 0] {
        let mut is_whole = true;
        for _ in 0..2 {
            generation += 1;
            let lists = change(0..profiles, generation, is_whole);
            audiences.list(&lists).unwrap();
            // Its answer was lost.
            audiences.list(&lists).unwrap();
            for profile in 0..profiles {
                let found = lookups.look(whose(profile)).unwrap().unwrap();
                assert_eq!(found.of.generation, generation);
                agrees(profile, &found);
            }
            // Not in the order that they are kept in, and some twice.
            let all: Vec<Whose> = (0..profiles).rev().chain(0..3).map(whose).collect();
            let each = all.iter().map(|whose| lookups.look(*whose).unwrap());
            assert_eq!(lookups.look_all(&all).unwrap(), each.collect::<Vec<_>>());
            let unknown = lookups.look(whose(profiles + 9)).unwrap().unwrap();
            assert!(unknown.segments.is_empty(), "{unknown:?}");
            let listed = audiences.listed(lists.total).unwrap().unwrap();
            assert_eq!((listed.of, listed.names), (lists.of, lists.names));
            is_whole = false;
        }
    }
}

fn a_list_that_is_found_is_of_the_generation_that_it_says((audiences, lookups): &Both) {
    const PROFILES: u32 = 12_000;
    audiences.list(&change(0..PROFILES, 1, true)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut looked = 0;
            while !done.load(Ordering::Acquire) || looked < 100 {
                looked += 1;
                let profile = (looked * 7_919) % PROFILES;
                agrees(profile, &lookups.look(whose(profile)).unwrap().unwrap());
            }
        });
        for generation in 2..6 {
            audiences.list(&change(0..PROFILES, generation, generation == 4)).unwrap();
        }
        done.store(true, Ordering::Release);
        reading.join().unwrap();
    });
    agrees(0, &lookups.look(whose(0)).unwrap().unwrap());
}
