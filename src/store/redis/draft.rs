//! One change of a lane while it is put together: what goes into the index, and the contents behind it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::blob::Blobs;
use super::blob::Body;
use super::blob::Entry;
use super::blob::INLINE;
use super::blob::PART;
use super::blob::Stored;
use super::lease::Lease;
use crate::store::StoreError;

/// The index of a lane: what there is, in order of its fields.
pub(super) type Index = BTreeMap<Vec<u8>, Entry>;

/// Contents of one attempt, by their numbers.
pub(super) type Contents<'c> = Vec<(u32, Cow<'c, [u8]>)>;

/// A change on its way into the store.
pub(super) struct Draft<'l, 'c> {
    pub(super) index: &'l Index,
    pub(super) blobs: &'l Blobs,
    lease: Lease,
    attempt: u64,
    next: u32,
    pub(super) contents: Contents<'c>,
    /// What fields become; `None` where they go.
    pub(super) fields: BTreeMap<Vec<u8>, Option<Entry>>,
    /// Contents that no field names any longer.
    pub(super) trash: Vec<Stored>,
    /// Up to where the journal is folded, and the number of the record that comes next; for functions to see.
    pub(super) folded: Option<(u64, u64)>,
}

impl<'l, 'c> Draft<'l, 'c> {
    pub(super) fn new(index: &'l Index, blobs: &'l Blobs, lease: Lease, attempt: u64) -> Self {
        Self {
            index,
            blobs,
            lease,
            attempt,
            next: 0,
            contents: Vec::new(),
            fields: BTreeMap::new(),
            trash: Vec::new(),
            folded: None,
        }
    }

    /// Keeps bytes: small ones in place, others as contents.
    pub(super) fn keep(&mut self, bytes: impl Into<Cow<'c, [u8]>>) -> Body {
        let bytes = bytes.into();
        if bytes.len() <= INLINE {
            return Body::Inline(bytes.into_owned());
        }
        let (first, length) = (self.next, bytes.len() as u64);
        match bytes {
            Cow::Borrowed(bytes) => {
                for part in bytes.chunks(PART) {
                    self.push(Cow::Borrowed(part));
                }
            }
            Cow::Owned(bytes) if bytes.len() <= PART => self.push(Cow::Owned(bytes)),
            Cow::Owned(bytes) => {
                for part in bytes.chunks(PART) {
                    self.push(Cow::Owned(part.to_vec()));
                }
            }
        }
        Body::Stored(self.stored(first, length))
    }

    /// Keeps pieces so that each can be read alone, as a part.
    pub(super) fn keep_pieces(&mut self, pieces: &'c [Vec<u8>]) -> Stored {
        let first = self.next;
        for piece in pieces {
            self.push(Cow::Borrowed(&piece[..]));
        }
        self.stored(first, pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    fn push(&mut self, part: Cow<'c, [u8]>) {
        self.contents.push((self.next, part));
        self.next += 1;
    }

    fn stored(&self, first: u32, bytes: u64) -> Stored {
        let (lease, attempt) = (self.lease, self.attempt);
        Stored { lease, attempt, first, parts: self.next - first, bytes }
    }

    /// What a field is after the change.
    pub(super) fn get(&self, field: &[u8]) -> Option<&Entry> {
        match self.fields.get(field) {
            Some(changed) => changed.as_ref(),
            None => self.index.get(field),
        }
    }

    /// Sets a field.
    pub(super) fn set(&mut self, field: Vec<u8>, meta: Vec<u8>, body: Body) {
        self.let_go(&field);
        self.fields.insert(field, Some(Entry { meta, body }));
    }

    /// Sets a field to bytes.
    pub(super) fn put(&mut self, field: Vec<u8>, meta: Vec<u8>, bytes: impl Into<Cow<'c, [u8]>>) {
        let body = self.keep(bytes);
        self.set(field, meta, body);
    }

    /// Deletes a field.
    pub(super) fn remove(&mut self, field: Vec<u8>) {
        self.let_go(&field);
        if self.index.contains_key(&field) {
            self.fields.insert(field, None);
        } else {
            self.fields.remove(&field);
        }
    }

    fn let_go(&mut self, field: &[u8]) {
        if let Some(Entry { body: Body::Stored(stored), .. }) = self.get(field) {
            let stored = *stored;
            self.discard(stored);
        }
    }

    /// Contents that nothing names any longer.
    pub(super) fn discard(&mut self, stored: Stored) {
        self.trash.push(stored);
    }

    /// The bytes of a field that the store has.
    pub(super) fn read(&self, field: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.index.get(field).map(|entry| self.blobs.read(&entry.body)).transpose()
    }

    /// How many keys the contents take.
    pub(super) fn parts(&self) -> u32 {
        self.next
    }
}
