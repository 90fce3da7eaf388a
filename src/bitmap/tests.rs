//! Columns against ordered maps.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::Consent;
use crate::model::Measure;
use crate::model::Namespace;
use crate::model::Purposes;
use crate::model::Value;
use crate::model::time::DAY;
use crate::model::time::Millis;
use crate::model::time::day_of;

const POPULATION: u32 = 130;

/// Facts on few days, many of one millisecond, on both sides of day edges and of 1970.
fn facts(count: std::ops::Range<usize>) -> BoxedStrategy<Vec<(u16, Millis, i64)>> {
    let time = (-2i64..3, prop_oneof![Just(0i64), Just(DAY - 1), 0..DAY])
        .prop_map(|(day, millis)| day * DAY + millis);
    let small = (0u16..130, time.clone(), -5i64..5);
    let value = prop_oneof![-5i64..5, Just(Measure::MAX.0), Just(-Measure::MAX.0)];
    let large = (0u16..130, time, value);
    let (few, more) = (count.clone(), count);
    prop_oneof![proptest::collection::vec(small, few), proptest::collection::vec(large, more)]
        .boxed()
}

/// Also so many that a day's ordinals are kept as a set.
fn few_or_many() -> BoxedStrategy<Vec<(u16, Millis, i64)>> {
    prop_oneof![7 => facts(0..400), 1 => facts(5000..9000)].boxed()
}

fn interval() -> BoxedStrategy<Interval> {
    let edge = || prop_oneof![-2 * DAY - 1..3 * DAY, (-2i64..3).prop_map(|day| day * DAY)];
    (edge(), edge()).prop_map(|(lo, hi)| Interval { lo, hi }).boxed()
}

proptest! {
    #[test]
    fn whether_a_fact_lies_between_is_what_looking_at_each_says(
        facts in facts(0..40), after in -2 * DAY..3 * DAY, length in prop_oneof![0..5i64, 0..DAY],
    ) {
        let columns = measured(&facts);
        let near = facts.first().map_or(after, |(_, time, _)| time - length / 2);
        for after in [after, near] {
            let until = after + length;
            let found = facts.iter().any(|(_, time, _)| *time > after && *time <= until);
            prop_assert_eq!(columns.has_between(after, until), found);
        }
    }
}

fn measured(facts: &[(u16, Millis, i64)]) -> TraitColumns {
    let mut columns = TraitColumns::new();
    for (ordinal, time, value) in facts {
        columns.add(*ordinal, *time, Some(Measure(*value)));
    }
    columns
}

fn plain(facts: &[(u16, Millis, i64)]) -> TraitColumns {
    let mut columns = TraitColumns::new();
    for (ordinal, time, _) in facts {
        columns.add(*ordinal, *time, None);
    }
    columns
}

const MEASURED: TraitId = TraitId(5);
const PLAIN: TraitId = TraitId(7);

/// Reads a block's facts in every way there is, and compares with a map.
fn check(
    block: &Block,
    facts: &[(u16, Millis, i64)],
    interval: Interval,
) -> Result<(), TestCaseError> {
    let mut by: BTreeMap<u16, Vec<(Millis, i64)>> = BTreeMap::new();
    for (ordinal, time, value) in facts.iter().filter(|(_, time, _)| interval.holds(*time)) {
        by.entry(*ordinal).or_default().push((*time, *value));
    }
    let mut found = Vec::new();
    block.find(&[(TraitId(3), interval), (MEASURED, interval), (PLAIN, interval)], &mut found);
    prop_assert_eq!(found.len(), 3);
    prop_assert_eq!(block.scan(TraitId(3)).at(found[0]).facts_in(interval), 0);
    for (id, found) in [(MEASURED, found[1]), (PLAIN, found[2])] {
        check_scan(block.scan(id), &by, interval)?;
        check_scan(block.scan(id).at(found), &by, interval)?;
        if let Some(columns) = block.columns(id) {
            check_scan(columns.scan(), &by, interval)?;
        }
    }
    if let Some(columns) = block.columns(MEASURED) {
        check_values(columns, block.scan(MEASURED).at(found[1]), &by, interval)?;
        check_values(columns, columns.scan(), &by, interval)?;
    }
    Ok(())
}

fn check_scan(
    scan: Scan<'_>,
    by: &BTreeMap<u16, Vec<(Millis, i64)>>,
    interval: Interval,
) -> Result<(), TestCaseError> {
    let mut did = BlockSet::new();
    did.reset(POPULATION);
    scan.did(interval, &mut did);
    prop_assert_eq!(did.iter().collect::<Vec<_>>(), by.keys().copied().collect::<Vec<_>>());
    let size = POPULATION as usize;
    let (mut counts, mut small, mut days) = (vec![0; size], vec![0; size], vec![0; size]);
    scan.count(interval, &mut counts);
    scan.count_small(interval, &mut small);
    scan.count_days(interval, &mut BlockSet::new(), &mut days);
    let mut few = Unary::default();
    few.reset(POPULATION, 4);
    scan.count_few(interval, &mut few);
    let mut at_least: [BlockSet; 4] = Default::default();
    for (less, set) in (0..).zip(&mut at_least) {
        few.at_least(less + 1, set);
    }
    let mut without = did.clone();
    few.subtract_at_least(2, &mut without);
    prop_assert_eq!(scan.facts_in(interval), by.values().map(|own| own.len() as u64).sum::<u64>());
    for ordinal in 0..size {
        let low = u16::try_from(ordinal).unwrap();
        let own = by.get(&low).map_or(&[][..], Vec::as_slice);
        prop_assert_eq!(counts[ordinal] as usize, own.len());
        prop_assert_eq!(usize::from(small[ordinal]), own.len().min(255));
        let distinct: BTreeSet<_> = own.iter().map(|(time, _)| day_of(*time)).collect();
        prop_assert_eq!(days[ordinal] as usize, distinct.len());
        for (less, set) in at_least.iter().enumerate() {
            prop_assert_eq!(set.contains(low), own.len() > less);
        }
        prop_assert_eq!(without.contains(low), own.len() == 1);
    }
    Ok(())
}

const WITHIN: [Within; 5] = [
    Within { lo: 1, hi: i64::MAX, outside: false },
    Within { lo: 2, hi: 30, outside: false },
    Within { lo: i64::MIN, hi: -1, outside: false },
    Within { lo: -3, hi: 3, outside: true },
    Within { lo: 0, hi: 0, outside: true },
];

fn check_values(
    columns: &TraitColumns,
    scan: Scan<'_>,
    by: &BTreeMap<u16, Vec<(Millis, i64)>>,
    interval: Interval,
) -> Result<(), TestCaseError> {
    let size = POPULATION as usize;
    let (mut sums, mut least, mut most) =
        (vec![0i128; size], vec![i64::MAX; size], vec![i64::MIN; size]);
    scan.sum(interval, &mut sums);
    // No other sums are asked so.
    let is_small = scan.sum_bound(interval) <= i64::MAX as u128;
    for within in WITHIN.into_iter().filter(|within| is_small && !within.holds(0)) {
        let mut set = BlockSet::new();
        set.reset(POPULATION);
        if scan.select_sums(interval, within, &mut Vec::new(), &mut set) {
            let holds = |sum: &i128| within.holds(i64::try_from(*sum).unwrap());
            let all = (0u16..).zip(&sums);
            let expected: BlockSet = all.filter(|(_, sum)| holds(sum)).map(|(o, _)| o).collect();
            prop_assert_eq!(set, expected);
        }
    }
    scan.min(interval, &mut least);
    scan.max(interval, &mut most);
    let (mut first, mut last) = (vec![0; size], vec![0; size]);
    let (mut seen_first, mut seen_last) = (BlockSet::new(), BlockSet::new());
    columns.first(interval, &mut seen_first, &mut first);
    columns.last(interval, &mut seen_last, &mut last);
    let all: BlockSet = by.keys().copied().collect();
    prop_assert_eq!(&seen_first, &all);
    prop_assert_eq!(&seen_last, &all);
    for ordinal in 0..size {
        let low = u16::try_from(ordinal).unwrap();
        let mut own = by.get(&low).cloned().unwrap_or_default();
        prop_assert_eq!(sums[ordinal], own.iter().map(|(_, v)| i128::from(*v)).sum::<i128>());
        prop_assert!(sums[ordinal].unsigned_abs() <= scan.sum_bound(interval));
        prop_assert_eq!(least[ordinal], own.iter().map(|(_, v)| *v).min().unwrap_or(i64::MAX));
        prop_assert_eq!(most[ordinal], own.iter().map(|(_, v)| *v).max().unwrap_or(i64::MIN));
        if let Some(earliest) = own.iter().map(|(time, _)| *time).min() {
            prop_assert_eq!(first[ordinal], earliest);
            prop_assert_eq!(last[ordinal], own.iter().map(|(time, _)| *time).max().unwrap());
        }
        own.sort_unstable();
        let alone = columns.facts_of(low, interval.lo, interval.hi);
        let mut alone: Vec<_> = alone.into_iter().map(|(t, v)| (t, v.unwrap().0)).collect();
        alone.sort_unstable();
        prop_assert_eq!(alone, own);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn scans_agree_with_ordered_maps(
        facts in few_or_many(), interval in interval(), reads in (0usize..400, 0usize..60, 0usize..60),
    ) {
        // Some facts come after a block was read, which packs what it has by then; one of its clones is left behind.
        let mut block = Block::new();
        block.set_population(POPULATION);
        let others = [TraitId::ANY, TraitId(9)];
        let first = reads.0.min(facts.len());
        let second = (first + reads.1).min(facts.len());
        let third = (second + reads.2).min(facts.len());
        for (from, to) in [(0, first), (first, second), (second, third), (third, facts.len())] {
            let (measured, plain) = (measured(&facts[from..to]), plain(&facts[from..to]));
            if from == second {
                // As what is filled from the archive comes.
                block.merge_trait(MEASURED, &measured);
                block.merge_trait(PLAIN, &plain);
            } else {
                for (ordinal, time, value) in &facts[from..to] {
                    block.add_fact(MEASURED, *ordinal, *time, Some(Measure(*value)));
                    block.add_fact(PLAIN, *ordinal, *time, None);
                }
            }
            facts[from..to].iter().for_each(|(o, time, _)| {
                others.iter().for_each(|id| block.add_fact(*id, *o, *time, None));
            });
            let behind = block.clone();
            let seen = &facts[..to];
            check(&block, seen, interval)?;
            check(&behind, seen, interval)?;
        }
        block.drop_before(0);
        let kept: Vec<_> = facts.iter().filter(|(_, time, _)| *time >= 0).copied().collect();
        check(&block, &kept, interval)?;
        block.drop_trait(PLAIN);
        let mut found = Vec::new();
        block.find(&[(PLAIN, interval)], &mut found);
        prop_assert_eq!(block.scan(PLAIN).at(found[0]).facts_in(interval), 0);
    }

    #[test]
    fn sequences_agree_with_all_pairs(
        starts in facts(0..400),
        ends in facts(0..400),
        interval in interval(),
        from in -2 * DAY..DAY,
        within in prop_oneof![1i64..5, Just(DAY), 1..3 * DAY],
    ) {
        let (first, then) = (plain(&starts), measured(&ends));
        let mut out = BlockSet::new();
        out.reset(POPULATION);
        let mut seen = BlockSet::new();
        seen.reset(POPULATION);
        let mut times = vec![0; POPULATION as usize];
        let scratch = (&mut seen, &mut times[..]);
        sequence((&first, from), (&then, interval), within, scratch, &mut out);
        let expected: BlockSet = ends
            .iter()
            .filter(|(_, b, _)| interval.holds(*b))
            .filter(|(ordinal, b, _)| {
                starts.iter().any(|(other, a, _)| {
                    other == ordinal && *a >= from && a < b && *b <= a + within
                })
            })
            .map(|(ordinal, ..)| *ordinal)
            .collect();
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn images_and_merges_keep_every_fact(facts in few_or_many(), split in 0usize..400) {
        let whole = measured(&facts);
        let (left, right) = facts.split_at(split.min(facts.len()));
        let mut merged = measured(left);
        merged.merge(&measured(right));
        let mut bytes = Vec::new();
        whole.encode(&mut bytes);
        let read = TraitColumns::decode(&bytes).unwrap();
        let all = |columns: &TraitColumns| {
            (0u16..130)
                .map(|ordinal| {
                    let mut facts = columns.facts_of(ordinal, i64::MIN, i64::MAX);
                    facts.sort_unstable();
                    facts
                })
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(all(&read), all(&whole));
        prop_assert_eq!(all(&merged), all(&whole));
        for columns in [&read, &merged] {
            let (mut did, mut expected) = (BlockSet::new(), BlockSet::new());
            did.reset(POPULATION);
            columns.scan().did(Interval { lo: -DAY, hi: 2 * DAY - 1 }, &mut did);
            let within = facts.iter().filter(|(_, time, _)| (-DAY..2 * DAY).contains(time));
            within.for_each(|(ordinal, ..)| expected.insert(*ordinal));
            prop_assert_eq!(did, expected);
        }
        prop_assert_eq!(whole.len(), facts.len());
        for cut in 0..bytes.len().min(64) {
            prop_assert!(TraitColumns::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn what_was_allowed_last_stands_in_each_set(
        said in proptest::collection::vec((0u16..130, 0u32..1 << 11, 0u8..8), 0..60),
        gone in proptest::collection::btree_set(0u16..130, 0..20),
    ) {
        const VENDORS: [u16; 3] = [21, 755, u16::MAX];
        let mut block = Block::new();
        let mut expected = BTreeMap::new();
        for (ordinal, bits, which) in said {
            let vendors = (0..3).filter(|at| which >> at & 1 == 1).map(|at| VENDORS[at]).collect();
            let consent = Consent { purposes: Purposes::from_bits(bits), vendors };
            block.set_consent(ordinal, &consent);
            expected.insert(ordinal, consent);
        }
        let before = block.clone();
        block.forget(&gone.iter().copied().collect());
        let all = expected.clone();
        expected.retain(|ordinal, _| !gone.contains(ordinal));
        let mut bytes = Vec::new();
        block.encode_rest(&mut bytes);
        prop_assert_eq!(bytes[0], if expected.is_empty() { 1 } else { 2 });
        let read = Block::decode_rest(&bytes).unwrap();
        let mut again = Vec::new();
        read.encode_rest(&mut again);
        prop_assert_eq!(&bytes, &again);
        for (block, expected) in [(&before, &all), (&block, &expected), (&read, &expected)] {
            let consents = block.consents();
            prop_assert_eq!(consents.asked().len() as usize, expected.len());
            for ordinal in 0..130 {
                let consent = expected.get(&ordinal);
                prop_assert_eq!(consents.of(ordinal), consent.cloned());
                let out = consent.is_some_and(|consent| !consent.allows_audiences());
                prop_assert_eq!(consents.unconsented().contains(ordinal), out);
                for vendor in [1, 21, 755, u16::MAX] {
                    let out = consent.is_some_and(|consent| !consent.allows_vendor(vendor));
                    prop_assert_eq!(consents.unconsented_to(vendor).contains(ordinal), out);
                }
                for purpose in 1..=24 {
                    let is_in = consents.purpose(purpose).is_some_and(|set| set.contains(ordinal));
                    let expected = consent.is_some_and(|consent| consent.purposes.contains(purpose));
                    prop_assert_eq!(is_in, expected);
                }
            }
        }
    }

    #[test]
    fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let with = |version| [version].into_iter().chain(bytes.iter().copied()).collect();
        let (first, second): (Vec<u8>, Vec<u8>) = (with(1), with(2));
        for bytes in [&bytes, &first, &second] {
            let _ = TraitColumns::decode(bytes);
            let _ = DayColumn::decode(bytes);
            let _ = Block::decode_rest(bytes);
        }
    }

    #[test]
    fn the_latest_value_counts_and_of_old_ones_the_newest_stays(
        entries in proptest::collection::vec((0u16..4, -5i64..15, 0u8..4), 0..40),
        now in -6i64..16,
        edge_day in 0i64..2,
    ) {
        let value = |number: u8| match number {
            0 => Value::Null,
            n => Value::string(n.to_string()),
        };
        let mut block = Block::new();
        for (ordinal, time, number) in &entries {
            block.add_attribute("a", *ordinal, *time, value(*number));
        }
        let expected = |ordinal: u16, now: i64| {
            let (_, (_, _, number)) = entries
                .iter()
                .enumerate()
                .filter(|(_, (other, time, _))| *other == ordinal && *time <= now)
                .max_by_key(|(order, (_, time, _))| (*time, *order))?;
            Some(value(*number)).filter(|value| *value != Value::Null)
        };
        let mut copy = block.clone();
        copy.drop_before(edge_day);
        let mut bytes = Vec::new();
        copy.encode_rest(&mut bytes);
        let read = Block::decode_rest(&bytes).unwrap();
        let mut again = Vec::new();
        read.encode_rest(&mut again);
        prop_assert_eq!(&bytes, &again);
        for ordinal in 0..4u16 {
            let found = |block: &Block, now: i64| {
                let found = block.attribute("a")?.value_at(ordinal, now)?;
                Some(found.1.clone())
            };
            prop_assert_eq!(found(&block, now), expected(ordinal, now));
            // Instants before the edge are not asked any more.
            if now >= edge_day * DAY {
                prop_assert_eq!(found(&copy, now), expected(ordinal, now));
                prop_assert_eq!(found(&read, now), expected(ordinal, now));
            }
            if let Some(column) = block.attribute("a") {
                let size = block.population() as usize;
                let (mut times, mut numbers) = (vec![0; size], vec![0; size]);
                column.latest(now, &mut times, &mut numbers);
                if let Some(number) = numbers.get(usize::from(ordinal)) {
                    let scanned = (*number != AttributeColumn::NO_VALUE)
                        .then(|| column.value(*number).clone())
                        .filter(|value| *value != Value::Null);
                    prop_assert_eq!(scanned, expected(ordinal, now));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn written_bitmaps_have_the_members(
        blocks in prop::collection::vec((0u32..4, prop::collection::btree_set(any::<u16>(), 0..60), 0u16..9000), 0..4),
    ) {
        let mut blocks = blocks;
        blocks.sort_by_key(|(number, ..)| *number);
        blocks.dedup_by_key(|(number, ..)| *number);
        let mut scratch = RoarScratch::default();
        let mut written = Roar::of(4, &mut scratch);
        let mut expected = roaring::RoaringBitmap::new();
        for (number, some, many) in blocks {
            let set: BlockSet = some.into_iter().chain((0..many).map(|o| o * 7)).collect();
            expected.extend(set.iter().map(|low| (number << 16) + u32::from(low)));
            written.put(number, &set, &mut scratch);
        }
        let written = written.finish(&mut scratch);
        prop_assert_eq!(&written, &expected);
        // As bytes too: each container is of the kind that it would have been.
        let bytes = |bitmap: &roaring::RoaringBitmap| {
            let mut bytes = Vec::new();
            bitmap.serialize_into(&mut bytes).map(|()| bytes).unwrap()
        };
        prop_assert_eq!(bytes(&written), bytes(&expected));
    }
}

#[test]
fn a_full_block_is_written_whole() {
    let mut set = BlockSet::new();
    set.fill(1 << 16);
    let mut scratch = RoarScratch::default();
    let mut written = Roar::of(1, &mut scratch);
    written.put(1, &set, &mut scratch);
    let expected: roaring::RoaringBitmap = (1 << 16..2 << 16).collect();
    assert_eq!(written.finish(&mut scratch), expected);
}

#[test]
fn a_clone_does_not_see_what_comes_later() {
    let mut block = Block::new();
    let gaid = Namespace::new("gaid").unwrap();
    for i in 0..500u16 {
        block.add_fact(TraitId(1), i, i64::from(i), None);
        block.add_attribute("a", i, 0, Value::Bool(true));
    }
    let before = Arc::new(block.clone());
    for i in 0..500u16 {
        block.add_fact(TraitId(1), i, i64::from(i), None);
        block.add_attribute("a", i, 1, Value::Bool(false));
    }
    block.add_namespace(&gaid, 3);
    block.set_mark(Mark::Bot, 3, true);
    assert_eq!(before.columns(TraitId(1)).unwrap().len(), 500);
    assert_eq!(block.columns(TraitId(1)).unwrap().len(), 1000);
    assert_eq!(before.attribute("a").unwrap().value_at(7, 5).unwrap().1, &Value::Bool(true));
    assert_eq!(block.attribute("a").unwrap().value_at(7, 5).unwrap().1, &Value::Bool(false));
    assert!(before.holders("gaid").is_none() && before.marked(Mark::Bot).is_empty());
    assert!(block.holders("gaid").unwrap().contains(3) && block.marked(Mark::Bot).contains(3));
}

#[test]
fn the_retention_takes_whole_days() {
    let mut block = Block::new();
    for day in -3..3 {
        block.add_fact(TraitId::ANY, 1, day * DAY, None);
    }
    block.add_fact(TraitId(7), 2, -DAY, None);
    block.drop_before(0);
    let days: Vec<_> = block.columns(TraitId::ANY).unwrap().days().map(|(day, _)| day).collect();
    assert_eq!(days, [0, 1, 2]);
    assert!(block.columns(TraitId(7)).is_none());
    assert_eq!(block.population(), 3);
}

#[test]
fn the_ends_of_time_have_their_days() {
    let mut columns = TraitColumns::new();
    for time in [i64::MIN, i64::MIN + 1, i64::MAX] {
        columns.add(1, time, None);
    }
    let all = Interval { lo: i64::MIN, hi: i64::MAX };
    let times =
        |lo, hi| columns.facts_of(1, lo, hi).into_iter().map(|(t, _)| t).collect::<Vec<_>>();
    assert_eq!(times(all.lo, all.hi), [i64::MIN, i64::MIN + 1, i64::MAX]);
    let mut counts = [0; 2];
    columns.scan().count(Interval { lo: i64::MIN + 1, hi: i64::MAX }, &mut counts);
    assert_eq!(counts, [0, 2]);
    let (mut seen, mut last) = (BlockSet::new(), [0; 2]);
    columns.last(all, &mut seen, &mut last);
    assert_eq!(last[1], i64::MAX);
}

#[test]
fn an_image_of_another_version_is_refused() {
    let mut bytes = Vec::new();
    Block::new().encode_rest(&mut bytes);
    bytes[0] = 3;
    assert!(Block::decode_rest(&bytes).is_err());
}

#[test]
fn an_image_of_a_consent_of_nobody_is_refused() {
    let mut block = Block::new();
    let consent = Consent { purposes: [1].into_iter().collect(), vendors: vec![7] };
    block.set_consent(3, &consent);
    let mut bytes = Vec::new();
    block.encode_rest(&mut bytes);
    // Asked; purpose 1; vendor 7: each one profile, number 3.
    assert!(bytes.ends_with(&[1, 3, 1, 1, 1, 3, 1, 7, 1, 3]));
    for (from_end, value) in [(9, 2), (5, 2), (1, 2), (7, 25), (7, 0)] {
        let mut wrong = bytes.clone();
        let at = wrong.len() - from_end;
        wrong[at] = value;
        let why = Block::decode_rest(&wrong).unwrap_err();
        assert_eq!(why, crate::model::Malformed("a consent of nobody"), "{from_end}");
    }
}

#[test]
fn every_place_gets_its_bit() {
    for length in [0usize, 1, 63, 64, 65, 200] {
        let values: Vec<u32> =
            (0..200u32).map(|i| i.wrapping_mul(2_654_435_761) % 5).take(length).collect();
        let mut out = BlockSet::new();
        out.select(&values, |value| value == 3);
        let expected: BlockSet =
            (0u16..).zip(&values).filter(|(_, v)| **v == 3).map(|(place, _)| place).collect();
        assert_eq!(out, expected);
    }
}
