//! What is kept of the audiences of a lane, in memory as in its store.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::shown::Shown;
use crate::model::ShardId;
use crate::plan::Members;
use crate::store::StoreError;
use crate::store::audiences::Audiences;
use crate::store::audiences::Content;
use crate::store::audiences::Cut;
use crate::store::audiences::Last;
use crate::store::audiences::RulePrint;
use crate::store::audiences::VersionKey;

/// What is in force from a generation on.
type From = (u64, Option<Content>);

/// The audiences that are kept of a lane. Its owner alone changes them, so memory and store are the same.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// The last generation.
    last: Last,
    /// The latest generation that is known to be published, so that it may be asked for.
    published: u64,
    /// By segment and shard, in order of their generations.
    versions: BTreeMap<Box<str>, BTreeMap<ShardId, Vec<From>>>,
    /// Of which there are several versions, or none with members.
    unsettled: BTreeSet<(Box<str>, ShardId)>,
}

impl Book {
    /// Reads what is kept.
    pub(super) fn open(audiences: &dyn Audiences) -> Result<Self, StoreError> {
        let last = audiences.last()?.unwrap_or_default();
        let mut book = Self { last, ..Self::default() };
        audiences.load(&mut |key, content| {
            let VersionKey { segment, shard, generation } = key;
            let versions = book.versions.entry(segment).or_default().entry(shard).or_default();
            let place = versions.partition_point(|(earlier, _)| *earlier < generation);
            versions.insert(place, (generation, content));
            Ok(())
        })?;
        for (segment, shards) in &book.versions {
            for (shard, _) in shards.iter().filter(|(_, versions)| !is_settled(versions)) {
                book.unsettled.insert((segment.clone(), *shard));
            }
        }
        Ok(book)
    }

    /// The last generation.
    pub(super) fn last(&self) -> Last {
        self.last
    }

    /// Notes that a generation is published.
    pub(super) fn note_published(&mut self, published: u64) {
        self.published = self.published.max(published);
    }

    /// The cut of a generation, of what it shows in a lane's shards.
    pub(super) fn cut(&self, of: Last, shards: &[ShardId], shown: &Shown) -> Cut {
        let generation = of.generation;
        let mut cut = Cut { of, ..Cut::default() };
        let none: Arc<RoaringBitmap> = Arc::default();
        for (id, (rule, members)) in shown {
            let kept = self.versions.get(id.as_str());
            for shard in shards {
                let now = members.shards.get(usize::from(*shard)).unwrap_or(&none);
                let newest = kept.and_then(|kept| newest(kept.get(shard)?));
                // What did not change is shared, and so not looked at.
                let is_kept = newest.is_some_and(|content| {
                    let is_shared = Arc::ptr_eq(&content.members, now);
                    content.rule == *rule && (is_shared || content.members == *now)
                });
                if !is_kept {
                    let key = VersionKey { segment: id.as_str().into(), shard: *shard, generation };
                    let content = Content { rule: *rule, members: now.clone() };
                    cut.put.push((key, Some(content)));
                }
            }
        }
        for (segment, of_shards) in &self.versions {
            if shown.contains_key(&**segment) {
                continue;
            }
            for (shard, _) in of_shards.iter().filter(|(_, versions)| newest(versions).is_some()) {
                let key = VersionKey { segment: segment.clone(), shard: *shard, generation };
                cut.put.push((key, None));
            }
        }
        for (key, _) in &cut.put {
            self.over(&key.segment, key.shard, true, &mut cut.drop);
        }
        let put: BTreeSet<(&str, ShardId)> =
            cut.put.iter().map(|(key, _)| (&*key.segment, key.shard)).collect();
        for (segment, shard) in &self.unsettled {
            if !put.contains(&(&**segment, *shard)) {
                self.over(segment, *shard, false, &mut cut.drop);
            }
        }
        cut
    }

    /// Finds the versions that nobody asks for once there is a new one: asked for are the published cut, the one that
    /// was kept last, which may be published by now, and the new one.
    fn over(&self, segment: &str, shard: ShardId, is_put: bool, drop: &mut Vec<VersionKey>) {
        let versions = self.versions.get(segment).and_then(|shards| shards.get(&shard));
        let versions = versions.map_or(&[][..], Vec::as_slice);
        let in_force = |at: u64| versions.iter().rposition(|(from, _)| *from <= at);
        let mut wanted = vec![in_force(self.published), in_force(self.last.generation)];
        if !is_put {
            wanted.push(versions.len().checked_sub(1));
        }
        for (number, (from, content)) in versions.iter().enumerate() {
            // That there is nothing any longer need not be said where nothing was said before.
            let says = content.is_some() || (0..number).any(|n| wanted.contains(&Some(n)));
            if !wanted.contains(&Some(number)) || !says {
                drop.push(VersionKey { segment: segment.into(), shard, generation: *from });
            }
        }
    }

    /// Takes over a cut that was kept.
    pub(super) fn take(&mut self, cut: Cut) {
        self.last = cut.of;
        let mut touched = BTreeSet::new();
        for VersionKey { segment, shard, generation } in cut.drop {
            let shards = self.versions.get_mut(&segment);
            if let Some(versions) = shards.and_then(|shards| shards.get_mut(&shard)) {
                versions.retain(|(from, _)| *from != generation);
                touched.insert((segment, shard));
            }
        }
        for (VersionKey { segment, shard, generation }, content) in cut.put {
            let shards = self.versions.entry(segment.clone()).or_default();
            shards.entry(shard).or_default().push((generation, content));
            touched.insert((segment, shard));
        }
        for (segment, shard) in touched {
            let Some(shards) = self.versions.get_mut(&segment) else { continue };
            let versions = shards.get(&shard).map_or(&[][..], Vec::as_slice);
            if versions.is_empty() {
                shards.remove(&shard);
                if shards.is_empty() {
                    self.versions.remove(&segment);
                }
                self.unsettled.remove(&(segment, shard));
            } else if is_settled(versions) {
                self.unsettled.remove(&(segment, shard));
            } else {
                self.unsettled.insert((segment, shard));
            }
        }
    }

    /// What is kept of all segments now.
    pub(super) fn contents(&self) -> impl Iterator<Item = (&str, ShardId, &Content)> {
        self.versions.iter().flat_map(|(segment, shards)| {
            let contents = shards.iter();
            contents.filter_map(|(shard, versions)| Some((&**segment, *shard, newest(versions)?)))
        })
    }

    /// What is kept of a segment in a shard now.
    pub(super) fn content(&self, segment: &str, shard: ShardId) -> Option<&Content> {
        newest(self.versions.get(segment)?.get(&shard)?)
    }

    /// Adds the members of every segment in a generation to those of other lanes, with the rules that found them; `count` is
    /// how many shards the store has.
    pub(super) fn members_of(
        &self,
        generation: u64,
        count: u16,
        all: &mut BTreeMap<String, (RulePrint, Members)>,
    ) {
        for (segment, shards) in &self.versions {
            for (shard, versions) in shards {
                let in_force = versions.iter().rfind(|(from, _)| *from <= generation);
                let Some((_, Some(Content { rule, members }))) = in_force else { continue };
                let empty = || (*rule, Members::none(usize::from(count)));
                let (_, found) = all.entry(segment.to_string()).or_insert_with(empty);
                if let Some(place) = found.shards.get_mut(usize::from(*shard)) {
                    *place = members.clone();
                }
            }
        }
    }
}

/// What is in force now.
fn newest(versions: &[From]) -> Option<&Content> {
    versions.last()?.1.as_ref()
}

/// Whether there is one version, with members, of which nothing is to be dropped.
fn is_settled(versions: &[From]) -> bool {
    matches!(versions, [(_, Some(_))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::SegmentFile;
    use crate::segment::Live;
    use crate::segment::Segment;
    use crate::segment::refresh::Compiled;
    use crate::store::embedded;

    const SHARDS: [ShardId; 2] = [1, 3];

    fn dice(sides: u32) -> u32 {
        getrandom::u32().unwrap() % sides
    }

    /// Some live segments with rules of their own, some of them hidden.
    fn compiled() -> Compiled {
        let mut live = Live::default();
        for id in ["a", "ab", "b", "c"] {
            if dice(5) > 0 {
                let text = format!("rule = 'count x >= {}'", 1 + dice(2));
                let (file, _) = SegmentFile::parse(id, &text);
                let segment = Segment { file, text, hidden: dice(5) == 0, frozen: false };
                live.segments.insert(id.to_owned(), Arc::new(segment));
            }
        }
        Compiled::new(Arc::new(live))
    }

    /// Evaluates some of the segments: the others keep what they have.
    fn next(shown: &mut Shown, compiled: &Compiled) {
        let visible = |id: &str| compiled.live.segments.get(id).is_some_and(|s| !s.hidden);
        shown.retain(|id, _| visible(id));
        for id in compiled.live.segments.keys().filter(|id| visible(id) && dice(4) > 0) {
            let (rule, members) =
                shown.entry(id.clone()).or_insert_with(|| (0, Arc::new(Members::none(4))));
            *rule = compiled.prints[id];
            for shard in SHARDS {
                if dice(2) == 0 {
                    let ordinal = dice(5);
                    let place = &mut Arc::make_mut(members).shards[usize::from(shard)];
                    let place = Arc::make_mut(place);
                    _ = place.insert(ordinal) || place.remove(ordinal);
                }
            }
        }
    }

    #[test]
    fn a_generation_that_was_published_can_be_had_until_a_later_one_is() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let audiences = embedded::Audiences::open(dir.path()).unwrap();
            let mut book = Book::open(&audiences).unwrap();
            let (mut shown, mut published, mut told) = (Shown::new(), (0, Shown::new()), 0);
            for generation in 1..25 {
                next(&mut shown, &compiled());
                book.note_published(told);
                let of = Last { generation, true_for: 0 };
                let cut = book.cut(of, &SHARDS, &shown);
                audiences.keep(&cut).unwrap();
                book.take(cut);
                if dice(3) > 0 {
                    published = (generation, shown.clone());
                    // Who publishes may be another, that has not heard of the last one.
                    told = if dice(4) > 0 { generation } else { told };
                }
                if dice(4) == 0 {
                    book = Book::open(&audiences).unwrap();
                    book.note_published(told.max(published.0));
                }
                if published.0 == 0 || published.0 < told {
                    continue;
                }
                told = told.max(published.0);
                let mut had = BTreeMap::new();
                book.members_of(published.0, 4, &mut had);
                let had: Shown =
                    had.into_iter().map(|(id, (rule, m))| (id, (rule, Arc::new(m)))).collect();
                assert_eq!(had, published.1, "generation {} of {generation}", published.0);
                let mut all = book.versions.values().flat_map(BTreeMap::values);
                assert!(all.all(|versions| versions.len() <= 3));
            }
        }
    }
}
