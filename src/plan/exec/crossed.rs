//! What time alone changes from one instant to another: for each trait the times whose facts come into a window or
//! fall out of it.
//!
//! Every fact is one of [`TraitId::ANY`] too, at the same time, and the event of an attribute's value is. So
//! what comes of age at the instant, and what leaves the retention, is named by that trait for all others.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::came::Came;
use super::dirty::Fact;
use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Interval;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::time::Millis;
use crate::plan::compile::Program;
use crate::plan::graph::Node;
use crate::plan::window::Moment;
use crate::plan::window::Window;

/// The stretches of time that cross an edge of a window between two instants.
#[derive(Debug, Clone, Default)]
pub(super) struct Crossed {
    /// Those that every rule feels: what comes of age, and what leaves the retention.
    pub(super) of_all: Vec<Interval>,
    /// The others, each with the traits that feel it.
    of: BTreeMap<Interval, Vec<TraitId>>,
    /// The earlier instant.
    before: Millis,
}

impl Crossed {
    /// Those that a program's rules feel.
    pub(super) fn new(program: &Program, before: Moment, after: Moment) -> Self {
        let windows: BTreeSet<(TraitId, Window)> =
            program.graph.nodes.iter().flat_map(windows).collect();
        let of_any = before.retained().changed(after.retained());
        let mut crossed: BTreeMap<Interval, Vec<TraitId>> = BTreeMap::new();
        for (id, window) in windows {
            let changed = before.interval(window).changed(after.interval(window));
            let is_named = |stretch: &Interval| of_any.iter().any(|any| any.covers(*stretch));
            for stretch in changed.into_iter().filter(|stretch| !is_named(stretch)) {
                crossed.entry(stretch).or_default().push(id);
            }
        }
        crossed.retain(|stretch, _| !stretch.is_empty());
        let of_all = of_any.into_iter().filter(|stretch| !stretch.is_empty()).collect();
        Self { of_all, of: crossed, before: before.now }
    }

    /// Whether a block has an event that every rule feels, other than those that `came`; `out` becomes whose those are
    /// that lie in a stretch with such a one.
    pub(super) fn mark_all(&self, block: &Block, came: Came<'_>, out: &mut BlockSet) -> bool {
        let Some(of_any) = block.columns(TraitId::ANY) else { return false };
        // What comes of age came just now, mostly. What leaves the retention may have been dropped, and tells nothing.
        let is_all_new = |stretch: &Interval| {
            let is_one = |(_, id, time): &&Fact| *id == TraitId::ANY && stretch.holds(*time);
            let all = || came.runs.iter().flat_map(|run| came.facts(run));
            stretch.lo > self.before
                && of_any.scan().facts_in(*stretch) == all().filter(is_one).count() as u64
        };
        let is_felt = |stretch: &&Interval| has(of_any, stretch) && !is_all_new(stretch);
        let mut felt = self.of_all.iter().filter(is_felt).peekable();
        if felt.peek().is_none() {
            return false;
        }
        out.reset(block.population());
        felt.for_each(|stretch| of_any.scan().did(*stretch, out));
        true
    }

    /// Gives the profiles of a block with a fact that crossed, trait by trait, or with an event that did, which may be a
    /// fact of any trait; `out` is scratch.
    pub(super) fn each(
        &self,
        block: &Block,
        out: &mut BlockSet,
        mut found: impl FnMut(Option<TraitId>, &BlockSet),
    ) {
        let Some(of_any) = block.columns(TraitId::ANY) else { return };
        // In most blocks nobody did anything then, whatever the trait.
        for (stretch, traits) in self.of.iter().filter(|(stretch, _)| has(of_any, stretch)) {
            // Fewer did something than there are traits to look through for whose facts these are.
            if of_any.scan().facts_in(*stretch) <= traits.len() as u64 {
                out.reset(block.population());
                of_any.scan().did(*stretch, out);
                found(None, out);
                continue;
            }
            for id in traits {
                let Some(columns) = block.columns(*id).filter(|columns| has(columns, stretch))
                else {
                    continue;
                };
                out.reset(block.population());
                columns.scan().did(*stretch, out);
                found(Some(*id), out);
            }
        }
    }
}

/// Whether a trait has a fact within a stretch of time.
fn has(columns: &TraitColumns, stretch: &Interval) -> bool {
    columns.has_between(stretch.lo.saturating_sub(1), stretch.hi)
}

/// The facts that a leaf's answer follows from: those of a trait in a window.
fn windows(node: &Node) -> Vec<(TraitId, Window)> {
    match node {
        Node::Did(id, window) | Node::Measure(id, window, ..) => vec![(*id, *window)],
        // None may lie before the window.
        Node::First(id, window) => vec![(*id, *window), (*id, Window::Retained)],
        Node::Sequence { first, then, window, .. } => {
            vec![(*first, Window::Retained), (*then, *window)]
        }
        Node::LastAfter(last, after) => {
            vec![(*last, Window::Retained), (*after, Window::Retained)]
        }
        Node::True
        | Node::False
        | Node::And(_)
        | Node::Or(_)
        | Node::Not(_)
        | Node::Has(_)
        | Node::Attribute(..) => Vec::new(),
    }
}
