//! What each live segment costs to evaluate, beside all others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::AskError;
use super::Caller;
use super::Segments;
use crate::model::Millis;
use crate::plan::RuleCost;

/// What an evaluation of all live segments, of all profiles, cost.
#[derive(Debug)]
pub struct Costs {
    /// The time that they were evaluated for.
    pub at: Millis,
    /// By segment; those are left out that were not evaluated.
    pub segments: BTreeMap<String, RuleCost>,
    /// How long the answer took.
    pub took: Duration,
}

impl Segments {
    /// Evaluates all live segments of all profiles, every part by itself on one thread a node.
    pub fn costs(&self, caller: &Caller) -> Result<Costs, AskError> {
        let started = Instant::now();
        let at = self.generation().true_for;
        if at == Millis::MIN {
            return Err(AskError::Behind);
        }
        let compiled = Arc::new(self.compile(self.live()));
        let segments = self.patiently(caller, || {
            self.parts.shards.costs(&compiled, at)?.whole(self.parts.count)
        })?;
        Ok(Costs { at, segments, took: started.elapsed() })
    }
}
