//! Makes few large files of many small ones, so that a quiet site does not end up with a hundred thousand.
//!
//! A cut every ten minutes makes 144 files a day for each shard. Once 16 of one day and shard are of about
//! the same size they become one, of a day that is over once 4 are; a file that has grown large stays as it is.
//! The manifest changes in one commit: who pins the archive sees the old files or the new one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::model::time::Day;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Catalog;
use super::Home;
use super::catalog::Hold;
use super::pace::Pace;
use super::pile::Pile;
use super::scan::Scan;
use super::scan::scan;
use super::write::Files;

/// So many files become one, and of a day that is over.
const TOGETHER: usize = 16;
const TOGETHER_LATER: usize = 4;
/// A file of this many bytes is large enough: opening it costs little beside reading it.
const LARGE: u64 = 4 << 20;
/// Files of so many bytes become one: their events lie in memory on the way, some ten times as large.
const MOST: u64 = 8 << 20;

/// Merges one group of files where there is one. Returns how many files it was.
pub(super) fn merge(catalog: &Catalog, today: Day, pace: &Pace) -> Result<usize, ArchiveError> {
    Group::find(catalog, today).map_or(Ok(0), |group| group.merge(catalog, pace))
}

/// Files to merge, which stay while they are read, whoever drops them meanwhile.
pub(super) struct Group {
    pub(super) rows: Vec<ManifestRow>,
    hold: Hold,
}

impl Group {
    pub(super) fn find(catalog: &Catalog, today: Day) -> Option<Self> {
        let (files, hold) = catalog.hold();
        Some(Self { rows: group(&files, today)?, hold })
    }

    pub(super) fn merge(self, catalog: &Catalog, pace: &Pace) -> Result<usize, ArchiveError> {
        let mut files = Files::new(catalog.home());
        let added = self.write(catalog.home(), &mut files, pace)?;
        let Self { rows, hold } = self;
        drop(hold);
        // After an error of the commit the new file may count: it stays, as the old ones do.
        if !catalog.replace(added, &rows)? {
            files.discard();
            return Ok(0);
        }
        catalog.delete_dropped();
        Ok(rows.len())
    }

    /// Writes the new file under its name. It does not count yet.
    pub(super) fn write(
        &self,
        home: &Home,
        files: &mut Files<'_>,
        pace: &Pace,
    ) -> Result<Vec<ManifestRow>, ArchiveError> {
        let mut pile = Pile::new(pace);
        let shard = self.rows[0].shard;
        scan(home, &self.rows, &Scan::default(), &mut |no, event| {
            pile.add(no, &event, shard);
            ControlFlow::Continue(())
        })?;
        let from = self.rows.iter().map(|row| row.from).min().unwrap_or_default();
        let to = self.rows.iter().map(|row| row.to).max().unwrap_or_default();
        let written = pile.write(files, from, to).and_then(|()| files.publish());
        if written.is_err() {
            files.discard();
        }
        written
    }
}

/// The files of one day, shard and size that are many enough, in the order of the journal.
fn group(files: &[ManifestRow], today: Day) -> Option<Vec<ManifestRow>> {
    let mut groups: BTreeMap<_, Vec<&ManifestRow>> = BTreeMap::new();
    for row in files.iter().filter(|row| row.bytes < LARGE) {
        // Sizes within a factor of 16 are of one tier, so that a row is rewritten a few times at most.
        let tier = row.bytes.max(1).ilog2() / 4;
        groups.entry((row.day, row.shard, tier)).or_default().push(row);
    }
    // Events come late for a day or two, and then seldom.
    let least = |day: Day| if day + 2 > today { TOGETHER } else { TOGETHER_LATER };
    let mut found = groups.into_iter().filter(|((day, ..), group)| group.len() >= least(*day));
    let (_, group) = found.next()?;
    let mut group: Vec<_> = group.into_iter().cloned().collect();
    group.sort_by_key(|row| row.from);
    let mut bytes = 0;
    // Two of them are less than what fits.
    group.retain(|row| {
        bytes += row.bytes;
        bytes <= MOST
    });
    Some(group)
}
