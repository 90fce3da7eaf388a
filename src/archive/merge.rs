//! Makes one file of many small ones, so that a quiet site does not end up with a hundred thousand.
//!
//! A cut every ten minutes makes 144 files a day for each shard. Once 16 of one day and shard are of about
//! the same small size they become one; a file that has grown past that stays as it is.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Catalog;
use super::catalog::Hold;
use super::scan::Scan;
use super::scan::scan;
use super::write::Files;
use super::write::Place;

/// So many files become one.
const TOGETHER: usize = 16;
/// A file of this many bytes is large enough: opening it costs little beside reading it.
const LARGE: u64 = 256 << 10;

/// Merges one group of files where there is one. Returns how many files it was.
pub(super) fn merge(catalog: &Catalog) -> Result<usize, ArchiveError> {
    Group::find(catalog).map_or(Ok(0), |group| group.merge(catalog))
}

/// Files to merge, which stay while they are read, whoever drops them meanwhile.
pub(super) struct Group {
    rows: Vec<ManifestRow>,
    hold: Hold,
}

impl Group {
    pub(super) fn find(catalog: &Catalog) -> Option<Self> {
        let (files, hold) = catalog.hold();
        Some(Self { rows: group(&files)?, hold })
    }

    pub(super) fn merge(self, catalog: &Catalog) -> Result<usize, ArchiveError> {
        let Self { rows, hold } = self;
        let home = catalog.home();
        let mut files = Files::new(home);
        let place = Place {
            day: rows[0].day,
            shard: rows[0].shard,
            from: rows[0].from,
            to: rows[rows.len() - 1].to,
        };
        let all = Scan { days: i64::MIN..=i64::MAX, shard: None, wanted: &|_| true };
        let written = files.write(place, |push| {
            let mut result = Ok(());
            scan(home, &rows, &all, &mut |no, event| {
                result = push(no, &event);
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            result
        });
        drop(hold);
        let added = match written.and_then(|()| files.publish()) {
            Ok(added) => added,
            Err(error) => {
                files.discard();
                return Err(error);
            }
        };
        // After an error of the commit the new file may count: it stays, as the old ones do.
        if !catalog.replace(added, &rows)? {
            files.discard();
            return Ok(0);
        }
        catalog.delete_dropped();
        Ok(rows.len())
    }
}

/// The files of one day, shard and size that are many enough, in the order of the journal.
fn group(files: &[ManifestRow]) -> Option<Vec<ManifestRow>> {
    let mut groups: BTreeMap<_, Vec<&ManifestRow>> = BTreeMap::new();
    for row in files.iter().filter(|row| row.bytes < LARGE) {
        // Sizes within a factor of 16 are of one tier, so that a row is rewritten a few times at most.
        let tier = row.bytes.max(1).ilog2() / 4;
        groups.entry((row.day, row.shard, tier)).or_default().push(row);
    }
    let group = groups.into_values().find(|group| group.len() >= TOGETHER)?;
    let mut group: Vec<_> = group.into_iter().cloned().collect();
    group.sort_by_key(|row| row.from);
    Some(group)
}
