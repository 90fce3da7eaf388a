//! A store, a journal and an engine that is run step by step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::config::Durability;
use crate::ingest::Engine;
use crate::ingest::Options;
use crate::ingest::commit::Committer;
use crate::ingest::fold::Fold;
use crate::metrics::Metrics;
use crate::model::Device;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Page;
use crate::model::Record;
use crate::model::Source;
use crate::model::time::DAY;
use crate::model::value::parse_json;
use crate::net::Clock;
use crate::plan::TraitSpec;
use crate::store::embedded::State;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::journal::Options as JournalOptions;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::state::Part;
use crate::store::state::PartKind;

/// The time at which tests start.
pub(super) const T0: Millis = 1_700_000_000_000;

#[derive(Debug)]
pub(crate) struct TestClock(pub(crate) AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) clock: Arc<TestClock>,
    pub(super) journal: Arc<EmbeddedJournal>,
    pub(super) engine: Arc<Engine>,
    pub(super) fold: Fold,
    pub(super) committer: Committer,
    pub(super) options: Options,
}

pub(super) fn options() -> Options {
    Options { compact_bytes: 200, ..Options::new(90 * DAY, 1 << 20) }
}

impl World {
    /// A new store. All have the same key, so that they can be compared.
    pub(super) fn new(options: Options) -> Self {
        static FIRST: OnceLock<tempfile::TempDir> = OnceLock::new();
        let first = FIRST.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            drop(State::open(dir.path(), 4).unwrap());
            dir
        });
        let dir = tempfile::tempdir().unwrap();
        copy_dir(first.path(), dir.path());
        Self::open(dir, options)
    }

    pub(super) fn open(dir: tempfile::TempDir, options: Options) -> Self {
        let state = Arc::new(State::open(dir.path(), 4).unwrap());
        let journal = JournalOptions::new(Durability::DiskBuffered);
        let (journal, _) = EmbeddedJournal::open(&dir.path().join("journal"), journal).unwrap();
        let journal = Arc::new(journal);
        let clock = Arc::new(TestClock(AtomicI64::new(T0)));
        let engine = Engine::open(
            state,
            Arc::clone(&journal) as _,
            Arc::clone(&clock) as _,
            Arc::new(Metrics::new()),
            options.clone(),
        )
        .unwrap();
        let (fold, committer) = engine.parts();
        Self { dir, clock, journal, engine, fold, committer, options }
    }

    /// Kills the process and starts another on what lies on the disk.
    pub(super) fn crash(self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        let options = self.options.clone();
        drop(self);
        Self::open(copy, options)
    }

    /// A process on a copy of what lies on the disk.
    pub(super) fn twin(&self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        Self::open(copy, self.options.clone())
    }

    pub(super) fn append(&self, records: &[Record]) {
        let mut batch = Batch::new();
        records.iter().for_each(|record| batch.push(record).unwrap());
        self.journal.append(&batch).unwrap();
    }

    pub(super) fn fold_all(&mut self) {
        while self.fold.step().unwrap() {}
    }

    pub(super) fn send(&mut self, records: &[Record]) {
        self.append(records);
        self.fold_all();
    }

    /// Commits, and compacts where it is due.
    pub(super) fn commit(&mut self) {
        let mut work = self.fold.cut();
        self.committer.commit(&mut work).unwrap();
        if let Some((shard, view)) = work.compact.take() {
            self.committer.compact(shard, &view, &work).unwrap();
        }
    }

    pub(super) fn traits(&self, texts: &[&str]) -> Vec<TraitId> {
        let specs: Vec<_> = texts.iter().map(|text| TraitSpec::parse(text).unwrap()).collect();
        let pin = self.engine.set_traits(&specs).unwrap();
        specs.iter().map(|spec| pin.traits.id(spec).unwrap()).collect()
    }

    /// All facts of a trait by owner, as times and values in order.
    pub(super) fn facts(&self, id: TraitId) -> BTreeMap<String, Vec<(Millis, Option<i64>)>> {
        let pin = self.engine.pin();
        let mut found = BTreeMap::new();
        for (shard, blocks) in (0..).zip(&pin.snapshot.shards) {
            for (number, block) in (0..).zip(blocks) {
                let Some(columns) = block.columns(id) else { continue };
                for low in 0..u16::try_from(block.population()).unwrap() {
                    let facts = facts_of(columns, low);
                    if !facts.is_empty() {
                        let ordinal = number * crate::model::BLOCK + u32::from(low);
                        let owner = &self.engine.identifiers(shard, ordinal)[0];
                        found.insert(owner.value().to_owned(), facts);
                    }
                }
            }
        }
        found
    }

    /// Everything that is known, as bytes; equal where all questions have equal answers.
    pub(super) fn picture(&self) -> BTreeMap<String, Vec<u8>> {
        let memory = self.engine.shared.memory.read();
        let mut picture = BTreeMap::new();
        for (number, shard) in memory.shards.iter().enumerate() {
            let view = shard.view();
            for (block, columns) in (0..).zip(&shard.blocks) {
                let mut kinds = vec![PartKind::Owners, PartKind::Others, PartKind::Profiles];
                for (id, columns) in columns.traits() {
                    kinds.extend(columns.days().map(|(day, _)| PartKind::Column { id: id.0, day }));
                }
                for kind in kinds {
                    let part = Part { block, kind };
                    picture.insert(format!("{number} {part:?}"), shard.image(&view, part));
                }
            }
        }
        let mut checkpoint = memory.checkpoint();
        checkpoint.commit = 0;
        picture.insert("checkpoint".into(), format!("{checkpoint:?}").into());
        let imports: BTreeMap<_, _> = memory.imports.iter().collect();
        picture.insert("imports".into(), format!("{imports:?}").into());
        let mut events: Vec<_> = memory.schema.events().collect();
        events.sort_unstable();
        for name in events {
            let paths: Vec<_> = memory.schema.properties(name).collect();
            picture.insert(format!("schema {name}"), paths.join(" ").into());
        }
        let parts = (0..memory.next_record).flat_map(|record| {
            (0..4).map(move |part| crate::store::journal::EventNo { record, part })
        });
        let skipped = parts.filter(|no| !memory.skips.is_counted(*no));
        let skipped: Vec<_> = skipped.map(|no| format!("{}.{}", no.record, no.part)).collect();
        picture.insert("skips".into(), skipped.join(" ").into());
        picture
    }
}

fn facts_of(columns: &TraitColumns, low: u16) -> Vec<(Millis, Option<i64>)> {
    let facts = columns.facts_of(low, Millis::MIN, Millis::MAX);
    facts.into_iter().map(|(time, value)| (time, value.map(|value| value.0))).collect()
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
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

pub(crate) fn id(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

/// An event that was received when it happened.
pub(crate) fn event(cookie: &str, name: &str, time: Millis) -> Event {
    Event {
        site: "shop".into(),
        name: name.into(),
        time,
        received: time,
        time_replaced: false,
        source: Source::Pixel,
        message_id: None,
        ids: vec![id("cookie", cookie)],
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

pub(super) fn fields(json: &str) -> Vec<(Box<str>, crate::model::Value)> {
    let crate::model::Value::Object(fields) = parse_json(json.as_bytes()).unwrap() else {
        panic!("not an object")
    };
    fields
}

pub(crate) fn message(cookie: &str, message_id: &str, time: Millis) -> Record {
    Record::Event(Event { message_id: Some(message_id.into()), ..event(cookie, "view", time) })
}
