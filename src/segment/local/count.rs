//! The members of a rule counted shard by shard, each told as soon as it is known.
//!
//! Where the rule asks for traits that nobody keeps, the events of one shard are read after those of another, by
//! several threads; the columns that are made stay in the cache as those of any question.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use super::Holding;
use super::Local;
use super::Part;
use super::adhoc::Unread;
use super::columns::Columns;
use super::evaluate::compile;
use crate::bitmap::Snapshot;
use crate::model::ShardId;
use crate::plan;
use crate::plan::Question;
use crate::segment::AskError;
use crate::segment::Asked;
use crate::segment::Caller;
use crate::segment::Counted;
use crate::segment::Of;

impl Local {
    /// See [`Shards::counts`](crate::segment::Shards::counts).
    pub(super) fn counted(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
        each: &(dyn Fn(Counted) + Sync),
    ) -> Result<Of<()>, AskError> {
        let specs = plan::traits_of([asked.rule], asked.library)
            .map_err(|error| AskError::NotYet(error.to_string()))?;
        let holdings = self.holdings();
        let mut shards: Vec<ShardId> = Vec::new();
        for (place, holding) in holdings.iter().enumerate() {
            let part = Part { place, of: holdings.len(), caller };
            let unread = holding.unread(&specs, asked.true_for, &self.numbers, &part)?;
            holding.count(asked, unread, self.threads, &part, each)?;
            shards.extend(&holding.lane.shards);
        }
        shards.sort_unstable();
        Ok(Of { shards, found: () })
    }
}

impl Holding {
    fn count(
        &self,
        asked: &Asked<'_>,
        unread: Unread<'_>,
        threads: usize,
        part: &Part<'_>,
        each: &(dyn Fn(Counted) + Sync),
    ) -> Result<(), AskError> {
        let question = Question { rule: asked.rule, level: asked.level };
        let (snapshot, shards) = (&unread.snapshot, &self.lane.shards);
        let program = compile(&[question], asked.library, &unread.set)?;
        let one = |shard: ShardId, columns: &[&Columns]| {
            let at = usize::from(shard);
            let mut only =
                Snapshot { shards: vec![Vec::new(); snapshot.shards.len()], ..*snapshot };
            only.shards[at].clone_from(&snapshot.shards[at]);
            columns.iter().for_each(|columns| columns.apply(&mut only));
            let members = program.count(&only, asked.now, 1)?;
            each(Counted { shard, members: members[0] });
            Ok(())
        };
        let Some((first, others)) = shards.split_first().filter(|_| unread.is_reading()) else {
            return shards.iter().try_for_each(|shard| one(*shard, &[]));
        };
        // Of the first shard alone, so that something is told soon: the journal is in no order of shards.
        let (tail, columns) = both(
            threads,
            || unread.tail(self, &|shard| shard == *first, part.caller),
            || unread.shard(self, *first, part.caller),
        );
        let (tail, mut all) = (tail?, columns?);
        one(*first, &[&tail, &all])?;
        all.merge(&tail);
        let tail = unread.tail(self, &|shard| shard != *first, part.caller)?;
        let next = AtomicUsize::new(0);
        let (send, made) = mpsc::channel();
        let work = |send: mpsc::Sender<Result<Columns, AskError>>| {
            loop {
                let Some(shard) = others.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let read = unread.shard(self, *shard, part.caller).and_then(|columns| {
                    one(*shard, &[&tail, &columns])?;
                    Ok(columns)
                });
                let has_failed = read.is_err();
                if send.send(read).is_err() || has_failed {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, others.len().max(1)) {
                let (work, send) = (&work, send.clone());
                scope.spawn(move || work(send));
            }
            drop(send);
            for read in made {
                match read {
                    Ok(columns) => all.merge(&columns),
                    Err(error) => {
                        // The threads find no more to do.
                        next.store(others.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            Ok(())
        })?;
        all.merge(&tail);
        unread.keep(self, all, part);
        Ok(())
    }
}

/// Does both, side by side where there are threads for it.
fn both<A: Send, B>(threads: usize, a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B) -> (A, B) {
    if threads <= 1 {
        return (a(), b());
    }
    std::thread::scope(|scope| {
        let a = scope.spawn(a);
        let b = b();
        match a.join() {
            Ok(a) => (a, b),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
