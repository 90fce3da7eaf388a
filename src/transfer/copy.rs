//! Copies a store at rest into its target, through the ports.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::Digest;
use sha2::Sha256;

use super::Meter;
use super::MoveError;
use super::Options;
use super::files;
use super::source::Held as How;
use super::source::Source;
use super::target::Target;
use super::unfit;
use crate::ingest::Content;
use crate::ingest::MessageIds;
use crate::ingest::Numbers;
use crate::model::Identifier;
use crate::model::RejectedLine;
use crate::store::StoreError;
use crate::store::claims::Claims as _;
use crate::store::journal::EventNo;
use crate::store::ledger::Books;
use crate::store::ledger::Held;
use crate::store::ledger::Ledger;
use crate::store::ledger::Refused;
use crate::store::ledger::Target as Audience;
use crate::store::state::ArchiveCommit;
use crate::store::state::ArchivePosition;
use crate::store::state::Checkpoint;
use crate::store::state::Commit;
use crate::store::state::Counters;
use crate::store::state::DEAD_LETTER_AGE;
use crate::store::state::DEAD_LETTER_BYTES;
use crate::store::state::DeadLetter;
use crate::store::state::Images;
use crate::store::state::ImportProgress;
use crate::store::state::ManifestRow;
use crate::store::state::SeenChange;
use crate::store::state::State;

/// So many rows go in one commit.
const ROWS: usize = 500;
/// So many bytes of images go in one call.
const IMAGES: usize = 16 << 20;
/// So many identifiers of a target go in one call.
const HELD: usize = 5_000;
/// So many dead letters go in one commit.
const LETTERS: usize = 200;
/// What a dead letter's row takes besides its texts, at most.
const LETTER_ROW: u64 = 32;

/// What was copied, to be compared with what has come.
pub(super) struct Copied {
    /// What each shard holds.
    pub(super) contents: Vec<Content>,
    pub(super) numbers: Numbers,
    pub(super) letters: Tally,
    /// Dead letters that no store keeps any longer, beyond their age or their room.
    pub(super) letters_dropped: u64,
    pub(super) rejected: Tally,
    /// What each destination holds.
    pub(super) ledgers: Vec<Summed>,
    /// Files of segments that had none.
    pub(super) made: Vec<PathBuf>,
}

/// Counts things, and sums them up whatever their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    sum: u128,
}

impl Tally {
    fn add(&mut self, parts: &[&[u8]]) {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let half: [u8; 16] = hash[..16].try_into().expect("half of it");
        self.count += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
    }

    /// Adds a dead letter.
    pub(super) fn letter(&mut self, letter: &DeadLetter) {
        let EventNo { record, part } = letter.event;
        self.add(&[
            &record.to_le_bytes(),
            &part.to_le_bytes(),
            &letter.time.to_le_bytes(),
            letter.reason.as_bytes(),
            &letter.bytes,
        ]);
    }

    /// Adds a rejected line of an import.
    pub(super) fn rejected(&mut self, import: &str, line: &RejectedLine) {
        let mut bytes = Vec::new();
        line.encode(&mut bytes);
        self.add(&[import.as_bytes(), &bytes]);
    }
}

/// Commits to one lane of the target.
struct Writer {
    state: Arc<dyn State>,
    checkpoint: Checkpoint,
}

impl Writer {
    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        self.checkpoint.commit += 1;
        self.state.commit(&Commit { checkpoint: self.checkpoint, ..commit })
    }
}

/// Copies all of it but the journals, which are empty.
pub(super) fn copy(
    options: &Options,
    source: &Source,
    target: &Target,
    meter: &mut Meter<'_>,
) -> Result<Copied, MoveError> {
    let numbers = Numbers::of(source.lanes.iter().map(|lane| &lane.stored))?;
    let numbers =
        numbers.ok_or_else(|| unfit("the source", "it has more than 65,535 namespaces"))?;
    let whole = source.checkpoint();
    let mut writers: Vec<Writer> = target
        .lanes
        .iter()
        .map(|lane| Writer {
            state: lane.state.clone(),
            // What was counted is added up over lanes.
            checkpoint: match lane.number {
                0 => whole,
                _ => Checkpoint { counters: Counters::default(), ..whole },
            },
        })
        .collect();
    registries(source, &numbers, &mut writers)?;
    let rejected = imports(source, &mut writers)?;
    let (letters, letters_dropped) = letters(source, &whole, &mut writers[0])?;
    // Of a store that goes on, what is read of its lanes last.
    let contents = shards(source, target, &numbers, meter)?;
    message_ids(source, target, &mut writers[0], meter)?;
    let rows: Vec<&ManifestRow> = source.lanes.iter().flat_map(|lane| &lane.manifest).collect();
    // Of a store that goes on they were brought when it was read.
    if !matches!(source.held, How::Pins(_)) {
        files::bring(options, &rows, meter)?;
    }
    manifests(&rows, source.end(), target)?;
    let ledgers = ledger(&*source.ledger, target.ledger(), meter)?;
    target.next_generation(source.next_generation)?;
    target.put_small(&source.small)?;
    let made = match target.keeps_made_segments() {
        true => Vec::new(),
        false => source.small.write_made(&options.segments)?,
    };
    Ok(Copied { contents, numbers, letters, letters_dropped, rejected, ledgers, made })
}

fn registries(source: &Source, numbers: &Numbers, writers: &mut [Writer]) -> Result<(), MoveError> {
    let schema = source.schema().rows();
    for writer in writers {
        writer.commit(Commit {
            namespaces: numbers.namespaces(),
            traits: numbers.traits(),
            ..Commit::default()
        })?;
        for rows in schema.chunks(ROWS) {
            writer.commit(Commit { schema: rows.to_vec(), ..Commit::default() })?;
        }
    }
    Ok(())
}

fn shards(
    source: &Source,
    target: &Target,
    numbers: &Numbers,
    meter: &mut Meter<'_>,
) -> Result<Vec<Content>, MoveError> {
    let of = u64::from(source.identity.shards);
    let mut contents = vec![Content::default(); usize::from(source.identity.shards)];
    let mut done = 0;
    for lane in &target.lanes {
        for shard in &lane.shards {
            meter.at("shards", done, of)?;
            let mut images = Images { shard: *shard, up_to: 0, parts: Vec::new() };
            let mut bytes = 0;
            let content =
                source.of_shard(*shard).stored.images(*shard, numbers, &mut |part, image| {
                    bytes += image.len();
                    images.parts.push((part, image));
                    if bytes >= IMAGES {
                        lane.state.commit_images(&images)?;
                        images.parts.clear();
                        bytes = 0;
                    }
                    Ok(())
                })?;
            if !images.parts.is_empty() {
                lane.state.commit_images(&images)?;
            }
            contents[usize::from(*shard)] = content;
            source.was_read(*shard)?;
            done += 1;
        }
    }
    meter.at("shards", done, of)?;
    Ok(contents)
}

/// Every lane knows how far each import is; the first has what became of its lines.
fn imports(source: &Source, writers: &mut [Writer]) -> Result<Tally, MoveError> {
    let imports: Vec<ImportProgress> = source.imports().into_values().collect();
    for (number, writer) in writers.iter_mut().enumerate() {
        for imports in imports.chunks(ROWS) {
            let taken = |import: &ImportProgress| match number {
                0 => import.clone(),
                _ => ImportProgress {
                    import: import.import.clone(),
                    taken: import.taken,
                    ..ImportProgress::default()
                },
            };
            let imports = imports.iter().map(taken).collect();
            writer.commit(Commit { imports, ..Commit::default() })?;
        }
    }
    let mut tally = Tally::default();
    for import in &imports {
        let mut lines = Vec::new();
        for lane in &source.lanes {
            lines.extend(rejected_of(&*lane.state, &import.import)?);
        }
        lines.sort_by_key(|line| line.line);
        lines.dedup_by_key(|line| line.line);
        lines.iter().for_each(|line| tally.rejected(&import.import, line));
        for lines in lines.chunks(ROWS) {
            let rejected = lines.iter().map(|line| (import.import.clone(), line.clone())).collect();
            writers[0].commit(Commit { rejected, ..Commit::default() })?;
        }
    }
    Ok(tally)
}

/// The rejected lines of an import that a state keeps.
pub(super) fn rejected_of(
    state: &dyn State,
    import: &str,
) -> Result<Vec<RejectedLine>, StoreError> {
    let mut lines: Vec<RejectedLine> = Vec::new();
    loop {
        let after = lines.last().map_or(0, |line| line.line);
        let page = state.rejected(import, after, ROWS)?;
        if page.is_empty() {
            return Ok(lines);
        }
        lines.extend(page);
    }
}

/// Gives the dead letters of a state, in order.
pub(super) fn each_letter(
    state: &dyn State,
    take: &mut dyn FnMut(DeadLetter) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = state.dead_letters(after, LETTERS)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.event);
        page.into_iter().try_for_each(&mut *take)?;
    }
}

/// Copies dead letters, and tells how many were left out. Two lanes may have given one number: then the later
/// one's gets the next part that is free.
fn letters(
    source: &Source,
    whole: &Checkpoint,
    writer: &mut Writer,
) -> Result<(Tally, u64), MoveError> {
    let oldest = whole.received.saturating_sub(DEAD_LETTER_AGE);
    let mut found = Vec::new();
    for (number, lane) in source.lanes.iter().enumerate() {
        each_letter(&*lane.state, &mut |letter| {
            let bytes = (letter.bytes.len() + letter.reason.len()) as u64 + LETTER_ROW;
            found.push((letter.event, number, letter.time, bytes));
            Ok(())
        })?;
    }
    let all = found.len() as u64;
    found.retain(|(_, _, time, _)| *time >= oldest);
    found.sort_unstable();
    let mut bytes: u64 = found.iter().map(|(.., bytes)| bytes).sum();
    let over = found.iter().take_while(|(.., size)| {
        let over = bytes > DEAD_LETTER_BYTES;
        bytes -= size;
        over
    });
    let over = over.count();
    let mut numbers = HashMap::new();
    let mut given = BTreeSet::new();
    for (event, lane, ..) in found.drain(..).skip(over) {
        let mut number = event;
        while !given.insert(number) {
            number.part = number.part.saturating_add(1);
        }
        numbers.insert((lane, event), number);
    }
    let mut tally = Tally::default();
    let mut pile = Vec::new();
    for (number, lane) in source.lanes.iter().enumerate() {
        each_letter(&*lane.state, &mut |letter| {
            let Some(event) = numbers.get(&(number, letter.event)) else { return Ok(()) };
            let letter = DeadLetter { event: *event, ..letter };
            tally.letter(&letter);
            pile.push(letter);
            if pile.len() >= LETTERS {
                let dead_letters = std::mem::take(&mut pile);
                writer.commit(Commit { dead_letters, ..Commit::default() })?;
            }
            Ok(())
        })?;
    }
    if !pile.is_empty() {
        writer.commit(Commit { dead_letters: pile, ..Commit::default() })?;
    }
    Ok((tally, all - tally.count))
}

/// Message ids are claimed in a store of several lanes, and lie in sets of the one lane in another.
fn message_ids(
    source: &Source,
    target: &Target,
    writer: &mut Writer,
    meter: &mut Meter<'_>,
) -> Result<(), MoveError> {
    let of = source.ids.iter().map(MessageIds::len).sum();
    let mut done = 0;
    meter.at("ids", 0, of)?;
    for ids in &source.ids {
        if let Some(claims) = target.claims() {
            for batch in ids.claims() {
                claims.claim(&batch)?;
                done += batch.len() as u64;
                meter.at("ids", done, of)?;
            }
        } else {
            for run in ids.runs() {
                let change = SeenChange {
                    set: ids.set(),
                    chunk: None,
                    dropped_chunks: Vec::new(),
                    run: Some(run),
                    dropped_runs: Vec::new(),
                };
                writer.commit(Commit { seen: vec![change], ..Commit::default() })?;
            }
            done += ids.len();
            meter.at("ids", done, of)?;
        }
    }
    Ok(())
}

fn manifests(
    rows: &[&ManifestRow],
    reached: ArchivePosition,
    target: &Target,
) -> Result<(), MoveError> {
    for lane in &target.lanes {
        let own = rows.iter().filter(|row| lane.shards.contains(&row.shard));
        let own: Vec<ManifestRow> = own.map(|row| (*row).clone()).collect();
        for rows in own.chunks(ROWS) {
            let added = rows.to_vec();
            lane.state.commit_archive(&ArchiveCommit { added, removed: Vec::new(), reached })?;
        }
        lane.state.commit_archive(&ArchiveCommit { reached, ..ArchiveCommit::default() })?;
    }
    Ok(())
}

/// Batches without verdict are read before what is held: one that gets its verdict in between is in both.
fn ledger(
    from: &dyn Ledger,
    to: &dyn Ledger,
    meter: &mut Meter<'_>,
) -> Result<Vec<Summed>, MoveError> {
    let of = from.standings()?.iter().map(|standing| standing.held).sum();
    let mut done = 0;
    meter.at("ledger", 0, of)?;
    let mut ledgers = Vec::new();
    for destination in from.destinations()? {
        let books = from.books(&destination)?;
        to.take_over(&books)?;
        let mut sum = HeldSum::default();
        for last in &books.last {
            let audience = Audience::new(&*destination, &*last.segment);
            sum.segment(&last.segment);
            each_held(from, &audience, &mut |page| {
                to.take_held(&audience, page)?;
                page.iter().for_each(|held| sum.held(held));
                done += page.len() as u64;
                meter.at("ledger", done, of)
            })?;
            each_refused(from, &audience, &mut |page| {
                to.take_refused(&audience, page)?;
                page.iter().for_each(|refused| sum.refused(refused));
                Ok(())
            })?;
        }
        ledgers.push(sum.of(books));
    }
    Ok(ledgers)
}

/// Gives what a target holds, a page at a time.
fn each_held(
    ledger: &dyn Ledger,
    audience: &Audience,
    take: &mut dyn FnMut(&[Held]) -> Result<(), MoveError>,
) -> Result<(), MoveError> {
    let mut after: Option<Identifier> = None;
    loop {
        let page = ledger.held(audience, after.as_ref(), HELD)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.identifier.clone());
        take(&page)?;
    }
}

/// Gives what a destination would not take of a target, a page at a time.
fn each_refused(
    ledger: &dyn Ledger,
    audience: &Audience,
    take: &mut dyn FnMut(&[Refused]) -> Result<(), MoveError>,
) -> Result<(), MoveError> {
    let mut after: Option<Identifier> = None;
    loop {
        let page = ledger.refused(audience, after.as_ref(), HELD)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.identifier.clone());
        take(&page)?;
    }
}

/// What a ledger says of a destination: its books, how much its targets hold, and a sum of all of it.
#[derive(PartialEq, Eq)]
pub(super) struct Summed {
    pub(super) books: Books,
    pub(super) held: u64,
    sum: [u8; 32],
}

#[derive(Default)]
struct HeldSum {
    sum: Sha256,
    held: u64,
}

impl HeldSum {
    fn segment(&mut self, segment: &str) {
        self.sum.update((segment.len() as u64).to_le_bytes());
        self.sum.update(segment.as_bytes());
    }

    fn held(&mut self, held: &Held) {
        let mut bytes = vec![u8::from(held.unsure)];
        held.identifier.encode(&mut bytes);
        self.sum.update(&bytes);
        self.held += 1;
    }

    fn refused(&mut self, refused: &Refused) {
        let mut bytes = vec![2];
        refused.identifier.encode(&mut bytes);
        bytes.extend_from_slice(&refused.since.to_le_bytes());
        bytes.extend_from_slice(refused.why.as_bytes());
        self.sum.update((bytes.len() as u64).to_le_bytes());
        self.sum.update(&bytes);
    }

    fn of(self, books: Books) -> Summed {
        Summed { books, held: self.held, sum: self.sum.finalize().into() }
    }
}

/// Sums up what a ledger says of a destination.
pub(super) fn summed(ledger: &dyn Ledger, destination: &str) -> Result<Summed, MoveError> {
    let books = ledger.books(destination)?;
    let mut sum = HeldSum::default();
    for last in &books.last {
        sum.segment(&last.segment);
        let audience = Audience::new(destination, &*last.segment);
        each_held(ledger, &audience, &mut |page| {
            page.iter().for_each(|held| sum.held(held));
            Ok(())
        })?;
        each_refused(ledger, &audience, &mut |page| {
            page.iter().for_each(|refused| sum.refused(refused));
            Ok(())
        })?;
    }
    Ok(sum.of(books))
}
