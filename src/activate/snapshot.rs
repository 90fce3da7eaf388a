//! Whole audiences as files, for destinations that take these and no changes.
//!
//! Batches go to the ledger alone. After a run that had some, what the ledger holds is written as one file, a page at a time,
//! and named by the last batch in it: a name is always the same bytes, nothing is written where nothing changed, and what a
//! crash interrupted is written again. What was written last stands in the ledger as the destination's own name of the target.

use flate2::Compression;
use flate2::GzBuilder;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::connector::Connector;
use super::connector::Verdict;
use super::connectors::liveramp::Layout;
use super::connectors::liveramp::MIN_ROWS;
use super::report::PushReport;
use super::run::Halt;
use super::run::Run;
use crate::store::StoreError;
use crate::store::ledger::DELIVERIES_KEPT;
use crate::store::ledger::LastBatch;
use crate::store::ledger::Ledger;
use crate::store::ledger::Target;

/// How many identifiers are read at once.
const PAGE: usize = 4_096;

/// Segments of which a file is owed to a destination, whether or not it holds anything of them: who was in the last file is
/// there until there is another.
pub(super) fn owed(
    ledger: &dyn Ledger,
    connector: &dyn Connector,
    destination: &str,
) -> Result<BTreeSet<String>, StoreError> {
    let mut owed = BTreeSet::new();
    if connector.whole().is_none() {
        return Ok(owed);
    }
    for last in ledger.last_batches(destination)? {
        let target = Target::new(destination, &*last.segment);
        if ledger.place(&target)? != Some(mark(&last)) {
            owed.insert(last.segment);
        }
    }
    Ok(owed)
}

/// What stands in the ledger once the file of a batch was written.
fn mark(last: &LastBatch) -> String {
    format!("{}-{}", last.generation, last.seq)
}

impl Run<'_> {
    /// Writes the audience after a run, where the destination takes whole ones and the ledger has changed since the last.
    ///
    /// What a run removed before it was held up is written, too; what one left half done is not.
    pub(super) fn write_whole(
        &self,
        done: Result<(), Halt>,
        report: &mut PushReport,
    ) -> Result<(), Halt> {
        let Some(layout) = self.connector.whole().filter(|_| !self.dry_run) else { return done };
        if let Err(Halt::Stopping | Halt::Store(_) | Halt::Turn) = done {
            return done;
        }
        self.write_if_owed(layout, report).and(done)
    }

    fn write_if_owed(&self, layout: &Layout, report: &mut PushReport) -> Result<(), Halt> {
        let (shared, ledger, target) = (self.shared, &self.shared.ledger, self.target);
        let last = ledger.last_batches(&target.destination)?;
        let Some(last) = last.into_iter().find(|last| last.segment == target.segment) else {
            return Ok(());
        };
        let written = ledger.place(target)?;
        if written.as_ref() == Some(&mark(&last)) {
            return Ok(());
        }
        // The length keeps `a_b` and `c` apart from `a` and `b_c`, which another lane may write at the same time.
        let Target { destination, segment } = target;
        let spool = format!("{}_{destination}_{segment}", destination.len());
        let spool = shared.spool.join(spool);
        let spooled = self.spool(layout, &spool);
        let rows = match spooled {
            Ok(rows) => rows,
            Err(halt) => {
                let _ = fs::remove_file(&spool);
                return Err(halt);
            }
        };
        let name = layout.name(&last);
        let is_few = rows < MIN_ROWS;
        let verdict = match is_few && !self.has_somebody_left(written.as_deref())? {
            true => None,
            false => Some(self.connector.put_file(&name, &spool, shared.clock.now())),
        };
        let _ = fs::remove_file(&spool);
        let Some(verdict) = verdict else {
            report.note = Some(format!(
                "{rows} lines, and LiveRamp takes no fewer than {MIN_ROWS}: no file is written until there are more, or somebody leaves"
            ));
            return Ok(());
        };
        let labels = [target.destination.as_str(), verdict.as_str()];
        shared.metrics.delivery_attempts.with_label_values(&labels).inc();
        if verdict != Verdict::Accepted {
            return Err(Halt::Verdict(verdict));
        }
        ledger.set_place(target, &mark(&last))?;
        let few = match is_few {
            true => format!(
                "; LiveRamp may refuse a file of fewer than {MIN_ROWS}: then remove who left there by hand"
            ),
            false => String::new(),
        };
        report.note = Some(format!("{name} was written, with {rows} lines{few}"));
        Ok(())
    }

    /// Whether somebody may have left since a file was written: it has to be followed by another, however small.
    fn has_somebody_left(&self, written: Option<&str>) -> Result<bool, Halt> {
        let kept = usize::try_from(DELIVERIES_KEPT).unwrap_or(usize::MAX);
        for delivery in self.shared.ledger.deliveries(&self.target.destination, kept)? {
            if delivery.segment != self.target.segment {
                continue;
            }
            if written == Some(&*format!("{}-{}", delivery.generation, delivery.seq)) {
                return Ok(false);
            }
            if delivery.removes > 0 {
                return Ok(true);
            }
        }
        // What came after it is not on record any more.
        Ok(written.is_some())
    }

    /// Writes what the ledger holds into a file of the own disk, its owner's alone; how many lines that are beside the first.
    fn spool(&self, layout: &Layout, path: &Path) -> Result<u64, Halt> {
        let failed = |error: io::Error| {
            Halt::Verdict(Verdict::Retry(format!("cannot write {}: {error}", path.display())))
        };
        let file = create(path).map_err(failed)?;
        let mut plain = BufWriter::new(file);
        let rows = if layout.gzip {
            // The same for the same lines, whenever it is made.
            let mut packed = GzBuilder::new().mtime(0).write(&mut plain, Compression::default());
            let rows = self.fill(layout, &mut packed, &failed)?;
            packed.finish().map_err(failed)?;
            rows
        } else {
            self.fill(layout, &mut plain, &failed)?
        };
        plain.flush().map_err(failed)?;
        Ok(rows)
    }

    fn fill(
        &self,
        layout: &Layout,
        to: &mut dyn Write,
        failed: &dyn Fn(io::Error) -> Halt,
    ) -> Result<u64, Halt> {
        to.write_all(layout.head().as_bytes()).map_err(failed)?;
        let (mut rows, mut after) = (0, None);
        loop {
            if self.shared.is_stopping() {
                return Err(Halt::Stopping);
            }
            let held = self.shared.ledger.held(self.target, after.as_ref(), PAGE)?;
            for row in held.iter().filter_map(|held| layout.row(&held.identifier)) {
                to.write_all(row.as_bytes()).map_err(failed)?;
                rows += 1;
            }
            match held.into_iter().next_back() {
                Some(last) => after = Some(last.identifier),
                None => return Ok(rows),
            }
        }
    }
}

/// Makes a file anew: what a crash left there may be anything.
fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}
