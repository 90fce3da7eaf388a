use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::net::SystemClock;
use crate::store::embedded;

fn open(data: &Path) -> Audit {
    let log = Arc::new(embedded::AuditLog::open(data).unwrap());
    let key = key_of_directory(data).unwrap();
    Audit::new(log, Arc::new(SystemClock::default()), Box::new(move || Ok(key)))
}

fn entry(action: &str) -> Entry {
    Entry { action: action.to_owned(), outcome: "begun".to_owned(), ..Entry::default() }
}

fn broken(audit: &Audit) -> (u64, String) {
    match audit.check(&|| true) {
        Err(CheckError::Broken(Broken { number, why })) => (number, why),
        other => panic!("{other:?}"),
    }
}

/// The one file of the log.
fn file(data: &Path) -> std::path::PathBuf {
    data.join("audit/00000000000000000001.ndjson")
}

#[test]
fn a_log_is_whole_until_somebody_touches_it() {
    let data = tempfile::tempdir().unwrap();
    let audit = open(data.path());
    assert_eq!(audit.check(&|| true).unwrap(), Checked::default());
    for action in ["a", "b", "c", "d"] {
        audit.write(&entry(action)).unwrap();
    }
    let checked = open(data.path()).check(&|| true).unwrap();
    assert_eq!((checked.first, checked.records), (Some(1), 4));
    let whole = fs::read_to_string(file(data.path())).unwrap();
    let tampered = |text: &str| {
        fs::write(file(data.path()), text).unwrap();
        broken(&open(data.path())).0
    };
    assert_eq!(tampered(&whole.replacen("\"b\"", "\"x\"", 1)), 2);
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(tampered(&format!("{}\n{}\n{}\n", lines[0], lines[2], lines[3])), 3);
    assert_eq!(tampered(&format!("{}\n{}\n", lines[0], lines[1])), 3);
    assert_eq!(tampered(""), 1);
    fs::write(file(data.path()), &whole).unwrap();
    assert!(open(data.path()).check(&|| true).is_ok());
}

#[test]
fn a_log_that_was_cut_off_stays_broken_whatever_is_written_behind_it() {
    let data = tempfile::tempdir().unwrap();
    let audit = open(data.path());
    for action in ["a", "b", "c"] {
        audit.write(&entry(action)).unwrap();
    }
    drop(audit);
    let whole = fs::read_to_string(file(data.path())).unwrap();
    let first = whole.lines().next().unwrap();
    fs::write(file(data.path()), format!("{first}\n")).unwrap();
    let audit = open(data.path());
    assert_eq!(audit.write(&entry("d")).unwrap(), 4);
    assert_eq!(broken(&audit), (4, "record 2 is missing before it".to_owned()));
}

#[test]
fn a_seal_that_is_gone_or_made_without_the_key_is_told() {
    let data = tempfile::tempdir().unwrap();
    open(data.path()).write(&entry("a")).unwrap();
    fs::rename(data.path().join(KEY), data.path().join("away")).unwrap();
    assert_eq!(broken(&open(data.path())).1, "the seal was made with another key");
    fs::rename(data.path().join("away"), data.path().join(KEY)).unwrap();
    fs::remove_file(data.path().join("audit.seal")).unwrap();
    assert!(broken(&open(data.path())).1.contains("no seal"));
}

#[test]
fn a_start_is_recorded_where_its_settings_are_others() {
    let data = tempfile::tempdir().unwrap();
    let audit = open(data.path());
    for settings in ["one", "one", "two", "two"] {
        audit.start(data.path(), "here", settings.as_bytes()).unwrap();
    }
    let lines = audit.log.lines(0, 10).unwrap();
    let records: Vec<Record> =
        lines.iter().map(|(_, line)| serde_json::from_str(line).unwrap()).collect();
    let [first, second] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&first.before, &first.after), (&None, &Some(hex(&Sha256::digest("one")))));
    assert_eq!(second.before, first.after);
    assert_eq!(second.action, "start");
}

/// Four records.
fn four(data: &Path) -> Vec<Record> {
    let audit = open(data);
    for action in ["a", "b", "c", "d"] {
        audit.write(&entry(action)).unwrap();
    }
    let lines = audit.log.lines(0, 10).unwrap();
    lines.iter().map(|(_, line)| serde_json::from_str(line).unwrap()).collect()
}

/// Writes records as who has no key can: numbered, chained and hashed anew from `first` on.
fn forge(data: &Path, first: u64, mut records: Vec<Record>) {
    let mut text = String::new();
    let mut previous = NOTHING.to_owned();
    for (number, record) in (first..).zip(&mut records) {
        record.number = number;
        if number > first || first == 1 {
            record.previous = previous;
        }
        record.hash = record.right_hash();
        previous = record.hash.clone();
        text += &format!("{number} {}\n", record.line());
    }
    fs::write(file(data), text).unwrap();
}

/// Where the log is broken, at once and however much is written behind it.
fn stays_broken(data: &Path) -> (u64, String) {
    let found = broken(&open(data));
    for _ in 0..3 {
        open(data).write(&entry("later")).unwrap();
        assert!(broken(&open(data)).0 <= found.0.max(6), "{found:?}");
    }
    found
}

#[test]
fn a_log_that_was_written_without_the_key_is_broken_and_stays_so() {
    let another = |mut record: Record| {
        record.actor = "alice".to_owned();
        record
    };
    let unmarked = |record: Record| Record { mac: None, ..record };
    let last_twice = |mut records: Vec<Record>| {
        records.push(records[3].clone());
        records
    };
    type Change<'a> = &'a dyn Fn(Vec<Record>) -> Vec<Record>;
    let changes: [(u64, u64, Change<'_>); 7] = [
        // All of them, as many as there were, more, or fewer.
        (1, 1, &|all| all.into_iter().map(another).collect()),
        (1, 1, &|all| last_twice(all.into_iter().map(another).collect())),
        (1, 1, &|all| last_twice(all.into_iter().map(another).map(unmarked).collect())),
        (1, 1, &|all| all.into_iter().take(2).map(another).collect()),
        // One more, which fits those before it.
        (1, 5, &last_twice),
        // The oldest are cut off.
        (3, 1, &|all| all[2..].to_vec()),
        (4, 1, &|all| all[3..].to_vec()),
    ];
    for (first, place, change) in changes {
        let data = tempfile::tempdir().unwrap();
        let records = four(data.path());
        assert!(open(data.path()).check(&|| true).is_ok());
        forge(data.path(), first, change(records));
        assert_eq!(stays_broken(data.path()).0, place);
    }
}

#[test]
fn a_log_that_was_removed_is_told_and_stays_broken() {
    // A server that has recorded nothing is whole.
    let data = tempfile::tempdir().unwrap();
    assert!(open(data.path()).check(&|| true).is_ok());
    assert!(open(data.path()).check(&|| true).is_ok());
    let seal = |data: &Path| data.join(AUDIT_SEAL);
    type Remove<'a> = &'a dyn Fn(&Path);
    let all: [(u64, &str, Remove<'_>); 4] = [
        (1, "it went to record 4", &|data| fs::remove_file(file(data)).unwrap()),
        (1, "neither the log nor its seal", &|data| {
            fs::remove_file(file(data)).unwrap();
            fs::remove_file(seal(data)).unwrap();
        }),
        (4, "there is no seal", &|data| fs::remove_file(seal(data)).unwrap()),
        (4, "the seal cannot be read", &|data| fs::write(seal(data), "{}").unwrap()),
    ];
    for (place, why, remove) in all {
        let data = tempfile::tempdir().unwrap();
        four(data.path());
        remove(data.path());
        let found = stays_broken(data.path());
        assert!(found.0 == place && found.1.contains(why), "{found:?}");
    }
    // A log of nothing has to have a seal, too.
    let data = tempfile::tempdir().unwrap();
    drop(open(data.path()));
    fs::remove_file(seal(data.path())).unwrap();
    assert_eq!(stays_broken(data.path()).0, 1);
}

#[test]
fn what_was_written_before_there_were_marks_is_vouched_for_by_what_came_after() {
    let data = tempfile::tempdir().unwrap();
    let before = || four(data.path()).into_iter().map(|one| Record { mac: None, ..one }).collect();
    let records: Vec<Record> = before();
    forge(data.path(), 1, records.clone());
    let key = key_of_directory(data.path()).unwrap();
    let hash = records[3].hash.clone();
    let mut old = Seal { number: 4, hash, first: None, unmarked: 0, mac: String::new() };
    old.mac = old.right_mac(&key);
    let old = json!({ "number": 4, "hash": old.hash, "mac": old.mac });
    fs::write(data.path().join(AUDIT_SEAL), old.to_string()).unwrap();
    assert!(open(data.path()).check(&|| true).is_ok());
    for number in 5..8 {
        assert_eq!(open(data.path()).write(&entry("new")).unwrap(), number);
        assert_eq!(open(data.path()).check(&|| true).unwrap().records, number);
    }
    let lines = open(data.path()).log.lines(0, 10).unwrap();
    let mut all: Vec<Record> =
        lines.iter().map(|(_, line)| serde_json::from_str(line).unwrap()).collect();
    all[1].actor = "alice".to_owned();
    forge(data.path(), 1, all);
    assert_eq!(stays_broken(data.path()).0, 5);
}

#[test]
fn only_what_the_server_gave_up_may_be_missing_at_the_beginning() {
    let data = tempfile::tempdir().unwrap();
    let key = key_of_directory(data.path()).unwrap();
    let log = embedded::AuditLog::open(data.path()).unwrap();
    let log = Arc::new(Full(log, AtomicBool::new(false), AtomicU64::new(0)));
    let clock = Arc::new(SystemClock::default());
    let audit = Audit::new(log.clone(), clock, Box::new(move || Ok(key)));
    for number in 1..=4 {
        log.2.store(number - 1, Ordering::Relaxed);
        audit.write(&entry("a")).unwrap();
    }
    // Given up are one and two; that they are still there is no fault.
    let whole = fs::read_to_string(file(data.path())).unwrap();
    assert_eq!(audit.check(&|| true).unwrap().first, Some(1));
    let from = |first: usize| {
        let lines: Vec<&str> = whole.lines().skip(first - 1).collect();
        fs::write(file(data.path()), format!("{}\n", lines.join("\n"))).unwrap();
        open(data.path())
    };
    assert_eq!(from(3).check(&|| true).unwrap().first, Some(3));
    assert_eq!(broken(&from(4)), (3, "it is missing: the log begins with record 4".to_owned()));
}

/// A log that takes nothing while it is full, and keeps what is from a number on.
struct Full(embedded::AuditLog, AtomicBool, AtomicU64);

impl AuditLog for Full {
    fn keep_from(&self, _: u64) -> Result<Option<u64>, StoreError> {
        Ok(Some(self.2.load(Ordering::Relaxed)).filter(|from| *from > 1))
    }

    fn give_up(&self, before: u64) -> Result<(), StoreError> {
        self.0.give_up(before)
    }

    fn append(&self, number: u64, line: &str) -> Result<bool, StoreError> {
        if self.1.load(Ordering::Relaxed) {
            let source = Box::new(io::Error::from(io::ErrorKind::StorageFull));
            return Err(StoreError::Full { what: "it".to_owned(), source });
        }
        self.0.append(number, line)
    }

    fn lines(&self, after: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
        self.0.lines(after, limit)
    }

    fn walk(&self, each: &mut dyn FnMut(u64, String) -> bool) -> Result<(), StoreError> {
        self.0.walk(each)
    }

    fn last(&self) -> Result<Option<(u64, String)>, StoreError> {
        self.0.last()
    }

    fn put_seal(&self, seal: &str) -> Result<(), StoreError> {
        self.0.put_seal(seal)
    }

    fn seal(&self) -> Result<Option<String>, StoreError> {
        self.0.seal()
    }
}

#[test]
fn what_cannot_be_written_is_an_error_and_leaves_the_log_whole() {
    let data = tempfile::tempdir().unwrap();
    let key = key_of_directory(data.path()).unwrap();
    let log = embedded::AuditLog::open(data.path()).unwrap();
    let log = Arc::new(Full(log, AtomicBool::new(true), AtomicU64::new(0)));
    let clock = Arc::new(SystemClock::default());
    let audit = Audit::new(log.clone(), clock, Box::new(move || Ok(key)));
    assert!(matches!(audit.write(&entry("a")), Err(StoreError::Full { .. })));
    log.1.store(false, Ordering::Relaxed);
    assert_eq!(audit.write(&entry("b")).unwrap(), 1);
    assert_eq!(audit.check(&|| true).unwrap().records, 1);
}

/// A log of so many records, written at once; its lines.
fn long(data: &Path, count: u64) -> Vec<String> {
    let audit = open(data);
    let (mut lines, mut previous) = (Vec::new(), NOTHING.to_owned());
    let mut record = four(tempfile::tempdir().unwrap().path()).remove(0);
    for number in 1..=count {
        record = Record { number, previous, ..record };
        record.hash = record.right_hash();
        record.mac = Some(audit.mark(&record).unwrap());
        previous = record.hash.clone();
        lines.push(format!("{number} {}", record.line()));
    }
    let mut seal =
        Seal { number: count, hash: previous, first: Some(1), unmarked: 0, mac: String::new() };
    seal.mac = seal.right_mac(audit.key().unwrap());
    audit.log.put_seal(&serde_json::to_string(&seal).unwrap()).unwrap();
    fs::write(file(data), lines.join("\n") + "\n").unwrap();
    lines
}

#[test]
fn what_does_not_follow_on_is_found_however_far_into_a_log_it_lies() {
    let data = tempfile::tempdir().unwrap();
    let lines = long(data.path(), 2_100);
    assert_eq!(open(data.path()).check(&|| true).unwrap().records, 2_100);
    let forged = |number: usize| {
        lines[number - 1].replacen("operator", "mallory", 1).replacen("\"a\"", "\"x\"", 1)
    };
    assert_ne!(forged(1_000), lines[999]);
    // Put behind a record, with its number, a lesser one, or none at all.
    for (behind, put, place) in [
        (1_000, forged(1_000), 1_000),
        (1_000, lines[999].clone(), 1_000),
        (1_500, lines[2].clone(), 3),
        (2_000, forged(1), 1),
        (1_000, "nothing".to_owned(), 1_001),
        (2_100, "\u{0}".to_owned(), 2_101),
    ] {
        let mut lines = lines.clone();
        lines.insert(behind, put);
        fs::write(file(data.path()), lines.join("\n") + "\n").unwrap();
        assert_eq!(broken(&open(data.path())).0, place);
    }
    // A second file has a copy of what the first is changed in.
    let other = data.path().join("audit/00000000000000001000.ndjson");
    fs::write(&other, lines[1_000..].join("\n") + "\n").unwrap();
    let mut changed = lines.clone();
    changed[1_004] = forged(1_005);
    fs::write(file(data.path()), changed.join("\n") + "\n").unwrap();
    assert_eq!(broken(&open(data.path())).0, 1_005);
    fs::write(file(data.path()), lines.join("\n") + "\n").unwrap();
    assert_eq!(broken(&open(data.path())).0, 1_001);
    // Half a line has nothing behind it.
    fs::write(file(data.path()), lines[..1_000].join("\n") + "\n1001 {").unwrap();
    assert_eq!(broken(&open(data.path())).0, 1_001);
    // An empty file hides nothing.
    fs::write(&other, "").unwrap();
    fs::write(file(data.path()), lines.join("\n") + "\n").unwrap();
    let audit = open(data.path());
    assert_eq!(audit.check(&|| true).unwrap().records, 2_100);
    assert_eq!(audit.log.lines(1_000, 2_000).unwrap().len(), 1_100);
    // Nor does a lesser number at the end.
    fs::write(file(data.path()), lines.join("\n") + "\n5 {}\n").unwrap();
    assert_eq!(open(data.path()).log.lines(1_000, 2_000).unwrap().len(), 1_100);
}

#[test]
fn a_record_that_was_not_written_here_is_not_told_as_one() {
    let data = tempfile::tempdir().unwrap();
    let mut records = four(data.path());
    records[1].actor = "mallory".to_owned();
    records[1].hash = records[1].right_hash();
    let number = 4;
    let mut lines: Vec<(u64, String)> =
        records.iter().map(|record| (record.number, record.line())).collect();
    lines.push((number, "nothing".to_owned()));
    lines.push((5, records[3].line()));
    lines.push((3, records[2].line()));
    let (told, others) = open(data.path()).told(&lines).unwrap();
    assert!(told.iter().map(|record| record.number).eq([1, 3, 4]));
    assert_eq!(others, [2, 4, 5, 3]);
}

#[test]
fn a_file_that_is_removed_or_replaced_meanwhile_loses_no_record_of_afterwards() {
    let later = |audit: &Audit, data: &Path| {
        let number = audit.write(&entry("later")).unwrap();
        let again = open(data);
        let lines = again.log.lines(0, 99).unwrap();
        assert!(
            lines.iter().any(|(at, line)| *at == number && line.contains("later")),
            "{lines:?}"
        );
        assert_eq!(audit.write(&entry("last")).unwrap(), number + 1);
        again
    };
    // Removed: what was in it is told to be missing.
    let data = tempfile::tempdir().unwrap();
    four(data.path());
    let audit = open(data.path());
    fs::remove_file(file(data.path())).unwrap();
    let again = later(&audit, data.path());
    assert_eq!(broken(&again), (1, "it is missing: the log begins with record 5".to_owned()));
    // Replaced by a copy of it: nothing is missing.
    let data = tempfile::tempdir().unwrap();
    four(data.path());
    let audit = open(data.path());
    let copy = data.path().join("copy");
    fs::copy(file(data.path()), &copy).unwrap();
    fs::rename(&copy, file(data.path())).unwrap();
    let again = later(&audit, data.path());
    assert_eq!(again.check(&|| true).unwrap().records, 6);
    // Half a line, or a cut, is in the way of none.
    for text in ["half", ""] {
        let data = tempfile::tempdir().unwrap();
        four(data.path());
        let audit = open(data.path());
        let whole = fs::read_to_string(file(data.path())).unwrap();
        let text = if text.is_empty() { String::new() } else { whole + text };
        fs::write(file(data.path()), text).unwrap();
        broken(&later(&audit, data.path()));
    }
    // Without its folder nothing can be written down.
    let data = tempfile::tempdir().unwrap();
    four(data.path());
    let audit = open(data.path());
    fs::remove_dir_all(data.path().join("audit")).unwrap();
    assert!(matches!(audit.write(&entry("none")), Err(StoreError::Unavailable { .. })));
}
