//! The journal folded into columns, dictionary and dedup, commits included; and cut into the archive.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng::archive::{Folded, Home, Pace, cut};
use throng::config::Durability;
use throng::ingest::{Engine, Options as EngineOptions};
use throng::metrics::Metrics;
use throng::model::time::DAY;
use throng::model::{Event, Identifier, Millis, ShardId};
use throng::net::{Clock, Workers};
use throng::plan::{Library, TraitSpec, traits_of};
use throng::store::embedded::State;
use throng::store::embedded::journal::{EmbeddedJournal, Options};
use throng::store::journal::{Batch, EventNo, Journal, Position};
use throng::store::state::ArchivePosition;

const EVENTS: usize = 100_000;

/// Rules whose traits are folded.
const RULES: [&str; 8] = [
    "count page_view in 7d >= 3",
    r#"did page_view[page.path starts with "/p/1"] in 1d"#,
    r#"count page_view[category = "shoes"] in 14d >= 2"#,
    r#"days page_view[device.kind = "mobile"] in 30d >= 2"#,
    "sum purchase.value in 30d >= 50",
    "count purchase[value > 100] in 30d >= 2",
    r#"did page_view[page.url matches "/p/[0-9]*7$"]"#,
    r#"did purchase[geo.country in ("DE", "AT")]"#,
];

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Millis {
        common::NOW + 1
    }
}

fn traits() -> Vec<TraitSpec> {
    let rules: Vec<_> = RULES.iter().map(|text| throng::rules::parse(text).0).collect();
    traits_of(&rules, &Library::new()).expect("no segment is named")
}

/// A journal as pixel hits make it: frames of some 30 events.
fn journal(folder: &Path) -> Arc<dyn Journal> {
    let (journal, _) = EmbeddedJournal::open(folder, Options::new(Durability::DiskBuffered))
        .expect("the folder is empty");
    for events in common::events(EVENTS, 30_000, 5).chunks(30) {
        let mut batch = Batch::new();
        for event in events {
            batch.push_event(event).expect("it is small");
        }
        journal.append(&batch).expect("the disk has room");
    }
    Arc::new(journal)
}

fn fold(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it is writable");
    let journal = journal(folder.path());
    let traits = traits();
    let mut group = criterion.benchmark_group("fold");
    group.sample_size(10);
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("fold and commit", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let folder =
                    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it is writable");
                let engine = Engine::open(
                    Arc::new(State::open(folder.path(), 16).expect("the folder is empty")),
                    Arc::clone(&journal),
                    Arc::new(Fixed),
                    Arc::new(Metrics::new()),
                    EngineOptions::new(90 * DAY, 64 << 20),
                )
                .expect("the store is new");
                engine.set_traits(&traits).expect("their filters compile");
                let before = Instant::now();
                engine.start(&Workers::new(Metrics::new())).expect("threads can be had");
                assert!(engine.wait_folded(journal.end(), Duration::from_secs(60)));
                engine.stop();
                total += before.elapsed();
            }
            total
        });
    });
    group.bench_function("cut into the archive", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let folder =
                    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it is writable");
                let mut reader = journal.reader(Position(0));
                let before = Instant::now();
                let cut = cut(
                    &Home::from(folder.path()),
                    &mut *reader,
                    All.committed(),
                    u64::MAX,
                    &All,
                    &Pace::hurried(),
                )
                .expect("the disk has room");
                total += before.elapsed();
                assert_eq!(cut.files.iter().map(|file| file.rows).sum::<u64>(), EVENTS as u64);
            }
            total
        });
    });
    group.finish();
}

/// A fold that has counted everything.
struct All;

impl Folded for All {
    fn committed(&self) -> ArchivePosition {
        ArchivePosition { position: Position(u64::MAX), next_record: u64::MAX }
    }

    fn first_day(&self) -> i64 {
        i64::MIN
    }

    fn shard_of(&self, owner: &Identifier) -> ShardId {
        owner.value().bytes().map(ShardId::from).sum::<ShardId>() % 16
    }

    fn is_erased(&self, _: &Event) -> bool {
        false
    }

    fn is_counted(&self, _: EventNo) -> bool {
        true
    }

    fn archived(&self, _: ArchivePosition) {}
}

criterion_group!(benches, fold);
criterion_main!(benches);
