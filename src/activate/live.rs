//! The live audiences, as activation asks for them: of the newest generation, once it is committed.

use roaring::RoaringBitmap;
use std::sync::Arc;
use std::time::Duration;

use super::audience::Activation;
use super::audience::Audience;
use super::audience::Audiences;
use crate::bitmap::Mark;
use crate::ingest::Engine;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::segment::Segments;
use crate::store::StoreError;

/// How long a push waits for the commit of what its audience follows from.
const PATIENCE: Duration = Duration::from_secs(30);

/// Live segments over the engine.
pub struct LiveAudiences {
    segments: Arc<Segments>,
    engine: Arc<Engine>,
    min_size: u64,
}

impl LiveAudiences {
    /// Audiences of these segments; `min_size` is that of the settings.
    pub fn new(segments: Arc<Segments>, engine: Arc<Engine>, min_size: u64) -> Self {
        Self { segments, engine, min_size }
    }
}

impl Audiences for LiveAudiences {
    fn activations(&self) -> Option<Vec<Activation>> {
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
                });
            }
        }
        Some(activations)
    }

    fn audience(&self, segment: &str) -> Option<Audience> {
        let audience = self.segments.generation().audiences.get(segment)?.clone();
        // While an edited rule is being filled, the members are those of the rule before it: nobody
        // comes or leaves by rule, and who opts out still leaves at once.
        let members = audience.members.as_ref()?.shards.clone();
        // The audience was evaluated over what is folded; it may go out once that is committed.
        if !self.engine.commit(PATIENCE) {
            return None;
        }
        Some(Audience { generation: audience.generation, true_for: audience.true_for, members })
    }

    fn ineligible(&self) -> Vec<RoaringBitmap> {
        let pin = self.engine.pin();
        let bots = pin.marked(Mark::Bot);
        pin.marked(Mark::OptedOut).into_iter().zip(bots).map(|(out, bots)| out | bots).collect()
    }

    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), StoreError> {
        self.engine.each_identifier(shard, profiles, each);
        Ok(())
    }
}
