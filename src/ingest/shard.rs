//! One shard in memory: its dictionary, its blocks, and what it gained since the last commit.
//!
//! Every change goes through here, live and at restart alike, so that what is read back is what was.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::changes::Changes;
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
use crate::model::Consent;
use crate::model::Malformed;
use crate::model::Measure;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::Value;
use crate::model::time::Day;

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
    /// What changed since somebody asked; `None` before anybody has.
    changes: Option<Changes>,
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

/// Reads a packed identifier as a shard takes it.
pub(super) fn named<'a>(
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
pub(super) fn by_block(profiles: &RoaringBitmap) -> BTreeMap<u16, BlockSet> {
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
        self.changed(ordinal);
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
            self.changed(ordinal);
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

    /// Says that a further identifier of a profile was matched, in seconds since 1970.
    pub(crate) fn matched(&mut self, ordinal: Ordinal, other: Named<'_>, time: u32) {
        if self.dictionary.matched(ordinal, other.print, other.packed, time) {
            self.delta.matched(ordinal, other.packed, time);
        }
    }

    /// Adds the facts of one event.
    pub(crate) fn facts(
        &mut self,
        ordinal: Ordinal,
        time: Millis,
        facts: &[(TraitId, Option<Measure>)],
    ) {
        self.delta.facts(ordinal, time, facts);
        if let Some(changes) = &mut self.changes {
            changes.facts(ordinal, time, facts);
        }
        let (block, low) = split(ordinal);
        let block = Arc::make_mut(&mut self.blocks[block]);
        for (id, value) in facts {
            block.add_fact(*id, low, time, *value);
        }
    }

    /// Adds a value of an attribute.
    pub(crate) fn attribute(&mut self, ordinal: Ordinal, name: &str, time: Millis, value: Value) {
        self.delta.attribute(ordinal, name, time, &value);
        self.changed(ordinal);
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
            self.changed(ordinal);
        }
    }

    /// Puts what a profile allows in the place of what it allowed before. What came late may be of before that: it takes
    /// back what it does not allow, and gives nothing back.
    pub(crate) fn consent(&mut self, ordinal: Ordinal, consent: &Consent, is_late: bool) {
        let (block, low) = split(ordinal);
        let block = &mut self.blocks[block];
        let stands = block.consents().of(low);
        let consent = match &stands {
            Some(stands) if is_late => &stands.and(consent),
            _ => consent,
        };
        if stands.as_ref() != Some(consent) {
            self.delta.consent(ordinal, consent);
            Arc::make_mut(block).set_consent(low, consent);
            self.changed(ordinal);
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
            if let Some(changes) = &mut self.changes {
                changes.profiles |= &bare;
            }
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

    /// Forgets profiles with all that is known of them.
    pub(crate) fn erase(&mut self, profiles: &RoaringBitmap) {
        let mut columns = Vec::new();
        for (number, lows) in by_block(profiles) {
            if let Some(block) = self.blocks.get(usize::from(number)) {
                let of = block.columns_of(&lows).into_iter();
                columns.extend(of.map(|(id, day)| (number, id, day)));
            }
        }
        self.delta.erase(profiles, &columns);
        self.apply_erase(profiles);
        if let Some(changes) = &mut self.changes {
            changes.profiles |= profiles;
            changes.erased |= profiles;
        }
    }

    fn apply_erase(&mut self, profiles: &RoaringBitmap) {
        self.dictionary.forget(profiles);
        for (block, lows) in by_block(profiles) {
            if let Some(block) = self.blocks.get_mut(usize::from(block)) {
                Arc::make_mut(block).erase(&lows);
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
        let number = block;
        let Some(block) = self.blocks.get_mut(usize::from(number)) else { return false };
        let block = Arc::make_mut(block);
        block.merge_trait(id, columns);
        // Who read them may have begun before a profile was erased.
        let first = u32::from(number) * BLOCK;
        let forgotten = self.dictionary.forgotten().range(first..=first + (BLOCK - 1));
        let forgotten: BlockSet = forgotten.map(|ordinal| split(ordinal).1).collect();
        if !forgotten.is_empty() {
            block.erase_facts(id, &forgotten);
        }
        true
    }

    fn changed(&mut self, ordinal: Ordinal) {
        if let Some(changes) = &mut self.changes {
            changes.profiles.insert(ordinal);
        }
    }

    /// Takes what changed since it was last taken; `None` the first time, from where on it is noted.
    pub(crate) fn take_changes(&mut self) -> Option<Changes> {
        self.changes.replace(Changes::new())
    }

    /// How many bytes wait for a commit.
    pub(crate) fn pending(&self) -> usize {
        self.delta.len()
    }

    /// Takes what was gained since the last commit.
    pub(crate) fn take_delta(&mut self) -> Vec<u8> {
        self.delta.take()
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
                | Op::Matched(at, ..)
                | Op::Facts(at, ..)
                | Op::Attribute(at, ..)
                | Op::Mark(at, ..)
                | Op::Consent(at, ..) => *at,
                Op::Profile(_) | Op::Drop(_) | Op::Forget(_) | Op::Erase(..) => 0,
            };
            let of_all = matches!(op, Op::Profile(_) | Op::Drop(_) | Op::Forget(_) | Op::Erase(..));
            let last = match &op {
                Op::Forget(profiles) | Op::Erase(profiles, _) => profiles.max(),
                _ => None,
            };
            if (!of_all && at >= self.dictionary.len())
                || last.is_some_and(|last| last >= self.dictionary.len())
            {
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
                Op::Matched(ordinal, packed, time) => {
                    let print = named(packed, keys, namespaces)?.print;
                    self.dictionary.matched(ordinal, print, packed, time);
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
                Op::Consent(_, consent) => {
                    Arc::make_mut(&mut self.blocks[block]).set_consent(low, &consent);
                }
                Op::Drop(day) => self.apply_drop(day),
                Op::Forget(profiles) => self.apply_forget(&profiles),
                Op::Erase(profiles, _) => self.apply_erase(&profiles),
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::state::Identity;

    #[test]
    fn a_delta_that_forgets_who_was_never_there_is_damaged() {
        let keys = Keys::new(Identity { shards: 1, key: [7; 16] });
        let mut delta = Delta::default();
        delta.forget(&[3].into_iter().collect());
        let replayed =
            Shard::default().replay(&delta.take(), &keys, &Namespaces::default(), |_| true);
        assert_eq!(replayed, Err(Malformed("an unknown profile")));
    }
}
