//! All message ids that a store has counted, to be taken along when it moves.
//!
//! Of a message id a store keeps a keyed hash and a time. A store of one lane keeps them in sets of its own, in the
//! place of which a store of several has claims.

use super::fold::WINDOW;
use super::seen::ENTRY;
use super::seen::Entry;
use super::seen::Run;
use super::seen::run_of;
use crate::model::Malformed;
use crate::model::Millis;
use crate::store::StoreError;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::claims::Claims;
use crate::store::journal::EventNo;
use crate::store::state::SeenRun;
use crate::store::state::SeenSet;
use crate::store::state::State;
use crate::store::state::damaged;

/// So many entries become one run, which is asked with each event as long as any of it counts.
const RUN: usize = 1 << 22;
/// So many are claimed together.
const CLAIMS: usize = 8_192;
/// Entries of so long a time become runs of their own, so that the day's go one after the other.
const SPAN: Millis = WINDOW / 4;

/// The message ids of a set that still count, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageIds {
    set: SeenSet,
    /// In the order of their hashes.
    entries: Vec<Entry>,
}

impl MessageIds {
    fn new(set: SeenSet) -> Self {
        Self { set, entries: Vec::new() }
    }

    /// Reads a set of a store that received its latest event at `newest`. It takes 24 bytes of memory for each.
    pub fn read(state: &dyn State, set: SeenSet, newest: Millis) -> Result<Self, StoreError> {
        let edge = match set {
            SeenSet::Recent => newest.saturating_sub(WINDOW),
            SeenSet::Imported => Millis::MIN,
        };
        let mut entries = Vec::new();
        let mut take = |bytes: &[u8]| {
            for bytes in bytes.chunks(ENTRY) {
                let entry = Entry::decode(bytes).map_err(damaged)?;
                if entry.received >= edge {
                    entries.push(entry);
                }
            }
            Ok(())
        };
        let mut runs = Vec::new();
        state.load_seen(set, &mut |_, bytes| take(bytes), &mut |number, header| {
            runs.push((number, Run::decode(number, header).map_err(damaged)?.pages()));
            Ok(())
        })?;
        for (number, pages) in runs {
            for page in 0..u32::try_from(pages).unwrap_or(u32::MAX) {
                let page = state.seen_page(set, number, page)?;
                take(&page.ok_or_else(|| damaged(Malformed("a page of a run is missing")))?)?;
            }
        }
        let mut ids = Self { set, entries };
        ids.settle();
        Ok(ids)
    }

    /// Reads what was claimed of both sets, in a store that received its latest event at `newest`, for events that
    /// `counts` says are part of it.
    pub fn claimed(
        claims: &dyn Claims,
        newest: Millis,
        counts: &dyn Fn(Claimant) -> bool,
    ) -> Result<[Self; 2], StoreError> {
        let mut found = [Self::new(SeenSet::Recent), Self::new(SeenSet::Imported)];
        let edge = newest.saturating_sub(WINDOW);
        claims.each(&mut |Claim { hash, passes, received, event }| {
            if (!passes || received >= edge) && counts(event) {
                found[usize::from(!passes)].entries.push(Entry { hash, received });
            }
            Ok(())
        })?;
        found.iter_mut().for_each(Self::settle);
        Ok(found)
    }

    /// All of them, some at a time, as claims of an event that nobody folds any more.
    pub fn claims(&self) -> impl Iterator<Item = Vec<Claim>> + '_ {
        // An import's record has fewer events.
        let event = Claimant { lane: 0, event: EventNo { record: 0, part: u32::MAX } };
        let passes = self.set == SeenSet::Recent;
        let claim = move |entry: &Entry| {
            let Entry { hash, received } = *entry;
            Claim { hash, passes, received, event }
        };
        self.entries.chunks(CLAIMS).map(move |entries| entries.iter().map(claim).collect())
    }

    /// Each once, with its latest time.
    fn settle(&mut self) {
        self.entries.sort_unstable_by(|a, b| (a.hash, b.received).cmp(&(b.hash, a.received)));
        self.entries.dedup_by_key(|entry| entry.hash);
    }

    /// Which set it is.
    pub fn set(&self) -> SeenSet {
        self.set
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them, as runs of a new store.
    pub fn runs(&self) -> impl Iterator<Item = SeenRun> + '_ {
        let mut spans: Vec<Vec<Entry>> = Vec::new();
        let newest = self.entries.iter().map(|entry| entry.received).max().unwrap_or(0);
        for entry in &self.entries {
            let age = newest.saturating_sub(entry.received);
            let span = match self.set {
                SeenSet::Recent => usize::try_from(age / SPAN).unwrap_or(usize::MAX).min(4),
                SeenSet::Imported => 0,
            };
            if spans.len() <= span {
                spans.resize_with(span + 1, Vec::new);
            }
            spans[span].push(*entry);
        }
        let runs = spans
            .into_iter()
            .rev()
            .flat_map(|span| span.chunks(RUN).map(<[Entry]>::to_vec).collect::<Vec<_>>());
        (0..).zip(runs).map(|(number, entries)| run_of(number, &entries).0)
    }
}
