//! The naive evaluator: one profile and one event at a time, over raw events.
//!
//! Written from the text of the rule language alone. It shares the tree with the compiler and nothing
//! else: lookups, comparisons, rounding and windows are its own, slow and plain.

mod again;
mod agree;
pub(crate) mod generate;
mod number;
mod value;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

pub(crate) use self::agree::cases;
use self::number::Plain;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Value;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::ast::Duration;
use crate::rules::ast::Filter;
use crate::rules::ast::FilterKind;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;
use crate::rules::ast::Window;
use crate::rules::ast::WindowKind;

const MINUTE: i128 = 60_000;
const DAY: i128 = 86_400_000;
const DEVICES: [&str; 10] =
    ["cookie", "anonymous_id", "idfa", "gaid", "rida", "afai", "tifa", "vida", "lgudid", "msai"];

/// All that was ever sent, in the order of receipt, and when it is asked.
pub(crate) struct World<'a> {
    pub(crate) events: &'a [Event],
    pub(crate) segments: &'a BTreeMap<String, Rule>,
    pub(crate) now: i64,
    pub(crate) true_for: i64,
    pub(crate) retention: i64,
}

/// m(t)
fn minute(time: i128) -> i128 {
    let mut start = time - time % MINUTE;
    if start > time {
        start -= MINUTE;
    }
    start
}

fn day(time: i128) -> i128 {
    let whole = time / DAY;
    if whole * DAY > time { whole - 1 } else { whole }
}

fn length(duration: &Duration) -> i128 {
    use crate::rules::ast::DurationUnit;
    let unit = match duration.unit {
        DurationUnit::Second => 1000,
        DurationUnit::Minute => MINUTE,
        DurationUnit::Hour => 60 * MINUTE,
        DurationUnit::Day => DAY,
        DurationUnit::Week => 7 * DAY,
    };
    i128::from(duration.count) * unit
}

impl World<'_> {
    /// Whether the profile is a member; `Err` is the earliest instant that can be answered.
    pub(crate) fn member(
        &self,
        rule: &Rule,
        level: Level,
        owner: &Identifier,
    ) -> Result<bool, i128> {
        let mut earliest = None;
        self.refusals(rule, &mut earliest);
        if let Some(earliest) = earliest {
            return Err(earliest);
        }
        let own: Vec<(usize, &Event)> =
            self.events.iter().enumerate().filter(|(_, event)| event.ids[0] == *owner).collect();
        let known = own.iter().any(|(_, event)| self.retained(event));
        let device = DEVICES.contains(&owner.namespace.as_str());
        Ok(known && (level == Level::Person || device) && self.holds(rule, &own))
    }

    fn refusals(&self, rule: &Rule, earliest: &mut Option<i128>) {
        let written = match &rule.kind {
            RuleKind::And(parts) | RuleKind::Or(parts) => {
                return parts.iter().for_each(|part| self.refusals(part, earliest));
            }
            RuleKind::Not(part) => return self.refusals(part, earliest),
            RuleKind::Segment(name) => {
                return self.refusals(&self.segments[&*name.text], earliest);
            }
            RuleKind::Did { window, .. }
            | RuleKind::Sequence { window, .. }
            | RuleKind::Measure { window, .. } => window.as_ref(),
            RuleKind::First { window, .. } => Some(window),
            _ => None,
        };
        if let Some(WindowKind::In(reach) | WindowKind::Between(reach, _)) =
            written.map(|w| &w.kind)
        {
            let start = minute(i128::from(self.true_for) - i128::from(self.retention));
            if minute(i128::from(self.now) - length(reach)) < start {
                let from = start + length(reach);
                *earliest = Some(earliest.map_or(from, |other| other.max(from)));
            }
        }
    }

    /// At or before now, and not older than the retention.
    fn retained(&self, event: &Event) -> bool {
        let end = i128::from(self.now.max(self.true_for));
        let time = i128::from(event.time);
        time >= minute(end - i128::from(self.retention)) && time <= i128::from(self.now)
    }

    fn in_window(&self, event: &Event, window: Option<&Window>) -> bool {
        let (time, now) = (i128::from(event.time), i128::from(self.now));
        self.retained(event)
            && match window.map(|window| &window.kind) {
                None => true,
                Some(WindowKind::In(d)) => time >= minute(now - length(d)),
                Some(WindowKind::Between(a, b)) => {
                    time >= minute(now - length(a)) && time < minute(now - length(b))
                }
                Some(WindowKind::Since(from)) => time >= i128::from(*from) * DAY,
                Some(WindowKind::FromTo(from, to)) => {
                    time >= i128::from(*from) * DAY && time < (i128::from(*to) + 1) * DAY
                }
            }
    }

    fn holds(&self, rule: &Rule, own: &[(usize, &Event)]) -> bool {
        let times = |selector: &Selector, window: Option<&Window>| -> Vec<i128> {
            own.iter()
                .filter(|(_, event)| takes(selector, event) && self.in_window(event, window))
                .map(|(_, event)| i128::from(event.time))
                .collect()
        };
        match &rule.kind {
            RuleKind::Or(parts) => parts.iter().any(|part| self.holds(part, own)),
            RuleKind::And(parts) => parts.iter().all(|part| self.holds(part, own)),
            RuleKind::Not(part) => !self.holds(part, own),
            RuleKind::Everyone => true,
            RuleKind::Segment(name) => self.holds(&self.segments[&*name.text], own),
            RuleKind::Has(name) => own
                .iter()
                .any(|(_, event)| event.ids.iter().any(|id| id.namespace.as_str() == &*name.text)),
            RuleKind::Attribute { name, test } => {
                let mut latest: Option<(i64, usize, &Value)> = None;
                for (order, event) in own {
                    for (attribute, value) in &event.attrs {
                        if attribute == &name.text
                            && event.time <= self.now
                            && latest.is_none_or(|(time, before, _)| {
                                (event.time, *order) > (time, before)
                            })
                        {
                            latest = Some((event.time, *order, value));
                        }
                    }
                }
                latest.is_some_and(|(_, _, value)| value::passes(test, value))
            }
            RuleKind::Did { selector, window } => !times(selector, window.as_ref()).is_empty(),
            RuleKind::Sequence { first, then, within, window } => {
                let (starts, ends) = (times(first, None), times(then, window.as_ref()));
                starts.iter().any(|a| ends.iter().any(|b| a < b && *b <= a + length(within)))
            }
            RuleKind::First { selector, window } => {
                let first = own
                    .iter()
                    .filter(|(_, event)| takes(selector, event) && self.retained(event))
                    .min_by_key(|(_, event)| event.time);
                first.is_some_and(|(_, event)| self.in_window(event, Some(window)))
            }
            RuleKind::LastAfter { selector, after } => {
                let (last, after) = (times(selector, None), times(after, None));
                last.iter().max().is_some_and(|last| after.iter().all(|other| other < last))
            }
            RuleKind::Measure { measure, selector, window, cmp, number } => {
                let LiteralKind::Number(limit) = &number.kind else { panic!("a number") };
                let limit = Plain::read(&limit.to_string()).unwrap();
                let window = window.as_ref();
                let values = |property: &Property| -> Vec<i128> {
                    own.iter()
                        .filter(|(_, e)| takes(selector, e) && self.in_window(e, window))
                        .filter_map(|(_, e)| value::number_of(&property.path, e))
                        .filter_map(|number| number.measure())
                        .collect()
                };
                let whole = |count: usize| number::compare_ratio(count as i128, 1, &limit);
                let units = |units: i128| number::compare_ratio(units, 10_000, &limit);
                let ordering = match measure {
                    MeasureKind::Count => Some(whole(times(selector, window).len())),
                    MeasureKind::Days => {
                        let days: BTreeSet<i128> =
                            times(selector, window).into_iter().map(day).collect();
                        Some(whole(days.len()))
                    }
                    MeasureKind::Sum(property) => Some(units(values(property).iter().sum())),
                    MeasureKind::Min(property) => values(property).into_iter().min().map(units),
                    MeasureKind::Max(property) => values(property).into_iter().max().map(units),
                    MeasureKind::Avg(property) => {
                        let values = values(property);
                        let count = 10_000 * values.len() as i128;
                        (count > 0)
                            .then(|| number::compare_ratio(values.iter().sum(), count, &limit))
                    }
                };
                ordering.is_some_and(|ordering| cmp.holds(ordering))
            }
            RuleKind::Error => panic!("a rule that was read"),
        }
    }
}

fn takes(selector: &Selector, event: &Event) -> bool {
    selector.event.text == event.name
        && selector.filter.as_ref().is_none_or(|filter| meets(filter, event))
}

fn meets(filter: &Filter, event: &Event) -> bool {
    match &filter.kind {
        FilterKind::Or(parts) => parts.iter().any(|part| meets(part, event)),
        FilterKind::And(parts) => parts.iter().all(|part| meets(part, event)),
        FilterKind::Not(part) => !meets(part, event),
        FilterKind::Test(property, test) => {
            value::look_up(&property.path, event).is_some_and(|value| value::passes(test, &value))
        }
        FilterKind::Error => panic!("a filter that was read"),
    }
}
