//! What one clause finds on a profile.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use serde_json::Value as Json;

use super::Asked;
use super::Contribution;
use super::Fact;
use super::MOST_EVENTS;
use super::WhyError;
use super::course::Course;
use super::course::edges;
use super::decimal;
use super::events::contributions;
use super::need::Distance;
use crate::bitmap::Interval;
use crate::bitmap::TraitId;
use crate::model::time::Millis;
use crate::model::time::day_of;
use crate::model::time::format_rfc3339;
use crate::plan::compile::CompileError;
use crate::plan::number;
use crate::plan::number::Band;
use crate::plan::test::BadTest;
use crate::plan::test::Test;
use crate::plan::traits::TraitSpec;
use crate::plan::window::Moment;
use crate::plan::window::Window;
use crate::rules::ast;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;

/// What was found, and what becomes of it.
pub(super) struct Clause {
    pub(super) holds: bool,
    pub(super) found: Vec<(&'static str, Json)>,
    pub(super) events: Events,
    pub(super) course: Course,
    pub(super) distance: Distance,
}

/// The events that are told of, and how many more there are.
#[derive(Default)]
pub(super) struct Events {
    pub(super) told: Vec<Contribution>,
    pub(super) more: usize,
}

impl From<Vec<Contribution>> for Events {
    fn from(told: Vec<Contribution>) -> Self {
        Self { told, more: 0 }
    }
}

impl Asked<'_> {
    /// Asks a part that is made of no others.
    pub(super) fn clause(&mut self, kind: &RuleKind) -> Result<Clause, WhyError> {
        match kind {
            RuleKind::Has(name) => {
                let holders = self.block.holders(&name.text);
                let holds = holders.is_some_and(|set| set.contains(self.ordinal));
                let course = Course::always(holds);
                let distance = Distance::event();
                Ok(Clause { holds, found: Vec::new(), events: Events::default(), course, distance })
            }
            RuleKind::Attribute { name, test } => self.attribute(&name.text, test),
            RuleKind::Did { selector, window } => {
                let window = self.window(window.as_ref())?;
                let facts = self.facts(self.id(selector, None)?);
                let own = &facts[self.place(&facts, self.moment.interval(window))];
                Ok(Clause {
                    holds: !own.is_empty(),
                    found: vec![("count", own.len().into()), latest(own)],
                    events: newest(selector, None, own),
                    course: self.course(&facts, window, |place| !place.is_empty()),
                    distance: Distance::of_event(!own.is_empty()),
                })
            }
            RuleKind::Sequence { first, then, within, window } => {
                self.sequence(first, then, within.millis(), window.as_ref())
            }
            RuleKind::Measure { measure, selector, window, cmp, number } => {
                let LiteralKind::Number(number) = &number.kind else {
                    return Err(CompileError::from(BadTest::Unread).into());
                };
                let limit = number::scaled(number).ok_or(CompileError::Number)?;
                let window = self.window(window.as_ref())?;
                match measure {
                    MeasureKind::Count | MeasureKind::Days => {
                        let is_count = *measure == MeasureKind::Count;
                        self.count(is_count, selector, window, Band::of_count(*cmp, limit))
                    }
                    MeasureKind::Sum(property)
                    | MeasureKind::Min(property)
                    | MeasureKind::Max(property)
                    | MeasureKind::Avg(property) => {
                        let of = Measured { measure, selector, property, cmp: *cmp, limit };
                        self.measure(&of, window)
                    }
                }
            }
            RuleKind::First { selector, window } => {
                let window = self.window(Some(window))?;
                let facts = self.facts(self.id(selector, None)?);
                let first = |moment: Moment| facts[self.place(&facts, moment.retained())].first();
                let is = |moment: Moment| {
                    first(moment).is_some_and(|(time, _)| moment.interval(window).holds(*time))
                };
                let earliest = first(self.moment);
                Ok(Clause {
                    holds: is(self.moment),
                    found: vec![("earliest", time(earliest.map(|(time, _)| *time)))],
                    events: contributions(
                        selector,
                        None,
                        earliest.map_or(&[], std::slice::from_ref),
                    )
                    .into(),
                    course: self.turning(edges(window, &times(&facts), self.moment), is),
                    // A second one is not the first.
                    distance: Distance::of_event(earliest.is_some()),
                })
            }
            RuleKind::LastAfter { selector, after } => self.last_after(selector, after),
            // Parts made of others.
            _ => Err(CompileError::from(BadTest::Unread).into()),
        }
    }

    fn id(&self, selector: &Selector, measure: Option<&Property>) -> Result<TraitId, WhyError> {
        let spec = TraitSpec::new(selector, measure);
        let id = self.traits.id(&spec);
        Ok(id.ok_or_else(|| CompileError::NoTrait(spec.to_string()))?)
    }

    fn window(&self, window: Option<&ast::Window>) -> Result<Window, WhyError> {
        let window = Window::new(window);
        self.moment.admits(window.reach())?;
        Ok(window)
    }

    /// All facts of the profile, by time.
    pub(super) fn facts(&mut self, id: TraitId) -> Rc<[Fact]> {
        let (block, ordinal) = (self.block, self.ordinal);
        let read = || {
            let columns = block.columns(id);
            columns.map_or_else(Rc::default, |columns| {
                columns.facts_of(ordinal, Millis::MIN, Millis::MAX).into()
            })
        };
        self.facts.entry(id).or_insert_with(read).clone()
    }

    /// Which of them lie in an interval.
    fn place(&self, facts: &[Fact], interval: Interval) -> Range<usize> {
        let from = facts.partition_point(|(time, _)| *time < interval.lo);
        let to = facts.partition_point(|(time, _)| *time <= interval.hi);
        from..to.max(from)
    }

    /// Says when what is said of the facts in a window is true.
    pub(super) fn course(
        &self,
        facts: &[Fact],
        window: Window,
        is: impl Fn(Range<usize>) -> bool,
    ) -> Course {
        self.turning(edges(window, &times(facts), self.moment), |moment| {
            is(self.place(facts, moment.interval(window)))
        })
    }

    fn turning(&self, edges: Vec<Millis>, is: impl Fn(Moment) -> bool) -> Course {
        Course::of(self.from, edges, |now| is(Moment { now, ..self.moment }))
    }

    fn attribute(&self, name: &str, test: &ast::Test) -> Result<Clause, WhyError> {
        let test = Test::new(test).map_err(CompileError::from)?;
        let column = self.block.attribute(name);
        let value_at = |now| column.and_then(|column| column.value_at(self.ordinal, now));
        let is = |now| value_at(now).is_some_and(|(_, value)| test.passes_value(value));
        let found = match value_at(self.moment.now) {
            None => vec![("value", Json::Null)],
            Some((at, value)) => {
                let mut json = String::new();
                value.write_json(&mut json);
                // What was written as JSON can be read as it.
                let json = serde_json::from_str(&json).unwrap_or(Json::Null);
                vec![("value", json), ("since", time(Some(at)))]
            }
        };
        let edges = column.map_or_else(Vec::new, |column| column.times_of(self.ordinal));
        Ok(Clause {
            holds: is(self.moment.now),
            found,
            events: Events::default(),
            course: Course::of(self.from, edges, is),
            distance: Distance::event(),
        })
    }

    fn sequence(
        &mut self,
        first: &Selector,
        then: &Selector,
        within: Millis,
        window: Option<&ast::Window>,
    ) -> Result<Clause, WhyError> {
        let window = self.window(window)?;
        let starts = self.facts(self.id(first, None)?);
        let ends = self.facts(self.id(then, None)?);
        // Each end with the latest start before it, which is the last of them to be forgotten. Both rise.
        let pairs: Vec<(Millis, Millis)> = ends
            .iter()
            .filter_map(|(end, _)| {
                let before = starts.partition_point(|(start, _)| start < end);
                let (start, _) = starts.get(before.checked_sub(1)?)?;
                let is_near = i128::from(*end) - i128::from(*start) <= i128::from(within);
                is_near.then_some((*start, *end))
            })
            .collect();
        let met = |moment: Moment| {
            let interval = moment.interval(window);
            let from = pairs.partition_point(|(_, end)| *end < interval.lo);
            let from = from.max(pairs.partition_point(|(start, _)| *start < moment.edge()));
            pairs.get(from).filter(|(_, end)| *end <= interval.hi).copied()
        };
        let (all_starts, all_ends): (Vec<Millis>, Vec<Millis>) = pairs.iter().copied().unzip();
        let mut turns = edges(window, &all_ends, self.moment);
        turns.extend(edges(Window::Retained, &all_starts, self.moment));
        let now = met(self.moment);
        let mut events = Vec::new();
        if let Some((start, end)) = now {
            events.extend(contributions(then, None, &[(end, None)]));
            events.extend(contributions(first, None, &[(start, None)]));
        }
        Ok(Clause {
            holds: now.is_some(),
            found: vec![
                ("first", time(now.map(|(start, _)| start))),
                ("then", time(now.map(|(_, end)| end))),
            ],
            events: events.into(),
            course: self.turning(turns, |moment| met(moment).is_some()),
            distance: Distance::of_event(now.is_some()),
        })
    }

    fn last_after(&mut self, selector: &Selector, after: &Selector) -> Result<Clause, WhyError> {
        let own = self.facts(self.id(selector, None)?);
        let others = self.facts(self.id(after, None)?);
        let last = |facts: &[Fact], moment: Moment| {
            facts[self.place(facts, moment.retained())].last().map(|(time, _)| *time)
        };
        let is = |moment: Moment| {
            let (own, other) = (last(&own, moment), last(&others, moment));
            own.is_some() && own > other
        };
        let mut turns = edges(Window::Retained, &times(&own), self.moment);
        turns.extend(edges(Window::Retained, &times(&others), self.moment));
        let (latest, other) = (last(&own, self.moment), last(&others, self.moment));
        let fact = |time: Option<Millis>| time.map(|time| (time, None));
        let mut events = contributions(selector, None, fact(latest).as_slice());
        events.extend(contributions(after, None, fact(other).as_slice()));
        events.sort_by(|a, b| b.time.cmp(&a.time));
        Ok(Clause {
            holds: is(self.moment),
            found: vec![("latest", time(latest)), ("latest_after", time(other))],
            events: events.into(),
            course: self.turning(turns, is),
            distance: Distance::event(),
        })
    }

    fn count(
        &mut self,
        is_count: bool,
        selector: &Selector,
        window: Window,
        band: Band,
    ) -> Result<Clause, WhyError> {
        let facts = self.facts(self.id(selector, None)?);
        // How many days begin up to each fact.
        let days: Vec<usize> = facts
            .iter()
            .enumerate()
            .scan(0, |days, (at, (time, _))| {
                let is_new = at == 0 || day_of(facts[at - 1].0) != day_of(*time);
                *days += usize::from(is_new);
                Some(*days)
            })
            .collect();
        let is = |place: Range<usize>| {
            let number = match (is_count, place.is_empty()) {
                (true, _) => place.len(),
                (false, true) => 0,
                (false, false) => days[place.end - 1] - days[place.start] + 1,
            };
            band.holds(number as i128)
        };
        let course = self.course(&facts, window, is);
        let own = &facts[self.place(&facts, self.moment.interval(window))];
        let (name, number) = if is_count {
            ("count", own.len())
        } else {
            ("days", own.iter().map(|(time, _)| day_of(*time)).collect::<BTreeSet<_>>().len())
        };
        Ok(Clause {
            holds: band.holds(number as i128),
            found: vec![(name, number.into()), latest(own)],
            events: newest(selector, None, own),
            course,
            distance: Distance::to(band, number as i128, 1),
        })
    }

    fn measure(&mut self, of: &Measured<'_>, window: Window) -> Result<Clause, WhyError> {
        let facts = self.facts(self.id(of.selector, Some(of.property))?);
        let units = |(_, value): &Fact| value.map_or(0, |value| i128::from(value.0));
        let own = &facts[self.place(&facts, self.moment.interval(window))];
        let values: Vec<i128> = own.iter().map(units).collect();
        let sum: i128 = values.iter().sum();
        let band = Band::of_measure(of.cmp, of.limit);
        let number = |value: Option<i128>| value.map_or(Json::Null, decimal);
        let mut events = None;
        let mut distance = Distance::event();
        let mut of_one = |value: Option<i128>, latest_of: &[Fact]| {
            let is_it = |fact: &&Fact| Some(units(fact)) == value;
            let fact = latest_of.iter().rev().find(is_it);
            let fact = fact.map_or(&[][..], std::slice::from_ref);
            events = Some(contributions(of.selector, Some(of.property), fact).into());
            value.is_some_and(|value| band.holds(value))
        };
        let (holds, name, found) = match of.measure {
            MeasureKind::Min(_) => {
                let least = values.iter().min().copied();
                (of_one(least, own), "min", number(least))
            }
            MeasureKind::Max(_) => {
                let greatest = values.iter().max().copied();
                (of_one(greatest, own), "max", number(greatest))
            }
            MeasureKind::Avg(_) if values.is_empty() => (false, "avg", Json::Null),
            MeasureKind::Avg(_) => {
                let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
                let holds = number::mean_passes(sum, count, of.cmp, of.limit);
                // For people; the comparison above is exact.
                (holds, "avg", decimal(sum / i128::from(count)))
            }
            _ => {
                distance = Distance::to(band, sum, 10_000);
                (band.holds(sum), "sum", decimal(sum))
            }
        };
        let events = events.unwrap_or_else(|| newest(of.selector, Some(of.property), own));
        let found = vec![(name, found), ("count", values.len().into())];
        let course = self.course(&facts, window, of.tested(&facts, band));
        Ok(Clause { holds, found, events, course, distance })
    }
}

/// A measure of a property, and what it is compared with.
struct Measured<'a> {
    measure: &'a MeasureKind,
    selector: &'a Selector,
    property: &'a Property,
    cmp: ast::Cmp,
    limit: i128,
}

impl Measured<'_> {
    /// Tells of any run of facts whether it passes, from sums up to each fact.
    fn tested(&self, facts: &[Fact], band: Band) -> impl Fn(Range<usize>) -> bool {
        let up_to = |of: &dyn Fn(i128) -> i128| -> Vec<i128> {
            let mut sum = 0;
            let values =
                facts.iter().map(|(_, value)| value.map_or(0, |value| i128::from(value.0)));
            let sums = values.map(|value| {
                sum += of(value);
                sum
            });
            std::iter::once(0).chain(sums).collect()
        };
        let sums = up_to(&|value| value);
        let below = up_to(&|value| i128::from(value < band.lo));
        let above = up_to(&|value| i128::from(value > band.hi));
        let in_run = |sums: &[i128], run: &Range<usize>| sums[run.end] - sums[run.start];
        let (cmp, limit) = (self.cmp, self.limit);
        enum Kind {
            Sum,
            Least,
            Greatest,
            Mean,
        }
        let kind = match self.measure {
            MeasureKind::Min(_) => Kind::Least,
            MeasureKind::Max(_) => Kind::Greatest,
            MeasureKind::Avg(_) => Kind::Mean,
            _ => Kind::Sum,
        };
        move |run| {
            let count = run.len();
            let all = count as i128;
            match kind {
                Kind::Sum => band.holds(in_run(&sums, &run)),
                _ if run.is_empty() => false,
                // The least of a run lies in the band where none lies below and not all above.
                Kind::Least => {
                    let is_in = in_run(&below, &run) == 0 && in_run(&above, &run) < all;
                    is_in != band.outside
                }
                Kind::Greatest => {
                    let is_in = in_run(&above, &run) == 0 && in_run(&below, &run) < all;
                    is_in != band.outside
                }
                Kind::Mean => {
                    let count = u32::try_from(count).unwrap_or(u32::MAX);
                    number::mean_passes(in_run(&sums, &run), count, cmp, limit)
                }
            }
        }
    }
}

/// The latest of facts as events, the latest first.
fn newest(selector: &Selector, measure: Option<&Property>, facts: &[Fact]) -> Events {
    let more = facts.len().saturating_sub(MOST_EVENTS);
    let mut told = contributions(selector, measure, &facts[more..]);
    told.reverse();
    Events { told, more }
}

fn times(facts: &[Fact]) -> Vec<Millis> {
    facts.iter().map(|(time, _)| *time).collect()
}

fn time(time: Option<Millis>) -> Json {
    time.map_or(Json::Null, |time| format_rfc3339(time).into())
}

fn latest(facts: &[Fact]) -> (&'static str, Json) {
    ("latest", time(facts.last().map(|(time, _)| *time)))
}
