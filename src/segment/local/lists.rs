//! The lists that follow from a lane's audiences: for each profile, the segments that it is in.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::shown::Shown;
use crate::ingest::Engine;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::plan::Members;
use crate::store::StoreError;
use crate::store::audiences::Audiences;
use crate::store::audiences::BARRED;
use crate::store::audiences::Last;
use crate::store::audiences::Lists;
use crate::store::audiences::Names;
use crate::store::audiences::RulePrint;
use crate::store::audiences::SegmentNo;
use crate::store::audiences::Whose;

/// Room for so many segments of a profile is made at once.
const LIST: usize = 32;

/// Profiles by shard.
pub(super) type Profiles = BTreeMap<ShardId, RoaringBitmap>;

/// What is shown, and where it is known who entered an audience or left one since something else was, that and who.
#[derive(Debug, Clone)]
pub(super) struct ToList {
    pub(super) shown: Arc<Shown>,
    pub(super) moved: Option<(Arc<Shown>, Arc<Profiles>)>,
}

/// The lists of a lane, as far as they were written.
#[derive(Debug, Default)]
pub(super) struct Listing {
    written: Option<Written>,
}

/// What was written last.
#[derive(Debug)]
struct Written {
    names: Names,
    shown: Arc<Shown>,
    /// Who has a list.
    listed: Profiles,
}

impl Listing {
    /// Writes the lists that are others in a generation, or all of them where it is not known which these are. `shown`
    /// is what the generation shows in the lane's `shards`. After an error nothing is known.
    pub(super) fn write(
        &mut self,
        audiences: &dyn Audiences,
        engine: &Engine,
        (of, ToList { shown, moved }): (Last, &ToList),
        shards: &[ShardId],
    ) -> Result<(), StoreError> {
        let moved_since = |before: &Arc<Shown>| {
            let (_, moved) = moved.as_ref().filter(|(since, _)| Arc::ptr_eq(since, before))?;
            let of_lane = shards.iter().filter_map(|shard| moved.get_key_value(shard));
            Some(of_lane.map(|(shard, moved)| (*shard, moved.clone())).collect())
        };
        let changed = self.written.take().map(|written| {
            let moved = moved_since(&written.shown);
            (moved.unwrap_or_else(|| changed(&written.shown, shown, shards)), written)
        });
        let mut lists = Lists { of, ..Lists::default() };
        let written = match changed {
            Some((changed, Written { names, mut listed, .. })) => {
                lists.names = next_names(&names, shown);
                let all_known = add(shown, &changed, engine, &mut lists);
                note(&lists.changed, &mut listed);
                lists.total = listed.values().map(RoaringBitmap::len).sum();
                let kept = audiences.listed(lists.total)?;
                kept.filter(|kept| all_known && kept.of.generation <= of.generation).map(|_| listed)
            }
            // What the owner before has written is as good as one's own.
            None => {
                let listed = everybody(shown, shards);
                lists.total = listed.values().map(RoaringBitmap::len).sum();
                let kept = audiences.listed(lists.total)?.filter(|kept| kept.of == of);
                kept.map(|kept| {
                    lists.names = next_names(&kept.names, shown);
                    listed
                })
            }
        };
        let listed = written.unwrap_or_else(|| {
            let listed = everybody(shown, shards);
            lists.total = listed.values().map(RoaringBitmap::len).sum();
            lists.names = next_names(&Names::new(), shown);
            (lists.is_whole, lists.changed) = (true, Vec::new());
            add(shown, &listed, engine, &mut lists);
            listed
        });
        audiences.list(&lists)?;
        self.written = Some(Written { names: lists.names, shown: shown.clone(), listed });
        Ok(())
    }
}

/// The profiles that entered an audience or left one.
fn changed(before: &Arc<Shown>, now: &Arc<Shown>, shards: &[ShardId]) -> Profiles {
    let mut changed = Profiles::new();
    if Arc::ptr_eq(before, now) {
        return changed;
    }
    let none: Arc<RoaringBitmap> = Arc::default();
    let ids: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for id in ids {
        let of = |shown: &Shown, shard: ShardId| {
            let members = shown.get(id).and_then(|(_, m)| m.shards.get(usize::from(shard)));
            members.unwrap_or(&none).clone()
        };
        for shard in shards {
            let (then, now) = (of(before, *shard), of(now, *shard));
            if !Arc::ptr_eq(&then, &now) {
                *changed.entry(*shard).or_default() |= &*then ^ &*now;
            }
        }
    }
    changed
}

/// The profiles that are in an audience.
fn everybody(shown: &Shown, shards: &[ShardId]) -> Profiles {
    let mut listed = Profiles::new();
    // Who is barred and in no audience has no list.
    for (_, (_, members)) in shown.iter().filter(|(id, _)| *id != BARRED) {
        for shard in shards {
            if let Some(members) = members.shards.get(usize::from(*shard)) {
                *listed.entry(*shard).or_default() |= &**members;
            }
        }
    }
    listed
}

/// The numbers of all segments that are in lists now or were before the change, of which these had one.
fn next_names(before: &Names, shown: &Shown) -> Names {
    let mut names = before.clone();
    let first = before.keys().next_back().map_or(1, |last| last + 1);
    let known: BTreeSet<&str> = before.values().map(|name| &**name).collect();
    let new = shown.keys().filter(|name| !known.contains(name.as_str()));
    names.extend((first..).zip(new.map(|name| Box::from(name.as_str()))));
    names
}

/// Adds the lists of some profiles; tells whether the owner of each is known.
fn add(shown: &Shown, profiles: &Profiles, engine: &Engine, lists: &mut Lists) -> bool {
    let numbered: Vec<(SegmentNo, &(RulePrint, Arc<Members>))> = lists
        .names
        .iter()
        .filter_map(|(number, name)| Some((*number, shown.get(&**name)?)))
        .collect();
    let barred = lists.names.iter().find(|(_, name)| &***name == BARRED).map(|(number, _)| *number);
    let mut all_known = true;
    for (shard, profiles) in profiles.iter().filter(|(_, profiles)| !profiles.is_empty()) {
        let mut of: Vec<(Ordinal, Vec<SegmentNo>)> =
            profiles.iter().map(|ordinal| (ordinal, Vec::with_capacity(LIST))).collect();
        for (number, (_, members)) in &numbered {
            let Some(members) = members.shards.get(usize::from(*shard)) else { continue };
            // Both are in order.
            let mut at = 0;
            for ordinal in &(&**members & profiles) {
                at += of[at..].partition_point(|(other, _)| *other < ordinal);
                if let Some((_, list)) = of.get_mut(at) {
                    list.push(*number);
                }
            }
        }
        let mut rest = of.into_iter();
        engine.list_hashes(*shard, profiles, &mut |ordinal, hash| {
            let list = rest.find(|(other, _)| *other == ordinal).map(|(_, list)| list);
            let is_of_audiences =
                |list: &Vec<SegmentNo>| list.len() != 1 || Some(list[0]) != barred;
            let Some(hash) = hash else {
                all_known = false;
                return;
            };
            let whose = Whose { shard: *shard, ordinal: Some(ordinal), hash };
            lists.changed.push((whose, list.filter(is_of_audiences).unwrap_or_default()));
        });
    }
    all_known
}

/// Notes who has a list after a change.
fn note(changed: &[(Whose, Vec<SegmentNo>)], listed: &mut Profiles) {
    for (Whose { shard, ordinal, .. }, numbers) in changed {
        let Some(ordinal) = ordinal else { continue };
        let listed = listed.entry(*shard).or_default();
        _ = match numbers.is_empty() {
            true => listed.remove(*ordinal),
            false => listed.insert(*ordinal),
        };
    }
}
