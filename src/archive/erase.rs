//! Takes events out of files for good: a file that holds any is written anew without them.
//!
//! Few files hold any, so each is read first for nothing but whose its events are. Who has pinned the archive reads the
//! old files to the end; they are deleted then.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::model::Event;
use crate::store::state::ManifestRow;

use super::ArchiveError;
use super::Catalog;
use super::catalog::Hold;
use super::pace::Pace;
use super::pile::Pile;
use super::scan::Scan;
use super::scan::scan;
use super::write::Files;

/// What was taken out of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Files that were read.
    pub read: u64,
    /// Files that were written anew, or dropped for nothing was left of them.
    pub files: u64,
    /// Events that were taken out.
    pub events: u64,
}

/// Takes out of the archive all events that `is_erased` takes. What is cut from the journal meanwhile must not hold
/// any. `goes_on` is asked at each file; where it says no, what was done is told as it is.
pub fn erase(
    catalog: &Catalog,
    is_erased: &dyn Fn(&Event) -> bool,
    goes_on: &dyn Fn() -> bool,
) -> Result<Swept, ArchiveError> {
    let mut swept = Swept::default();
    let mut clean: BTreeSet<Box<str>> = BTreeSet::new();
    catalog.settle()?;
    // Files are merged meanwhile: those that have come since are looked at until there are none.
    loop {
        let (files, hold) = catalog.hold();
        let open: Vec<ManifestRow> =
            files.iter().filter(|row| !clean.contains(&row.file)).cloned().collect();
        if open.is_empty() || !goes_on() {
            return Ok(swept);
        }
        for row in open {
            if !goes_on() {
                return Ok(swept);
            }
            swept.read += 1;
            match count_of(catalog, &row, is_erased)? {
                0 => _ = clean.insert(row.file),
                events => {
                    if rewrite(catalog, &row, is_erased)? {
                        swept.files += 1;
                        swept.events += events;
                    }
                }
            }
        }
        drop::<Hold>(hold);
        catalog.delete_dropped();
    }
}

/// How many events of the archive as it is `is_erased` takes; `None` where `goes_on` says no before its end.
pub fn count(
    catalog: &Catalog,
    is_erased: &dyn Fn(&Event) -> bool,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<u64>, ArchiveError> {
    let (files, _hold) = catalog.hold();
    let mut events = 0;
    for row in files.iter() {
        if !goes_on() {
            return Ok(None);
        }
        events += count_of(catalog, row, is_erased)?;
    }
    Ok(Some(events))
}

/// How many events of a file are to go.
fn count_of(
    catalog: &Catalog,
    row: &ManifestRow,
    is_erased: &dyn Fn(&Event) -> bool,
) -> Result<u64, ArchiveError> {
    let mut count = 0;
    scan(catalog.home(), [row], &Scan::default(), &mut |_, event| {
        count += u64::from(is_erased(&event));
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// Writes a file anew without the events that are to go; tells whether it still counted.
fn rewrite(
    catalog: &Catalog,
    row: &ManifestRow,
    is_erased: &dyn Fn(&Event) -> bool,
) -> Result<bool, ArchiveError> {
    let pace = Pace::hurried();
    let mut pile = Pile::new(&pace);
    scan(catalog.home(), [row], &Scan::default(), &mut |no, event| {
        if !is_erased(&event) {
            pile.add(no, &event, row.shard);
        }
        ControlFlow::Continue(())
    })?;
    let mut files = Files::new(catalog.home());
    let written = pile.write(&mut files, row.from, row.to).and_then(|()| files.publish());
    let added = match written {
        Ok(added) => added,
        Err(error) => {
            files.discard();
            return Err(error);
        }
    };
    // After an error of the commit the new file may count: it stays, as the old one does.
    if catalog.replace(added, std::slice::from_ref(row))? {
        return Ok(true);
    }
    files.discard();
    Ok(false)
}
