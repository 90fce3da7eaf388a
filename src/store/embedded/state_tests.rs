//! The contracts of the port, and what is this backend's own: a full disk, and files as a crash leaves them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use redb::Database;
use redb::StorageBackend;
use redb::backends::FileBackend;

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

/// A file on a disk that can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> Result<(), io::Error> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
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
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.room()?;
        self.file.write(offset, data)
    }
}

/// A store on a disk that is full while the flag says so.
pub(crate) fn on_a_disk_that_can_be_full(dir: &Path) -> (State, Arc<AtomicBool>) {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Arc::clone(&full);
    let opener = move |path: &Path| {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = FileBackend::new(options.open(path).map_err(redb::StorageError::Io)?)?;
        Database::builder().create_with_backend(Disk { file, full: Arc::clone(&disk) })
    };
    (State::open_with(dir, 4, Box::new(opener)).unwrap(), full)
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
    let (state, full) = on_a_disk_that_can_be_full(dir.path());
    state.commit(&commit(1)).unwrap();
    full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = state.commit(&commit(2)).unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
    }
    assert!(matches!(state.commit(&commit(2)), Err(StoreError::Full { .. })));
    full.store(false, Ordering::Relaxed);
    assert_eq!(deltas(&state), [1]);
    state.commit(&commit(2)).unwrap();
    state.commit(&commit(3)).unwrap();
    assert_eq!(deltas(&state), [1, 2, 3]);
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
