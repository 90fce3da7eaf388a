//! Copies a store on Redis into a backup while its nodes go on.
//!
//! What was acknowledged before the backup was asked for has to count once after a restore, though lanes, message ids
//! and ledger are of different moments. What makes them fit is their order:
//!
//! 1. T passes the time at which it was asked for: all that was acknowledged before is in the streams.
//! 2. Every lane is committed to where its stream ends by now, and again to where it ends then. An event that was
//!    folded in the first round and did not count, because another has its message id, was not the first to claim it:
//!    that other one was appended before, and is folded by the end of the second.
//! 3. Each lane is pinned and read as of one moment. What is past its checkpoint is not in the copy. Events that the
//!    archive has not come to yet are cut from the stream into files of the copy.
//! 4. Message ids, after the lanes: of what was claimed by then, that counts which an event of the copy has. So events
//!    that the copy has not count when they are sent again, and those that it has do not.
//! 5. The ledger, last, as in every backup.
//!
//! Lines of an import that have no message id of their own are known by how far the import is. So all lanes have to be
//! at the same line of it: while an import is under way, it is waited for.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::Meter;
use super::MoveError;
use super::Options;
use super::Place;
use super::Progress;
use super::check;
use super::copy;
use super::failed;
use super::files;
use super::pins::Pins;
use super::small;
use super::small::Small;
use super::source::Held;
use super::source::Lane;
use super::source::Source;
use super::source::uneven_import;
use super::target::LOCK;
use super::target::Target;
use super::unfit;
use crate::archive::ArchiveError;
use crate::archive::Folded as _;
use crate::archive::Home;
use crate::archive::Pace;
use crate::archive::Policy;
use crate::archive::cut;
use crate::backup;
use crate::backup::BackupError;
use crate::backup::Copied;
use crate::backup::Origin;
use crate::cluster::Behind;
use crate::cluster::Member;
use crate::ingest;
use crate::ingest::MessageIds;
use crate::model::Millis;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::claims::Claimant;
use crate::store::embedded::UNFINISHED;
use crate::store::nodes::Heard;
use crate::store::redis::Claims as RedisClaims;
use crate::store::redis::Keys;
use crate::store::redis::Ledger as RedisLedger;
use crate::store::redis::Shelf as RedisShelf;
use crate::store::redis::Store;
use crate::store::redis::Times;
use crate::store::state::ManifestRow;

/// How long is waited between two looks at how far the lanes are.
const LOOK: Duration = Duration::from_millis(50);
/// How long is waited for an import.
const AGAIN: Duration = Duration::from_millis(500);
/// The archive's folder in a data directory.
const ARCHIVE: &str = "archive";
/// The folder of segments that were made through the API.
const MADE: &str = backup::MADE_SEGMENTS;

/// A store on Redis that this process is a node of.
pub struct RunningStore {
    /// The store.
    pub store: Store,
    /// This process among the nodes, once it is one.
    pub member: Arc<OnceLock<Arc<Member>>>,
    /// Its name among them.
    pub node: String,
    /// Its data directory.
    pub data: PathBuf,
    /// The archive that all nodes share.
    pub archive: Home,
    /// How large the files become that are cut for the copy.
    pub policy: Policy,
    /// How events are folded.
    pub fold: ingest::Options,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// For how long nothing may come closer of what is waited for.
    pub patience: Duration,
    /// Set when the process is about to stop.
    pub draining: Arc<AtomicBool>,
}

impl Origin for RunningStore {
    fn data(&self) -> &Path {
        &self.data
    }

    fn archive(&self) -> &Home {
        &self.archive
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn draining(&self) -> &AtomicBool {
        &self.draining
    }

    /// Not known before it is read.
    fn bytes(&self) -> (u64, u64) {
        (0, 0)
    }

    fn names(&self) -> Vec<PathBuf> {
        small::FILES.into_iter().chain([MADE, LOCK, UNFINISHED]).map(PathBuf::from).collect()
    }

    fn copy(&self, dir: &Path, meter: &mut backup::Meter<'_>) -> Result<Copied, BackupError> {
        let mut tell = |Progress { part, done, of }| {
            let unit = match part {
                "wait" | "import" => "ms",
                "fold" => "bytes",
                "ids" => "message ids",
                "archive" => "files",
                "ledger" => "identifiers",
                _ => "shards",
            };
            meter.at(part, unit, done, of)
        };
        Ok(self.copy_to(dir, &mut Meter { tell: &mut tell })?)
    }
}

impl RunningStore {
    /// How long is waited in vain.
    pub const PATIENCE: Duration = Duration::from_secs(60);

    fn copy_to(&self, dir: &Path, meter: &mut Meter<'_>) -> Result<Copied, MoveError> {
        let true_for = self.appended(meter)?;
        self.folded(meter)?;
        self.folded(meter)?;
        let archive = dir.join(ARCHIVE);
        let source = self.pinned(&archive, meter)?;
        let copied = self.copy_of(dir, &source, meter);
        let copied = copied.map_err(|error| match &source.held {
            Held::Pins(pins) => pins.explain(error),
            Held::Lock { .. } | Held::Leases { .. } => error,
        });
        let profiles = copied?.contents.iter().map(|content| content.profiles).sum();
        Ok(Copied {
            true_for,
            shards: source.identity.shards,
            counted: source.checkpoint().counters.counted,
            to_fold: 0,
            profiles: Some(profiles),
            rows: source.lanes.into_iter().flat_map(|lane| lane.manifest).collect(),
        })
    }

    /// Waits until all that was acknowledged before is in the streams; returns when that was.
    fn appended(&self, meter: &mut Meter<'_>) -> Result<Millis, MoveError> {
        let Some(member) = self.member.get() else {
            return Err(unfit("this node", "it has only just started; try again"));
        };
        let (asked, began) = (self.clock.now(), Instant::now());
        // It is asked from a closure that may be called from anywhere.
        let told = Mutex::new((meter, Ok(())));
        loop {
            let wanted = || {
                let (meter, last) = &mut *told.lock();
                let passed = millis(began.elapsed());
                *last = meter.at("wait", passed, passed);
                last.is_ok()
            };
            match member.wait_until(asked, wanted) {
                Ok(_) => return Ok(asked),
                Err(Behind::Unwanted) => return Err(MoveError::GivenUp),
                Err(Behind::Late { .. }) if began.elapsed() >= self.patience => {
                    return Err(unfit("the store", self.who_holds_back(member, asked)));
                }
                Err(Behind::Late { .. }) => {}
            }
        }
    }

    /// Says what is waited for in vain.
    fn who_holds_back(&self, member: &Member, asked: Millis) -> String {
        let listed = member.listed();
        let edge = asked.saturating_add(member.horizon().spread);
        let late = |heard: &&Heard| heard.node.mark.is_some_and(|mark| mark < edge);
        let nodes: Vec<String> = listed
            .nodes
            .iter()
            .filter(late)
            .map(|heard| {
                let unheard = listed.store_time.saturating_sub(heard.heard).div_euclid(1_000);
                match unheard {
                    ..10 => format!("{} has events to ship", heard.node.id),
                    _ => format!("{} was not heard of for {unheard} s", heard.node.id),
                }
            })
            .collect();
        format!(
            "it is not known whether all that was acknowledged is in it: {}; start the nodes that are gone, or give \
             up what they have with `throng node retire`",
            if nodes.is_empty() { "Redis does not answer".to_owned() } else { nodes.join(", ") }
        )
    }

    /// Waits until every lane is committed to where its stream ends now.
    fn folded(&self, meter: &mut Meter<'_>) -> Result<(), MoveError> {
        let ends: Vec<u64> = self.store.progress()?.iter().map(|(_, end)| end.0).collect();
        let mut all = None;
        let mut last = (u64::MAX, Instant::now());
        loop {
            let now = self.store.progress()?;
            let behind = |lane: usize| ends[lane].saturating_sub(now[lane].0.0);
            let left: u64 = (0..ends.len()).map(behind).sum();
            let all = *all.get_or_insert(left);
            meter.at("fold", all.saturating_sub(left), all)?;
            if left == 0 {
                return Ok(());
            }
            if left < last.0 {
                last = (left, Instant::now());
            }
            if last.1.elapsed() >= self.patience {
                let lane = (0..ends.len()).find(|lane| behind(*lane) > 0).unwrap_or(0);
                let number = u16::try_from(lane).unwrap_or(u16::MAX);
                let owner = self.store.owner(number)?;
                let owner = owner
                    .map_or("nobody has had it".to_owned(), |owner| format!("{owner} had it last"));
                let why = format!(
                    "{} bytes of its stream are not folded, and it does not come on: {owner}; see that nodes work, \
                     and what `throng doctor` says",
                    behind(lane)
                );
                return Err(unfit(format!("lane {number}"), why));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until every import is at the same line in all lanes.
    fn imported(&self, meter: &mut Meter<'_>) -> Result<(), MoveError> {
        let began = Instant::now();
        loop {
            let mut imports = Vec::new();
            for number in 0..self.store.layout().lanes() {
                match self.store.read_pinned(number)?.state.load() {
                    Ok(loaded) => imports.push(loaded.imports),
                    // It is not pinned yet: what is replaced meanwhile may be gone. Then they are seen later.
                    Err(StoreError::Malformed { .. }) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(import) = uneven_import(imports.iter().map(|imports| &**imports)) else {
                return Ok(());
            };
            if began.elapsed() >= self.patience {
                let why = format!(
                    "the import {import} is under way, or was broken off: some lanes have lines of it that others \
                     have not; let it come to its end, and take the backup then"
                );
                return Err(unfit("the store", why));
            }
            let passed = millis(began.elapsed());
            meter.at("import", passed, passed)?;
            std::thread::sleep(AGAIN);
        }
    }

    /// Pins the lanes, and reads all that does not go on lane by lane. The archive's files that count are brought into
    /// `archive`.
    fn pinned(&self, archive: &Path, meter: &mut Meter<'_>) -> Result<Source, MoveError> {
        let store = &self.store;
        let mut nonce = [0; 4];
        getrandom::fill(&mut nonce).map_err(|_| unfit("the system", "it gives no random bytes"))?;
        let reader = format!("a backup by {} ({})", self.node, crate::model::hex(&nonce));
        fs::create_dir_all(archive).map_err(failed("create", archive))?;
        let to = Home::from(archive);
        let mut files =
            Files { from: &self.archive, dir: archive, to: &to, brought: BTreeSet::new() };
        // Most of what takes long, before anything is kept for it.
        for number in 0..store.layout().lanes() {
            if let Ok(loaded) = store.read_pinned(number)?.state.load() {
                files.bring(&loaded.manifest, meter)?;
            }
        }
        let (pins, lanes) = loop {
            self.imported(meter)?;
            let pins = Pins::take(store, &reader)?;
            let lanes: Result<Vec<Lane>, MoveError> = (0..store.layout().lanes())
                .map(|number| self.read_lane(number, &mut files, meter))
                .collect();
            let lanes = lanes.map_err(|error| pins.explain(error))?;
            if uneven_import(lanes.iter().map(|lane| &*lane.imports)).is_none() {
                break (pins, lanes);
            }
        };
        files.keep(lanes.iter().flat_map(|lane| &lane.manifest))?;
        let newest = lanes.iter().map(|lane| lane.checkpoint.received).max();
        let counts = |Claimant { lane, event }| {
            let of: Option<&Lane> = lanes.get(usize::from(lane));
            of.is_some_and(|lane| event.record < lane.checkpoint.next_record)
        };
        let claims = RedisClaims::new(store.clone());
        let ids = MessageIds::claimed(&claims, newest.unwrap_or(Millis::MIN), &counts)?;
        Ok(Source {
            identity: store.identity(),
            ids,
            lanes,
            ledger: Arc::new(RedisLedger::new(store.clone())),
            small: Small::of_store(store)?,
            next_generation: store.reserve_generations(0)?,
            held: Held::Pins(pins),
        })
    }

    /// Reads a lane that is pinned, and brings its files. Where one is gone, its owner has put another in its place
    /// since: then the lane is read anew.
    fn read_lane(
        &self,
        number: u16,
        files: &mut Files<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<Lane, MoveError> {
        let mut gone: Option<Box<str>> = None;
        let (pinned, mut loaded) = loop {
            let pinned = self.store.read_pinned(number)?;
            let loaded = pinned.state.load()?;
            if let Some(row) = loaded.manifest.iter().find(|row| Some(&row.file) == gone.as_ref()) {
                return Err(missing(&self.archive, row));
            }
            gone = files.bring(&loaded.manifest, meter)?;
            if gone.is_none() {
                break (pinned, loaded);
            }
        };
        let shards = self.store.layout().shards_of(number);
        let mut reached = loaded.archived;
        let mut manifest = std::mem::take(&mut loaded.manifest);
        let mut lane = Lane::of(shards, pinned.state, pinned.journal, loaded)?;
        self.fold.suppression.load(&RedisShelf::privacy(self.store.clone()))?;
        lane.stored = lane.stored.without(self.fold.suppression.clone());
        let to = lane.stored.committed();
        while reached.position < to.position {
            let mut reader = lane.journal.reader(reached.position);
            let cut =
                cut(files.to, &mut *reader, to, self.policy.bytes, &lane.stored, &Pace::hurried())?;
            files.made(&cut.files, meter)?;
            manifest.extend(cut.files);
            reached = cut.reached;
        }
        lane.manifest = manifest;
        Ok(lane)
    }

    /// Copies what was pinned, and compares it.
    fn copy_of(
        &self,
        dir: &Path,
        source: &Source,
        meter: &mut Meter<'_>,
    ) -> Result<copy::Copied, MoveError> {
        let archive = Home::from(&dir.join(ARCHIVE));
        let options = Options {
            from: Place::Redis(String::new()),
            to: Place::Directory(dir.to_owned()),
            keys: Keys::default(),
            trust: crate::config::Trust::default(),
            times: Times::default(),
            fold: self.fold.clone(),
            policy: self.policy,
            lanes: 1,
            // They are there.
            archive: archive.clone(),
            to_archive: archive,
            segments: dir.join(MADE),
        };
        let mut target = Target::directory(dir, source, &[ARCHIVE])?;
        let copied = copy::copy(&options, source, &target, meter)?;
        target.reopen()?;
        let report = check::compare(source, &target, &copied, meter)?;
        if let Some(wrong) = report.compared.iter().find(|compared| !compared.same) {
            let why = wrong.why.as_deref().unwrap_or("there are others than were read");
            return Err(unfit(&wrong.what, format!("{why}; take another backup")));
        }
        target.finish()?;
        let lock = dir.join(LOCK);
        fs::remove_file(&lock).map_err(failed("remove", &lock))?;
        Ok(copied)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The archive's files in the copy.
struct Files<'a> {
    from: &'a Home,
    dir: &'a Path,
    to: &'a Home,
    brought: BTreeSet<Box<str>>,
}

impl Files<'_> {
    /// Brings those of a manifest that are not there yet; names one that is gone.
    fn bring(
        &mut self,
        rows: &[ManifestRow],
        meter: &mut Meter<'_>,
    ) -> Result<Option<Box<str>>, MoveError> {
        for row in rows {
            if self.brought.contains(&row.file) {
                continue;
            }
            match files::bring_one(self.from, self.to, row) {
                Ok(()) => self.made(std::slice::from_ref(row), meter)?,
                Err(MoveError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Ok(Some(row.file.clone()));
                }
                Err(MoveError::Archive(ArchiveError::Missing { .. })) => {
                    return Ok(Some(row.file.clone()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Remembers files that are there now.
    fn made(&mut self, rows: &[ManifestRow], meter: &mut Meter<'_>) -> Result<(), MoveError> {
        self.brought.extend(rows.iter().map(|row| row.file.clone()));
        let count = self.brought.len() as u64;
        meter.at("archive", count, count)
    }

    /// Removes those that do not count after all: others have come in their place.
    fn keep<'r>(&self, rows: impl Iterator<Item = &'r ManifestRow>) -> Result<(), MoveError> {
        let rows: BTreeSet<&str> = rows.map(|row| &*row.file).collect();
        for old in self.brought.iter().filter(|file| !rows.contains(&***file)) {
            let path = self.dir.join(&**old);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

fn missing(archive: &Home, row: &ManifestRow) -> MoveError {
    let why = format!(
        "the archive's file {} is not there; ask a node that has the archive (archive.path)",
        row.file
    );
    unfit(archive, why)
}

impl From<MoveError> for BackupError {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::File { action, path, source } => {
                Self::File(backup::FileError::new(action, path, source))
            }
            MoveError::Store(error) => Self::Store(error),
            MoveError::Journal(error) => Self::Journal(error),
            MoveError::Archive(error) => Self::Archive(error),
            MoveError::GivenUp => Self::GivenUp("who asked for it has gone"),
            MoveError::Unfit { .. } | MoveError::Restless(_) | MoveError::Lock(_) => {
                Self::Unready(error.to_string())
            }
        }
    }
}
