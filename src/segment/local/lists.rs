//! The lists that follow from what is kept of a lane's audiences: for each profile, the segments that it is in.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::book::Book;
use super::book::Written;
use crate::ingest::Engine;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::audiences::Audiences;
use crate::store::audiences::Lists;
use crate::store::audiences::Names;
use crate::store::audiences::SegmentNo;
use crate::store::audiences::Whose;

impl Book {
    /// Writes the lists that are others in the last generation, or all of them where it is not known which these are.
    pub(super) fn write_lists(
        &mut self,
        audiences: &dyn Audiences,
        engine: &Engine,
    ) -> Result<(), StoreError> {
        let listed = self.listed();
        let total = listed.values().map(RoaringBitmap::len).sum();
        let kept = audiences.listed(total)?;
        let written = match (kept, self.take_written()) {
            (Some(kept), Some(written)) if kept.of.generation <= self.last().generation => {
                Some(written)
            }
            // What the owner before has written is as good as one's own.
            (Some(kept), None) if kept.of == self.last() => {
                let changed = BTreeMap::new();
                Some(Written { names: kept.names, changed })
            }
            _ => None,
        };
        let mut lists = Lists { of: self.last(), total, ..Lists::default() };
        let is_whole = match &written {
            None => true,
            Some(Written { names, changed }) => {
                lists.names = self.names(names);
                !self.add_lists(changed, engine, &mut lists)
            }
        };
        if is_whole {
            lists.names = self.names(&Names::new());
            (lists.is_whole, lists.changed) = (true, Vec::new());
            self.add_lists(&listed, engine, &mut lists);
        }
        audiences.list(&lists)?;
        self.set_written(Written { names: lists.names, changed: BTreeMap::new() });
        Ok(())
    }

    /// The numbers of all segments that are in lists now or were before the change, of which these had one.
    fn names(&self, before: &Names) -> Names {
        let now: BTreeSet<&str> = self.contents().map(|(segment, ..)| segment).collect();
        let mut names = before.clone();
        let first = before.keys().next_back().map_or(1, |last| last + 1);
        let known: BTreeSet<Box<str>> = names.values().cloned().collect();
        let new = now.into_iter().filter(|name| !known.contains(*name)).map(Box::from);
        names.extend((first..).zip(new));
        names
    }

    /// Adds the lists of some profiles; tells whether the owner of each is known.
    fn add_lists(
        &self,
        profiles: &BTreeMap<ShardId, RoaringBitmap>,
        engine: &Engine,
        lists: &mut Lists,
    ) -> bool {
        let numbers: BTreeMap<&str, SegmentNo> =
            lists.names.iter().map(|(number, name)| (&**name, *number)).collect();
        let mut all_known = true;
        for (shard, profiles) in profiles {
            let mut of: BTreeMap<Ordinal, Vec<SegmentNo>> = BTreeMap::new();
            for (segment, _, content) in self.contents().filter(|(_, of, _)| of == shard) {
                let Some(number) = numbers.get(segment) else { continue };
                for ordinal in &(&*content.members & profiles) {
                    of.entry(ordinal).or_default().push(*number);
                }
            }
            engine.list_hashes(*shard, profiles, &mut |ordinal, hash| {
                let Some(hash) = hash else {
                    all_known = false;
                    return;
                };
                let whose = Whose { shard: *shard, ordinal: Some(ordinal), hash };
                let mut numbers = of.remove(&ordinal).unwrap_or_default();
                numbers.sort_unstable();
                lists.changed.push((whose, numbers));
            });
        }
        all_known
    }
}
