//! The tables of `state.redb`, and how what is committed is written into them.
//!
//! ```text
//! deltas    (shard, commit)             what a commit added
//! columns   (shard, day, trait, block)  images of columns: a day, and a trait of a day, are ranges
//! profiles  (shard, block, kind)        images of identifiers, and of attributes and marks
//! ```

use redb::ReadableTable;
use redb::TableDefinition;
use redb::WriteTransaction;

use super::file::Failure;
use super::file::META;
use super::state::State;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::rows::Row;
use crate::store::state::Commit;
use crate::store::state::DEAD_LETTER_AGE;
use crate::store::state::DEAD_LETTER_BYTES;
use crate::store::state::DeadLetter;
use crate::store::state::Identity;
use crate::store::state::MAX_REJECTED;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::SeenChange;
use crate::store::state::SeenSet;

pub(super) type Bytes = &'static [u8];
pub(super) type ColumnKey = (u16, i64, u32, u16);
pub(super) type ProfileKey = (u16, u16, u8);

pub(super) const DELTAS: TableDefinition<'_, (u16, u64), Bytes> = TableDefinition::new("deltas");
pub(super) const COLUMNS: TableDefinition<'_, ColumnKey, Bytes> = TableDefinition::new("columns");
pub(super) const PROFILES: TableDefinition<'_, ProfileKey, Bytes> =
    TableDefinition::new("profiles");
pub(super) const NAMESPACES: TableDefinition<'_, u16, &str> = TableDefinition::new("namespaces");
pub(super) const TRAITS: TableDefinition<'_, u32, Bytes> = TableDefinition::new("traits");
pub(super) const SKIPS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("skips");
pub(super) const DEAD_LETTERS: TableDefinition<'_, (u64, u32), Bytes> =
    TableDefinition::new("dead_letters");
pub(super) const IMPORTS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("imports");
pub(super) const REJECTED: TableDefinition<'_, (&str, u64), Bytes> =
    TableDefinition::new("rejected");
pub(super) const SEEN_CHUNKS: TableDefinition<'_, (u8, u64), Bytes> =
    TableDefinition::new("seen_chunks");
pub(super) const SEEN_RUNS: TableDefinition<'_, (u8, u64), Bytes> =
    TableDefinition::new("seen_runs");
pub(super) const SEEN_PAGES: TableDefinition<'_, (u8, u64, u32), Bytes> =
    TableDefinition::new("seen_pages");
pub(super) const SCHEMA: TableDefinition<'_, &str, Bytes> = TableDefinition::new("schema");
pub(super) const MANIFEST: TableDefinition<'_, &str, Bytes> = TableDefinition::new("manifest");

// Names of rows in the meta table.
pub(super) const IDENTITY: &str = "identity";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const ARCHIVED: &str = "archived";
pub(super) const NEXT_TRAIT: &str = "next_trait";
pub(super) const GENERATION: &str = "generation";
pub(super) const LETTER_BYTES: &str = "dead_letter_bytes";

impl State {
    pub(super) fn keep_dead_letters(
        write: &WriteTransaction,
        commit: &Commit,
    ) -> Result<(), Failure> {
        let mut meta = write.open_table(META)?;
        let mut bytes: u64 = Self::meta(&meta, LETTER_BYTES)?.unwrap_or(0);
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
            let letter = DeadLetter::read(EventNo { record, part }, row.value())?;
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

    pub(super) fn keep_columns(write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
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
            let identity: Option<Identity> = Self::meta(&write.open_table(META)?, IDENTITY)?;
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

    pub(super) fn keep_seen(write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
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

    pub(super) fn keep_registries(
        write: &WriteTransaction,
        commit: &Commit,
    ) -> Result<(), Failure> {
        if !commit.traits.is_empty() || !commit.dropped_traits.is_empty() {
            let mut meta = write.open_table(META)?;
            let mut next: u64 = Self::meta(&meta, NEXT_TRAIT)?.unwrap_or(1);
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

    pub(super) fn keep_imports(write: &WriteTransaction, commit: &Commit) -> Result<(), Failure> {
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

/// The identity of a new store.
pub(super) fn fresh(shards: u16) -> Result<Identity, StoreError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| StoreError::Unavailable {
        what: "the system's random numbers".to_owned(),
        source: Box::new(error),
    })?;
    Ok(Identity { shards, key })
}

pub(super) fn make(write: &WriteTransaction, identity: Identity) -> Result<(), Failure> {
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

pub(super) fn set_number(set: SeenSet) -> u8 {
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
pub(super) fn put_image(
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
