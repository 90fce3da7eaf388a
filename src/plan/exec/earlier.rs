//! Members of before the last ones, of which the next are made.
//!
//! To copy the members of a large shard takes longer than to find who entered and left, and grows with the shard. Those of
//! before the last ones are nobody's any more, mostly, once the last ones are published: what changed twice since is all
//! they lack.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::answers::Answers;
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

    /// The members after what was answered of a rule, and who came to them and left them; `None` where nobody did. They
    /// are made of earlier ones where nobody else has those.
    pub fn next(
        &mut self,
        before: &Arc<RoaringBitmap>,
        answers: &Answers,
        rule: usize,
    ) -> Option<(Arc<RoaringBitmap>, Delta)> {
        let likely = answers.likely(rule, before);
        let is_likely = likely.is_some();
        let mut delta = likely.or_else(|| answers.delta(rule, before))?;
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
        if is_likely && members.len() + delta.left.len() < before.len() + delta.entered.len() {
            delta.entered -= &**before;
        }
        let now = Arc::new(members);
        if now.serialized_size() > self.large {
            let delta = delta.clone();
            self.last = Some(Change { before: before.clone(), delta, now: now.clone() });
        }
        Some((now, delta))
    }

    /// Whether it holds anything.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }
}
