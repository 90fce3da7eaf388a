//! What is left of an erasure in a lane once its fold has forgotten: images, dead letters, the archive, the journal.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::GIVE_UP;
use super::Privacy;
use super::PrivacyError;
use super::job::Job;
use super::job::Kept;
use super::job::Stage;
use super::job::Swept;
use crate::archive;
use crate::ingest::Lane;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Record;
use crate::model::ShardId;
use crate::store::chain;
use crate::store::journal::EventNo;
use crate::store::state::DeadLetter;
use crate::store::suppression::Erased;

/// How long one of its steps is waited for; what takes longer is looked at again.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// So many dead letters are read at once.
const PAGE: usize = 256;

impl Privacy {
    /// Sweeps the lanes in this process's hands that are not swept; the last of all makes the erasure swept.
    pub(super) fn sweep(&self, job: &Job) -> Result<(), PrivacyError> {
        for (number, lane) in self.parts.lanes.held().iter() {
            if job.lanes.get(number).is_some_and(|swept| swept.is_done) || self.is_stopping() {
                continue;
            }
            if self.sweep_lane(job, lane)? {
                self.note(job, *number, &mut |swept| swept.is_done = true)?;
            }
        }
        self.sweep_aside(job)?;
        let (count, now) = (usize::from(self.parts.lane_count), self.now());
        self.change(&job.id, &mut |job| {
            let done = job.lanes.values().filter(|swept| swept.is_done).count();
            if job.stage == Stage::Forgotten && done >= count {
                job.stage = Stage::Swept;
                job.swept_at = Some(now);
            }
        })?;
        Ok(())
    }

    /// Takes what this process has set aside of it out of the quarantine.
    fn sweep_aside(&self, job: &Job) -> Result<(), PrivacyError> {
        let quarantine = &self.parts.quarantine;
        let is_of = |event: &Event| self.is_of(job, event);
        let id = quarantine.id();
        // Counted before any is taken out, and once: a crash in between has it done again.
        if !job.set_aside.contains_key(&id) {
            let count = quarantine.events_of(&is_of)?.len() as u64;
            self.change(&job.id, &mut |job| _ = job.set_aside.entry(id.clone()).or_insert(count))?;
        }
        let is_it = |identifier: &Identifier| self.has_any(job, std::slice::from_ref(identifier));
        quarantine.erase(&is_of, &is_it)?;
        Ok(())
    }

    /// Has journals given up that hold what came late of people who were erased. It was counted nowhere.
    pub(super) fn give_up_late(&self) {
        let mut rolled = self.rolled.lock();
        if rolled.is_some_and(|at| at.elapsed() < GIVE_UP) {
            return;
        }
        for lane in self.parts.lanes.held().values() {
            if lane.engine.take_late() {
                *rolled = Some(Instant::now());
                match lane.journal.roll() {
                    Ok(()) => lane.catalog.want(lane.journal.end()),
                    Err(error) => tracing::warn!(error = %chain(&error), "a journal is kept"),
                }
            }
        }
    }

    fn note(
        &self,
        job: &Job,
        lane: u16,
        change: &mut dyn FnMut(&mut Swept),
    ) -> Result<(), PrivacyError> {
        self.change(&job.id, &mut |job| change(job.lanes.entry(lane).or_default()))?;
        Ok(())
    }

    /// Sweeps a lane; tells whether nothing is left there.
    fn sweep_lane(&self, job: &Job, lane: &Arc<Lane>) -> Result<bool, PrivacyError> {
        let engine = &lane.engine;
        let is_of = |event: &Event| self.is_of(job, event);
        let known = job.lanes.get(&lane.number).cloned().unwrap_or_default();
        // All that was put aside of what came before is in the store then.
        if !engine.commit(PATIENCE) {
            return Ok(false);
        }
        let letters = self.letters_of(job, lane)?;
        if known.dead_letters.is_none() {
            let count = letters.len() as u64;
            self.note(job, lane.number, &mut |swept| swept.dead_letters = Some(count))?;
        }
        engine.drop_dead_letters(&letters)?;
        let mut shards: Vec<ShardId> =
            job.prints().into_iter().map(|print| engine.shard_of_print(print)).collect();
        shards.sort_unstable();
        shards.dedup();
        shards.retain(|shard| lane.shards.contains(shard));
        if !engine.compact(&shards, PATIENCE) {
            return Ok(false);
        }
        // What lies in the journal goes into the archive without them, and is given up.
        lane.journal.roll()?;
        let end = lane.journal.end();
        if !engine.committed_to(end, PATIENCE) {
            return Ok(false);
        }
        lane.catalog.want(end);
        let begun = Instant::now();
        while lane.catalog.reached().position < end || lane.journal.begin() < end {
            if self.is_stopping() || begun.elapsed() > PATIENCE || engine.has_ended() {
                return Ok(false);
            }
            std::thread::sleep(PAUSE);
        }
        if known.events.is_none() {
            let goes_on = || !self.is_stopping();
            let Some(count) = archive::count(&lane.catalog, &is_of, &goes_on)? else {
                return Ok(false);
            };
            self.note(job, lane.number, &mut |swept| swept.events = Some(count))?;
        }
        let goes_on = || !self.is_stopping() && !engine.has_ended();
        let swept = archive::erase(&lane.catalog, &is_of, &goes_on)?;
        tracing::info!(
            erasure = job.id,
            lane = lane.number,
            files = swept.files,
            events = swept.events,
            "the archive was swept"
        );
        // Who reads the old files reads them to the end.
        if !goes_on() || !lane.catalog.has_no_trash() {
            return Ok(false);
        }
        engine.scrub()?;
        Ok(true)
    }

    /// Whether an event is of what a job erases.
    fn is_of(&self, job: &Job, event: &Event) -> bool {
        let erased = Erased { before: job.before, for_good: job.suppress };
        erased.takes(event.time, event.received) && self.has_any(job, &event.ids)
    }

    fn has_any(&self, job: &Job, identifiers: &[Identifier]) -> bool {
        let prints = self.prints(identifiers.iter());
        prints.iter().any(|print| job.prints.iter().any(|known| *known == print.hex()))
    }

    /// The dead letters that are of what a job erases, or may be: of one that cannot be read, whether a value is in it.
    fn letters_of(&self, job: &Job, lane: &Lane) -> Result<Vec<EventNo>, PrivacyError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let letters = lane.engine.dead_letters(after, PAGE)?;
            let Some(last) = letters.last() else { return Ok(found) };
            after = Some(last.event);
            found.extend(
                letters.iter().filter(|letter| self.is_letter_of(job, letter)).map(|l| l.event),
            );
        }
    }

    fn is_letter_of(&self, job: &Job, letter: &DeadLetter) -> bool {
        match Record::decode(&letter.bytes) {
            Ok(Record::Event(event)) => self.is_of(job, &event),
            Ok(Record::Choice(choice)) => self.has_any(job, &[choice.identifier]),
            Ok(Record::Import(lines)) => {
                lines.events.iter().any(|imported| self.is_of(job, &imported.event))
            }
            Ok(Record::Erase(_) | Record::OptOut(_)) => false,
            Err(_) => {
                let mut is_in = false;
                // What can be read of it is looked at; what cannot may hold a value all the same.
                let _ = Record::glance(&letter.bytes, &mut |_, glance| {
                    is_in |= glance.event().is_ok_and(|event| self.is_of(job, &event));
                    ControlFlow::Continue(())
                });
                is_in || job.named.iter().any(|Kept(_, value)| holds(&letter.bytes, value))
            }
        }
    }
}

fn holds(bytes: &[u8], value: &str) -> bool {
    !value.is_empty() && bytes.windows(value.len()).any(|window| window == value.as_bytes())
}

impl From<archive::ArchiveError> for PrivacyError {
    fn from(error: archive::ArchiveError) -> Self {
        use crate::store::StoreError;
        match error {
            archive::ArchiveError::Store(error) => Self::Store(error),
            archive::ArchiveError::Journal(error) => Self::Journal(error),
            error => Self::Store(StoreError::Unavailable {
                what: format!("the archive ({})", chain(&error)),
                source: Box::new(error),
            }),
        }
    }
}
