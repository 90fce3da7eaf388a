//! The passes over blocks, held against one profile after the other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::feature::number;
use super::feature::plain;
use super::*;
use crate::bitmap::Block;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::model::Consent;
use crate::model::Number;
use crate::model::ShardId;
use crate::model::Value;
use crate::model::time::DAY;
use crate::model::time::Millis;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;
use crate::rules::Reach;

const NOW: Millis = 1_700_000_000_000;
const RETENTION: Millis = 30 * DAY;
const TRAITS: [&str; 3] = ["did a", "did b", "did c[x = 1]"];

/// A profile as one would write it down.
#[derive(Debug, Clone)]
struct Profile {
    shard: ShardId,
    ordinal: u32,
    is_seed: bool,
    is_known: bool,
    is_within: bool,
    /// What it allowed, where it was asked.
    allows: Option<Vec<u8>>,
    /// The trait, and when.
    facts: Vec<(usize, Millis)>,
    /// In order of receipt.
    attributes: Vec<(&'static str, Millis, Value)>,
}

impl Profile {
    fn is_held_out(&self) -> bool {
        order(self.shard, self.ordinal).is_multiple_of(5)
    }

    fn may(&self) -> bool {
        self.counts() && self.is_within && !self.is_seed
    }

    /// Whether it may be learnt from, and chosen.
    fn counts(&self) -> bool {
        let allows = |purposes: &Vec<u8>| purposes.contains(&9) || purposes.contains(&10);
        self.is_known && self.allows.as_ref().is_none_or(allows)
    }

    fn attribute(&self, name: &str) -> Option<&Value> {
        let of = self.attributes.iter().filter(|(other, time, _)| *other == name && *time <= NOW);
        let mut latest: Option<&(&str, Millis, Value)> = None;
        for entry in of {
            if latest.is_none_or(|latest| entry.1 >= latest.1) {
                latest = Some(entry);
            }
        }
        latest.map(|(_, _, value)| value).filter(|value| **value != Value::Null)
    }

    fn has(&self, feature: &Feature) -> bool {
        match feature {
            Feature::Did(text) => self.facts.iter().any(|(fact, time)| {
                let edge = (NOW - RETENTION).div_euclid(60_000) * 60_000;
                TRAITS[*fact] == text && (edge..=NOW).contains(time)
            }),
            Feature::Value { attribute, value } => {
                self.attribute(attribute).is_some_and(|has| plain(has).contains(value))
            }
            Feature::Number { attribute, from, to } => self
                .attribute(attribute)
                .and_then(number)
                .is_some_and(|n| from.is_none_or(|f| f <= n) && to.is_none_or(|t| n < t)),
        }
    }
}

/// What profiles come to, one after the other.
struct Naive {
    features: Vec<Feature>,
    learnt: Learnt,
    members: BTreeSet<(ShardId, u32)>,
    auc: Option<(u64, u64)>,
}

fn naive(profiles: &[Profile], reach: Reach) -> Naive {
    let known: Vec<&Profile> = profiles.iter().filter(|p| p.counts()).collect();
    let (held, learning): (Vec<&Profile>, Vec<&Profile>) =
        known.iter().copied().partition(|p| p.is_held_out());
    // Every value of attributes that enough have; the sets of tests are smaller than what a survey tells.
    let mut values: BTreeMap<Feature, u64> = BTreeMap::new();
    let mut numbers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for profile in &learning {
        for name in ["country", "tags", "age"] {
            let Some(value) = profile.attribute(name) else { continue };
            for value in plain(value) {
                let attribute = name.to_owned();
                *values.entry(Feature::Value { attribute, value }).or_default() += 1;
            }
            numbers.entry(name).or_default().extend(number(value));
        }
    }
    let mut features: Vec<Feature> =
        values.into_iter().filter(|(_, n)| *n >= SUPPORT).map(|(f, _)| f).collect();
    for (name, mut numbers) in numbers {
        numbers.sort_unstable();
        if (numbers.len() as u64) < SUPPORT {
            continue;
        }
        // A new bin begins with the first number that is another, once an eighth is in.
        let mut edges = Vec::new();
        let mut inside = 0;
        for (at, number) in numbers.iter().enumerate() {
            if at > 0 && numbers[at - 1] != *number && inside * 8 >= numbers.len() {
                edges.push(*number);
                inside = 0;
            }
            inside += 1;
        }
        for at in 0..=edges.len() {
            features.push(Feature::Number {
                attribute: name.to_owned(),
                from: at.checked_sub(1).map(|at| edges[at]),
                to: edges.get(at).copied(),
            });
        }
    }
    features.sort_unstable();
    let mut all: Vec<Feature> =
        TRAITS.iter().map(|text| Feature::Did((*text).to_owned())).collect();
    all.extend(features.iter().cloned());
    let count = |feature: &Feature, seed: bool| {
        learning.iter().filter(|p| p.is_seed == seed && p.has(feature)).count() as u64
    };
    let sizes = [true, false].map(|s| learning.iter().filter(|p| p.is_seed == s).count() as u64);
    let counts =
        Counts { sizes, features: all.iter().map(|f| [count(f, true), count(f, false)]).collect() };
    let learnt = learn(&all, &counts, &|_| false);
    let score = |profile: &Profile| -> i32 {
        let has = learnt.rows.iter().filter(|row| profile.has(&row.feature));
        has.map(|row| row.weight).sum()
    };
    let mut candidates: Vec<&Profile> = known.iter().copied().filter(|p| p.may()).collect();
    candidates.sort_by_key(|p| (std::cmp::Reverse(score(p)), order(p.shard, p.ordinal)));
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let most = (candidates.len() as f64 * f64::from(reach.0) / 1e6 + 0.5).floor() as usize;
    let most = most.max(1).min(candidates.len());
    let members = candidates[..most].iter().map(|p| (p.shard, p.ordinal)).collect();
    let (mut doubled, mut pairs) = (0, 0);
    for seed in held.iter().filter(|p| p.is_seed) {
        for other in held.iter().filter(|p| !p.is_seed) {
            pairs += 1;
            doubled += match score(seed).cmp(&score(other)) {
                std::cmp::Ordering::Greater => 2,
                std::cmp::Ordering::Equal => 1,
                std::cmp::Ordering::Less => 0,
            };
        }
    }
    Naive { features: all, learnt, members, auc: (pairs > 0).then_some((doubled, pairs)) }
}

/// The profiles of some shards as blocks, and whom is learnt from.
fn columns(profiles: &[Profile], shards: usize) -> (Snapshot, Vec<Whom>, TraitSet) {
    let mut blocks: Vec<Vec<Block>> = vec![Vec::new(); shards];
    let mut whom = vec![[RoaringBitmap::new(), RoaringBitmap::new(), RoaringBitmap::new()]; shards];
    let mut traits = TraitSet::new();
    let ids = [4u32, 9, 2].map(TraitId);
    for (id, text) in ids.iter().zip(TRAITS) {
        traits.insert(*id, TraitSpec::parse(text).unwrap()).unwrap();
    }
    for profile in profiles {
        let shard = usize::from(profile.shard);
        let (place, within) = (profile.ordinal as usize >> 16, (profile.ordinal & 0xffff) as u16);
        let of_shard = &mut blocks[shard];
        of_shard.resize(of_shard.len().max(place + 1), Block::new());
        let block = &mut of_shard[place];
        block.set_population(u32::from(within) + 1);
        for (fact, time) in &profile.facts {
            block.add_fact(ids[*fact], within, *time, None);
        }
        if let Some(purposes) = &profile.allows {
            let purposes = purposes.iter().copied().collect();
            block.set_consent(within, &Consent { purposes, vendors: Vec::new() });
        }
        for (name, time, value) in &profile.attributes {
            block.add_attribute(name, within, *time, value.clone());
        }
        for (set, is_in) in whom[shard].iter_mut().zip([
            profile.is_seed && profile.is_known,
            profile.is_known,
            profile.is_within,
        ]) {
            if is_in {
                set.insert(profile.ordinal);
            }
        }
    }
    let shards = blocks.into_iter().map(|blocks| blocks.into_iter().map(Arc::new).collect());
    let snapshot = Snapshot { shards: shards.collect(), true_for: NOW, retention: RETENTION };
    let whom = whom.into_iter().map(|sets| {
        let [seed, everyone, within] = sets.map(Arc::new);
        Whom { seed, everyone, within }
    });
    (snapshot, whom.collect(), traits)
}

/// The same by passes over shards, which are added up in an order of their own.
fn by_blocks(profiles: &[Profile], shards: usize, reach: Reach, turn: usize) -> Naive {
    let (snapshot, whom, traits) = columns(profiles, shards);
    let mut places: Vec<usize> = (0..shards).collect();
    places.rotate_left(turn % shards);
    let shard = |place: usize| ShardId::try_from(place).unwrap();
    let mut survey = Survey::default();
    for place in &places {
        survey.add(Survey::of(shard(*place), &snapshot.shards[*place], &whom[*place], NOW));
    }
    let mut features: Vec<Feature> =
        TRAITS.iter().map(|text| Feature::Did((*text).to_owned())).collect();
    features.extend(survey.features());
    let found = Features::new(&features, &traits, &snapshot, NOW);
    let mut counts = Counts::default();
    for place in &places {
        let (blocks, whom) = (&snapshot.shards[*place], &whom[*place]);
        counts.add(&found.count(shard(*place), blocks, whom));
    }
    let learnt = learn(&features, &counts, &|_| false);
    let weights = learnt.weights();
    let used = Features::new(weights.iter().map(|(f, _)| f), &traits, &snapshot, NOW);
    let weights: Vec<i32> = weights.iter().map(|(_, weight)| *weight).collect();
    let mut scores = Scores::default();
    let mut scored = BTreeMap::new();
    for place in &places {
        let (blocks, whom) = (&snapshot.shards[*place], &whom[*place]);
        let of = used.score(shard(*place), blocks, whom, &weights);
        scores.add(&Scores::of(&of));
        scored.insert(shard(*place), of);
    }
    let mut members = BTreeSet::new();
    let most = chosen(scores.candidates.len(), reach);
    if let Some((score, mut wanted)) = line(&scores.candidates, most) {
        let (mut prefix, mut bits) = (0u64, 0);
        let last = loop {
            let mut found: BTreeMap<u16, u64> = BTreeMap::new();
            for (shard, blocks) in &scored {
                for (next, count) in ties(*shard, blocks, score, prefix, bits) {
                    *found.entry(next).or_default() += count;
                }
            }
            match narrowed(&found, (prefix, bits), &mut wanted) {
                Ok(order) => break order,
                Err(next) => (prefix, bits) = next,
            }
        };
        for (shard, blocks) in &scored {
            let of = taken(*shard, blocks, Cut { score, order: last });
            members.extend(of.iter().map(|ordinal| (*shard, ordinal)));
        }
    }
    let auc = scores.auc().map(|auc| (auc.doubled, auc.pairs));
    Naive { features, learnt, members, auc }
}

fn text(value: &str) -> Value {
    Value::string(value)
}

fn profile() -> impl Strategy<Value = Profile> {
    let age = prop_oneof![
        (0u32..32).prop_map(|age| Value::Number(Number::new(&age.to_string()).unwrap())),
        Just(Value::Number(Number::new("17.5").unwrap())),
        Just(Value::Null),
        Just(text("old")),
    ];
    let tags = proptest::collection::vec(prop_oneof![Just("x"), Just("y"), Just("z")], 0..4)
        .prop_map(|tags| Value::Array(tags.into_iter().map(text).collect()));
    let value = prop_oneof![
        prop_oneof![Just("DE"), Just("FR"), Just("")].prop_map(|v| ("country", text(v))),
        any::<bool>().prop_map(|v| ("country", Value::Bool(v))),
        tags.prop_map(|v| ("tags", v)),
        age.prop_map(|v| ("age", v)),
    ];
    let attribute = (value, -2i64..2).prop_map(|((name, v), day)| (name, NOW + day * DAY, v));
    let fact = (0..TRAITS.len(), -35i64..2).prop_map(|(fact, day)| (fact, NOW + day * DAY));
    let flags = (proptest::bool::weighted(0.3), proptest::bool::weighted(0.9), any::<bool>());
    (
        0u16..3,
        flags,
        proptest::option::of(proptest::collection::vec(prop_oneof![Just(1u8), 3u8..=10], 0..5)),
        proptest::collection::vec(fact, 0..4),
        proptest::collection::vec(attribute, 0..5),
    )
        .prop_map(|(shard, (is_seed, is_known, is_within), allows, facts, attributes)| {
            Profile { shard, ordinal: 0, is_seed, is_known, is_within, allows, facts, attributes }
        })
}

fn profiles() -> impl Strategy<Value = Vec<Profile>> {
    proptest::collection::vec(profile(), 1..300).prop_map(|mut profiles| {
        // In order of arrival; some lie in a block of their own.
        let mut next = [0u32; 3];
        for profile in &mut profiles {
            let next = &mut next[usize::from(profile.shard)];
            profile.ordinal = *next;
            *next = if *next == 40 { 65_536 } else { *next + 1 };
        }
        profiles
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_come_to_what_profiles_come_to_one_by_one(
        profiles in profiles(),
        reach in prop_oneof![1u32..=1_000_000, Just(1_000_000), Just(500_000)],
        turn in 0usize..3,
    ) {
        let one = naive(&profiles, Reach(reach));
        let other = by_blocks(&profiles, 3, Reach(reach), turn);
        prop_assert_eq!(&one.features, &other.features);
        prop_assert_eq!(&one.learnt, &other.learnt);
        prop_assert_eq!(one.auc, other.auc);
        prop_assert_eq!(&one.members, &other.members);
    }
}

#[test]
fn so_many_are_chosen_as_the_share_says() {
    for (candidates, reach, most) in [
        (0, 1_000_000, 0),
        (1, 1, 1),
        (10, 250_000, 3),
        (10, 249_999, 2),
        (1_000, 50_000, 50),
        (7, 1_000_000, 7),
        (u64::MAX, 1_000_000, u64::MAX),
    ] {
        assert_eq!(chosen(candidates, Reach(reach)), most, "{candidates} {reach}");
    }
}

#[test]
fn what_the_seed_asks_for_is_known_however_it_is_counted() {
    let rule = |text: &str| crate::rules::parse(text).0;
    let mut library = crate::plan::Library::new();
    let inner = rule("sum order[b = 2 and a = 1].value > 3 and not profile.plan = \"pro\"");
    library.insert("inner", crate::rules::Body::Rule(inner));
    let asked = AskedBy::rule(&rule("segment inner or count view in 7d >= 2"), &library);
    let attribute = |name: &str| Feature::Number { attribute: name.into(), from: None, to: None };
    for (feature, is_asked) in [
        (Feature::Did("did view".into()), true),
        (Feature::Did("did order[a = 1 and b = 2]".into()), true),
        (Feature::Did("sum order[a = 1 and b = 2].items".into()), true),
        (Feature::Did("did order".into()), false),
        (Feature::Did("did view[a = 1]".into()), false),
        (attribute("plan"), true),
        (attribute("age"), false),
    ] {
        assert_eq!(asked.takes(&feature), is_asked, "{feature}");
    }
}

#[test]
fn a_feature_is_told_in_the_words_of_rules() {
    let number = |from, to| Feature::Number { attribute: "age".into(), from, to };
    let of = |value| Feature::Value { attribute: "city".into(), value };
    for (feature, text) in [
        (Feature::Did("did view".into()), "did view"),
        (of(Plain::Text("Köln \"Süd\"".into())), "profile.city = \"Köln \\\"Süd\\\"\""),
        (of(Plain::Bool(true)), "profile.city = true"),
        (number(Some(180_000), Some(305_000)), "profile.age >= 18 and < 30.5"),
        (number(None, Some(-1)), "profile.age < -0.0001"),
        (number(Some(-15_000), None), "profile.age >= -1.5"),
    ] {
        assert_eq!(feature.to_string(), text);
        let sent = serde_json::to_string(&feature).unwrap();
        assert_eq!(serde_json::from_str::<Feature>(&sent).unwrap(), feature);
    }
}
