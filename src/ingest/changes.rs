//! What the fold changed in a shard since it was last asked: whom a refresh has to look at again.

use roaring::RoaringBitmap;

use crate::bitmap::TraitId;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Ordinal;

/// The facts of a shard are remembered up to this many; of more, only whose they are.
const MOST: usize = 1 << 18;

/// What changed in a shard.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Those of whom anything may be other than before: new facts, attributes, identifiers and marks, new profiles
    /// and forgotten ones.
    pub profiles: RoaringBitmap,
    /// The facts that came; `None` where they were too many to be remembered.
    pub facts: Option<Vec<(Ordinal, TraitId, Millis)>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { profiles: RoaringBitmap::new(), facts: Some(Vec::new()) }
    }
}

impl Changes {
    pub(super) fn facts(
        &mut self,
        ordinal: Ordinal,
        time: Millis,
        facts: &[(TraitId, Option<Measure>)],
    ) {
        self.profiles.insert(ordinal);
        if self.facts.as_ref().is_some_and(|known| known.len() + facts.len() > MOST) {
            self.facts = None;
        }
        if let Some(known) = &mut self.facts {
            known.extend(facts.iter().map(|(id, _)| (ordinal, *id, time)));
        }
    }
}
