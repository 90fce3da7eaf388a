//! Publishing: a generation is kept in the store, shard by shard, before anybody sees it, and the next process that
//! publishes begins with it.
//!
//! Where no other process has the store, generations are seen as soon as they are made, and kept now and then and at the
//! end: all of their bitmaps would be written many times a second, and audiences follow from the state anyway. After a
//! crash such a process begins with a generation of some seconds before, and has caught up with the first refresh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::AskError;
use super::Segments;
use super::generation::Audience;
use super::generation::AudienceState;
use super::generation::Generation;
use super::head::Desk;
use super::head::Head;
use super::head::NotPublished;
use super::keeper::Job;
use super::refresh::Compiled;
use super::shards::Of;
use super::shards::Outcome;
use super::shards::Refreshed;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::audiences::Last;

/// What this process has published, as far as it does.
pub(super) struct Publishing {
    desk: Arc<Mutex<Desk>>,
    /// The last generation that all shards have kept and that is on record; 0 before the first.
    cut: u64,
    /// The latest time that it is on record to be true for.
    touched: Millis,
    /// The newest generation is not kept: the store does not take it.
    behind: bool,
    /// The last generation was read, and its members were not yet.
    members_due: bool,
}

impl Segments {
    /// Begins with what was published last.
    pub(super) fn take_up(&self) -> Result<(), StoreError> {
        let (desk, head) = Desk::open(self.parts.head.clone())?;
        self.lookalikes.load(&*self.parts.head)?;
        // Numbers that were set aside before another published would be smaller than its.
        *self.numbers.lock() = 0..0;
        let (cut, touched) =
            head.as_ref().map_or((0, Millis::MIN), |head| (head.number, head.true_for));
        let desk = Arc::new(Mutex::new(desk));
        let mut publishing = Publishing { desk, cut, touched, behind: false, members_due: false };
        self.keeper.begin(Last { generation: cut, true_for: touched });
        // One of before is what another has followed up meanwhile.
        if let Some(head) = head.filter(|head| head.number > self.generation().number) {
            let compiled = self.compile(self.live());
            let mut audiences = BTreeMap::new();
            for (id, standing) in head.audiences {
                let Some(segment) = compiled.live.segments.get(&id).filter(|s| !s.hidden) else {
                    continue;
                };
                // An edited rule has the members of the rule before until it is evaluated.
                let is_same =
                    compiled.prints.get(&id).copied().unwrap_or_default() == standing.rule;
                let is_live = standing.state == AudienceState::Live;
                let state = match is_same {
                    true => standing.state,
                    false => AudienceState::Backfilling { percent: 0 },
                };
                let audience = Audience {
                    segment: segment.clone(),
                    members: None,
                    count: standing.count,
                    generation: standing.generation,
                    true_for: if is_live && segment.follows() {
                        head.true_for
                    } else {
                        standing.true_for
                    },
                    changed: standing.changed,
                    state,
                };
                audiences.insert(id, Arc::new(audience));
            }
            let (number, true_for, hour) = (head.number, head.true_for, Arc::new(head.hour));
            self.published(Generation { number, true_for, version: 0, audiences, hour });
            publishing.members_due = true;
        }
        *self.publishing.lock() = Some(publishing);
        self.begun.store(true, Ordering::Release);
        self.take_members();
        Ok(())
    }

    /// Forgets what was published: another does it, or has.
    pub(super) fn forget_published(&self) {
        self.begun.store(false, Ordering::Release);
        self.generation.store(Arc::default());
        *self.publishing.lock() = None;
    }

    /// Whether the newest generation is what was published last, which is not so for a moment after the lead has
    /// changed hands.
    pub fn has_begun(&self) -> bool {
        self.is_alone() || self.begun.load(Ordering::Acquire)
    }

    /// Reads the members of the generation that was taken up, once all shards are there.
    fn take_members(&self) {
        let mut publishing = self.publishing.lock();
        let Some(publishing) = publishing.as_mut().filter(|publishing| publishing.members_due)
        else {
            return;
        };
        let before = self.generation();
        if before.version > 0 {
            publishing.members_due = false;
            return;
        }
        let kept = self.parts.shards.kept(publishing.cut);
        let mut kept = match kept.and_then(|kept| kept.whole(self.parts.count)) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::debug!(%error, "the members of the last audiences cannot be read yet");
                return;
            }
        };
        let mut next = Generation::clone(&before);
        for (id, audience) in &mut next.audiences {
            // Who counts otherwise is of another cut.
            let members = kept.remove(id).filter(|members| Some(members.len()) == audience.count);
            *audience = Arc::new(Audience { members, ..Audience::clone(audience) });
        }
        publishing.members_due = false;
        self.published(next);
    }

    /// Whether this process may publish, beginning with what was published last.
    pub(super) fn may_publish(&self) -> bool {
        if self.publishing.lock().is_none()
            && let Err(error) = self.take_up()
        {
            tracing::warn!(%error, "the last audiences cannot be read yet");
            return self.is_alone();
        }
        self.take_members();
        true
    }

    /// Whether the newest generation is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.publishing.lock().as_ref().is_some_and(|publishing| !publishing.behind)
    }

    /// Whether no other process has the store.
    fn is_alone(&self) -> bool {
        self.parts.shelf.is_none()
    }

    /// Does something with the desk, where there is one.
    pub(super) fn with_desk(
        &self,
        body: impl FnOnce(&mut Desk) -> Result<(), NotPublished>,
    ) -> Result<(), NotPublished> {
        // A refresh does not wait for what is put on record.
        let desk = self.publishing.lock().as_ref().map(|publishing| publishing.desk.clone());
        desk.map_or(Ok(()), |desk| body(&mut desk.lock()))
    }

    /// Brings lists up to a generation that is seen at once, and has it kept where that is due.
    fn show(&self, next: &Generation, compiled: &Compiled) {
        let of = Last { generation: next.number, true_for: next.true_for };
        let is_due = self.keeper.is_due(next.version);
        match self.parts.shards.show(of, is_due) {
            Ok(_) if is_due => {
                let head = Box::new(Head::of(next, compiled));
                self.keeper.submit(Job::Generation { head, version: next.version });
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the lists of profiles are behind"),
        }
    }

    /// Keeps a generation with the shards, and puts it on record; tells whether it may be seen.
    fn cut(&self, next: &Generation, compiled: &Compiled) -> bool {
        if self.is_alone() {
            self.show(next, compiled);
            return true;
        }
        let mut slot = self.publishing.lock();
        let Some(publishing) = &mut *slot else { return false };
        let Generation { number, true_for, .. } = *next;
        let kept = self.parts.shards.keep(Last { generation: number, true_for }, publishing.cut);
        let kept = kept.and_then(|shards| Of { shards, found: () }.is_whole(self.parts.count));
        let done = match kept {
            Ok(()) => publishing.desk.lock().put(&Head::of(next, compiled)),
            Err(AskError::Store(error)) => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "a generation is not kept");
                publishing.behind = true;
                return false;
            }
        };
        match done {
            Ok(()) => {
                (publishing.cut, publishing.touched) = (number, true_for);
                (publishing.behind, publishing.members_due) = (false, false);
                true
            }
            Err(error) => self.not_published(&mut slot, &error),
        }
    }

    /// Notes that nothing could be put on record: it may not be seen.
    fn not_published(&self, slot: &mut Option<Publishing>, error: &NotPublished) -> bool {
        match error {
            NotPublished::Other => {
                tracing::warn!(%error, "a generation is not published");
                // It is read again; until then what was seen is what was published.
                *slot = None;
                return false;
            }
            NotPublished::Store(error) => {
                tracing::warn!(error = %crate::store::chain(error), "a generation is not kept");
                self.parts.metrics.store_errors.with_label_values(&["audiences"]).inc();
            }
        }
        if let Some(publishing) = slot {
            publishing.behind = true;
        }
        false
    }

    /// Puts on record that the audiences are true for a later time; tells whether it may be seen.
    fn keep_touch(&self, at: Millis) -> bool {
        let mut slot = self.publishing.lock();
        let Some(publishing) = &mut *slot else { return false };
        if publishing.behind || at <= publishing.touched {
            return true;
        }
        let touched = publishing.desk.lock().touch(publishing.cut, at);
        match touched {
            Ok(()) => {
                publishing.touched = at;
                true
            }
            Err(error) => self.not_published(&mut slot, &error),
        }
    }

    /// Keeps what is not kept yet and puts on record up to when the audiences were true, before the process ends.
    pub(super) fn leave(&self, compiled: Option<&Compiled>) {
        let newest = self.generation();
        let Generation { number, true_for, version, .. } = *newest;
        if !self.leads() || true_for == Millis::MIN {
            return;
        }
        if !self.is_alone() {
            self.keep_touch(true_for);
            return;
        }
        let is_kept = self.keeper.record().generation == number;
        match compiled.filter(|_| !is_kept && version > 0) {
            Some(compiled) => {
                if let Err(error) =
                    self.parts.shards.show(Last { generation: number, true_for }, true)
                {
                    tracing::warn!(%error, "the last audiences are not kept");
                }
                let head = Box::new(Head::of(&newest, compiled));
                self.keep_last(Job::Generation { head, version });
            }
            None => self.keep_last(Job::Touch(true_for)),
        }
    }

    /// Publishes the same audiences as true for a later time.
    pub(super) fn touch(&self, compiled: &Compiled, at: Millis) {
        let before = self.generation();
        let mut next = Generation { true_for: at, ..(*before).clone() };
        for audience in next.audiences.values_mut() {
            if audience.state == AudienceState::Live && audience.segment.follows() {
                *audience = Arc::new(Audience { true_for: at, ..Audience::clone(audience) });
            }
        }
        if !self.is_alone() {
            if self.keep_touch(at) {
                self.published(next);
            }
            return;
        }
        if self.keeper.record().generation != next.number {
            if self.keeper.is_due(next.version) {
                self.show(&next, compiled);
            }
        } else if self.keeper.is_touch_due(next.number, at) {
            self.keeper.submit(Job::Touch(at));
        }
        self.published(next);
    }

    /// Publishes what a refresh found; returns whether it could.
    pub(super) fn publish(&self, compiled: &Compiled, found: &Refreshed, at: Millis) -> bool {
        let before = self.generation();
        let number = match self.next_generation() {
            Ok(number) => number,
            Err(error) => {
                tracing::error!(%error, "no generation can be numbered; audiences stay as they are");
                return false;
            }
        };
        let mut audiences = BTreeMap::new();
        for (id, segment) in compiled.live.segments.iter().filter(|(_, s)| !s.hidden) {
            let old = before.audiences.get(id).map(|old| &**old);
            let state = match found.segments.get(id) {
                Some(Outcome::Members(members)) => {
                    let (true_for, state) = match segment.follows() {
                        true => (at, AudienceState::Live),
                        false => self.lookalikes.standing(id, at),
                    };
                    let audience = Audience {
                        segment: segment.clone(),
                        members: Some(members.clone()),
                        count: Some(members.len()),
                        generation: number,
                        true_for,
                        changed: Audience::changed(old, members, at),
                        state,
                    };
                    audiences.insert(id.clone(), Arc::new(audience));
                    continue;
                }
                Some(Outcome::Filling(percent)) => AudienceState::Backfilling { percent: *percent },
                Some(Outcome::Failing(reason)) => AudienceState::Failing { reason: reason.clone() },
                Some(Outcome::Training) => {
                    self.lookalikes.reason(id).map_or(AudienceState::Training, failing)
                }
                None => failing("its rule is wrong; its members are those of before".to_owned()),
            };
            let audience = Audience {
                segment: segment.clone(),
                members: old.and_then(|old| old.members.clone()),
                count: old.and_then(|old| old.count),
                generation: old.map_or(number, |old| old.generation),
                true_for: old.map_or(at, |old| old.true_for),
                changed: old.and_then(|old| old.changed),
                state,
            };
            audiences.insert(id.clone(), Arc::new(audience));
        }
        let version = compiled.live.version;
        let hour = Arc::new(self.tallied(&before, &audiences, at));
        let next = Generation { number, true_for: at, version, audiences, hour };
        let may_be_seen = self.cut(&next, compiled);
        if may_be_seen {
            self.published(next);
        }
        may_be_seen
    }

    fn published(&self, generation: Generation) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.parts.metrics.segment_last_refresh.set(generation.true_for as f64 / 1000.0);
        self.generation.store(Arc::new(generation));
    }
}

fn failing(reason: String) -> AudienceState {
    AudienceState::Failing { reason }
}
