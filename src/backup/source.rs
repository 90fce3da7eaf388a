//! The data directory of a running server, and how it is copied. The order of the parts is told in the module.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::ARCHIVE;
use super::failed;
use super::files;
use super::job::BackupError;
use super::job::Copied;
use super::job::Meter;
use super::job::Origin;
use crate::archive::ArchiveError;
use crate::archive::Catalog;
use crate::archive::Home;
use crate::net::Clock;
use crate::store::embedded::LEDGER;
use crate::store::embedded::STATE;
use crate::store::journal::Journal;
use crate::store::ledger::Ledger;
use crate::store::state::ManifestRow;
use crate::store::state::State;

/// A data directory in this process's hands.
pub struct Source {
    /// The data directory.
    pub data: PathBuf,
    /// The fold's state.
    pub state: Arc<dyn State>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The archive.
    pub catalog: Arc<Catalog>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Small files of the data directory, and folders of such; each is replaced whole when it changes.
    pub small: Vec<PathBuf>,
    /// Set when the process is about to stop: a backup under way is given up.
    pub draining: Arc<AtomicBool>,
}

impl Origin for Source {
    fn data(&self) -> &Path {
        &self.data
    }

    fn archive(&self) -> &Home {
        self.catalog.home()
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn draining(&self) -> &AtomicBool {
        &self.draining
    }

    fn bytes(&self) -> (u64, u64) {
        let Self { state, journal, ledger, catalog, .. } = self;
        let tail = journal.end().0.saturating_sub(journal.begin().0);
        let files = catalog.files().iter().map(|row| row.bytes).sum();
        (tail + state.bytes().unwrap_or(0) + ledger.bytes().unwrap_or(0), files)
    }

    fn names(&self) -> Vec<PathBuf> {
        self.small.clone()
    }

    fn copy(&self, dir: &Path, meter: &mut Meter<'_>) -> Result<Copied, BackupError> {
        let (pin, ()) = self.catalog.pin(&*self.journal, |_| ());

        meter.start("state", self.state.bytes().unwrap_or(0));
        let copied = self.state.copy_to(dir, &mut |bytes| meter.add(bytes))?;
        let state = copied.ok_or(BackupError::Elsewhere)?;
        meter.end_as(&dir.join(STATE));

        meter.start("archive", state.manifest.iter().map(|row| row.bytes).sum());
        copy_archive(dir, &pin.home, &state.manifest, meter)?;
        meter.end();

        // Before the end is asked for: what was acknowledged by then lies before it.
        let true_for = self.clock.now();
        let (from, to) = (state.archived.position, self.journal.end());
        meter.start("journal", to.0.saturating_sub(from.0));
        let copied = self.journal.copy_to(dir, from, to, &mut |bytes| meter.add(bytes))?;
        let journal = copied.ok_or(BackupError::Elsewhere)?;
        meter.end();
        drop(pin);

        meter.start("secrets", 0);
        self.copy_small(dir, meter)?;
        meter.end();

        meter.start("ledger", self.ledger.bytes().unwrap_or(0));
        if !self.ledger.copy_to(dir, &mut |bytes| meter.add(bytes))? {
            return Err(BackupError::Elsewhere);
        }
        meter.end_as(&dir.join(LEDGER));

        Ok(Copied {
            true_for,
            shards: state.shards,
            counted: state.checkpoint.counters.counted,
            to_fold: journal.next_record.saturating_sub(state.checkpoint.next_record),
            profiles: None,
            rows: state.manifest,
        })
    }
}

impl Source {
    fn copy_small(&self, dir: &Path, meter: &mut Meter<'_>) -> Result<(), BackupError> {
        for name in &self.small {
            let from = self.data.join(name);
            if !from.is_dir() {
                copy_secret(&from, &dir.join(name), meter)?;
                continue;
            }
            files::make_dir(&dir.join(name))?;
            for entry in fs::read_dir(&from).map_err(failed("read", &from))? {
                let path = entry.map_err(failed("read", &from))?.path();
                // One that is being written has not come yet.
                if path.extension().is_none_or(|extension| extension != "new") {
                    let file = path.file_name().unwrap_or_default();
                    copy_secret(&path, &dir.join(name).join(file), meter)?;
                }
            }
        }
        Ok(())
    }
}

/// Links the archive's files, which nobody ever writes to again; copies them where it cannot, and out of a bucket.
fn copy_archive(
    dir: &Path,
    from: &Home,
    rows: &[ManifestRow],
    meter: &mut Meter<'_>,
) -> Result<(), BackupError> {
    let to = dir.join(ARCHIVE);
    files::make_dir(&to)?;
    let mut may_link = true;
    for row in rows {
        let target = to.join(&*row.file);
        files::make_dir(target.parent().unwrap_or(&to))?;
        let Some(folder) = from.folder() else {
            from.fetch(row, &target)?;
            meter.add(row.bytes).map_err(failed("copy", &target))?;
            continue;
        };
        let source = folder.join(&*row.file);
        if may_link {
            match fs::hard_link(&source, &target) {
                Ok(()) => {
                    meter.add(row.bytes).map_err(failed("link", &target))?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let hint = "it is missing; restore it from an earlier backup".to_owned();
                    return Err(ArchiveError::Damaged { file: source, hint }.into());
                }
                Err(_) => may_link = false,
            }
        }
        files::copy(&source, &target, None, &mut |bytes| meter.add(bytes))?;
    }
    Ok(())
}

/// Copies a file for the owner alone, if it is there.
fn copy_secret(from: &Path, to: &Path, meter: &mut Meter<'_>) -> Result<(), BackupError> {
    if !from.is_file() {
        return Ok(());
    }
    match files::copy(from, to, Some(0o600), &mut |bytes| meter.add(bytes)) {
        // A segment that was deleted meanwhile.
        Err(error) if error.action == "open" && !from.exists() => Ok(()),
        copied => Ok(copied?),
    }
}
