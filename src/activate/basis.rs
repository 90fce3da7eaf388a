//! What a target was last in step with. As long as that is known, a run reads the identifiers of those who came or went
//! since, and of nobody else: what it costs follows from what changed, not from the size of the audience.
//!
//! It is in memory alone. After a start, and once a day, everything is read.

use roaring::RoaringBitmap;
use std::collections::BTreeSet;

use super::audience::Audiences;
use super::identifiers::IdentifiersOf;
use crate::ingest::Watermark;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::time::DAY;
use crate::segment::Group;
use crate::store::StoreError;

/// Where more than this part of an audience changed, all of it is read: in order, that takes less time.
const PART: u64 = 8;
/// So many are always few.
const FEW: u64 = 1_024;
/// So many profiles that changed, and bytes of their identifiers, are held in memory at most.
const MOST_PROFILES: u64 = 500_000;
const MOST_BYTES: usize = 64 << 20;

/// What a target was last in step with.
///
/// Of an identifier that no profile in doubt has, and none that has changed since, the ledger says what it should: it is
/// held for sure or refused where an eligible profile had it, and is neither where none had.
#[derive(Debug)]
pub(super) struct Basis {
    /// Who was eligible, by shard.
    pub(super) profiles: Vec<RoaringBitmap>,
    /// Those of whom it is not known whether the target is in step with them.
    pub(super) in_doubt: Vec<RoaringBitmap>,
    /// How far the identifiers of profiles were, before any was read.
    pub(super) watermarks: Vec<Watermark>,
    /// The namespaces that were asked for.
    pub(super) namespaces: Option<Vec<Namespace>>,
    /// How many identifiers the ledger has as refused.
    pub(super) refused: u64,
    /// When all was last read.
    pub(super) read_at: Millis,
    /// When it was taken.
    pub(super) taken_at: Millis,
}

/// The profiles that changed, and their identifiers.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The profiles, by shard.
    pub(super) profiles: Vec<RoaringBitmap>,
    /// How many the ledger had as refused before.
    pub(super) refused: u64,
    /// Whether the target may have been left in doubt.
    pub(super) was_in_doubt: bool,
    /// When all was last read.
    pub(super) read_at: Millis,
    /// All identifiers of theirs that the destination takes, in order.
    identifiers: Vec<Identifier>,
    /// Of each, whether an eligible profile has it.
    wanted: Vec<bool>,
}

impl Basis {
    /// Counts some profiles as in doubt.
    pub(super) fn doubt(&mut self, profiles: &[RoaringBitmap]) {
        unite(&mut self.in_doubt, profiles);
    }

    /// Who changed since; `None` where everything has to be read.
    pub(super) fn changed(
        &self,
        desired: &IdentifiersOf<'_>,
        now: Millis,
    ) -> Result<Option<Changed>, StoreError> {
        let audiences = desired.audiences;
        let is_old = !(self.read_at..self.read_at.saturating_add(DAY)).contains(&now);
        if is_old || self.namespaces.as_deref() != desired.namespaces || !self.stands(audiences)? {
            return Ok(None);
        }
        let others = self.watermarks.iter().map(|watermark| watermark.others).collect();
        let mut profiles = audiences.group(&Group::Grown(others))?;
        unite(&mut profiles, &audiences.group(&Group::Rematched(self.taken_at))?);
        for (grown, eligible) in profiles.iter_mut().zip(&desired.profiles) {
            *grown &= eligible;
        }
        profiles.resize(profiles.len().max(desired.profiles.len()), RoaringBitmap::new());
        for (at, profiles) in profiles.iter_mut().enumerate() {
            match (self.profiles.get(at), desired.profiles.get(at)) {
                (Some(before), Some(after)) => *profiles |= before ^ after,
                (Some(one), None) | (None, Some(one)) => *profiles |= one,
                (None, None) => {}
            }
        }
        unite(&mut profiles, &self.in_doubt);
        let all: u64 = desired.profiles.iter().map(RoaringBitmap::len).sum();
        let most = (all / PART).clamp(FEW, MOST_PROFILES);
        if profiles.iter().map(RoaringBitmap::len).sum::<u64>() > most {
            return Ok(None);
        }
        let Some(changed) = self.read(profiles, desired)? else { return Ok(None) };
        // What a profile had that was forgotten meanwhile is not among them.
        Ok(self.stands(audiences)?.then_some(changed))
    }

    /// Whether no profile has lost an identifier since.
    fn stands(&self, audiences: &dyn Audiences) -> Result<bool, StoreError> {
        let now = audiences.watermarks()?;
        let same = |(before, now): (&Watermark, &Watermark)| {
            before.loaded == now.loaded && before.forgotten == now.forgotten
        };
        Ok(now.len() == self.watermarks.len() && self.watermarks.iter().zip(&now).all(same))
    }

    /// Reads the identifiers of profiles that changed; `None` where they are too many.
    fn read(
        &self,
        profiles: Vec<RoaringBitmap>,
        desired: &IdentifiersOf<'_>,
    ) -> Result<Option<Changed>, StoreError> {
        let and = |these: &[RoaringBitmap], those: &[RoaringBitmap]| -> Vec<RoaringBitmap> {
            these.iter().zip(those).map(|(these, those)| these & those).collect()
        };
        let (mut identifiers, mut bytes) = (BTreeSet::new(), 0);
        let touched = desired.alike(profiles).with_expired();
        touched.walk(&mut |identifier| {
            if bytes <= MOST_BYTES && !identifiers.contains(identifier) {
                bytes += identifier.value().len();
                identifiers.insert(identifier.clone());
            }
        })?;
        if bytes > MOST_BYTES {
            return Ok(None);
        }
        let mut wanted = BTreeSet::new();
        let stayed = desired.alike(and(&touched.profiles, &desired.profiles));
        stayed.walk(&mut |identifier| {
            if let Some(known) = identifiers.get(identifier) {
                wanted.insert(known);
            }
        })?;
        // Who leaves may share an identifier with one who stays.
        let open = identifiers.iter().filter(|identifier| !wanted.contains(identifier));
        let open: Vec<Identifier> = open.cloned().collect();
        if !open.is_empty() {
            let holding = desired.audiences.group(&Group::Holding(open))?;
            let others = desired.alike(and(&holding, &desired.profiles));
            others.walk(&mut |identifier| {
                if let Some(known) = identifiers.get(identifier) {
                    wanted.insert(known);
                }
            })?;
        }
        let wanted = identifiers.iter().map(|identifier| wanted.contains(identifier)).collect();
        Ok(Some(Changed {
            profiles: touched.profiles,
            refused: self.refused,
            was_in_doubt: self.in_doubt.iter().any(|profiles| !profiles.is_empty()),
            read_at: self.read_at,
            identifiers: identifiers.into_iter().collect(),
            wanted,
        }))
    }
}

impl Changed {
    /// How many profiles changed.
    pub(super) fn len(&self) -> u64 {
        self.profiles.iter().map(RoaringBitmap::len).sum()
    }

    /// Their identifiers, at most so many at a time, and of each whether an eligible profile has it.
    pub(super) fn pages(&self, limit: usize) -> impl Iterator<Item = (&[Identifier], &[bool])> {
        self.identifiers.chunks(limit).zip(self.wanted.chunks(limit))
    }

    /// Those of some identifiers that an eligible profile has; `None` where one is of nobody who changed.
    pub(super) fn among(&self, asked: &BTreeSet<&Identifier>) -> Option<BTreeSet<Identifier>> {
        let mut found = BTreeSet::new();
        for identifier in asked {
            if self.wants(identifier)? {
                found.insert((*identifier).clone());
            }
        }
        Some(found)
    }

    /// Whether an eligible profile has an identifier; `None` of one that nobody has who changed.
    pub(super) fn wants(&self, identifier: &Identifier) -> Option<bool> {
        let at = self.identifiers.binary_search(identifier).ok()?;
        self.wanted.get(at).copied()
    }
}

fn unite(these: &mut Vec<RoaringBitmap>, those: &[RoaringBitmap]) {
    these.resize(these.len().max(those.len()), RoaringBitmap::new());
    these.iter_mut().zip(those).for_each(|(these, those)| *these |= those);
}
