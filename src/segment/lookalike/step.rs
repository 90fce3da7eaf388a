//! The steps of a training, as they are asked of shards wherever they are held.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::plan::lookalike::Counts;
use crate::plan::lookalike::Cut;
use crate::plan::lookalike::Feature;
use crate::plan::lookalike::Scores;
use crate::plan::lookalike::Survey;
use crate::rules::Level;
use crate::store::audiences::RulePrint;

/// A step of a training. The number of the training tells its pin of the columns from those of others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Pins the columns, finds the seed, and tells what there is to learn from.
    Survey {
        /// The training.
        training: u64,
        /// The rules of the seed and of who may be chosen.
        rules: [String; 2],
        /// The segments that they name, and those that these do.
        library: BTreeMap<String, String>,
        /// What one member is.
        level: Level,
        /// The traits that may be features.
        traits: Vec<String>,
        /// T, which is also the instant: everything acknowledged before it is in.
        true_for: Millis,
    },
    /// Counts who has each feature.
    Count {
        /// The training.
        training: u64,
        /// The features.
        features: Vec<Feature>,
    },
    /// Scores everybody.
    Score {
        /// The training.
        training: u64,
        /// What each feature weighs.
        weights: Vec<(Feature, i32)>,
    },
    /// Tells how many of those who have a score, and whose number begins with some bits, have each of the next 16.
    Ties {
        /// The training.
        training: u64,
        /// The score.
        score: i32,
        /// The bits.
        prefix: u64,
        /// How many.
        bits: u32,
    },
    /// Lists the members, and holds them for the refreshes to come. The training ends with it.
    Take {
        /// The training.
        training: u64,
        /// The segment.
        segment: String,
        /// What its members are known by.
        print: RulePrint,
        /// Where they end.
        cut: Cut,
    },
    /// Forgets a training that comes to no end.
    Leave {
        /// The training.
        training: u64,
    },
    /// Tells which features the profile of an identifier has.
    Profile {
        /// The namespace and the value.
        identifier: (String, String),
        /// The features.
        features: Vec<Feature>,
        /// Everything acknowledged before it is in.
        true_for: Millis,
    },
}

/// What a step found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// What there is to learn from.
    Survey(Survey),
    /// Who has each feature.
    Counts(Counts),
    /// What everybody's score is.
    Scores(Scores),
    /// How many have each of the next bits.
    Ties(BTreeMap<u16, u64>),
    /// How many members there are.
    Taken(u64),
    /// Nothing is left.
    Left,
    /// A profile, where its shard is held.
    Profile(Option<Holds>),
}

/// A profile, and the places of the features it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// Its shard.
    pub shard: ShardId,
    /// Its ordinal there.
    pub ordinal: Ordinal,
    /// The places of its features, in order.
    pub features: Vec<usize>,
}

impl Found {
    /// Adds what the same step found in other shards.
    pub(in crate::segment) fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Survey(mine), Self::Survey(other)) => mine.add(other),
            (Self::Counts(mine), Self::Counts(other)) => mine.add(&other),
            (Self::Scores(mine), Self::Scores(other)) => mine.add(&other),
            (Self::Ties(mine), Self::Ties(other)) => {
                other.into_iter().for_each(|(next, n)| *mine.entry(next).or_default() += n);
            }
            (Self::Taken(mine), Self::Taken(other)) => *mine += other,
            (Self::Profile(mine @ None), Self::Profile(other)) => *mine = other,
            _ => {}
        }
    }
}
