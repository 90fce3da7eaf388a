//! The port of what the fold keeps: everything that follows from the journal, and how far it has been read.
//!
//! Per shard there are **deltas**, what one commit added, and **images**, what earlier deltas came to. State
//! is the images with the later deltas applied in order. One call is one transaction: all of it is kept,
//! with the checkpoint, or nothing. What deltas, images and seen sets say is bytes that `ingest` writes and
//! reads; their form carries [`CONTENT_VERSION`].

use std::hash::Hasher;
use std::path::Path;

use siphasher::sip128::Hasher128;
use siphasher::sip128::SipHasher24;

use crate::model::Malformed;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Print;
use crate::model::RejectedLine;
use crate::model::ShardId;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::Watch;
use crate::store::journal::EventNo;
use crate::store::journal::Position;

/// The version of the contents that `ingest` and `bitmap` write into a store.
pub const CONTENT_VERSION: u32 = 1;

/// What is made once with a store and never changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// How many shards there are: S.
    pub shards: u16,
    /// The key of every hash that outlives the process.
    pub key: [u8; 16],
}

impl Identity {
    /// A hash of parts, for one purpose. It does not tell what was hashed to who does not have the key.
    pub fn hash(&self, purpose: &[u8], parts: &[&[u8]]) -> [u64; 2] {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(purpose);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The hash that an identifier is placed by, and known by once it is erased.
    pub fn print(&self, namespace: &str, value: &str) -> Print {
        Print(self.hash(b"id", &[namespace.as_bytes(), value.as_bytes()]))
    }
}

/// Shows no key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// How far the journal has been folded, and what goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of the commit, from 1; 0 where nothing was committed.
    pub commit: u64,
    /// Everything before it is folded.
    pub position: Position,
    /// The number of the record that comes next.
    pub next_record: u64,
    /// The latest receive time folded; `i64::MIN` where none was.
    pub received: Millis,
    /// Columns of earlier days are dropped; `i64::MIN` where none were.
    pub first_day: Day,
    /// What was counted up to here.
    pub counters: Counters,
}

/// Nothing folded yet.
impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            commit: 0,
            position: Position::default(),
            next_record: 0,
            received: Millis::MIN,
            first_day: Day::MIN,
            counters: Counters::default(),
        }
    }
}

/// What became of the records folded so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Events counted.
    pub counted: u64,
    /// Events that were received before.
    pub duplicates: u64,
    /// Events and records put aside.
    pub dead_letters: u64,
    /// Measured values beyond the range of a measure.
    pub out_of_range: u64,
    /// Facts added to columns.
    pub facts: u64,
}

/// One commit of the fold.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The checkpoint after it. Its number is one more than that of the store.
    pub checkpoint: Checkpoint,
    /// What each shard gained; kept under the commit's number.
    pub deltas: Vec<(ShardId, Vec<u8>)>,
    /// New namespaces with their numbers.
    pub namespaces: Vec<(u16, Namespace)>,
    /// Events that were not counted.
    pub skips: Option<SkipChunk>,
    /// What was put aside.
    pub dead_letters: Vec<DeadLetter>,
    /// Imports that went on.
    pub imports: Vec<ImportProgress>,
    /// Lines of imports that were not taken, up to [`MAX_REJECTED`] of an import.
    pub rejected: Vec<(Box<str>, RejectedLine)>,
    /// Changes of the seen sets.
    pub seen: Vec<SeenChange>,
    /// Traits that are new, or have changed.
    pub traits: Vec<TraitRow>,
    /// Traits that are gone: with them go their images.
    pub dropped_traits: Vec<u32>,
    /// Images that replace those of the same part: of a trait filled from the archive.
    pub images: Vec<(ShardId, Part, Vec<u8>)>,
    /// Columns of days before this one are dropped.
    pub drop_before: Option<Day>,
    /// What was seen of each event name, whole.
    pub schema: Vec<(Box<str>, Vec<u8>)>,
}

/// The images of one shard that take the place of its deltas.
#[derive(Debug, Clone, Default)]
pub struct Images {
    /// The shard.
    pub shard: ShardId,
    /// Deltas of commits up to this one are deleted.
    pub up_to: u64,
    /// The images; an empty one deletes the part.
    pub parts: Vec<(Part, Vec<u8>)>,
}

/// What an image is of, in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The block.
    pub block: u16,
    /// What of the block.
    pub kind: PartKind,
}

/// What an image is of, in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartKind {
    /// The identifiers that own the block's profiles, in order.
    Owners,
    /// The further identifiers of the block's profiles.
    Others,
    /// Attributes, namespaces and marks.
    Profiles,
    /// The column of a trait and a day.
    Column {
        /// The trait.
        id: u32,
        /// The day.
        day: Day,
    },
}

/// Events of a range of the journal that were not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipChunk {
    /// The first record of the range.
    pub first: u64,
    /// The last record of the range.
    pub last: u64,
    /// Which events of it.
    pub bytes: Vec<u8>,
}

/// A record or event that could not be folded, with the reason.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which record, and which event of it.
    pub event: EventNo,
    /// When it was put aside, by receive times.
    pub time: Millis,
    /// Why, for a person.
    pub reason: Box<str>,
    /// The record's bytes as they lay in the journal.
    pub bytes: Vec<u8>,
}

/// Shows no content: it is personal data.
impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("event", &self.event)
            .field("time", &self.time)
            .field("reason", &self.reason)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// Dead letters are kept for this long.
pub const DEAD_LETTER_AGE: Millis = 30 * crate::model::time::DAY;
/// Dead letters take at most this many bytes; the oldest go first.
pub const DEAD_LETTER_BYTES: u64 = 1 << 30;
/// So many rejected lines of an import are kept; all are counted.
pub const MAX_REJECTED: u64 = 100_000;

/// How far an import has been taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportProgress {
    /// The file's hash, or the name that its user gave.
    pub import: Box<str>,
    /// The last line taken, from 1; lines up to it are not taken again.
    pub taken: u64,
    /// Events counted.
    pub counted: u64,
    /// Events that were received before, in this import or elsewhere.
    pub duplicates: u64,
    /// Lines rejected.
    pub rejected: u64,
    /// Events left out, for they are of someone who was erased.
    pub erased: u64,
}

impl ImportProgress {
    /// Of two lanes together: each was given every line, and counted its own events.
    pub fn joined(self, other: Self) -> Self {
        Self {
            import: if self.import.is_empty() { other.import } else { self.import },
            taken: self.taken.min(other.taken),
            counted: self.counted + other.counted,
            duplicates: self.duplicates + other.duplicates,
            rejected: self.rejected + other.rejected,
            erased: self.erased + other.erased,
        }
    }
}

/// Which set of message ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeenSet {
    /// Of all events counted in the last 24 hours.
    Recent,
    /// Of all events of imports that brought their own.
    Imported,
}

/// What a commit changes of a seen set. New entries are a chunk, kept under the commit's number; many
/// chunks become one sorted run, whose pages are read one by one.
#[derive(Debug, Clone)]
pub struct SeenChange {
    /// The set.
    pub set: SeenSet,
    /// New entries.
    pub chunk: Option<Vec<u8>>,
    /// Chunks that are over, by the commits they came with.
    pub dropped_chunks: Vec<u64>,
    /// A new run.
    pub run: Option<SeenRun>,
    /// Runs that are over.
    pub dropped_runs: Vec<u64>,
}

/// A sorted run of a seen set.
#[derive(Debug, Clone)]
pub struct SeenRun {
    /// Its number in the set.
    pub number: u64,
    /// What is kept in memory of it.
    pub header: Vec<u8>,
    /// Its pages, numbered from 0.
    pub pages: Vec<Vec<u8>>,
}

/// A trait that columns are kept for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraitRow {
    /// Its number, never given again.
    pub id: u32,
    /// What it asks of events, in a form that can be read back.
    pub text: Box<str>,
    /// Whether its columns hold all that the archive has.
    pub whole: bool,
    /// Its facts in deltas of commits up to this one are in its images already.
    pub imaged: u64,
    /// Since when no segment asks it; `None` where one does.
    pub unasked: Option<Millis>,
}

/// One file of the archive that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRow {
    /// Its name below the archive's directory.
    pub file: Box<str>,
    /// The shard of its events.
    pub shard: ShardId,
    /// The UTC day of its events.
    pub day: Day,
    /// The journal range that it was cut from.
    pub from: Position,
    /// The end of that range.
    pub to: Position,
    /// How many events it holds.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Which event names it may hold, as the archive knows to tell; `None` where it was written before that was
    /// noted.
    pub names: Option<NameBits>,
}

/// 256 bits that names of events set.
pub type NameBits = [u64; 4];

/// Up to where the archive has taken over from the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ArchivePosition {
    /// The position.
    pub position: Position,
    /// The number of the record that follows.
    pub next_record: u64,
}

/// One commit of the archive, in a transaction of its own behind the fold's.
///
/// The archive takes only what lies before a checkpoint that is kept already, and gives up the journal only
/// once its own commit is kept. So a crash between the two commits costs nothing: before this one, its files
/// do not count and are cut again from the journal; after it, they count and the journal is released later.
/// The fold need not wait for files to be written, and a cut need not be as small as a commit.
#[derive(Debug, Clone, Default)]
pub struct ArchiveCommit {
    /// Files that count from now on.
    pub added: Vec<ManifestRow>,
    /// Files that count no longer, by name.
    pub removed: Vec<Box<str>>,
    /// The archive's position after it; skips before it are deleted.
    pub reached: ArchivePosition,
}

/// All that is read at start apart from the shards.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Made with the store.
    pub identity: Identity,
    /// How far the fold was committed.
    pub checkpoint: Checkpoint,
    /// Namespaces with their numbers.
    pub namespaces: Vec<(u16, Namespace)>,
    /// Events not counted that the archive has not passed, in order.
    pub skips: Vec<SkipChunk>,
    /// Imports.
    pub imports: Vec<ImportProgress>,
    /// Traits.
    pub traits: Vec<TraitRow>,
    /// The number that the next new trait gets at least.
    pub next_trait: u32,
    /// What was seen of each event name.
    pub schema: Vec<(Box<str>, Vec<u8>)>,
    /// The files of the archive.
    pub manifest: Vec<ManifestRow>,
    /// Up to where the archive has taken over.
    pub archived: ArchivePosition,
}

/// One snapshot of the state as it was copied for a backup.
#[derive(Debug, Clone)]
pub struct CopiedState {
    /// How many shards it has.
    pub shards: u16,
    /// How far the fold was committed in it.
    pub checkpoint: Checkpoint,
    /// The files of the archive that count in it.
    pub manifest: Vec<ManifestRow>,
    /// Up to where the archive had taken over: it needs the journal from here.
    pub archived: ArchivePosition,
}

/// A stored piece of a shard.
#[derive(Debug)]
pub enum Piece<'a> {
    /// An image. All images come before the deltas; of a block, columns come last.
    Image(Part, &'a [u8]),
    /// What the commit of this number added. Deltas come in order.
    Delta(u64, &'a [u8]),
}

/// Takes the pieces of a shard one by one; an error ends the reading.
pub type TakePiece<'a> = &'a mut dyn FnMut(Piece<'_>) -> Result<(), StoreError>;

/// Takes numbered contents one by one; an error ends the reading.
pub type TakeBytes<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), StoreError>;

/// The error of contents that cannot be read back.
pub fn damaged(malformed: Malformed) -> StoreError {
    StoreError::Malformed {
        what: "the state of the fold".to_owned(),
        hint: "it is damaged; restore the data directory from a backup".to_owned(),
        source: Some(Box::new(malformed)),
    }
}

/// The error of a store that was to be moved to where it is, and is not whole there.
pub fn half_moved(what: String) -> StoreError {
    StoreError::Malformed {
        what,
        hint: "it holds half of a store that was to be moved there; run the same `throng move` again, or empty it"
            .to_owned(),
        source: None,
    }
}

/// A store of what the fold keeps. Calls block.
///
/// After an error nothing of the call was kept, or all of it where only the answer was lost: a commit of a
/// number that the store has already is done, so the same commit may always be tried again.
pub trait State: Send + Sync {
    /// Reads all but the shards and the seen sets.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Reads a shard.
    fn load_shard(&self, shard: ShardId, take: TakePiece<'_>) -> Result<(), StoreError>;

    /// Reads the deltas of a shard that no image covers, in order.
    fn load_deltas(&self, shard: ShardId, take: TakeBytes<'_>) -> Result<(), StoreError>;

    /// Reads a seen set: `chunk` takes the commits and contents of its chunks in order, `run` the numbers and
    /// headers of its runs.
    fn load_seen(
        &self,
        set: SeenSet,
        chunk: TakeBytes<'_>,
        run: TakeBytes<'_>,
    ) -> Result<(), StoreError>;

    /// Reads one page of a run; `None` where there is no such page.
    fn seen_page(&self, set: SeenSet, run: u64, page: u32) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps what the fold did. A commit whose number the store has is done already.
    fn commit(&self, commit: &Commit) -> Result<(), StoreError>;

    /// Puts images in the place of deltas; returns by how many bytes the images have grown.
    fn commit_images(&self, images: &Images) -> Result<i64, StoreError>;

    /// Keeps which files of the archive count and how far it goes.
    fn commit_archive(&self, commit: &ArchiveCommit) -> Result<(), StoreError>;

    /// Dead letters after the given one, oldest first, at most `limit`.
    fn dead_letters(
        &self,
        after: Option<EventNo>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// One dead letter.
    fn dead_letter(&self, event: EventNo) -> Result<Option<DeadLetter>, StoreError>;

    /// Deletes dead letters; tells how many there were.
    fn drop_dead_letters(&self, events: &[EventNo]) -> Result<u64, StoreError>;

    /// Rejected lines of an import after the given line, in order, at most `limit`.
    fn rejected(
        &self,
        import: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<RejectedLine>, StoreError>;

    /// Sets aside `count` numbers of generations for the caller and returns the first; none is ever given
    /// twice.
    fn reserve_generations(&self, count: u64) -> Result<u64, StoreError>;

    /// Writes over what the store keeps of rows that are gone, where the backend keeps any.
    fn scrub(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How many bytes the store takes on disk, where that is known.
    fn bytes(&self) -> Option<u64>;

    /// Copies one snapshot into a directory, as a data directory has it, durably, while commits go on.
    /// `None` of a backend that has its own way of backups.
    fn copy_to(&self, dir: &Path, watch: Watch<'_>) -> Result<Option<CopiedState>, StoreError> {
        let _ = (dir, watch);
        Ok(None)
    }
}
