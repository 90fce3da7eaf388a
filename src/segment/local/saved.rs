//! What a fill has read, kept on the own disk: after a crash the next one reads the rest.
//!
//! One file a lane. It says which store and lane it is of and which traits are filled, then of each file of the
//! archive that was read whole the facts that the traits take of it. A file of the archive never changes, its
//! name holds the checksum of its bytes, and the profiles of its events were committed before it was written. So
//! what stands here is true whenever it is read, and saves time alone: what is torn, or is of a file that counts
//! no longer, is left out, and read anew. Nothing is synced for it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::bitmap::TraitId;
use crate::model::Malformed;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_i64;
use crate::model::codec::put_str;
use crate::model::codec::put_varint;

/// What the file begins with: what it is, and the version of its form.
const MAGIC: &[u8; 8] = b"TFILL\0\0\x01";
/// A longer part is none that was written here.
const MOST: u32 = 1 << 30;

/// A fact that a trait takes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) profile: (ShardId, Ordinal),
    pub(super) id: TraitId,
    pub(super) time: Millis,
    pub(super) value: Option<Measure>,
}

/// Whose facts they are.
pub(super) struct Of<'a> {
    /// What is the store's alone.
    pub(super) store: [u64; 2],
    /// The traits, by their texts.
    pub(super) traits: &'a [(String, TraitId)],
}

/// The file of a fill that goes on.
pub(super) struct Saved {
    path: PathBuf,
    /// None once it could not be written.
    file: Option<File>,
    /// The traits in the order of the file.
    ids: Vec<TraitId>,
    read: BTreeSet<Box<str>>,
    bytes: Vec<u8>,
}

impl Saved {
    /// Goes on with what was saved, where it is of the same store and has all of these traits; else begins
    /// anew. `counts` says whether a file of the archive still counts; `take` is given its facts.
    pub(super) fn open(
        path: &Path,
        of: &Of<'_>,
        counts: &dyn Fn(&str) -> bool,
        take: &mut dyn FnMut(Fact),
    ) -> Self {
        let mut saved = Self {
            path: path.to_owned(),
            file: None,
            ids: Vec::new(),
            read: BTreeSet::new(),
            bytes: Vec::new(),
        };
        let opened = match saved.resume(of, counts, take) {
            Ok(true) => Ok(()),
            Ok(false) => saved.begin(of),
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            saved.give_up(&error);
        }
        saved
    }

    /// Whether the facts of a file of the archive were given.
    pub(super) fn has(&self, file: &str) -> bool {
        self.read.contains(file)
    }

    /// Keeps the facts of a file of the archive.
    pub(super) fn add(&mut self, file: &str, facts: &[Fact]) {
        let Some(to) = &mut self.file else { return };
        self.bytes.clear();
        put_str(&mut self.bytes, file);
        put_varint(&mut self.bytes, facts.len() as u64);
        for fact in facts {
            let Some(place) = self.ids.iter().position(|id| *id == fact.id) else { return };
            put_varint(&mut self.bytes, (place as u64) << 1 | u64::from(fact.value.is_some()));
            put_varint(&mut self.bytes, u64::from(fact.profile.0));
            put_varint(&mut self.bytes, u64::from(fact.profile.1));
            put_i64(&mut self.bytes, fact.time);
            if let Some(value) = fact.value {
                put_i64(&mut self.bytes, value.0);
            }
        }
        if let Err(error) = write_part(to, &self.bytes) {
            self.give_up(&error);
        }
    }

    /// Removes the file: the fill is whole.
    pub(super) fn remove(self) {
        drop(self.file);
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "a file of a fill that has ended stays");
        }
    }

    /// Goes on without the file: a crash costs what was read.
    fn give_up(&mut self, error: &io::Error) {
        self.file = None;
        let path = self.path.display();
        tracing::warn!(%error, %path, "what is filled is not kept on the way; a crash begins it anew");
    }

    fn begin(&mut self, of: &Of<'_>) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = File::create(&self.path)?;
        self.bytes.clear();
        of.store.iter().for_each(|half| put_varint(&mut self.bytes, *half));
        put_varint(&mut self.bytes, of.traits.len() as u64);
        of.traits.iter().for_each(|(text, _)| put_str(&mut self.bytes, text));
        file.write_all(MAGIC)?;
        write_part(&mut file, &self.bytes)?;
        self.ids = of.traits.iter().map(|(_, id)| *id).collect();
        self.file = Some(file);
        Ok(())
    }

    /// Reads what there is; `false` where it is nothing that helps.
    fn resume(
        &mut self,
        of: &Of<'_>,
        counts: &dyn Fn(&str) -> bool,
        take: &mut dyn FnMut(Fact),
    ) -> io::Result<bool> {
        let file = match File::options().read(true).write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut magic = [0; MAGIC.len()];
        if !fill(&mut reader, &mut magic)? || magic != *MAGIC {
            return Ok(false);
        }
        let mut part = Vec::new();
        if !read_part(&mut reader, &mut part)? {
            return Ok(false);
        }
        let Some(texts) = head(&part, of).ok().flatten() else { return Ok(false) };
        let id_of =
            |text: &String| of.traits.iter().find(|(own, _)| own == text).map(|(_, id)| *id);
        let ids: Vec<Option<TraitId>> = texts.iter().map(id_of).collect();
        if ids.iter().flatten().count() != of.traits.len() {
            return Ok(false);
        }
        let mut end = (MAGIC.len() + 8 + part.len()) as u64;
        while read_part(&mut reader, &mut part)? {
            let Ok((name, facts)) = entry(&part, &ids) else { break };
            if counts(&name) && !self.read.contains(&name) {
                facts.into_iter().for_each(&mut *take);
                self.read.insert(name);
            }
            end += 8 + part.len() as u64;
        }
        let mut file = reader.into_inner();
        // What is torn is written over.
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        // A trait that is filled no longer has no fact from here on, whatever its place stands for.
        self.ids = ids.into_iter().map(|id| id.unwrap_or(TraitId::ANY)).collect();
        self.file = Some(file);
        Ok(true)
    }
}

/// The texts of the traits, where it is of the same store.
fn head(part: &[u8], of: &Of<'_>) -> Result<Option<Vec<String>>, Malformed> {
    let mut reader = Reader::new(part);
    if [reader.varint()?, reader.varint()?] != of.store {
        return Ok(None);
    }
    let count = reader.length()?;
    let texts: Result<_, Malformed> = (0..count).map(|_| Ok(reader.str()?.to_owned())).collect();
    reader.finish()?;
    Ok(Some(texts?))
}

/// A file of the archive and its facts, of the traits that are asked still.
fn entry(part: &[u8], ids: &[Option<TraitId>]) -> Result<(Box<str>, Vec<Fact>), Malformed> {
    let mut reader = Reader::new(part);
    let name = reader.str()?.into();
    let count = reader.length()?;
    let mut facts = Vec::with_capacity(count);
    for _ in 0..count {
        let head = reader.varint()?;
        let place = usize::try_from(head >> 1).map_err(|_| Malformed("a trait's place"))?;
        let id = ids.get(place).ok_or(Malformed("a trait's place"))?;
        let shard = ShardId::try_from(reader.varint()?).map_err(|_| Malformed("a shard"))?;
        let ordinal = Ordinal::try_from(reader.varint()?).map_err(|_| Malformed("a profile"))?;
        let time = reader.i64()?;
        let value = if head & 1 == 1 { Some(Measure(reader.i64()?)) } else { None };
        if let Some(id) = *id {
            facts.push(Fact { profile: (shard, ordinal), id, time, value });
        }
    }
    reader.finish()?;
    Ok((name, facts))
}

/// Writes a part: its length, its checksum, its bytes.
fn write_part(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MOST);
    let Some(length) = length else { return Err(io::Error::other("too many facts in one file")) };
    let mut head = [0; 8];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    file.write_all(&head)?;
    file.write_all(bytes)
}

/// Reads a part; `false` where there is none, or it is torn.
fn read_part(reader: &mut impl Read, part: &mut Vec<u8>) -> io::Result<bool> {
    let mut head = [0; 8];
    if !fill(reader, &mut head)? {
        return Ok(false);
    }
    let [length, crc] =
        [[0, 1, 2, 3], [4, 5, 6, 7]].map(|at| u32::from_le_bytes(at.map(|i| head[i])));
    part.clear();
    if length > MOST {
        return Ok(false);
    }
    reader.take(u64::from(length)).read_to_end(part)?;
    Ok(part.len() as u64 == u64::from(length) && crc32c::crc32c(part) == crc)
}

/// Reads as much as there is room for; `false` where less is left.
fn fill(reader: &mut impl Read, room: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(room) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(profile: u32, id: u32, value: Option<i64>) -> Fact {
        let profile = (u16::try_from(profile % 7).unwrap(), profile);
        let (time, value) = (-5 + i64::from(profile.1) * 999_999_937, value.map(Measure));
        Fact { profile, id: TraitId(id), time, value }
    }

    fn traits(traits: &[(&str, u32)]) -> Vec<(String, TraitId)> {
        traits.iter().map(|(text, id)| ((*text).to_owned(), TraitId(*id))).collect()
    }

    /// What is read back, and whether the files were.
    fn read(path: &Path, of: &Of<'_>, files: &[&str]) -> (Vec<Fact>, Vec<bool>) {
        let mut facts = Vec::new();
        let saved = Saved::open(path, of, &|file| file != "gone", &mut |fact| facts.push(fact));
        (facts, files.iter().map(|file| saved.has(file)).collect())
    }

    #[test]
    fn whole_parts_come_back_wherever_it_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fills/lane");
        let (before, now) = (traits(&[("a", 3), ("b", 4)]), traits(&[("b", 9)]));
        let of = |traits| Of { store: [7, u64::MAX], traits };
        let mut saved = Saved::open(&path, &of(&before), &|_| true, &mut |_| panic!("it is new"));
        let mut lengths = Vec::new();
        for (file, facts) in [
            ("one", vec![fact(1, 3, None), fact(2, 4, Some(-3)), fact(3, 4, None)]),
            ("gone", vec![fact(4, 4, None)]),
            ("none", vec![]),
            ("two", vec![fact(500_000, 4, Some(i64::MAX))]),
        ] {
            lengths.push(std::fs::metadata(&path).unwrap().len());
            saved.add(file, &facts);
        }
        drop(saved);
        let all = std::fs::read(&path).unwrap();
        let files = ["one", "gone", "none", "two"];
        for end in (0..=all.len()).rev() {
            std::fs::write(&path, &all[..end]).unwrap();
            let ends = lengths[1..].iter().copied().chain([all.len() as u64]);
            let whole = ends.filter(|whole| *whole <= end as u64).count();
            let mut expected = Vec::new();
            if whole > 0 {
                expected.extend([fact(2, 9, Some(-3)), fact(3, 9, None)]);
            }
            if whole > 3 {
                expected.push(fact(500_000, 9, Some(i64::MAX)));
            }
            let has: Vec<bool> = (0..4).map(|n| n < whole && n != 1).collect();
            assert_eq!(read(&path, &of(&now), &files), (expected, has), "{end}");
        }
        // It was begun anew at the end, and goes on from there.
        let mut saved = Saved::open(&path, &of(&now), &|_| true, &mut |_| panic!("it is new"));
        saved.add("three", &[fact(1, 9, None)]);
        drop(saved);
        assert_eq!(read(&path, &of(&now), &["three"]).1, [true]);
        // Another store, and a trait that was not filled.
        let other = Of { store: [7, 0], traits: &now };
        assert_eq!(read(&path, &other, &["three"]).1, [false]);
        let more = traits(&[("b", 1), ("c", 2)]);
        assert_eq!(read(&path, &of(&more), &["three"]).1, [false]);
        Saved::open(&path, &of(&now), &|_| true, &mut |_| {}).remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_changed_byte_is_no_fact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lane");
        let traits = traits(&[("a", 3)]);
        let of = Of { store: [1, 2], traits: &traits };
        let mut saved = Saved::open(&path, &of, &|_| true, &mut |_| {});
        saved.add("one", &[fact(1, 3, Some(1)), fact(2, 3, None)]);
        drop(saved);
        let all = std::fs::read(&path).unwrap();
        for at in 0..all.len() {
            let mut changed = all.clone();
            changed[at] ^= 1;
            std::fs::write(&path, changed).unwrap();
            assert_eq!(read(&path, &of, &["one"]), (vec![], vec![false]), "{at}");
        }
    }
}
