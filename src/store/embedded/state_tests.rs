//! The contracts of the port, and what is this backend's own: a disk with faults, and files as a crash leaves
//! them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::file::Access;
use super::state::State;
use crate::store::StoreError;
use crate::store::conformance;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::Piece;
use crate::store::state::State as Port;

#[test]
fn it_keeps_the_contracts_of_the_port() {
    let mut dirs = Vec::new();
    conformance::state(&mut || {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), 4).unwrap();
        dirs.push(dir);
        Box::new(state)
    });
}

#[test]
fn a_store_keeps_the_shards_it_was_made_with() {
    let dir = tempfile::tempdir().unwrap();
    drop(State::open(dir.path(), 16).unwrap());
    let state = State::open(dir.path(), 8).unwrap();
    assert_eq!(state.load().unwrap().identity.shards, 16);
}

/// What a disk does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Full,
    WriteFails,
    SyncFails,
    /// It took what was written, and finds no room for it when it has to.
    SyncFindsNoRoom,
}

/// A file on a disk that can have a fault.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Disk {
    fn write(&self) -> Result<(), io::Error> {
        match *self.fault.lock() {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::WriteFails) => Err(io::Error::other("a bad sector")),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.write()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        match *self.fault.lock() {
            Some(Fault::SyncFails) => Err(io::Error::other("a bad sector")),
            Some(Fault::SyncFindsNoRoom) => Err(io::ErrorKind::StorageFull.into()),
            _ => self.file.sync_data(),
        }
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.write()?;
        self.file.write(offset, data)
    }
}

/// A disk with the fault that it is given, and how often the process would have ended.
#[derive(Default)]
pub(crate) struct Faulty {
    fault: Arc<Mutex<Option<Fault>>>,
    ends: Arc<AtomicUsize>,
}

impl Faulty {
    pub(super) fn has(&self, fault: impl Into<Option<Fault>>) {
        *self.fault.lock() = fault.into();
    }

    pub(crate) fn is_full(&self, full: bool) {
        self.has(full.then_some(Fault::Full));
    }

    pub(super) fn ends(&self) -> usize {
        self.ends.load(Ordering::Relaxed)
    }

    /// A file on it.
    pub(super) fn access(&self) -> Access {
        let fault = Arc::clone(&self.fault);
        let opener = move |path: &Path| {
            let mut options = std::fs::OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
            let file = FileBackend::new(file).map_err(io::Error::other)?;
            Ok(Box::new(Disk { file, fault: Arc::clone(&fault) }) as Box<dyn StorageBackend>)
        };
        let ends = Arc::clone(&self.ends);
        let on_fatal = move |_: &io::Error| _ = ends.fetch_add(1, Ordering::Relaxed);
        Access { opener: Box::new(opener), on_fatal: Arc::new(on_fatal) }
    }

    /// A store on it.
    pub(crate) fn state(&self, dir: &Path) -> State {
        State::open_with(dir, 4, self.access()).unwrap()
    }
}

fn commit(number: u64) -> Commit {
    Commit {
        checkpoint: Checkpoint { commit: number, ..Checkpoint::default() },
        deltas: vec![(0, vec![u8::try_from(number).unwrap(); 100_000])],
        ..Commit::default()
    }
}

fn deltas(state: &State) -> Vec<u64> {
    let mut found = Vec::new();
    let take = &mut |piece: Piece<'_>| {
        if let Piece::Delta(commit, bytes) = piece {
            assert_eq!(bytes.len(), 100_000);
            found.push(commit);
        }
        Ok(())
    };
    state.load_shard(0, take).unwrap();
    found
}

#[test]
fn a_full_disk_fails_the_commit_and_the_same_commit_succeeds_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let state = disk.state(dir.path());
    state.commit(&commit(1)).unwrap();
    disk.is_full(true);
    for _ in 0..3 {
        let error = state.commit(&commit(2)).unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
    }
    assert!(matches!(state.commit(&commit(2)), Err(StoreError::Full { .. })));
    disk.is_full(false);
    assert_eq!(deltas(&state), [1]);
    state.commit(&commit(2)).unwrap();
    state.commit(&commit(3)).unwrap();
    assert_eq!(deltas(&state), [1, 2, 3]);
    assert_eq!(disk.ends(), 0);
}

#[test]
fn a_write_or_a_sync_that_failed_is_not_tried_again() {
    for fault in [Fault::WriteFails, Fault::SyncFails, Fault::SyncFindsNoRoom] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Faulty::default();
        let state = disk.state(dir.path());
        state.commit(&commit(1)).unwrap();
        disk.has(fault);
        state.commit(&commit(2)).unwrap_err();
        assert_eq!(disk.ends(), 1, "{fault:?}");
        // The disk works again, and may read back what it never kept.
        disk.has(None);
        for _ in 0..2 {
            state.commit(&commit(2)).unwrap_err();
            state.load().unwrap_err();
        }
        assert_eq!(disk.ends(), 1, "{fault:?}");
        // The next process goes on from what was kept, with or without the commit.
        drop(state);
        let state = Faulty::default().state(dir.path());
        state.commit(&commit(2)).unwrap();
        assert_eq!(deltas(&state), [1, 2]);
    }
}

#[test]
fn a_file_as_a_crash_leaves_it_holds_the_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), 1).unwrap();
    for number in 1..=5 {
        state.commit(&commit(number)).unwrap();
        let copy = tempfile::tempdir().unwrap();
        let file = "state.redb";
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        let copied = State::open(copy.path(), 1).unwrap();
        assert_eq!(copied.load().unwrap().checkpoint.commit, number);
        assert_eq!(copied.load().unwrap().identity, state.load().unwrap().identity);
        assert_eq!(deltas(&copied), (1..=number).collect::<Vec<_>>());
    }
}
