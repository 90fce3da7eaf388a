//! A shard as images of its parts: written from a view of one commit, read back at start.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::delta;
use super::delta::Op;
use super::identity::Keys;
use super::identity::Namespaces;
use super::packed;
use super::shard::Shard;
use super::shard::by_block;
use super::shard::named;
use crate::bitmap::Block;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::model::BLOCK;
use crate::model::Malformed;
use crate::model::Ordinal;
use crate::model::codec::Reader;
use crate::model::codec::put_varint;
use crate::model::time::day_of;
use crate::store::state::Part;
use crate::store::state::PartKind;

/// Stands in an image of further identifiers, in the place of an ordinal, before the times of those that were matched: each
/// with its ordinal and its place among those of its profile.
pub(super) const MATCHED: u64 = BLOCK as u64;

/// A shard at one commit, to be written as images while it goes on.
#[derive(Debug, Clone)]
pub(crate) struct ShardView {
    pub(crate) blocks: Vec<Arc<Block>>,
    owners: u32,
    others: u32,
    forgotten: Arc<RoaringBitmap>,
}

impl Shard {
    /// The shard as it is now, for images.
    pub(crate) fn view(&self) -> ShardView {
        ShardView {
            blocks: self.blocks.clone(),
            owners: self.dictionary.len(),
            others: self.dictionary.others(),
            forgotten: Arc::clone(self.dictionary.forgotten()),
        }
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
                    let low = reader.varint()?;
                    if low == MATCHED {
                        break;
                    }
                    let ordinal = self.ordinal(first, low)?;
                    for _ in 0..reader.length()? {
                        let packed = packed::take(&mut reader, bytes)?;
                        self.dictionary.add_other(
                            ordinal,
                            named(packed, keys, namespaces)?.print,
                            packed,
                        );
                    }
                }
                while reader.remaining() > 0 {
                    let ordinal = self.ordinal(first, reader.varint()?)?;
                    let place = reader.varint()?;
                    let time = u32::try_from(reader.varint()?).map_err(|_| Malformed("a time"))?;
                    if !self.dictionary.matched_at(ordinal, place, time) {
                        return Err(Malformed("a match of no identifier"));
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

    /// The profile at a place of a block that begins with `first`.
    fn ordinal(&self, first: Ordinal, low: u64) -> Result<Ordinal, Malformed> {
        let low = u32::try_from(low).ok().filter(|low| *low < BLOCK);
        let ordinal = first + low.ok_or(Malformed("an ordinal beyond its block"))?;
        let is_known = ordinal < self.dictionary.len();
        is_known.then_some(ordinal).ok_or(Malformed("an unknown profile"))
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
                let mut are_matched = false;
                for ordinal in first..view.owners.min(first.saturating_add(BLOCK)) {
                    let times = past.match_times(ordinal);
                    for (place, time) in (0..).zip(times).filter(|(_, time)| *time > 0) {
                        if !are_matched {
                            put_varint(&mut out, MATCHED);
                            are_matched = true;
                        }
                        put_varint(&mut out, u64::from(ordinal - first));
                        put_varint(&mut out, place);
                        put_varint(&mut out, u64::from(time));
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
            Op::Matched(ordinal, ..) => touch(parts, ordinal, PartKind::Others)?,
            Op::Facts(ordinal, time, facts) => {
                for (id, _) in facts.iter().filter(|(id, _)| keep(*id)) {
                    touch(parts, ordinal, PartKind::Column { id: id.0, day: day_of(time) })?;
                }
            }
            Op::Attribute(ordinal, ..) | Op::Mark(ordinal, ..) | Op::Consent(ordinal, ..) => {
                touch(parts, ordinal, PartKind::Profiles)?
            }
            Op::Drop(_) => all.dropped = true,
            Op::Erase(profiles, columns) => {
                touch_profiles(parts, &profiles);
                for (block, id, day) in columns.iter().filter(|(_, id, _)| keep(*id)) {
                    let kind = PartKind::Column { id: id.0, day: *day };
                    parts.insert(Part { block: *block, kind });
                }
            }
            Op::Forget(profiles) => touch_profiles(parts, &profiles),
        }
        Ok(())
    })?;
    Ok(all)
}

/// The parts that are other once profiles are forgotten.
fn touch_profiles(parts: &mut BTreeSet<Part>, profiles: &RoaringBitmap) {
    for block in by_block(profiles).into_keys() {
        for kind in [PartKind::Owners, PartKind::Others, PartKind::Profiles] {
            parts.insert(Part { block, kind });
        }
    }
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
