//! One shard in memory: its dictionary, its blocks, and what it gained since the last commit.
//!
//! Every change goes through here, live and at restart alike, so that what is read back is what was.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::delta;
use super::delta::Delta;
use super::delta::Op;
use super::identity::Dictionary;
use super::identity::Keys;
use super::identity::Namespaces;
use super::packed;
use crate::bitmap::Block;
use crate::bitmap::BlockSet;
use crate::bitmap::Mark;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Malformed;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::Value;
use crate::model::codec::Reader;
use crate::model::codec::put_varint;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::store::state::Part;
use crate::store::state::PartKind;

/// An identifier as a shard takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) print: u32,
    pub(crate) packed: &'a [u8],
}

/// One shard.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) dictionary: Dictionary,
    pub(crate) blocks: Vec<Arc<Block>>,
    delta: Delta,
}

/// A block without the days before one.
#[derive(Debug)]
pub(crate) struct Dropped {
    before: Arc<Block>,
    after: Arc<Block>,
    /// The profiles of which nothing is left.
    bare: BlockSet,
}

impl Dropped {
    /// Drops the days of a copy of a block, which takes a while on a large one.
    pub(crate) fn of(block: &Arc<Block>, day: Day) -> Self {
        let mut after = Block::clone(block);
        after.drop_before(day);
        let bare = after.bare();
        Self { before: Arc::clone(block), after: Arc::new(after), bare }
    }
}

/// A shard at one commit, to be written as images while it goes on.
#[derive(Debug, Clone)]
pub(crate) struct ShardView {
    pub(crate) blocks: Vec<Arc<Block>>,
    owners: u32,
    others: u32,
    forgotten: Arc<RoaringBitmap>,
}

/// Reads a packed identifier as a shard takes it.
fn named<'a>(
    packed: &'a [u8],
    keys: &Keys,
    namespaces: &'a Namespaces,
) -> Result<Named<'a>, Malformed> {
    let (number, value) = packed::unpack(packed)?;
    let namespace = namespaces.name(number)?;
    Ok(Named { namespace, print: keys.place(namespace.as_str(), &value).print, packed })
}

fn split(ordinal: Ordinal) -> (usize, u16) {
    let low = u16::try_from(ordinal % BLOCK).expect("a remainder by 65,536");
    ((ordinal / BLOCK) as usize, low)
}

/// The blocks that profiles lie in, with their places there.
fn by_block(profiles: &RoaringBitmap) -> BTreeMap<u16, BlockSet> {
    let mut blocks: BTreeMap<u16, BlockSet> = BTreeMap::new();
    for ordinal in profiles {
        let block = u16::try_from(ordinal / BLOCK).expect("65,536 blocks of 65,536");
        blocks.entry(block).or_default().insert(split(ordinal).1);
    }
    blocks
}

impl Shard {
    /// The profile of an identifier, made where there is none; `None` where no ordinal is left.
    pub(crate) fn profile(&mut self, owner: Named<'_>) -> Option<Ordinal> {
        if let Some(ordinal) = self.dictionary.find(owner.print, owner.packed) {
            return Some(ordinal);
        }
        let ordinal = self.insert(owner)?;
        self.delta.profile(owner.packed);
        Some(ordinal)
    }

    fn insert(&mut self, owner: Named<'_>) -> Option<Ordinal> {
        let ordinal = self.dictionary.insert(owner.print, owner.packed)?;
        let (block, low) = split(ordinal);
        if block >= self.blocks.len() {
            self.blocks.push(Arc::default());
        }
        let block = Arc::make_mut(&mut self.blocks[block]);
        block.set_population(u32::from(low) + 1);
        block.add_namespace(owner.namespace, low);
        if owner.namespace.is_device() {
            block.set_owner_is_device(low);
        }
        Some(ordinal)
    }

    /// Adds a further identifier to a profile.
    pub(crate) fn other(&mut self, ordinal: Ordinal, other: Named<'_>) {
        if self.add_other(ordinal, other) {
            self.delta.other(ordinal, other.packed);
        }
    }

    fn add_other(&mut self, ordinal: Ordinal, other: Named<'_>) -> bool {
        let is_new = self.dictionary.add_other(ordinal, other.print, other.packed);
        if is_new {
            let (block, low) = split(ordinal);
            Arc::make_mut(&mut self.blocks[block]).add_namespace(other.namespace, low);
        }
        is_new
    }

    /// Adds the facts of one event.
    pub(crate) fn facts(
        &mut self,
        ordinal: Ordinal,
        time: Millis,
        facts: &[(TraitId, Option<Measure>)],
    ) {
        self.delta.facts(ordinal, time, facts);
        let (block, low) = split(ordinal);
        let block = Arc::make_mut(&mut self.blocks[block]);
        for (id, value) in facts {
            block.add_fact(*id, low, time, *value);
        }
    }

    /// Adds a value of an attribute.
    pub(crate) fn attribute(&mut self, ordinal: Ordinal, name: &str, time: Millis, value: Value) {
        self.delta.attribute(ordinal, name, time, &value);
        let (block, low) = split(ordinal);
        Arc::make_mut(&mut self.blocks[block]).add_attribute(name, low, time, value);
    }

    /// Sets or takes away a mark.
    pub(crate) fn mark(&mut self, ordinal: Ordinal, mark: Mark, on: bool) {
        let (block, low) = split(ordinal);
        let block = &mut self.blocks[block];
        if block.marked(mark).contains(low) != on {
            self.delta.mark(ordinal, mark, on);
            Arc::make_mut(block).set_mark(mark, low, on);
        }
    }

    /// Drops what lies before a day, and forgets the profiles of which nothing is left. What was prepared
    /// of the blocks need not be done again.
    pub(crate) fn drop_before(&mut self, day: Day, prepared: &[Dropped]) {
        self.delta.drop_before(day);
        let mut scratch = Vec::new();
        let mut bare = RoaringBitmap::new();
        for (number, block) in self.blocks.iter_mut().enumerate() {
            let again;
            let dropped = match prepared.get(number) {
                Some(dropped) if Arc::ptr_eq(&dropped.before, block) => dropped,
                _ => {
                    again = Dropped::of(block, day);
                    &again
                }
            };
            *block = Arc::clone(&dropped.after);
            let number = u32::try_from(number).expect("65,536 blocks at most");
            bare |= dropped.bare.to_roaring(number, &mut scratch);
        }
        bare -= &**self.dictionary.forgotten();
        if !bare.is_empty() {
            self.delta.forget(&bare);
            self.apply_forget(&bare);
        }
    }

    fn apply_drop(&mut self, day: Day) {
        for block in &mut self.blocks {
            Arc::make_mut(block).drop_before(day);
        }
    }

    fn apply_forget(&mut self, profiles: &RoaringBitmap) {
        self.dictionary.forget(profiles);
        for (block, lows) in by_block(profiles) {
            if let Some(block) = self.blocks.get_mut(usize::from(block)) {
                Arc::make_mut(block).forget(&lows);
            }
        }
    }

    /// Drops a trait's columns. The registry keeps that it is gone, so no delta says it.
    pub(crate) fn drop_trait(&mut self, id: TraitId) {
        for block in self.blocks.iter_mut().filter(|block| block.columns(id).is_some()) {
            Arc::make_mut(block).drop_trait(id);
        }
    }

    /// Adds facts from the archive to a block's columns. They are kept as images, so no delta says it.
    pub(crate) fn absorb(&mut self, block: u16, id: TraitId, columns: &TraitColumns) -> bool {
        let Some(block) = self.blocks.get_mut(usize::from(block)) else { return false };
        Arc::make_mut(block).merge_trait(id, columns);
        true
    }

    /// How many bytes wait for a commit.
    pub(crate) fn pending(&self) -> usize {
        self.delta.len()
    }

    /// Takes what was gained since the last commit.
    pub(crate) fn take_delta(&mut self) -> Vec<u8> {
        self.delta.take()
    }

    /// The shard as it is now, for images.
    pub(crate) fn view(&self) -> ShardView {
        ShardView {
            blocks: self.blocks.clone(),
            owners: self.dictionary.len(),
            others: self.dictionary.others(),
            forgotten: Arc::clone(self.dictionary.forgotten()),
        }
    }

    /// Does again what a delta says. `keep` tells of which traits facts are wanted.
    pub(crate) fn replay(
        &mut self,
        bytes: &[u8],
        keys: &Keys,
        namespaces: &Namespaces,
        keep: impl Fn(TraitId) -> bool,
    ) -> Result<(), Malformed> {
        let mut wanted = Vec::new();
        delta::read(bytes, |op| {
            let at = match &op {
                Op::Other(at, ..)
                | Op::Facts(at, ..)
                | Op::Attribute(at, ..)
                | Op::Mark(at, ..) => *at,
                Op::Profile(_) | Op::Drop(_) | Op::Forget(_) => 0,
            };
            let of_all = matches!(op, Op::Profile(_) | Op::Drop(_) | Op::Forget(_));
            if !of_all && at >= self.dictionary.len() {
                return Err(Malformed("an unknown profile"));
            }
            let (block, low) = split(at);
            match op {
                Op::Profile(packed) => {
                    self.insert(named(packed, keys, namespaces)?)
                        .ok_or(Malformed("too many profiles"))?;
                }
                Op::Other(ordinal, packed) => {
                    self.add_other(ordinal, named(packed, keys, namespaces)?);
                }
                Op::Facts(_, time, facts) => {
                    wanted.clear();
                    wanted.extend(facts.iter().filter(|(id, _)| keep(*id)));
                    let block = Arc::make_mut(&mut self.blocks[block]);
                    for (id, value) in &wanted {
                        block.add_fact(*id, low, time, *value);
                    }
                }
                Op::Attribute(_, name, time, value) => {
                    Arc::make_mut(&mut self.blocks[block]).add_attribute(name, low, time, value);
                }
                Op::Mark(_, mark, on) => {
                    Arc::make_mut(&mut self.blocks[block]).set_mark(mark, low, on);
                }
                Op::Drop(day) => self.apply_drop(day),
                Op::Forget(profiles) => self.apply_forget(&profiles),
            }
            Ok(())
        })
    }

    /// Reads an image. Of a block, columns come last.
    pub(crate) fn load(
        &mut self,
        part: Part,
        bytes: &[u8],
        keys: &Keys,
        namespaces: &Namespaces,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(bytes);
        let block = usize::from(part.block);
        let first = u32::from(part.block) * BLOCK;
        match part.kind {
            PartKind::Owners => {
                if self.dictionary.len() != first {
                    return Err(Malformed("a gap among the identifiers"));
                }
                while reader.remaining() > 0 {
                    let packed = packed::take(&mut reader, bytes)?;
                    let added = if packed == packed::FORGOTTEN {
                        self.dictionary.insert_forgotten()
                    } else {
                        let print = named(packed, keys, namespaces)?.print;
                        self.dictionary.insert(print, packed).map(|_| ())
                    };
                    added.ok_or(Malformed("too many profiles"))?;
                }
            }
            PartKind::Others => {
                while reader.remaining() > 0 {
                    let low = u32::try_from(reader.varint()?).ok().filter(|low| *low < BLOCK);
                    let ordinal = first + low.ok_or(Malformed("an ordinal beyond its block"))?;
                    if ordinal >= self.dictionary.len() {
                        return Err(Malformed("an unknown profile"));
                    }
                    for _ in 0..reader.length()? {
                        let packed = packed::take(&mut reader, bytes)?;
                        self.dictionary.add_other(
                            ordinal,
                            named(packed, keys, namespaces)?.print,
                            packed,
                        );
                    }
                }
            }
            PartKind::Profiles => {
                if self.blocks.len() != block {
                    return Err(Malformed("a gap among the blocks"));
                }
                self.blocks.push(Arc::new(Block::decode_rest(bytes)?));
            }
            PartKind::Column { id, day } => {
                // The block's profiles may all be in deltas, which follow.
                if block >= self.blocks.len() {
                    self.blocks.resize_with(block + 1, Arc::default);
                }
                Arc::make_mut(&mut self.blocks[block]).decode_day(TraitId(id), day, bytes)?;
            }
        }
        Ok(())
    }

    /// The image of one part as it was when `view` was taken; empty where there is nothing.
    pub(crate) fn image(&self, view: &ShardView, part: Part) -> Vec<u8> {
        let mut out = Vec::new();
        let first = u32::from(part.block) * BLOCK;
        let past = self.dictionary.past(&view.forgotten, view.others);
        match part.kind {
            PartKind::Owners => {
                for ordinal in first..view.owners.min(first.saturating_add(BLOCK)) {
                    out.extend_from_slice(past.owner(ordinal));
                }
            }
            PartKind::Others => {
                for ordinal in first..view.owners.min(first.saturating_add(BLOCK)) {
                    let others = past.others_of(ordinal);
                    if !others.is_empty() {
                        put_varint(&mut out, u64::from(ordinal - first));
                        put_varint(&mut out, others.len() as u64);
                        others.iter().for_each(|other| out.extend_from_slice(other));
                    }
                }
            }
            PartKind::Profiles | PartKind::Column { .. } => out = view.image(part),
        }
        out
    }
}

impl ShardView {
    /// The image of a part that needs no dictionary.
    pub(crate) fn image(&self, part: Part) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(block) = self.blocks.get(usize::from(part.block)) else { return out };
        match part.kind {
            PartKind::Profiles => block.encode_rest(&mut out),
            PartKind::Column { id, day } => {
                if let Some(column) = block.day(TraitId(id), day) {
                    column.encode(&mut out);
                }
            }
            PartKind::Owners | PartKind::Others => {}
        }
        out
    }

    /// The images of all columns of a trait.
    pub(crate) fn columns(&self, id: TraitId) -> Vec<(Part, Vec<u8>)> {
        let mut images = Vec::new();
        for (number, block) in (0..=u16::MAX).zip(&self.blocks) {
            for (day, column) in block.columns(id).into_iter().flat_map(TraitColumns::days) {
                let mut image = Vec::new();
                column.encode(&mut image);
                let kind = PartKind::Column { id: id.0, day };
                images.push((Part { block: number, kind }, image));
            }
        }
        images
    }
}

/// Gathers the parts that a delta changes, columns of traits that `keep` refuses left out.
pub(crate) fn touched(
    bytes: &[u8],
    parts: &mut BTreeSet<Part>,
    keep: impl Fn(TraitId) -> bool,
) -> Result<Touched, Malformed> {
    let mut all = Touched::default();
    delta::read(bytes, |op| {
        let touch = |parts: &mut BTreeSet<Part>, ordinal: Ordinal, kind| {
            let block = u16::try_from(ordinal / BLOCK).map_err(|_| Malformed("an ordinal"))?;
            parts.insert(Part { block, kind });
            Ok(())
        };
        match op {
            Op::Profile(_) => all.profiles += 1,
            Op::Other(ordinal, _) => {
                touch(parts, ordinal, PartKind::Others)?;
                touch(parts, ordinal, PartKind::Profiles)?;
            }
            Op::Facts(ordinal, time, facts) => {
                for (id, _) in facts.iter().filter(|(id, _)| keep(*id)) {
                    touch(parts, ordinal, PartKind::Column { id: id.0, day: day_of(time) })?;
                }
            }
            Op::Attribute(ordinal, ..) | Op::Mark(ordinal, ..) => {
                touch(parts, ordinal, PartKind::Profiles)?
            }
            Op::Drop(_) => all.dropped = true,
            Op::Forget(profiles) => {
                for block in by_block(&profiles).into_keys() {
                    for kind in [PartKind::Owners, PartKind::Others, PartKind::Profiles] {
                        parts.insert(Part { block, kind });
                    }
                }
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// What a delta changes beyond single parts.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Touched {
    /// How many profiles it added.
    pub(crate) profiles: u32,
    /// Whether it dropped days, which attributes of every block feel.
    pub(crate) dropped: bool,
}

impl ShardView {
    /// The parts that new profiles and dropped days change.
    pub(crate) fn touch(&self, of: Touched, parts: &mut BTreeSet<Part>) {
        let first_new = self.owners.saturating_sub(of.profiles) / BLOCK;
        for (number, _) in (0..=u16::MAX).zip(&self.blocks) {
            if of.profiles > 0 && u32::from(number) >= first_new {
                parts.insert(Part { block: number, kind: PartKind::Owners });
                parts.insert(Part { block: number, kind: PartKind::Profiles });
            }
            if of.dropped {
                parts.insert(Part { block: number, kind: PartKind::Profiles });
            }
        }
    }
}
