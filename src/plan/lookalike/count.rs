//! Features found in the columns of a shard: counted, or added up as a score.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use super::feature::Feature;
use super::feature::Plain;
use super::feature::number;
use super::feature::plain;
use super::survey::Pair;
use super::survey::counted;
use super::survey::latest;
use super::whom::OTHER;
use super::whom::ROLES;
use super::whom::SEED;
use super::whom::Scored;
use super::whom::Whom;
use super::whom::role;
use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Interval;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::model::ShardId;
use crate::model::Value;
use crate::model::time::Millis;
use crate::plan::Moment;
use crate::plan::TraitSet;
use crate::plan::TraitSpec;

/// How many of those that are learnt from have each feature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many there are, of the seed and of the others.
    pub sizes: Pair,
    /// By the place of the feature.
    pub features: Vec<Pair>,
}

impl Counts {
    /// Adds those of other shards.
    pub fn add(&mut self, other: &Self) {
        self.features.resize(self.features.len().max(other.features.len()), [0, 0]);
        let mine = self.features.iter_mut().zip(&other.features);
        for (mine, more) in mine.chain([(&mut self.sizes, &other.sizes)]) {
            mine[0] += more[0];
            mine[1] += more[1];
        }
    }
}

/// Features, ready to be found in columns.
#[derive(Debug, Clone)]
pub struct Features {
    count: usize,
    traits: Vec<(usize, TraitId)>,
    attributes: BTreeMap<String, Places>,
    retained: Interval,
    now: Millis,
}

/// The features of one attribute.
#[derive(Debug, Clone, Default)]
struct Places {
    plain: HashMap<Plain, usize>,
    numbers: Vec<(usize, Feature)>,
}

impl Places {
    /// Calls `f` with the place of each that a value is.
    fn each(&self, value: &Value, f: &mut dyn FnMut(usize)) {
        for value in plain(value) {
            self.plain.get(&value).copied().into_iter().for_each(&mut *f);
        }
        if !self.numbers.is_empty()
            && let Some(number) = number(value)
        {
            let taken = self.numbers.iter().filter(|(_, feature)| feature.holds(number));
            taken.for_each(|(place, _)| f(*place));
        }
    }
}

impl Features {
    /// Features at an instant. A trait that is not in the set is had by nobody.
    pub fn new<'a>(
        features: impl IntoIterator<Item = &'a Feature>,
        traits: &TraitSet,
        snapshot: &Snapshot,
        now: Millis,
    ) -> Self {
        let retained = Moment::of(snapshot, now).retained();
        let mut all =
            Self { count: 0, traits: Vec::new(), attributes: BTreeMap::new(), retained, now };
        for feature in features {
            let place = all.count;
            all.count += 1;
            match feature {
                Feature::Did(text) => {
                    let id = TraitSpec::parse(text).and_then(|spec| traits.id(&spec));
                    all.traits.extend(id.map(|id| (place, id)));
                }
                Feature::Value { attribute, value } => {
                    let of = all.attributes.entry(attribute.clone()).or_default();
                    of.plain.insert(value.clone(), place);
                }
                Feature::Number { attribute, .. } => {
                    let of = all.attributes.entry(attribute.clone()).or_default();
                    of.numbers.push((place, feature.clone()));
                }
            }
        }
        all
    }

    /// Counts who has each, in one shard.
    pub fn count(&self, shard: ShardId, blocks: &[Arc<Block>], whom: &Whom) -> Counts {
        let mut all = Counts { sizes: [0, 0], features: vec![[0, 0]; self.count] };
        let mut set = BlockSet::new();
        for (place, block) in blocks.iter().enumerate() {
            let marks = whom.marks(shard, place, block);
            let mut sizes = [0u64; ROLES];
            marks.iter().for_each(|mark| sizes[role(*mark)] += 1);
            let add = |pair: &mut Pair, of: [u64; ROLES]| {
                pair[0] += of[SEED];
                pair[1] += of[OTHER];
            };
            add(&mut all.sizes, sizes);
            for (feature, id) in &self.traits {
                let mut of = [0u64; ROLES];
                self.did(block, *id, &mut set, &mut |at| of[role(marks[at])] += 1);
                add(&mut all.features[*feature], of);
            }
            for (name, features) in &self.attributes {
                let Some(column) = block.attribute(name) else { continue };
                let counts = counted(column, &marks, self.now);
                for (value, counts) in column.values().zip(counts) {
                    if counts[SEED] + counts[OTHER] > 0 {
                        features.each(value, &mut |at| add(&mut all.features[at], counts));
                    }
                }
            }
        }
        all
    }

    /// Adds up the weights of what each profile of a shard has; `weights` are by the place of the feature.
    pub fn score(
        &self,
        shard: ShardId,
        blocks: &[Arc<Block>],
        whom: &Whom,
        weights: &[i32],
    ) -> Vec<Scored> {
        let mut set = BlockSet::new();
        let scored = blocks.iter().enumerate().map(|(place, block)| {
            let marks = whom.marks(shard, place, block);
            let mut scores = vec![0i32; marks.len()];
            for (feature, id) in &self.traits {
                let weight = weights[*feature];
                self.did(block, *id, &mut set, &mut |at| scores[at] += weight);
            }
            for (name, features) in &self.attributes {
                let Some(column) = block.attribute(name) else { continue };
                let of = column.values().map(|value| {
                    let mut sum = 0;
                    features.each(value, &mut |at| sum += weights[at]);
                    sum
                });
                let of: Vec<i32> = of.collect();
                for (score, number) in scores.iter_mut().zip(latest(column, marks.len(), self.now))
                {
                    *score += of.get(number as usize).copied().unwrap_or(0);
                }
            }
            Scored { marks, scores }
        });
        scored.collect()
    }

    /// The places of the features that one profile has, in order.
    pub fn of(&self, block: &Block, ordinal: u16) -> Vec<usize> {
        let mut found = Vec::new();
        let mut set = BlockSet::new();
        for (feature, id) in &self.traits {
            let mut has = false;
            self.did(block, *id, &mut set, &mut |at| has |= at == usize::from(ordinal));
            found.extend(has.then_some(*feature));
        }
        for (name, features) in &self.attributes {
            let Some(column) = block.attribute(name) else { continue };
            let Some((_, value)) = column.value_at(ordinal, self.now) else { continue };
            features.each(value, &mut |at| found.push(at));
        }
        found.sort_unstable();
        found
    }

    fn did(&self, block: &Block, id: TraitId, set: &mut BlockSet, f: &mut dyn FnMut(usize)) {
        set.reset(block.population());
        block.scan(id).did(self.retained, set);
        set.iter().for_each(|ordinal| f(usize::from(ordinal)));
    }
}
