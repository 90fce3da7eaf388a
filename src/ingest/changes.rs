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
    /// Those of whom anything may be other than before: new attributes, identifiers and marks, new profiles and
    /// forgotten ones.
    pub profiles: RoaringBitmap,
    /// Those among them whose facts were taken out, which nothing else does while they count.
    pub erased: RoaringBitmap,
    /// The facts that came; `None` where they were too many to be remembered, and whose they are is in `profiles`.
    pub facts: Option<Vec<(Ordinal, TraitId, Millis)>>,
}

impl Changes {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let (profiles, erased) = Default::default();
        Self { profiles, erased, facts: Some(Vec::new()) }
    }

    pub(super) fn facts(
        &mut self,
        ordinal: Ordinal,
        time: Millis,
        facts: &[(TraitId, Option<Measure>)],
    ) {
        match &mut self.facts {
            Some(known) if known.len() + facts.len() <= MOST => {
                known.extend(facts.iter().map(|(id, _)| (ordinal, *id, time)));
            }
            known => {
                self.profiles.insert(ordinal);
                if let Some(known) = known.take() {
                    self.profiles.extend(known.into_iter().map(|(ordinal, ..)| ordinal));
                }
            }
        }
    }
}
