//! The rules of the comparison, as text for the compiler and as data for the other engines.

use crate::common::{TRAITS, parse};
use crate::facts::{COST, column};
use loadtest::random::Random;
use serde::Serialize;
use std::collections::BTreeMap;
use throng::plan::{Library, Program, Question, TraitSet, traits_of};
use throng::rules::Level;

/// What is asked of events of one trait.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Leaf {
    /// From 0 on, the commonest first.
    #[serde(rename = "trait")]
    of: u16,
    days: u16,
    /// So many events at least.
    count: u32,
    /// Instead of it: purchases of so much together at least.
    cents: Option<u32>,
}

/// Leaves of which one has to be true, or none.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Group {
    not: bool,
    leaves: Vec<Leaf>,
}

/// Groups that all have to be true, the negated ones last.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rule {
    groups: Vec<Group>,
}

impl Leaf {
    fn did(of: u16, days: u16) -> Self {
        Self { of, days, count: 1, cents: None }
    }

    fn text(&self) -> String {
        let Self { days, count, .. } = self;
        let of = self.of + 1;
        match self.cents {
            Some(cents) => format!("sum t{of}.value in {days}d >= {}", cents / 100),
            None if *count > 1 => format!("count t{of} in {days}d >= {count}"),
            None => format!("did t{of} in {days}d"),
        }
    }
}

impl Rule {
    fn text(&self) -> String {
        let groups = self.groups.iter().map(|group| {
            let leaves: Vec<String> = group.leaves.iter().map(Leaf::text).collect();
            format!("{}({})", if group.not { "not " } else { "" }, leaves.join(" or "))
        });
        groups.collect::<Vec<_>>().join(" and ")
    }

    fn of(leaf: Leaf) -> Self {
        Self { groups: vec![Group { not: false, leaves: vec![leaf] }] }
    }
}

fn group(not: bool, days: u16, of: &[u16]) -> Group {
    Group { not, leaves: of.iter().map(|of| Leaf::did(*of, days)).collect() }
}

/// A hundred rules of two to four groups of one to three traits; some with counts.
fn hundred(with_counts: bool) -> Vec<Rule> {
    let mut random = Random::new(6);
    let rule = |random: &mut Random| {
        let groups = 2 + random.below(3);
        let negated = random.below(3) == 0;
        let groups = (1..=groups).map(|number| {
            let leaves = (0..=random.below(3)).map(|_| {
                let of = u16::try_from(random.below(u64::from(TRAITS))).expect("few traits");
                let days = [1, 7, 14, 30][usize::try_from(random.below(4)).expect("small")];
                let counts = random.below(5) == 0;
                let count = 2 + u32::try_from(random.below(4)).expect("small");
                Leaf { count: if counts && with_counts { count } else { 1 }, ..Leaf::did(of, days) }
            });
            Group { not: negated && number == groups, leaves: leaves.collect() }
        });
        Rule { groups: groups.collect() }
    };
    (0..100).map(|_| rule(&mut random)).collect()
}

/// The questions by name, each of one rule or a hundred.
pub(crate) fn all() -> BTreeMap<&'static str, Vec<Rule>> {
    let r2 = [group(false, 30, &[0]), group(false, 30, &[1]), group(true, 30, &[3])];
    let r5 = [
        group(false, 7, &[2, 4, 6, 8, 10]),
        group(false, 14, &[1, 5, 7, 11, 12]),
        group(false, 30, &[0, 13, 14, 15, 16]),
        group(true, 30, &[17, 18, 19, 20]),
    ];
    let sum = Leaf { cents: Some(10_000), ..Leaf::did(3, 30) };
    BTreeMap::from([
        ("R1", vec![Rule { groups: vec![group(false, 7, &[10, 20, 30, 40, 50])] }]),
        ("R2", vec![Rule { groups: r2.into() }]),
        ("R3", vec![Rule::of(Leaf { count: 3, ..Leaf::did(0, 14) })]),
        ("R4", vec![Rule::of(sum)]),
        ("R5", vec![Rule { groups: r5.into() }]),
        ("R6", hundred(true)),
        ("R6b", hundred(false)),
    ])
}

/// Compiles rules for the columns.
pub(crate) fn compile(rules: &[Rule]) -> Program {
    let rules: Vec<_> = rules.iter().map(|rule| parse(&rule.text())).collect();
    let library = Library::new();
    let mut traits = TraitSet::new();
    for spec in traits_of(&rules, &library).expect("the rules name no segment") {
        let number: u16 = spec.event()[1..].parse().expect("a trait is named t and its number");
        let id = if spec.is_measured() { COST } else { column(number - 1) };
        traits.insert(id, spec).expect("the traits have no filter");
    }
    let questions: Vec<Question<'_>> =
        rules.iter().map(|rule| Question { rule, level: Level::Person }).collect();
    Program::compile(&questions, &library, &traits).expect("its traits are there")
}
