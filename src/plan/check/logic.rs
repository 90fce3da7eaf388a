//! Rules that no profile can meet or that every one does, and parts that change nothing.
//!
//! A rule is a function of its clauses. Clauses that compare one quantity (a count, a sum …) with
//! numbers depend on where the quantity lies among those numbers; all others are true or false
//! freely. All cases together make a table with a place for each; a claim is made only where it
//! holds in every case, among which are all that can occur, so no claim is false.

use std::collections::HashMap;

use crate::bitmap::BlockSet;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Measure;
use crate::plan::compile::Lowering;
use crate::plan::graph::Kind;
use crate::plan::graph::Node;
use crate::plan::graph::NodeId;
use crate::plan::library::Library;
use crate::plan::number;
use crate::plan::number::SCALE;
use crate::plan::number::TEN_THOUSANDTH;
use crate::plan::traits::TraitSpec;
use crate::plan::window::Window;
use crate::rules::Body;
use crate::rules::Diagnostic;
use crate::rules::Rule;
use crate::rules::Span;
use crate::rules::ast::Cmp;
use crate::rules::ast::RuleKind;

/// How much work a rule is worth: parts squared times the words of a table.
const MAX_WORK: usize = 20_000_000;

/// Warns of a rule that passed all other checks.
pub(super) fn check(rule: &Rule, library: &Library) -> Vec<Diagnostic> {
    // Segments are looked into where that stays small, and else taken as clauses of their own.
    [true, false].into_iter().find_map(|expand| warnings(rule, library, expand)).unwrap_or_default()
}

fn warnings(rule: &Rule, library: &Library, expand: bool) -> Option<Vec<Diagnostic>> {
    let mut known = HashMap::new();
    let id = |spec: &TraitSpec| Ok(super::number_of(&mut known, spec));
    let mut builder = Builder { lowering: Lowering::new(library, id), library, expand, parts: 0 };
    let formula = builder.formula(rule, true)?;
    let parts = builder.parts;
    let cases = Cases::new(&formula, &builder.lowering.graph.nodes)?;
    if parts * parts * (cases.count as usize).div_ceil(64) > MAX_WORK {
        return None;
    }
    let mut skipped = Vec::new();
    let table = cases.table(&formula, &skipped);
    let mut out = Vec::new();
    if table.is_empty() {
        let told = Diagnostic::warning("never", rule.span, "no profile can meet this rule");
        out.push(told.with_hint("its parts contradict each other"));
    } else if table.len() == cases.count {
        if rule.kind != RuleKind::Everyone {
            let told = Diagnostic::warning("always", rule.span, "every profile meets this rule");
            out.push(told.with_hint("say `everyone` where that is meant"));
        }
    } else {
        cases.needless(&formula, &formula, &table, &mut skipped, &mut out);
    }
    Some(out)
}

/// A rule as a function of its leaves.
struct Formula {
    /// Numbered in the order of making, for being left out.
    number: usize,
    /// Where it stands, if it is a part that the author wrote here.
    span: Option<Span>,
    kind: FormulaKind,
}

enum FormulaKind {
    Constant(bool),
    Leaf(NodeId),
    /// `segment X`, not looked into.
    Segment(Box<str>),
    Not(Box<Formula>),
    And(Vec<Formula>),
    Or(Vec<Formula>),
}

struct Builder<'a, F> {
    lowering: Lowering<'a, F>,
    library: &'a Library,
    expand: bool,
    parts: usize,
}

impl<F> Builder<'_, F>
where
    F: FnMut(&TraitSpec) -> Result<TraitId, crate::plan::CompileError>,
{
    fn formula(&mut self, rule: &Rule, is_here: bool) -> Option<Formula> {
        let number = self.parts;
        self.parts += 1;
        // A chain of segments can double with each link.
        if self.parts > 4096 {
            return None;
        }
        let mut all = |parts: &[Rule]| {
            parts.iter().map(|part| self.formula(part, is_here)).collect::<Option<Vec<_>>>()
        };
        let kind = match &rule.kind {
            RuleKind::And(parts) => FormulaKind::And(all(parts)?),
            RuleKind::Or(parts) => FormulaKind::Or(all(parts)?),
            RuleKind::Not(part) => FormulaKind::Not(Box::new(self.formula(part, is_here)?)),
            RuleKind::Segment(name) if !self.expand => FormulaKind::Segment(name.text.clone()),
            RuleKind::Segment(name) => {
                let Body::Rule(rule) = self.library.body(&name.text)? else { return None };
                self.formula(rule, false)?.kind
            }
            _ => {
                let node = self.lowering.part(rule).ok()?;
                match self.lowering.graph.nodes[node] {
                    Node::True => FormulaKind::Constant(true),
                    Node::False => FormulaKind::Constant(false),
                    Node::Not(inner) => {
                        self.parts += 1;
                        let kind = FormulaKind::Leaf(inner);
                        FormulaKind::Not(Box::new(Formula { number: self.parts, span: None, kind }))
                    }
                    _ => FormulaKind::Leaf(node),
                }
            }
        };
        Some(Formula { number, span: is_here.then_some(rule.span), kind })
    }
}

/// Something that takes one of a few states, whatever the others do.
#[derive(PartialEq, Eq, Hash)]
enum Quantity {
    Measured(TraitId, Window, Kind),
    Free(NodeId),
    Segment(Box<str>),
}

/// Where a quantity may lie.
struct Place {
    /// How many states it has.
    states: u32,
    /// How many cases lie between one of its states and the next.
    stride: u32,
    /// Of a measured one: the numbers it is compared with, ascending, and its states.
    limits: Vec<i128>,
    lies: Vec<Lie>,
}

/// A state of a measured quantity: at a limit, just after the limits before, or without a value.
#[derive(Clone, Copy)]
enum Lie {
    At(usize),
    Before(usize),
    Nowhere,
}

struct Cases<'a> {
    nodes: &'a [Node],
    places: HashMap<Quantity, Place>,
    count: u32,
}

fn quantity(node: NodeId, nodes: &[Node]) -> (Quantity, Option<(Cmp, i128)>) {
    match &nodes[node] {
        Node::Did(id, window) => {
            (Quantity::Measured(*id, *window, Kind::Count), Some((Cmp::Gt, 0)))
        }
        Node::Measure(id, window, kind, cmp, limit) => {
            let limit = number::scaled(limit).unwrap_or_default();
            (Quantity::Measured(*id, *window, *kind), Some((*cmp, limit)))
        }
        _ => (Quantity::Free(node), None),
    }
}

impl<'a> Cases<'a> {
    /// `None` where there are more cases than a table holds.
    fn new(formula: &Formula, nodes: &'a [Node]) -> Option<Self> {
        let mut limits: HashMap<Quantity, Vec<i128>> = HashMap::new();
        gather(formula, nodes, &mut limits);
        let mut count = 1u32;
        let mut places = HashMap::new();
        for (quantity, mut limits) in limits {
            limits.sort_unstable();
            limits.dedup();
            let lies = match &quantity {
                Quantity::Measured(.., kind) => lies(*kind, &limits),
                Quantity::Free(_) | Quantity::Segment(_) => Vec::new(),
            };
            let states = if let Quantity::Measured(..) = quantity {
                u32::try_from(lies.len()).ok()?
            } else {
                2
            };
            places.insert(quantity, Place { states, stride: count, limits, lies });
            count = count.checked_mul(states).filter(|count| *count <= BLOCK)?;
        }
        Some(Self { nodes, places, count })
    }

    fn leaf(&self, quantity: &Quantity, test: Option<(Cmp, i128)>) -> BlockSet {
        let place = &self.places[quantity];
        let holds: Vec<bool> = match test {
            None => vec![false, true],
            Some((cmp, limit)) => {
                let at = place.limits.partition_point(|other| *other < limit);
                let holds = |lie: &Lie| match lie {
                    Lie::At(other) => cmp.holds(other.cmp(&at)),
                    // Before the limit itself is below it; before a later one is above.
                    Lie::Before(other) => cmp.holds(if *other <= at {
                        std::cmp::Ordering::Less
                    } else {
                        std::cmp::Ordering::Greater
                    }),
                    Lie::Nowhere => false,
                };
                place.lies.iter().map(holds).collect()
            }
        };
        (0..self.count)
            .filter(|case| holds[(case / place.stride % place.states) as usize])
            .filter_map(|case| u16::try_from(case).ok())
            .collect()
    }

    /// The cases in which a formula is true, with some of its parts left out.
    fn table(&self, formula: &Formula, skipped: &[usize]) -> BlockSet {
        let mut set = BlockSet::new();
        match &formula.kind {
            FormulaKind::Constant(true) => set.fill(self.count),
            FormulaKind::Constant(false) => set.reset(self.count),
            FormulaKind::Leaf(node) => {
                let (quantity, test) = quantity(*node, self.nodes);
                set = self.leaf(&quantity, test);
            }
            FormulaKind::Segment(id) => set = self.leaf(&Quantity::Segment(id.clone()), None),
            FormulaKind::Not(part) => {
                set = self.table(part, skipped);
                set.complement(self.count);
            }
            FormulaKind::And(parts) => {
                set.fill(self.count);
                for part in parts.iter().filter(|part| !skipped.contains(&part.number)) {
                    set.intersect_with(&self.table(part, skipped));
                }
            }
            FormulaKind::Or(parts) => {
                set.reset(self.count);
                for part in parts.iter().filter(|part| !skipped.contains(&part.number)) {
                    set.union_with(&self.table(part, skipped));
                }
            }
        }
        set
    }

    /// Finds parts of `part` without which the whole has the same table.
    fn needless(
        &self,
        whole: &Formula,
        part: &Formula,
        table: &BlockSet,
        skipped: &mut Vec<usize>,
        out: &mut Vec<Diagnostic>,
    ) {
        if part.span.is_none() {
            return;
        }
        let parts = match &part.kind {
            FormulaKind::And(parts) | FormulaKind::Or(parts) => parts.as_slice(),
            FormulaKind::Not(inner) => {
                return self.needless(whole, inner, table, skipped, out);
            }
            FormulaKind::Constant(_) | FormulaKind::Leaf(_) | FormulaKind::Segment(_) => &[],
        };
        let mut left = parts.len();
        // From the end, so that of two equal parts the second is the one too many.
        for part in parts.iter().rev() {
            let Some(span) = part.span.filter(|_| left > 1) else { continue };
            skipped.push(part.number);
            if self.table(whole, skipped) == *table {
                left -= 1;
                let told = Diagnostic::warning("needless", span, "this part changes nothing");
                out.push(told.with_hint("the rule says the same without it"));
            } else {
                skipped.pop();
            }
        }
        for part in parts {
            if !skipped.contains(&part.number) {
                self.needless(whole, part, table, skipped, out);
            }
        }
    }
}

fn gather(formula: &Formula, nodes: &[Node], out: &mut HashMap<Quantity, Vec<i128>>) {
    match &formula.kind {
        FormulaKind::Constant(_) => {}
        FormulaKind::Leaf(node) => {
            let (quantity, test) = quantity(*node, nodes);
            out.entry(quantity).or_default().extend(test.map(|(_, limit)| limit));
        }
        FormulaKind::Segment(id) => {
            out.entry(Quantity::Segment(id.clone())).or_default();
        }
        FormulaKind::Not(part) => gather(part, nodes, out),
        FormulaKind::And(parts) | FormulaKind::Or(parts) => {
            parts.iter().for_each(|part| gather(part, nodes, out));
        }
    }
}

/// The states that a quantity can be in, seen from its limits.
fn lies(kind: Kind, limits: &[i128]) -> Vec<Lie> {
    let farthest = i128::from(Measure::MAX.0) * TEN_THOUSANDTH;
    let (unit, least, most) = match kind {
        Kind::Count | Kind::Days => (SCALE, Some(0), None),
        Kind::Sum => (TEN_THOUSANDTH, None, None),
        Kind::Min | Kind::Max => (TEN_THOUSANDTH, Some(-farthest), Some(farthest)),
        // A mean can be any fraction.
        Kind::Avg => (1, Some(-farthest), Some(farthest)),
    };
    let within = |value: i128| least.is_none_or(|l| l <= value) && most.is_none_or(|m| value <= m);
    // Whether a value lies strictly between two limits.
    let between = |low: Option<i128>, high: Option<i128>| {
        if kind == Kind::Avg {
            return low.is_none_or(|low| low < farthest)
                && high.is_none_or(|high| high > -farthest);
        }
        let first = match (low, least) {
            (Some(low), least) => {
                let next = (low.div_euclid(unit) + 1) * unit;
                least.map_or(next, |least| next.max(least))
            }
            (None, Some(least)) => least,
            // Without any bound below there is always one.
            (None, None) => return true,
        };
        high.is_none_or(|high| first < high) && most.is_none_or(|most| first <= most)
    };
    let mut lies = Vec::new();
    let mut low = None;
    for (place, limit) in limits.iter().enumerate() {
        if between(low, Some(*limit)) {
            lies.push(Lie::Before(place));
        }
        if limit.rem_euclid(unit) == 0 && within(*limit) {
            lies.push(Lie::At(place));
        }
        low = Some(*limit);
    }
    if between(low, None) {
        lies.push(Lie::Before(limits.len()));
    }
    if matches!(kind, Kind::Min | Kind::Max | Kind::Avg) {
        lies.push(Lie::Nowhere);
    }
    lies
}
