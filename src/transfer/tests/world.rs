//! Stores with something in them, and engines on either kind that answer.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::shipping::Shipping;
use crate::archive::Catalog;
use crate::archive::Policy;
use crate::config::Config;
use crate::config::Durability;
use crate::ingest;
use crate::ingest::Engine;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::metrics::Metrics;
use crate::model::Choice;
use crate::model::Consent;
use crate::model::Device;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::ImportLines;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Page;
use crate::model::Record;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::model::Source;
use crate::model::Value;
use crate::model::record::ImportedEvent;
use crate::model::time::DAY;
use crate::model::value::parse_json;
use crate::net::Clock;
use crate::net::Workers;
use crate::plan::TraitSpec;
use crate::rules::Level;
use crate::segment::Caller;
use crate::segment::Local;
use crate::segment::Parts;
use crate::segment::Question;
use crate::segment::Segments;
use crate::store::audiences::Audiences;
use crate::store::claims::Claims;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::ledger::EmbeddedLedger;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::journal::Sink;
use crate::store::lanes::Hold;
use crate::store::lanes::LaneStore as _;
use crate::store::lanes::Taken;
use crate::store::ledger::Changes;
use crate::store::ledger::Ledger;
use crate::store::ledger::Target;
use crate::store::redis;
use crate::store::redis::Keys;
use crate::store::redis::Mode;
use crate::store::redis::Times;
use crate::store::redis::tests::server::shared_cluster;
use crate::store::redis::tests::server::shared_server;
use crate::store::redis::tests::server::until;
use crate::store::state::Loaded;
use crate::store::state::State;
use crate::transfer::MoveError;
use crate::transfer::Options;
use crate::transfer::Place;
use crate::transfer::Progress;
use crate::transfer::Report;
use crate::transfer::transfer;

pub(super) const T0: Millis = 1_700_000_000_000;
pub(super) const LONG: Duration = Duration::from_secs(120);
pub(super) const SHARDS: u16 = 7;
pub(super) const LANES: u16 = 3;

/// What stores are asked. The first two traits are kept as columns, the others are filled from the archive.
const RULES: [&str; 8] = [
    "everyone",
    "did buy",
    "sum buy.value in 20d > 30",
    "count view in 20d >= 2",
    "did cart[value >= 3] in 10d and not did buy",
    "profile.country = \"DE\"",
    "has crm_id",
    "did order",
];
const TRAITS: [&str; 2] = ["did buy", "sum buy.value"];

/// The time stands still, so that all answers are for the same instant.
#[derive(Debug)]
pub(super) struct Still;

impl Clock for Still {
    fn now(&self) -> Millis {
        T0 + DAY
    }
}

/// Numbers that look random and are the same each time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn of(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

pub(super) fn id(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

fn fields(json: &str) -> Vec<(Box<str>, Value)> {
    let Value::Object(fields) = parse_json(json.as_bytes()).unwrap() else { panic!() };
    fields
}

/// An event of a user, received so many seconds after the start.
pub(super) fn event(user: &str, name: &str, second: i64) -> Event {
    let received = T0 + second * 1_000;
    Event {
        site: "shop".into(),
        name: name.into(),
        time: received,
        received,
        time_replaced: false,
        source: Source::Api,
        message_id: None,
        ids: vec![id("user_id", user)],
        props: Vec::new(),
        attrs: Vec::new(),
        page: Page::default(),
        device: Device::default(),
        bot: false,
        country: None,
        locale: None,
        consent: None,
    }
}

fn any_event(dice: &mut Dice, second: i64) -> Event {
    let user = dice.of(60);
    let names = ["buy", "view", "cart"];
    let mut event =
        event(&format!("u{}", user / 2), names[usize::try_from(dice.of(3)).unwrap()], second);
    event.time -= i64::try_from(dice.of(30 * 24 * 3600)).unwrap() * 1_000;
    match dice.of(4) {
        0 => {}
        1 => event.ids.insert(0, id("cookie", &format!("{:032x}", user + 1))),
        2 => event.ids.push(id("crm_id", &format!("c{}", user / 5))),
        _ => event.ids = vec![id("cookie", &format!("{:032x}", user + 1))],
    }
    event.props = fields(&format!(r#"{{"value":{}}}"#, dice.of(20)));
    if dice.of(4) == 0 {
        let country = ["DE", "AT", "FR"][usize::try_from(dice.of(3)).unwrap()];
        event.attrs = fields(&format!(r#"{{"country":"{country}"}}"#));
    }
    event.bot = dice.of(20) == 0;
    if dice.of(3) == 0 {
        let purposes = (1..=4).filter(|_| dice.of(5) > 0).collect();
        event.consent = Some(Box::new(Consent { purposes, vendors: vec![21, 755] }));
    }
    // Some of them come twice.
    event.message_id = (dice.of(2) == 0).then(|| format!("m{}", dice.of(80)).into());
    event
}

/// Events, choices and an import, as collect would append them.
pub(super) fn records(dice: &mut Dice, count: i64, from: i64) -> Vec<Record> {
    let mut line = 1 + u64::try_from(from).unwrap() * 10;
    let mut records = Vec::new();
    for second in from..from + count {
        records.push(match dice.of(12) {
            0 => Record::Choice(Choice {
                identifier: id("user_id", &format!("u{}", dice.of(30))),
                opted_out: dice.of(3) > 0,
                received: T0 + second * 1_000,
            }),
            1 => {
                let first_line = line;
                let mut events = Vec::new();
                for _ in 0..3 {
                    let mut event = any_event(dice, second);
                    let own_message_id = event.message_id.is_some();
                    let made = format!("line {line}");
                    event.message_id.get_or_insert_with(|| made.into());
                    events.push(ImportedEvent { line, own_message_id, event });
                    line += 1;
                }
                let wrong = RejectedLine { line, code: "json".into(), message: "no".into() };
                line += 1;
                Record::Import(ImportLines {
                    import: "crm.ndjson".into(),
                    first_line,
                    lines: 4,
                    events,
                    rejected: vec![wrong],
                })
            }
            _ => Record::Event(any_event(dice, second)),
        });
    }
    records
}

pub(super) fn append(sink: &dyn Sink, records: &[Record]) {
    for records in records.chunks(9) {
        let mut batch = Batch::new();
        records.iter().for_each(|record| batch.push(record).unwrap());
        sink.append(&batch).unwrap();
    }
}

/// A store with engines on it.
pub(super) struct Running {
    pub(super) lanes: Arc<Lanes>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) ledger: Arc<dyn Ledger>,
    local: Arc<Local>,
    segments: Segments,
    holds: Vec<Box<dyn Hold>>,
    _folder: tempfile::TempDir,
}

struct Part {
    shards: Vec<ShardId>,
    state: Arc<dyn State>,
    journal: Arc<dyn Journal>,
    audiences: Arc<dyn Audiences>,
}

/// The journal of a data directory.
pub(super) fn journal(data: &Path, loaded: &Loaded) -> EmbeddedJournal {
    let options = embedded::journal::Options {
        durable_to: loaded.checkpoint.position,
        ..embedded::journal::Options::new(Durability::DiskBuffered)
    };
    EmbeddedJournal::open(&data.join("journal"), options).unwrap().0
}

impl Running {
    pub(super) fn directory(data: &Path, archive: &Path) -> Self {
        std::fs::create_dir_all(data).unwrap();
        let state: Arc<dyn State> = Arc::new(patiently(|| embedded::State::open(data, SHARDS)));
        let journal = Arc::new(journal(data, &state.load().unwrap()));
        let ledger = Arc::new(patiently(|| EmbeddedLedger::open(&data.join("ledger.redb"))));
        let sink = journal.clone();
        let audiences = Arc::new(patiently(|| embedded::Audiences::open(data)));
        let part = Part { shards: (0..SHARDS).collect(), state, journal, audiences };
        Self::new(vec![part], archive, None, sink, ledger, Vec::new())
    }

    pub(super) fn redis(place: &Redis, archive: &Path) -> Self {
        let store = place.store();
        let (mut parts, mut holds) = (Vec::new(), Vec::new());
        for lane in 0..store.layout().lanes() {
            let taken = store.take(lane, "worker", LONG).unwrap().expect("nobody holds it");
            let shards = store.layout().shards_of(lane);
            let Taken { state, journal, audiences, hold } = taken;
            parts.push(Part { shards, state, journal, audiences });
            holds.push(hold);
        }
        let claims: Arc<dyn Claims> = Arc::new(redis::Claims::new(store.clone()));
        let streams = Arc::new(redis::Streams::new(&store, Mode::Everysec));
        let sink = Arc::new(Shipping::new(&store, streams, claims.clone()));
        let ledger = Arc::new(redis::Ledger::new(store));
        Self::new(parts, archive, Some(claims), sink, ledger, holds)
    }

    fn new(
        parts: Vec<Part>,
        archive: &Path,
        claims: Option<Arc<dyn Claims>>,
        sink: Arc<dyn Sink>,
        ledger: Arc<dyn Ledger>,
        holds: Vec<Box<dyn Hold>>,
    ) -> Self {
        let metrics = Metrics::new();
        let workers = Workers::new(metrics.clone());
        let clock = Arc::new(Still);
        let lanes = Arc::new(Lanes::new(SHARDS));
        for (number, Part { shards, state, journal, audiences }) in (0..).zip(parts) {
            let options = ingest::Options {
                shards: Some(shards.clone()),
                claims: claims.clone().map(|claims| (claims, number)),
                compact_bytes: 500,
                ..fold()
            };
            let loaded = state.load().unwrap();
            let engine = Engine::open(
                state.clone(),
                journal.clone(),
                clock.clone(),
                Arc::new(metrics.clone()),
                options,
            )
            .unwrap();
            if loaded.checkpoint.next_record == 0 {
                let traits: Vec<_> =
                    TRAITS.iter().map(|text| TraitSpec::parse(text).unwrap()).collect();
                engine.set_traits(&traits).unwrap();
            }
            assert_eq!(engine.traits().ids().count(), 2);
            engine.start(&workers).unwrap();
            let (catalog, swept) =
                Catalog::open(archive, &shards, state, loaded.manifest, loaded.archived).unwrap();
            assert_eq!(swept, 0);
            let catalog = Arc::new(catalog);
            lanes.insert(Arc::new(Lane { number, shards, journal, engine, catalog, audiences }));
        }
        let folder = tempfile::tempdir().unwrap();
        let lookups = Arc::new(embedded::Audiences::open(folder.path()).unwrap());
        let whose = Box::new(|_: &crate::model::Identifier| unreachable!("nobody looks"));
        let finder = crate::segment::Finder { lookups, whose };
        let config = Arc::new(Config::default());
        let local = Arc::new(Local::new(lanes.clone(), &config, metrics.clone(), workers, None));
        let parts = Parts {
            config,
            clock: clock.clone(),
            metrics,
            shards: local.clone(),
            count: SHARDS,
            watermark: Arc::new(crate::segment::Alone(clock)),
            shelf: None,
            finder,
            head: Arc::new(embedded::Shelf::open(folder.path()).unwrap()),
            history: Arc::new(embedded::Shelf::history(folder.path()).unwrap()),
            reserve: Box::new(|_| Ok(1)),
        };
        let segments = Segments::open(parts, folder.path(), folder.path()).unwrap();
        Self { lanes, sink, ledger, local, segments, holds, _folder: folder }
    }

    /// What it answers to all rules, by identifiers, and what it has counted.
    pub(super) fn answers(&self) -> BTreeMap<String, String> {
        self.lanes.settle(LONG).unwrap();
        assert!(self.lanes.commit(LONG));
        let mut answers = BTreeMap::new();
        for rule in RULES {
            let question = Question { rule: rule.to_owned(), level: Level::Person, at: None };
            let answer = self.segments.eval(&question, &Caller::default()).unwrap();
            let mut values = BTreeSet::new();
            for namespace in ["cookie", "user_id", "crm_id"] {
                let namespace = Namespace::new(namespace).unwrap();
                let each = &mut |value: &str| values.insert(value.to_owned());
                self.segments
                    .members_of(&answer.members, &namespace, &mut |value| {
                        each(value);
                        true
                    })
                    .unwrap();
            }
            answers.insert(rule.to_owned(), format!("{} {values:?}", answer.count));
        }
        let stats = self.lanes.stats();
        let counters = stats.counters;
        let counted = (counters.counted, counters.facts, stats.profiles, stats.facts);
        answers.insert("counted".to_owned(), format!("{counted:?}"));
        let import = self.lanes.import("crm.ndjson");
        answers.insert("import".to_owned(), format!("{import:?}"));
        let rejected = self.lanes.rejected("crm.ndjson", 0, 10_000).unwrap();
        answers.insert("rejected".to_owned(), format!("{rejected:?}"));
        let mut names: Vec<String> = self.lanes.schema().events().map(str::to_owned).collect();
        names.sort();
        answers.insert("names".to_owned(), format!("{names:?}"));
        answers
    }

    /// Everything that its ledger knows.
    pub(super) fn books(&self) -> String {
        let mut text = String::new();
        for destination in self.ledger.destinations().unwrap() {
            let books = self.ledger.books(&destination).unwrap();
            text += &format!("{books:?}");
            for last in &books.last {
                let target = Target::new(&*destination, &*last.segment);
                text += &format!("{:?}", self.ledger.held(&target, None, 10_000).unwrap());
                text += &format!("{:?}", self.ledger.refused(&target, None, 10_000).unwrap());
            }
        }
        text
    }

    pub(super) fn stop(self) {
        self.segments.stop();
        self.local.stop();
        self.lanes.stop();
        for number in 0..LANES {
            self.lanes.remove(number);
        }
        for hold in self.holds {
            hold.release().unwrap();
        }
    }
}

/// How events are folded.
pub(super) fn fold() -> ingest::Options {
    ingest::Options::new(90 * DAY, 1 << 20)
}

/// What destinations hold and what is on its way.
pub(super) fn fill_ledger(ledger: &dyn Ledger) {
    for (at, destination) in (0..).zip(["crm", "ads"]) {
        let target = Target::new(destination, "buyers");
        let users = |range: std::ops::Range<u32>| -> Vec<Identifier> {
            range.map(|n| id("user_id", &format!("{n:05}"))).collect()
        };
        let changes = Changes { adds: users(0..900 + at), removes: Vec::new() };
        let batch = ledger.prepare(&target, 4, T0, changes, T0).unwrap();
        ledger.acknowledge(&batch, T0 + 1).unwrap();
        let changes = Changes { adds: users(2_000..2_010), removes: users(0..3) };
        let batch = ledger.prepare(&target, 5, T0, changes, T0 + 2).unwrap();
        ledger.withdraw(&batch, T0 + 3).unwrap();
        let changes = Changes { adds: users(3_000..3_001), removes: users(4..5) };
        let batch = ledger.prepare(&target, 5, T0, changes, T0 + 4).unwrap();
        ledger.failed(&batch, "no room").unwrap();
    }
}

/// A place for a store in Redis that no other test has.
pub(super) struct Redis {
    pub(super) name: &'static str,
    pub(super) urls: String,
    pub(super) keys: Keys,
}

impl Redis {
    pub(super) fn both() -> [Self; 2] {
        let keys = crate::store::redis::tests::fresh_keys;
        [
            Self { name: "server", urls: shared_server().url(), keys: keys() },
            Self { name: "cluster", urls: shared_cluster().url(), keys: keys() },
        ]
    }

    pub(super) fn link(&self) -> redis::Link {
        redis::Link::open(&self.urls, times()).unwrap()
    }

    /// Appends to a lane's stream, whatever belongs there.
    pub(super) fn append(&self, lane: u16, batch: &Batch) {
        let tag = self.store().layout().tag(lane);
        let journal = redis::Journal::open(self.link(), &self.keys, &tag, Mode::Everysec).unwrap();
        Journal::append(&journal, batch).unwrap();
    }

    /// Ends whatever pin a lane has, as if it had not been renewed.
    pub(super) fn end_pin(&self, lane: u16) {
        let tag = self.store().layout().tag(lane);
        let prefix = format!("{:?}", self.keys);
        let prefix = prefix.split('"').nth(1).unwrap();
        let key = format!("{prefix}:{{{tag}}}:lane");
        shared_server().cli(&["hset", &key, "read", "0"]);
    }

    pub(super) fn store(&self) -> redis::Store {
        redis::Store::open(self.link(), self.keys.clone(), SHARDS, LANES).unwrap()
    }
}

fn times() -> Times {
    Times {
        connect: Duration::from_secs(5),
        response: Duration::from_secs(10),
        patience: Duration::from_secs(60),
    }
}

/// A data directory with a store, and folders beside it.
pub(super) struct Home {
    pub(super) dir: tempfile::TempDir,
}

impl Home {
    pub(super) fn new(seed: u64) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        let data = home.data();
        let mut dice = Dice(seed);
        let running = Running::directory(&data, &data.join("archive"));
        append(&*running.sink, &records(&mut dice, 150, 0));
        // Cannot be read back.
        let mut wrong = event("x", "buy", 151);
        wrong.ids.clear();
        append(&*running.sink, &[Record::Event(wrong)]);
        fill_ledger(&*running.ledger);
        running.answers();
        running.stop();
        // The end is not folded yet.
        let state = patiently(|| embedded::State::open(&data, SHARDS));
        state.reserve_generations(41).unwrap();
        append(&journal(&data, &state.load().unwrap()), &records(&mut dice, 50, 200));
        for (name, value) in [("cookie.key", "a secret of some bytes"), ("tokens.json", "[]")] {
            std::fs::write(data.join(name), value).unwrap();
        }
        std::fs::create_dir_all(data.join("segments")).unwrap();
        std::fs::write(data.join("segments/buyers.toml"), "rule = 'did buy'").unwrap();
        home
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of a directory, for a control that is left out of the move.
    pub(super) fn twin(&self, name: &str) -> PathBuf {
        let twin = self.path(&format!("{name}.twin"));
        copy_dir(&self.path(name), &twin);
        twin
    }

    fn options(&self, from: Place, to: Place, redis: &Redis) -> Options {
        Options {
            from,
            to,
            keys: redis.keys.clone(),
            trust: crate::config::Trust::default(),
            times: times(),
            fold: fold(),
            policy: Policy::default(),
            lanes: LANES,
            archive: crate::archive::Home::Folder(PathBuf::new()),
            to_archive: crate::archive::Home::Folder(PathBuf::new()),
            segments: self.path("segments"),
        }
    }

    /// The move of a directory there.
    pub(super) fn there(&self, name: &str, redis: &Redis) -> Options {
        let (from, to) = (Place::Directory(self.path(name)), Place::Redis(redis.urls.clone()));
        Options {
            archive: crate::archive::Home::from(&self.path(name).join("archive")),
            to_archive: crate::archive::Home::from(&self.path(&format!("{name}.away"))),
            ..self.options(from, to, redis)
        }
    }

    /// And back, into another.
    pub(super) fn back(&self, name: &str, other: &str, redis: &Redis) -> Options {
        let (from, to) = (Place::Redis(redis.urls.clone()), Place::Directory(self.path(other)));
        Options {
            archive: crate::archive::Home::from(&self.path(&format!("{name}.away"))),
            to_archive: crate::archive::Home::from(&self.path(other).join("archive")),
            ..self.options(from, to, redis)
        }
    }
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Opens what has one owner. A process that another test starts has all files of this one for a moment.
pub(super) fn patiently<T, E: std::fmt::Display>(mut open: impl FnMut() -> Result<T, E>) -> T {
    let mut opened = None;
    until("nobody else has it", || match open() {
        Ok(it) => {
            opened = Some(it);
            true
        }
        Err(error) => {
            assert!(is_had(&error), "{error}");
            false
        }
    });
    opened.expect("it was waited for")
}

/// Whether someone else has a file.
fn is_had(error: &dyn std::fmt::Display) -> bool {
    let text = error.to_string();
    text.contains("another server (pid") || text.contains("out of reach")
}

/// Moves.
pub(super) fn run(
    options: &Options,
    tell: &mut dyn FnMut(Progress) -> bool,
) -> Result<Report, MoveError> {
    let mut result = None;
    until("nobody else has a file", || {
        let done = transfer(options, tell);
        let again = done.as_ref().is_err_and(|error| is_had(error));
        result = Some(done);
        !again
    });
    result.expect("it was waited for")
}

/// Moves, and sees that all that was compared is the same.
pub(super) fn moved(options: &Options) -> Report {
    let report = run(options, &mut |_| true).unwrap();
    let wrong: Vec<_> = report.compared.iter().filter(|compared| !compared.same).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    report
}

/// Moves until it was told of so many steps; what it came to, where it came to an end.
pub(super) fn moved_until(options: &Options, steps: u32) -> Result<Report, MoveError> {
    let mut left = steps;
    run(options, &mut |_: Progress| {
        left = left.saturating_sub(1);
        left > 0
    })
}
