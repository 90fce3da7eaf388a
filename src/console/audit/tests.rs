use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

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

/// A log that takes nothing while it is full.
struct Full(embedded::AuditLog, AtomicBool);

impl AuditLog for Full {
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
    let log = Arc::new(Full(embedded::AuditLog::open(data.path()).unwrap(), AtomicBool::new(true)));
    let clock = Arc::new(SystemClock::default());
    let audit = Audit::new(log.clone(), clock, Box::new(|| Ok([7; 32])));
    assert!(matches!(audit.write(&entry("a")), Err(StoreError::Full { .. })));
    log.1.store(false, Ordering::Relaxed);
    assert_eq!(audit.write(&entry("b")).unwrap(), 1);
    assert_eq!(audit.check(&|| true).unwrap().records, 1);
}
