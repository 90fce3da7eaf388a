//! The property all else rests on: bitmaps = one profile alone = the naive evaluator.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::World;
use super::generate;
use super::generate::Scenario;
use crate::bitmap::Block;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Identifier;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::time::DAY;
use crate::model::time::MINUTE;
use crate::model::time::day_of;
use crate::model::time::parse_rfc3339;
use crate::plan;
use crate::plan::Library;
use crate::plan::Program;
use crate::plan::Question;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::plan::WhyError;
use crate::rules;
use crate::rules::Body;
use crate::rules::Level;

/// How many cases are run: `THRONG_CASES`, or a number that keeps the suite quick.
pub(crate) fn cases() -> u32 {
    std::env::var("THRONG_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256)
}

/// Columns as the fold would make them, in two shards; profiles of the second lie in its second block.
struct Folded {
    snapshot: Snapshot,
    profiles: Vec<(Identifier, (ShardId, Ordinal))>,
}

pub(super) fn place(
    profiles: &mut Vec<(Identifier, (ShardId, Ordinal))>,
    owner: &Identifier,
) -> usize {
    profiles.iter().position(|(id, _)| id == owner).unwrap_or_else(|| {
        let shard = ShardId::try_from(profiles.len() % 2).unwrap();
        let ordinal = u32::try_from(profiles.len() / 2).unwrap() * 63 + u32::from(shard) * BLOCK;
        profiles.push((owner.clone(), (shard, ordinal)));
        profiles.len() - 1
    })
}

/// Folds events. What `filled` names comes by a fill of all events at the end instead.
fn fold(scenario: &Scenario, traits: &TraitSet, filled: Option<TraitId>) -> Folded {
    let mut profiles: Vec<(Identifier, (ShardId, Ordinal))> = Vec::new();
    let mut blocks = [vec![Block::new()], vec![Block::new(), Block::new()]];
    blocks[1][0].set_population(BLOCK);
    let mut fill: BTreeMap<(usize, usize), TraitColumns> = BTreeMap::new();
    let mut facts = Vec::new();
    for event in &scenario.events {
        let known = place(&mut profiles, event.owner());
        let (shard, ordinal) = profiles[known].1;
        let at = (usize::from(shard), (ordinal / BLOCK) as usize);
        let block = &mut blocks[at.0][at.1];
        let ordinal = u16::try_from(ordinal % BLOCK).unwrap();
        facts.clear();
        traits.facts(event, &mut facts);
        for (id, value) in &facts {
            if Some(*id) == filled {
                fill.entry(at).or_default().add(ordinal, event.time, *value);
            } else {
                block.add_fact(*id, ordinal, event.time, *value);
            }
        }
        for (name, value) in &event.attrs {
            block.add_attribute(name, ordinal, event.time, value.clone());
        }
        for id in &event.ids {
            block.add_namespace(&id.namespace, ordinal);
        }
        if event.owner().namespace.is_device() {
            block.set_owner_is_device(ordinal);
        }
    }
    for (at, columns) in fill {
        blocks[at.0][at.1].merge_trait(filled.unwrap(), &columns);
    }
    let snapshot = Snapshot {
        shards: blocks.map(|blocks| blocks.into_iter().map(Arc::new).collect()).into(),
        true_for: scenario.true_for,
        retention: scenario.retention,
    };
    Folded { snapshot, profiles }
}

/// The columns after a trip through their images, and after the days that have gone were dropped.
fn aged(snapshot: &Snapshot) -> Snapshot {
    let edge = day_of(snapshot.true_for - snapshot.retention);
    let block = |block: &Arc<Block>| {
        let mut bytes = Vec::new();
        block.encode_rest(&mut bytes);
        let mut copy = Block::decode_rest(&bytes).unwrap();
        for (id, columns) in block.traits() {
            for (day, column) in columns.days() {
                bytes.clear();
                column.encode(&mut bytes);
                copy.decode_day(id, day, &bytes).unwrap();
            }
        }
        copy.drop_before(edge);
        Arc::new(copy)
    };
    let shards = snapshot.shards.iter().map(|shard| shard.iter().map(block).collect()).collect();
    Snapshot { shards, ..*snapshot }
}

fn check(scenario: &Scenario) -> TestCaseResult {
    let mut library = Library::new();
    let mut segments = BTreeMap::new();
    for (i, rule) in scenario.segments.iter().enumerate() {
        library.insert(&format!("s-{i}"), Body::Rule(rule.clone()));
        segments.insert(format!("s-{i}"), rule.clone());
    }
    let mut traits = TraitSet::new();
    let specs = plan::traits_of(&scenario.rules, &library).unwrap();
    for (id, spec) in (1..).zip(specs) {
        prop_assert_eq!(TraitSpec::parse(&spec.to_string()), Some(spec.clone()));
        traits.insert(TraitId(id), spec).unwrap();
    }
    let folded = fold(scenario, &traits, Some(TraitId(1)));
    let world = World {
        events: &scenario.events,
        segments: &segments,
        now: scenario.now,
        true_for: scenario.true_for,
        retention: scenario.retention,
    };
    let questions: Vec<Question<'_>> = scenario
        .rules
        .iter()
        .flat_map(|rule| [Level::Person, Level::Device].map(|level| Question { rule, level }))
        .collect();
    // All rules that are answered at this instant go through one program.
    let answered: Vec<Question<'_>> = questions
        .iter()
        .filter(|question| world.member(question.rule, question.level, &unknown()).is_ok())
        .copied()
        .collect();
    for question in &questions {
        let Err(earliest) = world.member(question.rule, question.level, &unknown()) else {
            continue;
        };
        let program = Program::compile(&[*question], &library, &traits).unwrap();
        let refused = program.run(&folded.snapshot, scenario.now, 1).unwrap_err();
        prop_assert_eq!(i128::from(refused.earliest), earliest);
        let why = ask(question, &library, &traits, &folded.snapshot, (0, 0), scenario.now);
        prop_assert!(matches!(why, Err(WhyError::TooEarly(_))));
    }
    let program = Program::compile(&answered, &library, &traits).unwrap();
    let aged = aged(&folded.snapshot);
    for snapshot in [&folded.snapshot, &aged] {
        let members = program.run(snapshot, scenario.now, 2).unwrap();
        let counts = program.count(snapshot, scenario.now, 1).unwrap();
        for ((question, members), count) in answered.iter().zip(&members).zip(counts) {
            let rule = || rules::print_inline(question.rule);
            prop_assert_eq!(members.len(), count);
            let mut expected = 0;
            for (owner, at) in &folded.profiles {
                let truth = world.member(question.rule, question.level, owner).unwrap();
                expected += u64::from(truth);
                let in_bitmap = members.shards[usize::from(at.0)].contains(at.1);
                prop_assert_eq!(
                    in_bitmap,
                    truth,
                    "bitmap of {}: {} {:?}",
                    owner.value(),
                    rule(),
                    at
                );
                let why = ask(question, &library, &traits, snapshot, *at, scenario.now).unwrap();
                prop_assert_eq!(why.member, truth, "one profile: {} {:?}", rule(), why);
                check_course(&world, question, owner, &why)?;
            }
            prop_assert_eq!(count, expected, "members nobody knows: {}", rule());
        }
    }
    Ok(())
}

/// Whether a profile is a member, or none, from the instant to the instant that is told, and not beyond.
fn check_course(
    world: &World<'_>,
    question: &Question<'_>,
    owner: &Identifier,
    why: &plan::Membership,
) -> TestCaseResult {
    let member_at = |now: i64| {
        let World { events, segments, true_for, retention, .. } = *world;
        let world = World { events, segments, now, true_for, retention };
        world.member(question.rule, question.level, owner).unwrap()
    };
    let read = |time: &String| parse_rfc3339(time).unwrap();
    let from = read(&why.from);
    let since = why.since.as_ref().map_or(from, read);
    let until = why.until.as_ref().map(read);
    let mut all = vec![since];
    let events = world.events.iter().filter(|event| event.ids[0] == *owner);
    for time in events.map(|event| event.time) {
        all.extend([time, time + 7 * MINUTE, time + DAY, time + world.retention + MINUTE]);
    }
    all.extend(until.map(|until| until - 1));
    for now in all.into_iter().filter(|now| *now >= since && until.is_none_or(|until| *now < until))
    {
        prop_assert_eq!(member_at(now), why.member, "{} {:?}", now, why);
    }
    if why.since.is_some() {
        prop_assert!(since > from);
        prop_assert_eq!(member_at(since - 1), !why.member, "{:?}", why);
    }
    if let Some(until) = until {
        prop_assert_eq!(member_at(until), !why.member, "{:?}", why);
    }
    Ok(())
}

fn unknown() -> Identifier {
    Identifier::new(crate::model::Namespace::new("x").unwrap(), "x").unwrap()
}

fn ask(
    question: &Question<'_>,
    library: &Library,
    traits: &TraitSet,
    snapshot: &Snapshot,
    at: (ShardId, Ordinal),
    now: i64,
) -> Result<plan::Membership, WhyError> {
    plan::why(question.rule, question.level, library, traits, snapshot, at, now)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16 * cases(), ..ProptestConfig::default() })]
    #[test]
    fn filters_and_measured_values_agree(
        (event, filters, properties) in generate::filtered()
    ) {
        for filter in &filters {
            let compiled = plan::test::Filter::new(filter).unwrap();
            prop_assert_eq!(compiled.takes(&event), super::meets(filter, &event), "{:?}", filter);
        }
        let selector = rules::ast::Selector {
            event: rules::ast::Name { text: event.name.clone(), span: rules::Span::default() },
            filter: None,
            span: rules::Span::default(),
        };
        for property in &properties {
            let mut traits = TraitSet::new();
            traits.insert(TraitId(1), TraitSpec::new(&selector, Some(property))).unwrap();
            let mut facts = Vec::new();
            let out_of_range = traits.facts(&event, &mut facts);
            let number = super::value::number_of(&property.path, &event);
            let expected = number.as_ref().and_then(|number| number.measure());
            let found = facts.get(1).and_then(|(_, value)| *value).map(|value| i128::from(value.0));
            prop_assert_eq!(found, expected, "{:?}", property);
            prop_assert_eq!(out_of_range, u32::from(number.is_some() && expected.is_none()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn bitmaps_one_profile_and_the_naive_evaluator_agree(scenario in generate::scenario()) {
        check(&scenario)?;
    }
}
