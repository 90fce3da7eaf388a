//! Members of before the last ones, of which the next are made.
//!
//! To copy the members of a large shard takes longer than to find who entered and left, and grows with the shard. Those of
//! before the last ones are nobody's any more, mostly, once the last ones are published: what changed twice since is all
//! they lack.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::members::Delta;

/// Smaller bitmaps are copied: bytes.
const LARGE: usize = 16 << 10;

/// The members of a rule in a shard, as they were before the last change.
#[derive(Debug)]
pub struct Earlier {
    large: usize,
    last: Option<Change>,
}

#[derive(Debug)]
struct Change {
    before: Arc<RoaringBitmap>,
    delta: Delta,
    now: Arc<RoaringBitmap>,
}

impl Default for Earlier {
    fn default() -> Self {
        Self { large: LARGE, last: None }
    }
}

impl Earlier {
    /// Nothing yet; bitmaps of no more bytes are copied.
    #[cfg(test)]
    pub(crate) fn of_larger_than(bytes: usize) -> Self {
        Self { large: bytes, last: None }
    }

    /// The members after a change of those that are given: made of earlier ones where nobody else has those.
    pub fn next(&mut self, before: &Arc<RoaringBitmap>, delta: Delta) -> Arc<RoaringBitmap> {
        let last = self.last.take().filter(|last| Arc::ptr_eq(&last.now, before));
        let reused = last.and_then(|last| {
            let mut members = Arc::try_unwrap(last.before).ok()?;
            last.delta.apply(&mut members);
            Some(members)
        });
        let members = match reused {
            Some(mut members) => {
                delta.apply(&mut members);
                members
            }
            None => delta.applied(before),
        };
        let now = Arc::new(members);
        if now.serialized_size() > self.large {
            self.last = Some(Change { before: before.clone(), delta, now: now.clone() });
        }
        now
    }
}
