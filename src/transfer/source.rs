//! The store that is moved: taken so that no server has it, and brought to rest. A store that goes on is told of in
//! `running`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Meter;
use super::MoveError;
use super::Options;
use super::Place;
use super::leases::Leases;
use super::pins::Pins;
use super::small::Small;
use super::unfit;
use crate::archive::Archiver;
use crate::archive::Catalog;
use crate::archive::Home;
use crate::backup;
use crate::cluster;
use crate::config::Durability;
use crate::ingest;
use crate::ingest::Engine;
use crate::ingest::Health;
use crate::ingest::MessageIds;
use crate::ingest::Schema;
use crate::ingest::Stored;
use crate::ingest::ship::Heir;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::time::SECOND;
use crate::net::Clock;
use crate::net::SystemClock;
use crate::net::Workers;
use crate::store::claims::Claims;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::ledger::EmbeddedLedger;
use crate::store::embedded::lock::DataLock;
use crate::store::journal::Journal;
use crate::store::ledger::Ledger;
use crate::store::nodes::Nodes as _;
use crate::store::redis::Claims as RedisClaims;
use crate::store::redis::Ledger as RedisLedger;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::Registry;
use crate::store::redis::Shelf as RedisShelf;
use crate::store::redis::Spools;
use crate::store::redis::Store;
use crate::store::redis::Streams;
use crate::store::state::ArchivePosition;
use crate::store::state::Checkpoint;
use crate::store::state::Identity;
use crate::store::state::ImportProgress;
use crate::store::state::Loaded;
use crate::store::state::ManifestRow;
use crate::store::state::SeenSet;
use crate::store::state::State;
use crate::store::state::damaged;

/// A node that was heard so lately still runs.
const LATELY: Millis = 10 * SECOND;
/// How long is waited between two looks at how far the fold is.
const LOOK: Duration = Duration::from_millis(200);

/// A store at rest: all of it is folded, committed and in the archive. Of one that goes on, the same of a moment.
pub(super) struct Source {
    pub(super) identity: Identity,
    pub(super) lanes: Vec<Lane>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) small: Small,
    /// The number that the next generation gets at least.
    pub(super) next_generation: u64,
    /// The message ids that were counted: of the last day, and of imports.
    pub(super) ids: [MessageIds; 2],
    pub(super) held: Held,
}

/// How nothing changes meanwhile of what is read.
pub(super) enum Held {
    /// No server has the directory.
    Lock { _lock: DataLock },
    /// No server has a lane.
    Leases { _leases: Leases },
    /// Servers go on, and give nothing up.
    Pins(Pins),
}

/// A lane at rest, or as it was when it was pinned.
pub(super) struct Lane {
    pub(super) shards: Vec<ShardId>,
    pub(super) state: Arc<dyn State>,
    pub(super) stored: Stored,
    pub(super) checkpoint: Checkpoint,
    pub(super) imports: Vec<ImportProgress>,
    pub(super) schema: Schema,
    pub(super) manifest: Vec<ManifestRow>,
    pub(super) journal: Arc<dyn Journal>,
}

/// A lane that was taken and not looked at yet.
struct Raw {
    shards: Vec<ShardId>,
    state: Arc<dyn State>,
    journal: Arc<dyn Journal>,
}

impl Lane {
    pub(super) fn of(
        shards: Vec<ShardId>,
        state: Arc<dyn State>,
        journal: Arc<dyn Journal>,
        loaded: Loaded,
    ) -> Result<Self, MoveError> {
        let stored = Stored::new(state.clone(), shards.clone(), &loaded)?;
        let schema = Schema::of_rows(&loaded.schema).map_err(damaged)?;
        let Loaded { checkpoint, imports, manifest, .. } = loaded;
        Ok(Self { shards, state, stored, checkpoint, imports, schema, manifest, journal })
    }
}

impl Source {
    pub(super) fn open(options: &Options, meter: &mut Meter<'_>) -> Result<Self, MoveError> {
        match &options.from {
            Place::Directory(dir) => Self::directory(options, dir, meter),
            Place::Redis(urls) => Self::redis(options, urls, meter),
        }
    }

    fn directory(options: &Options, dir: &Path, meter: &mut Meter<'_>) -> Result<Self, MoveError> {
        if !dir.join(embedded::STATE).is_file() {
            let why = "it holds no store; name the data directory of a server";
            return Err(unfit(dir.display(), why));
        }
        let lock = DataLock::take(dir)?;
        if let Some(why) = backup::unfit(dir) {
            return Err(unfit("the source", why));
        }
        let state: Arc<dyn State> = Arc::new(embedded::State::open(dir, 1)?);
        let loaded = state.load()?;
        let how = embedded::journal::Options {
            durable_to: loaded.checkpoint.position,
            ..embedded::journal::Options::new(Durability::Disk)
        };
        let (journal, _) = EmbeddedJournal::open(&dir.join(embedded::JOURNAL), how)?;
        let ledger = Arc::new(EmbeddedLedger::open(&dir.join(embedded::LEDGER))?);
        let shards = (0..loaded.identity.shards).collect();
        let next_generation = state.reserve_generations(0)?;
        let raw = Raw { shards, state, journal: Arc::new(journal) };
        if dir.join(embedded::PRIVACY).is_dir() {
            options.fold.suppression.load(&embedded::Shelf::privacy(dir)?)?;
        }
        let lanes = rest(options, vec![raw], None, meter)?;
        let (state, newest) = (&*lanes[0].state, lanes[0].checkpoint.received);
        let ids = [SeenSet::Recent, SeenSet::Imported];
        let ids = ids.map(|set| MessageIds::read(state, set, newest));
        let [recent, imported] = ids;
        let ids = [recent?, imported?];
        Ok(Self {
            identity: loaded.identity,
            lanes,
            ledger,
            ids,
            small: Small::of_directory(dir)?,
            next_generation,
            held: Held::Lock { _lock: lock },
        })
    }

    fn redis(options: &Options, urls: &str, meter: &mut Meter<'_>) -> Result<Self, MoveError> {
        let link = Link::open_trusting(urls, &options.trust, options.times)?;
        let found = Store::find(link.clone(), options.keys.clone())?;
        let store = found.ok_or_else(|| unfit(&link, "there is no store"))?;
        ship_what_is_left(&store)?;
        see_no_nodes(&link, &store)?;
        let (leases, taken) = Leases::take(&store)?;
        let layout = store.layout();
        let lanes = (0..).zip(taken).map(|(number, taken)| Raw {
            shards: layout.shards_of(number),
            state: taken.state,
            journal: taken.journal,
        });
        let claims: Arc<dyn Claims> = Arc::new(RedisClaims::new(store.clone()));
        options.fold.suppression.load(&RedisShelf::privacy(store.clone()))?;
        let lanes = rest(options, lanes.collect(), Some(&claims), meter)?;
        let newest = lanes.iter().map(|lane| lane.checkpoint.received).max();
        Ok(Self {
            identity: store.identity(),
            ids: MessageIds::claimed(&*claims, newest.unwrap_or(Millis::MIN), &|_| true)?,
            lanes,
            ledger: Arc::new(RedisLedger::new(store.clone())),
            small: Small::of_store(&store)?,
            next_generation: store.reserve_generations(0)?,
            held: Held::Leases { _leases: leases },
        })
    }

    /// The lane of a shard.
    pub(super) fn of_shard(&self, shard: ShardId) -> &Lane {
        let lane = self.lanes.iter().find(|lane| lane.shards.contains(&shard));
        lane.expect("every shard lies in a lane")
    }

    /// Says that a shard was read: its lane is let go after the last one.
    pub(super) fn was_read(&self, shard: ShardId) -> Result<(), MoveError> {
        let Held::Pins(pins) = &self.held else { return Ok(()) };
        let ends = |lane: &Lane| lane.shards.last() == Some(&shard);
        match (0..).zip(&self.lanes).find(|(_, lane)| ends(lane)) {
            Some((number, _)) => pins.let_go(number),
            None => Ok(()),
        }
    }

    /// Where the journals of a target begin: no lane's ended later.
    pub(super) fn end(&self) -> ArchivePosition {
        let ends = self.lanes.iter().map(|lane| lane.checkpoint);
        ends.fold(ArchivePosition::default(), |end, at| ArchivePosition {
            position: end.position.max(at.position),
            next_record: end.next_record.max(at.next_record),
        })
    }

    /// The checkpoint of a whole target.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        let end = self.end();
        let first = self.lanes.first().map(|lane| lane.checkpoint).unwrap_or_default();
        let mut joined = Checkpoint { commit: 0, ..first };
        for lane in self.lanes.iter().skip(1) {
            let at = &lane.checkpoint;
            joined.received = joined.received.max(at.received);
            // A day that one lane has dropped goes from the others with the next event.
            joined.first_day = joined.first_day.min(at.first_day);
            joined.counters.counted += at.counters.counted;
            joined.counters.duplicates += at.counters.duplicates;
            joined.counters.dead_letters += at.counters.dead_letters;
            joined.counters.out_of_range += at.counters.out_of_range;
            joined.counters.facts += at.counters.facts;
        }
        joined.position = end.position;
        joined.next_record = end.next_record;
        joined
    }

    /// Every import, as far as it is in all lanes.
    pub(super) fn imports(&self) -> BTreeMap<Box<str>, ImportProgress> {
        let mut joined: BTreeMap<Box<str>, ImportProgress> = BTreeMap::new();
        for import in self.lanes.iter().flat_map(|lane| lane.imports.iter().cloned()) {
            let before = joined.remove(&import.import);
            let import = before.map_or(import.clone(), |before| before.joined(import));
            joined.insert(import.import.clone(), import);
        }
        joined
    }

    /// What was seen of events, in all lanes.
    pub(super) fn schema(&self) -> Schema {
        let mut joined = Schema::default();
        self.lanes.iter().for_each(|lane| joined.merge(lane.schema.clone()));
        joined
    }

    /// Whether nothing was appended meanwhile.
    pub(super) fn see_unchanged(&self) -> Result<(), MoveError> {
        for lane in &self.lanes {
            let end = lane.journal.end();
            if end != lane.checkpoint.position {
                let why = "events came in while it was moved; stop every server, those that only collect \
                           too, and run the move again";
                return Err(unfit("the source", why));
            }
        }
        Ok(())
    }
}

/// Ships what nodes have left in the store that were killed: the fold below takes it up.
fn ship_what_is_left(store: &Store) -> Result<(), MoveError> {
    let heir = Heir {
        spools: Arc::new(Spools::new(store.clone())),
        intake: Arc::new(Streams::new(store, Mode::Everysec)),
        claims: Arc::new(RedisClaims::new(store.clone())),
        identity: store.identity(),
        layout: store.layout(),
    };
    Ok(cluster::inherit(&Registry::new(store.clone()), &heir)?)
}

/// Refuses a store that a node runs on, or that a node may have something for.
fn see_no_nodes(link: &Link, store: &Store) -> Result<(), MoveError> {
    let listed = Registry::new(store.clone()).list()?;
    for heard in listed.nodes {
        let id = &heard.node.id;
        if listed.store_time.saturating_sub(heard.heard) < LATELY {
            let at = heard.node.address.map(|at| format!(" at {at}")).unwrap_or_default();
            let why = format!("a server runs on it: {id}{at}; stop all servers first");
            return Err(unfit(link, why));
        }
        if heard.node.mark.is_some() {
            let why = format!(
                "the node {id} was killed and may have taken events that are not in the store: start it, let \
                 it catch up and stop it with SIGTERM, or give them up with `throng node retire {id}`"
            );
            return Err(unfit(link, why));
        }
    }
    Ok(())
}

/// Brings lanes to rest, one after the other.
fn rest(
    options: &Options,
    lanes: Vec<Raw>,
    claims: Option<&Arc<dyn Claims>>,
    meter: &mut Meter<'_>,
) -> Result<Vec<Lane>, MoveError> {
    let mut all = 0;
    for lane in &lanes {
        let loaded = lane.state.load()?;
        see_files(&options.archive, &loaded.manifest)?;
        all += lane.journal.end().0.saturating_sub(loaded.checkpoint.position.0);
    }
    meter.at("fold", 0, all)?;
    let mut done = 0;
    let mut rested = Vec::with_capacity(lanes.len());
    let dedup_memory = options.fold.dedup_memory / lanes.len().max(1);
    for (number, raw) in (0..).zip(lanes) {
        let before = raw.state.load()?.checkpoint.position;
        let fold = ingest::Options {
            shards: Some(raw.shards.clone()),
            claims: claims.map(|claims| (claims.clone(), number)),
            dedup_memory,
            ..options.fold.clone()
        };
        let lane = rest_one(options, fold, raw, &mut |folded| {
            meter.at("fold", done + folded.saturating_sub(before.0), all)
        })?;
        done += lane.checkpoint.position.0.saturating_sub(before.0);
        meter.at("fold", done, all)?;
        rested.push(lane);
    }
    see_imports(&rested)?;
    Ok(rested)
}

fn rest_one(
    options: &Options,
    fold: ingest::Options,
    raw: Raw,
    folded: &mut dyn FnMut(u64) -> Result<(), MoveError>,
) -> Result<Lane, MoveError> {
    let Raw { shards, state, journal } = raw;
    let loaded = state.load()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::after(loaded.checkpoint.received, LOOK));
    let metrics = Metrics::new();
    let (state_of, journal_of) = (state.clone(), journal.clone());
    let engine =
        Engine::open(state_of, journal_of, clock.clone(), Arc::new(metrics.clone()), fold)?;
    let workers = Workers::new(metrics);
    let started = engine.start(&workers);
    started.map_err(|error| MoveError::Restless(error.to_string()))?;
    let end = journal.end();
    let see = || match engine.health() {
        Health::Well if !workers.dead().is_empty() => {
            Err(MoveError::Restless("the fold has panicked".to_owned()))
        }
        _ if engine.is_lost() => Err(MoveError::Restless("its lanes were taken".to_owned())),
        Health::Well => Ok(()),
        Health::FoldWaits(why) | Health::CommitWaits(why) => Err(MoveError::Restless(why)),
    };
    while !engine.wait_folded(end, LOOK) {
        see()?;
        folded(engine.pin().position.0)?;
    }
    while !engine.commit(LOOK) {
        see()?;
        folded(end.0)?;
    }
    let (catalog, _) =
        Catalog::open(&options.archive, &[], state.clone(), loaded.manifest, loaded.archived)?;
    let catalog = Arc::new(catalog);
    Archiver::new(catalog, journal.clone(), engine.clone(), clock, options.policy).flush()?;
    engine.stop();
    let loaded = state.load()?;
    if loaded.checkpoint.position != end || loaded.archived.position != end {
        return Err(MoveError::Restless("events still come in".to_owned()));
    }
    Lane::of(shards, state, journal, loaded)
}

/// Refuses a place that is not the archive's.
fn see_files(archive: &Home, rows: &[ManifestRow]) -> Result<(), MoveError> {
    match archive.lacking(rows)? {
        None => Ok(()),
        Some(row) => Err(unfit(
            archive,
            format!(
                "the archive's file {} is not there; say where the archive of the source is: --set \
                 archive.path=DIR",
                row.file
            ),
        )),
    }
}

/// Refuses imports that are not at the same line everywhere.
fn see_imports(lanes: &[Lane]) -> Result<(), MoveError> {
    match uneven_import(lanes.iter().map(|lane| &*lane.imports)) {
        None => Ok(()),
        Some(import) => {
            let why = format!(
                "the import {import} was broken off where some lanes had its last lines and some had not: run it \
                 again to its end first"
            );
            Err(unfit("the source", why))
        }
    }
}

/// An import that is not at the same line in all lanes: lines between would count twice, or never.
pub(super) fn uneven_import<'a>(
    lanes: impl Iterator<Item = &'a [ImportProgress]> + Clone,
) -> Option<&'a str> {
    lanes.clone().flatten().find_map(|import| {
        let taken = |lane: &[ImportProgress]| {
            let of = lane.iter().find(|other| other.import == import.import);
            of.map_or(0, |import| import.taken)
        };
        lanes.clone().any(|lane| taken(lane) != import.taken).then_some(&*import.import)
    })
}
