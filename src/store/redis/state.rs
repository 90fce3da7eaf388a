//! The fold's state in a lane.
//!
//! The tables are ranges of the lane's index; each field is a dot, the table's letter, and the key, its numbers
//! in an order that sorts:
//! ```text
//! .d shard commit   a delta                  .i name          how far an import has been taken
//! .p shard block    the images of a block    .r name 0 line   rejected lines from that one on
//! .c set commit     a chunk of a seen set    .k record        events not counted from that record on
//! .u set number     a run's header           .l record part   dead letters from that one on
//! .v set number     a run's pages            .n number        a namespace
//! .s name           an event's schema        .a number        a trait
//! .m file           a file of the archive    .x name          checkpoint and the like
//! .g shard …         an audience, see `audiences`
//! ```

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::blob::Body;
use super::blob::Entry;
use super::draft::Index;
use super::lane::Lane;
use super::page;
use super::state_change::Change;
use super::store::Store;
use crate::model::Malformed;
use crate::model::Namespace;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::rows::Row;
use crate::store::state::ArchiveCommit;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::DeadLetter;
use crate::store::state::Images;
use crate::store::state::ImportProgress;
use crate::store::state::Loaded;
use crate::store::state::ManifestRow;
use crate::store::state::Part;
use crate::store::state::Piece;
use crate::store::state::SeenSet;
use crate::store::state::SkipChunk;
use crate::store::state::State as Port;
use crate::store::state::TakeBytes;
use crate::store::state::TakePiece;
use crate::store::state::TraitRow;
use crate::store::state::damaged;

/// The fold's state of one lane, for its owner.
#[derive(Debug)]
pub struct State {
    pub(super) store: Store,
    pub(super) lane: Arc<Lane>,
}

/// Takes fields and their contents one by one.
type TakeNamed<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

/// The letter of a table.
pub(super) type Table = &'static [u8; 2];

pub(super) const DELTAS: Table = b".d";
pub(super) const PAGES: Table = b".p";
pub(super) const CHUNKS: Table = b".c";
pub(super) const RUNS: Table = b".u";
pub(super) const RUN_PAGES: Table = b".v";
pub(super) const SCHEMA: Table = b".s";
pub(super) const MANIFEST: Table = b".m";
pub(super) const IMPORTS: Table = b".i";
pub(super) const REJECTED: Table = b".r";
pub(super) const SKIPS: Table = b".k";
pub(super) const LETTERS: Table = b".l";
pub(super) const NAMESPACES: Table = b".n";
pub(super) const TRAITS: Table = b".a";
pub(super) const CHECKPOINT: &[u8] = b".xcheckpoint";
pub(super) const ARCHIVED: &[u8] = b".xarchived";
pub(super) const NEXT_TRAIT: &[u8] = b".xtrait";

impl State {
    /// The state of a lane that was acquired.
    pub fn new(store: Store, lane: Arc<Lane>) -> Self {
        Self { store, lane }
    }

    /// Hands on the contents of a range of the index, each with its field after the table's letter.
    fn each(&self, range: RangeInclusive<Vec<u8>>, take: TakeNamed<'_>) -> Result<(), StoreError> {
        let entries = self.entries(range)?;
        self.lane.blobs().each(entries.iter().map(|(_, entry)| &entry.body), |at, bytes| {
            take(&entries[at].0, bytes)
        })
    }

    /// A range of the index: fields without the table's letter.
    fn entries(&self, range: RangeInclusive<Vec<u8>>) -> Result<Vec<(Vec<u8>, Entry)>, StoreError> {
        self.lane.look(|index| {
            let range = index.range(range);
            Ok(range.map(|(field, entry)| (field[2..].to_vec(), entry.clone())).collect())
        })
    }

    fn numbered(
        &self,
        range: RangeInclusive<Vec<u8>>,
        take: TakeBytes<'_>,
    ) -> Result<(), StoreError> {
        self.each(range, &mut |field, bytes| take(last_number(field)?, bytes))
    }

    fn change<'c>(
        &self,
        build: impl Fn(&mut Change<'_, '_, 'c>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.lane.change(|draft| {
            let mut change = Change::new(draft);
            Ok(build(&mut change)? && {
                change.finish();
                true
            })
        })
    }
}

impl Port for State {
    fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded {
            identity: self.store.identity,
            checkpoint: self.lane.look(checkpoint)?,
            namespaces: Vec::new(),
            skips: Vec::new(),
            imports: Vec::new(),
            traits: Vec::new(),
            next_trait: 1,
            schema: Vec::new(),
            manifest: Vec::new(),
            archived: self.lane.look(|index| row(index, ARCHIVED))?.unwrap_or_default(),
        };
        let next: Option<u64> = self.lane.look(|index| row(index, NEXT_TRAIT))?;
        loaded.next_trait =
            u32::try_from(next.unwrap_or(1)).map_err(|_| damaged(Malformed("a trait's number")))?;
        self.each(table(NAMESPACES), &mut |field, bytes| {
            let wrong = || damaged(Malformed("a namespace"));
            let number = u16::try_from(last_number(field)?).map_err(|_| wrong())?;
            let name = Namespace::new(name(bytes)?).map_err(|_| wrong())?;
            loaded.namespaces.push((number, name));
            Ok(())
        })?;
        self.each(table(SKIPS), &mut |field, bytes| {
            let first = last_number(field)?;
            loaded.skips.push(SkipChunk::read(first, bytes).map_err(damaged)?);
            Ok(())
        })?;
        self.each(table(IMPORTS), &mut |field, bytes| {
            loaded.imports.push(ImportProgress::read(name(field)?, bytes).map_err(damaged)?);
            Ok(())
        })?;
        self.each(table(TRAITS), &mut |field, bytes| {
            let id = u32::try_from(last_number(field)?);
            let id = id.map_err(|_| damaged(Malformed("a trait's number")))?;
            loaded.traits.push(TraitRow::read(id, bytes).map_err(damaged)?);
            Ok(())
        })?;
        self.each(table(SCHEMA), &mut |field, bytes| {
            loaded.schema.push((name(field)?.into(), bytes.to_vec()));
            Ok(())
        })?;
        self.each(table(MANIFEST), &mut |field, bytes| {
            loaded.manifest.push(ManifestRow::read(name(field)?, bytes).map_err(damaged)?);
            Ok(())
        })?;
        Ok(loaded)
    }

    fn load_shard(&self, shard: ShardId, take: TakePiece<'_>) -> Result<(), StoreError> {
        let mut blocks = Vec::new();
        self.each(of_shard(PAGES, shard), &mut |field, bytes| {
            let block = field.get(2..4).and_then(|block| block.try_into().ok());
            let block = u16::from_be_bytes(block.ok_or_else(|| damaged(Malformed("a block")))?);
            blocks.push((block, page::decode(bytes).map_err(damaged)?));
            Ok(())
        })?;
        for (block, page) in blocks {
            let images: Vec<_> = page.keys().map(|image| (*image).into()).collect();
            self.lane.blobs().each(page.values(), |at, bytes| {
                take(Piece::Image(Part { block, kind: images[at] }, bytes))
            })?;
        }
        self.load_deltas(shard, &mut |commit, bytes| take(Piece::Delta(commit, bytes)))
    }

    fn load_deltas(&self, shard: ShardId, take: TakeBytes<'_>) -> Result<(), StoreError> {
        self.numbered(of_shard(DELTAS, shard), take)
    }

    fn load_seen(
        &self,
        set: SeenSet,
        chunk: TakeBytes<'_>,
        run: TakeBytes<'_>,
    ) -> Result<(), StoreError> {
        self.numbered(of_set(CHUNKS, set), chunk)?;
        self.numbered(of_set(RUNS, set), run)
    }

    fn seen_page(&self, set: SeenSet, run: u64, page: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let field = seen_field(RUN_PAGES, set, run);
        let pages =
            self.lane.look(|index| Ok(index.get(&field).map(|entry| entry.body.clone())))?;
        match pages {
            Some(Body::Stored(pages)) => self.lane.blobs().part(&pages, page),
            _ => Ok(None),
        }
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        self.change(|change| change.commit(commit))
    }

    fn commit_images(&self, images: &Images) -> Result<i64, StoreError> {
        let grown = std::cell::Cell::new(0);
        self.change(|change| {
            grown.set(change.images(images)?);
            Ok(true)
        })?;
        Ok(grown.get())
    }

    fn commit_archive(&self, commit: &ArchiveCommit) -> Result<(), StoreError> {
        self.change(|change| change.archive(commit))
    }

    fn dead_letters(
        &self,
        after: Option<EventNo>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        for (_, entry) in self.entries(table(LETTERS))? {
            let last = Letters::read(&entry.meta).map_err(damaged)?.last;
            if after.is_some_and(|after| last <= after) {
                continue;
            }
            if letters.len() >= limit {
                break;
            }
            let chunk = read_letters(&self.lane.blobs().read(&entry.body)?)?;
            letters.extend(
                chunk.into_iter().filter(|letter| after.is_none_or(|after| letter.event > after)),
            );
        }
        letters.truncate(limit);
        Ok(letters)
    }

    fn dead_letter(&self, event: EventNo) -> Result<Option<DeadLetter>, StoreError> {
        let range = LETTERS.to_vec()..=letter_field(event);
        let Some((_, entry)) = self.entries(range)?.pop() else { return Ok(None) };
        if Letters::read(&entry.meta).map_err(damaged)?.last < event {
            return Ok(None);
        }
        let chunk = read_letters(&self.lane.blobs().read(&entry.body)?)?;
        Ok(chunk.into_iter().find(|letter| letter.event == event))
    }

    fn drop_dead_letters(&self, events: &[EventNo]) -> Result<u64, StoreError> {
        let dropped = std::cell::Cell::new(0);
        self.change(|change| {
            dropped.set(change.drop_letters(events)?);
            Ok(dropped.get() > 0)
        })?;
        Ok(dropped.get())
    }

    fn rejected(
        &self,
        import: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, StoreError> {
        let mut lines = Vec::new();
        for (_, entry) in self.entries(of_import(import))? {
            let (_, last) = rejected_meta(&entry.meta).map_err(damaged)?;
            if last <= after {
                continue;
            }
            if lines.len() >= limit {
                break;
            }
            let chunk = read_rejected(&self.lane.blobs().read(&entry.body)?).map_err(damaged)?;
            lines.extend(chunk.into_iter().filter(|line| line.line > after));
        }
        lines.truncate(limit);
        Ok(lines)
    }

    fn reserve_generations(&self, count: u64) -> Result<u64, StoreError> {
        self.store.reserve_generations(count)
    }

    /// Unknown: the server's memory holds other lanes too.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// The row under a name in the index itself.
pub(super) fn row<R: for<'k> Row<Key<'k> = ()>>(
    index: &Index,
    field: &[u8],
) -> Result<Option<R>, StoreError> {
    match index.get(field) {
        Some(Entry { body: Body::Inline(bytes), .. }) => {
            R::read((), bytes).map(Some).map_err(damaged)
        }
        Some(_) => Err(damaged(Malformed("a row that does not lie in the index"))),
        None => Ok(None),
    }
}

/// The checkpoint in an index.
pub(super) fn checkpoint(index: &Index) -> Result<Checkpoint, StoreError> {
    Ok(row(index, CHECKPOINT)?.unwrap_or_default())
}

/// All fields of a table.
pub(super) fn table(table: Table) -> RangeInclusive<Vec<u8>> {
    let mut end = table.to_vec();
    end[1] += 1;
    table.to_vec()..=end
}

fn of_shard(table: Table, shard: ShardId) -> RangeInclusive<Vec<u8>> {
    let prefix = [&table[..], &shard.to_be_bytes()].concat();
    let end = [&prefix[..], &[0xff; 8]].concat();
    prefix..=end
}

fn of_set(table: Table, set: SeenSet) -> RangeInclusive<Vec<u8>> {
    seen_field(table, set, 0)..=seen_field(table, set, u64::MAX)
}

/// The rejected lines of an import. Its name is followed by its length, so that none is the beginning of another.
pub(super) fn of_import(import: &str) -> RangeInclusive<Vec<u8>> {
    rejected_field(import, 0)..=rejected_field(import, u64::MAX)
}

pub(super) fn rejected_field(import: &str, line: u64) -> Vec<u8> {
    let length = u32::try_from(import.len()).unwrap_or(u32::MAX);
    [&REJECTED[..], &length.to_be_bytes(), import.as_bytes(), &line.to_be_bytes()].concat()
}

pub(super) fn seen_field(table: Table, set: SeenSet, number: u64) -> Vec<u8> {
    let set = match set {
        SeenSet::Recent => 0,
        SeenSet::Imported => 1,
    };
    [&table[..], &[set], &number.to_be_bytes()].concat()
}

pub(super) fn delta_field(shard: ShardId, commit: u64) -> Vec<u8> {
    [&DELTAS[..], &shard.to_be_bytes(), &commit.to_be_bytes()].concat()
}

pub(super) fn page_field(shard: ShardId, block: u16) -> Vec<u8> {
    [&PAGES[..], &shard.to_be_bytes(), &block.to_be_bytes()].concat()
}

pub(super) fn letter_field(event: EventNo) -> Vec<u8> {
    [&LETTERS[..], &event.record.to_be_bytes(), &event.part.to_be_bytes()].concat()
}

/// The number that a field ends in: the last 8 bytes, or all where there are fewer.
pub(super) fn last_number(field: &[u8]) -> Result<u64, StoreError> {
    let digits = &field[field.len().saturating_sub(8)..];
    if digits.is_empty() {
        return Err(damaged(Malformed("a field without a number")));
    }
    Ok(digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn name(bytes: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(bytes).map_err(|_| damaged(Malformed("a name is not UTF-8")))
}

/// What is known of a chunk of dead letters without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Letters {
    pub(super) last: EventNo,
    /// The time of its first letter.
    pub(super) time: i64,
    /// What its letters' rows take.
    pub(super) bytes: u64,
}

impl Letters {
    pub(super) fn read(meta: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(meta);
        let record = reader.varint()?;
        let part = u32::try_from(reader.varint()?).map_err(|_| Malformed("an event's number"))?;
        Ok(Self { last: EventNo { record, part }, time: reader.i64()?, bytes: reader.varint()? })
    }
}

pub(super) fn read_letters(bytes: &[u8]) -> Result<Vec<DeadLetter>, StoreError> {
    let read = || -> Result<Vec<DeadLetter>, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut letters = Vec::new();
        while reader.remaining() > 0 {
            let record = reader.varint()?;
            let part = u32::try_from(reader.varint()?);
            let part = part.map_err(|_| Malformed("an event's number"))?;
            letters.push(DeadLetter::parse(EventNo { record, part }, &mut reader)?);
        }
        Ok(letters)
    };
    read().map_err(damaged)
}

/// How many lines a chunk has, and the last one's number.
pub(super) fn rejected_meta(meta: &[u8]) -> Result<(u64, u64), Malformed> {
    let mut reader = Reader::new(meta);
    Ok((reader.varint()?, reader.varint()?))
}

fn read_rejected(bytes: &[u8]) -> Result<Vec<RejectedLine>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut lines = Vec::new();
    while reader.remaining() > 0 {
        lines.push(RejectedLine::decode(&mut reader)?);
    }
    Ok(lines)
}
