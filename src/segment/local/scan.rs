//! Reads retained events again, for the traits that no columns are kept of: the archive's files, then the
//! journal from their end to the pin.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::columns::Columns;
use super::saved::Fact;
use super::saved::Saved;
use crate::archive;
use crate::archive::ArchiveError;
use crate::bitmap::TraitId;
use crate::ingest::Engine;
use crate::ingest::Pin;
use crate::metrics::Metrics;
use crate::model::Event;
use crate::model::Glance;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Record;
use crate::model::ShardId;
use crate::model::time::DAY;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::plan::TraitSet;
use crate::store::journal::EventNo;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;

/// Why the events could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A file of the archive could not be.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The journal could not be.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Nobody wants the answer any more.
    #[error("stopped")]
    Cancelled,
}

/// Counts what a scan of the archive has read and passed over.
pub(super) fn count(metrics: &Metrics, scanned: &archive::Scanned) {
    for (what, outcome, number) in [
        ("file", "read", scanned.files),
        ("file", "skipped", scanned.files_skipped),
        ("row_group", "read", scanned.groups),
        ("row_group", "skipped", scanned.groups_skipped),
    ] {
        metrics.archive_scanned.with_label_values(&[what, outcome]).inc_by(number);
    }
}

/// What to read events for.
pub(super) struct Scan<'a> {
    pub(super) engine: &'a Engine,
    pub(super) pin: &'a Pin,
    /// The traits to take facts for.
    pub(super) traits: &'a TraitSet,
    /// Set when nobody wants the answer any more.
    pub(super) cancelled: &'a AtomicBool,
}

impl Scan<'_> {
    /// Reads every retained event up to the pin: those of the archive, which was pinned with it, and those
    /// of the journal beyond. `progress` is told the share of the archive that has been read. What `saved` has is
    /// in the columns already, and it is given what is read.
    pub(super) fn all(
        &self,
        mut held: archive::Pin,
        columns: &mut Columns,
        mut saved: Option<&mut Saved>,
        progress: &mut dyn FnMut(f32),
    ) -> Result<(), ScanError> {
        let oldest = self.oldest();
        let names = self.names();
        let wanted = |name: &str| names.binary_search(&name).is_ok();
        let scan = archive::Scan {
            days: day_of(oldest)..=Day::MAX,
            times: oldest..=Millis::MAX,
            names: Some(&names),
            wanted: &wanted,
            ..archive::Scan::default()
        };
        let mut files: Vec<_> = held.files.iter().filter(|file| scan.reads(file)).collect();
        // Files that came since may lie between those that were read before a crash: how far that was is told at once.
        files.sort_by_key(|file| !saved.as_ref().is_some_and(|saved| saved.has(&file.file)));
        let total: u64 = files.iter().map(|file| file.rows).sum();
        let mut facts = Vec::new();
        let mut read = 0u64;
        for file in files {
            let mut of_file = Vec::new();
            let keeps = saved.is_some();
            let mut give = |_: EventNo, event: Event| {
                self.take(&event, oldest, &mut facts, &mut |fact| {
                    columns.add(fact.profile, fact.id, fact.time, fact.value);
                    if keeps {
                        of_file.push(fact);
                    }
                });
                if self.cancelled.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            if !saved.as_ref().is_some_and(|saved| saved.has(&file.file)) {
                let scanned = archive::scan(&held.home, [file], &scan, &mut give)?;
                count(self.engine.metrics(), &scanned);
                self.still_wanted()?;
                if let Some(saved) = &mut saved {
                    saved.add(&file.file, &of_file);
                }
            }
            read += file.rows;
            #[expect(clippy::cast_precision_loss, reason = "a share for a progress bar")]
            progress(read as f32 / total.max(1) as f32);
        }
        self.tail(&mut *held.tail, columns)
    }

    /// Reads what the archive has of one shard.
    pub(super) fn shard(
        &self,
        held: &archive::Pin,
        shard: ShardId,
        columns: &mut Columns,
    ) -> Result<(), ScanError> {
        let oldest = self.oldest();
        let names = self.names();
        let wanted = |name: &str| names.binary_search(&name).is_ok();
        let scan = archive::Scan {
            days: day_of(oldest)..=Day::MAX,
            times: oldest..=Millis::MAX,
            shard: Some(shard),
            names: Some(&names),
            wanted: &wanted,
        };
        let mut facts = Vec::new();
        let scanned = archive::scan(&held.home, held.files.iter(), &scan, &mut |_, event| {
            self.take(&event, oldest, &mut facts, &mut |fact| {
                columns.add(fact.profile, fact.id, fact.time, fact.value);
            });
            if self.cancelled.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        count(self.engine.metrics(), &scanned);
        self.still_wanted()
    }

    /// The names of the events that any trait is of, in order.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.traits.iter().map(|(_, spec)| spec.event()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Reads the journal to the pin. The reader starts at the archive's end or later: before it, the
    /// fold has forgotten which events were not counted.
    pub(super) fn tail(
        &self,
        reader: &mut dyn JournalReader,
        columns: &mut Columns,
    ) -> Result<(), ScanError> {
        self.tail_of(&|_| true, reader, columns)
    }

    /// What [`Scan::tail`] does, for the profiles of some shards.
    pub(super) fn tail_of(
        &self,
        shards: &dyn Fn(ShardId) -> bool,
        reader: &mut dyn JournalReader,
        columns: &mut Columns,
    ) -> Result<(), ScanError> {
        let oldest = self.oldest();
        let names = self.names();
        let is_wanted = |glance: &Glance<'_>| {
            // What has none that can be read fails to be read after it.
            let is_of = |(namespace, value)| shards(self.engine.shard_of_owner(namespace, value));
            names.binary_search(&glance.name()).is_ok() && glance.owner().is_ok_and(is_of)
        };
        let is_late = || self.cancelled.load(Ordering::Relaxed);
        let mut facts = Vec::new();
        tail(reader, self.pin, &is_late, &is_wanted, &mut |event| {
            self.take(event, oldest, &mut facts, &mut |fact| {
                columns.add(fact.profile, fact.id, fact.time, fact.value);
            });
            ControlFlow::Continue(())
        })?;
        self.still_wanted()
    }

    /// The oldest event that any window can reach, and a day more: the fold keeps whole days, and a clock that is set
    /// back asks for what it has.
    pub(super) fn oldest(&self) -> Millis {
        let snapshot = &self.pin.snapshot;
        snapshot.true_for.saturating_sub(snapshot.retention).saturating_sub(DAY)
    }

    fn still_wanted(&self) -> Result<(), ScanError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(ScanError::Cancelled) } else { Ok(()) }
    }

    fn take(
        &self,
        event: &Event,
        oldest: Millis,
        facts: &mut Vec<(TraitId, Option<Measure>)>,
        give: &mut dyn FnMut(Fact),
    ) {
        if event.time < oldest {
            return;
        }
        facts.clear();
        self.traits.facts(event, facts);
        // The first fact is that there was an event, which the fold keeps.
        if facts.len() <= 1 {
            return;
        }
        let Some(profile) = self.engine.find(event.owner()) else { return };
        if self.engine.is_erased(event) {
            return;
        }
        for (id, value) in facts.drain(..).filter(|(id, _)| *id != TraitId::ANY) {
            give(Fact { profile, id, time: event.time, value });
        }
    }
}

/// Gives the events that are wanted and counted from where a reader stands, which is the archive's end or later, to the
/// pin; until `give` breaks, or it `is_late`.
pub(super) fn tail(
    reader: &mut dyn JournalReader,
    pin: &Pin,
    is_late: &dyn Fn() -> bool,
    is_wanted: &dyn Fn(&Glance<'_>) -> bool,
    give: &mut dyn FnMut(&Event) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    while reader.position() < pin.position && !is_late() {
        let Some(frame) = reader.next()? else { break };
        if frame.start >= pin.position {
            break;
        }
        for record in frame.records() {
            // What cannot be read stands in the dead letters and is not counted.
            let Ok((record, bytes)) = record else { break };
            let mut found = Vec::new();
            let looked = Record::glance(bytes, &mut |part, glance| {
                if is_wanted(&glance) && pin.is_counted(EventNo { record, part }) {
                    found.push(glance.event());
                }
                ControlFlow::Continue(())
            });
            let Ok(found) = looked.and_then(|_| found.into_iter().collect::<Result<Vec<_>, _>>())
            else {
                continue;
            };
            if found.iter().try_for_each(&mut *give).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}
