//! Traits: what clauses ask of events, in one canonical form, and the facts an event brings to each.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;

use super::property::BUILT_INS;
use super::property::Found;
use super::property::Path;
use super::test::BadTest;
use super::test::Filter;
use crate::bitmap::TraitId;
use crate::model::Decimal;
use crate::model::Event;
use crate::model::Measure;
use crate::model::Value;
use crate::rules;
use crate::rules::Rule;
use crate::rules::Span;
use crate::rules::ast;
use crate::rules::ast::Cmp;
use crate::rules::ast::FilterKind;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;
use crate::rules::ast::TestKind;

/// What a clause asks of events: their name, a filter, and the property it measures.
///
/// Canonical: two clauses that say the same in another order or notation have equal specs. Its text
/// (`Display`) can be read back with [`TraitSpec::parse`] and is what a store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraitSpec {
    selector: Selector,
    measure: Option<Property>,
}

impl TraitSpec {
    /// The trait of a selector, and of the property that is measured.
    pub fn new(selector: &Selector, measure: Option<&Property>) -> Self {
        Self {
            selector: Selector {
                event: ast::Name { text: selector.event.text.clone(), span: Span::default() },
                filter: selector.filter.as_ref().map(canonical),
                span: Span::default(),
            },
            measure: measure.map(canonical_property),
        }
    }

    /// The event's name.
    pub fn event(&self) -> &str {
        &self.selector.event.text
    }

    /// Whether each fact of it has a value.
    pub fn is_measured(&self) -> bool {
        self.measure.is_some()
    }

    /// The trait of the same events without a value.
    pub fn unmeasured(&self) -> Self {
        Self { selector: self.selector.clone(), measure: None }
    }

    /// Reads a text that `Display` wrote; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let measured = text.starts_with("sum ");
        let rule = if measured { format!("{text} = 0") } else { text.to_owned() };
        let (rule, diagnostics) = rules::parse(&rule);
        if rules::has_errors(&diagnostics) {
            return None;
        }
        match &rule.kind {
            RuleKind::Did { selector, window: None } if !measured => {
                Some(Self::new(selector, None))
            }
            RuleKind::Measure { measure: MeasureKind::Sum(property), selector, .. } => {
                Some(Self::new(selector, Some(property)))
            }
            _ => None,
        }
    }
}

/// `did purchase[value > 3]`, or `sum purchase[value > 3].amount`.
impl fmt::Display for TraitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let selector = self.selector.clone();
        let kind = match &self.measure {
            None => RuleKind::Did { selector, window: None },
            Some(property) => RuleKind::Measure {
                measure: MeasureKind::Sum(property.clone()),
                selector,
                window: None,
                cmp: Cmp::Eq,
                number: ast::Literal {
                    kind: LiteralKind::Number(Decimal::zero()),
                    span: Span::default(),
                },
            },
        };
        let text = rules::print_inline(&Rule { kind, span: Span::default() });
        let end = if self.measure.is_some() { " = 0" } else { "" };
        f.write_str(text.strip_suffix(end).unwrap_or(&text))
    }
}

fn canonical_property(property: &Property) -> Property {
    let literal = property.path.join(".");
    let path = match BUILT_INS.iter().find(|(name, _)| *name == literal) {
        Some((name, _)) => name.split('.').map(Into::into).collect(),
        None => property.path.clone(),
    };
    Property { path, span: Span::default() }
}

fn canonical(filter: &ast::Filter) -> ast::Filter {
    let kind = match &filter.kind {
        FilterKind::Or(parts) => {
            let flat = parts.iter().map(canonical).flat_map(|part| match part.kind {
                FilterKind::Or(parts) => parts,
                _ => vec![part],
            });
            sorted(flat.collect(), FilterKind::Or)
        }
        FilterKind::And(parts) => {
            let flat = parts.iter().map(canonical).flat_map(|part| match part.kind {
                FilterKind::And(parts) => parts,
                _ => vec![part],
            });
            sorted(flat.collect(), FilterKind::And)
        }
        FilterKind::Not(part) => match canonical(part).kind {
            FilterKind::Not(inner) => inner.kind,
            kind => FilterKind::Not(Box::new(ast::Filter { kind, span: Span::default() })),
        },
        FilterKind::Test(property, test) => {
            FilterKind::Test(canonical_property(property), canonical_test(test))
        }
        FilterKind::Error => FilterKind::Error,
    };
    ast::Filter { kind, span: Span::default() }
}

fn sorted(mut parts: Vec<ast::Filter>, combine: fn(Vec<ast::Filter>) -> FilterKind) -> FilterKind {
    parts.sort_by_cached_key(|part| format!("{part:?}"));
    parts.dedup();
    if parts.len() == 1 { parts.remove(0).kind } else { combine(parts) }
}

/// A test without places, its lists in order and a list of one as the comparison it is.
pub(super) fn canonical_test(test: &ast::Test) -> ast::Test {
    let list = |literals: &[ast::Literal]| {
        let mut literals: Vec<_> = literals
            .iter()
            .map(|literal| ast::Literal { kind: literal.kind.clone(), span: Span::default() })
            .collect();
        literals.sort_by_cached_key(|literal| format!("{literal:?}"));
        literals.dedup();
        literals
    };
    let one_or = |mut literals: Vec<ast::Literal>, cmp, kind: fn(Vec<ast::Literal>) -> TestKind| {
        if literals.len() == 1 {
            TestKind::Compare(cmp, literals.remove(0))
        } else {
            kind(literals)
        }
    };
    let kind = match &test.kind {
        TestKind::Compare(cmp, literal) => {
            TestKind::Compare(*cmp, list(std::slice::from_ref(literal)).remove(0))
        }
        TestKind::In(literals) => one_or(list(literals), Cmp::Eq, TestKind::In),
        TestKind::NotIn(literals) => one_or(list(literals), Cmp::Ne, TestKind::NotIn),
        other => other.clone(),
    };
    ast::Test { kind, span: Span::default() }
}

/// The traits to fold, ready to take events. [`TraitId::ANY`] is always one of them.
#[derive(Debug, Clone, Default)]
pub struct TraitSet {
    specs: BTreeMap<TraitId, TraitSpec>,
    ids: HashMap<TraitSpec, TraitId>,
    events: HashMap<Box<str>, Vec<Group>>,
}

/// The traits of one event name that share a filter, which is asked once.
#[derive(Debug, Clone)]
struct Group {
    of: Option<ast::Filter>,
    filter: Option<Filter>,
    traits: Vec<(TraitId, Option<Path>)>,
}

impl TraitSet {
    /// A set of [`TraitId::ANY`] alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a trait under an id that is not in use and not [`TraitId::ANY`]; one that is in the set
    /// already keeps its id.
    pub fn insert(&mut self, id: TraitId, spec: TraitSpec) -> Result<(), BadTest> {
        if self.ids.contains_key(&spec) {
            return Ok(());
        }
        let measure = spec.measure.as_ref().map(|property| Path::new(&property.path));
        let groups = self.events.entry(spec.selector.event.text.clone()).or_default();
        match groups.iter_mut().find(|group| group.of == spec.selector.filter) {
            Some(group) => group.traits.push((id, measure)),
            None => groups.push(Group {
                of: spec.selector.filter.clone(),
                filter: spec.selector.filter.as_ref().map(Filter::new).transpose()?,
                traits: vec![(id, measure)],
            }),
        }
        self.specs.insert(id, spec.clone());
        self.ids.insert(spec, id);
        Ok(())
    }

    /// Removes a trait.
    pub fn remove(&mut self, id: TraitId) {
        if let Some(spec) = self.specs.remove(&id) {
            self.ids.remove(&spec);
            if let Some(groups) = self.events.get_mut(spec.event()) {
                for group in groups.iter_mut() {
                    group.traits.retain(|(other, _)| *other != id);
                }
                groups.retain(|group| !group.traits.is_empty());
            }
        }
    }

    /// The id of a trait.
    pub fn id(&self, spec: &TraitSpec) -> Option<TraitId> {
        self.ids.get(spec).copied()
    }

    /// The trait of an id; `None` of [`TraitId::ANY`] too.
    pub fn spec(&self, id: TraitId) -> Option<&TraitSpec> {
        self.specs.get(&id)
    }

    /// The traits, [`TraitId::ANY`] left out.
    pub fn iter(&self) -> impl Iterator<Item = (TraitId, &TraitSpec)> {
        self.specs.iter().map(|(id, spec)| (*id, spec))
    }

    /// Appends the facts that an event brings, [`TraitId::ANY`] first, and returns how many values were
    /// out of range and so treated as missing.
    pub fn facts(&self, event: &Event, out: &mut Vec<(TraitId, Option<Measure>)>) -> u32 {
        out.push((TraitId::ANY, None));
        let mut out_of_range = 0;
        for group in self.events.get(&event.name).map_or(&[][..], Vec::as_slice) {
            if group.filter.as_ref().is_some_and(|filter| !filter.takes(event)) {
                continue;
            }
            for (id, measure) in &group.traits {
                let Some(path) = measure else {
                    out.push((*id, None));
                    continue;
                };
                if let Some(number) = numeric(&path.find(event)) {
                    match number.to_measure() {
                        Some(value) => out.push((*id, Some(value))),
                        None => out_of_range += 1,
                    }
                }
            }
        }
        out_of_range
    }
}

/// The number that a measure takes: of a JSON number, or of a string that is wholly decimal.
fn numeric(found: &Found<'_>) -> Option<Decimal> {
    match found {
        Found::One(Value::Number(number)) => number.decimal(),
        Found::One(Value::String(text)) => Decimal::from_text(text),
        Found::Text(text) => Decimal::from_text(text),
        Found::One(_) | Found::Many(_) | Found::Missing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rule: &str) -> TraitSpec {
        let (rule, diagnostics) = rules::parse(rule);
        assert_eq!(diagnostics, []);
        match &rule.kind {
            RuleKind::Did { selector, .. } => TraitSpec::new(selector, None),
            RuleKind::Measure { measure: MeasureKind::Sum(property), selector, .. } => {
                TraitSpec::new(selector, Some(property))
            }
            _ => panic!(),
        }
    }

    #[test]
    fn the_same_said_otherwise_is_one_trait() {
        let same = [
            r#"did x[a = 1 and (b in ("u", "v") and page.host = "h")]"#,
            r#"did x[`page.host` = "h" and b in ("v", "u", "u") and not not a in (1.0)] in 7d"#,
        ];
        assert_eq!(spec(same[0]), spec(same[1]));
        assert_ne!(spec("did x[`a.b` = 1]"), spec("did x[a.b = 1]"));
        assert_ne!(spec("did x[a = 1]"), spec(r#"did x[a = "1"]"#));
        assert_ne!(spec("sum x.a > 1"), spec("sum x.b > 1"));
        assert_ne!(spec("sum x.a > 1"), spec("did x"));
    }

    #[test]
    fn texts_are_read_back() {
        for (rule, text) in [
            ("did `Order Completed` in 7d", "did `Order Completed`"),
            ("sum x[b > 1].a in 7d >= 3", "sum x[b > 1].a"),
            ("sum x.`a.b` < 0", "sum x.`a.b`"),
        ] {
            assert_eq!(spec(rule).to_string(), text);
            assert_eq!(TraitSpec::parse(text), Some(spec(rule)));
        }
        for wrong in ["", "did x and did y", "did x in 7d", "count x", "("] {
            let read = TraitSpec::parse(wrong);
            assert!(read.is_none(), "{wrong}: {read:?}");
        }
    }

    #[test]
    fn a_trait_that_is_removed_brings_no_facts() {
        let mut traits = TraitSet::new();
        traits.insert(TraitId(1), spec("did x")).unwrap();
        traits.insert(TraitId(2), spec("sum x.a > 0")).unwrap();
        assert_eq!(traits.id(&spec("did x in 1d")), Some(TraitId(1)));
        traits.remove(TraitId(1));
        assert_eq!(traits.id(&spec("did x")), None);
        assert_eq!(traits.iter().map(|(id, _)| id).collect::<Vec<_>>(), [TraitId(2)]);
    }
}
