//! What the fold knows, all of it in memory: the shards, and what is kept beside them.
//!
//! One lock guards it. The fold holds it for a frame at a time; readers pin what they need and let go.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::identity::Keys;
use super::identity::Namespaces;
use super::matches;
use super::packed;
use super::schema::Schema;
use super::shard::Named;
use super::shard::Shard;
use super::skips::Skips;
use super::traits::Traits;
use crate::bitmap::Mark;
use crate::bitmap::TraitId;
use crate::model::Choice;
use crate::model::Erasure;
use crate::model::Event;
use crate::model::FoldOutcome;
use crate::model::ID_MATCH;
use crate::model::Identifier;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::model::time::MINUTE;
use crate::model::time::day_of;
use crate::store::journal::EventNo;
use crate::store::journal::Position;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::Counters;
use crate::store::state::DeadLetter;
use crate::store::state::ImportProgress;
use crate::store::state::MAX_REJECTED;
use crate::store::state::TraitRow;

/// All that the fold knows.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) keys: Keys,
    pub(crate) retention: Millis,
    /// All shards of the store; those of others stay empty.
    pub(crate) shards: Vec<Shard>,
    own: Vec<bool>,
    pub(crate) namespaces: Namespaces,
    /// Everything before it is folded.
    pub(crate) position: Position,
    pub(crate) next_record: u64,
    pub(crate) received: Millis,
    pub(crate) first_day: Day,
    pub(crate) counters: Counters,
    /// The number of the last commit that was cut.
    pub(crate) commit: u64,
    pub(crate) skips: Skips,
    pub(crate) imports: HashMap<Box<str>, ImportProgress>,
    pub(crate) schema: Schema,
    pub(crate) traits: Arc<Traits>,
    pub(crate) next_trait: u32,
    /// T: every event acknowledged before it is folded.
    pub(crate) true_for: Millis,
    pub(crate) pending: Pending,
    /// Values of attributes beyond the bound on their names, since the start.
    pub(crate) attributes_dropped: u64,
    /// Profiles erased since the start.
    pub(crate) erased: u64,
    scratch: Vec<u8>,
}

/// What is not in the shards and waits for the next commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) records: u64,
    pub(crate) bytes: usize,
    pub(crate) traits: BTreeMap<u32, TraitRow>,
    pub(crate) dropped_traits: BTreeSet<u32>,
    /// Traits whose columns are whole and are to be kept as images.
    pub(crate) filled: BTreeSet<TraitId>,
    pub(crate) namespaces: Vec<u16>,
    dead_letters: Vec<DeadLetter>,
    imports: BTreeSet<Box<str>>,
    rejected: Vec<(Box<str>, RejectedLine)>,
    drop_before: Option<Day>,
}

/// The first day that is kept at a time. A day is left over, since windows are cut at T, which may trail what is received.
pub fn first_kept(at: Millis, retention: Millis) -> Day {
    day_of(at.saturating_sub(retention)).saturating_sub(1)
}

impl Memory {
    /// Memory of a store without profiles; the rest is set by who loads it.
    pub(crate) fn new(
        keys: Keys,
        retention: Millis,
        checkpoint: Checkpoint,
        own: &[ShardId],
    ) -> Self {
        // Where events count longer than before, more of the past is taken from now on. What was dropped is gone.
        let first_day = checkpoint.first_day.min(first_kept(checkpoint.received, retention));
        Self {
            keys,
            retention,
            shards: (0..keys.shards()).map(|_| Shard::default()).collect(),
            own: (0..keys.shards()).map(|shard| own.contains(&shard)).collect(),
            namespaces: Namespaces::default(),
            position: checkpoint.position,
            next_record: checkpoint.next_record,
            received: checkpoint.received,
            first_day,
            counters: checkpoint.counters,
            commit: checkpoint.commit,
            skips: Skips::default(),
            imports: HashMap::new(),
            schema: Schema::default(),
            traits: Arc::default(),
            next_trait: 1,
            true_for: Millis::MIN,
            pending: Pending::default(),
            attributes_dropped: 0,
            erased: 0,
            scratch: Vec::new(),
        }
    }

    /// Folds an event that was not seen before.
    pub(crate) fn count(
        &mut self,
        no: EventNo,
        event: Event,
        facts: &[(TraitId, Option<Measure>)],
        out_of_range: u32,
    ) -> FoldOutcome {
        self.receive(event.received);
        let (shard, ordinal) = match self.profile(event.owner()) {
            Ok(profile) => profile,
            Err(reason) => {
                let mut bytes = Vec::new();
                crate::model::Record::encode_event(&event, &mut bytes);
                return self.put_aside(no, reason, bytes);
            }
        };
        let matched = (*event.name == *ID_MATCH).then(|| matches::seconds(event.time));
        for other in &event.ids[1..] {
            self.other(shard, ordinal, other, matched);
        }
        self.schema.see(&event);
        self.schema.see_attributes(&event);
        let Event { time, received, attrs, bot, consent, .. } = event;
        let shard = &mut self.shards[usize::from(shard)];
        if day_of(time) >= self.first_day {
            shard.facts(ordinal, time, facts);
            self.counters.facts += facts.len() as u64;
            self.counters.out_of_range += u64::from(out_of_range);
        }
        for (name, value) in attrs {
            if self.schema.has_attribute(&name) {
                shard.attribute(ordinal, &name, time, value);
            } else {
                self.attributes_dropped += 1;
            }
        }
        if bot {
            shard.mark(ordinal, Mark::Bot, true);
        }
        // An event that no signal came with takes back nothing.
        if let Some(consent) = consent {
            let is_late = received.saturating_sub(time) > CONSENT_LATE;
            shard.consent(ordinal, &consent, is_late);
        }
        self.counters.counted += 1;
        FoldOutcome::Counted
    }

    /// Leaves an event out that was received before.
    pub(crate) fn leave_out(&mut self, no: EventNo, received: Millis) -> FoldOutcome {
        self.receive(received);
        self.skips.insert(no);
        self.counters.duplicates += 1;
        FoldOutcome::Duplicate
    }

    /// Leaves an event out that is of someone who was erased.
    pub(crate) fn leave_out_erased(&mut self, no: EventNo, received: Millis) -> FoldOutcome {
        self.receive(received);
        self.skips.insert(no);
        FoldOutcome::Erased
    }

    /// Erases the profiles that identifiers own, and says of which shards.
    pub(crate) fn erase(&mut self, erasure: &Erasure) {
        self.receive(erasure.received);
        let mut found: BTreeMap<ShardId, RoaringBitmap> = BTreeMap::new();
        for print in &erasure.prints {
            let place = self.keys.place_of(*print);
            let dictionary = &self.shards[usize::from(place.shard)].dictionary;
            let is_it = |packed: &[u8]| {
                let owner = self.namespaces.identifier(packed);
                owner.is_ok_and(|owner| {
                    self.keys.print(owner.namespace.as_str(), owner.value()) == *print
                })
            };
            if let Some(ordinal) = dictionary.owned(place.print, is_it) {
                found.entry(place.shard).or_default().insert(ordinal);
            }
        }
        for (shard, profiles) in found {
            self.erased += profiles.len();
            self.shards[usize::from(shard)].erase(&profiles);
        }
    }

    /// Puts a record or an event aside.
    pub(crate) fn put_aside(&mut self, no: EventNo, reason: &str, bytes: Vec<u8>) -> FoldOutcome {
        self.skips.insert(no);
        self.counters.dead_letters += 1;
        self.pending.bytes += bytes.len();
        self.pending.dead_letters.push(DeadLetter {
            event: no,
            time: self.received,
            reason: reason.into(),
            bytes,
        });
        FoldOutcome::DeadLetter
    }

    /// Takes a visitor's choice. It makes a profile where there is none, so that it stands when the first
    /// event comes; a profile without events is in no answer.
    pub(crate) fn choose(&mut self, no: EventNo, choice: &Choice) {
        self.receive(choice.received);
        match self.profile(&choice.identifier) {
            Ok((shard, ordinal)) => {
                let shard = &mut self.shards[usize::from(shard)];
                shard.mark(ordinal, Mark::OptedOut, choice.opted_out);
            }
            Err(reason) => {
                let mut bytes = Vec::new();
                crate::model::Record::Choice(choice.clone()).encode(&mut bytes);
                self.put_aside(no, reason, bytes);
            }
        }
    }

    /// The last line of an import that was taken.
    pub(crate) fn taken(&self, import: &str) -> u64 {
        self.imports.get(import).map_or(0, |progress| progress.taken)
    }

    /// Goes on with an import: lines up to `last` are taken, with what became of their events.
    pub(crate) fn import(
        &mut self,
        import: &str,
        last: u64,
        [counted, duplicates, erased]: [u64; 3],
        rejected: Vec<RejectedLine>,
    ) {
        let progress = self.imports.entry(import.into()).or_insert_with(|| ImportProgress {
            import: import.into(),
            ..ImportProgress::default()
        });
        let taken = progress.taken;
        progress.taken = taken.max(last);
        progress.counted += counted;
        progress.duplicates += duplicates;
        progress.erased += erased;
        for line in rejected.into_iter().filter(|line| line.line > taken) {
            if progress.rejected < MAX_REJECTED {
                self.pending.bytes += line.message.len() + 64;
                self.pending.rejected.push((import.into(), line));
            }
            progress.rejected += 1;
        }
        self.pending.imports.insert(import.into());
    }

    fn receive(&mut self, received: Millis) {
        self.received = self.received.max(received);
    }

    /// The first day to keep when something is folded that was received at a time, where it is a new one.
    pub(crate) fn next_day(&self, received: Millis) -> Option<Day> {
        let first = first_kept(received, self.retention);
        (first > self.first_day).then_some(first)
    }

    /// Says that the columns of earlier days are dropped in all shards.
    pub(crate) fn dropped_before(&mut self, day: Day) {
        self.first_day = day;
        self.pending.drop_before = Some(day);
    }

    /// The profile of an identifier, made where there is none; or why it cannot be made.
    fn profile(&mut self, owner: &Identifier) -> Result<(ShardId, Ordinal), &'static str> {
        let place = self.keys.place(owner.namespace.as_str(), owner.value());
        if !self.own[usize::from(place.shard)] {
            return Err(ELSEWHERE);
        }
        let (number, is_new) = self.namespaces.number(&owner.namespace).ok_or(NO_ROOM)?;
        if is_new {
            self.pending.namespaces.push(number);
        }
        self.scratch.clear();
        packed::pack(number, owner.value(), &mut self.scratch);
        let named =
            Named { namespace: &owner.namespace, print: place.print, packed: &self.scratch };
        let ordinal = self.shards[usize::from(place.shard)].profile(named).ok_or(NO_ROOM)?;
        Ok((place.shard, ordinal))
    }

    /// Adds a further identifier to a profile, and the time at which it was matched, where it was.
    fn other(
        &mut self,
        shard: ShardId,
        ordinal: Ordinal,
        other: &Identifier,
        matched: Option<u32>,
    ) {
        // Beyond the bound on namespaces an identifier that is not the owner is no loss to the fold.
        let Some((number, is_new)) = self.namespaces.number(&other.namespace) else { return };
        if is_new {
            self.pending.namespaces.push(number);
        }
        let place = self.keys.place(other.namespace.as_str(), other.value());
        self.scratch.clear();
        packed::pack(number, other.value(), &mut self.scratch);
        let named =
            Named { namespace: &other.namespace, print: place.print, packed: &self.scratch };
        let shard = &mut self.shards[usize::from(shard)];
        shard.other(ordinal, named);
        if let Some(time) = matched {
            shard.matched(ordinal, named, time);
        }
    }

    /// The profile of an identifier, where it has one.
    pub(crate) fn find(&self, identifier: &Identifier) -> Option<(ShardId, Ordinal)> {
        let number = self.namespaces.get(identifier.namespace.as_str())?;
        let place = self.keys.place(identifier.namespace.as_str(), identifier.value());
        let mut packed = Vec::new();
        packed::pack(number, identifier.value(), &mut packed);
        let dictionary = &self.shards.get(usize::from(place.shard))?.dictionary;
        Some((place.shard, dictionary.find(place.print, &packed)?))
    }

    /// About how many bytes wait for the next commit.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.bytes + self.shards.iter().map(Shard::pending).sum::<usize>()
    }

    /// Where the fold stands.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            commit: self.commit,
            position: self.position,
            next_record: self.next_record,
            received: self.received,
            first_day: self.first_day,
            counters: self.counters,
        }
    }

    /// Takes all that waits into a commit; images and seen sets are added by the caller.
    pub(crate) fn cut(&mut self) -> (Commit, BTreeSet<TraitId>) {
        self.commit += 1;
        let number = self.commit;
        let mut pending = std::mem::take(&mut self.pending);
        // A trait that was dropped while it was being filled is gone.
        pending.filled.retain(|id| self.traits.spec(*id).is_some());
        if !pending.filled.is_empty() {
            let traits = Arc::make_mut(&mut self.traits);
            let rows = pending.filled.iter().map(|id| (id.0, traits.keep(*id, number)));
            pending.traits.extend(rows);
        }
        let deltas = (0..).zip(&mut self.shards).filter(|(_, shard)| shard.pending() > 0);
        let deltas = deltas.map(|(number, shard)| (number, shard.take_delta())).collect();
        let name = |number: u16| {
            let name = self.namespaces.name(number).expect("it was numbered").clone();
            (number, name)
        };
        let imports = pending.imports.iter().filter_map(|import| self.imports.get(import));
        let commit = Commit {
            checkpoint: Checkpoint::default(),
            deltas,
            namespaces: pending.namespaces.iter().map(|number| name(*number)).collect(),
            skips: self.skips.cut(),
            dead_letters: pending.dead_letters,
            imports: imports.cloned().collect(),
            rejected: pending.rejected,
            seen: Vec::new(),
            traits: pending.traits.into_values().collect(),
            dropped_traits: pending.dropped_traits.into_iter().collect(),
            images: Vec::new(),
            drop_before: pending.drop_before,
            schema: self.schema.cut(),
        };
        (Commit { checkpoint: self.checkpoint(), ..commit }, pending.filled)
    }

    /// Whether anything waits for a commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.pending.records > 0
            || !self.pending.filled.is_empty()
            || !self.pending.namespaces.is_empty()
            || !self.pending.traits.is_empty()
            || !self.pending.dropped_traits.is_empty()
    }
}

/// What is stated of consent by an event that happened so long before it was received may be of before what stands.
const CONSENT_LATE: Millis = 10 * MINUTE;

const ELSEWHERE: &str = "it belongs to a shard that is folded elsewhere";
const NO_ROOM: &str = "there is no room for another namespace, or for another profile in its shard";
