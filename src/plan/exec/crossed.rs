//! What time alone changes from one instant to another: for each trait the times whose facts come into a window or
//! fall out of it.
//!
//! Every fact is one of [`TraitId::ANY`] too, at the same time, and the event of an attribute's value is. So
//! what comes of age at the instant, and what leaves the retention, is named by that trait for all others.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Interval;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::plan::compile::Program;
use crate::plan::graph::Node;
use crate::plan::window::Moment;
use crate::plan::window::Window;

/// The stretches of time that cross an edge of a window between two instants, each with the traits that feel it.
#[derive(Debug, Clone, Default)]
pub(super) struct Crossed(BTreeMap<Interval, Vec<TraitId>>);

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
        of_any.into_iter().for_each(|stretch| _ = crossed.insert(stretch, vec![TraitId::ANY]));
        crossed.retain(|stretch, _| !stretch.is_empty());
        Self(crossed)
    }

    /// Adds the profiles of a block with a fact that crossed; tells whether there is one.
    pub(super) fn mark(&self, block: &Block, out: &mut BlockSet) -> bool {
        let mut any = false;
        let Some(of_any) = block.columns(TraitId::ANY) else { return false };
        let has = |columns: &TraitColumns, stretch: &Interval| {
            columns.has_between(stretch.lo.saturating_sub(1), stretch.hi)
        };
        // In most blocks nobody did anything then, whatever the trait.
        for (stretch, traits) in self.0.iter().filter(|(stretch, _)| has(of_any, stretch)) {
            let columns = traits.iter().filter_map(|id| block.columns(*id));
            for columns in columns.filter(|columns| has(columns, stretch)) {
                if !any {
                    out.reset(block.population());
                    any = true;
                }
                columns.did(*stretch, out);
            }
        }
        any
    }
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
