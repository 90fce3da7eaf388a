mod bucket;
mod erase;
mod merge;
#[expect(dead_code, reason = "the integration tests use all of it")]
pub(crate) mod object_store;

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::ArchiveError;
use super::Archiver;
use super::Catalog;
use super::Folded;
use super::Home;
use super::Policy;
use super::Scan;
use super::Step;
use super::merge::Group;
use super::pace::Pace;
use super::scan;
use crate::config::Durability;
use crate::model::Device;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::ImportLines;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Number;
use crate::model::Page;
use crate::model::Record;
use crate::model::ShardId;
use crate::model::Source;
use crate::model::Value;
use crate::model::record::ImportedEvent;
use crate::model::record::POISON;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::MINUTE;
use crate::model::time::day_of;
use crate::net::Clock;
use crate::store::embedded::State;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::journal::Options;
use crate::store::journal::Batch;
use crate::store::journal::EventNo;
use crate::store::journal::Journal;
use crate::store::journal::Position;
use crate::store::state::ArchivePosition;
use crate::store::state::State as _;

const NOW: Millis = 20_000 * DAY;

fn id(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

fn event(name: &str, time: Millis) -> Event {
    Event {
        site: "shop".into(),
        name: name.into(),
        time,
        received: NOW,
        time_replaced: false,
        source: Source::Pixel,
        message_id: None,
        ids: vec![id("cookie", &format!("c{}", time.rem_euclid(1009)))],
        props: Vec::new(),
        attrs: Vec::new(),
        page: Page::default(),
        device: Device::default(),
        bot: false,
        country: None,
        locale: None,
        consent: None,
    }
}

/// Events with everything that a text format could lose.
fn odd_events() -> Vec<Event> {
    let number = |text: &str| Value::Number(Number::new(text).unwrap());
    let texts = ["", " ", "é😀\u{0}\"\\\n", "null", "{}"];
    let mut events: Vec<_> = [i64::MIN, i64::MAX, -1, 0, -DAY, 253_402_300_800_000, NOW]
        .into_iter()
        .map(|time| event("when", time))
        .collect();
    for (i, text) in texts.iter().enumerate() {
        let some = |on: bool| on.then(|| Box::<str>::from(*text));
        events.push(Event {
            site: (*text).into(),
            received: i64::MIN,
            time_replaced: i % 2 == 0,
            source: [Source::Pixel, Source::Js, Source::Api, Source::Import][i % 4],
            message_id: some(true),
            ids: vec![id("user_id", "0"), id("user_id", "\"ü\\"), id("zeta", "a b")],
            props: vec![
                ((*text).into(), number("14.850")),
                ("$serde_json::private::Number".into(), Value::string("x")),
                ("n".into(), Value::Array(vec![number("-0"), number("1e+3"), Value::Null])),
                ("o".into(), Value::Object(vec![("".into(), Value::Bool(false))])),
            ],
            attrs: vec![("gone".into(), Value::Null), ("t".into(), Value::string(*text))],
            page: Page { url: some(true), referrer: some(i == 0), title: some(i == 1) },
            device: Device { kind: some(i == 2), os: some(i == 3), browser: some(true) },
            bot: i % 2 == 1,
            country: some(i % 2 == 1),
            locale: some(i % 3 == 0),
            ..event("odd", NOW + i64::try_from(i).unwrap())
        });
    }
    events
}

/// A fold that has committed all that the test says, in four shards.
#[derive(Default)]
struct TestFold {
    committed: Mutex<ArchivePosition>,
    skipped: Mutex<BTreeSet<EventNo>>,
    erased: Mutex<BTreeSet<Identifier>>,
    archived: Mutex<ArchivePosition>,
    first_day: AtomicI64,
}

impl Folded for TestFold {
    fn committed(&self) -> ArchivePosition {
        *self.committed.lock()
    }

    fn first_day(&self) -> Day {
        self.first_day.load(Ordering::SeqCst)
    }

    fn shard_of(&self, owner: &Identifier) -> ShardId {
        owner.value().bytes().map(u16::from).sum::<u16>() % 4
    }

    fn is_erased(&self, event: &Event) -> bool {
        self.erased.lock().contains(event.owner())
    }

    fn is_counted(&self, event: EventNo) -> bool {
        !self.skipped.lock().contains(&event)
    }

    fn archived(&self, reached: ArchivePosition) {
        *self.archived.lock() = reached;
    }
}

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

struct House {
    dir: tempfile::TempDir,
    home: Home,
    journal: Arc<EmbeddedJournal>,
    fold: Arc<TestFold>,
    clock: Arc<TestClock>,
    state: Arc<State>,
    catalog: Arc<Catalog>,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::from(&dir.path().join("archive"));
        Self::with(dir, home)
    }

    fn with(dir: tempfile::TempDir, home: Home) -> Self {
        let options = Options { segment_bytes: 20_000, ..Options::new(Durability::DiskBuffered) };
        let (journal, _) = EmbeddedJournal::open(&dir.path().join("journal"), options).unwrap();
        let state = Arc::new(State::open(dir.path(), 4).unwrap());
        let catalog = Arc::new(Self::catalog(&home, &state).0);
        Self {
            dir,
            home,
            journal: Arc::new(journal),
            fold: Arc::default(),
            clock: Arc::new(TestClock(AtomicI64::new(NOW))),
            state,
            catalog,
        }
    }

    fn catalog(home: &Home, state: &Arc<State>) -> (Catalog, usize) {
        let loaded = state.load().unwrap();
        Catalog::open(home, &[0, 1, 2, 3], state.clone(), loaded.manifest, loaded.archived).unwrap()
    }

    fn restart(&mut self) -> usize {
        let (catalog, swept) = Self::catalog(&self.home, &self.state);
        self.catalog = Arc::new(catalog);
        swept
    }

    fn archiver(&self, bytes: u64) -> Archiver {
        Archiver::new(
            self.catalog.clone(),
            self.journal.clone(),
            self.fold.clone(),
            self.clock.clone(),
            Policy { bytes, age: 10 * MINUTE },
        )
    }

    fn append(&self, records: &[Record]) {
        let mut batch = Batch::new();
        records.iter().for_each(|record| batch.push(record).unwrap());
        self.journal.append(&batch).unwrap();
        self.commit();
    }

    fn append_events(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.append(&[Record::Event(event)]);
        }
    }

    fn commit(&self) {
        *self.fold.committed.lock() = ArchivePosition {
            position: self.journal.end(),
            next_record: self.journal.next_record(),
        };
    }

    fn archive(&self) {
        self.archiver(1 << 20).flush().unwrap();
    }

    fn read(&self, asked: &Scan<'_>) -> Result<Vec<(EventNo, Event)>, ArchiveError> {
        let mut events = Vec::new();
        let files = self.catalog.files();
        scan(self.catalog.home(), &*files, asked, &mut |no, event| {
            events.push((no, event));
            ControlFlow::Continue(())
        })?;
        events.sort_by_key(|(no, _)| *no);
        Ok(events)
    }

    fn all(&self) -> Vec<(EventNo, Event)> {
        self.read(&ALL).unwrap()
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn files(&self) -> Vec<PathBuf> {
        self.catalog.files().iter().map(|row| self.catalog.home().place(&row.file)).collect()
    }
}

const ALL: Scan<'static> = Scan {
    days: i64::MIN..=i64::MAX,
    shard: None,
    times: i64::MIN..=i64::MAX,
    names: None,
    wanted: &|_| true,
};
/// The day of the test's clock.
const TODAY: Day = 20_000;

fn no(record: u64) -> EventNo {
    EventNo { record, part: 0 }
}

#[test]
fn events_come_back_exactly() {
    let house = House::new();
    let events = odd_events();
    house.append_events(events.clone());
    house.archive();
    let expected: Vec<_> = (0..).map(no).zip(events).collect();
    assert_eq!(house.all(), expected);
}

#[test]
fn files_lie_by_day_and_shard_and_say_what_they_hold() {
    let house = House::new();
    house.append_events(odd_events());
    house.archive();
    for row in house.catalog.files().iter() {
        let asked = Scan { days: row.day..=row.day, shard: Some(row.shard), ..ALL };
        let events = house.read(&asked).unwrap();
        assert_eq!(events.len() as u64, row.rows);
        for (_, event) in events {
            assert_eq!(day_of(event.time), row.day);
            assert_eq!(house.fold.shard_of(event.owner()), row.shard);
        }
        assert_eq!(fs::metadata(house.catalog.home().place(&row.file)).unwrap().len(), row.bytes);
        assert_eq!((row.from, row.to), (Position(0), house.journal.end()));
    }
    let days: BTreeSet<_> = fs::read_dir(house.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(days.contains("day=1969-12-31") && days.contains("day=2024-10-04"), "{days:?}");
    assert!(days.contains("day=2932897"), "{days:?}");
}

#[test]
fn what_was_not_counted_is_left_out() {
    let house = House::new();
    let imported = |line: u64| ImportedEvent {
        line,
        own_message_id: false,
        event: Event { source: Source::Import, ..event("import", i64::try_from(line).unwrap()) },
    };
    house.append(&[
        Record::Event(event("a", 0)),
        Record::Choice(crate::model::Choice {
            identifier: id("cookie", "c"),
            opted_out: true,
            received: 0,
        }),
        Record::Import(ImportLines {
            import: "i".into(),
            first_line: 1,
            lines: 4,
            events: (1..=4).map(imported).collect(),
            rejected: Vec::new(),
        }),
        Record::Event(event("b", 1)),
    ]);
    let skipped = [EventNo { record: 2, part: 1 }, EventNo { record: 2, part: 3 }, no(3)];
    house.fold.skipped.lock().extend(skipped);
    house.archive();
    let numbers: Vec<_> = house.all().into_iter().map(|(no, _)| (no.record, no.part)).collect();
    assert_eq!(numbers, [(0, 0), (2, 0), (2, 2)]);
}

#[test]
fn many_small_cuts_hold_each_event_once() {
    let house = House::new();
    let events: Vec<_> = (0..300).map(|i| event("e", NOW + i * MINUTE)).collect();
    house.append_events(events.clone());
    let mut archiver = house.archiver(2_000);
    let mut cuts = 0;
    while let Step::Cut { .. } = archiver.step().unwrap() {
        cuts += 1;
        assert_eq!(*house.fold.archived.lock(), house.catalog.reached());
    }
    assert!(cuts > 5);
    archiver.flush().unwrap();
    assert_eq!(house.catalog.reached(), house.fold.committed());
    let expected: Vec<_> = (0..).map(no).zip(events).collect();
    assert_eq!(house.all(), expected);
    assert!(house.journal.begin() > Position(0), "the journal gave up what is archived");
}

#[test]
fn a_scan_gives_what_is_asked_for_and_stops_when_told() {
    let house = House::new();
    house.append_events((0..40).map(|i| event(["a", "b"][i % 2], i64::try_from(i).unwrap() * DAY)));
    house.archive();
    let asked = Scan { days: 10..=19, wanted: &|name| name == "b", ..ALL };
    let times: Vec<_> =
        house.read(&asked).unwrap().into_iter().map(|(_, event)| event.time / DAY).collect();
    assert_eq!(times, [11, 13, 15, 17, 19]);
    let mut given = 0;
    let whole = scan(house.catalog.home(), &*house.catalog.files(), &ALL, &mut |_, _| {
        given += 1;
        if given == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((whole.unwrap().is_broken_off, given), (true, 3));
}

#[test]
fn a_file_of_many_rows_is_read_whole() {
    let house = House::new();
    const ROWS: u64 = 70_000;
    let mut batch = Batch::new();
    for i in 0..ROWS {
        let mut event = event("many", NOW);
        event.props = vec![("i".into(), Value::Number(Number::new(&i.to_string()).unwrap()))];
        event.country = (i % 3 == 0).then(|| "FR".into());
        batch.push_event(&event).unwrap();
    }
    house.journal.append(&batch).unwrap();
    house.commit();
    house.archive();
    assert_eq!(house.files().len(), 1);
    let mut next = 0;
    for (number, event) in house.all() {
        assert_eq!(number, no(next));
        let Value::Number(i) = &event.props[0].1 else { panic!() };
        assert_eq!(i.as_str(), next.to_string());
        assert_eq!(event.country.is_some(), next % 3 == 0);
        next += 1;
    }
    assert_eq!(next, ROWS);
}

#[test]
fn a_damaged_or_missing_file_is_named() {
    let house = House::new();
    house.append_events([event("a", NOW)]);
    house.archive();
    let path = house.files().remove(0);
    let bytes = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for i in (0..bytes.len()).step_by(97) {
        file.write_all_at(&[bytes[i] ^ 1], i as u64).unwrap();
        let error = house.read(&ALL).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("have changed"), "{error}");
        file.write_all_at(&bytes[i..=i], i as u64).unwrap();
    }
    assert_eq!(house.all().len(), 1);
    fs::remove_file(&path).unwrap();
    let error = house.read(&ALL).unwrap_err().to_string();
    assert!(error.contains("is missing") && error.contains(&path.display().to_string()), "{error}");
}

#[test]
fn files_that_were_never_committed_are_swept() {
    let mut house = House::new();
    house.append_events([event("a", NOW), event("a", 0)]);
    house.archive();
    let kept = house.files();
    let aside = kept[0].with_file_name("1-2-00000000.parquet");
    fs::write(&aside, b"x").unwrap();
    fs::write(kept[0].with_extension("new"), b"x").unwrap();
    let folder = house.dir().join("day=2001-01-01/shard=00");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("1-2-00000000.parquet"), b"x").unwrap();
    let strange = house.dir().join("README");
    fs::write(&strange, b"not ours").unwrap();
    assert_eq!(house.restart(), 3);
    assert_eq!(house.files(), kept);
    assert!(!aside.exists() && !folder.exists() && strange.exists());
    assert_eq!(house.all().len(), 2);
    // A second cut goes on where the first one ended.
    house.append_events([event("b", NOW)]);
    house.archive();
    assert_eq!(house.all().len(), 3);
}

#[test]
fn a_range_is_cut_when_it_is_old_and_only_as_far_as_the_fold_has_committed() {
    let house = House::new();
    let mut archiver = house.archiver(1 << 20);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    house.append_events([event("a", NOW)]);
    let mut batch = Batch::new();
    batch.push_event(&event("unfolded", NOW)).unwrap();
    house.journal.append(&batch).unwrap();
    house.clock.0.store(NOW + 10 * MINUTE - 1, Ordering::SeqCst);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    house.clock.0.store(NOW + 10 * MINUTE, Ordering::SeqCst);
    assert_eq!(archiver.step().unwrap(), Step::Cut { rows: 1, files: 1 });
    assert_eq!(house.catalog.reached().next_record, 1);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    house.commit();
    archiver.flush().unwrap();
    assert_eq!(house.all().len(), 2);
}

#[test]
fn a_pin_holds_files_and_journal_as_they_were() {
    let house = House::new();
    house.append_events((0..20).map(|i| event("old", i * DAY)));
    house.archive();
    house.append_events((20..220).map(|i| event("tail", i * DAY)));
    let (mut pin, end) = house.catalog.pin(&*house.journal, |reached| {
        assert_eq!(reached.next_record, 20);
        house.journal.next_record()
    });
    house.archive();
    assert_eq!(house.catalog.drop_before(200).unwrap(), 200);
    assert_eq!(house.all().len(), 20);
    // What came after the pin counts no longer either, but nothing the pin names is gone.
    let mut seen = BTreeSet::new();
    scan(&pin.home, &*pin.files, &ALL, &mut |no, _| {
        assert!(seen.insert(no.record));
        ControlFlow::Continue(())
    })
    .unwrap();
    while let Some(frame) = pin.tail.next().unwrap() {
        assert!(seen.insert(frame.first));
    }
    assert_eq!(seen, (0..end).collect());
    let held: Vec<_> = pin.files.iter().map(|row| pin.home.place(&row.file)).collect();
    drop(pin);
    assert!(held.iter().all(|path| path.exists()));
    assert_eq!(house.catalog.drop_before(200).unwrap(), 0);
    assert!(held.iter().all(|path| !path.exists() && !path.parent().unwrap().exists()));
}

#[test]
fn days_past_the_retention_stay_dropped_after_a_restart() {
    let mut house = House::new();
    house.append_events((0..10).map(|i| event("e", i * DAY)));
    house.archive();
    assert_eq!(house.catalog.drop_before(7).unwrap(), 7);
    assert_eq!(house.restart(), 0);
    assert_eq!(house.all().into_iter().map(|(no, _)| no.record).collect::<Vec<_>>(), [7, 8, 9]);
}

#[test]
fn the_fold_says_which_days_are_dropped_and_no_clock_does() {
    let house = House::new();
    house.append_events((0..10).map(|i| event("e", i * DAY)));
    house.archive();
    let mut archiver = house.archiver(1 << 20);
    // A clock that is decades ahead.
    house.clock.0.store(NOW + 20_000 * DAY, Ordering::SeqCst);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    assert_eq!(house.all().len(), 10);
    house.fold.first_day.store(7, Ordering::SeqCst);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    assert_eq!(house.all().len(), 3);
    // What comes late for such a day goes as well.
    house.append_events([event("late", 0)]);
    house.archive();
    assert_eq!(house.all().len(), 4);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    assert_eq!(house.all().len(), 3);
}

#[test]
fn a_record_that_cannot_be_read_is_left_out() {
    let house = House::new();
    let record = |name: &str| Record::Event(event(name, NOW));
    house.append(&[record("a"), record(POISON), record("b")]);
    house.append(&[record(POISON)]);
    house.append(&[record("c")]);
    let mut archiver = house.archiver(1 << 20);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    archiver.flush().unwrap();
    let read: Vec<_> = house.all().into_iter().map(|(no, _)| no.record).collect();
    assert_eq!(read, [0, 2, 4]);
}

#[test]
fn days_may_be_dropped_while_their_files_are_merged() {
    let mut house = House::new();
    let mut archiver = house.archiver(1 << 20);
    for _ in 0..20 {
        house.append_events([event("a", DAY)]);
        archiver.flush().unwrap();
    }
    let group = Group::find(&house.catalog, TODAY).unwrap();
    assert_eq!(house.catalog.drop_before(2).unwrap(), 20);
    assert_eq!(group.merge(&house.catalog, &Pace::hurried()).unwrap(), 0);
    assert_eq!(house.all(), []);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    assert_eq!(house.restart(), 0, "nothing is left behind");
}

#[test]
fn a_failed_cut_leaves_nothing_and_can_be_tried_again() {
    let house = House::new();
    house.append_events([event("a", 0), event("a", DAY)]);
    // A file where a folder has to be: the second file of the cut cannot be written.
    let obstacle = house.dir().join("day=1970-01-02");
    fs::write(&obstacle, b"").unwrap();
    assert!(matches!(house.archiver(1 << 20).flush(), Err(ArchiveError::Unavailable { .. })));
    let first = house.dir().join("day=1970-01-01");
    let left: Vec<_> = fs::read_dir(&first)
        .unwrap()
        .flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    fs::remove_file(&obstacle).unwrap();
    house.archive();
    assert_eq!(house.all().len(), 2);
}

#[test]
fn small_files_of_a_day_become_one_and_hold_the_same_events() {
    let mut house = House::new();
    let mut archiver = house.archiver(1 << 20);
    let mut events = Vec::new();
    for i in 0..40 {
        let mut new = vec![event("a", NOW + i), event("b", NOW + i + DAY)];
        new.iter_mut().for_each(|event| event.ids = vec![id("cookie", "same")]);
        house.append_events(new.clone());
        events.extend(new);
        archiver.flush().unwrap();
    }
    assert_eq!(house.files().len(), 80);
    let before = house.all();
    let (pin, ()) = house.catalog.pin(&*house.journal, |_| ());
    let mut merged = 0;
    while let Step::Merged { files } = archiver.step().unwrap() {
        merged += files;
    }
    assert_eq!(merged, 80);
    assert_eq!(house.files().len(), 2);
    assert_eq!(house.all(), before);
    let mut pinned = 0;
    scan(&pin.home, &*pin.files, &ALL, &mut |_, _| {
        pinned += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(pinned, 80);
    drop(pin);
    assert_eq!(archiver.step().unwrap(), Step::Idle);
    assert_eq!(house.restart(), 0, "what was merged is deleted");
    assert_eq!(house.all(), (0..).map(no).zip(events).collect::<Vec<_>>());
}
