//! What is known of all trainings: the last of each look-alike, why one failed, and which are asked for.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::record::PREFIX;
use super::record::Record;
use super::record::name;
use crate::model::Millis;
use crate::segment::AudienceState;
use crate::store::StoreError;
use crate::store::audiences::RulePrint;
use crate::store::shelf::Shelf;

/// The trainings.
#[derive(Default)]
pub(in crate::segment) struct Keeper {
    state: Mutex<State>,
    /// Signalled when one is asked for, and when one has ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Grows with everything that audiences follow from.
    version: u64,
    /// The version that the last refresh was of.
    refreshed: u64,
    kept: BTreeMap<String, Kept>,
    /// Why the last training of a segment failed.
    reasons: BTreeMap<String, String>,
    /// When a training that failed is tried again.
    again: BTreeMap<String, Instant>,
    asked: BTreeSet<String>,
    /// How many trainings of each segment have ended.
    ended: BTreeMap<String, u64>,
}

#[derive(Clone)]
struct Kept {
    record: Arc<Record>,
    /// The version since which it is known.
    since: u64,
    /// As it stands on the shelf.
    bytes: Vec<u8>,
}

impl Keeper {
    /// Reads what is kept.
    pub(in crate::segment) fn load(&self, shelf: &dyn Shelf) -> Result<(), StoreError> {
        let mut kept = BTreeMap::new();
        for full in shelf.names(PREFIX)? {
            let (Some(segment), Some(bytes)) = (full.strip_prefix(PREFIX), shelf.get(&full)?)
            else {
                continue;
            };
            match Record::decode(&bytes) {
                Some(record) => {
                    let kept_record = Kept { record: Arc::new(record), since: 0, bytes };
                    kept.insert(segment.to_owned(), kept_record);
                }
                None => tracing::warn!(
                    segment,
                    "what was learnt of a look-alike cannot be read; it is trained anew"
                ),
            }
        }
        let mut state = self.state.lock();
        let version = state.version + 1;
        kept.values_mut().for_each(|kept| kept.since = version);
        *state =
            State { version, kept, asked: std::mem::take(&mut state.asked), ..State::default() };
        Ok(())
    }

    /// The version of what audiences follow from.
    pub(in crate::segment) fn version(&self) -> u64 {
        self.state.lock().version
    }

    /// Notes that audiences of a version are published.
    pub(in crate::segment) fn refreshed(&self, version: u64) {
        self.state.lock().refreshed = version;
    }

    /// What the members of each look-alike are known by.
    pub(in crate::segment) fn prints(&self) -> BTreeMap<String, RulePrint> {
        let state = self.state.lock();
        state.kept.iter().map(|(id, kept)| (id.clone(), kept.record.print)).collect()
    }

    /// The last training of a segment.
    pub(in crate::segment) fn record(&self, segment: &str) -> Option<Arc<Record>> {
        self.state.lock().kept.get(segment).map(|kept| kept.record.clone())
    }

    /// Why the last training failed.
    pub(in crate::segment) fn reason(&self, segment: &str) -> Option<String> {
        self.state.lock().reasons.get(segment).cloned()
    }

    /// The time that the members of a look-alike are true for, and whether they are those of its file.
    pub(in crate::segment) fn standing(
        &self,
        segment: &str,
        at: Millis,
    ) -> (Millis, AudienceState) {
        let state = self.state.lock();
        let true_for = state.kept.get(segment).map_or(at, |kept| kept.record.true_for);
        let reason = state.reasons.get(segment).cloned();
        let failing = |reason| AudienceState::Failing { reason };
        (true_for, reason.map_or(AudienceState::Live, failing))
    }

    /// Whether a segment is to be trained now; `is_missing` says that its members are nowhere.
    pub(super) fn is_due(
        &self,
        segment: &str,
        definition: RulePrint,
        is_missing: bool,
        until: Millis,
    ) -> bool {
        let state = self.state.lock();
        if state.asked.contains(segment) {
            return true;
        }
        if state.again.get(segment).is_some_and(|again| Instant::now() < *again) {
            return false;
        }
        let Some(kept) = state.kept.get(segment) else { return true };
        let is_lost = is_missing && state.refreshed >= kept.since;
        let is_other = kept.record.definition != definition;
        is_lost
            || is_other
            || state.reasons.contains_key(segment)
            || kept.record.trained_at <= until
    }

    /// Keeps what a training came to.
    pub(super) fn keep(
        &self,
        shelf: &dyn Shelf,
        segment: &str,
        record: Record,
    ) -> Result<bool, StoreError> {
        let before = self.state.lock().kept.get(segment).map(|kept| kept.bytes.clone());
        let bytes = record.encode();
        let stands = match shelf.swap(&name(segment), before.as_deref(), Some(&bytes))? {
            true => true,
            // What nobody can read stands in nobody's way.
            false if before.is_none() => {
                let unread = shelf.get(&name(segment))?.filter(|b| Record::decode(b).is_none());
                unread.is_some() && shelf.swap(&name(segment), unread.as_deref(), Some(&bytes))?
            }
            false => false,
        };
        if stands {
            let mut state = self.state.lock();
            state.version += 1;
            let since = state.version;
            let kept = Kept { record: Arc::new(record), since, bytes };
            state.kept.insert(segment.to_owned(), kept);
            state.reasons.remove(segment);
            state.again.remove(segment);
        }
        Ok(stands)
    }

    /// Notes that a training failed, and why where that is for people to mend.
    pub(super) fn failed(&self, segment: &str, reason: Option<String>, again: Duration) {
        let mut state = self.state.lock();
        state.again.insert(segment.to_owned(), Instant::now() + again);
        if let Some(reason) = reason
            && state.reasons.get(segment) != Some(&reason)
        {
            state.version += 1;
            state.reasons.insert(segment.to_owned(), reason);
        }
    }

    /// Notes that a training has ended, either way.
    pub(super) fn ended(&self, segment: &str) {
        let mut state = self.state.lock();
        state.asked.remove(segment);
        *state.ended.entry(segment.to_owned()).or_default() += 1;
        self.changed.notify_all();
    }

    /// Asks for a training; tells how many had ended.
    pub(super) fn ask(&self, segment: &str) -> u64 {
        let mut state = self.state.lock();
        state.asked.insert(segment.to_owned());
        self.changed.notify_all();
        state.ended.get(segment).copied().unwrap_or(0)
    }

    /// Waits a while for one more to have ended, and tells whether it has.
    pub(super) fn has_ended(&self, segment: &str, before: u64, wait: Duration) -> bool {
        let mut state = self.state.lock();
        let ended = |state: &State| state.ended.get(segment).copied().unwrap_or(0) > before;
        if !ended(&state) {
            self.changed.wait_for(&mut state, wait);
        }
        ended(&state)
    }

    /// Waits until one is asked for, at most so long.
    pub(super) fn rest(&self, wait: Duration) {
        let mut state = self.state.lock();
        // One that is asked for and cannot begin yet is looked at more often.
        let wait = if state.asked.is_empty() { wait } else { wait / 10 };
        self.changed.wait_for(&mut state, wait);
    }

    /// Ends [`Keeper::rest`].
    pub(in crate::segment) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Forgets segments that are not there any more.
    pub(super) fn retain(&self, shelf: &dyn Shelf, is_there: &dyn Fn(&str) -> bool) {
        let gone: Vec<(String, Option<Vec<u8>>)> = {
            let mut state = self.state.lock();
            state.asked.retain(|id| is_there(id));
            state.reasons.retain(|id, _| is_there(id));
            let gone = state.kept.iter().filter(|(id, _)| !is_there(id));
            gone.map(|(id, kept)| (id.clone(), Some(kept.bytes.clone()))).collect()
        };
        for (segment, bytes) in gone {
            match shelf.swap(&name(&segment), bytes.as_deref(), None) {
                Ok(_) => {
                    self.state.lock().kept.remove(&segment);
                }
                Err(error) => {
                    tracing::debug!(%error, "a look-alike that is gone is not forgotten yet")
                }
            }
        }
    }
}
