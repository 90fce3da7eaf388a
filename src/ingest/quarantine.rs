//! Identifiers that are set aside because they kept sending, and the events that are kept of them until they are restored.
//!
//! The identifiers are in `<data>/quarantine.json`, their events in a journal of their own beside it, of which so much is
//! kept at most; what is beyond is not taken. Restoring puts the events into the journal that is folded, as received then, and so
//! that nothing counts twice where it has to be done again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::RwLock;
use serde::Deserialize;
use serde::Serialize;

use crate::config::Durability;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Record;
use crate::model::hex;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::journal::Options;
use crate::store::embedded::write_small_file;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::Position;
use crate::store::journal::Sink;

/// The events in the data directory.
const FOLDER: &str = "quarantine";
/// The identifiers in the data directory.
const FILE: &str = "quarantine.json";
/// The most bytes of events that are kept.
const MOST_BYTES: u64 = 256 << 20;
/// The most identifiers that are set aside; further ones are limited, and no more than that.
const MOST_IDS: usize = 10_000;
/// How large a file of events grows: those that hold nothing any more are deleted.
const SEGMENT: u64 = 4 << 20;
/// Events that are put back at once.
const PART: u32 = 1_000;

/// Why the quarantine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// Its list cannot be read or written.
    #[error("the list of what is set aside, {}, cannot be used: is its disk full, or is it of another program?", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its events cannot be read, or not be put back now.
    #[error("the events that were set aside stay where they are")]
    Events(#[from] JournalError),
}

/// What is set aside, by identifier.
pub struct Quarantine {
    path: PathBuf,
    journal: EmbeddedJournal,
    kept: RwLock<Kept>,
    /// How many are set aside: most processes have none, and need not look.
    count: AtomicUsize,
    /// One is restored at a time.
    restoring: Mutex<()>,
}

/// What the file holds.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Identifiers that are set aside, each with the time since when.
    aside: BTreeMap<String, Millis>,
    /// Of an identifier what lies before this position was put back.
    restored: BTreeMap<String, u64>,
}

impl Kept {
    fn is_empty(&self) -> bool {
        self.aside.is_empty() && self.restored.is_empty()
    }
}

/// One identifier that is set aside, or of which events are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// Its namespace.
    pub namespace: String,
    /// Its value.
    pub value: String,
    /// Since when it is set aside, in milliseconds; `None` where its events alone are left.
    pub since: Option<Millis>,
    /// Events of it that are kept.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Quarantine {
    /// Opens what a data directory holds.
    pub fn open(data: &Path) -> Result<Self, QuarantineError> {
        let path = data.join(FILE);
        let list = |source| QuarantineError::List { path: path.clone(), source };
        let kept: Kept = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from).map_err(list)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(list(error)),
        };
        let mut options = Options::new(Durability::Disk);
        options.segment_bytes = SEGMENT;
        let (journal, _) = EmbeddedJournal::open(&data.join(FOLDER), options)?;
        let count = AtomicUsize::new(kept.aside.len());
        let (kept, restoring) = (RwLock::new(kept), Mutex::default());
        Ok(Self { path, journal, kept, count, restoring })
    }

    /// Whether an identifier is set aside.
    pub fn holds(&self, identifier: &Identifier) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.kept.read().aside.contains_key(&name(identifier))
    }

    /// Sets an identifier aside; tells whether there is room for it. Blocks for as long as its list is written.
    pub fn set_aside(&self, identifier: &Identifier, now: Millis) -> bool {
        let set = self.change(|kept| {
            let has_room = kept.aside.len() < MOST_IDS;
            if has_room {
                kept.aside.entry(name(identifier)).or_insert(now);
            }
            has_room
        });
        match set {
            Ok(set) => set,
            Err(error) => {
                tracing::error!(error = %crate::store::chain(&error), "nobody can be set aside");
                false
            }
        }
    }

    /// Makes an event ready to be kept: it has to be the same when it is put back twice.
    pub fn prepare(event: &mut Event) {
        if event.message_id.is_none() {
            let mut bytes = [0; 16];
            // Without random bytes it has none, and could count twice after a crash at the wrong moment.
            if getrandom::fill(&mut bytes).is_ok() {
                event.message_id = Some(format!("aside-{}", hex(&bytes)).into());
            }
        }
    }

    /// Who is set aside, and of whom events are kept. Reads all of them.
    pub fn list(&self) -> Result<Vec<Aside>, QuarantineError> {
        let kept = self.kept.read().clone();
        let mut found: BTreeMap<String, Aside> = BTreeMap::new();
        for (of, since) in &kept.aside {
            found.insert(of.clone(), Aside { since: Some(*since), ..of_name(of) });
        }
        self.each(Position(0), |start, event, bytes| {
            let of = name(event.owner());
            if is_held(&kept, &of, start) {
                let aside = found.entry(of).or_insert_with_key(|of| of_name(of));
                aside.events += 1;
                aside.bytes += bytes;
            }
            Ok(())
        })?;
        Ok(found.into_values().collect())
    }

    /// The events that are kept and not put back which `is_of` takes, in the order in which they came. Reads all of them.
    pub fn events_of(&self, is_of: &dyn Fn(&Event) -> bool) -> Result<Vec<Event>, QuarantineError> {
        let kept = self.kept.read().clone();
        let mut found = Vec::new();
        self.each(Position(0), |start, event, _| {
            if is_held(&kept, &name(event.owner()), start) && is_of(&event) {
                found.push(event);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Since when an identifier is set aside, where it is.
    pub fn since(&self, identifier: &Identifier) -> Option<Millis> {
        self.kept.read().aside.get(&name(identifier)).copied()
    }

    /// What tells this quarantine from those of other data directories.
    pub fn id(&self) -> String {
        hex(&self.journal.salt())
    }

    /// Takes an identifier back, and puts its events into the journal that is folded; tells how many, `None` of one of
    /// which nothing is known here. Where it fails it can be done again: nothing counts twice.
    pub fn restore(
        &self,
        identifier: &Identifier,
        to: &dyn Sink,
        now: Millis,
    ) -> Result<Option<u64>, QuarantineError> {
        let _one_at_a_time = self.restoring.lock();
        let of = name(identifier);
        let was_aside = self.change(|kept| kept.aside.remove(&of).is_some())?;
        let mut restored = 0;
        // Once more for what came in while the first were read.
        loop {
            let end = self.journal.end();
            let count = self.put_back(&of, to, now)?;
            self.change(|kept| kept.restored.insert(of.clone(), end.0))?;
            restored += count;
            if count == 0 {
                break;
            }
        }
        self.clear()?;
        Ok((was_aside || restored > 0).then_some(restored))
    }

    /// Erases the events that are of someone, and who of those set aside that is; tells how many events. What is left is
    /// written anew, so that nothing of theirs lies in any file.
    pub fn erase(
        &self,
        is_of: &dyn Fn(&Event) -> bool,
        is_it: &dyn Fn(&Identifier) -> bool,
    ) -> Result<u64, QuarantineError> {
        let _one_at_a_time = self.restoring.lock();
        if self.kept.read().is_empty() && self.journal.begin() == self.journal.end() {
            return Ok(0);
        }
        let is_named = |of: &str| {
            let (namespace, value) = of.split_once(':').unwrap_or((of, ""));
            let identifier =
                Namespace::new(namespace).ok().map(|name| Identifier::new(name, value));
            identifier.and_then(Result::ok).is_some_and(|identifier| is_it(&identifier))
        };
        let erased = self.rewrite(is_of)?;
        self.change(|kept| {
            kept.aside.retain(|of, _| !is_named(of));
            kept.restored.retain(|of, _| !is_named(of));
        })?;
        Ok(erased)
    }

    /// Gives up the events of days before one, and who of those set aside has sent nothing since; tells how many events.
    pub fn expire(&self, first: Day) -> Result<u64, QuarantineError> {
        let _one_at_a_time = self.restoring.lock();
        if self.kept.read().is_empty() && self.journal.begin() == self.journal.end() {
            return Ok(0);
        }
        let expired = self.rewrite(&|event| day_of(event.time) < first)?;
        let mut left = BTreeSet::new();
        self.each(Position(0), |_, event, _| {
            left.insert(name(event.owner()));
            Ok(())
        })?;
        self.change(|kept| {
            kept.aside.retain(|of, since| day_of(*since) >= first || left.contains(of));
            kept.restored.retain(|of, _| left.contains(of));
        })?;
        Ok(expired)
    }

    /// Writes the events that are held anew without those that are to go, where there are any; tells how many go.
    fn rewrite(&self, is_gone: &dyn Fn(&Event) -> bool) -> Result<u64, QuarantineError> {
        let mut gone = 0;
        self.each(Position(0), |_, event, _| {
            gone += u64::from(is_gone(&event));
            Ok(())
        })?;
        if gone == 0 {
            return Ok(0);
        }
        self.journal.roll()?;
        let (end, kept) = (self.journal.end(), self.kept.read().clone());
        // After a crash in between, what is there twice is put back twice and counts once.
        let mut batch = Batch::new();
        self.each(Position(0), |start, event, _| {
            let is_left = start < end && is_held(&kept, &name(event.owner()), start);
            if !is_left || is_gone(&event) {
                return Ok(());
            }
            if batch.len() >= PART || batch.push_event(&event).is_err() {
                Journal::append(&self.journal, &batch)?;
                batch.clear();
                batch.push_event(&event).map_err(|_| too_large())?;
            }
            Ok(())
        })?;
        Journal::append(&self.journal, &batch)?;
        self.journal.release(end)?;
        Ok(gone)
    }

    fn put_back(&self, of: &str, to: &dyn Sink, now: Millis) -> Result<u64, QuarantineError> {
        let kept = self.kept.read().clone();
        let (mut batch, mut count) = (Batch::new(), 0);
        self.each(Position(0), |start, mut event, _| {
            if name(event.owner()) == of && is_held(&kept, of, start) {
                // T trusts that receive times do not go back; the event's own time stays.
                event.received = now;
                let is_full = batch.push_event(&event).is_err();
                if is_full || batch.len() >= PART {
                    to.append(&batch)?;
                    batch.clear();
                }
                if is_full {
                    batch.push_event(&event).map_err(|_| too_large())?;
                }
                count += 1;
            }
            Ok(())
        })?;
        to.append(&batch)?;
        Ok(count)
    }

    /// Gives up what nobody's events are left in.
    fn clear(&self) -> Result<(), QuarantineError> {
        let kept = self.kept.read().clone();
        let mut first = None;
        let end = self.journal.end();
        self.each(Position(0), |start, event, _| {
            if first.is_none() && is_held(&kept, &name(event.owner()), start) {
                first = Some(start);
            }
            Ok(())
        })?;
        self.journal.release(first.unwrap_or(end))?;
        let begin = self.journal.begin();
        self.change(|kept| kept.restored.retain(|_, position| *position > begin.0))
    }

    /// Gives every event from a position on, with where its frame starts and how many bytes it takes.
    fn each(
        &self,
        from: Position,
        mut each: impl FnMut(Position, Event, u64) -> Result<(), JournalError>,
    ) -> Result<(), QuarantineError> {
        let mut reader = self.journal.reader(from.max(self.journal.begin()));
        while let Some(frame) = reader.next()? {
            for record in frame.records() {
                let Ok((_, bytes)) = record else { continue };
                if let Ok(Record::Event(event)) = Record::decode(bytes) {
                    each(frame.start, event, bytes.len() as u64)?;
                }
            }
        }
        Ok(())
    }

    /// Changes the list, and returns when it is on disk.
    fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> Result<T, QuarantineError> {
        let mut kept = self.kept.write();
        let before = kept.clone();
        let changed = change(&mut kept);
        if *kept != before {
            let text = serde_json::to_vec(&*kept).map_err(io::Error::from);
            let written = text.and_then(|text| write_small_file(&self.path, &text, 0o600));
            if let Err(source) = written {
                *kept = before;
                return Err(QuarantineError::List { path: self.path.clone(), source });
            }
            self.count.store(kept.aside.len(), Ordering::Release);
        }
        Ok(changed)
    }
}

impl Sink for Quarantine {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        let held = self.journal.end().0.saturating_sub(self.journal.begin().0);
        if held + batch.bytes().len() as u64 > MOST_BYTES {
            return Err(too_large());
        }
        Journal::append(&self.journal, batch).map(|_| ())
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

fn too_large() -> JournalError {
    JournalError::NoRoom(format!(
        "{} MiB of events are set aside: `throng quarantine list` shows whose, and `throng quarantine restore` takes them back",
        MOST_BYTES >> 20
    ))
}

fn is_held(kept: &Kept, of: &str, start: Position) -> bool {
    kept.restored.get(of).is_none_or(|restored| start.0 >= *restored)
}

fn name(identifier: &Identifier) -> String {
    format!("{}:{}", identifier.namespace.as_str(), identifier.value())
}

fn of_name(name: &str) -> Aside {
    let (namespace, value) = name.split_once(':').unwrap_or((name, ""));
    Aside {
        namespace: namespace.to_owned(),
        value: value.to_owned(),
        since: None,
        events: 0,
        bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Source;

    fn id(value: &str) -> Identifier {
        Identifier::new(Namespace::new("user_id").unwrap(), value).unwrap()
    }

    fn event(of: &str, number: i64) -> Event {
        let mut event = Event {
            site: "s".into(),
            name: "e".into(),
            time: number,
            received: number,
            time_replaced: false,
            source: Source::Api,
            message_id: None,
            ids: vec![id(of)],
            props: Vec::new(),
            attrs: Vec::new(),
            page: Default::default(),
            device: Default::default(),
            bot: false,
            country: None,
            locale: None,
            consent: None,
        };
        Quarantine::prepare(&mut event);
        event
    }

    fn keep(quarantine: &Quarantine, events: &[Event]) {
        let mut batch = Batch::new();
        events.iter().for_each(|event| batch.push_event(event).unwrap());
        quarantine.append(&batch).unwrap();
    }

    /// What was put back.
    #[derive(Default)]
    struct Folded {
        events: Mutex<Vec<Event>>,
        is_full: std::sync::atomic::AtomicBool,
    }

    impl Sink for Folded {
        fn append(&self, batch: &Batch) -> Result<(), JournalError> {
            if self.is_full.load(Ordering::SeqCst) {
                return Err(JournalError::Full(io::ErrorKind::StorageFull.into()));
            }
            for record in batch.records() {
                if let Ok(Record::Event(event)) = Record::decode(record) {
                    self.events.lock().push(event);
                }
            }
            Ok(())
        }

        fn trouble(&self) -> Option<String> {
            None
        }
    }

    #[test]
    fn what_is_set_aside_outlasts_a_restart_and_comes_back_whole() {
        let data = tempfile::tempdir().unwrap();
        let folded = Folded::default();
        let quarantine = Quarantine::open(data.path()).unwrap();
        assert!(!quarantine.holds(&id("a")) && quarantine.list().unwrap().is_empty());
        assert!(quarantine.set_aside(&id("a"), 5) && quarantine.set_aside(&id("b"), 6));
        keep(&quarantine, &[event("a", 1), event("b", 2), event("a", 3)]);
        drop(quarantine);

        let quarantine = Quarantine::open(data.path()).unwrap();
        assert!(quarantine.holds(&id("a")));
        let seen = |quarantine: &Quarantine| {
            let list = quarantine.list().unwrap().into_iter();
            list.map(|aside| (aside.value, aside.since, aside.events)).collect::<Vec<_>>()
        };
        let (a, b) = (("a".to_owned(), Some(5), 2), ("b".to_owned(), Some(6), 1));
        assert_eq!(seen(&quarantine), [a, b.clone()]);
        // A full disk loses nothing, and whoever sends meanwhile is not set aside any more.
        folded.is_full.store(true, Ordering::SeqCst);
        assert!(quarantine.restore(&id("a"), &folded, 9).is_err());
        assert_eq!(seen(&quarantine), [("a".to_owned(), None, 2), b.clone()]);
        folded.is_full.store(false, Ordering::SeqCst);
        assert_eq!(quarantine.restore(&id("a"), &folded, 9).unwrap(), Some(2));
        assert_eq!(quarantine.restore(&id("a"), &folded, 9).unwrap(), None);
        let times = |event: &Event| (event.time, event.received, event.message_id.is_some());
        let events: Vec<_> = folded.events.lock().iter().map(times).collect();
        assert_eq!(events, [(1, 9, true), (3, 9, true)]);
        assert_eq!(seen(&quarantine), [b]);

        // Once more set aside it is as if it had never been.
        assert!(quarantine.set_aside(&id("a"), 10));
        keep(&quarantine, &[event("a", 4)]);
        assert_eq!(quarantine.restore(&id("b"), &folded, 11).unwrap(), Some(1));
        assert_eq!(quarantine.restore(&id("a"), &folded, 12).unwrap(), Some(1));
        assert!(quarantine.list().unwrap().is_empty());
        assert_eq!(folded.events.lock().len(), 4);
        assert_eq!(quarantine.restore(&id("nobody"), &folded, 12).unwrap(), None);
    }

    #[test]
    fn who_is_erased_lies_in_no_file_and_others_come_back_whole() {
        let data = tempfile::tempdir().unwrap();
        let folded = Folded::default();
        let quarantine = Quarantine::open(data.path()).unwrap();
        assert!(quarantine.set_aside(&id("whole-ada"), 5) && quarantine.set_aside(&id("b"), 6));
        keep(&quarantine, &[event("whole-ada", 1), event("b", 2), event("c", 3)]);
        assert_eq!(quarantine.restore(&id("c"), &folded, 7).unwrap(), Some(1));
        keep(&quarantine, &[event("whole-ada", 4), event("b", 5)]);
        let is_ada = |identifier: &Identifier| identifier.value() == "whole-ada";
        let is_hers = |event: &Event| event.ids.iter().any(is_ada);
        assert_eq!(quarantine.erase(&is_hers, &is_ada).unwrap(), 2);
        assert_eq!(quarantine.erase(&is_hers, &is_ada).unwrap(), 0);
        let holds = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            bytes.windows(9).any(|window| window == b"whole-ada")
        };
        let folder = fs::read_dir(data.path().join(FOLDER)).unwrap();
        assert!(!folder.map(|entry| entry.unwrap().path()).any(|path| holds(&path)));
        assert!(!holds(&data.path().join(FILE)));
        let left = quarantine.list().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!((left[0].value.as_str(), left[0].events), ("b", 2));
        drop(quarantine);
        let quarantine = Quarantine::open(data.path()).unwrap();
        assert_eq!(quarantine.restore(&id("b"), &folded, 9).unwrap(), Some(2));
        let times: Vec<_> = folded.events.lock().iter().map(|event| event.time).collect();
        assert_eq!(times, [3, 2, 5]);
    }

    #[test]
    fn what_is_too_old_goes_and_so_does_who_has_been_silent_since() {
        use crate::model::time::DAY;
        let data = tempfile::tempdir().unwrap();
        let folded = Folded::default();
        let quarantine = Quarantine::open(data.path()).unwrap();
        assert_eq!(quarantine.expire(9).unwrap(), 0);
        for (of, day) in [("silent", 1), ("busy", 1), ("late", 5)] {
            assert!(quarantine.set_aside(&id(of), day * DAY));
        }
        keep(&quarantine, &[event("silent", DAY), event("busy", DAY), event("put-back", 6 * DAY)]);
        assert_eq!(quarantine.restore(&id("put-back"), &folded, 7 * DAY).unwrap(), Some(1));
        keep(&quarantine, &[event("busy", 6 * DAY)]);
        let seen = |quarantine: &Quarantine| -> Vec<(String, u64)> {
            quarantine.list().unwrap().into_iter().map(|a| (a.value, a.events)).collect()
        };
        assert_eq!(quarantine.expire(1).unwrap(), 0);
        assert_eq!(seen(&quarantine).len(), 3);
        assert_eq!(quarantine.expire(5).unwrap(), 2);
        let left = [("busy".to_owned(), 1), ("late".to_owned(), 0)];
        assert_eq!(seen(&quarantine), left);
        drop(quarantine);
        let quarantine = Quarantine::open(data.path()).unwrap();
        assert_eq!(seen(&quarantine), left);
        assert!(quarantine.holds(&id("busy")) && !quarantine.holds(&id("silent")));
        assert_eq!(quarantine.restore(&id("busy"), &folded, 8 * DAY).unwrap(), Some(1));
        let times: Vec<_> = folded.events.lock().iter().map(|event| event.time).collect();
        assert_eq!(times, [6 * DAY, 6 * DAY]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let data = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(data.path()).unwrap();
        let mut large = event("a", 1);
        large.props = vec![("a".into(), crate::model::Value::string("x".repeat(8 << 20)))];
        let mut batch = Batch::new();
        batch.push_event(&large).unwrap();
        let taken = (0..40).take_while(|_| quarantine.append(&batch).is_ok()).count();
        assert_eq!(taken, 31);
        let kept = Kept {
            aside: (0..MOST_IDS).map(|n| (format!("user_id:{n}"), 0)).collect(),
            ..Kept::default()
        };
        *quarantine.kept.write() = kept;
        assert!(!quarantine.set_aside(&id("a"), 1));
    }
}
