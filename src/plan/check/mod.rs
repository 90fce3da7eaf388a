//! What an author is told about rules that read well: names, windows, and what makes no sense.

mod logic;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::collections::HashMap;

use self::rule::Checker;
use super::compile::Lowering;
use super::graph::NodeId;
use super::library::Library;
use super::library::MAX_LEVELS;
use super::library::references_of;
use super::traits::TraitSpec;
use crate::bitmap::TraitId;
use crate::model::Namespace;
use crate::model::NamespaceOrder;
use crate::model::time::Millis;
use crate::rules::Body;
use crate::rules::Diagnostic;
use crate::rules::Level;
use crate::rules::Rule;
use crate::rules::SegmentFile;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Span;
use crate::rules::has_errors;

/// What has been sent so far. Where too much was sent to remember it all, it knows everything.
pub trait Schema {
    /// The event names.
    fn events(&self) -> Vec<&str>;
    /// Whether an event of this name was ever sent.
    fn knows_event(&self, name: &str) -> bool;
    /// The dotted paths of the properties of an event.
    fn properties(&self, event: &str) -> Vec<&str>;
    /// Whether a property was ever sent on an event.
    fn knows_property(&self, event: &str, path: &str) -> bool;
    /// The names of attributes.
    fn attributes(&self) -> Vec<&str>;
    /// Whether an attribute was ever sent.
    fn knows_attribute(&self, name: &str) -> bool;
}

/// What a check knows of the world.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The listed and configured namespaces.
    pub namespaces: &'a NamespaceOrder,
    /// The namespaces of identifiers that were seen; `None` where there is no server to ask.
    pub seen: Option<&'a BTreeSet<Namespace>>,
    /// How long events count.
    pub retention: Millis,
    /// What was sent; `None` where there is no server to ask.
    pub schema: Option<&'a dyn Schema>,
    /// The instant that `since` and `from` are held against.
    pub now: Option<Millis>,
}

/// Checks segments together, which may name each other. The diagnostics come in the order of the files.
pub fn check(files: &[&SegmentFile], context: &Context<'_>) -> Vec<(String, Vec<Diagnostic>)> {
    let library: Library = files.iter().copied().collect();
    let mut next = HashMap::new();
    let mut lowering = Lowering::new(&library, |spec: &TraitSpec| Ok(number_of(&mut next, spec)));
    let mut rules: HashMap<(NodeId, Level), &str> = HashMap::new();
    let mut has_noted = false;
    let mut checked = Vec::with_capacity(files.len());
    for file in files {
        let checker = Checker { library: &library, context };
        let mut diagnostics = Vec::new();
        match &file.body {
            Body::Rule(rule) => checker.rule(rule, &mut diagnostics),
            Body::Lookalike(lookalike) => {
                checker.segment(&lookalike.seed, &mut diagnostics);
                if let Some(within) = &lookalike.within {
                    checker.rule(within, &mut diagnostics);
                }
            }
        }
        let names = references_of(&file.body);
        let circle = names.iter().find_map(|name| {
            let cycle = library.cycle(&[name])?;
            // Those that only refer to a circle are told nothing: it is not theirs to mend.
            cycle.iter().any(|id| **id == *file.id).then_some((name.span, cycle))
        });
        if let Some((span, cycle)) = circle {
            let message = format!("segments go in a circle: {}", cycle.join(" → "));
            let told = Diagnostic::error("cycle", span, message);
            diagnostics.push(told.with_hint("say what one of them means without the others"));
        } else if library.cycle(&names).is_none() && library.is_deep(&file.body) {
            diagnostics.push(too_deep(names.first().map(|name| name.span)));
        }
        if let Body::Rule(rule) = &file.body
            && !has_errors(&diagnostics)
            && let Ok((node, _)) = lowering.rule(rule)
        {
            diagnostics.extend(logic::check(rule, &library));
            // `segment x` alone is another name for x, and meant to be.
            let is_alias = matches!(rule.kind, RuleKind::Segment(_));
            let key = (node, file.level);
            let first = if is_alias { &file.id } else { *rules.entry(key).or_insert(&file.id) };
            if first != file.id {
                let message = format!("this rule says the same as that of the segment `{first}`");
                let hint = format!("use `segment {first}`, or remove one of them");
                diagnostics.push(Diagnostic::warning("equal", rule.span, message).with_hint(hint));
            }
        }
        if file.level == Level::Person && !has_noted {
            has_noted = true;
            let message = "profiles are not linked into persons yet: at level `person` each profile is asked by itself";
            diagnostics.push(Diagnostic::note("person", None, message));
        }
        checked.push((file.id.clone(), diagnostics));
    }
    checked
}

/// Checks a rule that stands alone.
pub fn check_rule(rule: &Rule, library: &Library, context: &Context<'_>) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    Checker { library, context }.rule(rule, &mut diagnostics);
    for name in super::library::references(rule) {
        if let Some(cycle) = library.cycle(&[name]) {
            let message = format!("segments go in a circle: {}", cycle.join(" → "));
            diagnostics.push(Diagnostic::error("cycle", name.span, message));
            break;
        }
    }
    if !has_errors(&diagnostics) && library.is_deep(&Body::Rule(rule.clone())) {
        diagnostics.push(too_deep(Some(rule.span)));
    }
    if !has_errors(&diagnostics) {
        diagnostics.extend(logic::check(rule, library));
    }
    diagnostics
}

fn too_deep(span: Option<Span>) -> Diagnostic {
    let message =
        format!("this nests more than {MAX_LEVELS} levels deep, with the segments it names");
    let told = Diagnostic::error("depth", span, message);
    told.with_hint("let fewer of these segments stand one behind the other")
}

/// A number for each trait, for graphs that are looked at and never run.
fn number_of(known: &mut HashMap<TraitSpec, TraitId>, spec: &TraitSpec) -> TraitId {
    let next = TraitId(u32::try_from(known.len() + 1).unwrap_or(u32::MAX));
    *known.entry(spec.clone()).or_insert(next)
}
