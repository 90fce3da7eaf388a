//! Refreshes that ask only of whom something changed, over a real engine: against all asked anew, and the naive evaluator.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::LONG;
use super::TestClock;
use crate::archive::Catalog;
use crate::config::Config;
use crate::config::Durability;
use crate::ingest;
use crate::ingest::Engine;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::metrics::Metrics;
use crate::model::Choice;
use crate::model::Event;
use crate::model::Millis;
use crate::model::Record;
use crate::net::Clock;
use crate::net::Workers;
use crate::plan::oracle::World;
use crate::plan::oracle::cases;
use crate::plan::oracle::generate;
use crate::plan::oracle::generate::History;
use crate::rules;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::SegmentFile;
use crate::segment::Live;
use crate::segment::Local;
use crate::segment::Outcome;
use crate::segment::Segment;
use crate::segment::Shards;
use crate::segment::refresh::Compiled;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::state::State;

const COUNT: u16 = 2;
const ALL: [u16; 2] = [0, 1];

/// An engine, and the shards over it. Ends with a last commit.
struct Store {
    clock: Arc<TestClock>,
    journal: Arc<dyn Journal>,
    engine: Arc<Engine>,
    local: Local,
    metrics: Metrics,
}

impl Store {
    fn open(dir: &Path, now: Millis, retention: Millis) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(now)));
        let state: Arc<dyn State> = Arc::new(embedded::State::open(dir, COUNT).unwrap());
        let options = embedded::journal::Options::new(Durability::DiskBuffered);
        let (journal, _) = EmbeddedJournal::open(&dir.join("journal"), options).unwrap();
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let metrics = Metrics::new();
        let engine = Engine::open(
            state.clone(),
            journal.clone(),
            clock.clone(),
            Arc::new(metrics.clone()),
            ingest::Options::new(retention, 1 << 20),
        )
        .unwrap();
        let loaded = state.load().unwrap();
        let archive = dir.join("archive");
        let (catalog, _) =
            Catalog::open(&archive, &ALL, state, loaded.manifest, loaded.archived).unwrap();
        let lanes = Arc::new(Lanes::new(COUNT));
        lanes.insert(Arc::new(Lane {
            number: 0,
            shards: ALL.to_vec(),
            journal: journal.clone(),
            engine: engine.clone(),
            catalog: Arc::new(catalog),
            audiences: Arc::new(embedded::Audiences::open(dir).unwrap()),
        }));
        let workers = Workers::new(metrics.clone());
        engine.start(&workers).unwrap();
        let local = Local::new(lanes, &Config::default(), metrics.clone(), workers, None);
        Self { clock, journal, engine, local, metrics }
    }

    fn append(&self, record: &Record) {
        let mut batch = Batch::new();
        batch.push(record).unwrap();
        self.journal.append(&batch).unwrap();
    }

    /// The members of each segment, once all that it asks is filled.
    fn refresh(&self, compiled: &Arc<Compiled>) -> BTreeMap<String, Outcome> {
        self.engine.settle(LONG).unwrap();
        loop {
            let found = self.local.refresh(compiled, self.clock.now()).unwrap();
            let is_filling = |outcome: &Outcome| matches!(outcome, Outcome::Filling(_));
            if !found.found.segments.values().any(is_filling) {
                return found.found.segments.clone();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.local.stop();
        self.engine.stop();
    }
}

fn compiled(version: u64, rules: &BTreeMap<String, (Rule, Level)>) -> Arc<Compiled> {
    let mut live = Live { version, ..Live::default() };
    for (id, (rule, level)) in rules {
        let text = rules::print_inline(rule);
        let text = format!("rule = '''{text}'''\nlevel = \"{}\"\n", level.as_str());
        let (file, diagnostics) = SegmentFile::parse(id, &text);
        assert!(!rules::has_errors(&diagnostics), "{text}: {diagnostics:?}");
        let segment = Segment { file, text, hidden: false, frozen: false };
        live.segments.insert(id.clone(), Arc::new(segment));
    }
    Arc::new(Compiled::new(Arc::new(live)))
}

/// What happens before an instant besides events.
#[derive(Debug, Clone, Copy)]
struct Turn {
    restart: bool,
    commit: bool,
    edit: bool,
    opt_out: bool,
    /// No refresh is made at this instant.
    skip: bool,
}

fn turn() -> impl Strategy<Value = Turn> {
    let rare = || proptest::bool::weighted(0.2);
    (rare(), rare(), rare(), rare(), rare()).prop_map(|(restart, commit, edit, opt_out, skip)| {
        Turn { restart, commit, edit, opt_out, skip }
    })
}

fn check(history: &History, turns: &[Turn], few: u32) -> TestCaseResult {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), history.instants[0], history.retention);
    store.local.set_few(few);
    let named: BTreeMap<String, Rule> =
        (0..).zip(&history.segments).map(|(i, rule)| (format!("s-{i}"), rule.clone())).collect();
    let mut live: BTreeMap<String, (Rule, Level)> =
        named.iter().map(|(id, rule)| (id.clone(), (rule.clone(), Level::Person))).collect();
    for (place, rule) in history.rules.iter().enumerate() {
        let level = if place % 2 == 0 { Level::Person } else { Level::Device };
        live.insert(format!("r{place}"), (rule.clone(), level));
    }
    let mut version = 1;
    let mut asked = compiled(version, &live);
    let mut counted: Vec<Event> = Vec::new();
    // A profile that was forgotten comes back without the identifiers that it had.
    let forgets = history.instants.windows(2).any(|pair| pair[1] - pair[0] >= history.retention);
    for ((step, now), turn) in history.instants.iter().enumerate().zip(turns) {
        if turn.restart {
            drop(store);
            store = Store::open(dir.path(), *now, history.retention);
            store.local.set_few(few);
        }
        store.clock.0.store(*now, Ordering::Relaxed);
        if turn.edit {
            // Rules change places: each has another, or a part of another.
            let place = step % history.rules.len();
            let other = &history.rules[(place + 1) % history.rules.len()];
            let level = if step % 2 == 0 { Level::Person } else { Level::Device };
            live.insert(format!("r{place}"), (other.clone(), level));
            version += 1;
            asked = compiled(version, &live);
        }
        for (number, (_, event)) in
            history.events.iter().enumerate().filter(|(_, (place, _))| *place == step)
        {
            let message_id = Some(format!("m{number}").into());
            let event = Event { received: *now, message_id, ..event.clone() };
            store.append(&Record::Event(event.clone()));
            if number % 3 == 0 {
                // The same comes again, and counts once.
                store.append(&Record::Event(event.clone()));
            }
            if turn.opt_out {
                let identifier = event.owner().clone();
                let opted_out = number % 2 == 0;
                store.append(&Record::Choice(Choice { identifier, opted_out, received: *now }));
            }
            counted.push(event);
        }
        if turn.commit {
            prop_assert!(store.engine.commit(LONG));
        }
        if turn.skip {
            continue;
        }
        let found = store.refresh(&asked);
        let anew = store.local.anew(&asked, *now);
        let world = World {
            events: &counted,
            segments: &named,
            now: *now,
            true_for: *now,
            retention: history.retention,
        };
        for (id, outcome) in &found {
            let (rule, level) = &live[id];
            let Outcome::Members(members) = outcome else { panic!("{id}: {outcome:?}") };
            let told = || {
                format!("{id} at {step} of {:?}: {}", history.instants, rules::print_inline(rule))
            };
            prop_assert_eq!(members, &anew[id], "{}", told());
            let mut expected = 0;
            for owner in owners(&counted) {
                let truth = world.member(rule, *level, &owner).unwrap();
                expected += u64::from(truth);
                let place = store.engine.find(&owner);
                let is_in = place.is_some_and(|(shard, ordinal)| {
                    members.shards[usize::from(shard)].contains(ordinal)
                });
                let asks_has = rules::print_inline(rule).contains("has ");
                let may_differ = forgets && (asks_has || names_has(rule, &named));
                prop_assert!(is_in == truth || may_differ, "{}: {}", owner.value(), told());
            }
            prop_assert!(forgets || members.len() == expected, "{}", told());
        }
        prop_assert_eq!(store.local.audit_all(&asked, *now), 0);
    }
    Ok(())
}

fn names_has(rule: &Rule, named: &BTreeMap<String, Rule>) -> bool {
    let text = rules::print_inline(rule);
    named.iter().any(|(id, rule)| {
        text.contains(&format!("segment {id}")) && rules::print_inline(rule).contains("has ")
    }) || (text.contains("segment s-1") && rules::print_inline(&named["s-0"]).contains("has "))
}

fn owners(events: &[Event]) -> Vec<crate::model::Identifier> {
    let mut owners: Vec<_> = events.iter().map(|event| event.owner().clone()).collect();
    owners.sort();
    owners.dedup();
    owners
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_refresh_finds_what_all_asked_anew_would(
        history in generate::history_at(15_000 * crate::model::time::DAY + 43_261_001),
        turns in proptest::collection::vec(turn(), 8),
        few in proptest::sample::select(vec![0, 2, u32::MAX]),
    ) {
        check(&history, &turns, few)?;
    }
}

#[test]
fn the_auditor_finds_what_is_wrong_and_the_next_refresh_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let now = 1_700_000_000_000;
    let store = Store::open(dir.path(), now, 90 * crate::model::time::DAY);
    let (rule, _) = rules::parse("not did purchase in 7d");
    let live = BTreeMap::from([("all".to_owned(), (rule, Level::Person))]);
    let asked = compiled(1, &live);
    let namespace = crate::model::Namespace::new("user_id").unwrap();
    let owner = crate::model::Identifier::new(namespace, "1").unwrap();
    let event = super::event(&owner, "view", now, now);
    store.append(&Record::Event(event));
    let members = || match &store.refresh(&asked)["all"] {
        Outcome::Members(members) => members.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(members(), 1);
    assert_eq!(store.local.audit_all(&asked, now), 0);
    let (shard, ordinal) = store.engine.find(&owner).unwrap();
    store.local.spoil("all", shard, ordinal);
    assert_eq!(members(), 0, "nothing says that it is to be asked again");
    assert_eq!(store.local.audit_all(&asked, now), 1);
    assert_eq!(store.metrics.audience_divergence.get(), 1);
    assert_eq!(members(), 1);
    assert_eq!(store.local.audit_all(&asked, now), 0);
    assert_eq!(store.metrics.audience_divergence.get(), 0);
    assert_eq!(store.metrics.audience_audits.get(), 6);
}
