//! The live audiences, as activation asks for them: of the newest generation, once it is committed.

use roaring::RoaringBitmap;
use std::sync::Arc;
use std::time::Duration;

use super::audience::Activation;
use super::audience::Audiences;
use super::audience::NoAudience;
use super::audience::WholeAudience;
use crate::ingest::Matches;
use crate::ingest::Watermark;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::segment::AskError;
use crate::segment::Group;
use crate::segment::Segments;
use crate::store::StoreError;

/// How long a push waits for the commit of what its audience follows from.
const PATIENCE: Duration = Duration::from_secs(30);

/// Live segments and the shards they are evaluated over.
pub struct LiveAudiences {
    segments: Arc<Segments>,
    /// How many shards the store has.
    count: u16,
    min_size: u64,
}

impl LiveAudiences {
    /// Audiences of these segments; `min_size` is that of the settings.
    pub fn new(segments: Arc<Segments>, count: u16, min_size: u64) -> Self {
        Self { segments, count, min_size }
    }
}

impl Audiences for LiveAudiences {
    fn activations(&self) -> Option<Vec<Activation>> {
        // Who does not publish knows what was live when it last did, or nothing: what another node has made live
        // since would look like what is to be taken back.
        if !self.segments.leads() {
            return None;
        }
        let live = self.segments.live();
        if live.version == 0 {
            return None;
        }
        let mut activations = Vec::new();
        for segment in live.segments.values().filter(|segment| !segment.hidden) {
            for activate in &segment.file.activate {
                let identifiers = activate.identifiers.as_ref().map(|names| {
                    names.iter().filter_map(|name| Namespace::new(&name.text).ok()).collect()
                });
                activations.push(Activation {
                    segment: segment.file.id.clone(),
                    destination: activate.destination.text.to_string(),
                    identifiers,
                    min_size: segment.file.min_size.unwrap_or(self.min_size),
                    is_own_min: segment.file.min_size.is_some(),
                });
            }
        }
        Some(activations)
    }

    fn is_unreadable(&self, segment: &str) -> bool {
        let live = self.segments.live();
        !live.segments.contains_key(segment)
            && live.problems.iter().any(|problem| problem.id == segment)
    }

    fn audience(&self, segment: &str) -> Result<WholeAudience, NoAudience> {
        let generation = self.segments.generation();
        // One that this process took up may be older than what was pushed before a crash.
        if generation.version == 0 {
            return Err(NoAudience::NotWhole);
        }
        let audience = generation.audiences.get(segment).ok_or(NoAudience::NotWhole)?;
        // While an edited rule is being filled, the members are those of the rule before it: nobody
        // comes or leaves by rule, and who opts out still leaves at once.
        let members = &audience.members.as_ref().ok_or(NoAudience::NotWhole)?.shards;
        let members = members.iter().map(|members| RoaringBitmap::clone(members)).collect();
        // The audience was evaluated over what is folded; it may go out once that is committed.
        if !self.segments.shards().commit(PATIENCE).unwrap_or(false) {
            return Err(NoAudience::NotCommitted);
        }
        let (generation, true_for) = (audience.generation, audience.true_for);
        Ok(WholeAudience { generation, true_for, members })
    }

    fn group(&self, group: &Group) -> Result<Vec<RoaringBitmap>, StoreError> {
        let found = self.segments.shards().group(group);
        found.and_then(|found| found.whole(self.count)).map_err(unavailable)
    }

    fn watermarks(&self) -> Result<Vec<Watermark>, StoreError> {
        let found = self.segments.shards().watermarks();
        found.and_then(|found| found.whole(self.count)).map_err(unavailable)
    }

    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        matches: Matches,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), StoreError> {
        self.segments.shards().identifiers(shard, profiles, matches, each).map_err(unavailable)
    }
}

fn unavailable(error: AskError) -> StoreError {
    match error {
        AskError::Store(error) => error,
        error => StoreError::Unavailable { what: "a shard".to_owned(), source: Box::new(error) },
    }
}
