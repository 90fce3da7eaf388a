//! Rules over one shard of two million facts: alone, and a hundred together.

mod common;

use common::NOW;
use criterion::{Criterion, criterion_group, criterion_main};
use loadtest::random::Random;
use std::fmt::Write;
use std::hint::black_box;
use throng::bitmap::TraitId;
use throng::plan::{Library, Program, Question, TraitSet, traits_of};
use throng::rules::{self, Level, Rule};

const TRAITS: u32 = 200;

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

fn parse(text: &str) -> Rule {
    let (rule, diagnostics) = rules::parse(text);
    assert!(diagnostics.is_empty(), "{text}: {diagnostics:?}");
    rule
}

/// A hundred rules of two to four groups, joined by `and`, of one to three traits, joined by `or`, a fifth with a count.
fn hundred() -> Vec<Rule> {
    let mut random = Random::new(6);
    (0..100)
        .map(|_| {
            let mut text = String::new();
            let groups = 2 + random.below(3);
            for group in 0..groups {
                text.push_str(if group > 0 { " and " } else { "" });
                if group > 0 && group + 1 == groups && random.below(3) == 0 {
                    text.push_str("not ");
                }
                text.push('(');
                for term in 0..=random.below(3) {
                    text.push_str(if term > 0 { " or " } else { "" });
                    let id = 1 + random.below(u64::from(TRAITS));
                    let days = [1, 7, 14, 30][usize::try_from(random.below(4)).expect("small")];
                    let written = if random.below(5) == 0 {
                        write!(text, "count t{id} in {days}d >= {}", 2 + random.below(4))
                    } else {
                        write!(text, "did t{id} in {days}d")
                    };
                    written.expect("a string takes all");
                }
                text.push(')');
            }
            parse(&text)
        })
        .collect()
}

/// Compiles rules over traits that have the numbers of their names.
fn compile(rules: &[Rule]) -> Program {
    let library = Library::new();
    let mut traits = TraitSet::new();
    for spec in traits_of(rules, &library).expect("the rules name no segment") {
        let number = spec.event()[1..].parse().expect("a trait is named t and its number");
        traits.insert(TraitId(number), spec).expect("the traits have no filter");
    }
    let questions: Vec<Question<'_>> =
        rules.iter().map(|rule| Question { rule, level: Level::Person }).collect();
    Program::compile(&questions, &library, &traits).expect("its traits are there")
}

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
    bench("R6 a hundred", &hundred());
    group.finish();

    let rules = hundred();
    criterion.bench_function("compile a hundred rules", |bencher| {
        bencher.iter(|| black_box(compile(&rules)));
    });
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
