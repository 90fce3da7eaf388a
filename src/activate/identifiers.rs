//! The identifiers of profiles, in order, a bounded part at a time.
//!
//! Profiles are known by ordinal, the ledger is sorted by identifier, and all identifiers of a large
//! audience would not fit in memory. So each part is one walk over the audience that keeps the least
//! identifiers beyond the part before it, as many as the budget allows.

use roaring::RoaringBitmap;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::audience::Audiences;
use super::connector::Caps;
use crate::ingest::Matches;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::store::StoreError;

/// How many bytes of identifiers a part may have.
pub(super) const PART_BYTES: usize = 32 << 20;

/// The identifiers that some profiles have and a destination takes.
pub(super) struct IdentifiersOf<'a> {
    pub(super) audiences: &'a dyn Audiences,
    /// The profiles, by shard.
    pub(super) profiles: Vec<RoaringBitmap>,
    /// The namespaces asked for; all that the destination takes where `None`.
    pub(super) namespaces: Option<&'a [Namespace]>,
    pub(super) caps: &'a Caps,
    /// Whether those that expired are among them.
    pub(super) matches: Matches,
    /// Bytes of identifiers in a part.
    pub(super) part_bytes: usize,
}

/// Sorted identifiers, each once: all after the part before, up to `ceiling`.
pub(super) struct Part {
    /// `namespace ‖ 0 ‖ value` of each, one after the other.
    bytes: Vec<u8>,
    spans: Vec<(usize, usize)>,
    /// The greatest identifier that the part could hold; `None` for the last part.
    ceiling: Option<Vec<u8>>,
}

impl IdentifiersOf<'_> {
    /// Those of other profiles, of the same kind.
    pub(super) fn alike(&self, profiles: Vec<RoaringBitmap>) -> IdentifiersOf<'_> {
        IdentifiersOf { profiles, ..*self }
    }

    /// Those that expired, too.
    pub(super) fn with_expired(self) -> Self {
        Self { matches: Matches::All, ..self }
    }

    /// The part that follows an identifier, or the first.
    pub(super) fn part(&self, after: Option<&Identifier>) -> Result<Part, StoreError> {
        let mut part = Part { bytes: Vec::new(), spans: Vec::new(), ceiling: None };
        self.walk(&mut |identifier| {
            if after.is_none_or(|after| identifier > after) && part.reaches(identifier) {
                part.push(identifier);
                if part.bytes.len() >= self.part_bytes.saturating_mul(2) {
                    part.sort();
                    part.cut(self.part_bytes);
                }
            }
        })?;
        part.sort();
        Ok(part)
    }

    /// Those of some identifiers that a profile has.
    pub(super) fn among(
        &self,
        identifiers: &BTreeSet<&Identifier>,
    ) -> Result<BTreeSet<Identifier>, StoreError> {
        let mut found = BTreeSet::new();
        if !identifiers.is_empty() {
            self.walk(&mut |identifier| {
                if identifiers.contains(identifier) && !found.contains(identifier) {
                    found.insert(identifier.clone());
                }
            })?;
        }
        Ok(found)
    }

    /// Gives all of them, doubled where two profiles share one.
    pub(super) fn walk(&self, each: &mut dyn FnMut(&Identifier)) -> Result<(), StoreError> {
        for (shard, profiles) in (0..ShardId::MAX).zip(&self.profiles) {
            if profiles.is_empty() {
                continue;
            }
            self.audiences.identifiers(shard, profiles, self.matches, &mut |identifier| {
                let namespace = &identifier.namespace;
                let asked = self.namespaces.is_none_or(|asked| asked.contains(namespace));
                if asked && self.caps.takes(namespace) {
                    each(identifier);
                }
            })?;
        }
        Ok(())
    }
}

impl Part {
    /// Whether an identifier is not beyond the part.
    pub(super) fn reaches(&self, identifier: &Identifier) -> bool {
        self.ceiling.as_deref().is_none_or(|ceiling| compare(ceiling, identifier).is_ge())
    }

    /// The identifiers, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|&(start, end)| &self.bytes[start..end])
    }

    /// The last identifier it could hold; `None` for the last part.
    pub(super) fn ceiling(&self) -> Option<Identifier> {
        self.ceiling.as_deref().map(identifier)
    }

    fn push(&mut self, identifier: &Identifier) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(identifier.namespace.as_str().as_bytes());
        self.bytes.push(0);
        self.bytes.extend_from_slice(identifier.value().as_bytes());
        self.spans.push((start, self.bytes.len()));
    }

    /// Puts the identifiers in order and drops doubled ones.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans.sort_unstable_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
        self.spans.dedup_by(|a, b| bytes[a.0..a.1] == bytes[b.0..b.1]);
    }

    /// Keeps the least identifiers, as many as have this many bytes, and lays their bytes together anew.
    fn cut(&mut self, budget: usize) {
        let mut kept = Vec::with_capacity(budget);
        let mut spans = Vec::with_capacity(self.spans.len());
        for (start, end) in self.spans.drain(..) {
            if !spans.is_empty() && kept.len() + (end - start) > budget {
                let &(start, end) = spans.last().expect("checked on the line above");
                self.ceiling = Some(kept[start..end].to_vec());
                break;
            }
            let at = kept.len();
            kept.extend_from_slice(&self.bytes[start..end]);
            spans.push((at, kept.len()));
        }
        self.bytes = kept;
        self.spans = spans;
    }
}

/// Compares a part's key with an identifier. Neither half has a zero byte, so keys sort as identifiers do.
pub(super) fn compare(key: &[u8], identifier: &Identifier) -> Ordering {
    let (namespace, value) = halves(key);
    namespace
        .cmp(identifier.namespace.as_str().as_bytes())
        .then_with(|| value.cmp(identifier.value().as_bytes()))
}

/// The identifier of a part's key.
pub(super) fn identifier(key: &[u8]) -> Identifier {
    let (namespace, value) = halves(key);
    let text = |bytes| std::str::from_utf8(bytes).expect("made from texts");
    let namespace = Namespace::new(text(namespace)).expect("made from an identifier");
    Identifier::new(namespace, text(value)).expect("made from an identifier")
}

fn halves(key: &[u8]) -> (&[u8], &[u8]) {
    let at = key.iter().position(|byte| *byte == 0).expect("a key has a zero between its halves");
    (&key[..at], &key[at + 1..])
}
