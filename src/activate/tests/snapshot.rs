//! Whole audiences as files: the last one says who is held, whatever was the last step before a crash.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::rig::*;
use super::world::*;
use crate::activate::Audiences;
use crate::activate::Caps;
use crate::activate::Connector;
use crate::activate::Encoded;
use crate::activate::NoAudience;
use crate::activate::PushReport;
use crate::activate::Pusher;
use crate::activate::Verdict;
use crate::activate::connectors::file::FileConnector;
use crate::activate::connectors::liveramp::LiveRampConnector;
use crate::config::FileFormat;
use crate::config::FileStyle;
use crate::config::LiveRampStyle;
use crate::model::Millis;
use crate::net::Clock;
use crate::store::ledger::Batch;

/// A folder that files are put into, which dies with the fuse and may be told to fail.
struct Files {
    file: FileConnector,
    fuse: Arc<Fuse>,
    script: Arc<Mutex<Vec<Verdict>>>,
}

impl Connector for Files {
    fn caps(&self) -> &Caps {
        self.file.caps()
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        self.file.check(now)
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        self.file.encode(batch, place)
    }

    fn deliver(&self, _: &Encoded, _: Millis) -> Verdict {
        panic!("a batch is sent nowhere")
    }

    fn put_file(&self, name: &str, from: &Path, now: Millis) -> Verdict {
        let dead = || Verdict::Retry("the process is dead".to_owned());
        if !self.fuse.step() {
            return dead();
        }
        let mut script = self.script.lock();
        if !script.is_empty() {
            return script.remove(0);
        }
        let verdict = self.file.put_file(name, from, now);
        if self.fuse.step() { verdict } else { dead() }
    }
}

fn start(rig: &Rig, fuse: &Arc<Fuse>) -> Pusher {
    start_packed(rig, fuse, false)
}

fn start_packed(rig: &Rig, fuse: &Arc<Fuse>, gzip: bool) -> Pusher {
    let format = FileFormat::LiveRamp;
    let style = FileStyle { format, gzip, adobe: None, liveramp: None };
    let files = Files {
        file: FileConnector::new(rig.out(), style),
        fuse: Arc::clone(fuse),
        script: Arc::clone(&rig.script),
    };
    let columns = [("user", "user_id"), ("device", "cookie")];
    let columns = columns.map(|(name, known)| (name.to_owned(), known.to_owned()));
    let columns = LiveRampStyle { columns: BTreeMap::from(columns) };
    let connector = LiveRampConnector::new(&columns, gzip, Box::new(files));
    let connector = connector.with_max_rows(rig.max_rows);
    let ledger = Arc::new(FusedLedger(rig.ledger(), Arc::clone(fuse)));
    Pusher::with_connectors(
        vec![(destination("crm", file_kind(rig.out())), Box::new(connector))],
        ledger,
        Arc::clone(&rig.source) as Arc<dyn Audiences>,
        Arc::clone(&rig.clock) as Arc<dyn Clock>,
        Arc::clone(&rig.metrics),
    )
    .with_part_bytes(rig.part_bytes.max(4_096))
    .with_few(rig.few)
    .spooling_in(rig.folder.path().join("spool"))
}

/// A rig with `buyers` for `crm`: these of so many profiles.
fn rig_of(count: u32, members: std::ops::Range<u32>) -> Rig {
    let mut world = World { generation: 5, identifiers: people(count), ..World::default() };
    world.activations.push(activation("buyers", 0));
    world.members.insert("buyers".into(), profiles(members));
    Rig::new(world)
}

/// The files, in their order.
fn files(rig: &Rig) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(rig.out()) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let (generation, seq) = stem.strip_prefix("buyers_").unwrap().split_once('-').unwrap();
            ((generation.parse::<u64>().unwrap(), seq.parse::<u64>().unwrap()), path)
        })
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

/// Who is in the last file.
fn remote(rig: &Rig) -> Option<Lines> {
    let text = std::fs::read_to_string(files(rig).pop()?).unwrap();
    assert!(!text.ends_with('\n'), "{text}");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap(), ["audience_key", "device", "user"].as_slice());
    let (mut held, mut keys) = (Lines::new(), std::collections::BTreeSet::new());
    for row in reader.records().map(|row| row.unwrap()) {
        let line = match (&row[1], &row[2]) {
            (device, "") => ("cookie".to_owned(), device.to_owned()),
            ("", user) => ("user_id".to_owned(), user.to_owned()),
            both => panic!("{both:?}"),
        };
        assert!(held.insert(line) && keys.insert(row[0].to_owned()), "{row:?} twice");
    }
    Some(held)
}

fn push(pusher: &Pusher) -> PushReport {
    pusher.run_once(None, false).unwrap().remove(0)
}

fn next(rig: &Rig, members: std::ops::Range<u32>) {
    let mut world = rig.world();
    world.generation += 1;
    world.members.insert("buyers".into(), profiles(members));
}

#[test]
fn a_file_follows_each_run_that_changed_something_and_no_other() {
    let rig = rig_of(60, 0..40);
    let pusher = start(&rig, &whole());
    let dry = pusher.run_once(None, true).unwrap().remove(0);
    assert_eq!((dry.adds, files(&rig).len()), (60, 0), "a dry run writes nothing");
    let report = push(&pusher);
    assert_eq!((report.adds, report.held, &report.trouble), (60, 60, &None));
    assert!(report.note.unwrap().ends_with(".csv was written, with 60 lines"));
    assert_eq!(remote(&rig), Some(rig.world().desired("crm", "buyers")));
    assert_eq!(push(&pusher).note, None);
    assert_eq!(files(&rig).len(), 1, "nothing changed");
    next(&rig, 10..50);
    push(&pusher);
    assert_eq!(files(&rig).len(), 2);
    assert_eq!(remote(&rig), Some(rig.world().desired("crm", "buyers")));
    // Another process knows what was written; who asks for all again gets it.
    let pusher = start(&rig, &whole());
    push(&pusher);
    assert_eq!(files(&rig).len(), 2);
    pusher.resync("crm").unwrap();
    pusher.reseed("crm").unwrap();
    assert_eq!(files(&rig).len(), 4);
    assert_eq!(remote(&rig), Some(rig.world().desired("crm", "buyers")));
    assert_eq!(std::fs::read_dir(rig.folder.path().join("spool")).unwrap().count(), 0);
}

#[test]
fn a_crash_after_any_step_leaves_a_last_file_that_is_right() {
    let mut steps = 0;
    loop {
        let mut blown = false;
        for change in 0..4 {
            let mut rig = rig_of(60, 0..40);
            rig.max_rows = 11;
            push(&start(&rig, &whole()));
            next(&rig, 20..60);
            let fuse = Fuse::new(steps);
            let _ = start(&rig, &fuse).run_once(None, false);
            blown |= fuse.is_blown();
            match change {
                0 => {}
                1 => next(&rig, 0..30),
                2 => rig.world().marked = profiles(0..30),
                _ => rig.world().activations.clear(),
            }
            let pusher = start(&rig, &whole());
            // It is late enough for what failed.
            rig.clock.0.fetch_add(crate::model::time::HOUR, std::sync::atomic::Ordering::SeqCst);
            pusher.run_once(None, false).unwrap();
            let desired = rig.world().desired("crm", "buyers");
            assert_eq!(remote(&rig), Some(desired), "{steps} steps, change {change}");
            let written = files(&rig).len();
            pusher.run_once(None, false).unwrap();
            assert_eq!(files(&rig).len(), written, "{steps} steps, change {change}");
        }
        steps += 1;
        if !blown {
            break;
        }
    }
    assert!(steps > 20, "only {steps} steps");
}

#[test]
fn too_few_lines_are_not_written_until_somebody_has_to_go() {
    let rig = rig_of(60, 0..10);
    let pusher = start(&rig, &whole());
    let report = push(&pusher);
    assert!(report.note.unwrap().contains("15 lines, and LiveRamp takes no fewer than 25"));
    assert_eq!((report.trouble, files(&rig).len()), (None, 0));
    next(&rig, 0..30);
    push(&pusher);
    assert_eq!(remote(&rig).unwrap().len(), 45);
    // Who opts out is in no file any more, however few are left.
    rig.world().marked = profiles(10..30);
    let note = push(&pusher).note.unwrap();
    assert!(note.contains("with 15 lines") && note.contains("by hand"), "{note}");
    assert_eq!(remote(&rig), Some(rig.world().desired("crm", "buyers")));
    next(&rig, 0..8);
    push(&pusher);
    assert_eq!((files(&rig).len(), remote(&rig).unwrap().len()), (3, 12));
    // To come is no reason for so small a file, also for another process.
    rig.world().marked.clear();
    next(&rig, 0..12);
    assert!(push(&pusher).note.unwrap().contains("no file is written"));
    assert!(push(&start(&rig, &whole())).note.unwrap().contains("no file is written"));
    assert_eq!(files(&rig).len(), 3);
    next(&rig, 0..20);
    push(&pusher);
    assert_eq!(remote(&rig), Some(rig.world().desired("crm", "buyers")));
}

#[test]
fn who_opts_out_is_in_no_file_also_while_nothing_else_may_change() {
    for held_up in ["paused", "no audience"] {
        let rig = rig_of(60, 0..60);
        let pusher = start(&rig, &whole());
        push(&pusher);
        match held_up {
            "paused" => pusher.set_paused("crm", true).unwrap(),
            _ => rig.world().missing = Some(NoAudience::NotWhole),
        }
        rig.world().marked = profiles(0..4);
        let report = push(&pusher);
        assert!(report.trouble.is_some(), "{held_up}");
        let left = remote(&rig).unwrap();
        assert_eq!((files(&rig).len(), left.len()), (2, 84), "{held_up}");
        assert!(!left.contains(&("cookie".to_owned(), "c00".to_owned())));
    }
}

#[test]
fn a_file_that_could_not_be_put_is_owed_also_for_a_segment_that_is_gone() {
    let rig = rig_of(60, 0..40);
    let pusher = start(&rig, &whole());
    push(&pusher);
    rig.world().activations.clear();
    let busy = || Verdict::Retry("the folder is away".to_owned());
    rig.script.lock().extend([busy(), busy()]);
    for _ in 0..2 {
        let report = push(&pusher);
        assert_eq!((report.held, report.trouble.as_deref()), (0, Some("the folder is away")));
        assert_eq!(remote(&rig).unwrap().len(), 60, "who was there is there yet");
    }
    // Another process owes it, too: nothing is held, and the last file names sixty.
    let pusher = start(&rig, &whole());
    let report = push(&pusher);
    assert!(report.note.unwrap().contains("with 0 lines"));
    assert_eq!(remote(&rig), Some(Lines::new()));
    assert!(pusher.run_once(None, false).unwrap().is_empty(), "and then nothing more");
}

#[test]
fn a_large_audience_is_written_a_page_at_a_time_and_may_be_packed() {
    let mut rig = rig_of(6_000, 0..6_000);
    (rig.max_rows, rig.part_bytes) = (50_000, 1 << 20);
    push(&start_packed(&rig, &whole(), true));
    let packed = std::fs::read_dir(rig.out()).unwrap().next().unwrap().unwrap().path();
    assert!(packed.to_str().unwrap().ends_with(".csv.gz"), "{packed:?}");
    let mut text = String::new();
    let mut file = flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap());
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert_eq!(text.lines().count(), 1 + 9_000);
    let plain = rig.out().join("buyers_0-0.csv");
    std::fs::write(plain, text).unwrap();
    assert_eq!(remote(&rig), Some(rig.world().desired("crm", "buyers")));
}
