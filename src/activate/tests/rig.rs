//! A folder to push to, and a fuse that stops everything after any step.

use parking_lot::Mutex;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use super::world::Lines;
use super::world::Source;
use super::world::World;
use super::world::activation;
use super::world::people;
use super::world::profiles;
use crate::activate::Audiences;
use crate::activate::Caps;
use crate::activate::Connector;
use crate::activate::Encoded;
use crate::activate::Pusher;
use crate::activate::Verdict;
use crate::activate::connectors::file::FileConnector;
use crate::config::Destination;
use crate::config::DestinationKind;
use crate::config::FileFormat;
use crate::config::FileStyle;
use crate::config::Period;
use crate::metrics::Metrics;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::Day;
use crate::model::time::MINUTE;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::embedded::ledger::EmbeddedLedger;
use crate::store::ledger::Batch;
use crate::store::ledger::Books;
use crate::store::ledger::Changes;
use crate::store::ledger::Delivery;
use crate::store::ledger::Held;
use crate::store::ledger::Job;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Ledger;
use crate::store::ledger::Refusal;
use crate::store::ledger::Refused;
use crate::store::ledger::Standing;
use crate::store::ledger::Target;

#[derive(Debug, Default)]
pub(super) struct TestClock(pub(super) AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

/// Lets so many steps happen; then the process is as good as dead. Before and after each call is a step.
#[derive(Debug)]
pub(super) struct Fuse(AtomicI64);

impl Fuse {
    pub(super) fn new(steps: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(steps)))
    }

    pub(super) fn is_blown(&self) -> bool {
        self.0.load(Ordering::SeqCst) < 0
    }

    /// Sets anew how many steps are left.
    pub(super) fn set(&self, steps: i64) {
        self.0.store(steps, Ordering::SeqCst);
    }

    pub(super) fn step(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) > 0
    }
}

/// A ledger that dies with the fuse: with a call not made, or made and its answer lost.
pub(super) struct FusedLedger(pub(super) Arc<dyn Ledger>, pub(super) Arc<Fuse>);

impl FusedLedger {
    fn call<T>(
        &self,
        call: impl FnOnce(&dyn Ledger) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let dead = || {
            Err(StoreError::Unavailable { what: "the process".into(), source: "it is dead".into() })
        };
        if !self.1.step() {
            return dead();
        }
        let done = call(&*self.0);
        if self.1.step() { done } else { dead() }
    }
}

impl Ledger for FusedLedger {
    fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        if self.1.is_blown() { self.call(|ledger| ledger.standings()) } else { self.0.standings() }
    }

    fn held(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Held>, StoreError> {
        // Small pages, so that a run reads while it writes.
        self.0.held(target, after, limit.min(4096))
    }

    fn held_among(
        &self,
        target: &Target,
        identifiers: &[Identifier],
    ) -> Result<Vec<Held>, StoreError> {
        self.0.held_among(target, identifiers)
    }

    fn prepare(
        &self,
        target: &Target,
        generation: u64,
        true_for: Millis,
        changes: Changes,
        now: Millis,
    ) -> Result<Batch, StoreError> {
        self.call(|ledger| ledger.prepare(target, generation, true_for, changes, now))
    }

    fn prepared(&self, target: &Target) -> Result<Vec<Batch>, StoreError> {
        self.0.prepared(target)
    }

    fn failed(&self, batch: &Batch, trouble: &str) -> Result<(), StoreError> {
        self.call(|ledger| ledger.failed(batch, trouble))
    }

    fn acknowledge_but(
        &self,
        batch: &Batch,
        refused: &[Refusal],
        now: Millis,
    ) -> Result<(), StoreError> {
        self.call(|ledger| ledger.acknowledge_but(batch, refused, now))
    }

    fn refused(
        &self,
        target: &Target,
        after: Option<&Identifier>,
        limit: usize,
    ) -> Result<Vec<Refused>, StoreError> {
        self.0.refused(target, after, limit.min(4096))
    }

    fn forget_refused(
        &self,
        target: &Target,
        identifiers: &[Identifier],
    ) -> Result<(), StoreError> {
        self.call(|ledger| ledger.forget_refused(target, identifiers))
    }

    fn begin_job(&self, batch: &Batch, job: &Job) -> Result<(), StoreError> {
        self.call(|ledger| ledger.begin_job(batch, job))
    }

    fn job(&self, batch: &Batch) -> Result<Option<Job>, StoreError> {
        self.0.job(batch)
    }

    fn place(&self, target: &Target) -> Result<Option<String>, StoreError> {
        self.0.place(target)
    }

    fn set_place(&self, target: &Target, place: &str) -> Result<(), StoreError> {
        self.call(|ledger| ledger.set_place(target, place))
    }

    fn withdraw(&self, batch: &Batch, now: Millis) -> Result<(), StoreError> {
        self.call(|ledger| ledger.withdraw(batch, now))
    }

    fn renewed(&self, target: &Target) -> Result<Option<Day>, StoreError> {
        self.0.renewed(target)
    }

    fn set_renewed(&self, target: &Target, day: Day) -> Result<(), StoreError> {
        self.call(|ledger| ledger.set_renewed(target, day))
    }

    fn paused(&self, destination: &str) -> Result<bool, StoreError> {
        self.0.paused(destination)
    }

    fn set_paused(&self, destination: &str, paused: bool) -> Result<(), StoreError> {
        self.call(|ledger| ledger.set_paused(destination, paused))
    }

    fn deliveries(&self, destination: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.0.deliveries(destination, limit)
    }

    fn destinations(&self) -> Result<Vec<String>, StoreError> {
        self.0.destinations()
    }

    fn last_batches(&self, destination: &str) -> Result<Vec<LastBatch>, StoreError> {
        self.0.last_batches(destination)
    }

    fn take_batches(&self, books: &Books) -> Result<(), StoreError> {
        self.call(|ledger| ledger.take_batches(books))
    }

    fn take_held(&self, target: &Target, held: &[Held]) -> Result<(), StoreError> {
        self.call(|ledger| ledger.take_held(target, held))
    }

    fn take_refused(&self, target: &Target, refused: &[Refused]) -> Result<(), StoreError> {
        self.call(|ledger| ledger.take_refused(target, refused))
    }
}

/// The file connector with small batches, which dies with the fuse and may be told to fail.
pub(super) struct FusedConnector {
    pub(super) file: FileConnector,
    pub(super) folder: PathBuf,
    pub(super) caps: Caps,
    pub(super) fuse: Arc<Fuse>,
    pub(super) script: Arc<Mutex<Vec<Verdict>>>,
}

impl Connector for FusedConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        self.file.check(now)
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        self.file.encode(batch, place)
    }

    fn delivered(&self, encoded: &Encoded) -> bool {
        self.file.delivered(encoded)
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let dead = || Verdict::Retry("the process is dead".to_owned());
        if !self.fuse.step() {
            return dead();
        }
        let mut script = self.script.lock();
        if !script.is_empty() {
            return script.remove(0);
        }
        if !self.fuse.step() {
            // It died while it wrote.
            let file = self.folder.join(&encoded.address);
            let folder = file.parent().unwrap();
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(".part"), &encoded.body[..encoded.body.len() / 2]).unwrap();
            return dead();
        }
        let verdict = self.file.deliver(encoded, now);
        if self.fuse.step() { verdict } else { dead() }
    }
}

/// A folder in memory where there is one: a test of thousands of files should not wait for a disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A destination `crm` in a folder, and the reader of the folder.
pub(super) struct Rig {
    pub(super) folder: tempfile::TempDir,
    ledger: Arc<dyn Ledger>,
    pub(super) source: Arc<Source>,
    pub(super) clock: Arc<TestClock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) script: Arc<Mutex<Vec<Verdict>>>,
    pub(super) max_rows: usize,
    pub(super) part_bytes: usize,
    pub(super) few: u64,
}

impl Rig {
    pub(super) fn new(world: World) -> Self {
        let world = World { ready: true, ..world };
        Self {
            folder: folder(),
            ledger: Arc::new(EmbeddedLedger::in_memory()),
            source: Arc::new(Source::new(world)),
            clock: Arc::default(),
            metrics: Arc::default(),
            script: Arc::default(),
            max_rows: 3,
            part_bytes: 40,
            few: u64::MAX,
        }
    }

    pub(super) fn world(&self) -> parking_lot::MutexGuard<'_, World> {
        self.source.0.lock()
    }

    pub(super) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// The ledger, as each process finds it.
    pub(super) fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::clone(&self.ledger)
    }

    /// A new process over the same ledger and folder.
    pub(super) fn start(&self, fuse: &Arc<Fuse>) -> Pusher {
        self.start_with(self.ledger(), fuse)
    }

    pub(super) fn start_with(&self, ledger: Arc<dyn Ledger>, fuse: &Arc<Fuse>) -> Pusher {
        self.start_named(ledger, fuse, &["crm"])
    }

    pub(super) fn start_named(
        &self,
        ledger: Arc<dyn Ledger>,
        fuse: &Arc<Fuse>,
        names: &[&str],
    ) -> Pusher {
        let ledger = Arc::new(FusedLedger(ledger, Arc::clone(fuse)));
        let lane = |name: &&str| {
            let folder = if *name == "crm" { self.out() } else { self.folder.path().join(name) };
            let style =
                FileStyle { format: FileFormat::Csv, gzip: false, adobe: None, liveramp: None };
            let connector = FusedConnector {
                file: FileConnector::new(folder.clone(), style.clone()),
                folder: folder.clone(),
                caps: Caps {
                    max_rows: self.max_rows,
                    namespaces: None,
                    mixes: true,
                    ttl: None,
                    min_size: None,
                },
                fuse: Arc::clone(fuse),
                script: if *name == "crm" { Arc::clone(&self.script) } else { Arc::default() },
            };
            let kind = DestinationKind::File { path: folder, style };
            let World { suppress, fresh, vendor: tcf_vendor, .. } = self.world().clone();
            let destination =
                Destination { suppress, fresh, tcf_vendor, ..destination(name, kind) };
            (destination, Box::new(connector) as Box<dyn Connector>)
        };
        Pusher::with_connectors(
            names.iter().map(lane).collect(),
            ledger,
            Arc::clone(&self.source) as Arc<dyn Audiences>,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&self.metrics),
        )
        .with_part_bytes(self.part_bytes)
        .with_few(self.few)
    }

    /// What a reader of the folder holds for a segment.
    pub(super) fn remote(&self, segment: &str) -> Lines {
        let mut held = Lines::new();
        replay(&self.out(), segment, &mut held);
        held
    }
}

/// Applies a segment's files to what a reader holds, in their order.
pub(super) fn replay(folder: &Path, segment: &str, held: &mut Lines) {
    for (_, _, path) in files(folder, segment) {
        let mut reader = csv::Reader::from_path(path).unwrap();
        assert_eq!(reader.headers().unwrap(), ["action", "namespace", "value"].as_slice());
        for record in reader.records() {
            let record = record.unwrap();
            let line = (record[1].to_owned(), record[2].to_owned());
            match &record[0] {
                "add" => held.insert(line),
                "remove" => held.remove(&line),
                other => panic!("{other}"),
            };
        }
    }
}

/// A segment's files by generation and seq.
pub(super) fn files(folder: &Path, segment: &str) -> Vec<(u64, u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder.join(segment)) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let (generation, seq) = stem.split_once('-').unwrap();
            (generation.parse().unwrap(), seq.parse().unwrap(), path)
        })
        .collect();
    files.sort();
    files
}

/// CSV files in a folder.
pub(super) fn file_kind(path: PathBuf) -> DestinationKind {
    let style = FileStyle { format: FileFormat::Csv, gzip: false, adobe: None, liveramp: None };
    DestinationKind::File { path, style }
}

/// A destination that is brought up to date every minute.
pub(super) fn destination(name: &str, kind: DestinationKind) -> Destination {
    let (every, max_drain) = (Period(MINUTE), 30);
    Destination {
        name: name.into(),
        every,
        max_drain,
        suppress: Vec::new(),
        fresh: None,
        tcf_vendor: None,
        allow_private: true,
        kind,
    }
}

/// A fuse that holds.
pub(super) fn whole() -> Arc<Fuse> {
    Fuse::new(i64::MAX)
}

/// A rig with `buyers` for `crm`: these of twelve profiles.
pub(super) fn rig(members: std::ops::Range<u32>, min_size: u64) -> Rig {
    let mut world = World { generation: 5, identifiers: people(12), ..World::default() };
    world.activations.push(activation("buyers", min_size));
    world.members.insert("buyers".into(), profiles(members));
    Rig::new(world)
}
