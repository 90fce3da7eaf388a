//! Audiences kept in the store: the cut of a refresh, once all that it follows from is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::Holding;
use super::Local;
use super::book::Book;
use crate::ingest::Health;
use crate::model::ShardId;
use crate::plan::Members;
use crate::segment::AskError;
use crate::segment::Of;
use crate::store::StoreError;
use crate::store::audiences::Last;

/// How long a cut waits for the commit of what it follows from.
pub(in crate::segment) const PATIENCE: Duration = Duration::from_secs(10);

impl Holding {
    /// Does something with what is kept of the lane, which is read at first.
    fn with_book<R>(
        &self,
        body: impl FnOnce(&mut Book) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut book = self.book.lock();
        if book.is_none() {
            *book = Some(Book::open(&*self.lane.audiences)?);
        }
        body(book.as_mut().expect("it was just read"))
    }
}

impl Local {
    /// See [`Shards::keep`](crate::segment::Shards::keep).
    pub(super) fn keep_cut(&self, of: Last, published: u64) -> Result<Vec<ShardId>, AskError> {
        let Some(made) = self.made_at(of.true_for) else { return Ok(Vec::new()) };
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
            let found = &made.refreshed.found;
            let is_kept = holding.with_book(|book| {
                book.note_published(published);
                if book.last().generation < of.generation {
                    let cut = book.cut(of, shards, &made.compiled, found);
                    holding.lane.audiences.keep(&cut)?;
                    book.take(cut);
                }
                if book.last().generation != of.generation {
                    return Ok(false);
                }
                book.write_lists(&*holding.lane.audiences, &holding.lane.engine)?;
                Ok(true)
            })?;
            if is_kept {
                kept.extend(shards);
            }
        }
        kept.sort_unstable();
        Ok(kept)
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
            holding.with_book(|book| {
                // A lane that a failover took back does not have that cut any longer.
                if book.last().generation >= generation {
                    shards.extend(&holding.lane.shards);
                    book.members_of(generation, count, &mut all);
                }
                // Lists that lie in memory are made with the first one who asks.
                if book.last().generation == generation {
                    book.write_lists(&*holding.lane.audiences, &holding.lane.engine)?;
                }
                Ok(())
            })?;
        }
        shards.sort_unstable();
        let found = all.into_iter().map(|(id, (_, members))| (id, Arc::new(members))).collect();
        Ok(Of { shards, found })
    }
}
