//! Rules over one shard of two million facts: alone, and a hundred together.

mod common;

use common::{NOW, TRAITS, compile, parse, some_rules};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use throng::rules::Rule;

/// The rules of the comparison with other engines (the shard is a tenth of its set). `t1` is the commonest
/// trait; purchases are facts of `t4`.
const ALONE: [(&str, &str); 5] = [
    (
        "R1 five united",
        "did t10 in 7d or did t20 in 7d or did t30 in 7d or did t40 in 7d or did t50 in 7d",
    ),
    ("R2 and, and not", "did t1 in 30d and did t2 in 30d and not did t4 in 30d"),
    ("R3 count", "count t1 in 14d >= 3"),
    ("R4 sum", "sum t4.value in 30d >= 100"),
    (
        "R5 nineteen terms",
        "(did t3 in 7d or did t5 in 7d or did t7 in 7d or did t9 in 7d or did t11 in 7d)
         and (did t2 in 14d or did t6 in 14d or did t8 in 14d or did t12 in 14d or did t13 in 14d)
         and (did t1 in 30d or did t14 in 30d or did t15 in 30d or did t16 in 30d or did t17 in 30d)
         and not (did t18 in 30d or did t19 in 30d or did t20 in 30d or did t21 in 30d)",
    ),
];

fn evaluate(criterion: &mut Criterion) {
    let snapshot = common::shard(2_000_000, 500_000, TRAITS);
    let mut group = criterion.benchmark_group("rules");
    group.sample_size(20);
    let mut bench = |name: &str, rules: &[Rule]| {
        let program = compile(rules);
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(program.run(&snapshot, NOW, 1).expect("within retention")));
        });
    };
    for (name, text) in ALONE {
        bench(name, &[parse(text)]);
    }
    bench("R6 a hundred", &some_rules(100));
    group.finish();

    let rules = some_rules(100);
    criterion.bench_function("compile a hundred rules", |bencher| {
        bencher.iter(|| black_box(compile(&rules)));
    });
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
