//! What audiences share is what a naive model of sets says.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::plan::Members;
use crate::segment::Audience;
use crate::segment::AudienceState;
use crate::segment::Caller;
use crate::segment::Generation;
use crate::segment::OverlapError;
use crate::segment::Segment;

type Set = BTreeSet<(usize, u32)>;

fn dice(sides: u32) -> u32 {
    getrandom::u32().unwrap() % sides
}

/// Members at random: nobody, few, half, all in runs, in blocks that others have or have not.
fn set(shards: usize) -> Set {
    let mut set = Set::new();
    for shard in 0..shards {
        let base = dice(3) * 65_536;
        match dice(6) {
            0 => {}
            1 => set.extend((0..dice(8)).map(|_| (shard, base + dice(300)))),
            2 => set.extend((0..4_000).filter(|_| dice(2) == 0).map(|at| (shard, base + at))),
            3 => set.extend((0..dice(6_000)).map(|at| (shard, 63_000 + at))),
            4 => set.extend((0..6_000).map(|_| (shard, base + dice(8_192)))),
            _ => {
                set.extend((0..300).map(|_| (shard, dice(200_000))));
                set.insert((shard, u32::MAX));
            }
        }
    }
    set
}

fn audience(id: &str, level: &str, set: Option<&Set>, shards: usize) -> Arc<Audience> {
    let text = format!("level = \"{level}\"\nrule = 'did x'\n");
    let (file, diagnostics) = crate::rules::SegmentFile::parse(id, &text);
    assert!(!crate::rules::has_errors(&diagnostics));
    let members = set.map(|set| {
        let mut bitmaps = vec![RoaringBitmap::new(); shards];
        for (shard, ordinal) in set {
            bitmaps[*shard].insert(*ordinal);
        }
        bitmaps.iter_mut().step_by(2).for_each(|bitmap| {
            bitmap.optimize();
        });
        Arc::new(Members { shards: bitmaps.into_iter().map(Arc::new).collect() })
    });
    Arc::new(Audience {
        segment: Arc::new(Segment { file, text, hidden: false, frozen: false }),
        count: members.as_ref().map(|members| members.len()),
        members,
        generation: 7,
        true_for: 5,
        changed: Some(4),
        state: AudienceState::Live,
    })
}

/// A generation of these sets, named `s0` and so on.
fn generation(sets: &[Set], shards: usize) -> Generation {
    let audiences = sets.iter().enumerate().map(|(number, set)| {
        let id = format!("s{number}");
        (id.clone(), audience(&id, "person", Some(set), shards))
    });
    Generation { audiences: audiences.collect(), ..Generation::default() }
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("s{number}")).collect()
}

#[test]
fn every_region_has_those_who_are_in_these_and_in_no_other() {
    for named in [1, 2, 3, 6, 6] {
        let shards = 1 + dice(4) as usize;
        let sets: Vec<Set> = (0..named).map(|_| set(shards)).collect();
        let generation = generation(&sets, shards);
        // In another order than that of the ids.
        let order: Vec<usize> = (0..named).rev().collect();
        let found = generation.regions(&ids(order.clone()), &Caller::default()).unwrap();
        assert_eq!(found.regions.len(), (1 << named) - 1);
        let mut inside: BTreeMap<(usize, u32), Vec<usize>> = BTreeMap::new();
        for (at, number) in order.iter().enumerate() {
            sets[*number].iter().for_each(|member| inside.entry(*member).or_default().push(at));
        }
        assert_eq!(found.any, inside.len() as u64);
        let mut expected: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
        inside.into_values().for_each(|inside| *expected.entry(inside).or_default() += 1);
        for region in &found.regions {
            let expected = expected.remove(&region.inside).unwrap_or(0);
            assert_eq!(region.members, expected, "{:?}", region.inside);
        }
        assert!(expected.is_empty(), "{expected:?}");
        for (at, audience) in found.audiences.iter().enumerate() {
            let own = found.regions.iter().filter(|region| region.inside.contains(&at));
            assert_eq!(Some(own.map(|region| region.members).sum()), audience.count);
        }
    }
}

#[test]
fn regions_are_told_in_the_order_of_the_names() {
    let sets = [Set::new(), Set::new(), Set::new()];
    let found = generation(&sets, 1).regions(&ids(0..3), &Caller::default()).unwrap();
    let order: Vec<Vec<usize>> = found.regions.into_iter().map(|region| region.inside).collect();
    let expected: [&[usize]; 7] = [&[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
    assert_eq!(order, expected);
}

#[test]
fn two_share_those_who_are_in_both() {
    let shards = 3;
    let sets: Vec<Set> = (0..9).map(|_| set(shards)).collect();
    let generation = generation(&sets, shards);
    for (rows, columns) in [
        (vec![0, 1, 2, 3, 4, 5, 6, 7, 8], vec![8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (vec![3, 1, 2], vec![2, 5, 3, 8]),
        (vec![4], vec![0]),
    ] {
        let asked = (ids(rows.clone()), ids(columns.clone()));
        let found = generation.pairs(&asked.0, &asked.1, &Caller::default()).unwrap();
        for (row, sizes) in rows.iter().zip(&found.members) {
            for (column, size) in columns.iter().zip(sizes) {
                let expected = sets[*row].intersection(&sets[*column]).count();
                assert_eq!(*size, expected as u64, "s{row} and s{column}");
            }
        }
        assert_eq!(found.members.len(), rows.len());
        assert!(found.members.iter().all(|sizes| sizes.len() == columns.len()));
    }
}

#[test]
fn what_cannot_be_compared_is_said() {
    let sets: Vec<Set> = (0..101).map(|_| Set::new()).collect();
    let mut generation = generation(&sets, 1);
    generation.audiences.insert("d".into(), audience("d", "device", Some(&sets[0]), 1));
    generation.audiences.insert("young".into(), audience("young", "person", None, 1));
    let caller = Caller::default();
    let regions = |ids: &[String]| generation.regions(ids, &caller).unwrap_err().to_string();
    let pairs =
        |rows: &[String]| generation.pairs(rows, &ids([0]), &caller).unwrap_err().to_string();
    let named = |names: [&str; 2]| names.map(str::to_owned);
    assert!(regions(&[]).contains("name 1 to 6"));
    assert!(regions(&ids(0..7)).contains("7 audiences are named"));
    assert!(pairs(&ids(0..101)).contains("name 1 to 100"));
    assert_eq!(regions(&named(["s0", "gone"])), "there is no segment gone");
    assert!(regions(&named(["s0", "s0"])).contains("twice"));
    assert!(pairs(&named(["s0", "d"])).contains("one level"));
    assert!(regions(&named(["d", "s1"])).contains("d devices"));
    assert!(regions(&named(["s0", "young"])).contains("young has no members yet"));
    caller.leave();
    let left = generation.regions(&ids(0..2), &caller);
    assert!(matches!(left, Err(OverlapError::Ask(_))), "{left:?}");
}
