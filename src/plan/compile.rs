//! From rules to a program: names followed, clauses lowered to leaves over traits, all in one graph.

use std::collections::BTreeSet;
use std::collections::HashMap;

use super::graph::Graph;
use super::graph::Kind;
use super::graph::Node;
use super::graph::NodeId;
use super::library::Library;
use super::library::each_part;
use super::library::written_reach;
use super::number;
use super::number::Band;
use super::test::BadTest;
use super::test::Test;
use super::traits::TraitSet;
use super::traits::TraitSpec;
use super::traits::canonical_test;
use super::window::Window;
use crate::bitmap::TraitId;
use crate::model::time::Millis;
use crate::rules::Body;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;

/// Why a rule cannot be compiled. A rule that passed its check, with its traits in the set, always can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It names a segment that is not there.
    #[error("there is no segment `{0}`")]
    UnknownSegment(Box<str>),
    /// Segments name each other in a circle.
    #[error("segments go in a circle: {0}")]
    Cycle(String),
    /// It names a look-alike segment.
    #[error("`{0}` is a look-alike segment, which no rule can ask yet")]
    Lookalike(Box<str>),
    /// A test of it is none.
    #[error(transparent)]
    Test(#[from] BadTest),
    /// A number has too many digits.
    #[error("a number has more than 18 digits before or after the point")]
    Number,
    /// The set of traits lacks one.
    #[error("the trait `{0}` is not there")]
    NoTrait(String),
}

/// A rule to answer, and what its members are.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What one member is.
    pub level: Level,
}

/// One answer of a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) root: NodeId,
    pub(super) level: Level,
    /// How far back its written windows reach, those of the segments it names included.
    pub(super) reach: Option<Millis>,
}

/// Rules compiled together: what they share is evaluated once.
///
/// It holds for any instant and any snapshot whose columns have its traits.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) graph: Graph,
    pub(super) outputs: Vec<Output>,
    /// The compiled test of each attribute leaf.
    pub(super) tests: HashMap<NodeId, Test>,
}

impl Program {
    /// Compiles rules. An error comes with the place of the rule it is in.
    pub fn compile(
        questions: &[Question<'_>],
        library: &Library,
        traits: &TraitSet,
    ) -> Result<Self, (usize, CompileError)> {
        let id = |spec: &TraitSpec| {
            traits.id(spec).ok_or_else(|| CompileError::NoTrait(spec.to_string()))
        };
        let mut lowering = Lowering::new(library, id);
        let mut outputs = Vec::with_capacity(questions.len());
        for (place, question) in questions.iter().enumerate() {
            let lowered = lowering.rule(question.rule).map_err(|error| (place, error))?;
            outputs.push(Output { root: lowered.0, level: question.level, reach: lowered.1 });
        }
        let graph = lowering.graph;
        let mut tests = HashMap::new();
        for (id, node) in graph.nodes.iter().enumerate() {
            if let Node::Attribute(_, test) = node {
                // Lowering has compiled it once already.
                tests.insert(id, Test::new(test).map_err(|error| (0, error.into()))?);
            }
        }
        Ok(Self { graph, outputs, tests })
    }

    /// How many distinct parts the rules have together.
    pub fn size(&self) -> usize {
        self.graph.nodes.len()
    }

    /// The traits it reads, [`TraitId::ANY`] left out.
    pub fn traits(&self) -> BTreeSet<TraitId> {
        let mut ids = BTreeSet::new();
        for node in &self.graph.nodes {
            match node {
                Node::Did(id, _) | Node::Measure(id, ..) | Node::First(id, _) => {
                    ids.insert(*id);
                }
                Node::Sequence { first, then, .. } => ids.extend([first, then]),
                Node::LastAfter(last, after) => ids.extend([last, after]),
                _ => {}
            }
        }
        ids
    }
}

/// The traits that rules ask, those of the segments they name included, each once.
pub fn traits_of<'a>(
    rules: impl IntoIterator<Item = &'a Rule>,
    library: &'a Library,
) -> Result<Vec<TraitSpec>, CompileError> {
    let mut specs = Vec::new();
    let mut known = HashMap::new();
    for rule in rules {
        let id = |spec: &TraitSpec| {
            let next = u32::try_from(known.len() + 1).unwrap_or(u32::MAX);
            Ok(*known.entry(spec.clone()).or_insert_with(|| {
                specs.push(spec.clone());
                TraitId(next)
            }))
        };
        Lowering::new(library, id).rule(rule)?;
    }
    Ok(specs)
}

/// Lowers rules into one graph; `id` says which trait a spec is.
pub(super) struct Lowering<'a, F> {
    library: &'a Library,
    id: F,
    pub(super) graph: Graph,
    /// Segments that are lowered already.
    segments: HashMap<&'a str, (NodeId, Option<Millis>)>,
    /// Segments that are being lowered.
    path: Vec<&'a str>,
}

impl<'a, F: FnMut(&TraitSpec) -> Result<TraitId, CompileError>> Lowering<'a, F> {
    pub(super) fn new(library: &'a Library, id: F) -> Self {
        Self { library, id, graph: Graph::default(), segments: HashMap::new(), path: Vec::new() }
    }

    /// The node of a rule, and how far back its written windows reach.
    pub(super) fn rule(&mut self, rule: &Rule) -> Result<(NodeId, Option<Millis>), CompileError> {
        let mut reach = None;
        let mut names = Vec::new();
        each_part(rule, &mut |part| {
            if let RuleKind::Segment(name) = &part.kind {
                names.push(&name.text);
            }
            reach = reach.max(written_reach(part));
        });
        for name in names {
            reach = reach.max(self.segment(name)?.1);
        }
        Ok((self.part(rule)?, reach))
    }

    fn segment(&mut self, id: &str) -> Result<(NodeId, Option<Millis>), CompileError> {
        if let Some(lowered) = self.segments.get(id) {
            return Ok(*lowered);
        }
        let library = self.library;
        let Some((id, body)) = library.get(id) else {
            return Err(CompileError::UnknownSegment(id.into()));
        };
        if let Some(place) = self.path.iter().position(|other| *other == id) {
            let circle: Vec<&str> = self.path[place..].iter().copied().chain([id]).collect();
            return Err(CompileError::Cycle(circle.join(" → ")));
        }
        let Body::Rule(rule) = body else { return Err(CompileError::Lookalike(id.into())) };
        self.path.push(id);
        let lowered = self.rule(rule);
        self.path.pop();
        let lowered = lowered?;
        self.segments.insert(id, lowered);
        Ok(lowered)
    }

    fn parts(&mut self, rule: &Rule, all: bool, out: &mut Vec<NodeId>) -> Result<(), CompileError> {
        match &rule.kind {
            RuleKind::And(parts) if all => {
                parts.iter().try_for_each(|part| self.parts(part, all, out))
            }
            RuleKind::Or(parts) if !all => {
                parts.iter().try_for_each(|part| self.parts(part, all, out))
            }
            _ => {
                out.push(self.part(rule)?);
                Ok(())
            }
        }
    }

    /// The node of a part of a rule.
    pub(super) fn part(&mut self, rule: &Rule) -> Result<NodeId, CompileError> {
        let node = match &rule.kind {
            RuleKind::And(_) => {
                let mut parts = Vec::new();
                self.parts(rule, true, &mut parts)?;
                return Ok(self.graph.and(parts));
            }
            RuleKind::Or(_) => {
                let mut parts = Vec::new();
                self.parts(rule, false, &mut parts)?;
                return Ok(self.graph.or(parts));
            }
            RuleKind::Not(part) => {
                let part = self.part(part)?;
                return Ok(self.graph.not(part));
            }
            RuleKind::Everyone => Node::True,
            RuleKind::Segment(name) => return Ok(self.segment(&name.text)?.0),
            RuleKind::Has(name) => Node::Has(name.text.clone()),
            RuleKind::Attribute { name, test } => {
                Test::new(test)?;
                Node::Attribute(name.text.clone(), canonical_test(test))
            }
            RuleKind::Did { selector, window } => {
                Node::Did(self.selector(selector, None)?, Window::new(window.as_ref()))
            }
            RuleKind::Sequence { first, then, within, window } => Node::Sequence {
                first: self.selector(first, None)?,
                then: self.selector(then, None)?,
                within: within.millis(),
                window: Window::new(window.as_ref()),
            },
            RuleKind::Measure { measure, selector, window, cmp, number } => {
                let (kind, property) = match measure {
                    MeasureKind::Count => (Kind::Count, None),
                    MeasureKind::Days => (Kind::Days, None),
                    MeasureKind::Sum(property) => (Kind::Sum, Some(property)),
                    MeasureKind::Min(property) => (Kind::Min, Some(property)),
                    MeasureKind::Max(property) => (Kind::Max, Some(property)),
                    MeasureKind::Avg(property) => (Kind::Avg, Some(property)),
                };
                let crate::rules::ast::LiteralKind::Number(number) = &number.kind else {
                    return Err(BadTest::Unread.into());
                };
                let limit = number::scaled(number).ok_or(CompileError::Number)?;
                let id = self.selector(selector, property)?;
                let window = Window::new(window.as_ref());
                if matches!(kind, Kind::Count | Kind::Days)
                    && let Some(alike) = alike_above_zero(Band::of_count(*cmp, limit))
                {
                    return Ok(match alike {
                        Alike { zero, above } if zero == above => self.graph.constant(zero),
                        Alike { zero, .. } => {
                            let did = self.graph.leaf(Node::Did(id, window), Some(rule));
                            if zero { self.graph.not(did) } else { did }
                        }
                    });
                }
                Node::Measure(id, window, kind, *cmp, number.clone())
            }
            RuleKind::First { selector, window } => {
                Node::First(self.selector(selector, None)?, Window::new(Some(window)))
            }
            RuleKind::LastAfter { selector, after } => {
                let last = self.selector(selector, None)?;
                let after = self.selector(after, None)?;
                // Nothing comes later than itself.
                if last == after { Node::False } else { Node::LastAfter(last, after) }
            }
            RuleKind::Error => return Err(BadTest::Unread.into()),
        };
        Ok(self.graph.leaf(node, Some(rule)))
    }

    fn selector(
        &mut self,
        selector: &Selector,
        measure: Option<&Property>,
    ) -> Result<TraitId, CompileError> {
        if let Some(filter) = &selector.filter {
            super::test::Filter::new(filter)?;
        }
        (self.id)(&TraitSpec::new(selector, measure))
    }
}

/// What a comparison says of a count of zero, and of every other.
struct Alike {
    zero: bool,
    above: bool,
}

/// `Some` where the comparison does not tell one count above zero from another.
fn alike_above_zero(band: Band) -> Option<Alike> {
    let above = band.holds(1);
    // A band that treats 1 like all larger numbers has no edge above 1.
    let lower_edge = band.lo > 1 && band.lo != i128::MAX;
    let upper_edge = band.hi >= 1 && band.hi != i128::MAX;
    let is_empty = band.lo > band.hi;
    (is_empty || !(lower_edge || upper_edge)).then_some(Alike { zero: band.holds(0), above })
}
