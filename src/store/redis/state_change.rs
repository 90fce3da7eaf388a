//! Puts the changes of the fold's state together, for one step of its lane.

use std::collections::BTreeMap;
use std::collections::btree_map;

use super::blob::Body;
use super::draft::Draft;
use super::page;
use super::page::Image;
use super::page::Page;
use super::state::ARCHIVED;
use super::state::CHECKPOINT;
use super::state::CHUNKS;
use super::state::IMPORTS;
use super::state::LETTERS;
use super::state::Letters;
use super::state::MANIFEST;
use super::state::NAMESPACES;
use super::state::NEXT_TRAIT;
use super::state::PAGES;
use super::state::RUN_PAGES;
use super::state::RUNS;
use super::state::SCHEMA;
use super::state::SKIPS;
use super::state::TRAITS;
use super::state::Table;
use super::state::checkpoint;
use super::state::delta_field;
use super::state::last_number;
use super::state::letter_field;
use super::state::of_import;
use super::state::page_field;
use super::state::read_letters;
use super::state::rejected_field;
use super::state::rejected_meta;
use super::state::row;
use super::state::seen_field;
use super::state::table;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_varint;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::rows::Row;
use crate::store::state::ArchiveCommit;
use crate::store::state::Commit;
use crate::store::state::DEAD_LETTER_AGE;
use crate::store::state::DEAD_LETTER_BYTES;
use crate::store::state::DeadLetter;
use crate::store::state::Images;
use crate::store::state::MAX_REJECTED;
use crate::store::state::Part;
use crate::store::state::damaged;

/// Dead letters and rejected lines are kept in chunks of about this size.
const CHUNK: usize = 256 << 10;

/// A change of the state while it is put together.
pub(super) struct Change<'d, 'l, 'c> {
    draft: &'d mut Draft<'l, 'c>,
    /// Blocks whose images change.
    pages: BTreeMap<(ShardId, u16), Page>,
}

fn key(table: Table, key: &[u8]) -> Vec<u8> {
    [&table[..], key].concat()
}

impl<'d, 'l, 'c> Change<'d, 'l, 'c> {
    pub(super) fn new(draft: &'d mut Draft<'l, 'c>) -> Self {
        Self { draft, pages: BTreeMap::new() }
    }

    /// What the fold did; whether the store does not have it yet.
    pub(super) fn commit(&mut self, commit: &'c Commit) -> Result<bool, StoreError> {
        let at = &commit.checkpoint;
        if checkpoint(self.draft.index)?.commit >= at.commit {
            return Ok(false);
        }
        for (shard, bytes) in &commit.deltas {
            self.draft.put(delta_field(*shard, at.commit), Vec::new(), &bytes[..]);
        }
        self.drop_columns(commit)?;
        for (shard, part, bytes) in &commit.images {
            self.image(*shard, *part, bytes)?;
        }
        self.registries(commit)?;
        self.imports(commit)?;
        self.seen(commit);
        if let Some(skips) = &commit.skips {
            let mut last = Vec::new();
            put_varint(&mut last, skips.last);
            self.draft.put(key(SKIPS, &skips.first.to_be_bytes()), last, skips.row());
        }
        self.letters(commit)?;
        self.draft.set(CHECKPOINT.to_vec(), Vec::new(), Body::Inline(at.row()));
        self.draft.folded = Some((at.position.0, at.next_record));
        Ok(true)
    }

    /// Images in the place of deltas; by how many bytes they have grown.
    pub(super) fn images(&mut self, images: &'c Images) -> Result<i64, StoreError> {
        let mut grown = 0;
        for (part, bytes) in &images.parts {
            grown += self.image(images.shard, *part, bytes)?;
        }
        let covered = delta_field(images.shard, 0)..=delta_field(images.shard, images.up_to);
        let covered: Vec<_> = self.draft.index.range(covered).map(|(f, _)| f.clone()).collect();
        covered.into_iter().for_each(|field| self.draft.remove(field));
        Ok(grown)
    }

    /// What the archive took over.
    pub(super) fn archive(&mut self, commit: &'c ArchiveCommit) -> Result<bool, StoreError> {
        for file in &commit.removed {
            self.draft.remove(key(MANIFEST, file.as_bytes()));
        }
        for added in &commit.added {
            self.draft.put(key(MANIFEST, added.file.as_bytes()), Vec::new(), added.row());
        }
        let mut passed = Vec::new();
        for (field, entry) in self.draft.index.range(table(SKIPS)) {
            let last = Reader::new(&entry.meta).varint().map_err(damaged)?;
            if last >= commit.reached.next_record {
                break;
            }
            passed.push(field.clone());
        }
        passed.into_iter().for_each(|field| self.draft.remove(field));
        self.draft.set(ARCHIVED.to_vec(), Vec::new(), Body::Inline(commit.reached.row()));
        Ok(true)
    }

    /// Writes the blocks that changed.
    pub(super) fn finish(self) {
        for ((shard, block), page) in self.pages {
            let field = page_field(shard, block);
            if page.is_empty() {
                self.draft.remove(field);
            } else {
                self.draft.put(field, Vec::new(), page::encode(&page));
            }
        }
    }

    fn page(&mut self, shard: ShardId, block: u16) -> Result<&mut Page, StoreError> {
        match self.pages.entry((shard, block)) {
            btree_map::Entry::Occupied(page) => Ok(page.into_mut()),
            btree_map::Entry::Vacant(vacant) => {
                let bytes = self.draft.read(&page_field(shard, block))?;
                let page = bytes.map(|bytes| page::decode(&bytes).map_err(damaged)).transpose()?;
                Ok(vacant.insert(page.unwrap_or_default()))
            }
        }
    }

    /// Writes or, where it is empty, deletes an image; returns by how much the images have grown.
    fn image(&mut self, shard: ShardId, part: Part, bytes: &'c [u8]) -> Result<i64, StoreError> {
        let body = (!bytes.is_empty()).then(|| self.draft.keep(bytes));
        let page = self.page(shard, part.block)?;
        let image = Image::from(part.kind);
        let before = match body {
            Some(body) => page.insert(image, body),
            None => page.remove(&image),
        };
        if let Some(Body::Stored(stored)) = before {
            self.draft.discard(stored);
        }
        let number = |length| i64::try_from(length).unwrap_or(i64::MAX);
        Ok(number(bytes.len() as u64) - before.map_or(0, |before| number(page::length(&before))))
    }

    fn drop_columns(&mut self, commit: &Commit) -> Result<(), StoreError> {
        if commit.dropped_traits.is_empty() && commit.drop_before.is_none() {
            return Ok(());
        }
        let index = self.draft.index;
        let fields: Vec<_> = index.range(table(PAGES)).collect();
        let mut pages = Vec::with_capacity(fields.len());
        self.draft.blobs.each(fields.iter().map(|(_, entry)| &entry.body), |_, bytes| {
            pages.push(page::decode(bytes).map_err(damaged)?);
            Ok(())
        })?;
        for ((field, _), mut page) in fields.into_iter().zip(pages) {
            let before = page.len();
            page.retain(|image, body| {
                let Image::Column(day, id) = image else { return true };
                let stays = commit.drop_before.is_none_or(|first| *day >= first)
                    && !commit.dropped_traits.contains(id);
                if let (false, Body::Stored(stored)) = (stays, body) {
                    self.draft.trash.push(*stored);
                }
                stays
            });
            if page.len() < before {
                let number = last_number(&field[2..])?;
                let [.., a, b, c, d] = number.to_be_bytes();
                let (shard, block) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                self.pages.insert((shard, block), page);
            }
        }
        Ok(())
    }

    fn registries(&mut self, commit: &'c Commit) -> Result<(), StoreError> {
        if !commit.traits.is_empty() || !commit.dropped_traits.is_empty() {
            let mut next: u64 = row(self.draft.index, NEXT_TRAIT)?.unwrap_or(1);
            for kept in &commit.traits {
                self.draft.put(key(TRAITS, &kept.id.to_be_bytes()), Vec::new(), kept.row());
                next = next.max(u64::from(kept.id) + 1);
            }
            for id in &commit.dropped_traits {
                self.draft.remove(key(TRAITS, &id.to_be_bytes()));
            }
            self.draft.set(NEXT_TRAIT.to_vec(), Vec::new(), Body::Inline(next.row()));
        }
        for (number, namespace) in &commit.namespaces {
            let field = key(NAMESPACES, &number.to_be_bytes());
            self.draft.put(field, Vec::new(), namespace.as_str().as_bytes());
        }
        for (name, bytes) in &commit.schema {
            self.draft.put(key(SCHEMA, name.as_bytes()), Vec::new(), &bytes[..]);
        }
        Ok(())
    }

    fn imports(&mut self, commit: &Commit) -> Result<(), StoreError> {
        for progress in &commit.imports {
            let field = key(IMPORTS, progress.import.as_bytes());
            self.draft.put(field, Vec::new(), progress.row());
        }
        for lines in commit.rejected.chunk_by(|a, b| a.0 == b.0) {
            let import = &*lines[0].0;
            let mut kept = 0;
            for (_, entry) in self.draft.index.range(of_import(import)) {
                kept += rejected_meta(&entry.meta).map_err(damaged)?.0;
            }
            let room = usize::try_from(MAX_REJECTED.saturating_sub(kept)).unwrap_or(usize::MAX);
            let mut rows: Vec<_> =
                lines.iter().take(room).map(|(_, line)| (line.line, line.row())).collect();
            rows.sort_by_key(|(line, _)| *line);
            rows.dedup_by_key(|(line, _)| *line);
            for chunk in chunks(&rows, |(_, row)| row.len()) {
                let (first, last) = (chunk[0].0, chunk[chunk.len() - 1].0);
                let mut meta = Vec::new();
                put_varint(&mut meta, chunk.len() as u64);
                put_varint(&mut meta, last);
                let bytes =
                    chunk.iter().flat_map(|(_, row)| row.iter().copied()).collect::<Vec<_>>();
                self.draft.put(rejected_field(import, first), meta, bytes);
            }
        }
        Ok(())
    }

    fn seen(&mut self, commit: &'c Commit) {
        for change in &commit.seen {
            let set = change.set;
            if let Some(chunk) = &change.chunk {
                let field = seen_field(CHUNKS, set, commit.checkpoint.commit);
                self.draft.put(field, Vec::new(), &chunk[..]);
            }
            for number in &change.dropped_chunks {
                self.draft.remove(seen_field(CHUNKS, set, *number));
            }
            if let Some(run) = &change.run {
                self.draft.put(seen_field(RUNS, set, run.number), Vec::new(), &run.header[..]);
                let pages = self.draft.keep_pieces(&run.pages);
                let field = seen_field(RUN_PAGES, set, run.number);
                self.draft.set(field, Vec::new(), Body::Stored(pages));
            }
            for number in &change.dropped_runs {
                self.draft.remove(seen_field(RUNS, set, *number));
                self.draft.remove(seen_field(RUN_PAGES, set, *number));
            }
        }
    }

    /// Adds the commit's dead letters and drops the oldest, by age and by room.
    fn letters(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let mut new = commit.dead_letters.clone();
        new.sort_by_key(|letter| letter.event);
        self.put_letters(&new);
        let mut there: Vec<(Vec<u8>, Letters)> = Vec::new();
        let fields = self.draft.index.range(table(LETTERS)).map(|(field, _)| field.clone());
        let added = self.draft.fields.range(table(LETTERS)).map(|(field, _)| field.clone());
        let mut fields: Vec<_> = fields.chain(added).collect();
        fields.sort();
        fields.dedup();
        for field in fields {
            if let Some(entry) = self.draft.get(&field) {
                there.push((field, Letters::read(&entry.meta).map_err(damaged)?));
            }
        }
        let mut bytes: u64 = there.iter().map(|(_, letters)| letters.bytes).sum();
        let oldest = commit.checkpoint.received.saturating_sub(DEAD_LETTER_AGE);
        for (field, letters) in there {
            if letters.time >= oldest && bytes <= DEAD_LETTER_BYTES {
                break;
            }
            let stored = match self.draft.read(&field)? {
                Some(stored) => read_letters(&stored)?,
                // Older than that already when it was put aside.
                None => continue,
            };
            let stay = stored.iter().position(|letter| {
                let stays = letter.time >= oldest && bytes <= DEAD_LETTER_BYTES;
                if !stays {
                    bytes = bytes.saturating_sub(letter.row().len() as u64);
                }
                stays
            });
            self.draft.remove(field);
            if let Some(stay) = stay {
                self.put_letters(&stored[stay..]);
                break;
            }
        }
        Ok(())
    }

    /// Deletes dead letters; tells how many there were.
    pub(super) fn drop_letters(&mut self, events: &[EventNo]) -> Result<u64, StoreError> {
        let mut chunks: BTreeMap<Vec<u8>, Vec<EventNo>> = BTreeMap::new();
        for event in events {
            let before = table(LETTERS).start().clone()..=letter_field(*event);
            if let Some((field, _)) = self.draft.index.range(before).next_back() {
                chunks.entry(field.clone()).or_default().push(*event);
            }
        }
        let mut dropped = 0;
        for (field, events) in chunks {
            let stored = self.draft.read(&field)?.unwrap_or_default();
            let mut letters = read_letters(&stored)?;
            let before = letters.len();
            letters.retain(|letter| !events.contains(&letter.event));
            if letters.len() < before {
                dropped += (before - letters.len()) as u64;
                self.draft.remove(field);
                self.put_letters(&letters);
            }
        }
        Ok(dropped)
    }

    fn put_letters(&mut self, letters: &[DeadLetter]) {
        let rows: Vec<(&DeadLetter, Vec<u8>)> =
            letters.iter().map(|letter| (letter, letter.row())).collect();
        for chunk in chunks(&rows, |(_, row)| row.len()) {
            let (first, last) = (chunk[0].0, chunk[chunk.len() - 1].0);
            let mut bytes = Vec::new();
            for (letter, row) in chunk {
                put_varint(&mut bytes, letter.event.record);
                put_varint(&mut bytes, u64::from(letter.event.part));
                bytes.extend_from_slice(row);
            }
            let mut meta = Vec::new();
            put_varint(&mut meta, last.event.record);
            put_varint(&mut meta, u64::from(last.event.part));
            put_i64(&mut meta, first.time);
            put_varint(&mut meta, chunk.iter().map(|(_, row)| row.len() as u64).sum());
            self.draft.put(letter_field(first.event), meta, bytes);
        }
    }
}

/// Cuts a list into pieces of about [`CHUNK`] bytes.
fn chunks<T>(all: &[T], length: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut pieces = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, item) in all.iter().enumerate() {
        bytes += length(item);
        if bytes >= CHUNK {
            pieces.push(&all[from..=at]);
            (from, bytes) = (at + 1, 0);
        }
    }
    if from < all.len() {
        pieces.push(&all[from..]);
    }
    pieces
}
