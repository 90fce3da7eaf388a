//! Made-up events, traits and columns, the same in every run.

#![allow(dead_code, reason = "each bench uses its part")]

use loadtest::random::Random;
use std::fmt::Write;
use std::sync::Arc;
use throng::bitmap::{Block, Snapshot, TraitId};
use throng::model::time::DAY;
use throng::model::{Device, Event, Identifier, Measure, Millis, Namespace, Page, Source, Value};
use throng::plan::{Library, Program, Question, TraitSet, traits_of};
use throng::rules::{self, Level, Rule};

/// The last millisecond of the made-up days.
pub(crate) const NOW: Millis = 20_000 * DAY - 1;

/// Events as a shop's pages send them, over 30 days up to [`NOW`], received one a millisecond.
pub(crate) fn events(count: usize, visitors: u64, seed: u64) -> Vec<Event> {
    let mut random = Random::new(seed);
    let cookie = Namespace::new("cookie").expect("it is a namespace");
    let text = |text: &str| Some(Box::from(text));
    (0..count)
        .map(|place| {
            let visitor = Random::new(random.below(visitors)).draw();
            let purchase = random.below(10) == 0;
            let cents = 100 + random.below(19_900);
            let value = format!("{}.{:02}", cents / 100, cents % 100);
            let value = throng::model::Number::new(&value).expect("it is a number");
            let id = Identifier::new(cookie.clone(), &format!("{visitor:032x}"));
            let time = NOW - i64::try_from(random.below(30 * DAY.unsigned_abs())).expect("small");
            Event {
                site: "shop".into(),
                name: if purchase { "purchase" } else { "page_view" }.into(),
                time,
                received: NOW + 1 - i64::try_from(count - place).expect("small"),
                time_replaced: false,
                source: Source::Pixel,
                message_id: Some(format!("{:016x}", random.draw()).into()),
                ids: vec![id.expect("it is an identifier")],
                props: if purchase {
                    vec![("value".into(), Value::Number(value))]
                } else {
                    vec![("category".into(), Value::string("shoes"))]
                },
                attrs: Vec::new(),
                page: Page {
                    url: Some(format!("https://shop.example/p/{}", random.below(10_000)).into()),
                    referrer: text("https://www.example.com/"),
                    title: None,
                },
                device: Device {
                    kind: text("mobile"),
                    os: text("Android"),
                    browser: text("Chrome"),
                },
                bot: false,
                country: text("DE"),
                locale: text("de-DE"),
                consent: None,
            }
        })
        .collect()
}

/// One shard of facts drawn as in the comparison with other engines: traits after Zipf's law over `traits`,
/// profiles and days uniform over 30 days, trait 4 with values from 1.00 to 200.00.
pub(crate) fn shard(facts: usize, profiles: u32, traits: u32) -> Snapshot {
    let shards = vec![blocks(facts, profiles, traits, 1)];
    Snapshot { shards, true_for: NOW, retention: 90 * DAY }
}

/// The blocks of such a shard.
pub(crate) fn blocks(facts: usize, profiles: u32, traits: u32, seed: u64) -> Vec<Arc<Block>> {
    let mut random = Random::new(seed);
    let blocks = usize::try_from(profiles.div_ceil(1 << 16)).expect("few");
    let mut made: Vec<Block> = (0..blocks).map(|_| Block::new()).collect();
    for (place, block) in made.iter_mut().enumerate() {
        let before = u32::try_from(place).expect("few") << 16;
        block.set_population((profiles - before).min(1 << 16));
    }
    // The running sums of Zipf's weights, scaled to 64 bits.
    let total: f64 = (1..=traits).map(|rank| 1.0 / f64::from(rank)).sum();
    let mut sum = 0.0;
    let weights: Vec<f64> = (1..=traits)
        .map(|rank| {
            sum += 1.0 / f64::from(rank) / total;
            sum
        })
        .collect();
    for _ in 0..facts {
        #[expect(clippy::cast_precision_loss, reason = "a draw")]
        let draw = random.draw() as f64 / u64::MAX as f64;
        let rank = weights.partition_point(|weight| *weight < draw).min(weights.len() - 1);
        let id = TraitId(1 + u32::try_from(rank).expect("few"));
        let profile = random.below(u64::from(profiles));
        let time = NOW - i64::try_from(random.below(30 * DAY.unsigned_abs())).expect("small");
        let value = (id.0 == 4)
            .then(|| Measure(i64::try_from(random.below(1_990_000)).expect("small") + 10_000));
        let block = &mut made[usize::try_from(profile >> 16).expect("few")];
        let ordinal = u16::try_from(profile & 0xffff).expect("16 bits");
        block.add_fact(TraitId::ANY, ordinal, time, None);
        block.add_fact(id, ordinal, time, value);
    }
    made.into_iter().map(Arc::new).collect()
}

/// How many traits the rules draw from.
pub(crate) const TRAITS: u32 = 200;

/// Reads a rule without errors.
pub(crate) fn parse(text: &str) -> Rule {
    let (rule, diagnostics) = rules::parse(text);
    assert!(diagnostics.is_empty(), "{text}: {diagnostics:?}");
    rule
}

/// So many rules of two to four groups, joined by `and`, of one to three traits, joined by `or`, a fifth with a count.
pub(crate) fn some_rules(count: usize) -> Vec<Rule> {
    let mut random = Random::new(6);
    (0..count)
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
pub(crate) fn compile(rules: &[Rule]) -> Program {
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
