//! The fold's state in one redb file, `state.redb`.
//!
//! ```text
//! deltas    (shard, commit)             what a commit added
//! columns   (shard, day, trait, block)  images of columns: a day, and a trait of a day, are ranges
//! profiles  (shard, block, kind)        images of identifiers, and of attributes and marks
//! ```

use std::path::Path;

use redb::ReadableTable;
use redb::TableDefinition;
use redb::WriteTransaction;

use super::file::Failure;
use super::file::META;
use super::file::Opener;
use super::file::RedbFile;
use super::file::on_disk;
use super::state_rows::Row;
use crate::model::Malformed;
use crate::model::Namespace;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::state::ArchiveCommit;
use crate::store::state::CONTENT_VERSION;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::DEAD_LETTER_AGE;
use crate::store::state::DEAD_LETTER_BYTES;
use crate::store::state::DeadLetter;
use crate::store::state::Identity;
use crate::store::state::Images;
use crate::store::state::ImportProgress;
use crate::store::state::Loaded;
use crate::store::state::MAX_REJECTED;
use crate::store::state::ManifestRow;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::Piece;
use crate::store::state::SeenChange;
use crate::store::state::SeenSet;
use crate::store::state::SkipChunk;
use crate::store::state::State as Port;
use crate::store::state::TakeBytes;
use crate::store::state::TakePiece;
use crate::store::state::TraitRow;

type Bytes = &'static [u8];
type ColumnKey = (u16, i64, u32, u16);
type ProfileKey = (u16, u16, u8);

const DELTAS: TableDefinition<'_, (u16, u64), Bytes> = TableDefinition::new("deltas");
const COLUMNS: TableDefinition<'_, ColumnKey, Bytes> = TableDefinition::new("columns");
const PROFILES: TableDefinition<'_, ProfileKey, Bytes> = TableDefinition::new("profiles");
const NAMESPACES: TableDefinition<'_, u16, &str> = TableDefinition::new("namespaces");
const TRAITS: TableDefinition<'_, u32, Bytes> = TableDefinition::new("traits");
const SKIPS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("skips");
const DEAD_LETTERS: TableDefinition<'_, (u64, u32), Bytes> = TableDefinition::new("dead_letters");
const IMPORTS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("imports");
const REJECTED: TableDefinition<'_, (&str, u64), Bytes> = TableDefinition::new("rejected");
const SEEN_CHUNKS: TableDefinition<'_, (u8, u64), Bytes> = TableDefinition::new("seen_chunks");
const SEEN_RUNS: TableDefinition<'_, (u8, u64), Bytes> = TableDefinition::new("seen_runs");
const SEEN_PAGES: TableDefinition<'_, (u8, u64, u32), Bytes> = TableDefinition::new("seen_pages");
const SCHEMA: TableDefinition<'_, &str, Bytes> = TableDefinition::new("schema");
const MANIFEST: TableDefinition<'_, &str, Bytes> = TableDefinition::new("manifest");

// Names of rows in the meta table.
const IDENTITY: &str = "identity";
const CHECKPOINT: &str = "checkpoint";
const ARCHIVED: &str = "archived";
const NEXT_TRAIT: &str = "next_trait";
const GENERATION: &str = "generation";
const LETTER_BYTES: &str = "dead_letter_bytes";

/// The fold's state on the local disk.
#[derive(Debug)]
pub struct State {
    file: RedbFile,
}

impl State {
    /// Opens `state.redb` in a data directory, or makes it with `shards` shards and a fresh key.
    ///
    /// A store that was made with another number of shards keeps it: see [`Loaded::identity`].
    pub fn open(directory: &Path, shards: u16) -> Result<Self, StoreError> {
        Self::open_with(directory, shards, on_disk())
    }

    /// Opens it by other means than the file system's.
    pub(super) fn open_with(
        directory: &Path,
        shards: u16,
        opener: Opener,
    ) -> Result<Self, StoreError> {
        // The format of tables and rows here, and of the contents that others write.
        let format = format!("throng-state-1.{CONTENT_VERSION}");
        let path = directory.join("state.redb");
        Ok(Self { file: RedbFile::open(path, opener, &format, |write| make(write, shards))? })
    }

    fn bad(&self, malformed: Malformed) -> Failure {
        Failure::Own(self.file.malformed(
            "a row is damaged; restore the data directory from a backup",
            Some(Box::new(malformed)),
        ))
    }

    fn meta<R>(
        &self,
        table: &impl ReadableTable<&'static str, Bytes>,
        name: &str,
    ) -> Result<Option<R>, Failure>
    where
        R: for<'k> Row<Key<'k> = ()>,
    {
        let Some(bytes) = table.get(name)? else { return Ok(None) };
        R::read((), bytes.value()).map(Some).map_err(|error| self.bad(error))
    }

    fn keep_dead_letters(&self, write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
        let mut meta = write.open_table(META)?;
        let mut bytes: u64 = self.meta(&meta, LETTER_BYTES)?.unwrap_or(0);
        let mut table = write.open_table(DEAD_LETTERS)?;
        for letter in &commit.dead_letters {
            let row = letter.row();
            bytes += row.len() as u64;
            table.insert((letter.event.record, letter.event.part), &row[..])?;
        }
        let oldest = commit.checkpoint.received.saturating_sub(DEAD_LETTER_AGE);
        loop {
            let Some((key, row)) = table.first()? else { break };
            let (record, part) = key.value();
            let letter = DeadLetter::read(EventNo { record, part }, row.value())
                .map_err(|error| self.bad(error))?;
            if letter.time >= oldest && bytes <= DEAD_LETTER_BYTES {
                break;
            }
            bytes = bytes.saturating_sub(row.value().len() as u64);
            drop((key, row));
            table.pop_first()?;
        }
        meta.insert(LETTER_BYTES, &bytes.row()[..])?;
        Ok(())
    }

    fn keep_columns(&self, write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
        let mut deltas = write.open_table(DELTAS)?;
        for (shard, bytes) in &commit.deltas {
            deltas.insert((*shard, commit.checkpoint.commit), &bytes[..])?;
        }
        let drops = !commit.dropped_traits.is_empty() || commit.drop_before.is_some();
        if !drops && commit.images.is_empty() {
            return Ok(());
        }
        let mut columns = write.open_table(COLUMNS)?;
        let mut profiles = write.open_table(PROFILES)?;
        if drops {
            let identity: Option<Identity> = self.meta(&write.open_table(META)?, IDENTITY)?;
            for shard in 0..identity.map_or(0, |identity| identity.shards) {
                if let Some(day) = commit.drop_before {
                    columns.retain_in((shard, Day::MIN, 0, 0)..(shard, day, 0, 0), |_, _| false)?;
                }
                drop_traits(&mut columns, shard, &commit.dropped_traits)?;
            }
        }
        for (shard, part, bytes) in &commit.images {
            put_image(&mut columns, &mut profiles, *shard, *part, bytes)?;
        }
        Ok(())
    }

    fn keep_seen(write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
        let mut chunks = write.open_table(SEEN_CHUNKS)?;
        let mut runs = write.open_table(SEEN_RUNS)?;
        let mut pages = write.open_table(SEEN_PAGES)?;
        for SeenChange { set, chunk, dropped_chunks, run, dropped_runs } in &commit.seen {
            let set = set_number(*set);
            if let Some(chunk) = chunk {
                chunks.insert((set, commit.checkpoint.commit), &chunk[..])?;
            }
            for number in dropped_chunks {
                chunks.remove((set, *number))?;
            }
            if let Some(run) = run {
                runs.insert((set, run.number), &run.header[..])?;
                for (number, page) in (0..).zip(&run.pages) {
                    pages.insert((set, run.number, number), &page[..])?;
                }
            }
            for number in dropped_runs {
                runs.remove((set, *number))?;
                pages.retain_in((set, *number, 0)..=(set, *number, u32::MAX), |_, _| false)?;
            }
        }
        Ok(())
    }

    fn keep_registries(&self, write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
        if !commit.traits.is_empty() || !commit.dropped_traits.is_empty() {
            let mut meta = write.open_table(META)?;
            let mut next: u64 = self.meta(&meta, NEXT_TRAIT)?.unwrap_or(1);
            let mut traits = write.open_table(TRAITS)?;
            for row in &commit.traits {
                traits.insert(row.id, &row.row()[..])?;
                next = next.max(u64::from(row.id) + 1);
            }
            for id in &commit.dropped_traits {
                traits.remove(*id)?;
            }
            meta.insert(NEXT_TRAIT, &next.row()[..])?;
        }
        let mut namespaces = write.open_table(NAMESPACES)?;
        for (number, namespace) in &commit.namespaces {
            namespaces.insert(*number, namespace.as_str())?;
        }
        let mut schema = write.open_table(SCHEMA)?;
        for (name, bytes) in &commit.schema {
            schema.insert(&**name, &bytes[..])?;
        }
        Ok(())
    }

    fn keep_imports(write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
        let mut imports = write.open_table(IMPORTS)?;
        for progress in &commit.imports {
            imports.insert(&*progress.import, &progress.row()[..])?;
        }
        let mut rejected = write.open_table(REJECTED)?;
        let mut room: Option<(&str, u64)> = None;
        for (import, line) in &commit.rejected {
            let left = match room {
                Some((name, left)) if name == &**import => left,
                _ => {
                    let kept = rejected.range((&**import, 0)..=(&**import, u64::MAX))?.count();
                    MAX_REJECTED.saturating_sub(kept as u64)
                }
            };
            if left > 0 {
                rejected.insert((&**import, line.line), &line.row()[..])?;
            }
            room = Some((import, left.saturating_sub(1)));
        }
        Ok(())
    }
}

fn make(write: &WriteTransaction, shards: u16) -> Result<(), Failure> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| StoreError::Unavailable {
        what: "the system's random numbers".to_owned(),
        source: Box::new(error),
    })?;
    let identity = Identity { shards, key };
    write.open_table(META)?.insert(IDENTITY, &identity.row()[..])?;
    write.open_table(DELTAS)?;
    write.open_table(COLUMNS)?;
    write.open_table(PROFILES)?;
    write.open_table(NAMESPACES)?;
    write.open_table(TRAITS)?;
    write.open_table(SKIPS)?;
    write.open_table(DEAD_LETTERS)?;
    write.open_table(IMPORTS)?;
    write.open_table(REJECTED)?;
    write.open_table(SEEN_CHUNKS)?;
    write.open_table(SEEN_RUNS)?;
    write.open_table(SEEN_PAGES)?;
    write.open_table(SCHEMA)?;
    write.open_table(MANIFEST)?;
    Ok(())
}

fn set_number(set: SeenSet) -> u8 {
    match set {
        SeenSet::Recent => 0,
        SeenSet::Imported => 1,
    }
}

fn drop_traits(
    columns: &mut redb::Table<'_, ColumnKey, Bytes>,
    shard: ShardId,
    traits: &[u32],
) -> Result<(), Failure> {
    let mut from = Day::MIN;
    while !traits.is_empty() {
        // The next day that has columns at all.
        let rest = (shard, from, 0, 0)..=(shard, Day::MAX, u32::MAX, u16::MAX);
        let Some(entry) = columns.range(rest)?.next() else { break };
        let day = entry?.0.value().1;
        for &id in traits {
            columns.retain_in((shard, day, id, 0)..=(shard, day, id, u16::MAX), |_, _| false)?;
        }
        let Some(next) = day.checked_add(1) else { break };
        from = next;
    }
    Ok(())
}

/// Writes or, where it is empty, deletes an image; returns by how much the images have grown.
fn put_image(
    columns: &mut redb::Table<'_, ColumnKey, Bytes>,
    profiles: &mut redb::Table<'_, ProfileKey, Bytes>,
    shard: ShardId,
    part: Part,
    bytes: &[u8],
) -> Result<i64, Failure> {
    fn put<'k, K: redb::Key>(
        table: &mut redb::Table<'_, K, Bytes>,
        key: K::SelfType<'k>,
        bytes: &[u8],
    ) -> Result<usize, Failure> {
        let before =
            if bytes.is_empty() { table.remove(key)? } else { table.insert(key, bytes)? };
        Ok(before.map_or(0, |before| before.value().len()))
    }
    let before = match part.kind {
        PartKind::Owners => put(profiles, (shard, part.block, 0), bytes)?,
        PartKind::Others => put(profiles, (shard, part.block, 1), bytes)?,
        PartKind::Profiles => put(profiles, (shard, part.block, 2), bytes)?,
        PartKind::Column { id, day } => put(columns, (shard, day, id, part.block), bytes)?,
    };
    let length = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok(length(bytes.len()) - length(before))
}

impl Port for State {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.file.read(|read| {
            let bad = |error| self.bad(error);
            let meta = read.open_table(META)?;
            let next_trait: u64 = self.meta(&meta, NEXT_TRAIT)?.unwrap_or(1);
            let mut loaded = Loaded {
                identity: self
                    .meta(&meta, IDENTITY)?
                    .ok_or_else(|| bad(Malformed("no identity")))?,
                checkpoint: self.meta(&meta, CHECKPOINT)?.unwrap_or_default(),
                namespaces: Vec::new(),
                skips: Vec::new(),
                imports: Vec::new(),
                traits: Vec::new(),
                next_trait: u32::try_from(next_trait)
                    .map_err(|_| bad(Malformed("a trait's number")))?,
                schema: Vec::new(),
                manifest: Vec::new(),
                archived: self.meta(&meta, ARCHIVED)?.unwrap_or_default(),
            };
            for entry in read.open_table(NAMESPACES)?.iter()? {
                let (number, name) = entry?;
                let name =
                    Namespace::new(name.value()).map_err(|_| bad(Malformed("a namespace")))?;
                loaded.namespaces.push((number.value(), name));
            }
            for entry in read.open_table(SKIPS)?.iter()? {
                let (key, row) = entry?;
                loaded.skips.push(SkipChunk::read(key.value(), row.value()).map_err(bad)?);
            }
            for entry in read.open_table(IMPORTS)?.iter()? {
                let (key, row) = entry?;
                loaded.imports.push(ImportProgress::read(key.value(), row.value()).map_err(bad)?);
            }
            for entry in read.open_table(TRAITS)?.iter()? {
                let (key, row) = entry?;
                loaded.traits.push(TraitRow::read(key.value(), row.value()).map_err(bad)?);
            }
            for entry in read.open_table(SCHEMA)?.iter()? {
                let (key, row) = entry?;
                loaded.schema.push((key.value().into(), row.value().to_vec()));
            }
            for entry in read.open_table(MANIFEST)?.iter()? {
                let (key, row) = entry?;
                loaded.manifest.push(ManifestRow::read(key.value(), row.value()).map_err(bad)?);
            }
            Ok(loaded)
        })
    }

    fn load_shard(&self, shard: ShardId, take: TakePiece<'_>) -> Result<(), StoreError> {
        self.file.read(|read| {
            let all = (shard, 0, 0)..=(shard, u16::MAX, u8::MAX);
            for entry in read.open_table(PROFILES)?.range(all)? {
                let (key, bytes) = entry?;
                let (_, block, kind) = key.value();
                let kind = match kind {
                    0 => PartKind::Owners,
                    1 => PartKind::Others,
                    2 => PartKind::Profiles,
                    _ => return Err(self.bad(Malformed("an unknown kind of image"))),
                };
                take(Piece::Image(Part { block, kind }, bytes.value()))?;
            }
            let all = (shard, Day::MIN, 0, 0)..=(shard, Day::MAX, u32::MAX, u16::MAX);
            for entry in read.open_table(COLUMNS)?.range(all)? {
                let (key, bytes) = entry?;
                let (_, day, id, block) = key.value();
                let part = Part { block, kind: PartKind::Column { id, day } };
                take(Piece::Image(part, bytes.value()))?;
            }
            for entry in read.open_table(DELTAS)?.range((shard, 0)..=(shard, u64::MAX))? {
                let (key, bytes) = entry?;
                take(Piece::Delta(key.value().1, bytes.value()))?;
            }
            Ok(())
        })
    }

    fn load_deltas(&self, shard: ShardId, take: TakeBytes<'_>) -> Result<(), StoreError> {
        self.file.read(|read| {
            for entry in read.open_table(DELTAS)?.range((shard, 0)..=(shard, u64::MAX))? {
                let (key, bytes) = entry?;
                take(key.value().1, bytes.value())?;
            }
            Ok(())
        })
    }

    fn load_seen(
        &self,
        set: SeenSet,
        chunk: TakeBytes<'_>,
        run: TakeBytes<'_>,
    ) -> Result<(), StoreError> {
        let set = set_number(set);
        self.file.read(|read| {
            for entry in read.open_table(SEEN_CHUNKS)?.range((set, 0)..=(set, u64::MAX))? {
                let (key, bytes) = entry?;
                chunk(key.value().1, bytes.value())?;
            }
            for entry in read.open_table(SEEN_RUNS)?.range((set, 0)..=(set, u64::MAX))? {
                let (key, bytes) = entry?;
                run(key.value().1, bytes.value())?;
            }
            Ok(())
        })
    }

    fn seen_page(&self, set: SeenSet, run: u64, page: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.file.read(|read| {
            let table = read.open_table(SEEN_PAGES)?;
            let page = table.get((set_number(set), run, page))?;
            Ok(page.map(|page| page.value().to_vec()))
        })
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        self.file.write(|write| {
            let stored: Checkpoint =
                self.meta(&write.open_table(META)?, CHECKPOINT)?.unwrap_or_default();
            if stored.commit >= commit.checkpoint.commit {
                return Ok(());
            }
            self.keep_columns(write, commit)?;
            self.keep_registries(write, commit)?;
            Self::keep_imports(write, commit)?;
            Self::keep_seen(write, commit)?;
            if let Some(skips) = &commit.skips {
                write.open_table(SKIPS)?.insert(skips.first, &skips.row()[..])?;
            }
            self.keep_dead_letters(write, commit)?;
            write.open_table(META)?.insert(CHECKPOINT, &commit.checkpoint.row()[..])?;
            Ok(())
        })
    }

    fn commit_images(&self, images: &Images) -> Result<i64, StoreError> {
        self.file.write(|write| {
            let mut columns = write.open_table(COLUMNS)?;
            let mut profiles = write.open_table(PROFILES)?;
            let mut grown = 0;
            for (part, bytes) in &images.parts {
                grown += put_image(&mut columns, &mut profiles, images.shard, *part, bytes)?;
            }
            let covered = (images.shard, 0)..=(images.shard, images.up_to);
            write.open_table(DELTAS)?.retain_in(covered, |_, _| false)?;
            Ok(grown)
        })
    }

    fn commit_archive(&self, commit: &ArchiveCommit) -> Result<(), StoreError> {
        self.file.write(|write| {
            let mut manifest = write.open_table(MANIFEST)?;
            for file in &commit.removed {
                manifest.remove(&**file)?;
            }
            for row in &commit.added {
                manifest.insert(&*row.file, &row.row()[..])?;
            }
            let mut skips = write.open_table(SKIPS)?;
            loop {
                let Some((key, row)) = skips.first()? else { break };
                let chunk =
                    SkipChunk::read(key.value(), row.value()).map_err(|error| self.bad(error))?;
                if chunk.last >= commit.reached.next_record {
                    break;
                }
                drop((key, row));
                skips.pop_first()?;
            }
            write.open_table(META)?.insert(ARCHIVED, &commit.reached.row()[..])?;
            Ok(())
        })
    }

    fn dead_letters(
        &self,
        after: Option<EventNo>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let from = match after {
            None => (0, 0),
            Some(EventNo { record, part: u32::MAX }) => (record.saturating_add(1), 0),
            Some(EventNo { record, part }) => (record, part + 1),
        };
        self.file.read(|read| {
            let mut letters = Vec::new();
            for entry in read.open_table(DEAD_LETTERS)?.range(from..)?.take(limit) {
                let (key, row) = entry?;
                let (record, part) = key.value();
                let letter = DeadLetter::read(EventNo { record, part }, row.value());
                letters.push(letter.map_err(|error| self.bad(error))?);
            }
            Ok(letters)
        })
    }

    fn dead_letter(&self, event: EventNo) -> Result<Option<DeadLetter>, StoreError> {
        self.file.read(|read| {
            let table = read.open_table(DEAD_LETTERS)?;
            let Some(row) = table.get((event.record, event.part))? else { return Ok(None) };
            DeadLetter::read(event, row.value()).map(Some).map_err(|error| self.bad(error))
        })
    }

    fn drop_dead_letters(&self, events: &[EventNo]) -> Result<u64, StoreError> {
        self.file.write(|write| {
            let mut meta = write.open_table(META)?;
            let mut bytes: u64 = self.meta(&meta, LETTER_BYTES)?.unwrap_or(0);
            let mut table = write.open_table(DEAD_LETTERS)?;
            let mut dropped = 0;
            for event in events {
                if let Some(row) = table.remove((event.record, event.part))? {
                    bytes = bytes.saturating_sub(row.value().len() as u64);
                    dropped += 1;
                }
            }
            meta.insert(LETTER_BYTES, &bytes.row()[..])?;
            Ok(dropped)
        })
    }

    fn rejected(
        &self,
        import: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, StoreError> {
        let Some(from) = after.checked_add(1) else { return Ok(Vec::new()) };
        self.file.read(|read| {
            let table = read.open_table(REJECTED)?;
            let mut lines = Vec::new();
            for entry in table.range((import, from)..=(import, u64::MAX))?.take(limit) {
                let (_, row) = entry?;
                lines.push(RejectedLine::read((), row.value()).map_err(|error| self.bad(error))?);
            }
            Ok(lines)
        })
    }

    fn reserve_generations(&self, count: u64) -> Result<u64, StoreError> {
        self.file.write(|write| {
            let mut meta = write.open_table(META)?;
            let first: u64 = self.meta(&meta, GENERATION)?.unwrap_or(1);
            meta.insert(GENERATION, &first.saturating_add(count).row()[..])?;
            Ok(first)
        })
    }

    fn bytes(&self) -> Option<u64> {
        self.file.bytes()
    }
}
