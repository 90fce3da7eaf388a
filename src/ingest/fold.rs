//! The fold thread: reads the journal, decides of each event what becomes of it, and brings it into memory.
//!
//! A frame is read in two steps. What may fail or take long (decoding, traits, a look at the disk for a
//! message id) comes first and changes nothing; then the frame is applied as a whole under the lock. So a
//! frame is always tried again from its start.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::claim::claim;
use super::memory::Memory;
use super::seen::Frozen;
use super::seen::Hash;
use super::seen::Seen;
use super::shard::Dropped;
use super::shared::Shared;
use super::shared::Work;
use super::traits::Traits;
use crate::bitmap::TraitId;
use crate::model::Choice;
use crate::model::Erasure;
use crate::model::Event;
use crate::model::FoldOutcome;
use crate::model::ImportLines;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::OptOut;
use crate::model::Record;
use crate::model::RejectedLine;
use crate::model::time::DAY;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::journal::Frame;
use crate::store::journal::JournalError;
use crate::store::journal::JournalReader;
use crate::store::journal::Position;
use crate::store::state::SeenSet;
use crate::store::suppression::Erased;

/// For how long a message id counts once.
pub(super) const WINDOW: Millis = DAY;

/// Why the fold could not go on. It tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl FoldError {
    /// Whether no try will succeed, but opening anew may: the journal is in other hands, or does not hold what
    /// comes next, as where a failover has lost the end of what was folded.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Store(error) | Self::Journal(JournalError::Store(error)) => {
                matches!(error, StoreError::Fenced { .. })
            }
            Self::Journal(error) => {
                matches!(error, JournalError::OutOfRange { .. } | JournalError::Damaged(_))
            }
        }
    }
}

/// The fold, one frame at a time.
pub(crate) struct Fold {
    shared: Arc<Shared>,
    reader: Box<dyn JournalReader>,
    recent: Seen,
    imported: Seen,
    /// A frame that was read and not applied.
    frame: Option<Frame>,
    steps: Vec<Step>,
    facts: Facts,
    /// A time, and the journal's end after it: once folded up to there, everything before the time is. None of a
    /// lane that others append to.
    mark: Option<(Millis, Position)>,
}

type Facts = Vec<(TraitId, Option<Measure>)>;

/// What is to be done of a frame, in order.
#[expect(clippy::large_enum_variant, reason = "almost all of them are events")]
pub(super) enum Step {
    Event(Item),
    Choice(EventNo, Choice),
    Erase(Erasure),
    OptOut(OptOut),
    /// The lines of an import follow, up to its end.
    Import(Box<str>),
    /// An import's lines end at this one.
    ImportEnd {
        import: Box<str>,
        last: u64,
        rejected: Vec<RejectedLine>,
    },
    DeadLetter(EventNo, &'static str, Vec<u8>),
}

/// An event, and what was found out about it.
pub(super) struct Item {
    pub(super) no: EventNo,
    pub(super) event: Event,
    /// Its line in the import that is under way, or 0.
    line: u64,
    facts: std::ops::Range<usize>,
    out_of_range: u32,
    /// Its message id's hash, among all events and in its import; and whether a run holds it, or another event has
    /// claimed it.
    pub(super) recent: Option<(Hash, bool)>,
    pub(super) imported: Option<(Hash, bool)>,
}

impl Fold {
    /// Starts where memory stands, with the seen sets of the store.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let (position, received) = {
            let memory = shared.memory.read();
            (memory.position, memory.received)
        };
        let budget = shared.options.dedup_memory;
        let mut recent = Seen::new(SeenSet::Recent, Some(WINDOW), budget - budget / 8);
        recent.load(&*shared.state, received)?;
        let mut imported = Seen::new(SeenSet::Imported, None, budget / 8);
        imported.load(&*shared.state, received)?;
        let mut reader = shared.journal.reader(position);
        reader.join();
        let (steps, facts) = (Vec::new(), Vec::new());
        Ok(Self { shared, reader, recent, imported, frame: None, steps, facts, mark: None })
    }

    /// Folds the next frame; tells whether there was one.
    pub(crate) fn step(&mut self) -> Result<bool, FoldError> {
        for (set, run) in self.shared.runs.lock().drain(..) {
            match set {
                SeenSet::Recent => self.recent.written(run),
                SeenSet::Imported => self.imported.written(run),
            }
        }
        if self.mark.is_none() && self.shared.options.claims.is_none() {
            // The clock first: what is acknowledged before that time lies before the end noted after it.
            self.mark = Some((self.shared.clock.now(), self.shared.journal.end()));
        }
        if self.frame.is_none() {
            self.frame = self.reader.next()?;
        }
        let Some(frame) = self.frame.take() else {
            let position = self.reader.position();
            let shared = Arc::clone(&self.shared);
            let mut memory = shared.memory.write();
            // A damaged range that was skipped has no frame, and is passed all the same.
            memory.pending.records += u64::from(memory.position != position);
            self.advance(&mut memory, position);
            drop(memory);
            shared.folded(position);
            return Ok(false);
        };
        let mut traits = Arc::clone(&self.shared.memory.read().traits);
        if let Err(error) = self.prepare(&frame, &traits) {
            self.frame = Some(frame);
            return Err(error.into());
        }
        self.turn_days();
        let shared = Arc::clone(&self.shared);
        let mut memory = shared.memory.write();
        if !Arc::ptr_eq(&traits, &memory.traits) {
            // The traits changed in between, and this frame is the first of the new ones.
            traits = Arc::clone(&memory.traits);
            self.match_again(&traits);
        }
        let before = (memory.counters.out_of_range, memory.attributes_dropped);
        let outcomes = self.apply(&mut memory);
        let out_of_range = memory.counters.out_of_range - before.0;
        let attributes_dropped = memory.attributes_dropped - before.1;
        memory.pending.records += u64::from(frame.count);
        memory.next_record = frame.next_record();
        self.advance(&mut memory, frame.end);
        drop(memory);
        shared.count(outcomes);
        shared.metrics.ingest_measures_out_of_range.inc_by(out_of_range);
        shared.metrics.ingest_attributes_dropped.inc_by(attributes_dropped);
        shared.folded(frame.end);
        Ok(true)
    }

    /// Drops the days that the frame's receive times make too old, shard by shard and most of it beside the
    /// readers: only this thread adds what is looked at.
    fn turn_days(&self) {
        let received = self.steps.iter().filter_map(|step| match step {
            Step::Event(item) => Some(item.event.received),
            Step::Choice(_, choice) => Some(choice.received),
            Step::Erase(erasure) => Some(erasure.received),
            Step::OptOut(opt_out) => Some(opt_out.received),
            Step::Import(_) | Step::ImportEnd { .. } | Step::DeadLetter(..) => None,
        });
        let Some(latest) = received.max() else { return };
        let memory = &self.shared.memory;
        let Some(day) = memory.read().next_day(latest) else { return };
        for shard in 0..usize::from(self.shared.keys.shards()) {
            let blocks = memory.read().shards[shard].blocks.clone();
            if blocks.is_empty() {
                continue;
            }
            let prepared: Vec<_> = blocks.iter().map(|block| Dropped::of(block, day)).collect();
            drop(blocks);
            memory.write().shards[shard].drop_before(day, &prepared);
        }
        memory.write().dropped_before(day);
    }

    fn advance(&mut self, memory: &mut Memory, position: Position) {
        memory.position = position;
        match self.mark {
            Some((time, end)) if position >= end => {
                memory.true_for = memory.true_for.max(time);
                self.mark = None;
            }
            Some(_) => {}
            // What is acknowledged elsewhere may not be appended here yet: who asks knows T. This is about it.
            None => memory.true_for = memory.true_for.max(memory.received),
        }
    }

    /// Reads a frame into steps.
    fn prepare(&mut self, frame: &Frame, traits: &Traits) -> Result<(), StoreError> {
        self.steps.clear();
        self.facts.clear();
        let mut expected = frame.first;
        for record in frame.records() {
            let Ok((number, bytes)) = record else {
                self.dead_letter(expected, "the frame is no list of records", &[]);
                break;
            };
            expected = number + 1;
            match Record::decode(bytes) {
                Ok(Record::Event(event)) => {
                    let no = EventNo { record: number, part: 0 };
                    self.event(traits, no, event, None)?;
                }
                Ok(Record::Choice(choice)) => {
                    self.steps.push(Step::Choice(EventNo { record: number, part: 0 }, choice));
                }
                Ok(Record::Import(lines)) => self.import(traits, number, lines)?,
                Ok(Record::Erase(erasure)) => self.steps.push(Step::Erase(erasure)),
                Ok(Record::OptOut(opt_out)) => self.steps.push(Step::OptOut(opt_out)),
                Err(malformed) => self.dead_letter(number, malformed.0, bytes),
            }
        }
        match &self.shared.options.claims {
            Some((claims, lane)) => {
                let now = self.shared.clock.now();
                claim(&**claims, *lane, now, &mut self.steps)
            }
            None => Ok(()),
        }
    }

    fn dead_letter(&mut self, record: u64, reason: &'static str, bytes: &[u8]) {
        let no = EventNo { record, part: 0 };
        self.steps.push(Step::DeadLetter(no, reason, bytes.to_vec()));
    }

    fn import(
        &mut self,
        traits: &Traits,
        record: u64,
        lines: ImportLines,
    ) -> Result<(), StoreError> {
        self.steps.push(Step::Import(lines.import.clone()));
        for (part, imported) in (0..).zip(lines.events) {
            let no = EventNo { record, part };
            let own = imported.own_message_id.then_some(&*lines.import);
            self.event(traits, no, imported.event, Some((imported.line, own)))?;
        }
        let last = lines.first_line.saturating_add(lines.lines).saturating_sub(1);
        self.steps.push(Step::ImportEnd { import: lines.import, last, rejected: lines.rejected });
        Ok(())
    }

    fn event(
        &mut self,
        traits: &Traits,
        no: EventNo,
        event: Event,
        import: Option<(u64, Option<&str>)>,
    ) -> Result<(), StoreError> {
        let state = &*self.shared.state;
        let (mut recent, mut imported) = (None, None);
        // Where ids are claimed, one that a line was given for want of its own is known by its line.
        let claimed = self.shared.options.claims.is_some();
        let is_made = matches!(import, Some((_, None)));
        if let Some(id) = event.message_id.as_ref().filter(|_| !(claimed && is_made)) {
            let hash = self.shared.keys.hash(b"message", &[event.site.as_bytes(), id.as_bytes()]);
            recent = Some((hash, self.recent.in_runs(state, hash, event.received)?));
            if let Some((_, Some(import))) = import {
                let parts = [import.as_bytes(), event.site.as_bytes(), id.as_bytes()];
                let hash = self.shared.keys.hash(b"import", &parts);
                imported = Some((hash, self.imported.in_runs(state, hash, event.received)?));
            }
        }
        let line = import.map_or(0, |(line, _)| line);
        let mut item = Item { no, event, line, facts: 0..0, out_of_range: 0, recent, imported };
        let matched = item.match_facts(traits, &mut self.facts);
        self.steps.push(if matched { Step::Event(item) } else { item.into_dead_letter() });
        Ok(())
    }

    fn match_again(&mut self, traits: &Traits) {
        self.facts.clear();
        for step in &mut self.steps {
            if let Step::Event(item) = step
                && !item.match_facts(traits, &mut self.facts)
            {
                let record = Step::Import(Box::default());
                let Step::Event(item) = std::mem::replace(step, record) else { continue };
                *step = item.into_dead_letter();
            }
        }
    }

    /// Brings the steps into memory; counts the outcomes in the order of [`FoldOutcome::ALL`].
    fn apply(&mut self, memory: &mut Memory) -> [u64; 4] {
        let mut outcomes = [0; 4];
        let suppression = Arc::clone(&self.shared.options.suppression);
        // Of the import under way: the last line that was taken before, and what became of its events.
        let mut taken = 0;
        let mut of_import = [0; 3];
        for step in self.steps.drain(..) {
            let outcome = match step {
                Step::Event(item) => {
                    let is_known = (item.line > 0 && item.line <= taken)
                        || is_seen(&self.recent, item.recent, item.event.received)
                        || is_seen(&self.imported, item.imported, item.event.received);
                    let is_erased = suppression.takes(memory.keys.identity(), &item.event);
                    let outcome = if is_erased {
                        self.shared.late.store(true, Ordering::Release);
                        memory.leave_out_erased(item.no, item.event.received)
                    } else if is_known {
                        memory.leave_out(item.no, item.event.received)
                    } else {
                        let received = item.event.received;
                        let no_longer = suppression.opted_out(memory.keys.identity(), &item.event);
                        let facts = &self.facts[item.facts];
                        let outcome = memory.count(item.no, item.event, facts, item.out_of_range);
                        if outcome == FoldOutcome::Counted && self.shared.options.claims.is_none() {
                            for (seen, hash) in [
                                (&mut self.recent, item.recent),
                                (&mut self.imported, item.imported),
                            ] {
                                if let Some((hash, _)) = hash {
                                    seen.insert(hash, received);
                                }
                            }
                        }
                        if let Some(identifier) = no_longer {
                            let choice = Choice { identifier, opted_out: true, received };
                            memory.choose(item.no, &choice);
                        }
                        outcome
                    };
                    if item.line > taken {
                        match outcome {
                            FoldOutcome::Counted => of_import[0] += 1,
                            FoldOutcome::Duplicate => of_import[1] += 1,
                            FoldOutcome::Erased => of_import[2] += 1,
                            FoldOutcome::DeadLetter => {}
                        }
                    }
                    outcome
                }
                Step::Choice(no, choice) => {
                    let Choice { identifier, received, .. } = &choice;
                    if !suppression.takes_of(memory.keys.identity(), identifier, *received) {
                        memory.choose(no, &choice);
                    }
                    continue;
                }
                Step::Erase(erasure) => {
                    let Erasure { before, for_good, .. } = erasure;
                    let erased = Erased { before, for_good };
                    suppression.note(erasure.prints.iter().map(|print| (*print, erased)));
                    suppression.forget_opt_outs(&erasure.prints, erasure.received);
                    memory.erase(&erasure);
                    continue;
                }
                Step::OptOut(opt_out) => {
                    suppression.note_opt_out(&opt_out);
                    continue;
                }
                Step::Import(import) => {
                    taken = memory.taken(&import);
                    of_import = [0; 3];
                    continue;
                }
                Step::ImportEnd { import, last, rejected } => {
                    memory.import(&import, last, of_import, rejected);
                    taken = 0;
                    continue;
                }
                Step::DeadLetter(no, reason, bytes) => memory.put_aside(no, reason, bytes),
            };
            outcomes[outcome as usize] += 1;
        }
        outcomes
    }

    /// Takes what waits for a commit, with a view of the shard that is to be compacted.
    pub(crate) fn cut(&mut self) -> Work {
        let compact = self.shared.compact.lock().take();
        let wish = compact.and_then(|shard| self.shared.wanted.lock().get(&shard).copied());
        let mut memory = self.shared.memory.write();
        let (mut commit, filled) = memory.cut();
        let number = commit.checkpoint.commit;
        let compact = compact.map(|shard| (shard, memory.shards[usize::from(shard)].view()));
        let views = match filled.is_empty() {
            true => Vec::new(),
            false => memory.shards.iter().map(super::shard::Shard::view).collect(),
        };
        let traits = Arc::clone(&memory.traits);
        drop(memory);
        let mut frozen: Vec<Frozen> = Vec::new();
        for seen in [&mut self.recent, &mut self.imported] {
            let (change, outgrown) = seen.cut(number);
            commit.seen.extend(change);
            frozen.extend(outgrown);
        }
        Work { commit, frozen, filled, views, compact, wish, traits }
    }

    /// The bytes of memory that the seen sets take, about.
    pub(crate) fn seen_memory(&self) -> usize {
        self.recent.memory() + self.imported.memory()
    }
}

fn is_seen(seen: &Seen, hash: Option<(Hash, bool)>, received: Millis) -> bool {
    hash.is_some_and(|(hash, in_runs)| in_runs || seen.in_memory(hash, received))
}

impl Item {
    /// Gathers the event's facts; tells whether that went well.
    fn match_facts(&mut self, traits: &Traits, facts: &mut Facts) -> bool {
        let start = facts.len();
        let event = &self.event;
        // A panic is a mistake in this program, and would be one again: the event is put aside.
        let matched = catch_unwind(AssertUnwindSafe(|| traits.facts(event, facts)));
        match matched {
            Ok(out_of_range) => self.out_of_range = out_of_range,
            Err(_) => facts.truncate(start),
        }
        self.facts = start..facts.len();
        matched.is_ok()
    }

    fn into_dead_letter(self) -> Step {
        let mut bytes = Vec::new();
        Record::encode_event(&self.event, &mut bytes);
        Step::DeadLetter(self.no, "matching it against the traits failed", bytes)
    }
}
