//! A lane between refreshes: whom the fold changed in it, and the rows of its blocks.

use std::sync::Arc;

use crate::ingest::Changes;
use crate::ingest::Lane;
use crate::ingest::Pin;
use crate::ingest::Traits;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::model::time::day_start;
use crate::plan::Dirty;
use crate::plan::Moment;
use crate::plan::ShardRows;

/// What is known of a lane since the last refresh.
pub(super) struct Watched {
    pub(super) lane: Arc<Lane>,
    traits: Arc<Traits>,
    /// The first day that had facts at the last refresh.
    first_day: Day,
    /// Whom the fold changed since, by shard of the store.
    dirty: Vec<Dirty>,
    pub(super) rows: Vec<ShardRows>,
}

impl Watched {
    /// A lane of which nothing is known, in a store of so many shards.
    pub(super) fn new(lane: Arc<Lane>, pin: &Pin, shards: u16) -> Self {
        let shards = usize::from(shards);
        Self {
            lane,
            traits: pin.traits.clone(),
            first_day: pin.first_day,
            dirty: vec![Dirty::All; shards],
            rows: (0..shards).map(|_| ShardRows::default()).collect(),
        }
    }

    /// Notes what changed up to a pin.
    pub(super) fn note(&mut self, pin: &Pin, changes: Vec<Option<Changes>>) {
        if !Arc::ptr_eq(&self.traits, &pin.traits) {
            // A trait may have been filled, of which the fold says nothing.
            self.traits = pin.traits.clone();
            self.rows.iter_mut().for_each(ShardRows::clear);
            for dirty in &mut self.dirty {
                if let Dirty::Some(touched) = dirty {
                    touched.forget_facts();
                }
            }
        }
        for ((dirty, rows), changes) in self.dirty.iter_mut().zip(&mut self.rows).zip(changes) {
            let Some(changes) = changes else {
                *dirty = Dirty::All;
                rows.clear();
                continue;
            };
            match &changes.facts {
                Some(facts) => rows.add(facts),
                None => rows.clear(),
            }
            rows.forget(&changes.erased);
            if let Dirty::Some(touched) = dirty {
                touched.profiles |= changes.profiles;
                touched.add(changes.facts.unwrap_or_default());
                if !changes.erased.is_empty() {
                    // Some that came are in the columns no more.
                    touched.forget_facts();
                }
            }
        }
    }

    /// Whom the fold changed since the last refresh, which was for `before`.
    pub(super) fn dirty(&self, pin: &Pin, before: Millis) -> Vec<Dirty> {
        let retention = pin.snapshot.retention;
        let then = Moment { now: before, true_for: before, retention };
        // What counted then and was dropped since is found no more.
        if pin.first_day != self.first_day && day_start(pin.first_day) > then.edge() {
            return vec![Dirty::All; self.dirty.len()];
        }
        self.dirty.clone()
    }

    /// Notes that all was asked up to a pin.
    pub(super) fn done(&mut self, pin: &Pin) {
        self.first_day = pin.first_day;
        self.dirty.iter_mut().for_each(|dirty| *dirty = Dirty::Some(Default::default()));
    }

    /// Sees to it that all of a shard is asked at the next refresh, and nothing is taken for known there.
    pub(super) fn distrust(&mut self, shard: ShardId) {
        let at = usize::from(shard);
        if let (Some(dirty), Some(rows)) = (self.dirty.get_mut(at), self.rows.get_mut(at)) {
            *dirty = Dirty::All;
            rows.clear();
        }
    }
}
