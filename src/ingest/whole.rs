//! All that a store has committed, shard by shard, written for another store, or read back.
//!
//! Namespaces and traits have numbers of their own in each lane. A store that is made of others numbers them anew
//! ([`Numbers`]); what a shard holds is compared by names ([`Content`]), so that numbers do not matter.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use sha2::Digest;
use sha2::Sha256;

use super::identity::Keys;
use super::identity::Namespaces;
use super::images;
use super::load;
use super::packed;
use super::shard::Shard;
use super::skips::Skips;
use super::traits::Traits;
use crate::archive::Folded;
use crate::bitmap::Block;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Malformed;
use crate::model::Namespace;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::codec::put_varint;
use crate::model::time::Day;
use crate::store::StoreError;
use crate::store::journal::EventNo;
use crate::store::state::ArchivePosition;
use crate::store::state::Checkpoint;
use crate::store::state::Loaded;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::State;
use crate::store::state::TraitRow;
use crate::store::state::damaged;
use crate::store::suppression::Suppression;

/// The numbers that namespaces and traits get in a new store.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    namespaces: Vec<Namespace>,
    /// The texts of traits, in order; the first has number 1.
    traits: Vec<Box<str>>,
}

/// Takes the images of a shard one by one.
pub type TakeImage<'a> = &'a mut dyn FnMut(Part, Vec<u8>) -> Result<(), StoreError>;

/// What a shard holds, whatever its namespaces and traits are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    /// How many profiles.
    pub profiles: u64,
    /// How many facts, of the traits that go along.
    pub facts: u64,
    /// A hash of all of it.
    pub sum: [u8; 32],
}

impl Numbers {
    /// Of all that a store consists of. Traits go along that all of it holds whole; the others are filled anew where
    /// they are asked for. `None` where there are more namespaces than numbers.
    pub fn of<'a>(parts: impl Iterator<Item = &'a Stored>) -> Result<Option<Self>, StoreError> {
        let mut numbers = Self::default();
        let mut known = HashSet::new();
        let mut traits: Option<Vec<Box<str>>> = None;
        for part in parts {
            for name in part.namespaces.iter() {
                if known.insert(name.clone()) {
                    numbers.namespaces.push(name.clone());
                }
            }
            // A lane that nobody has come to holds every trait whole.
            if part.is_empty()? {
                continue;
            }
            let mut whole = whole(&part.traits);
            if let Some(before) = traits {
                whole.retain(|text| before.contains(text));
            }
            traits = Some(whole);
        }
        if u16::try_from(numbers.namespaces.len()).is_err() {
            return Ok(None);
        }
        numbers.traits = traits.unwrap_or_default();
        numbers.traits.sort_unstable();
        Ok(Some(numbers))
    }

    /// The namespaces with their numbers.
    pub fn namespaces(&self) -> Vec<(u16, Namespace)> {
        (0..).zip(self.namespaces.iter().cloned()).collect()
    }

    /// The traits with theirs.
    pub fn traits(&self) -> Vec<TraitRow> {
        let texts = (1..).zip(self.traits.iter().cloned());
        texts
            .map(|(id, text)| TraitRow { id, text, whole: true, imaged: 0, unasked: None })
            .collect()
    }

    /// The new numbers of a lane's namespaces; `None` where they are the same.
    fn renumbering(&self, namespaces: &Namespaces) -> Option<Vec<u16>> {
        let new: HashMap<&str, u16> =
            (0..).zip(&self.namespaces).map(|(number, name)| (name.as_str(), number)).collect();
        let new: Vec<u16> = namespaces.iter().map(|name| new[name.as_str()]).collect();
        let same = (0..).zip(&new).all(|(old, new): (u16, _)| old == *new);
        (!same).then_some(new)
    }

    /// The traits of a lane that go along: text, number here, number there.
    fn columns(&self, traits: &Traits) -> Vec<(&str, TraitId, TraitId)> {
        let mut columns = vec![("", TraitId::ANY, TraitId::ANY)];
        let ids: HashMap<String, TraitId> =
            traits.ids().filter_map(|id| Some((traits.spec(id)?.to_string(), id))).collect();
        for (new, text) in (1..).zip(&self.traits) {
            if let Some(id) = ids.get(&**text) {
                columns.push((text, *id, TraitId(new)));
            }
        }
        columns
    }
}

/// The texts of the traits that are whole.
fn whole(traits: &Traits) -> Vec<Box<str>> {
    let whole = traits.ids().filter(|id| traits.is_whole(*id));
    whole.filter_map(|id| Some(traits.spec(id)?.to_string().into())).collect()
}

/// Writes the packed identifiers of an image with other numbers of their namespaces.
fn renumbered(kind: PartKind, image: &[u8], new: &[u16]) -> Result<Vec<u8>, Malformed> {
    let number = |number| new.get(usize::from(number)).copied();
    let mut out = Vec::with_capacity(image.len());
    let mut reader = Reader::new(image);
    while reader.remaining() > 0 {
        let mut entries = 1;
        if kind == PartKind::Others {
            let low = reader.varint()?;
            put_varint(&mut out, low);
            if low == images::MATCHED {
                // What follows are numbers of places and times.
                out.extend_from_slice(reader.take(reader.remaining())?);
                break;
            }
            entries = reader.length()?;
            put_varint(&mut out, entries as u64);
        }
        for _ in 0..entries {
            packed::renumber(packed::take(&mut reader, image)?, number, &mut out)?;
        }
    }
    Ok(out)
}

/// What a lane has committed, read shard by shard.
pub struct Stored {
    state: Arc<dyn State>,
    shards: Vec<ShardId>,
    keys: Keys,
    namespaces: Namespaces,
    traits: Traits,
    skips: Skips,
    checkpoint: Checkpoint,
    suppression: Arc<Suppression>,
}

impl Stored {
    /// Of what was read at first of a lane with these shards. Traits that are not whole are left out.
    pub fn new(
        state: Arc<dyn State>,
        shards: Vec<ShardId>,
        loaded: &Loaded,
    ) -> Result<Self, StoreError> {
        let namespaces = Namespaces::load(loaded.namespaces.clone()).map_err(damaged)?;
        let mut traits = Traits::default();
        for row in &loaded.traits {
            traits.load(row);
        }
        let skips = Skips::load(&loaded.skips).map_err(damaged)?;
        let (keys, checkpoint) = (Keys::new(loaded.identity), loaded.checkpoint);
        let suppression = Arc::default();
        Ok(Self { state, shards, keys, namespaces, traits, skips, checkpoint, suppression })
    }

    /// The same, with what was erased left out of what is archived of it.
    #[must_use]
    pub fn without(self, suppression: Arc<Suppression>) -> Self {
        Self { suppression, ..self }
    }

    /// Reads a shard as a start does.
    pub fn shard(&self, shard: ShardId) -> Result<Content, StoreError> {
        let mut texts = whole(&self.traits);
        texts.sort_unstable();
        let numbers = Numbers { namespaces: Vec::new(), traits: texts };
        let columns = numbers.columns(&self.traits);
        content(&self.load(shard)?, &self.namespaces, &columns).map_err(damaged)
    }

    /// Gives the images of all parts of a shard, in the numbers of a new store, and tells what the shard holds.
    pub fn images(
        &self,
        shard: ShardId,
        numbers: &Numbers,
        take: TakeImage<'_>,
    ) -> Result<Content, StoreError> {
        let shard = self.load(shard)?;
        let columns = numbers.columns(&self.traits);
        let renumbering = numbers.renumbering(&self.namespaces);
        let view = shard.view();
        for (number, block) in (0..=u16::MAX).zip(&shard.blocks) {
            for kind in [PartKind::Owners, PartKind::Others, PartKind::Profiles] {
                let part = Part { block: number, kind };
                let mut image = shard.image(&view, part);
                if let (Some(new), PartKind::Owners | PartKind::Others) = (&renumbering, kind) {
                    image = renumbered(kind, &image, new).map_err(damaged)?;
                }
                if !image.is_empty() {
                    take(part, image)?;
                }
            }
            for (_, id, new) in &columns {
                let days = block.columns(*id).into_iter().flat_map(TraitColumns::days);
                for (day, column) in days {
                    let mut image = Vec::new();
                    column.encode(&mut image);
                    let kind = PartKind::Column { id: new.0, day };
                    take(Part { block: number, kind }, image)?;
                }
            }
        }
        content(&shard, &self.namespaces, &columns).map_err(damaged)
    }

    fn load(&self, shard: ShardId) -> Result<Shard, StoreError> {
        let Self { state, keys, namespaces, traits, .. } = self;
        Ok(load::load_shard(&**state, shard, keys, namespaces, traits)?.0)
    }

    /// Whether nobody has come to it.
    fn is_empty(&self) -> Result<bool, StoreError> {
        for shard in &self.shards {
            let mut any = false;
            let read = self.state.load_shard(*shard, &mut |_| {
                any = true;
                Err(damaged(Malformed("one is enough")))
            });
            if any {
                return Ok(false);
            }
            read?;
        }
        Ok(true)
    }
}

/// For an archive of what is committed and no more.
impl Folded for Stored {
    fn committed(&self) -> ArchivePosition {
        let Checkpoint { position, next_record, .. } = self.checkpoint;
        ArchivePosition { position, next_record }
    }

    fn first_day(&self) -> Day {
        self.checkpoint.first_day
    }

    fn shard_of(&self, owner: &Identifier) -> ShardId {
        self.keys.place(owner.namespace.as_str(), owner.value()).shard
    }

    fn is_erased(&self, event: &Event) -> bool {
        self.suppression.takes(self.keys.identity(), event)
    }

    fn is_counted(&self, event: EventNo) -> bool {
        self.skips.is_counted(event)
    }

    /// Nothing to do: what is committed stays as it is here.
    fn archived(&self, _reached: ArchivePosition) {}
}

/// What a shard holds; `columns` are in the order of their texts.
fn content(
    shard: &Shard,
    namespaces: &Namespaces,
    columns: &[(&str, TraitId, TraitId)],
) -> Result<Content, Malformed> {
    let mut sum = Sum(Sha256::new());
    let mut content = Content { profiles: shard.dictionary.profiles(), ..Content::default() };
    let name = |packed: &[u8], sum: &mut Sum| -> Result<(), Malformed> {
        let (number, value) = packed::unpack(packed)?;
        sum.text(namespaces.name(number)?.as_str().as_bytes());
        sum.text(value.as_bytes());
        Ok(())
    };
    sum.number(u64::from(shard.dictionary.len()));
    for ordinal in 0..shard.dictionary.len() {
        match shard.dictionary.owner(ordinal) {
            Some(owner) => name(owner, &mut sum)?,
            None => sum.text(b""),
        }
        let others = shard.dictionary.others_of(ordinal);
        sum.number(others.len() as u64);
        for other in others {
            name(other, &mut sum)?;
        }
        for time in shard.dictionary.match_times(ordinal) {
            sum.number(u64::from(time));
        }
    }
    let mut bytes = Vec::new();
    for block in &shard.blocks {
        bytes.clear();
        block.encode_rest(&mut bytes);
        sum.text(&bytes);
        for (text, id, _) in columns {
            let Some(columns) = Block::columns(block, *id) else { continue };
            content.facts += columns.len() as u64;
            sum.text(text.as_bytes());
            for (day, column) in columns.days() {
                bytes.clear();
                column.encode(&mut bytes);
                sum.number(day.cast_unsigned());
                sum.text(&bytes);
            }
        }
    }
    content.sum = sum.0.finalize().into();
    Ok(content)
}

/// A hash of parts, each with its length.
struct Sum(Sha256);

impl Sum {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn text(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}
