//! The store that comes to be: made with the identity of the other, and marked until it is whole.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::Digest;
use sha2::Sha256;

use super::MoveError;
use super::Options;
use super::Place;
use super::failed;
use super::leases::Leases;
use super::small;
use super::small::Small;
use super::source::Source;
use super::unfit;
use crate::backup;
use crate::config::Durability;
use crate::ingest::MessageIds;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::hex;
use crate::store::StoreError;
use crate::store::embedded;
use crate::store::embedded::UNFINISHED;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::ledger::EmbeddedLedger;
use crate::store::embedded::lock::DataLock;
use crate::store::embedded::remove_small_file;
use crate::store::embedded::write_small_file;
use crate::store::journal::Journal;
use crate::store::ledger::Ledger;
use crate::store::redis::Claims as RedisClaims;
use crate::store::redis::Ledger as RedisLedger;
use crate::store::redis::Link;
use crate::store::redis::Mode;
use crate::store::redis::Store;
use crate::store::state::ArchivePosition;
use crate::store::state::Identity;
use crate::store::state::SeenSet;
use crate::store::state::State;

/// The lock of a data directory.
pub(super) const LOCK: &str = "lock";

/// The target of a move.
pub(super) struct Target {
    kind: Kind,
    pub(super) lanes: Vec<Lane>,
    /// `None` for a moment while it is opened anew: one file has one owner.
    ledger: Option<Arc<dyn Ledger>>,
}

enum Kind {
    Directory { dir: PathBuf, identity: Identity, begins: ArchivePosition, _lock: DataLock },
    Redis { store: Store, leases: Option<Leases> },
}

/// One of its lanes.
pub(super) struct Lane {
    pub(super) number: u16,
    pub(super) shards: Vec<ShardId>,
    pub(super) state: Arc<dyn State>,
    pub(super) journal: Arc<dyn Journal>,
}

impl Target {
    /// Makes the target, or begins it anew where an earlier move of the same store was cut short.
    pub(super) fn open(options: &Options, source: &Source) -> Result<Self, MoveError> {
        match &options.to {
            Place::Directory(dir) => Self::directory(dir, source, &[]),
            Place::Redis(urls) => Self::redis(options, urls, source),
        }
    }

    /// In a directory that holds nothing, or `may_hold` at most.
    pub(super) fn directory(
        dir: &Path,
        source: &Source,
        may_hold: &[&str],
    ) -> Result<Self, MoveError> {
        let lock = DataLock::take(dir)?;
        let identity = source.identity;
        let marker = dir.join(UNFINISHED);
        let mark = mark_of(&identity);
        match fs::read_to_string(&marker) {
            Ok(found) if found == mark => {}
            Ok(_) => {
                let why = "it holds half of another store that was to be moved there; name another";
                return Err(unfit(dir.display(), why));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(why) = backup::unfit(dir) {
                    return Err(unfit("the target", why));
                }
                let entries = fs::read_dir(dir).map_err(failed("read", dir))?;
                for entry in entries {
                    let name = entry.map_err(failed("read", dir))?.file_name();
                    if name != LOCK && !may_hold.iter().any(|may| name == **may) {
                        let why = "it is not empty; name a new directory";
                        return Err(unfit(dir.display(), why));
                    }
                }
                write_small_file(&marker, mark.as_bytes(), 0o600)
                    .map_err(failed("write", &marker))?;
            }
            Err(error) => return Err(failed("read", &marker)(error)),
        }
        clear(dir)?;
        let begins = source.end();
        let journal = dir.join(embedded::JOURNAL);
        EmbeddedJournal::begin_at(&journal, begins.position, begins.next_record)?;
        let kind = Kind::Directory { dir: dir.to_owned(), identity, begins, _lock: lock };
        let (lane, ledger) = open_directory(dir, identity, begins)?;
        Ok(Self { kind, lanes: vec![lane], ledger: Some(ledger) })
    }

    fn redis(options: &Options, urls: &str, source: &Source) -> Result<Self, MoveError> {
        let link = Link::open_trusting(urls, &options.trust, options.times)?;
        // Managed servers may not show their configuration; the server's start says it again.
        if let Ok(advice) = Mode::Everysec.verify(&link)
            && !advice.is_empty()
        {
            let why = format!("it would not keep what is moved there:\n  {}", advice.join("\n  "));
            return Err(unfit(&link, why));
        }
        let from = options.from.to_string();
        let keys = options.keys.clone();
        let made = Store::receive(link.clone(), keys, source.identity, options.lanes, &from)?;
        let store = made.ok_or_else(|| {
            unfit(&link, "there is a store already, or something else; name an empty server")
        })?;
        let begins = source.end();
        for lane in 0..store.layout().lanes() {
            store.begin_lane(lane, begins.position, begins.next_record)?;
        }
        let (leases, lanes) = take(&store)?;
        let ledger = Arc::new(RedisLedger::new(store.clone()));
        let kind = Kind::Redis { store, leases: Some(leases) };
        Ok(Self { kind, lanes, ledger: Some(ledger) })
    }

    /// Forgets what is known of it, so that what is read next is what it holds.
    pub(super) fn reopen(&mut self) -> Result<(), MoveError> {
        self.lanes.clear();
        self.ledger = None;
        match &mut self.kind {
            Kind::Directory { dir, identity, begins, .. } => {
                let (lane, ledger) = open_directory(dir, *identity, *begins)?;
                self.lanes.push(lane);
                self.ledger = Some(ledger);
            }
            Kind::Redis { store, leases } => {
                *leases = None;
                let (taken, lanes) = take(store)?;
                *leases = Some(taken);
                self.lanes = lanes;
                self.ledger = Some(Arc::new(RedisLedger::new(store.clone())));
            }
        }
        Ok(())
    }

    /// Its ledger.
    pub(super) fn ledger(&self) -> &dyn Ledger {
        self.ledger.as_deref().expect("it is opened with the lanes")
    }

    /// Sees that no number of a generation is given again.
    pub(super) fn next_generation(&self, least: u64) -> Result<u64, MoveError> {
        let state = &self.lanes[0].state;
        let next = state.reserve_generations(0)?;
        if next < least {
            state.reserve_generations(least - next)?;
        }
        Ok(state.reserve_generations(0)?)
    }

    /// Where message ids are claimed; `None` of a store whose lane keeps sets of them.
    pub(super) fn claims(&self) -> Option<RedisClaims> {
        match &self.kind {
            Kind::Directory { .. } => None,
            Kind::Redis { store, .. } => Some(RedisClaims::new(store.clone())),
        }
    }

    /// Reads back the message ids that were counted.
    pub(super) fn ids(&self, newest: Millis) -> Result<[MessageIds; 2], StoreError> {
        match self.claims() {
            Some(claims) => MessageIds::claimed(&claims, newest, &|_| true),
            None => {
                let read = |set| MessageIds::read(&*self.lanes[0].state, set, newest);
                Ok([read(SeenSet::Recent)?, read(SeenSet::Imported)?])
            }
        }
    }

    /// Puts down the small values.
    pub(super) fn put_small(&self, small: &Small) -> Result<(), MoveError> {
        match &self.kind {
            Kind::Directory { dir, .. } => small.write_directory(dir),
            Kind::Redis { store, .. } => small.write_store(store),
        }
    }

    /// Reads them back.
    pub(super) fn small(&self) -> Result<Small, MoveError> {
        match &self.kind {
            Kind::Directory { dir, .. } => Small::of_directory(dir),
            Kind::Redis { store, .. } => Small::of_store(store),
        }
    }

    /// Whether segments without a file have a place there.
    pub(super) fn keeps_made_segments(&self) -> bool {
        matches!(self.kind, Kind::Redis { .. })
    }

    /// Says that it is whole: servers may start on it.
    pub(super) fn finish(self) -> Result<(), MoveError> {
        match &self.kind {
            Kind::Directory { dir, .. } => {
                let marker = dir.join(UNFINISHED);
                remove_small_file(&marker).map(drop).map_err(failed("remove", &marker))
            }
            Kind::Redis { store, .. } => Ok(store.finish()?),
        }
    }
}

/// Tells stores apart, and says nothing of the key.
fn mark_of(identity: &Identity) -> String {
    let mut sum = Sha256::new();
    sum.update(identity.shards.to_le_bytes());
    sum.update(identity.key);
    hex(&sum.finalize()[..8])
}

/// Removes what an earlier move has brought, by name.
fn clear(dir: &Path) -> Result<(), MoveError> {
    let names = [embedded::STATE, embedded::LEDGER, embedded::JOURNAL];
    for name in names.into_iter().chain(small::FILES) {
        let path = dir.join(name);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn open_directory(
    dir: &Path,
    identity: Identity,
    begins: ArchivePosition,
) -> Result<(Lane, Arc<dyn Ledger>), MoveError> {
    let state = embedded::State::make(dir, identity)?;
    let how = embedded::journal::Options {
        durable_to: begins.position,
        ..embedded::journal::Options::new(Durability::Disk)
    };
    let (journal, _) = EmbeddedJournal::open(&dir.join(embedded::JOURNAL), how)?;
    let ledger = EmbeddedLedger::open(&dir.join(embedded::LEDGER))?;
    let lane = Lane {
        number: 0,
        shards: (0..identity.shards).collect(),
        state: Arc::new(state),
        journal: Arc::new(journal),
    };
    Ok((lane, Arc::new(ledger)))
}

fn take(store: &Store) -> Result<(Leases, Vec<Lane>), MoveError> {
    let (leases, taken) = Leases::take(store)?;
    let layout = store.layout();
    let lanes = (0..).zip(taken).map(|(number, taken)| Lane {
        number,
        shards: layout.shards_of(number),
        state: taken.state,
        journal: taken.journal,
    });
    Ok((leases, lanes.collect()))
}
