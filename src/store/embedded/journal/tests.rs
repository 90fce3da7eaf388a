use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::config::Durability;
use crate::model::Choice;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Record;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::Position;
use crate::store::journal::conformance;
use crate::store::journal::conformance::Rig;

use super::EmbeddedJournal;
use super::Options;
use super::Recovery;
use super::segment::FILE_HEADER;

/// A disk that fills up and a sync that fails, when a test says so.
#[derive(Debug)]
pub(crate) struct Faults {
    room: AtomicUsize,
    sync_fails: AtomicBool,
    folder_sync_fails: AtomicBool,
    syncs: AtomicU64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            room: AtomicUsize::new(usize::MAX),
            sync_fails: AtomicBool::new(false),
            folder_sync_fails: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        }
    }
}

impl Faults {
    /// What of a write still finds room.
    pub(super) fn fit<'a>(
        &self,
        head: &'a [u8],
        body: &'a [u8],
    ) -> io::Result<(&'a [u8], &'a [u8])> {
        let room = self.room.load(Ordering::SeqCst);
        let taken = room.min(head.len() + body.len());
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if room != usize::MAX {
            self.room.store(room - taken, Ordering::SeqCst);
        }
        let head = &head[..taken.min(head.len())];
        Ok((head, &body[..taken - head.len()]))
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        if self.folder_sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the directory is on fire"));
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    }
}

fn options(durability: Durability) -> Options {
    Options { segment_bytes: 1000, ..Options::new(durability) }
}

fn open(dir: &Path) -> (EmbeddedJournal, Recovery) {
    EmbeddedJournal::open(dir, options(Durability::Disk)).unwrap()
}

fn salvage(dir: &Path, durable_to: u64) -> (EmbeddedJournal, Recovery) {
    let options =
        Options { salvage: true, durable_to: Position(durable_to), ..options(Durability::Disk) };
    EmbeddedJournal::open(dir, options).unwrap()
}

fn record(number: i64) -> Record {
    let identifier = Identifier::new(Namespace::new("user_id").unwrap(), &"x".repeat(40)).unwrap();
    // Its last bytes are not zeros, so that a tail of zeros is never what was written.
    Record::Choice(Choice { identifier, opted_out: true, received: !number })
}

fn batch(numbers: impl IntoIterator<Item = i64>) -> Batch {
    let mut batch = Batch::new();
    for number in numbers {
        batch.push(&record(number)).unwrap();
    }
    batch
}

fn append(journal: &EmbeddedJournal, number: i64) -> u64 {
    journal.append(&batch([number])).unwrap().end.0
}

/// Record numbers and what the records say, from the beginning.
fn read(journal: &EmbeddedJournal) -> Vec<(u64, i64)> {
    let mut reader = journal.reader(journal.begin());
    let mut seen = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        for item in frame.records() {
            let (number, bytes) = item.unwrap();
            let Record::Choice(choice) = Record::decode(bytes).unwrap() else { panic!() };
            seen.push((number, !choice.received));
        }
        assert_eq!(reader.position(), frame.end);
    }
    assert_eq!(reader.position(), journal.end());
    seen
}

fn said(journal: &EmbeddedJournal) -> Vec<i64> {
    read(journal).into_iter().map(|(_, said)| said).collect()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn flip(file: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// One file with frames that say 0, 1, 2 …, and where each ends.
fn one_file(frames: i64) -> (tempfile::TempDir, PathBuf, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1 << 20, ..options(Durability::Disk) };
    let (journal, _) = EmbeddedJournal::open(dir.path(), options).unwrap();
    let ends = (0..frames).map(|number| append(&journal, number)).collect();
    let file = files(dir.path(), "log").remove(0);
    (dir, file, ends)
}

#[test]
fn it_keeps_the_contracts_of_the_port() {
    for durability in [Durability::Disk, Durability::DiskBuffered] {
        for contract in conformance::ALL {
            let dir = tempfile::tempdir().unwrap();
            let open = || {
                let (journal, _) = EmbeddedJournal::open(dir.path(), options(durability)).unwrap();
                Arc::new(journal) as Arc<dyn Journal>
            };
            contract(&Rig { open: &open, folded: &|_| {} });
        }
    }
}

#[test]
fn a_copy_holds_a_stretch_that_ends_with_a_frame_whatever_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let ends: Vec<_> = (0..40).map(|number| append(&journal, number)).collect();
    assert!(files(dir.path(), "log").len() > 3);
    for (from, to) in [(0, 40), (0, 1), (13, 29), (39, 40), (40, 40), (20, 20)] {
        let copy = tempfile::tempdir().unwrap();
        let at = |index: usize| index.checked_sub(1).map_or(0, |index| ends[index]);
        let (begin, end) = (Position(at(from)), Position(at(to)));
        let mut number = 40;
        let copied = journal.copy_to(copy.path(), begin, end, &mut |_| {
            append(&journal, number);
            number += 1;
            Ok(())
        });
        assert_eq!(copied.unwrap().unwrap().next_record, to as u64);
        let (copied, recovery) = open(&copy.path().join("journal"));
        assert_eq!((recovery.end, recovery.cut, recovery.skipped), (end, None, Vec::new()));
        let held = said(&copied);
        let expected: Vec<_> = (from..to).map(|number| i64::try_from(number).unwrap()).collect();
        assert!(held.ends_with(&expected), "{from} to {to}: {held:?}");
        append(&copied, 7);
        assert_eq!(copied.next_record(), to as u64 + 1);
    }
}

#[test]
fn a_copy_of_what_has_rotted_is_refused_with_the_file_named() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for number in 0..40 {
        append(&journal, number);
    }
    flip(&files(dir.path(), "log")[1], FILE_HEADER + 100);
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (journal.begin(), journal.end());
    let error = journal.copy_to(copy.path(), from, to, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, JournalError::Damaged(_)), "{error}");
    let file = files(dir.path(), "log").remove(1);
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[test]
fn whole_files_are_released_and_the_last_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for number in 0..60 {
        append(&journal, number);
    }
    assert!(files(dir.path(), "log").len() > 3);
    journal.release(journal.end()).unwrap();
    assert_eq!(files(dir.path(), "log").len(), 1);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    let (dir, file, ends) = one_file(3);
    for length in ends[1]..ends[2] {
        for zeroed in [false, true] {
            let dir = copy(dir.path());
            let file = dir.path().join(file.file_name().unwrap());
            let torn = fs::OpenOptions::new().write(true).open(&file).unwrap();
            torn.set_len(FILE_HEADER + length).unwrap();
            if zeroed {
                torn.set_len(FILE_HEADER + ends[2] + 100).unwrap();
            }
            let (journal, recovery) = open(dir.path());
            assert_eq!(recovery.cut.is_some(), zeroed || length > ends[1]);
            assert_eq!(said(&journal), [0, 1], "cut at {length}");
            append(&journal, 7);
            drop(journal);
            assert_eq!(read(&open(dir.path()).0), [(0, 0), (1, 1), (2, 7)]);
        }
    }
}

#[test]
fn a_flipped_bit_in_durable_frames_is_refused_and_can_be_skipped() {
    let (dir, file, ends) = one_file(4);
    for offset in ends[0]..ends[1] {
        let dir = copy(dir.path());
        let file = dir.path().join(file.file_name().unwrap());
        flip(&file, FILE_HEADER + offset);
        let error = EmbeddedJournal::open(dir.path(), options(Durability::Disk)).err().unwrap();
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()), "{text}");
        assert!(text.contains(&format!("positions {} to {}", ends[0], ends[1])), "{text}");
        assert!(text.contains("1 records") && text.contains("--salvage"), "{text}");

        let (journal, recovery) = salvage(dir.path(), 0);
        assert_eq!(recovery.skipped.len(), 1);
        assert_eq!(recovery.skipped[0].records, 1);
        assert_eq!(read(&journal), [(0, 0), (2, 2), (3, 3)]);
        assert_eq!(files(dir.path(), "damaged").len(), 1);
        append(&journal, 4);
        // A checkpoint may lie anywhere in what is skipped.
        let mut reader = journal.reader(Position(ends[1] - 1));
        assert_eq!(reader.next().unwrap().unwrap().first, 2);
        drop(reader);
        drop(journal);
        let (journal, recovery) = open(dir.path());
        assert_eq!((recovery.skipped.len(), said(&journal)), (0, vec![0, 2, 3, 4]));
    }
}

#[test]
fn damage_in_several_places_is_listed_and_skipped() {
    let (dir, file, ends) = one_file(8);
    for frame in [1, 2, 5] {
        flip(&file, FILE_HEADER + ends[frame] - 1);
    }
    let Err(JournalError::Damaged(damages)) =
        EmbeddedJournal::open(dir.path(), options(Durability::Disk))
    else {
        panic!("it must be refused")
    };
    let records: Vec<_> = damages.iter().map(|damage| damage.records).collect();
    assert_eq!(records, [2, 1]);
    assert_eq!(said(&salvage(dir.path(), 0).0), [0, 3, 4, 6, 7]);
}

#[test]
fn a_damaged_end_is_refused_where_the_checkpoint_lies_behind_it() {
    let (dir, file, ends) = one_file(3);
    flip(&file, FILE_HEADER + ends[2] - 1);
    let at_checkpoint = |durable_to| Options { durable_to, ..options(Durability::Disk) };
    let refused = EmbeddedJournal::open(dir.path(), at_checkpoint(Position(ends[2])));
    assert!(matches!(refused, Err(JournalError::Damaged(_))));

    let (journal, recovery) = salvage(dir.path(), ends[2]);
    assert_eq!(recovery.skipped[0].to, Position(ends[2]));
    assert_eq!(journal.end(), Position(ends[2]));
    append(&journal, 9);
    let seen = read(&journal);
    assert_eq!(seen.iter().map(|(_, said)| *said).collect::<Vec<_>>(), [0, 1, 9]);
    assert!(seen[2].0 > 2, "no number is given twice");
    drop(journal);
    let (journal, _) = EmbeddedJournal::open(dir.path(), at_checkpoint(Position(ends[2]))).unwrap();
    assert_eq!(read(&journal), seen);
}

#[test]
fn a_journal_that_ends_before_the_checkpoint_is_damaged() {
    for emptied in [false, true] {
        let (dir, file, ends) = one_file(3);
        if emptied {
            fs::remove_file(&file).unwrap();
        } else {
            let torn = fs::OpenOptions::new().write(true).open(&file).unwrap();
            torn.set_len(FILE_HEADER + ends[0]).unwrap();
        }
        let checkpoint = Options { durable_to: Position(ends[2]), ..options(Durability::Disk) };
        assert!(matches!(
            EmbeddedJournal::open(dir.path(), checkpoint),
            Err(JournalError::Damaged(_))
        ));
        let (journal, _) = salvage(dir.path(), ends[2]);
        assert_eq!(journal.end(), Position(ends[2]));
        assert!(journal.next_record() > 2);
        append(&journal, 5);
        let mut reader = journal.reader(Position(ends[2]));
        assert!(reader.next().unwrap().is_some());
    }
}

#[test]
fn damaged_and_missing_files_in_the_middle_are_refused_and_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let ends: Vec<_> = (0..60).map(|number| append(&journal, number)).collect();
    drop(journal);
    let logs = files(dir.path(), "log");
    assert!(logs.len() > 5);
    // The last frame of a file that is not the last: nothing in that file follows it.
    let second_ends = fs::metadata(&logs[1]).unwrap().len();
    flip(&logs[1], second_ends - 1);
    fs::remove_file(&logs[3]).unwrap();
    let Err(JournalError::Damaged(damages)) =
        EmbeddedJournal::open(dir.path(), options(Durability::Disk))
    else {
        panic!("it must be refused")
    };
    assert_eq!(damages.len(), 2);
    let (journal, recovery) = salvage(dir.path(), 0);
    let lost: u64 = recovery.skipped.iter().map(|damage| damage.records).sum();
    let seen = read(&journal);
    assert_eq!(seen.len() as u64 + lost, 60);
    assert!(seen.iter().all(|(number, said)| number.cast_signed() == *said));
    assert_eq!(journal.end().0, ends[59]);
    drop(journal);
    assert_eq!(read(&open(dir.path()).0), seen);
}

#[test]
fn one_damaged_copy_of_a_header_costs_nothing_and_two_are_refused() {
    let (dir, file, _) = one_file(2);
    flip(&file, 3);
    assert_eq!(said(&open(dir.path()).0), [0, 1]);
    flip(&file, 100);
    let error = EmbeddedJournal::open(dir.path(), options(Durability::Disk)).err().unwrap();
    assert!(error.to_string().contains("header is damaged"), "{error}");
}

#[test]
fn a_file_of_another_version_says_what_wrote_it() {
    let (dir, file, _) = one_file(1);
    let foreign = fs::OpenOptions::new().write(true).open(&file).unwrap();
    for copy in [0, 80] {
        foreign.write_all_at(&7u32.to_le_bytes(), copy + 8).unwrap();
        foreign.write_all_at(b"throng 9.2.0\0", copy + 12).unwrap();
    }
    let text =
        EmbeddedJournal::open(dir.path(), options(Durability::Disk)).err().unwrap().to_string();
    assert!(text.contains("throng 9.2.0 wrote it as journal format 7"), "{text}");
    assert!(text.contains("start throng 9.2.0 or a later version"), "{text}");
}

#[test]
fn a_copy_of_a_frame_in_a_torn_tail_is_no_evidence() {
    let (dir, file, ends) = one_file(3);
    let bytes = fs::read(&file).unwrap();
    let frame = |i: usize| {
        let at = |position: u64| usize::try_from(FILE_HEADER + position).unwrap();
        bytes[at(ends[i - 1])..at(ends[i])].to_vec()
    };
    // A batch whose header is lost, and whose payload holds a frame as a sender might have made it.
    let mut tail = vec![0; 40];
    tail.extend(frame(2));
    fs::OpenOptions::new().append(true).open(&file).unwrap();
    let out = fs::OpenOptions::new().write(true).open(&file).unwrap();
    out.write_all_at(&tail, bytes.len() as u64).unwrap();
    let (journal, recovery) = open(dir.path());
    assert_eq!(recovery.cut.unwrap().bytes, tail.len() as u64);
    assert_eq!(said(&journal), [0, 1, 2]);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    for room in [0, 1, 39, 40, 41, 90] {
        let dir = tempfile::tempdir().unwrap();
        let options = options(Durability::Disk);
        let faults = options.faults.clone();
        let (journal, _) = EmbeddedJournal::open(dir.path(), options).unwrap();
        append(&journal, 0);
        faults.room.store(room, Ordering::SeqCst);
        for _ in 0..2 {
            let refused = journal.append(&batch([1]));
            assert!(matches!(refused, Err(JournalError::Full(_))), "{refused:?}");
        }
        assert_eq!(said(&journal), [0]);
        faults.room.store(usize::MAX, Ordering::SeqCst);
        append(&journal, 2);
        assert_eq!(read(&journal), [(0, 0), (1, 2)]);
        drop(journal);
        let (journal, recovery) = open(dir.path());
        assert_eq!((recovery.cut, said(&journal)), (None, vec![0, 2]));
    }
}

#[test]
fn a_journal_that_refused_says_so_until_there_is_room_whether_it_is_written_to_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(Durability::Disk);
    let faults = options.faults.clone();
    let (journal, _) = EmbeddedJournal::open(dir.path(), options).unwrap();
    append(&journal, 0);
    assert_eq!(journal.trouble(), None);
    faults.room.store(0, Ordering::SeqCst);
    assert!(journal.append(&batch([1])).is_err());
    assert!(journal.trouble().unwrap().contains("full"));
    assert!(journal.trouble().is_some());
    faults.room.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(journal.trouble(), None);
    assert_eq!(said(&journal), [0]);
    // Nothing of the trial is left.
    let files = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
    assert!(files.into_iter().all(|file| file.extension().is_some_and(|e| e == "log")));
}

#[test]
fn a_disk_that_fills_at_the_change_of_files_goes_on_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(Durability::Disk);
    let faults = options.faults.clone();
    let (journal, _) = EmbeddedJournal::open(dir.path(), options).unwrap();
    let mut last = 0;
    while journal.end().0 + 120 <= 1000 {
        append(&journal, last);
        last += 1;
    }
    faults.room.store(0, Ordering::SeqCst);
    assert!(matches!(journal.append(&batch([last, last])), Err(JournalError::Full(_))));
    faults.room.store(usize::MAX, Ordering::SeqCst);
    for number in last..40 {
        append(&journal, number);
    }
    assert_eq!(said(&journal), (0..40).collect::<Vec<_>>());
    assert_eq!(files(dir.path(), "new").len(), 0);
}

#[test]
fn a_failed_sync_stops_the_journal_and_is_not_tried_again() {
    for durability in [Durability::Disk, Durability::DiskBuffered] {
        let dir = tempfile::tempdir().unwrap();
        let calls = Arc::new(AtomicU64::new(0));
        let counted = calls.clone();
        let options = Options {
            on_fatal: Arc::new(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
            ..options(durability)
        };
        let faults = options.faults.clone();
        let (journal, _) = EmbeddedJournal::open(dir.path(), options).unwrap();
        append(&journal, 0);
        journal.sync(journal.end()).unwrap();
        faults.sync_fails.store(true, Ordering::SeqCst);
        let appended = journal.append(&batch([1]));
        let synced = journal.sync(journal.end());
        assert!(matches!(synced, Err(JournalError::Stopped)));
        assert_eq!(appended.is_err(), durability == Durability::Disk);
        let syncs = faults.syncs.load(Ordering::SeqCst);
        faults.sync_fails.store(false, Ordering::SeqCst);
        assert!(matches!(journal.append(&batch([2])), Err(JournalError::Stopped)));
        assert!(matches!(journal.sync(journal.end()), Err(JournalError::Stopped)));
        drop(journal);
        assert_eq!(faults.syncs.load(Ordering::SeqCst), syncs);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_segment_whose_name_may_not_be_durable_stops_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let options = Options {
        on_fatal: Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        }),
        ..options(Durability::Disk)
    };
    let faults = options.faults.clone();
    let (journal, _) = EmbeddedJournal::open(dir.path(), options).unwrap();
    faults.folder_sync_fails.store(true, Ordering::SeqCst);
    let mut kept = Vec::new();
    while let Ok(appended) = journal.append(&batch([kept.len() as i64])) {
        kept.push(appended.end.0);
    }
    faults.folder_sync_fails.store(false, Ordering::SeqCst);
    // A frame that still fits the segment before would lie under the new one.
    assert!(matches!(journal.append(&batch([0])), Err(JournalError::Stopped)));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    drop(journal);
    let (journal, _) = open(dir.path());
    assert_eq!(said(&journal), (0..kept.len() as i64).collect::<Vec<_>>());
}

/// A small generator, so that a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn after_a_power_loss_every_acknowledged_frame_is_there() {
    for seed in 1..150 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let dir = tempfile::tempdir().unwrap();
        // Three lives: each ends in a power loss that keeps any part of what was not synced.
        let mut acknowledged = BTreeSet::new();
        let mut number = 0;
        for _ in 0..3 {
            let options = Options { segment_bytes: 3000, ..Options::new(Durability::DiskBuffered) };
            let (journal, _) = EmbeddedJournal::open(dir.path(), options)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let seen: BTreeSet<_> = said(&journal).into_iter().collect();
            assert!(seen.is_superset(&acknowledged), "seed {seed}");
            acknowledged = seen;
            let mut pending = Vec::new();
            for _ in 0..dice.below(40) {
                let count = 1 + dice.below(6);
                let many: Vec<_> = (0..count).map(|i| number + i.cast_signed()).collect();
                number += count.cast_signed();
                journal.append(&batch(many.iter().copied())).unwrap();
                pending.extend(many);
                if dice.below(4) == 0 {
                    journal.sync(journal.end()).unwrap();
                    acknowledged.extend(pending.drain(..));
                }
            }
            // The thread that syncs in the background may have done so since.
            let synced = journal.shared.synced.load(Ordering::SeqCst);
            let last = files(dir.path(), "log").pop().unwrap();
            let start: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let kept = FILE_HEADER + synced.saturating_sub(start);
            drop(journal);
            let mut image = fs::read(&last).unwrap();
            let kept = usize::try_from(kept).unwrap();
            for block in image[kept..].chunks_mut(64) {
                match dice.below(4) {
                    0 => block.fill(0),
                    1 => block.iter_mut().for_each(|b| *b = dice.below(256).to_le_bytes()[0]),
                    _ => {}
                }
            }
            let cut = dice.below((image.len() - kept) as u64 + 1);
            image.truncate(kept + usize::try_from(cut).unwrap());
            fs::write(&last, image).unwrap();
        }
        let (journal, _) = open(dir.path());
        let seen = said(&journal);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "seed {seed}");
        assert!(acknowledged.iter().all(|number| seen.contains(number)), "seed {seed}");
    }
}

#[test]
fn a_journal_that_goes_on_where_another_ended_begins_there_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("journal");
    EmbeddedJournal::begin_at(&folder, Position(4_711), 99).unwrap();
    let options = Options { durable_to: Position(4_711), ..Options::new(Durability::Disk) };
    let (journal, _) = EmbeddedJournal::open(&folder, options).unwrap();
    assert_eq!((journal.begin(), journal.end()), (Position(4_711), Position(4_711)));
    assert_eq!(journal.next_record(), 99);
    let mut batch = Batch::new();
    batch.push(&choice()).unwrap();
    journal.append(&batch).unwrap();
    let frame = journal.reader(Position(4_711)).next().unwrap().unwrap();
    assert_eq!((frame.start, frame.first), (Position(4_711), 99));
    assert!(matches!(
        EmbeddedJournal::begin_at(&folder, Position(0), 0),
        Err(JournalError::Foreign { .. })
    ));
}

fn choice() -> Record {
    let identifier = Identifier::new(Namespace::new("cookie").unwrap(), "a").unwrap();
    Record::Choice(Choice { identifier, opted_out: true, received: 1 })
}
