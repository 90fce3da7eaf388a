//! What a hundred audiences share two by two, and the regions of six, at a million profiles in sixteen shards.

use criterion::{Criterion, criterion_group, criterion_main};
use loadtest::random::Random;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use throng::plan::Members;
use throng::rules::SegmentFile;
use throng::segment::{Audience, AudienceState, Caller, Generation, Segment};

const SHARDS: u32 = 16;
const PROFILES: u32 = 1_000_000 / SHARDS;
const AUDIENCES: usize = 100;
/// How many of ten thousand profiles are in an audience, in turn.
const SHARES: [u64; 10] = [1, 10, 50, 100, 300, 1_000, 2_000, 4_000, 6_000, 9_000];

fn audience(id: &str, share: u64, random: &mut Random) -> Audience {
    let text = "rule = 'did x'\n".to_owned();
    let (file, diagnostics) = SegmentFile::parse(id, &text);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let mut shard = || -> Arc<RoaringBitmap> {
        Arc::new((0..PROFILES).filter(|_| random.below(10_000) < share).collect())
    };
    let members = Members { shards: (0..SHARDS).map(|_| shard()).collect() };
    Audience {
        segment: Arc::new(Segment { file, text, hidden: false, frozen: false }),
        count: Some(members.len()),
        members: Some(Arc::new(members)),
        generation: 1,
        true_for: 1,
        changed: None,
        state: AudienceState::Live,
    }
}

fn overlap(criterion: &mut Criterion) {
    let mut random = Random::new(7);
    let ids: Vec<String> = (0..AUDIENCES).map(|number| format!("a{number}")).collect();
    let audiences: BTreeMap<String, Arc<Audience>> = (ids.iter().zip(SHARES.iter().cycle()))
        .map(|(id, share)| (id.clone(), Arc::new(audience(id, *share, &mut random))))
        .collect();
    let generation = Generation { audiences, ..Generation::default() };
    let caller = Caller::default();
    let mut group = criterion.benchmark_group("overlap");
    group.sample_size(10);
    group.bench_function("100 by 100 of a million", |bencher| {
        bencher.iter(|| black_box(generation.pairs(&ids, &ids, &caller).expect("they are there")));
    });
    let six = &ids[4..10];
    group.bench_function("regions of 6 of a million", |bencher| {
        bencher.iter(|| black_box(generation.regions(six, &caller).expect("they are there")));
    });
    group.finish();
}

criterion_group!(benches, overlap);
criterion_main!(benches);
