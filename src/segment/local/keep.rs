//! Audiences kept in the store: the cut of a refresh, once all that it follows from is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use roaring::RoaringBitmap;

use super::Holding;
use super::Local;
use super::book::Book;
use super::lists::ToList;
use super::shown::Shown;
use crate::ingest::Health;
use crate::ingest::Lane;
use crate::model::ShardId;
use crate::plan::Members;
use crate::segment::AskError;
use crate::segment::Of;
use crate::store::StoreError;
use crate::store::audiences::BARRED;
use crate::store::audiences::Last;
use crate::store::audiences::RulePrint;

/// How long a cut waits for the commit of what it follows from.
pub(in crate::segment) const PATIENCE: Duration = Duration::from_secs(10);

impl Holding {
    /// Does something with what is kept of the lane, which is read at first.
    pub(super) fn with_book<R>(
        &self,
        body: impl FnOnce(&mut Book) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut book = self.book.lock();
        if book.is_none() {
            *book = Some(Book::open(&*self.lane.audiences)?);
        }
        body(book.as_mut().expect("it was just read"))
    }

    /// Writes the lists that are others in what a generation shows.
    fn write_lists(&self, of: Last, shown: &ToList) -> Result<(), StoreError> {
        let Lane { audiences, engine, shards, .. } = &*self.lane;
        self.listing.lock().write(&**audiences, engine, (of, shown), shards)
    }

    /// The members of a segment in a shard that are kept now, where they are known by this print.
    pub(super) fn kept_now(
        &self,
        segment: &str,
        shard: ShardId,
        print: RulePrint,
    ) -> Result<Option<Arc<RoaringBitmap>>, StoreError> {
        self.with_book(|book| {
            let now = book.content(segment, shard).filter(|content| content.rule == print);
            Ok(now.map(|content| content.members.clone()))
        })
    }
}

impl Local {
    /// See [`Shards::keep`](crate::segment::Shards::keep).
    pub(super) fn keep_cut(&self, of: Last, published: u64) -> Result<Vec<ShardId>, AskError> {
        let held = self.to_keep.lock().take_if(|(held, _)| *held == of).map(|(_, made)| made);
        let is_held = held.is_some();
        let Some(made) = held.or_else(|| self.made_at(of.true_for).map(Arc::new)) else {
            return Ok(Vec::new());
        };
        let holdings = self.holdings();
        let holding_of = |lane: u16| holdings.iter().find(|holding| holding.lane.number == lane);
        // Where commits fail already there is no use in waiting for one.
        let fails = matches!(self.lanes.health(), Health::CommitWaits(_));
        let until = Instant::now() + if fails { Duration::ZERO } else { PATIENCE };
        for (lane, position) in &made.lanes {
            // All are asked before any is waited for.
            if let Some(holding) = holding_of(*lane) {
                holding.lane.engine.committed_to(*position, Duration::ZERO);
            }
        }
        let mut kept = Vec::new();
        for (lane, position) in &made.lanes {
            let Some(holding) = holding_of(*lane) else { continue };
            let left = until.saturating_duration_since(Instant::now());
            if !holding.lane.engine.committed_to(*position, left) {
                continue;
            }
            let shards = &holding.lane.shards;
            let is_kept = holding.with_book(|book| {
                book.note_published(published);
                if book.last().generation < of.generation {
                    let cut = book.cut(of, shards, &made.to_list.shown);
                    holding.lane.audiences.keep(&cut)?;
                    book.take(cut);
                }
                Ok(book.last().generation == of.generation)
            })?;
            if is_kept {
                // Of what is held they were written when it was.
                if !is_held {
                    holding.write_lists(of, &made.to_list)?;
                }
                kept.extend(shards);
            }
        }
        kept.sort_unstable();
        Ok(kept)
    }

    /// See [`Shards::show`](crate::segment::Shards::show).
    pub(super) fn shown_of(&self, of: Last, to_keep: bool) -> Result<Vec<ShardId>, AskError> {
        let Some(made) = self.made_at(of.true_for) else { return Ok(Vec::new()) };
        let made = Arc::new(made);
        if to_keep {
            *self.to_keep.lock() = Some((of, made.clone()));
        }
        let mut listed = Vec::new();
        for holding in self.holdings() {
            if made.lanes.iter().any(|(lane, _)| *lane == holding.lane.number) {
                holding.write_lists(of, &made.to_list)?;
                listed.extend(&holding.lane.shards);
            }
        }
        listed.sort_unstable();
        Ok(listed)
    }

    /// See [`Shards::kept`](crate::segment::Shards::kept).
    pub(super) fn kept_of(
        &self,
        generation: u64,
    ) -> Result<Of<BTreeMap<String, Arc<Members>>>, AskError> {
        let count = self.lanes.shards();
        let mut shards = Vec::new();
        let mut all = BTreeMap::new();
        for holding in self.holdings() {
            let last = holding.with_book(|book| {
                // A lane that a failover took back does not have that cut any longer.
                if book.last().generation >= generation {
                    shards.extend(&holding.lane.shards);
                    book.members_of(generation, count, &mut all);
                }
                Ok(book.last())
            })?;
            // Lists that lie in memory are made with the first one who asks.
            if last.generation == generation {
                let mut of_lane = BTreeMap::new();
                holding.with_book(|book| {
                    book.members_of(generation, count, &mut of_lane);
                    Ok(())
                })?;
                let shown = Arc::new(shared(of_lane));
                holding.write_lists(last, &ToList { shown, moved: None })?;
            }
        }
        shards.sort_unstable();
        all.remove(BARRED);
        let found = all.into_iter().map(|(id, (_, members))| (id, Arc::new(members))).collect();
        Ok(Of { shards, found })
    }
}

fn shared(all: BTreeMap<String, (RulePrint, Members)>) -> Shown {
    all.into_iter().map(|(id, (rule, members))| (id, (rule, Arc::new(members)))).collect()
}
