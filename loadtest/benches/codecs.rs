//! What an event costs on its way: encoded, batched, appended, read back, matched to traits.

mod common;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use throng::bitmap::{TraitColumns, TraitId};
use throng::config::Durability;
use throng::model::{Event, Record};
use throng::plan::{TraitSet, TraitSpec};
use throng::store::embedded::journal::{EmbeddedJournal, Options};
use throng::store::journal::{Batch, Journal, Position};

fn events(criterion: &mut Criterion) {
    let events = common::events(1_000, 100_000, 2);
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(events.len() as u64));
    let mut bytes = Vec::new();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            bytes.clear();
            events.iter().for_each(|event| Record::encode_event(event, &mut bytes));
            black_box(bytes.len())
        });
    });
    let encoded: Vec<Vec<u8>> = events.iter().map(encode).collect();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for bytes in &encoded {
                black_box(Record::decode(bytes).expect("it was encoded here"));
            }
        });
    });
    let traits = traits();
    let mut facts = Vec::new();
    group.bench_function("match to 24 traits", |bencher| {
        bencher.iter(|| {
            for event in &events {
                facts.clear();
                traits.facts(event, &mut facts);
                black_box(facts.len());
            }
        });
    });
    group.finish();
}

fn encode(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record::encode_event(event, &mut bytes);
    bytes
}

/// Traits with filters as rules have them: of pages, of a category, of a device, of values.
fn traits() -> TraitSet {
    let mut set = TraitSet::new();
    for number in 0..24 {
        let text = match number % 4 {
            0 => format!(r#"did page_view[page.path starts with "/p/{number}"]"#),
            1 => format!(r#"did page_view[category = "shoes" and device.kind != "{number}"]"#),
            2 => format!(r#"did page_view[page.url matches "/p/{number}[0-9]$"]"#),
            _ => format!("sum purchase[value > {number}].value >= 0"),
        };
        let (rule, _) = throng::rules::parse(&text);
        let library = throng::plan::Library::new();
        let specs: Vec<TraitSpec> =
            throng::plan::traits_of([&rule], &library).expect("no segment is named");
        for spec in specs {
            set.insert(TraitId(number + 1), spec).expect("the filter compiles");
        }
    }
    set
}

fn journal(criterion: &mut Criterion) {
    let events = common::events(1_024, 100_000, 3);
    let mut group = criterion.benchmark_group("journal");
    for (name, durability) in
        [("disk", Durability::Disk), ("disk-buffered", Durability::DiskBuffered)]
    {
        for size in [1, 32, 1_024] {
            // On the disk of the build, since a memory file system syncs for nothing.
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it is writable");
            let (journal, _) = EmbeddedJournal::open(folder.path(), Options::new(durability))
                .expect("the folder is empty");
            let mut batch = Batch::new();
            for event in &events[..size] {
                batch.push_event(event).expect("it is small");
            }
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(format!("{name}, append {size}"), |bencher| {
                bencher.iter(|| black_box(journal.append(&batch).expect("the disk has room")));
            });
            // What a bench of seconds appends is gigabytes; a segment that is full is let go.
            journal.release(journal.end()).expect("nobody reads");
        }
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it is writable");
    let (journal, _) = EmbeddedJournal::open(folder.path(), Options::new(Durability::DiskBuffered))
        .expect("the folder is empty");
    let mut batch = Batch::new();
    for event in &events {
        batch.push_event(event).expect("it is small");
    }
    for _ in 0..16 {
        journal.append(&batch).expect("the disk has room");
    }
    group.throughput(Throughput::Elements(16 * events.len() as u64));
    group.bench_function("read and decode", |bencher| {
        bencher.iter(|| {
            let mut reader = journal.reader(Position(0));
            while let Some(frame) = reader.next().expect("it was written here") {
                for record in frame.records() {
                    let (_, bytes) = record.expect("it was written here");
                    black_box(Record::decode(bytes).expect("it was written here"));
                }
            }
        });
    });
    group.finish();
}

fn columns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("columns");
    let facts = 100_000_u64;
    group.throughput(Throughput::Elements(facts));
    let mut random = loadtest::random::Random::new(4);
    let drawn: Vec<(u16, i64)> = (0..facts)
        .map(|_| {
            let ordinal = u16::try_from(random.below(1 << 16)).expect("16 bits");
            let back = random.below(30 * throng::model::time::DAY.unsigned_abs());
            (ordinal, common::NOW - i64::try_from(back).expect("small"))
        })
        .collect();
    group.bench_function("add in order of arrival", |bencher| {
        bencher.iter_batched(
            TraitColumns::new,
            |mut columns| {
                for (ordinal, time) in &drawn {
                    columns.add(*ordinal, *time, None);
                }
                columns
            },
            BatchSize::LargeInput,
        );
    });
    let mut columns = TraitColumns::new();
    for (ordinal, time) in &drawn {
        columns.add(*ordinal, *time, None);
    }
    let mut bytes = Vec::new();
    group.bench_function("encode images of days", |bencher| {
        bencher.iter(|| {
            bytes.clear();
            columns.days().for_each(|(_, day)| day.encode(&mut bytes));
            black_box(bytes.len())
        });
    });
    group.finish();
}

criterion_group!(benches, events, journal, columns);
criterion_main!(benches);
