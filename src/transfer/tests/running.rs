//! A store on Redis is copied while it goes on, restored, and answers as it did.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use super::world::Dice;
use super::world::Home;
use super::world::LONG;
use super::world::Redis;
use super::world::Running;
use super::world::append;
use super::world::event;
use super::world::fill_ledger;
use super::world::fold;
use super::world::moved;
use super::world::patiently;
use super::world::records;
use crate::archive::Archiver;
use crate::archive::Policy;
use crate::backup;
use crate::backup::BackupError;
use crate::backup::Backups;
use crate::backup::Manifest;
use crate::backup::Progress;
use crate::cluster::Beating;
use crate::cluster::Me;
use crate::cluster::Member;
use crate::cluster::Pace;
use crate::cluster::Parts;
use crate::cluster::Told;
use crate::metrics::Metrics;
use crate::model::ImportLines;
use crate::model::Record;
use crate::net::Clock as _;
use crate::net::SystemClock;
use crate::net::Workers;
use crate::store::chain;
use crate::store::journal::Batch;
use crate::store::ledger::Target;
use crate::store::nodes::Node;
use crate::store::nodes::Nodes as _;
use crate::store::nodes::Roles;
use crate::store::redis::Registry;
use crate::store::shelf::Shelf as _;
use crate::transfer::RunningStore;

/// A store on Redis with something in it, half of it in the archive, and a node that takes backups.
struct Deployment {
    home: Home,
    redis: Redis,
    running: Running,
    backups: Backups,
    _beating: Beating,
}

impl Deployment {
    fn new(seed: u64, redis: Redis) -> Self {
        let home = Home { dir: tempfile::tempdir().unwrap() };
        let archive = home.path("data.away");
        let running = Running::redis(&redis, &archive);
        append(&*running.sink, &records(&mut Dice(seed), 90, 0));
        running.answers();
        let clock = Arc::new(SystemClock::default());
        for lane in running.lanes.held().values() {
            let (catalog, engine) = (lane.catalog.clone(), lane.engine.clone());
            let journal = lane.journal.clone();
            let policy = Policy::default();
            Archiver::new(catalog, journal, engine, clock.clone(), policy).flush().unwrap();
        }
        append(&*running.sink, &records(&mut Dice(seed + 1), 60, 100));
        fill_ledger(&*running.ledger);
        let store = redis.store();
        let shelf = crate::store::redis::Shelf::new(store.clone());
        shelf.keep("cookie.key", b"a secret of some bytes").unwrap();
        shelf.keep("segment.made/lookers", b"rule = 'did view'").unwrap();
        store.reserve_generations(41).unwrap();

        let parts = Parts {
            nodes: Arc::new(Registry::new(store.clone())),
            clock: clock.clone(),
            metrics: Metrics::new(),
            pace: Pace { patience: Duration::from_millis(200), ..Pace::default() },
            tell: Box::new(Told::default),
            has_shipped: Box::new(|| true),
            leaves: Box::new(|| Ok(())),
        };
        let me = Me { id: "one".to_owned(), roles: Roles::ALL, address: None };
        let member = Member::new(me, parts);
        member.beat().unwrap();
        let beating = member.start(&Workers::new(Metrics::new())).unwrap();
        let cell = OnceLock::from(member);
        std::fs::create_dir(home.path("node")).unwrap();
        let backups = Backups::new(RunningStore {
            store,
            member: Arc::new(cell),
            node: "one".to_owned(),
            data: home.path("node"),
            archive: crate::archive::Home::from(&archive),
            policy: Policy { bytes: 2_000, ..Policy::default() },
            fold: fold(),
            clock,
            patience: Duration::from_secs(2),
            draining: Arc::default(),
        });
        Self { home, redis, running, backups, _beating: beating }
    }

    /// Why there is no backup.
    fn refusal(&self) -> String {
        let refusal = chain(&self.back_up(&mut |_| true).unwrap_err());
        assert!(!self.copy().exists(), "{refusal}");
        refusal
    }

    fn copy(&self) -> PathBuf {
        self.home.path("copy")
    }

    fn back_up(&self, tell: &mut dyn FnMut(Progress) -> bool) -> Result<Manifest, BackupError> {
        self.backups.begin(&self.copy(), 0)?.run(tell)
    }

    /// Goes on with more events, so that much of what was committed is replaced.
    fn go_on(&self, records: &[Record]) {
        append(&*self.running.sink, records);
        self.running.answers();
        append(&*self.running.sink, &[Record::Event(event("late", "order", 900))]);
        self.running.answers();
    }
}

fn restored(copy: &Path, data: &Path) -> Manifest {
    backup::verify(copy, &mut |_| ()).unwrap();
    let clock = SystemClock::default();
    patiently(|| {
        let _ = std::fs::remove_dir_all(data);
        backup::restore(copy, data, &clock, &mut |_| ())
    })
}

#[test]
fn a_store_is_copied_as_of_one_moment_while_it_goes_on() {
    for (seed, redis) in (40..).zip(Redis::both()) {
        let name = redis.name;
        let there = Deployment::new(seed, redis);
        let expected = there.running.answers();
        // Some of them have message ids that the copy has, some that nobody had before.
        let later = records(&mut Dice(seed + 2), 50, 300);
        let mut parts = Vec::new();
        let mut gone_on = false;
        let manifest = there.back_up(&mut |progress| {
            if progress.whole {
                parts.push(progress.part);
            }
            if progress.part == "shards" && !std::mem::replace(&mut gone_on, true) {
                there.go_on(&later);
                for lane in there.running.lanes.held().values() {
                    lane.journal.release(lane.engine.pin().position).unwrap();
                    assert!(lane.journal.begin() < lane.engine.pin().position, "{name}");
                }
            }
            true
        });
        let manifest = manifest.unwrap();
        assert!(gone_on);
        let all = ["wait", "fold", "archive", "shards", "ids", "ledger", "compare", "checksums"];
        parts.dedup();
        let found: Vec<_> = parts.into_iter().filter(|part| all.contains(part)).collect();
        for part in all {
            assert!(found.contains(&part), "{name}: {part} of {found:?}");
        }
        let said = manifest.summary();
        assert_eq!(said["made_segments"], 1, "{said}");
        assert!(said["counts"]["archive_files"].as_u64() > Some(10), "{said}");

        let data = there.home.path("restored");
        restored(&there.copy(), &data);
        let text = std::fs::read_to_string(data.join("segments.made/lookers.toml")).unwrap();
        assert_eq!(text, "rule = 'did view'");
        let secret = std::fs::read(data.join("cookie.key")).unwrap();
        assert_eq!(secret, b"a secret of some bytes");
        let control = Running::directory(&data, &data.join("archive"));
        assert_eq!(control.answers(), expected, "{name}");
        assert_eq!(
            control.answers()["counted"].split(',').next(),
            Some(&*format!("({}", manifest.counts.counted)),
            "{name}"
        );
        // The ledger doubts all that destinations hold or were about to.
        let buyers = |destination: &str| Target::new(destination, "buyers");
        for destination in ["ads", "crm"] {
            let held = |running: &Running| {
                running.ledger.held(&buyers(destination), None, 10_000).unwrap()
            };
            let mut due: BTreeSet<_> =
                held(&there.running).into_iter().map(|held| held.identifier).collect();
            for batch in there.running.ledger.prepared(&buyers(destination)).unwrap() {
                due.extend(batch.changes.adds.into_iter().chain(batch.changes.removes));
            }
            let found = held(&control);
            assert!(found.iter().all(|held| held.unsure), "{name}");
            assert_eq!(found.into_iter().map(|held| held.identifier).collect::<BTreeSet<_>>(), due);
        }
        // What came later counts when it comes again, and what was there does not.
        append(&*control.sink, &later);
        append(&*control.sink, &[Record::Event(event("late", "order", 900))]);
        let again = records(&mut Dice(seed), 90, 0);
        for running in [&there.running, &control] {
            append(&*running.sink, &again);
        }
        assert_eq!(control.answers(), there.running.answers(), "{name}");
        control.stop();
        there.running.stop();

        // And on into another Redis.
        let [server, _] = Redis::both();
        let elsewhere = there.home.there("restored", &server);
        moved(&elsewhere);
        let moved = Running::redis(&server, elsewhere.to_archive.folder().unwrap());
        let before = Running::directory(&data, &data.join("archive"));
        assert_eq!(moved.answers(), before.answers(), "{name}");
        assert_eq!(moved.books(), before.books(), "{name}");
        before.stop();
        moved.stop();
    }
}

#[test]
fn a_backup_that_is_given_up_leaves_nothing_and_lets_the_lanes_go() {
    let [redis, _] = Redis::both();
    let there = Deployment::new(50, redis);
    for part in ["wait", "fold", "archive", "shards", "ids", "ledger", "compare", "checksums"] {
        let error = there.back_up(&mut |progress| progress.part != part).unwrap_err();
        assert!(matches!(error, BackupError::GivenUp(_)), "{part}: {error}");
        assert!(!there.copy().exists(), "{part}");
    }
    there.back_up(&mut |_| true).unwrap();
    there.running.stop();
}

#[test]
fn what_could_not_be_kept_until_it_was_read_is_told() {
    let [redis, _] = Redis::both();
    let there = Deployment::new(60, redis);
    let store = there.redis.store();
    let later = records(&mut Dice(61), 50, 300);
    let mut done = false;
    let error = there.back_up(&mut |progress| {
        if progress.part == "shards" && !std::mem::replace(&mut done, true) {
            for lane in 0..store.layout().lanes() {
                there.redis.end_pin(lane);
            }
            there.go_on(&later);
        }
        true
    });
    let error = chain(&error.unwrap_err());
    assert!(error.contains("could not be kept until it was read"), "{error}");
    assert!(!there.copy().exists());

    // Nor is a copy without its archive.
    let archive = there.home.path("data.away");
    std::fs::rename(&archive, there.home.path("elsewhere")).unwrap();
    let error = there.refusal();
    assert!(error.contains("ask a node that has the archive"), "{error}");
    std::fs::rename(there.home.path("elsewhere"), &archive).unwrap();

    // Another reads the lanes, or has died while it did.
    let other = store.pin(1, "a backup by two", LONG).unwrap().unwrap();
    let error = there.refusal();
    assert!(error.contains("a backup by two is under way"), "{error}");
    other.let_go().unwrap();
    there.back_up(&mut |_| true).unwrap();
    there.running.stop();
}

#[test]
fn what_is_waited_for_in_vain_is_named() {
    let [redis, _] = Redis::both();
    let there = Deployment::new(70, redis);
    let store = there.redis.store();
    let registry = Registry::new(store.clone());
    let gone = Node {
        id: "gone".to_owned(),
        roles: Roles::ALL,
        address: None,
        mark: Some(500),
        lanes: Vec::new(),
        version: String::new(),
    };
    registry.beat(&gone, SystemClock::default().now()).unwrap();
    let error = there.refusal();
    assert!(error.contains("gone has events to ship"), "{error}");
    assert!(error.contains("throng node retire"), "{error}");
    assert!(registry.retire("gone").unwrap());

    // Lines of an import that one lane has and the others have not.
    let lines = ImportLines {
        import: "more.ndjson".into(),
        first_line: 1,
        lines: 2,
        events: Vec::new(),
        rejected: Vec::new(),
    };
    let mut batch = Batch::new();
    batch.push(&Record::Import(lines.clone())).unwrap();
    there.redis.append(1, &batch);
    there.running.answers();
    let error = there.refusal();
    assert!(error.contains("the import more.ndjson is under way"), "{error}");
    append(&*there.running.sink, &[Record::Import(lines)]);
    there.back_up(&mut |_| true).unwrap();
    std::fs::remove_dir_all(there.copy()).unwrap();

    // A lane that nobody folds.
    let Deployment { home, redis, running, backups, .. } = there;
    running.stop();
    redis.append(2, &batch);
    let refused = backups.begin(&home.path("copy"), 0).unwrap().run(&mut |_| true);
    let error = chain(&refused.unwrap_err());
    assert!(error.contains("lane 2") && error.contains("worker had it last"), "{error}");
}
