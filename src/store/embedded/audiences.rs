//! Audiences in one redb file, `audiences.redb`.
//!
//! They follow from the state: whoever deletes the file waits for one evaluation of all rules.

use std::path::Path;

use parking_lot::RwLock;
use redb::ReadableTable;
use redb::TableDefinition;

use super::AUDIENCES;
use super::file::Access;
use super::file::Failure;
use super::file::Layout;
use super::file::META;
use super::file::RedbFile;
use super::lists::Memory;
use crate::store::StoreError;
use crate::store::audiences::Audiences as Port;
use crate::store::audiences::Cut;
use crate::store::audiences::Found;
use crate::store::audiences::Last;
use crate::store::audiences::Listed;
use crate::store::audiences::Lists;
use crate::store::audiences::Lookups;
use crate::store::audiences::TakeVersion;
use crate::store::audiences::VersionKey;
use crate::store::audiences::Whose;
use crate::store::audiences::decode;
use crate::store::audiences::encode;

/// Shard, segment, generation → what is in force from then on.
const VERSIONS: TableDefinition<'_, (u16, &str, u64), &[u8]> = TableDefinition::new("versions");
/// The last generation, in the meta table.
const LAST: &str = "last";

/// The audiences of a store that is this process's alone.
#[derive(Debug)]
pub struct Audiences {
    file: RedbFile,
    lists: RwLock<Memory>,
}

impl Audiences {
    /// Opens the file in a data directory, or makes it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(AUDIENCES);
        let layout = Layout {
            format: "throng-audiences-1".to_owned(),
            start_over: "delete it: audiences are evaluated anew",
            cache: 8 << 20,
        };
        let access = Access::on_disk(&path);
        let file = RedbFile::open(path, access, layout, |write| {
            write.open_table(VERSIONS)?;
            Ok(())
        })?;
        Ok(Self { file, lists: RwLock::default() })
    }

    /// The memory that lists take, about, and how many there are.
    pub(super) fn lists_size(&self) -> (u64, u64) {
        self.lists.read().size()
    }

    fn read_last(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Option<Last>, Failure> {
        let Some(bytes) = meta.get(LAST)? else { return Ok(None) };
        Ok(Some(Last::decode(bytes.value())?))
    }
}

impl Port for Audiences {
    fn last(&self) -> Result<Option<Last>, StoreError> {
        self.file.read(|read| Self::read_last(&read.open_table(META)?))
    }

    fn load(&self, take: TakeVersion<'_>) -> Result<(), StoreError> {
        self.file.read(|read| {
            for entry in read.open_table(VERSIONS)?.iter()? {
                let (key, bytes) = entry?;
                let (shard, segment, generation) = key.value();
                let key = VersionKey { segment: segment.into(), shard, generation };
                take(key, decode(bytes.value())?)?;
            }
            Ok(())
        })
    }

    fn keep(&self, cut: &Cut) -> Result<(), StoreError> {
        self.file.write(|write| {
            let mut meta = write.open_table(META)?;
            if Self::read_last(&meta)?.is_some_and(|last| last.generation >= cut.of.generation) {
                return Ok(());
            }
            let mut versions = write.open_table(VERSIONS)?;
            for VersionKey { segment, shard, generation } in &cut.drop {
                versions.remove((*shard, &**segment, *generation))?;
            }
            for (VersionKey { segment, shard, generation }, content) in &cut.put {
                versions
                    .insert((*shard, &**segment, *generation), &encode(content.as_ref())[..])?;
            }
            meta.insert(LAST, &cut.of.encode()[..])?;
            Ok(())
        })
    }

    /// They follow from the audiences, and are made once at a start.
    fn listed(&self, _total: u64) -> Result<Option<Listed>, StoreError> {
        Ok(self.lists.read().listed())
    }

    fn list(&self, lists: &Lists) -> Result<(), StoreError> {
        self.lists.write().take(lists);
        Ok(())
    }
}

impl Lookups for Audiences {
    fn look(&self, whose: Whose) -> Result<Option<Found>, StoreError> {
        self.lists.read().look(whose)
    }

    fn look_all(&self, whose: &[Whose]) -> Result<Vec<Option<Found>>, StoreError> {
        let lists = self.lists.read();
        whose.iter().map(|whose| lists.look(*whose)).collect()
    }

    fn is_at_hand(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audiences::conformance;

    #[test]
    fn it_keeps_the_contracts_of_the_port() {
        let mut dirs = Vec::new();
        conformance::audiences(&mut || {
            let dir = tempfile::tempdir().unwrap();
            let audiences = Audiences::open(dir.path()).unwrap();
            dirs.push(dir);
            Box::new(audiences)
        });
    }

    #[test]
    fn it_keeps_the_contracts_of_lists() {
        let mut dirs = Vec::new();
        conformance::lists(&mut || {
            let dir = tempfile::tempdir().unwrap();
            let audiences = std::sync::Arc::new(Audiences::open(dir.path()).unwrap());
            dirs.push(dir);
            (audiences.clone(), audiences)
        });
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let key = VersionKey { segment: "a".into(), shard: 2, generation: 5 };
        let of = Last { generation: 5, true_for: 7 };
        let cut = Cut { of, put: vec![(key.clone(), None)], drop: Vec::new() };
        Audiences::open(dir.path()).unwrap().keep(&cut).unwrap();
        let audiences = Audiences::open(dir.path()).unwrap();
        let mut found = Vec::new();
        let take = &mut |key, content| {
            found.push((key, content));
            Ok(())
        };
        audiences.load(take).unwrap();
        assert_eq!((audiences.last().unwrap(), found), (Some(of), vec![(key, None)]));
    }
}
