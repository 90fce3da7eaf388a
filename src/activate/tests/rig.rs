//! A world to push from, a folder to push to, and a fuse that stops everything after any step.

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use crate::activate::Activation;
use crate::activate::Audience;
use crate::activate::Audiences;
use crate::activate::Caps;
use crate::activate::Connector;
use crate::activate::Encoded;
use crate::activate::Outcome;
use crate::activate::Pusher;
use crate::activate::Reply;
use crate::activate::connectors::file::FileConnector;
use crate::config::Destination;
use crate::config::DestinationKind;
use crate::config::FileFormat;
use crate::config::Period;
use crate::metrics::Metrics;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::time::MINUTE;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::embedded::ledger::EmbeddedLedger;
use crate::store::ledger::Batch;
use crate::store::ledger::Changes;
use crate::store::ledger::Delivery;
use crate::store::ledger::Held;
use crate::store::ledger::Ledger;
use crate::store::ledger::Standing;
use crate::store::ledger::Target;

pub(super) type Lines = BTreeSet<(String, String)>;

pub(super) fn identifier(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

/// The people and segments of a test.
#[derive(Debug, Default, Clone)]
pub(super) struct World {
    pub(super) ready: bool,
    pub(super) generation: u64,
    pub(super) activations: Vec<Activation>,
    /// Members by segment, as (shard, ordinal).
    pub(super) members: BTreeMap<String, BTreeSet<(ShardId, Ordinal)>>,
    pub(super) marked: BTreeSet<(ShardId, Ordinal)>,
    pub(super) identifiers: BTreeMap<(ShardId, Ordinal), Vec<Identifier>>,
}

impl World {
    /// The identifiers that should be held for a segment at a destination.
    pub(super) fn desired(&self, destination: &str, segment: &str) -> Lines {
        let mut desired = Lines::new();
        for activation in &self.activations {
            if activation.segment != segment || activation.destination != destination {
                continue;
            }
            for profile in self.members.get(segment).into_iter().flatten() {
                if self.marked.contains(profile) {
                    continue;
                }
                for identifier in self.identifiers.get(profile).into_iter().flatten() {
                    let asked = activation.identifiers.as_ref();
                    if asked.is_none_or(|asked| asked.contains(&identifier.namespace)) {
                        desired.insert((
                            identifier.namespace.to_string(),
                            identifier.value().to_owned(),
                        ));
                    }
                }
            }
        }
        desired
    }
}

#[derive(Debug, Default)]
pub(super) struct Source(pub(super) Mutex<World>);

impl Audiences for Source {
    fn activations(&self) -> Option<Vec<Activation>> {
        let world = self.0.lock();
        world.ready.then(|| world.activations.clone())
    }

    fn audience(&self, segment: &str) -> Option<Audience> {
        let world = self.0.lock();
        let members = world.members.get(segment)?;
        let mut shards = vec![RoaringBitmap::new(); 3];
        for (shard, ordinal) in members {
            shards[usize::from(*shard)].insert(*ordinal);
        }
        Some(Audience { generation: world.generation, true_for: 7, members: shards })
    }

    fn ineligible(&self) -> Vec<RoaringBitmap> {
        let mut shards = vec![RoaringBitmap::new(); 3];
        for (shard, ordinal) in &self.0.lock().marked {
            shards[usize::from(*shard)].insert(*ordinal);
        }
        shards
    }

    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), StoreError> {
        let world = self.0.lock();
        for ordinal in profiles {
            world.identifiers.get(&(shard, ordinal)).into_iter().flatten().for_each(&mut *each);
        }
        Ok(())
    }
}

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

    fn step(&self) -> bool {
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

    fn acknowledge(&self, batch: &Batch, now: Millis) -> Result<(), StoreError> {
        self.call(|ledger| ledger.acknowledge(batch, now))
    }

    fn withdraw(&self, batch: &Batch, now: Millis) -> Result<(), StoreError> {
        self.call(|ledger| ledger.withdraw(batch, now))
    }

    fn deliveries(&self, destination: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.0.deliveries(destination, limit)
    }
}

/// The file connector with small batches, which dies with the fuse and may be told to fail.
pub(super) struct FusedConnector {
    pub(super) file: FileConnector,
    pub(super) folder: PathBuf,
    pub(super) caps: Caps,
    pub(super) fuse: Arc<Fuse>,
    pub(super) script: Arc<Mutex<Vec<Outcome>>>,
}

impl Connector for FusedConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self) -> Result<(), String> {
        self.file.check()
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        self.file.encode(batch)
    }

    fn delivered(&self, encoded: &Encoded) -> bool {
        self.file.delivered(encoded)
    }

    fn send(&self, encoded: &Encoded) -> Reply {
        let dead = || Reply::Failed(std::io::Error::other("the process is dead"));
        if !self.fuse.step() {
            return dead();
        }
        if !self.script.lock().is_empty() {
            return Reply::Failed(std::io::Error::other("as the script says"));
        }
        if !self.fuse.step() {
            // It died while it wrote.
            let file = self.folder.join(&encoded.address);
            let folder = file.parent().unwrap();
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(".part"), &encoded.body[..encoded.body.len() / 2]).unwrap();
            return dead();
        }
        let reply = self.file.send(encoded);
        if self.fuse.step() { reply } else { dead() }
    }

    fn classify(&self, reply: &Reply) -> Outcome {
        let mut script = self.script.lock();
        if script.is_empty() { self.file.classify(reply) } else { script.remove(0) }
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
    pub(super) script: Arc<Mutex<Vec<Outcome>>>,
    pub(super) max_rows: usize,
    pub(super) part_bytes: usize,
}

impl Rig {
    pub(super) fn new(world: World) -> Self {
        let world = World { ready: true, ..world };
        Self {
            folder: folder(),
            ledger: Arc::new(EmbeddedLedger::in_memory()),
            source: Arc::new(Source(Mutex::new(world))),
            clock: Arc::default(),
            metrics: Arc::default(),
            script: Arc::default(),
            max_rows: 3,
            part_bytes: 40,
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
            let format = FileFormat::Csv;
            let connector = FusedConnector {
                file: FileConnector::new(folder.clone(), format),
                folder: folder.clone(),
                caps: Caps { max_rows: self.max_rows, namespaces: None },
                fuse: Arc::clone(fuse),
                script: if *name == "crm" { Arc::clone(&self.script) } else { Arc::default() },
            };
            let kind = DestinationKind::File { path: folder, format };
            let destination = Destination { name: (*name).into(), every: Period(MINUTE), kind };
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

pub(super) fn activation(segment: &str, min_size: u64) -> Activation {
    Activation { segment: segment.into(), destination: "crm".into(), identifiers: None, min_size }
}

/// Profiles `0..count` in three shards, each with a cookie of its own and a user id that two share.
pub(super) fn people(count: u32) -> BTreeMap<(ShardId, Ordinal), Vec<Identifier>> {
    (0..count)
        .map(|n| {
            let shard = ShardId::try_from(n % 3).unwrap();
            let ids = vec![
                identifier("cookie", &format!("c{n:02}")),
                identifier("user_id", &format!("u{:02}", n / 2)),
            ];
            ((shard, n), ids)
        })
        .collect()
}

pub(super) fn profiles(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<(ShardId, Ordinal)> {
    numbers.into_iter().map(|n| (ShardId::try_from(n % 3).unwrap(), n)).collect()
}
