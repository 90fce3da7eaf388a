//! The fold's state in one redb file, `state.redb`: opened, read back, and written one transaction a call.

use std::path::Path;

use redb::ReadableTable;

use super::STATE;
use super::UNFINISHED;
use super::copy::NewFile;
use super::file::Access;
use super::file::Failure;
use super::file::Layout;
use super::file::META;
use super::file::RedbFile;
use super::state_tables::ARCHIVED;
use super::state_tables::Bytes;
use super::state_tables::CHECKPOINT;
use super::state_tables::COLUMNS;
use super::state_tables::DEAD_LETTERS;
use super::state_tables::DELTAS;
use super::state_tables::GENERATION;
use super::state_tables::IDENTITY;
use super::state_tables::IMPORTS;
use super::state_tables::LETTER_BYTES;
use super::state_tables::MANIFEST;
use super::state_tables::NAMESPACES;
use super::state_tables::NEXT_TRAIT;
use super::state_tables::PROFILES;
use super::state_tables::REJECTED;
use super::state_tables::SCHEMA;
use super::state_tables::SEEN_CHUNKS;
use super::state_tables::SEEN_PAGES;
use super::state_tables::SEEN_RUNS;
use super::state_tables::SKIPS;
use super::state_tables::TRAITS;
use super::state_tables::fresh;
use super::state_tables::make;
use super::state_tables::put_image;
use super::state_tables::set_number;
use crate::model::Malformed;
use crate::model::Namespace;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::Watch;
use crate::store::journal::EventNo;
use crate::store::rows::Row;
use crate::store::state::ArchiveCommit;
use crate::store::state::CONTENT_VERSION;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::CopiedState;
use crate::store::state::DeadLetter;
use crate::store::state::Identity;
use crate::store::state::Images;
use crate::store::state::ImportProgress;
use crate::store::state::Loaded;
use crate::store::state::ManifestRow;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::Piece;
use crate::store::state::SeenSet;
use crate::store::state::SkipChunk;
use crate::store::state::State as Port;
use crate::store::state::TakeBytes;
use crate::store::state::TakePiece;
use crate::store::state::TraitRow;
use crate::store::state::half_moved;

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
        if directory.join(UNFINISHED).exists() {
            return Err(half_moved(directory.display().to_string()));
        }
        let access = Access::on_disk(&directory.join(STATE));
        Self::open_with(directory, shards, access)
    }

    /// Makes the state of a store that is moved here, or opens what was made before of the same store.
    pub fn make(directory: &Path, identity: Identity) -> Result<Self, StoreError> {
        let access = Access::on_disk(&directory.join(STATE));
        let state = Self::open_as(directory, access, || Ok(identity))?;
        if state.load()?.identity == identity {
            return Ok(state);
        }
        Err(StoreError::Malformed {
            what: directory.join(STATE).display().to_string(),
            hint: "it is of another store; name an empty directory".to_owned(),
            source: None,
        })
    }

    /// Opens it by other means than the file system's.
    pub(super) fn open_with(
        directory: &Path,
        shards: u16,
        access: Access,
    ) -> Result<Self, StoreError> {
        Self::open_as(directory, access, || fresh(shards))
    }

    fn open_as(
        directory: &Path,
        access: Access,
        identity: impl FnOnce() -> Result<Identity, StoreError>,
    ) -> Result<Self, StoreError> {
        let layout = Layout {
            // The format of tables and rows here, and of the contents that others write.
            format: format!("throng-state-1.{CONTENT_VERSION}"),
            start_over: "move the data directory away and start with an empty one",
            cache: 64 << 20,
        };
        let path = directory.join(STATE);
        Ok(Self { file: RedbFile::open(path, access, layout, |write| make(write, identity()?))? })
    }

    pub(super) fn meta<R>(
        table: &impl ReadableTable<&'static str, Bytes>,
        name: &str,
    ) -> Result<Option<R>, Failure>
    where
        R: for<'k> Row<Key<'k> = ()>,
    {
        let Some(bytes) = table.get(name)? else { return Ok(None) };
        Ok(Some(R::read((), bytes.value())?))
    }
}

impl Port for State {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.file.read(|read| {
            let meta = read.open_table(META)?;
            let next_trait: u64 = Self::meta(&meta, NEXT_TRAIT)?.unwrap_or(1);
            let mut loaded = Loaded {
                identity: Self::meta(&meta, IDENTITY)?.ok_or(Malformed("no identity"))?,
                checkpoint: Self::meta(&meta, CHECKPOINT)?.unwrap_or_default(),
                namespaces: Vec::new(),
                skips: Vec::new(),
                imports: Vec::new(),
                traits: Vec::new(),
                next_trait: u32::try_from(next_trait).map_err(|_| Malformed("a trait's number"))?,
                schema: Vec::new(),
                manifest: Vec::new(),
                archived: Self::meta(&meta, ARCHIVED)?.unwrap_or_default(),
            };
            for entry in read.open_table(NAMESPACES)?.iter()? {
                let (number, name) = entry?;
                let name = Namespace::new(name.value()).map_err(|_| Malformed("a namespace"))?;
                loaded.namespaces.push((number.value(), name));
            }
            for entry in read.open_table(SKIPS)?.iter()? {
                let (key, row) = entry?;
                loaded.skips.push(SkipChunk::read(key.value(), row.value())?);
            }
            for entry in read.open_table(IMPORTS)?.iter()? {
                let (key, row) = entry?;
                loaded.imports.push(ImportProgress::read(key.value(), row.value())?);
            }
            for entry in read.open_table(TRAITS)?.iter()? {
                let (key, row) = entry?;
                loaded.traits.push(TraitRow::read(key.value(), row.value())?);
            }
            for entry in read.open_table(SCHEMA)?.iter()? {
                let (key, row) = entry?;
                loaded.schema.push((key.value().into(), row.value().to_vec()));
            }
            for entry in read.open_table(MANIFEST)?.iter()? {
                let (key, row) = entry?;
                loaded.manifest.push(ManifestRow::read(key.value(), row.value())?);
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
                    _ => return Err(Malformed("an unknown kind of image").into()),
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
                Self::meta(&write.open_table(META)?, CHECKPOINT)?.unwrap_or_default();
            if stored.commit >= commit.checkpoint.commit {
                return Ok(());
            }
            Self::keep_columns(write, commit)?;
            Self::keep_registries(write, commit)?;
            Self::keep_imports(write, commit)?;
            Self::keep_seen(write, commit)?;
            if let Some(skips) = &commit.skips {
                write.open_table(SKIPS)?.insert(skips.first, &skips.row()[..])?;
            }
            Self::keep_dead_letters(write, commit)?;
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
                let chunk = SkipChunk::read(key.value(), row.value())?;
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
                letters.push(letter?);
            }
            Ok(letters)
        })
    }

    fn dead_letter(&self, event: EventNo) -> Result<Option<DeadLetter>, StoreError> {
        self.file.read(|read| {
            let table = read.open_table(DEAD_LETTERS)?;
            let Some(row) = table.get((event.record, event.part))? else { return Ok(None) };
            Ok(Some(DeadLetter::read(event, row.value())?))
        })
    }

    fn drop_dead_letters(&self, events: &[EventNo]) -> Result<u64, StoreError> {
        self.file.write(|write| {
            let mut meta = write.open_table(META)?;
            let mut bytes: u64 = Self::meta(&meta, LETTER_BYTES)?.unwrap_or(0);
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
                lines.push(RejectedLine::read((), row.value())?);
            }
            Ok(lines)
        })
    }

    fn reserve_generations(&self, count: u64) -> Result<u64, StoreError> {
        self.file.write(|write| {
            let mut meta = write.open_table(META)?;
            let first: u64 = Self::meta(&meta, GENERATION)?.unwrap_or(1);
            meta.insert(GENERATION, &first.saturating_add(count).row()[..])?;
            Ok(first)
        })
    }

    fn scrub(&self) -> Result<(), StoreError> {
        self.file.scrub()
    }

    fn bytes(&self) -> Option<u64> {
        self.file.bytes()
    }

    fn copy_to(&self, dir: &Path, watch: Watch<'_>) -> Result<Option<CopiedState>, StoreError> {
        let mut new = NewFile::create(dir.join(STATE), watch)?;
        let copied = self.file.read(|read| {
            new.table(read, DELTAS)?;
            new.table(read, COLUMNS)?;
            new.table(read, PROFILES)?;
            new.table(read, NAMESPACES)?;
            new.table(read, TRAITS)?;
            new.table(read, SKIPS)?;
            new.table(read, DEAD_LETTERS)?;
            new.table(read, IMPORTS)?;
            new.table(read, REJECTED)?;
            new.table(read, SEEN_CHUNKS)?;
            new.table(read, SEEN_RUNS)?;
            new.table(read, SEEN_PAGES)?;
            new.table(read, SCHEMA)?;
            new.table(read, MANIFEST)?;
            new.last_table(read, META)?;
            let meta = read.open_table(META)?;
            let identity: Identity =
                Self::meta(&meta, IDENTITY)?.ok_or(Malformed("no identity"))?;
            let mut manifest = Vec::new();
            for entry in read.open_table(MANIFEST)?.iter()? {
                let (key, row) = entry?;
                manifest.push(ManifestRow::read(key.value(), row.value())?);
            }
            Ok(CopiedState {
                shards: identity.shards,
                checkpoint: Self::meta(&meta, CHECKPOINT)?.unwrap_or_default(),
                manifest,
                archived: Self::meta(&meta, ARCHIVED)?.unwrap_or_default(),
            })
        })?;
        new.finish()?;
        Ok(Some(copied))
    }
}
