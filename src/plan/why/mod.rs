//! One profile, asked by itself: the same answer as the bitmaps, clause by clause, with what was found, since when it
//! is so and until when, and what is lacking.
//!
//! It reads the same columns with code of its own, straight from the tree: no graph, no scratch arrays.

mod clause;
mod course;
mod events;
mod need;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Map;
use serde_json::Value as Json;

pub use self::events::Completion;
pub use self::events::Contribution;
pub use self::need::Need;

use self::clause::Clause;
use self::course::Course;
use self::need::Needs;
use self::need::Ways;
use super::compile::CompileError;
use super::library::Library;
use super::number;
use super::test::BadTest;
use super::traits::TraitSet;
use super::window::Moment;
use super::window::TooEarly;
use super::window::Window;
use crate::bitmap::Block;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Measure;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::time::Millis;
use crate::model::time::format_rfc3339;
use crate::model::time::minute_start;
use crate::rules;
use crate::rules::Body;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::ast::RuleKind;

/// Whether a part of a rule is true of a profile, and why.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Why {
    /// The part, as the printer writes it.
    pub clause: String,
    /// Whether it is true.
    pub holds: bool,
    /// Since when, RFC 3339; `None` where it was so at [`Membership::from`] already.
    #[serde(default)]
    pub since: Option<String>,
    /// The instant from which on it is not so any more if nothing happens, RFC 3339; `None` where there is none.
    #[serde(default)]
    pub until: Option<String>,
    /// What was found: a count, a sum, a value, times.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub found: Map<String, Json>,
    /// The events that were found, the latest first; of many the latest ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Contribution>,
    /// How many more were found, which are not told.
    #[serde(default, skip_serializing_if = "is_none")]
    pub more_events: usize,
    /// The parts it is made of; of `segment X`, its rule, where that does not stand above already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Why>,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

/// Of so many events a clause tells.
const MOST_EVENTS: usize = 10;

/// Whether one profile is a member.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Membership {
    /// Whether it is.
    pub member: bool,
    /// Whether the profile is known at the instant. One that is not is in no audience.
    pub known: bool,
    /// Whether it can be a member at the level: at level `device` only a device can.
    pub eligible: bool,
    /// Since when it is a member, or none, by the times of its events; `None` where it was at `from` already.
    pub since: Option<String>,
    /// The instant at which it leaves, or enters, if nothing happens; `None` where there is none.
    pub until: Option<String>,
    /// The earliest instant that was looked at, RFC 3339.
    pub from: String,
    /// Of a profile that is not a member: the fewest clauses that have to turn, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<Need>,
    /// The rule, part by part.
    pub rule: Why,
}

/// Why one profile could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// The rule cannot be evaluated.
    #[error(transparent)]
    Rule(#[from] CompileError),
    /// The instant is too early for the rule.
    #[error(transparent)]
    TooEarly(#[from] TooEarly),
}

/// Asks a rule of one profile. The snapshot's columns must have the rule's traits, and `traits` their
/// ids.
///
/// # Errors
/// The rule cannot be compiled, or a written window reaches before the retained events at a past `now`.
pub fn why(
    rule: &Rule,
    level: Level,
    library: &Library,
    traits: &TraitSet,
    snapshot: &Snapshot,
    (shard, ordinal): (ShardId, Ordinal),
    now: Millis,
) -> Result<Membership, WhyError> {
    static NOBODY: std::sync::LazyLock<Block> = std::sync::LazyLock::new(Block::new);
    let block = snapshot
        .shards
        .get(usize::from(shard))
        .and_then(|blocks| blocks.get((ordinal / BLOCK) as usize))
        .map_or(&*NOBODY, |block| &**block);
    // The rest of a division by BLOCK fits.
    let ordinal = u16::try_from(ordinal % BLOCK).unwrap_or(0);
    let moment = Moment::of(snapshot, now);
    let mut asked = Asked {
        library,
        traits,
        block,
        ordinal,
        moment,
        from: start(rule, library, moment),
        path: Vec::new(),
        segments: HashMap::new(),
        facts: HashMap::new(),
        needs: Needs::default(),
    };
    let any = asked.facts(TraitId::ANY);
    let known = asked.course(&any, Window::Retained, |place| !place.is_empty());
    let eligible = level == Level::Person || block.devices().contains(ordinal);
    let (why, part) = asked.part(rule)?;
    let member = Course::all(&[known.clone(), Course::always(eligible), part.course]);
    let is_member = member.at(now);
    let (since, until) = member.around(now);
    Ok(Membership {
        member: is_member,
        known: known.at(now),
        eligible,
        since: since.map(format_rfc3339),
        until: until.map(format_rfc3339),
        from: format_rfc3339(asked.from),
        nearest: if is_member || !eligible { Vec::new() } else { asked.needs.of(&part.ways) },
        rule: why,
    })
}

/// The earliest instant at which the rule can be asked.
fn start(rule: &Rule, library: &Library, moment: Moment) -> Millis {
    let retained = minute_start(moment.true_for.saturating_sub(moment.retention));
    let reach = super::library::reach(rule, library).unwrap_or(0);
    retained.saturating_add(reach).min(moment.now)
}

struct Asked<'a> {
    library: &'a Library,
    traits: &'a TraitSet,
    block: &'a Block,
    ordinal: u16,
    moment: Moment,
    /// The earliest instant that is looked at.
    from: Millis,
    path: Vec<Box<str>>,
    /// The segments that were asked, so that each stands in the answer once.
    segments: HashMap<Box<str>, Part>,
    /// All facts of a trait, by time: with those that are dated ahead.
    facts: HashMap<TraitId, Rc<[Fact]>>,
    needs: Needs,
}

type Fact = (Millis, Option<Measure>);

/// What is known of a part beside what is told.
#[derive(Clone)]
struct Part {
    holds: bool,
    course: Course,
    ways: Ways,
}

impl Asked<'_> {
    fn part(&mut self, rule: &Rule) -> Result<(Why, Part), WhyError> {
        let mut told = Vec::new();
        let mut parts = Vec::new();
        let mut each = |this: &mut Self, part: &Rule| -> Result<(), WhyError> {
            let (why, part) = this.part(part)?;
            told.push(why);
            parts.push(part);
            Ok(())
        };
        let clause = rules::print_inline(rule);
        let part = match &rule.kind {
            RuleKind::And(all) => {
                all.iter().try_for_each(|part| each(self, part))?;
                let (courses, ways) = split(&parts);
                Part {
                    holds: parts.iter().all(|part| part.holds),
                    course: Course::all(&courses),
                    ways: Ways::all(&ways),
                }
            }
            RuleKind::Or(any) => {
                any.iter().try_for_each(|part| each(self, part))?;
                let (courses, ways) = split(&parts);
                Part {
                    holds: parts.iter().any(|part| part.holds),
                    course: Course::any(&courses),
                    ways: Ways::any(&ways),
                }
            }
            RuleKind::Not(part) => {
                each(self, part)?;
                let Part { holds, course, ways } = parts.swap_remove(0);
                Part { holds: !holds, course: course.not(), ways: ways.not() }
            }
            RuleKind::Segment(name) => match self.segments.get(&name.text) {
                Some(known) => known.clone(),
                None => {
                    let (why, part) = self.segment(&name.text)?;
                    told.push(why);
                    self.segments.insert(name.text.clone(), part.clone());
                    part
                }
            },
            RuleKind::Everyone => {
                Part { holds: true, course: Course::always(true), ways: Ways::fixed(true) }
            }
            RuleKind::Error => return Err(CompileError::from(BadTest::Unread).into()),
            leaf => {
                let Clause { holds, found, events, course, distance } = self.clause(leaf)?;
                let part =
                    Part { holds, ways: self.needs.clause(&clause, holds, distance), course };
                let found = found.into_iter().map(|(name, value)| (name.to_owned(), value));
                let why = Why {
                    found: found.collect(),
                    events: events.told,
                    more_events: events.more,
                    ..self.why(clause, &part, told)
                };
                return Ok((why, part));
            }
        };
        Ok((self.why(clause, &part, told), part))
    }

    fn why(&self, clause: String, part: &Part, parts: Vec<Why>) -> Why {
        let (since, until) = part.course.around(self.moment.now);
        Why {
            clause,
            holds: part.holds,
            since: since.map(format_rfc3339),
            until: until.map(format_rfc3339),
            found: Map::new(),
            events: Vec::new(),
            more_events: 0,
            parts,
        }
    }

    fn segment(&mut self, id: &str) -> Result<(Why, Part), WhyError> {
        let library = self.library;
        if self.path.iter().any(|other| **other == *id) {
            return Err(CompileError::Cycle(format!("{} → {id}", self.path.join(" → "))).into());
        }
        match library.body(id) {
            None => Err(CompileError::UnknownSegment(id.into()).into()),
            Some(Body::Lookalike(_)) => Err(CompileError::Lookalike(id.into()).into()),
            Some(Body::Rule(rule)) => {
                self.path.push(id.into());
                let part = self.part(rule)?;
                self.path.pop();
                Ok(part)
            }
        }
    }
}

fn split(parts: &[Part]) -> (Vec<Course>, Vec<Ways>) {
    parts.iter().map(|part| (part.course.clone(), part.ways.clone())).unzip()
}

/// Ten-thousandths as a JSON number.
fn decimal(units: i128) -> Json {
    // A plain decimal is a JSON number, and keeps its digits.
    serde_json::from_str(&number::measure_text(units)).unwrap_or(Json::Null)
}
