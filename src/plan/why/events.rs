//! The events that a clause found, with the properties that it asks of them.
//!
//! Columns keep of an event its time, and the value that is measured. What a filter says in so many words
//! (`category = "shoes"`) follows from the rule; the other properties are read from the events themselves.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::Map;
use serde_json::Value as Json;

use super::Membership;
use super::Why;
use super::decimal;
use crate::model::Event;
use crate::model::Measure;
use crate::model::Value;
use crate::model::time::Millis;
use crate::model::time::format_rfc3339;
use crate::plan::property::Found;
use crate::plan::property::Path;
use crate::plan::test::Filter;
use crate::rules::ast;
use crate::rules::ast::Cmp;
use crate::rules::ast::FilterKind;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::Property;
use crate::rules::ast::Selector;
use crate::rules::ast::TestKind;

/// An event that a clause found.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Contribution {
    /// When it happened, RFC 3339.
    pub time: String,
    /// The event's name.
    pub event: String,
    /// The properties that the clause asks for, as they are on the event.
    pub properties: Map<String, Json>,
    /// Whether these are all of them: the others can be read from the events alone.
    pub complete: bool,
    /// What to look for; not told.
    #[serde(skip)]
    sought: Option<Box<Sought>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sought {
    time: Millis,
    selector: Selector,
    properties: Vec<Property>,
}

/// Facts of a selector as events.
pub(super) fn contributions(
    selector: &Selector,
    measure: Option<&Property>,
    facts: &[(Millis, Option<Measure>)],
) -> Vec<Contribution> {
    let mut properties = Vec::new();
    let mut told = Map::new();
    if let Some(filter) = &selector.filter {
        mentioned(filter, &mut properties);
        said(filter, &mut told);
    }
    properties.extend(measure.cloned());
    let mut seen = BTreeSet::new();
    properties.retain(|property| seen.insert(name(property)));
    let contribution = |(time, value): &(Millis, Option<Measure>)| {
        let mut known = told.clone();
        if let (Some(property), Some(value)) = (measure, value) {
            known.insert(name(property), decimal(i128::from(value.0)));
        }
        let complete = properties.iter().all(|property| known.contains_key(&name(property)));
        let sought =
            Sought { time: *time, selector: selector.clone(), properties: properties.clone() };
        Contribution {
            time: format_rfc3339(*time),
            event: selector.event.text.to_string(),
            properties: known,
            complete,
            sought: (!complete).then(|| Box::new(sought)),
        }
    };
    facts.iter().map(contribution).collect()
}

fn name(property: &Property) -> String {
    property.path.join(".")
}

fn mentioned(filter: &ast::Filter, into: &mut Vec<Property>) {
    match &filter.kind {
        FilterKind::Or(parts) | FilterKind::And(parts) => {
            parts.iter().for_each(|part| mentioned(part, into));
        }
        FilterKind::Not(part) => mentioned(part, into),
        FilterKind::Test(property, _) => into.push(property.clone()),
        FilterKind::Error => {}
    }
}

/// What every event that passes has, in so many words.
fn said(filter: &ast::Filter, into: &mut Map<String, Json>) {
    match &filter.kind {
        FilterKind::And(parts) => parts.iter().for_each(|part| said(part, into)),
        FilterKind::Test(property, ast::Test { kind: TestKind::Compare(Cmp::Eq, literal), .. }) => {
            let value = match &literal.kind {
                LiteralKind::Bool(is) => Json::from(*is),
                LiteralKind::String(text) => Json::from(&**text),
                // A plain decimal is a JSON number, and keeps its digits.
                LiteralKind::Number(number) => {
                    serde_json::from_str(&number.to_string()).unwrap_or(Json::Null)
                }
            };
            into.insert(name(property), value);
        }
        _ => {}
    }
}

/// The properties that the contributions of a membership lack, to be taken from events of the profile.
pub struct Completion<'a> {
    sought: Vec<Waiting<'a>>,
}

struct Waiting<'a> {
    clause: usize,
    contribution: &'a mut Contribution,
    time: Millis,
    filter: Option<Filter>,
    properties: Vec<(String, Path)>,
}

impl Membership {
    /// What its contributions lack.
    pub fn completion(&mut self) -> Completion<'_> {
        let mut sought = Vec::new();
        gather(&mut self.rule, &mut 0, &mut sought);
        Completion { sought }
    }
}

fn gather<'a>(why: &'a mut Why, clause: &mut usize, into: &mut Vec<Waiting<'a>>) {
    *clause += 1;
    for contribution in &mut why.events {
        let Some(sought) = contribution.sought.take() else { continue };
        // A filter that was evaluated can be compiled.
        let Ok(filter) = sought.selector.filter.as_ref().map(Filter::new).transpose() else {
            continue;
        };
        let properties = sought.properties.iter();
        let properties = properties.map(|of| (name(of), Path::new(&of.path))).collect();
        into.push(Waiting { clause: *clause, contribution, time: sought.time, filter, properties });
    }
    why.parts.iter_mut().for_each(|part| gather(part, clause, into));
}

impl Completion<'_> {
    /// Whether nothing is lacking any more.
    pub fn is_done(&self) -> bool {
        self.sought.is_empty()
    }

    /// The times between which events are looked for; `None` where none is.
    pub fn times(&self) -> Option<RangeInclusive<Millis>> {
        let times = || self.sought.iter().map(|waiting| waiting.time);
        Some(times().min()?..=times().max()?)
    }

    /// The names of the events that are looked for, perhaps more than once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sought.iter().map(|waiting| &*waiting.contribution.event)
    }

    /// Takes what is looked for from an event of the profile.
    pub fn give(&mut self, event: &Event) {
        let is_it = |waiting: &Waiting<'_>| {
            waiting.time == event.time
                && *waiting.contribution.event == *event.name
                && waiting.filter.as_ref().is_none_or(|filter| filter.takes(event))
        };
        // One contribution of each clause: another event of the same millisecond is another contribution.
        let mut given = None;
        self.sought.retain_mut(|waiting| {
            if given == Some(waiting.clause) || !is_it(waiting) {
                return true;
            }
            given = Some(waiting.clause);
            for (name, path) in &waiting.properties {
                if let Some(value) = json_of(&path.find(event)) {
                    waiting.contribution.properties.insert(name.clone(), value);
                }
            }
            waiting.contribution.complete = true;
            false
        });
    }
}

fn json_of(found: &Found<'_>) -> Option<Json> {
    let one = |value: &Value| {
        let mut text = String::new();
        value.write_json(&mut text);
        serde_json::from_str(&text).unwrap_or(Json::Null)
    };
    match found {
        Found::Missing => None,
        Found::Text(text) => Some(Json::from(&**text)),
        Found::One(value) => Some(one(value)),
        Found::Many(values) => Some(values.iter().map(|value| one(value)).collect()),
    }
}
