//! How a program answers: its graph as a tree, what is shared, and what each part found and cost.

use std::fmt;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use super::compile::Program;
use super::exec::Cost;
use super::exec::order;
use super::graph::Node;
use super::graph::NodeId;
use super::window::TooEarly;
use crate::bitmap::Snapshot;
use crate::model::time::Millis;
use crate::rules;
use crate::rules::Level;

/// A program and one evaluation of it, every part measured by itself.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Explanation {
    /// The rules, in the order in which they were compiled.
    pub rules: Vec<ExplainedRule>,
    /// The parts that they are made of; a part's own parts have smaller ids.
    pub parts: Vec<ExplainedPart>,
}

/// A rule of the program.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ExplainedRule {
    /// What one member is.
    pub level: Level,
    /// The part that answers it.
    pub part: usize,
}

/// A part of the program, evaluated once for each block however often it is read.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ExplainedPart {
    /// Its number.
    pub id: usize,
    /// `and`, `or`, `not`, or the clause.
    pub what: String,
    /// Its own parts, in the order in which they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<usize>,
    /// How many parts and rules read it.
    pub read_by: usize,
    /// How many known profiles it would be true of if all blocks were like the first.
    pub estimated: u64,
    /// How many known profiles it is true of.
    pub members: u64,
    /// What it took, its own parts left out, in nanoseconds. Clauses that share a scan are counted with
    /// the first.
    pub nanoseconds: u64,
    /// The bytes of columns, and of its own parts' answers, that were read for it.
    #[serde(default)]
    pub bytes: u64,
}

impl Explanation {
    /// Adds what the same rules found, and cost, among other profiles.
    pub fn add(&mut self, other: &Self) {
        // The order of parts may differ: a part is known by what it is of.
        let ours = self.signatures();
        let theirs = other.signatures();
        for (part, signature) in self.parts.iter_mut().zip(&ours) {
            let same = theirs.iter().position(|other| other == signature);
            if let Some(same) = same.and_then(|at| other.parts.get(at)) {
                part.estimated += same.estimated;
                part.members += same.members;
                part.nanoseconds += same.nanoseconds;
                part.bytes += same.bytes;
            }
        }
    }

    /// A hash of each part with all that it is made of.
    fn signatures(&self) -> Vec<u64> {
        let mut all: Vec<u64> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut parts: Vec<u64> = part.parts.iter().map(|id| all[*id]).collect();
            parts.sort_unstable();
            let mut hasher = DefaultHasher::new();
            (&part.what, parts).hash(&mut hasher);
            all.push(hasher.finish());
        }
        all
    }
}

impl Program {
    /// Evaluates every part at `now` and says what it found. `clock` tells nanoseconds since any start.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        now: Millis,
        clock: &(dyn Fn() -> u64 + Sync),
    ) -> Result<Explanation, TooEarly> {
        let costs = self.measure(snapshot, now, clock)?;
        let estimated = self.estimate(snapshot, now)?;
        let orders = order(self, snapshot, now);
        let nodes = &self.graph.nodes;
        let parts_of = |id: NodeId| match &nodes[id] {
            Node::And(parts) | Node::Or(parts) => orders.get(&id).unwrap_or(parts).clone(),
            Node::Not(part) => vec![*part],
            _ => Vec::new(),
        };
        let mut reads = vec![0usize; nodes.len()];
        for output in &self.outputs {
            self.read(output.root, &mut reads, &parts_of);
        }
        // Numbers without gaps: simplification leaves nodes that nobody reads.
        let used: Vec<NodeId> = (0..nodes.len()).filter(|id| reads[*id] > 0).collect();
        let number = |id: &NodeId| used.partition_point(|other| other < id);
        let parts = used.iter().map(|id| ExplainedPart {
            id: number(id),
            what: self.what(*id),
            parts: parts_of(*id).iter().map(number).collect(),
            read_by: reads[*id],
            estimated: estimated[*id],
            members: costs[*id].members,
            nanoseconds: costs[*id].time,
            bytes: costs[*id].bytes,
        });
        let rules = self
            .outputs
            .iter()
            .map(|output| ExplainedRule { level: output.level, part: number(&output.root) });
        Ok(Explanation { rules: rules.collect(), parts: parts.collect() })
    }

    fn read(&self, id: NodeId, reads: &mut [usize], parts_of: &impl Fn(NodeId) -> Vec<NodeId>) {
        reads[id] += 1;
        if reads[id] == 1 {
            for part in parts_of(id) {
                self.read(part, reads, parts_of);
            }
        }
    }

    fn what(&self, id: NodeId) -> String {
        match (&self.graph.nodes[id], &self.graph.clauses[id]) {
            (Node::And(_), _) => "and".to_owned(),
            (Node::Or(_), _) => "or".to_owned(),
            (Node::Not(_), _) => "not".to_owned(),
            (Node::True, _) => "everyone".to_owned(),
            (Node::False, _) => "nobody".to_owned(),
            (_, Some(clause)) => rules::print_inline(clause),
            (_, None) => String::new(),
        }
    }

    /// Counts members in the first populated block, and takes the others to be like it.
    fn estimate(&self, snapshot: &Snapshot, now: Millis) -> Result<Vec<u64>, TooEarly> {
        let population = |block: &Arc<_>| u64::from(crate::bitmap::Block::population(block));
        let total: u64 = snapshot.shards.iter().flatten().map(population).sum();
        let sample = snapshot.shards.iter().flatten().find(|block| population(block) > 0);
        let Some(sample) = sample else { return Ok(vec![0; self.graph.nodes.len()]) };
        let few = Snapshot { shards: vec![vec![Arc::clone(sample)]], ..*snapshot };
        let costs = self.measure(&few, now, &|| 0)?;
        let scale = |cost: Cost| {
            let estimate =
                u128::from(cost.members) * u128::from(total) / u128::from(population(sample));
            u64::try_from(estimate).unwrap_or(u64::MAX)
        };
        Ok(costs.into_iter().map(scale).collect())
    }
}

/// The tree of each rule; a part that was printed before is named by its number.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = vec![false; self.parts.len()];
        for (place, rule) in self.rules.iter().enumerate() {
            if self.rules.len() > 1 {
                writeln!(f, "rule {} (level {})", place + 1, rule.level.as_str())?;
            }
            self.write(f, rule.part, 0, &mut printed)?;
        }
        Ok(())
    }
}

/// A number of bytes for people.
fn kibibytes(bytes: u64) -> String {
    if bytes < 10 << 10 { format!("{bytes} B") } else { format!("{} KiB", bytes >> 10) }
}

impl Explanation {
    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        id: usize,
        depth: usize,
        printed: &mut [bool],
    ) -> fmt::Result {
        let part = &self.parts[id];
        let shared = if part.read_by > 1 { format!(" #{id}") } else { String::new() };
        write!(f, "{:1$}{2}{shared}", "", depth * 2, part.what)?;
        if printed[id] {
            return writeln!(f, "  (shared, see above)");
        }
        printed[id] = true;
        writeln!(
            f,
            "  {} members, about {} expected, {} µs, {}",
            part.members,
            part.estimated,
            part.nanoseconds.div_ceil(1000),
            kibibytes(part.bytes),
        )?;
        for inner in &part.parts {
            self.write(f, *inner, depth + 1, printed)?;
        }
        Ok(())
    }
}
