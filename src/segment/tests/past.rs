//! Members at a past instant are those that the naive evaluator finds, by what is known now.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::LONG;
use super::Rig;
use crate::metrics::Metrics;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::model::time::format_rfc3339;
use crate::net::Clock;
use crate::net::Workers;
use crate::plan::TooEarly;
use crate::plan::oracle::World;
use crate::plan::oracle::cases;
use crate::plan::oracle::generate;
use crate::plan::oracle::generate::History;
use crate::rules;
use crate::rules::Level;
use crate::rules::Rule;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::store::journal::Batch;

fn check(history: &History, back: i64) -> TestCaseResult {
    let mut files: BTreeMap<String, (Rule, Level)> = BTreeMap::new();
    for (place, rule) in history.segments.iter().enumerate() {
        files.insert(format!("s-{place}"), (rule.clone(), Level::Person));
    }
    for (place, rule) in history.rules.iter().enumerate() {
        let level = if place % 2 == 0 { Level::Person } else { Level::Device };
        files.insert(format!("r{place}"), (rule.clone(), level));
    }
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(dir.path().join("segments")).unwrap();
    for (id, (rule, level)) in &files {
        let rule = rules::print_inline(rule);
        let text = format!("rule = '''{rule}'''\nlevel = \"{}\"\n", level.as_str());
        std::fs::write(dir.path().join(format!("segments/{id}.toml")), text).unwrap();
    }
    let now = history.instants.iter().copied().max().unwrap_or_default();
    let rig = Rig::retaining(history.retention, dir, now, None);
    let events: Vec<Event> = history
        .events
        .iter()
        .map(|(_, event)| Event { received: now, message_id: None, ..event.clone() })
        .collect();
    for event in &events {
        let mut batch = Batch::new();
        batch.push_event(event).unwrap();
        rig.journal.append(&batch).unwrap();
    }
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
    let mut owners: Vec<Identifier> = events.iter().map(|event| event.owner().clone()).collect();
    owners.sort();
    owners.dedup();
    let segments = files.iter().filter(|(id, _)| id.starts_with('s'));
    let segments = segments.map(|(id, (rule, _))| (id.clone(), rule.clone())).collect();
    let live = rig.segments.live();
    for at in history.instants.iter().copied().chain([now - back]) {
        let world = World {
            events: &events,
            segments: &segments,
            now: at,
            true_for: rig.clock.now(),
            retention: history.retention,
        };
        for (id, (rule, level)) in files.iter().filter(|(id, _)| live.segments.contains_key(*id)) {
            let found = rig.segments.members_at(id, &format_rfc3339(at), &Caller::default());
            for owner in &owners {
                let told = || format!("{} at {at}: {}", owner.value(), rules::print_inline(rule));
                match (world.member(rule, *level, owner), &found) {
                    (Ok(is_in), Ok(answer)) => {
                        let (shard, ordinal) = rig.engine.find(owner).unwrap();
                        let members = &answer.members.shards[usize::from(shard)];
                        prop_assert_eq!(members.contains(ordinal), is_in, "{}", told());
                    }
                    (Err(since), Err(AskError::TooEarly(TooEarly { earliest }))) => {
                        prop_assert_eq!(since, i128::from(*earliest), "{}", told());
                    }
                    (expected, _) => prop_assert!(false, "{expected:?} {found:?}: {}", told()),
                }
            }
        }
    }
    rig.engine.stop();
    prop_assert!(!live.segments.is_empty() || files.len() < 5, "{:?}", live.problems);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn members_at_a_past_instant_are_those_of_then(
        history in generate::history_at(15_000 * DAY + 43_261_001),
        back in prop_oneof![Just(HOUR), Just(DAY), Just(3 * DAY), Just(9 * DAY), Just(12 * DAY)],
    ) {
        check(&history, back)?;
    }
}
