//! The retention where nothing comes: days that are too old go at the turn of a day, whether events do or not.
//!
//! State is the fold of the journal, so that a day is dropped by what lies there: the receive time of a record. Where no
//! event was received that says that a day is over, a record that erases nobody is appended, which has its receive time
//! alone. The journal gives up whole units, so that a new one is begun each day.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use super::Privacy;
use super::PrivacyError;
use crate::ingest::Lane;
use crate::ingest::first_kept;
use crate::model::Erasure;
use crate::model::Millis;
use crate::model::Record;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::store::chain;
use crate::store::journal::Batch;

/// How long it is not tried again after a failure.
const RETRY: Duration = Duration::from_secs(60);

/// What was done of it.
#[derive(Debug, Default)]
pub(super) struct Aged {
    /// The first day that is kept, as the journals were told.
    told: Option<Day>,
    /// And of what is set aside.
    aside: Option<Day>,
    /// The days on which journals were looked at, by lane.
    journals: BTreeMap<u16, Day>,
    /// When something of it last failed.
    failed: Option<Instant>,
}

impl Privacy {
    /// Lets go of what has become too old.
    pub(super) fn age(&self) {
        let mut aged = self.aged.lock();
        if aged.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            return;
        }
        aged.failed = None;
        // By T, which does not follow a clock that is wrong.
        let at = self.parts.segments.generation().true_for.min(self.now());
        let first = first_kept(at, self.parts.retention);
        let all = [
            self.turn_days(&mut aged, first),
            self.expire_aside(&mut aged, first),
            self.turn_journals(&mut aged),
        ];
        for error in all.into_iter().filter_map(Result::err) {
            aged.failed = Some(Instant::now());
            tracing::warn!(error = %chain(&error), "what is older than the retention is kept for now");
        }
    }

    /// Has the lanes drop days, where no event has had them do so.
    fn turn_days(&self, aged: &mut Aged, first: Day) -> Result<(), PrivacyError> {
        let is_behind = |lane: &Lane| {
            let committed = lane.engine.committed();
            committed.next_record > 0 && committed.first_day < first
        };
        let received = self.now();
        if aged.told.is_some_and(|told| told >= first)
            // A clock that is days ahead of T tells nobody what is old.
            || first_kept(received, self.parts.retention) != first
            || !self.parts.lanes.held().values().any(|lane| is_behind(lane))
        {
            return Ok(());
        }
        let nobody = Erasure { received, prints: Vec::new(), before: Millis::MIN, for_good: false };
        let mut batch = Batch::new();
        let full = |_| PrivacyError::Wrong("a batch has no room for one record".to_owned());
        batch.push(&Record::Erase(nobody)).map_err(full)?;
        self.parts.sink.append(&batch)?;
        aged.told = Some(first);
        Ok(())
    }

    fn expire_aside(&self, aged: &mut Aged, first: Day) -> Result<(), PrivacyError> {
        if aged.aside.is_none_or(|done| done < first) {
            self.parts.quarantine.expire(first)?;
            aged.aside = Some(first);
        }
        Ok(())
    }

    /// Begins a new unit of each journal that has something of a day before: once the archive has it, it goes.
    fn turn_journals(&self, aged: &mut Aged) -> Result<(), PrivacyError> {
        let today = day_of(self.now());
        for (number, lane) in self.parts.lanes.held().iter() {
            if aged.journals.get(number) == Some(&today) {
                continue;
            }
            let first = lane.journal.reader(lane.journal.begin()).next()?;
            let received = first.and_then(|frame| {
                let (_, bytes) = frame.records().next()?.ok()?;
                Record::decode(bytes).ok()?.received()
            });
            if received.is_some_and(|received| day_of(received) < today) {
                lane.journal.roll()?;
            }
            aged.journals.insert(*number, today);
        }
        Ok(())
    }
}
