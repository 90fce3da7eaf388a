//! Refreshes after a thousand profiles changed, among more and more of them. `REFRESH_PROFILES` says among how many,
//! `100000,1000000` unless it is set; ten million take 3 GiB.

mod common;

use common::{NOW, TRAITS, blocks, compile, some_rules};
use criterion::{Criterion, criterion_group, criterion_main};
use loadtest::random::Random;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use throng::bitmap::{Block, Snapshot, TraitId};
use throng::model::time::DAY;
use throng::plan::{Answers, Dirty, Earlier, Members, Repeated, ShardRows};

/// The server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SHARDS: u32 = 16;
const CHANGED: u64 = 1000;

/// What was changed of each shard, and the columns with it.
fn changed(before: &Snapshot, profiles: u64) -> (Snapshot, Vec<Dirty>) {
    let mut random = Random::new(9);
    let mut after = before.clone();
    let mut dirty = vec![roaring(); before.shards.len()];
    for _ in 0..CHANGED {
        let profile = random.below(profiles);
        let shard = usize::try_from(profile % u64::from(SHARDS)).expect("few");
        let ordinal = u32::try_from(profile / u64::from(SHARDS)).expect("32 bits");
        let block = usize::try_from(ordinal >> 16).expect("few");
        let low = u16::try_from(ordinal & 0xffff).expect("16 bits");
        let block: &mut Block = Arc::make_mut(&mut after.shards[shard][block]);
        // One event, of a trait that is none of the commonest.
        let id = TraitId(5 + u32::try_from(random.below(u64::from(TRAITS) - 5)).expect("few"));
        block.add_fact(TraitId::ANY, low, NOW, None);
        block.add_fact(id, low, NOW, None);
        if let Dirty::Some(touched) = &mut dirty[shard] {
            touched.add(vec![(ordinal, TraitId::ANY, NOW), (ordinal, id, NOW)]);
        }
    }
    (after, dirty)
}

fn roaring() -> Dirty {
    Dirty::Some(Default::default())
}

fn refresh(criterion: &mut Criterion) {
    let sizes = std::env::var("REFRESH_PROFILES").unwrap_or("100000,1000000".into());
    let mut group = criterion.benchmark_group("refresh");
    group.sample_size(20);
    for profiles in sizes.split(',').map(|size| size.parse::<u32>().expect("a number")) {
        let each = profiles / SHARDS;
        let facts = usize::try_from(each).expect("few") * 4;
        let shards = (0..SHARDS).map(|seed| blocks(facts, each, TRAITS, u64::from(seed)));
        let before = Snapshot { shards: shards.collect(), true_for: NOW, retention: 90 * DAY };
        let (after, dirty) = changed(&before, u64::from(profiles));
        for count in [100, 1000] {
            let program = compile(&some_rules(count));
            let members = program.run(&before, NOW, 1).expect("within retention");
            let begun = Instant::now();
            let anew = program.run(&after, NOW, 1).expect("within retention");
            eprintln!("{profiles} profiles, {count} rules, all anew: {:?}", begun.elapsed());
            let repeated = Repeated::new(program);
            let mut rows = [0, 1]
                .map(|_| -> Vec<ShardRows> { (0..SHARDS).map(|_| ShardRows::default()).collect() });
            let snapshots = [&before, &after];
            let mut ask = |of: usize, from: i64| -> Vec<Answers> {
                repeated.again(snapshots[of], from, NOW).ask(&dirty, &mut rows[of], 1)
            };
            // As the server does: the members of before are those of a generation that others read.
            let mut earlier: HashMap<(usize, usize), Earlier> = HashMap::new();
            let mut patch = |members: &mut Vec<Members>, answers: &[Answers]| {
                for (output, members) in members.iter_mut().enumerate() {
                    for (shard, answers) in answers.iter().enumerate() {
                        if !answers.is_asked(output) {
                            continue;
                        }
                        let earlier = earlier.entry((output, shard)).or_default();
                        let next = earlier.next(&members.shards[shard], answers, output);
                        if let Some((now, _)) = next {
                            members.shards[shard] = now;
                        }
                    }
                }
            };
            let mut now = members.clone();
            let begun = Instant::now();
            patch(&mut now, &ask(1, NOW));
            eprintln!("{profiles} profiles, {count} rules, the first time: {:?}", begun.elapsed());
            assert_eq!(now, anew, "asked again and asked anew");
            drop(anew);
            for (name, from) in [("a second", NOW - 1000), ("a minute", NOW - 60_000)] {
                let name = format!("{profiles} profiles, {count} rules, after {name}");
                group.bench_function(format!("{name}: asked"), |bencher| {
                    bencher.iter(|| black_box(ask(1, from)));
                });
                // There and back, so that each is a change of as many.
                let answers = [ask(0, from), ask(1, from)];
                let mut turn = 0;
                group.bench_function(format!("{name}: patched"), |bencher| {
                    bencher.iter(|| {
                        patch(&mut now, &answers[turn % 2]);
                        turn += 1;
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, refresh);
criterion_main!(benches);
