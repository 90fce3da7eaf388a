use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::*;
use crate::archive::Catalog;
use crate::config::Durability;
use crate::model::Choice;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Record;
use crate::net::Clock;
use crate::net::SystemClock;
use crate::store::chain;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::ledger::EmbeddedLedger;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::ledger::Changes;
use crate::store::ledger::Ledger;
use crate::store::ledger::Target;
use crate::store::state::State;

struct At(Millis);

impl Clock for At {
    fn now(&self) -> Millis {
        self.0
    }
}

struct Store {
    source: Source,
    draining: Arc<AtomicBool>,
}

fn identifier(value: &str) -> Identifier {
    Identifier::new(Namespace::new("user_id").unwrap(), value).unwrap()
}

fn append(journal: &dyn Journal, records: u64) {
    let mut batch = Batch::new();
    for number in 0..records {
        let cookie = Identifier::new(Namespace::new("cookie").unwrap(), &"a".repeat(32)).unwrap();
        let received = i64::try_from(number).unwrap();
        batch
            .push(&Record::Choice(Choice { identifier: cookie, opted_out: true, received }))
            .unwrap();
    }
    journal.append(&batch).unwrap();
}

/// A data directory of some records, a secret and a ledger.
fn store(data: &Path) -> Store {
    fs::create_dir(data).unwrap();
    let state: Arc<dyn State> = Arc::new(embedded::State::open(data, 4).unwrap());
    let options = embedded::journal::Options::new(Durability::Disk);
    let (journal, _) = EmbeddedJournal::open(&data.join(embedded::JOURNAL), options).unwrap();
    append(&journal, 1_000);
    let ledger = EmbeddedLedger::open(&data.join(embedded::LEDGER)).unwrap();
    let loaded = state.load().unwrap();
    let archive = data.join(ARCHIVE);
    let (catalog, _) =
        Catalog::open(&archive, &[0, 1, 2, 3], state.clone(), loaded.manifest, loaded.archived)
            .unwrap();
    fs::write(data.join("secret"), "s").unwrap();
    let draining = Arc::new(AtomicBool::new(false));
    let source = Source {
        data: data.to_owned(),
        state,
        journal: Arc::new(journal),
        ledger: Arc::new(ledger),
        catalog: Arc::new(catalog),
        clock: Arc::new(SystemClock::default()),
        small: vec![PathBuf::from("secret"), PathBuf::from("not-there")],
        draining: draining.clone(),
    };
    Store { source, draining }
}

fn restored(copy: &Path, to: &Path) -> Manifest {
    restore(copy, to, &SystemClock::default(), &mut |_| ()).unwrap()
}

#[test]
fn one_backup_is_taken_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let backups = Backups::new(store(&dir.path().join("data")).source);
    let job = backups.begin(&dir.path().join("one"), 0).unwrap();
    let second = backups.begin(&dir.path().join("two"), 0).err().unwrap();
    assert!(matches!(second, BackupError::Busy), "{second}");
    assert!(!dir.path().join("two").exists());
    job.run(&mut |_| true).unwrap();
    backups.begin(&dir.path().join("two"), 0).unwrap().run(&mut |_| true).unwrap();
}

#[test]
fn a_backup_that_is_given_up_at_any_part_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("data"));
    let draining = store.draining.clone();
    let backups = Backups::new(store.source);
    let copy = dir.path().join("copy");
    for part in ["state", "journal", "secrets", "ledger", "checksums"] {
        let job = backups.begin(&copy, 0).unwrap();
        let error = job.run(&mut |progress| progress.part != part).unwrap_err();
        assert!(matches!(error, BackupError::GivenUp(_)), "{part}: {error}");
        assert!(!copy.exists(), "{part}");
    }
    fs::create_dir(&copy).unwrap();
    draining.store(true, Ordering::Release);
    let error = backups.begin(&copy, 0).unwrap().run(&mut |_| true).unwrap_err().to_string();
    assert!(error.contains("stopping"), "{error}");
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 0, "a directory that was there stays");
}

#[test]
fn what_is_appended_meanwhile_is_in_the_copy_up_to_the_end_of_a_frame() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("data"));
    let journal = store.source.journal.clone();
    let backups = Backups::new(store.source);
    let copy = dir.path().join("copy");
    let mut parts = Vec::new();
    let manifest = backups.begin(&copy, 7).unwrap().run(&mut |progress| {
        if progress.whole {
            parts.push(progress.part);
            append(&*journal, 10);
        }
        true
    });
    let manifest = manifest.unwrap();
    assert_eq!(parts, ["state", "archive", "journal", "secrets", "ledger", "checksums"]);
    assert_eq!((manifest.counts.to_fold, manifest.counts.profiles), (1_020, 7));
    let data = dir.path().join("new");
    restored(&copy, &data);
    let options = embedded::journal::Options::new(Durability::Disk);
    let (copied, found) = EmbeddedJournal::open(&data.join(embedded::JOURNAL), options).unwrap();
    assert_eq!((found.records, found.cut), (1_020, None));
    append(&copied, 1);
    assert_eq!(copied.next_record(), 1_021);
}

#[test]
fn a_restored_store_doubts_what_it_holds_and_names_no_generation_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("data"));
    let (state, ledger) = (store.source.state.clone(), store.source.ledger.clone());
    let target = Target::new("files", "buyers");
    let changes = |value| Changes { adds: vec![identifier(value)], removes: Vec::new() };
    let generation = state.reserve_generations(5).unwrap();
    let batch = ledger.prepare(&target, generation, 0, changes("1"), 0).unwrap();
    ledger.acknowledge(&batch, 0).unwrap();
    ledger.prepare(&target, generation, 0, changes("2"), 0).unwrap();
    let copy = dir.path().join("copy");
    Backups::new(store.source).begin(&copy, 0).unwrap().run(&mut |_| true).unwrap();
    let sent_since = state.reserve_generations(1_000_000).unwrap() + 999_999;

    let data = dir.path().join("new");
    restored(&copy, &data);
    let ledger = EmbeddedLedger::open(&data.join(embedded::LEDGER)).unwrap();
    let held = ledger.held(&target, None, 10).unwrap();
    let held: Vec<_> = held.iter().map(|held| (held.identifier.value(), held.unsure)).collect();
    assert_eq!(held, [("1", true), ("2", true)]);
    assert!(ledger.prepared(&target).unwrap().is_empty());
    let state = embedded::State::open(&data, 4).unwrap();
    let first = state.reserve_generations(1).unwrap();
    assert!(first > sent_since);
    assert!(!data.join(UNFINISHED).exists() && !data.join(MANIFEST).exists());
    drop((ledger, state));
    // Once more from the same copy, when the first restore had run for a while.
    let again = dir.path().join("again");
    let later = SystemClock::default().now() + 60_000;
    restore(&copy, &again, &At(later), &mut |_| ()).unwrap();
    let state = embedded::State::open(&again, 4).unwrap();
    assert!(state.reserve_generations(1).unwrap() > first);
}

#[test]
fn half_a_restore_is_neither_served_nor_restored_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("data"));
    let copy = dir.path().join("copy");
    Backups::new(store.source).begin(&copy, 0).unwrap().run(&mut |_| true).unwrap();
    let data = dir.path().join("new");
    fs::create_dir(&data).unwrap();
    fs::write(data.join(UNFINISHED), "").unwrap();
    assert!(unfit(&data).unwrap().contains("restore again"));
    let error = restore(&copy, &data, &SystemClock::default(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("empty it"), "{error}");
    assert!(data.join(UNFINISHED).exists());
    fs::remove_file(data.join(UNFINISHED)).unwrap();
    restored(&copy, &data);
    assert_eq!(unfit(&data), None);
    assert!(unfit(&copy).unwrap().contains("throng restore"));
}

/// A file system of 32 MiB, unmounted at the end; `None` where this user may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| Self(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_or_fills_up_takes_no_backup_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")) else {
        eprintln!("left out: this user may not mount a small file system");
        return;
    };
    let store = store(&dir.path().join("data"));
    let state = store.source.state.clone();
    let backups = Backups::new(store.source);
    let (copy, filler) = (disk.0.join("copy"), disk.0.join("filler"));
    let fill = |length: usize| fs::write(&filler, vec![0u8; length]);
    for part in ["state", "journal", "ledger"] {
        let job = backups.begin(&copy, 0).unwrap();
        let mut is_full = false;
        let error = job.run(&mut |progress| {
            if progress.part == part && !is_full {
                is_full = true;
                // As much as there is.
                let _ = fill(64 << 20);
            }
            true
        });
        let error = chain(&error.unwrap_err());
        assert!(error.contains("copy/") && error.contains("space"), "{part}: {error}");
        assert!(!copy.exists(), "{part}");
        fs::remove_file(&filler).unwrap();
    }
    fill(30 << 20).unwrap();
    let error = backups.begin(&copy, 0).err().unwrap();
    assert!(matches!(error, BackupError::NoRoom { .. }), "{error}");
    assert!(!copy.exists());
    fs::remove_file(&filler).unwrap();
    state.reserve_generations(1).unwrap();
    backups.begin(&copy, 0).unwrap().run(&mut |_| true).unwrap();
}
