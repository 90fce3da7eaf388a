//! Refreshes and questions over a real engine, without a server.

mod again;
mod fill;
mod gather;
mod history;
mod kept;
mod learn;
mod lookup;
mod overlap;
mod past;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::archive::Catalog;
use crate::config::Config;
use crate::config::Durability;
use crate::ingest;
use crate::ingest::Engine;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::metrics::Metrics;
use crate::model::Choice;
use crate::model::Consent;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Record;
use crate::model::Source;
use crate::model::time::DAY;
use crate::net::Clock;
use crate::net::Workers;
use crate::rules::Level;
use crate::segment::AskError;
use crate::segment::AudienceState;
use crate::segment::Caller;
use crate::segment::Finder;
use crate::segment::Local;
use crate::segment::Outcome;
use crate::segment::Parts;
use crate::segment::Question;
use crate::segment::Segments;
use crate::segment::Shards;
use crate::segment::refresh::Compiled;
use crate::segment::refresh::Last;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::shelf::Shelf;
use crate::store::state::State;

const LONG: Duration = Duration::from_secs(60);

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

type Making = dyn Fn(Option<Arc<dyn Shelf>>, Arc<dyn Shelf>) -> Parts;

struct Rig {
    dir: Arc<tempfile::TempDir>,
    clock: Arc<TestClock>,
    journal: Arc<dyn Journal>,
    engine: Arc<Engine>,
    local: Arc<Local>,
    /// What segments are made of, given the shelf of a store that others share, and that of the history.
    parts: Box<Making>,
    segments: Segments,
}

impl Rig {
    fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, None)
    }

    fn with(files: &[(&str, &str)], watermark: Option<Arc<dyn crate::segment::Watermark>>) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let folder = dir.path().join("segments");
        std::fs::create_dir(&folder).unwrap();
        for (id, text) in files {
            std::fs::write(folder.join(format!("{id}.toml")), text).unwrap();
        }
        Self::open(dir, 1_700_000_000_000, watermark)
    }

    fn open(
        dir: Arc<tempfile::TempDir>,
        now: Millis,
        watermark: Option<Arc<dyn crate::segment::Watermark>>,
    ) -> Self {
        Self::retaining(90 * DAY, dir, now, watermark)
    }

    fn retaining(
        retention: Millis,
        dir: Arc<tempfile::TempDir>,
        now: Millis,
        watermark: Option<Arc<dyn crate::segment::Watermark>>,
    ) -> Self {
        let folder = dir.path().join("segments");
        let clock = Arc::new(TestClock(AtomicI64::new(now)));
        let state: Arc<dyn State> = Arc::new(embedded::State::open(dir.path(), 4).unwrap());
        let numbers = state.clone();
        let options = embedded::journal::Options::new(Durability::DiskBuffered);
        let (journal, _) = EmbeddedJournal::open(&dir.path().join("journal"), options).unwrap();
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
        let archive = dir.path().join("archive");
        let (catalog, _) =
            Catalog::open(&archive, &[0, 1, 2, 3], state, loaded.manifest, loaded.archived)
                .unwrap();
        let audiences = Arc::new(embedded::Audiences::open(dir.path()).unwrap());
        let asked = engine.clone();
        let lanes = Arc::new(Lanes::new(4));
        lanes.insert(Arc::new(Lane {
            number: 0,
            shards: vec![0, 1, 2, 3],
            journal: journal.clone(),
            engine: engine.clone(),
            catalog: Arc::new(catalog),
            audiences: audiences.clone(),
        }));
        let config = Arc::new(Config::default());
        let workers = Workers::new(metrics.clone());
        let local =
            Arc::new(Local::new(lanes, &config, metrics.clone(), workers, Some(dir.path())));
        let watermark = watermark.unwrap_or_else(|| Arc::new(crate::segment::Alone(clock.clone())));
        let head: Arc<dyn Shelf> = Arc::new(embedded::Shelf::open(dir.path()).unwrap());
        let (time, shards) = (clock.clone(), local.clone());
        let parts = Box::new(move |shelf, history: Arc<dyn Shelf>| {
            let (numbers, asked) = (numbers.clone(), asked.clone());
            let whose = Box::new(move |identifier: &Identifier| asked.whose(identifier));
            Parts {
                config: config.clone(),
                clock: time.clone(),
                metrics: metrics.clone(),
                shards: shards.clone(),
                count: 4,
                watermark: watermark.clone(),
                shelf,
                finder: Finder { lookups: audiences.clone(), whose },
                head: head.clone(),
                history,
                reserve: Box::new(move |count| numbers.reserve_generations(count)),
            }
        });
        let history = Arc::new(embedded::Shelf::history(dir.path()).unwrap());
        let segments =
            Segments::open(parts(None, history), &folder, &dir.path().join("data")).unwrap();
        Self { dir, clock, journal, engine, local, parts, segments }
    }

    /// Those of a node that shares the store with others, with this shelf for the history.
    fn node(&self, history: Arc<dyn Shelf>) -> Segments {
        let folder = self.dir.path().join("segments");
        let shelf = Arc::new(embedded::Shelf::open(self.dir.path()).unwrap());
        Segments::open((self.parts)(Some(shelf), history), &folder, self.dir.path()).unwrap()
    }

    fn history(&self) -> embedded::Shelf {
        embedded::Shelf::history(self.dir.path()).unwrap()
    }

    /// Ends, and starts again with a clock that is so much later.
    /// Ends and starts again.
    fn reopen(self, later: Millis) -> Self {
        self.leave();
        self.crash(later)
    }

    /// Puts on record what was published last, as a process does that ends.
    fn leave(&self) {
        self.segments.leave(Some(&Compiled::new(self.segments.live())));
    }

    /// Starts again without that.
    fn crash(self, later: Millis) -> Self {
        self.engine.stop();
        let (dir, now) = (self.dir.clone(), self.clock.now() + later);
        drop(self);
        Self::open(dir, now, None)
    }

    fn file(&self, id: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("segments/{id}.toml"))
    }

    /// Appends an event of a user, so many milliseconds from now.
    fn event(&self, user: &str, name: &str, ahead: Millis) {
        let received = self.clock.now();
        let owner = Identifier::new(Namespace::new("user_id").unwrap(), user).unwrap();
        let event = event(&owner, name, received + ahead, received);
        let mut batch = Batch::new();
        batch.push_event(&event).unwrap();
        self.journal.append(&batch).unwrap();
    }

    /// Appends an event that says whether its user may be in audiences.
    fn consent(&self, user: &str, name: &str, is_given: bool) {
        let now = self.clock.now();
        let owner = Identifier::new(Namespace::new("user_id").unwrap(), user).unwrap();
        let purposes = [1, 3, 4].into_iter().take(if is_given { 3 } else { 1 }).collect();
        let consent = Some(Box::new(Consent { purposes, vendors: Vec::new() }));
        let event = Event { consent, ..event(&owner, name, now, now) };
        let mut batch = Batch::new();
        batch.push_event(&event).unwrap();
        self.journal.append(&batch).unwrap();
    }

    /// Appends what a user says of being activated.
    fn choose(&self, user: &str, opted_out: bool) {
        let identifier = Identifier::new(Namespace::new("user_id").unwrap(), user).unwrap();
        let choice = Choice { identifier, opted_out, received: self.clock.now() };
        let mut batch = Batch::new();
        batch.push(&Record::Choice(choice)).unwrap();
        self.journal.append(&batch).unwrap();
    }
}

/// An event of a profile.
fn event(owner: &Identifier, name: &str, time: Millis, received: Millis) -> Event {
    Event {
        received,
        time,
        source: Source::Api,
        site: "s".into(),
        name: name.into(),
        message_id: None,
        ids: vec![owner.clone()],
        props: Vec::new(),
        attrs: Vec::new(),
        page: crate::model::Page::default(),
        device: crate::model::Device::default(),
        country: None,
        locale: None,
        consent: None,
        bot: false,
        time_replaced: false,
    }
}

#[test]
fn an_audience_is_evaluated_with_the_traits_of_its_pin() {
    let rig = Rig::new(&[("buyers", "rule = 'did purchase'")]);
    rig.event("1", "purchase", 0);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
    let compiled = Compiled::new(rig.segments.live());
    let specs = compiled.traits["buyers"].as_ref().unwrap();
    rig.engine.set_traits(specs).unwrap();
    // The fill ends between the pin and the evaluation.
    let pin = rig.engine.pin();
    rig.engine.mark_whole(pin.traits.unfilled());
    let outcomes = rig.local.outcomes(&compiled, &pin);
    assert!(matches!(outcomes["buyers"], Outcome::Filling(_)), "{outcomes:?}");
    rig.engine.stop();
}

#[test]
fn a_refresh_that_gave_up_is_tried_again() {
    let rig = Rig::new(&[("buyers", "rule = 'did purchase'")]);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    // A trait is missing: it stands for whatever makes an evaluation give up.
    let mut wrong = Compiled::new(rig.segments.live());
    wrong.traits.insert("buyers".into(), Ok(Vec::new()));
    wrong.wanted.clear();
    let trainings = rig.segments.lookalikes.version();
    let mut last = Last { compiled: Some(Arc::new(wrong)), refreshed: None, trainings, ends: None };
    rig.segments.refresh(&mut last);
    assert_eq!(rig.segments.generation().number, 0);
    last.compiled = None;
    while rig.segments.generation().audiences.get("buyers").is_none_or(|a| a.count.is_none()) {
        rig.segments.refresh(&mut last);
    }
    rig.engine.stop();
}

#[test]
fn a_segment_that_stands_still_keeps_its_members_and_is_not_asked() {
    let rig = Rig::new(&[("a", "rule = 'segment b'"), ("b", "rule = 'did purchase'")]);
    rig.event("1", "purchase", 0);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
    let mut last = Last::default();
    while rig.segments.generation().audiences.get("a").is_none_or(|a| a.count != Some(1)) {
        rig.segments.refresh(&mut last);
    }
    // Neither was edited, and a new start knows a shorter retention.
    let mut live = (*rig.segments.live()).clone();
    live.version += 1;
    for id in ["a", "b"] {
        let (file, _) = crate::rules::SegmentFile::parse(id, &live.segments[id].text);
        let frozen =
            crate::segment::Segment { file, text: String::new(), hidden: false, frozen: true };
        live.segments.insert(id.into(), Arc::new(frozen));
    }
    let frozen = Arc::new(Compiled::new(Arc::new(live)));
    let found = rig.local.refresh(&frozen, rig.clock.now()).unwrap();
    assert!(rig.segments.publish(&frozen, &found.found, rig.clock.now()));
    let audience = rig.segments.generation().audiences["a"].clone();
    assert!(matches!(audience.state, AudienceState::Failing { .. }));
    assert_eq!(audience.count, Some(1));
    assert_eq!(frozen.traits["b"].as_ref().map(Vec::len), Ok(1), "its columns are kept");
    rig.engine.stop();
}

fn question(rule: &str) -> Question {
    Question { rule: rule.into(), level: Level::Person, at: None }
}

#[test]
fn a_question_waits_for_no_other_and_ends_when_nobody_wants_its_answer() {
    let rig = Rig::new(&[]);
    rig.event("1", "purchase", 0);
    rig.event("1", "order", 0);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
    let wanted = Caller::default();
    let spec = crate::plan::TraitSpec::parse("did purchase").unwrap();
    let scanning = rig.local.scanning(vec![spec]);
    // One that asks something else is answered meanwhile.
    let answer = rig.segments.eval(&question("did order"), &wanted).unwrap();
    assert_eq!(answer.count, 1);
    // One that asks the same waits, until its caller goes.
    let caller = &Caller::default();
    std::thread::scope(|scope| {
        let segments = &rig.segments;
        let waiting = scope.spawn(move || segments.eval(&question("did purchase"), caller));
        caller.leave();
        assert!(matches!(waiting.join().unwrap(), Err(AskError::Cancelled)));
    });
    drop(scanning);
    let answer = rig.segments.eval(&question("did purchase"), &wanted).unwrap();
    assert_eq!(answer.count, 1);
    rig.engine.stop();
}

#[test]
fn a_question_that_waits_for_the_fold_ends_when_nobody_wants_its_answer() {
    let rig = Rig::new(&[]);
    rig.event("1", "purchase", 0);
    // Nothing folds, so it waits for ever.
    let caller = Caller::default();
    caller.leave();
    let asked = rig.segments.eval(&question("did purchase"), &caller);
    assert!(matches!(asked, Err(AskError::Cancelled)));
    assert!(matches!(rig.segments.settle(&caller), Err(AskError::Cancelled)));
}

#[test]
fn kept_columns_follow_the_journal() {
    let rig = Rig::new(&[]);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let wanted = Caller::default();
    // Of two traits, each event brings one further; both are kept at once and alone.
    for (round, rule) in
        ["did a", "count b >= 1 or did a", "did a", "did b", "count b >= 1 or did a"]
            .into_iter()
            .enumerate()
    {
        rig.event(&format!("a{round}"), "a", 0);
        rig.event(&format!("b{round}"), "b", 0);
        let answer = rig.segments.eval(&question(rule), &wanted).unwrap();
        let each = if rule.contains("or") { 2 } else { 1 };
        assert_eq!(answer.count, each * (round as u64 + 1), "{rule}");
    }
    rig.engine.stop();
}

#[test]
fn an_event_of_the_far_future_costs_no_evaluation_and_one_of_soon_is_seen_in_time() {
    let rig = Rig::new(&[("buyers", "rule = 'did purchase'")]);
    rig.clock.0.store(1_700_000_040_000, Ordering::Relaxed);
    rig.event("1", "purchase", 0);
    rig.event("2", "purchase", 30_000);
    rig.event("3", "purchase", 70 * 365 * DAY);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
    let mut last = Last::default();
    let count = |segments: &Segments| {
        segments.generation().audiences.get("buyers").and_then(|audience| audience.count)
    };
    while count(&rig.segments) != Some(1) {
        rig.segments.refresh(&mut last);
    }
    let number = rig.segments.generation().number;
    let mut at = |ahead: Millis| {
        rig.clock.0.store(1_700_000_040_000 + ahead, Ordering::Relaxed);
        rig.segments.refresh(&mut last);
        let generation = rig.segments.generation();
        assert_eq!(generation.true_for, 1_700_000_040_000 + ahead);
        (generation.number == number, count(&rig.segments))
    };
    assert_eq!(at(10_000), (true, Some(1)));
    assert_eq!(at(29_999), (true, Some(1)));
    assert_eq!(at(30_000), (false, Some(2)));
    rig.engine.stop();
}

/// A watermark of a node that leads or not, as it is told.
struct Told(Arc<TestClock>, Arc<AtomicBool>);

impl crate::segment::Watermark for Told {
    fn t(&self) -> Option<Millis> {
        Some(self.0.now())
    }

    fn appended(&self, _: &dyn Fn() -> Result<(), AskError>) -> Result<Millis, AskError> {
        Ok(self.0.now())
    }

    fn leads(&self) -> bool {
        self.1.load(Ordering::Acquire)
    }
}

#[test]
fn who_no_longer_publishes_knows_no_segments() {
    let leads = Arc::new(AtomicBool::new(true));
    let (told, clock) = (leads.clone(), Arc::new(TestClock(AtomicI64::new(1_700_000_000_000))));
    let watermark = Arc::new(Told(clock, told));
    let rig = Rig::with(&[("buyers", "rule = 'did purchase'")], Some(watermark));
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let until = |holds: &dyn Fn() -> bool| {
        while !holds() {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| rig.segments.run());
        until(&|| rig.segments.generation().number > 0);
        assert!(rig.segments.live().version > 0);
        leads.store(false, Ordering::Release);
        until(&|| rig.segments.live().version == 0);
        assert_eq!(rig.segments.generation().number, 0);
        leads.store(true, Ordering::Release);
        until(&|| rig.segments.generation().number > 0);
        rig.segments.stop();
    });
    rig.engine.stop();
}
