//! Scans of one block's columns: what each kind of clause costs for a fact in its window.

mod common;

use common::NOW;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadtest::random::Random;
use std::hint::black_box;
use throng::bitmap::{Block, BlockSet, Interval, TraitId};
use throng::model::Measure;
use throng::model::time::DAY;

const TRAIT: TraitId = TraitId(1);

/// A full block with `facts` values over 30 days.
fn block(facts: u64) -> Block {
    let mut random = Random::new(3);
    let mut block = Block::new();
    for _ in 0..facts {
        let ordinal = u16::try_from(random.below(1 << 16)).expect("16 bits");
        let time = NOW - i64::try_from(random.below(30 * DAY.unsigned_abs())).expect("small");
        block.add_fact(TRAIT, ordinal, time, Some(Measure(10_000)));
    }
    block
}

fn windows(criterion: &mut Criterion) {
    for (name, facts) in [("sparse", 3_000), ("dense", 300_000)] {
        let block = block(facts);
        let facts = block.scan(TRAIT);
        // Neither end is a midnight, so that both are cut from timelines.
        let window = Interval { lo: NOW - 14 * DAY + 12_345_678, hi: NOW - 3_600_000 };
        let mut group = criterion.benchmark_group(format!("window/{name}"));
        group.throughput(Throughput::Elements(facts.weight(window)));
        let mut set = BlockSet::new();
        group.bench_function("did", |bencher| {
            bencher.iter(|| {
                set.reset(1 << 16);
                facts.did(window, &mut set);
                black_box(set.len())
            });
        });
        let mut small = vec![0_u8; 1 << 16];
        group.bench_function("count", |bencher| {
            bencher.iter(|| {
                small.fill(0);
                facts.count_small(window, &mut small);
                black_box(small[7])
            });
        });
        let mut counts = vec![0_u32; 1 << 16];
        group.bench_function("days", |bencher| {
            bencher.iter(|| {
                counts.fill(0);
                set.reset(1 << 16);
                facts.count_days(window, &mut set, &mut counts);
                black_box(counts[7])
            });
        });
        let mut sums = vec![0_i64; 1 << 16];
        group.bench_function("sum", |bencher| {
            bencher.iter(|| {
                sums.fill(0);
                facts.sum_small(window, &mut sums);
                black_box(sums[7])
            });
        });
        group.finish();
    }
}

criterion_group!(benches, windows);
criterion_main!(benches);
