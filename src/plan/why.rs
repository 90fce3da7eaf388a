//! One profile, asked by itself: the same answer as the bitmaps, clause by clause, with what was found.
//!
//! It reads the same columns with code of its own, straight from the tree: no graph, no scratch arrays.

use std::collections::BTreeSet;

use serde_json::Map;
use serde_json::Value as Json;

use super::compile::CompileError;
use super::library::Library;
use super::number;
use super::number::Band;
use super::test::BadTest;
use super::test::Test;
use super::traits::TraitSet;
use super::traits::TraitSpec;
use super::window::Moment;
use super::window::TooEarly;
use super::window::Window;
use crate::bitmap::Block;
use crate::bitmap::Interval;
use crate::bitmap::Snapshot;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Measure;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::time::Millis;
use crate::model::time::day_of;
use crate::model::time::format_rfc3339;
use crate::rules;
use crate::rules::Body;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::ast;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;

/// Whether a part of a rule is true of a profile, and why.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Why {
    /// The part, as the printer writes it.
    pub clause: String,
    /// Whether it is true.
    pub holds: bool,
    /// What was found: a count, a sum, a value, times.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub found: Map<String, Json>,
    /// The parts it is made of; of `segment X`, its rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Why>,
}

/// Whether one profile is a member.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Membership {
    /// Whether it is.
    pub member: bool,
    /// Whether the profile is known at the instant. One that is not is in no audience.
    pub known: bool,
    /// Whether it can be a member at the level: at level `device` only a device can.
    pub eligible: bool,
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
    let mut asked = Asked { library, traits, block, ordinal, moment, path: Vec::new() };
    let known = !asked.times(TraitId::ANY, moment.retained()).is_empty();
    let eligible = level == Level::Person || block.devices().contains(ordinal);
    let rule = asked.part(rule)?;
    Ok(Membership { member: known && eligible && rule.holds, known, eligible, rule })
}

struct Asked<'a> {
    library: &'a Library,
    traits: &'a TraitSet,
    block: &'a Block,
    ordinal: u16,
    moment: Moment,
    path: Vec<Box<str>>,
}

/// What was found, in the making.
type Finding = (bool, Vec<(&'static str, Json)>);

impl Asked<'_> {
    fn part(&mut self, rule: &Rule) -> Result<Why, WhyError> {
        let mut parts = Vec::new();
        let (holds, found) = match &rule.kind {
            RuleKind::And(all) => {
                for part in all {
                    parts.push(self.part(part)?);
                }
                (parts.iter().all(|part| part.holds), Vec::new())
            }
            RuleKind::Or(any) => {
                for part in any {
                    parts.push(self.part(part)?);
                }
                (parts.iter().any(|part| part.holds), Vec::new())
            }
            RuleKind::Not(part) => {
                parts.push(self.part(part)?);
                (!parts[0].holds, Vec::new())
            }
            RuleKind::Segment(name) => {
                parts.push(self.segment(&name.text)?);
                (parts[0].holds, Vec::new())
            }
            RuleKind::Everyone => (true, Vec::new()),
            RuleKind::Has(name) => {
                let holders = self.block.holders(&name.text);
                (holders.is_some_and(|set| set.contains(self.ordinal)), Vec::new())
            }
            RuleKind::Attribute { name, test } => self.attribute(&name.text, test)?,
            RuleKind::Did { selector, window } => {
                let times = self.window_times(selector, window.as_ref())?;
                (!times.is_empty(), vec![("count", times.len().into()), latest(&times)])
            }
            RuleKind::Sequence { first, then, within, window } => {
                self.sequence(first, then, within.millis(), window.as_ref())?
            }
            RuleKind::Measure { measure, selector, window, cmp, number } => {
                let LiteralKind::Number(number) = &number.kind else {
                    return Err(CompileError::from(BadTest::Unread).into());
                };
                let limit = number::scaled(number).ok_or(CompileError::Number)?;
                self.measure(measure, selector, window.as_ref(), (*cmp, limit))?
            }
            RuleKind::First { selector, window } => {
                let id = self.id(selector, None)?;
                let window = self.interval(Some(window))?;
                let first = self.times(id, self.moment.retained()).into_iter().min();
                (first.is_some_and(|time| window.holds(time)), vec![("earliest", time(first))])
            }
            RuleKind::LastAfter { selector, after } => {
                let (last, after) = (self.id(selector, None)?, self.id(after, None)?);
                let retained = self.moment.retained();
                let last = self.times(last, retained).into_iter().max();
                let after = self.times(after, retained).into_iter().max();
                let holds = last.is_some() && last > after;
                (holds, vec![("latest", time(last)), ("latest_after", time(after))])
            }
            RuleKind::Error => return Err(CompileError::from(BadTest::Unread).into()),
        };
        let found = found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Why { clause: rules::print_inline(rule), holds, found, parts })
    }

    fn segment(&mut self, id: &str) -> Result<Why, WhyError> {
        let library = self.library;
        if self.path.iter().any(|other| **other == *id) {
            return Err(CompileError::Cycle(format!("{} → {id}", self.path.join(" → "))).into());
        }
        match library.body(id) {
            None => Err(CompileError::UnknownSegment(id.into()).into()),
            Some(Body::Lookalike(_)) => Err(CompileError::Lookalike(id.into()).into()),
            Some(Body::Rule(rule)) => {
                self.path.push(id.into());
                let why = self.part(rule)?;
                self.path.pop();
                Ok(why)
            }
        }
    }

    fn id(&self, selector: &Selector, measure: Option<&Property>) -> Result<TraitId, WhyError> {
        let spec = TraitSpec::new(selector, measure);
        let id = self.traits.id(&spec);
        Ok(id.ok_or_else(|| CompileError::NoTrait(spec.to_string()))?)
    }

    fn interval(&self, window: Option<&ast::Window>) -> Result<Interval, WhyError> {
        let window = Window::new(window);
        self.moment.admits(window.reach())?;
        Ok(self.moment.interval(window))
    }

    fn facts(&self, id: TraitId, interval: Interval) -> Vec<(Millis, Option<Measure>)> {
        let columns = self.block.columns(id);
        columns.map_or_else(Vec::new, |columns| {
            columns.facts_of(self.ordinal, interval.lo, interval.hi)
        })
    }

    fn times(&self, id: TraitId, interval: Interval) -> Vec<Millis> {
        self.facts(id, interval).into_iter().map(|(time, _)| time).collect()
    }

    fn window_times(
        &self,
        selector: &Selector,
        window: Option<&ast::Window>,
    ) -> Result<Vec<Millis>, WhyError> {
        Ok(self.times(self.id(selector, None)?, self.interval(window)?))
    }

    fn attribute(&self, name: &str, test: &ast::Test) -> Result<Finding, WhyError> {
        let test = Test::new(test).map_err(CompileError::from)?;
        let column = self.block.attribute(name);
        let latest = column.and_then(|column| column.value_at(self.ordinal, self.moment.now));
        Ok(match latest {
            None => (false, vec![("value", Json::Null)]),
            Some((at, value)) => {
                let mut json = String::new();
                value.write_json(&mut json);
                // What was written as JSON can be read as it.
                let json = serde_json::from_str(&json).unwrap_or(Json::Null);
                (test.passes_value(value), vec![("value", json), ("since", time(Some(at)))])
            }
        })
    }

    fn sequence(
        &self,
        first: &Selector,
        then: &Selector,
        within: Millis,
        window: Option<&ast::Window>,
    ) -> Result<Finding, WhyError> {
        let starts = self.times(self.id(first, None)?, self.moment.retained());
        let ends = self.window_times(then, window)?;
        let met = ends.iter().find_map(|end| {
            let start = starts.iter().filter(|start| *start < end).max()?;
            (i128::from(*end) - i128::from(*start) <= i128::from(within)).then_some((*start, *end))
        });
        let found = vec![
            ("first", time(met.map(|(start, _)| start))),
            ("then", time(met.map(|(_, end)| end))),
        ];
        Ok((met.is_some(), found))
    }

    fn measure(
        &self,
        measure: &MeasureKind,
        selector: &Selector,
        window: Option<&ast::Window>,
        (cmp, limit): (ast::Cmp, i128),
    ) -> Result<Finding, WhyError> {
        let (MeasureKind::Sum(property)
        | MeasureKind::Min(property)
        | MeasureKind::Max(property)
        | MeasureKind::Avg(property)) = measure
        else {
            let times = self.window_times(selector, window)?;
            let (name, number) = if *measure == MeasureKind::Count {
                ("count", times.len())
            } else {
                let days: BTreeSet<_> = times.iter().map(|time| day_of(*time)).collect();
                ("days", days.len())
            };
            let holds = Band::of_count(cmp, limit).holds(number as i128);
            return Ok((holds, vec![(name, number.into()), latest(&times)]));
        };
        let id = self.id(selector, Some(property))?;
        let facts = self.facts(id, self.interval(window)?);
        let values: Vec<i128> =
            facts.iter().filter_map(|(_, value)| value.map(|value| i128::from(value.0))).collect();
        let sum: i128 = values.iter().sum();
        let holds = |value: Option<i128>| {
            value.is_some_and(|value| Band::of_measure(cmp, limit).holds(value))
        };
        let number = |value: Option<i128>| value.map_or(Json::Null, decimal);
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let (holds, name, found) = match measure {
            MeasureKind::Min(_) => {
                let least = values.iter().min().copied();
                (holds(least), "min", number(least))
            }
            MeasureKind::Max(_) => {
                let greatest = values.iter().max().copied();
                (holds(greatest), "max", number(greatest))
            }
            MeasureKind::Avg(_) if count == 0 => (false, "avg", Json::Null),
            MeasureKind::Avg(_) => {
                let holds = number::mean_passes(sum, count, cmp, limit);
                // For people; the comparison above is exact.
                (holds, "avg", decimal(sum / i128::from(count)))
            }
            _ => (holds(Some(sum)), "sum", decimal(sum)),
        };
        Ok((holds, vec![(name, found), ("count", values.len().into())]))
    }
}

fn time(time: Option<Millis>) -> Json {
    time.map_or(Json::Null, |time| format_rfc3339(time).into())
}

fn latest(times: &[Millis]) -> (&'static str, Json) {
    ("latest", time(times.iter().max().copied()))
}

fn decimal(units: i128) -> Json {
    // A plain decimal is a JSON number, and keeps its digits.
    serde_json::from_str(&number::measure_text(units)).unwrap_or(Json::Null)
}
