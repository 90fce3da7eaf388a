//! Look-alikes: what sets the members of a seed apart from all others, as a score that is a sum of whole numbers.
//!
//! Four passes over the blocks of shards, whose results are added up in any order: a [`Survey`] of the attributes tells
//! which features there are, [`Counts`] how many have each, [`Scores`] what all come to, and of equal scores [`ties`] who is
//! taken. Learnt is from four fifths of the profiles; the fifth that was held out says how well the score tells the two
//! apart. No number here is a float, so that neither the order of shards nor who holds them changes anything.

mod asked;
mod count;
mod feature;
mod learn;
mod rank;
mod survey;
#[cfg(test)]
mod tests;
mod whom;

pub use asked::AskedBy;
pub use count::Counts;
pub use count::Features;
pub use feature::Feature;
pub use feature::Plain;
pub use learn::Learnt;
pub use learn::Row;
pub use learn::SUPPORT;
pub use learn::UNIT;
pub use learn::learn;
pub use rank::Auc;
pub use rank::Cut;
pub use rank::Histogram;
pub use rank::Scores;
pub use rank::chosen;
pub use rank::line;
pub use rank::narrowed;
pub use rank::taken;
pub use rank::ties;
pub use survey::Survey;
pub use whom::Scored;
pub use whom::Whom;
pub use whom::order;
