//! How many bytes of a block's columns a node reads.

use super::groups::Groups;
use super::groups::Scan;
use crate::bitmap::Block;
use crate::bitmap::Interval;
use crate::bitmap::TraitId;
use crate::plan::compile::Program;
use crate::plan::graph::Kind;
use crate::plan::graph::Node;
use crate::plan::graph::NodeId;
use crate::plan::window::Moment;

/// An ordinal; with the time of day beside it; with its measure beside it.
const ORDINAL: u64 = 2;
const TIMED: u64 = ORDINAL + 4;
const MEASURED: u64 = ORDINAL + 8;

/// The bytes that a node reads of a block, those of its parts left out. What one scan answers for several leaves is
/// counted with the first.
pub(super) fn bytes(
    program: &Program,
    groups: &Groups,
    moment: Moment,
    block: &Block,
    id: NodeId,
) -> u64 {
    let facts = |id: TraitId, interval: Interval| block.scan(id).facts_in(interval);
    let did = |id: TraitId, interval: Interval| block.scan(id).bytes_of_did(interval);
    let set = u64::from(block.population()).div_ceil(64) * 8;
    let retained = moment.retained();
    let interval = groups.intervals[id];
    match &program.graph.nodes[id] {
        Node::True | Node::False => 0,
        Node::And(parts) | Node::Or(parts) => set * parts.len() as u64,
        Node::Not(_) => set,
        Node::Has(namespace) => block.holders(namespace).map_or(0, |_| set),
        Node::Did(of, _) => did(*of, interval),
        Node::First(of, _) if interval.is_empty() || interval.lo <= retained.lo => {
            did(*of, interval)
        }
        Node::First(of, _) => did(*of, Interval { lo: retained.lo, ..interval }),
        Node::Sequence { first, then, .. } => {
            TIMED * (facts(*first, retained) + facts(*then, interval))
        }
        Node::LastAfter(last, after) => TIMED * (facts(*last, retained) + facts(*after, retained)),
        Node::Measure(..) | Node::Attribute(..) => {
            let group = groups.of_node[id].map(|place| &groups.groups[place]);
            let is_first = |(leaf, _): &(NodeId, _)| *leaf == id;
            let Some(group) = group.filter(|group| group.leaves.first().is_some_and(is_first))
            else {
                return 0;
            };
            match &group.scan {
                Scan::Facts { id, interval, kind } => {
                    let each = match kind {
                        // The day is that of the column.
                        Kind::Count | Kind::Days => ORDINAL,
                        Kind::Sum | Kind::Min | Kind::Max => MEASURED,
                        // Summed up, and counted.
                        Kind::Avg => MEASURED + ORDINAL,
                    };
                    each * facts(*id, *interval)
                }
                Scan::Attribute(name) => block.attribute(name).map_or(0, |column| column.bytes()),
            }
        }
    }
}
