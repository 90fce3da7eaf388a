//! What is kept of the audiences of a lane, in memory as in its store.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::model::ShardId;
use crate::plan::Members;
use crate::segment::Outcome;
use crate::segment::Refreshed;
use crate::segment::refresh::Compiled;
use crate::store::StoreError;
use crate::store::audiences::Audiences;
use crate::store::audiences::Content;
use crate::store::audiences::Cut;
use crate::store::audiences::Last;
use crate::store::audiences::Names;
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
    /// The lists of profiles, as far as they were written.
    lists: Option<Written>,
    /// By segment and shard, in order of their generations.
    versions: BTreeMap<(Box<str>, ShardId), Vec<From>>,
}

/// What was written of lists.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) names: Names,
    /// Those whose list may be another since.
    pub(super) changed: BTreeMap<ShardId, RoaringBitmap>,
}

impl Book {
    /// Reads what is kept.
    pub(super) fn open(audiences: &dyn Audiences) -> Result<Self, StoreError> {
        let last = audiences.last()?.unwrap_or_default();
        let mut book = Self { last, ..Self::default() };
        audiences.load(&mut |key, content| {
            let VersionKey { segment, shard, generation } = key;
            let versions = book.versions.entry((segment, shard)).or_default();
            let place = versions.partition_point(|(earlier, _)| *earlier < generation);
            versions.insert(place, (generation, content));
            Ok(())
        })?;
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

    /// The cut of a generation, of what was found in a lane's shards.
    ///
    /// A segment that was not evaluated keeps the members it has, and one that is gone or hidden has none.
    pub(super) fn cut(
        &self,
        of: Last,
        shards: &[ShardId],
        compiled: &Compiled,
        found: &Refreshed,
    ) -> Cut {
        let generation = of.generation;
        let mut cut = Cut { of, ..Cut::default() };
        let none: Arc<RoaringBitmap> = Arc::default();
        for (id, outcome) in &found.segments {
            let (Outcome::Members(members), Some(rule)) = (outcome, compiled.prints.get(id)) else {
                continue;
            };
            for shard in shards {
                let now = members.shards.get(usize::from(*shard)).unwrap_or(&none);
                // What did not change is shared, and so not looked at.
                let is_kept = self.newest(id, *shard).is_some_and(|content| {
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
        let is_live = |id: &str| compiled.live.segments.get(id).is_some_and(|s| !s.hidden);
        for ((segment, shard), versions) in &self.versions {
            let has_content = versions.last().is_some_and(|(_, content)| content.is_some());
            if has_content && !is_live(segment) {
                let key = VersionKey { segment: segment.clone(), shard: *shard, generation };
                cut.put.push((key, None));
            }
        }
        for (key, _) in &cut.put {
            let place = (key.segment.clone(), key.shard);
            let versions = self.versions.get(&place).map_or(&[][..], Vec::as_slice);
            self.over(&place, versions, true, &mut cut.drop);
        }
        let put: std::collections::BTreeSet<(&str, ShardId)> =
            cut.put.iter().map(|(key, _)| (&*key.segment, key.shard)).collect();
        for (place, versions) in &self.versions {
            let is_put = put.contains(&(&*place.0, place.1));
            let is_one = versions.len() == 1 && versions[0].1.is_some();
            if !is_put && !is_one {
                self.over(place, versions, false, &mut cut.drop);
            }
        }
        cut
    }

    /// Finds the versions that nobody asks for once there is a new one: asked for are the published cut, the one that
    /// was kept last, which may be published by now, and the new one.
    fn over(
        &self,
        place: &(Box<str>, ShardId),
        versions: &[From],
        is_put: bool,
        drop: &mut Vec<VersionKey>,
    ) {
        let in_force = |at: u64| versions.iter().rposition(|(from, _)| *from <= at);
        let mut wanted = vec![in_force(self.published), in_force(self.last.generation)];
        if !is_put {
            wanted.push(versions.len().checked_sub(1));
        }
        for (number, (from, content)) in versions.iter().enumerate() {
            // That there is nothing any longer need not be said where nothing was said before.
            let says = content.is_some() || (0..number).any(|n| wanted.contains(&Some(n)));
            if !wanted.contains(&Some(number)) || !says {
                let (segment, shard) = place.clone();
                drop.push(VersionKey { segment, shard, generation: *from });
            }
        }
    }

    /// Takes over a cut that was kept.
    pub(super) fn take(&mut self, cut: Cut) {
        self.note_changed(&cut);
        self.last = cut.of;
        for VersionKey { segment, shard, generation } in cut.drop {
            if let Some(versions) = self.versions.get_mut(&(segment, shard)) {
                versions.retain(|(from, _)| *from != generation);
            }
        }
        for (VersionKey { segment, shard, generation }, content) in cut.put {
            self.versions.entry((segment, shard)).or_default().push((generation, content));
        }
        self.versions.retain(|_, versions| !versions.is_empty());
    }

    /// Notes whose lists a cut changes.
    fn note_changed(&mut self, cut: &Cut) {
        let Some(mut lists) = self.lists.take() else { return };
        let none = RoaringBitmap::new();
        for (VersionKey { segment, shard, .. }, content) in &cut.put {
            let before = self.newest(segment, *shard).map_or(&none, |content| &content.members);
            let now = content.as_ref().map_or(&none, |content| &content.members);
            *lists.changed.entry(*shard).or_default() |= before ^ now;
        }
        self.lists = Some(lists);
    }

    /// What was written of lists, until it is set again: an error leaves nothing known.
    pub(super) fn take_written(&mut self) -> Option<Written> {
        self.lists.take()
    }

    pub(super) fn set_written(&mut self, written: Written) {
        self.lists = Some(written);
    }

    /// What is kept of all segments now.
    pub(super) fn contents(&self) -> impl Iterator<Item = (&str, ShardId, &Content)> {
        self.versions.iter().filter_map(|((segment, shard), versions)| {
            Some((&**segment, *shard, versions.last()?.1.as_ref()?))
        })
    }

    /// The profiles that are in an audience now.
    pub(super) fn listed(&self) -> BTreeMap<ShardId, RoaringBitmap> {
        let mut listed: BTreeMap<ShardId, RoaringBitmap> = BTreeMap::new();
        for (_, shard, content) in self.contents() {
            *listed.entry(shard).or_default() |= &*content.members;
        }
        listed
    }

    /// What is kept of a segment now.
    pub(super) fn newest(&self, segment: &str, shard: ShardId) -> Option<&Content> {
        self.versions.get(&(segment.into(), shard))?.last()?.1.as_ref()
    }

    /// Adds the members of every segment in a generation to those of other lanes, with the rules that found them; `count` is
    /// how many shards the store has.
    pub(super) fn members_of(
        &self,
        generation: u64,
        count: u16,
        all: &mut BTreeMap<String, (RulePrint, Members)>,
    ) {
        for ((segment, shard), versions) in &self.versions {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::SegmentFile;
    use crate::segment::Live;
    use crate::segment::Segment;
    use crate::store::embedded;

    /// What a generation has: by segment, the members in each shard.
    type Model = BTreeMap<String, Vec<RoaringBitmap>>;

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
    fn next(model: &mut Model, compiled: &Compiled) -> Refreshed {
        let visible = |id: &str| compiled.live.segments.get(id).is_some_and(|s| !s.hidden);
        model.retain(|id, _| visible(id));
        let mut found = Refreshed::default();
        for id in compiled.live.segments.keys().filter(|id| visible(id)) {
            if dice(4) == 0 {
                found.segments.insert(id.clone(), Outcome::Filling(3));
                continue;
            }
            let mut shards = model.get(id).cloned().unwrap_or(vec![RoaringBitmap::new(); 4]);
            for shard in SHARDS {
                if dice(2) == 0 {
                    let ordinal = dice(5);
                    let place = &mut shards[usize::from(shard)];
                    _ = place.insert(ordinal) || place.remove(ordinal);
                }
            }
            model.insert(id.clone(), shards.clone());
            let shards = shards.into_iter().map(Arc::new).collect();
            let members = Arc::new(Members { shards });
            found.segments.insert(id.clone(), Outcome::Members(members));
        }
        found
    }

    #[test]
    fn a_generation_that_was_published_can_be_had_until_a_later_one_is() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let audiences = embedded::Audiences::open(dir.path()).unwrap();
            let mut book = Book::open(&audiences).unwrap();
            let (mut model, mut published, mut told) = (Model::new(), (0, Model::new()), 0);
            for generation in 1..25 {
                let compiled = compiled();
                let found = next(&mut model, &compiled);
                book.note_published(told);
                let of = Last { generation, true_for: 0 };
                let cut = book.cut(of, &SHARDS, &compiled, &found);
                audiences.keep(&cut).unwrap();
                book.take(cut);
                if dice(3) > 0 {
                    published = (generation, model.clone());
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
                let bitmaps = |m: Members| m.shards.into_iter().map(Arc::unwrap_or_clone).collect();
                let had: Model = had.into_iter().map(|(id, (_, m))| (id, bitmaps(m))).collect();
                assert_eq!(had, published.1, "generation {} of {generation}", published.0);
                assert!(book.versions.values().all(|versions| versions.len() <= 3));
            }
        }
    }
}
