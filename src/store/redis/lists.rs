//! Lists of a lane in Redis: hashes that are small enough to lie packed.
//!
//! ```text
//! throng:{TAG}:look:<round>.<bucket>   hash: 8 bytes of an identifier's hash → numbers of segments
//! throng:{TAG}:lane                    look        what there is, see `Seen`
//!                                      look.names  the segments by their numbers
//!                                      look.gone   a round whose keys are to be deleted, and how many
//! ```
//! A change is written bucket after bucket, and with each step it is noted how far it has come: a reader that finds a
//! bucket of the new generation says so, and one of the old likewise. Lists that are made anew are another **round**,
//! which nobody sees before it is whole. Every step compares the lease and what it begins with, so that it may be
//! repeated and a lane's former owner writes nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::Value;

use super::blob::Blobs;
use super::functions;
use super::lane::Lane;
use super::reply;
use super::store::Store;
use crate::model::Malformed;
use crate::store::StoreError;
use crate::store::audiences::Found;
use crate::store::audiences::Last;
use crate::store::audiences::Legend;
use crate::store::audiences::Listed;
use crate::store::audiences::Lists;
use crate::store::audiences::Lookups as Port;
use crate::store::audiences::Names;
use crate::store::audiences::Whose;
use crate::store::audiences::decode_names;
use crate::store::audiences::encode_list;
use crate::store::audiences::encode_names;
use crate::store::state::damaged;

/// A step writes about so many bytes or lists: it runs for some milliseconds, and nothing else does meanwhile.
const STEP: (usize, usize) = (128 << 10, 2048);
/// A bucket has about so many lists when a round is made…
const FEW: u64 = 48;
/// …and a new round is made when they are more than this on the average, or fewer than that.
const MANY: u64 = 80;
const NEXT_TO_NONE: u64 = 12;
/// Keys deleted in one step.
const AT_ONCE: usize = 512;

/// Which lists there are: of the buckets below `done` they are of `next`, where there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    round: u64,
    /// There are 2 to the power of this many buckets.
    bits: u32,
    of: Last,
    next: Option<Last>,
    done: u64,
    /// The version of the names.
    names: u64,
}

impl Seen {
    fn text(&self) -> String {
        let Self { round, bits, of, next, done, names } = self;
        let next = next.unwrap_or_default();
        format!(
            "{round} {bits} {} {} {} {} {done} {names}",
            of.generation, of.true_for, next.generation, next.true_for
        )
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        let count = |number: i64| u64::try_from(number).ok();
        let (round, bits) = (count(number()?)?, u32::try_from(number()?).ok()?);
        let of = Last { generation: count(number()?)?, true_for: number()? };
        let next = Last { generation: count(number()?)?, true_for: number()? };
        let next = (next.generation > 0).then_some(next);
        let (done, names) = (count(number()?)?, count(number()?)?);
        (bits < 32).then_some(Self { round, bits, of, next, done, names })
    }

    fn bucket(&self, hash: u64) -> u64 {
        hash & ((1 << self.bits) - 1)
    }

    /// The generation of what is in a bucket.
    fn of(&self, bucket: u64) -> Last {
        self.next.filter(|_| bucket < self.done).unwrap_or(self.of)
    }
}

fn key(blobs: &Blobs, round: u64, bucket: u64) -> String {
    blobs.keys.lane(&blobs.tag, &format!("look:{round}.{bucket}"))
}

/// What a lane has of lists, for its owner.
#[derive(Debug, Clone, Default)]
pub(super) struct Owned {
    seen: Option<Seen>,
    names: Names,
    /// A round whose keys are to be deleted.
    gone: Option<(u64, u32)>,
}

impl Owned {
    pub(super) fn read(lane: &Lane) -> Result<Self, StoreError> {
        let link = &lane.blobs().link;
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(lane.key()).arg("look").arg("look.names").arg("look.gone");
        let answer = link.one(lane.key(), cmd)?;
        let Some([seen, names, gone]) = reply::items(&answer) else {
            return Err(link.odd("lists"));
        };
        let wrong = || damaged(Malformed("what lists there are"));
        let seen = reply::text(seen).map(|text| Seen::read(text).ok_or_else(wrong)).transpose()?;
        let names = decode_names(reply::bytes(names).unwrap_or_default()).map_err(damaged)?;
        let gone = reply::text(gone).filter(|gone| !gone.is_empty()).map(|text| {
            let (round, bits) = text.split_once(' ').ok_or_else(wrong)?;
            Ok((round.parse().map_err(|_| wrong())?, bits.parse().map_err(|_| wrong())?))
        });
        Ok(Self { seen, names, gone: gone.transpose()? })
    }

    /// What there is; `None` where all has to be made anew, for `total` lists.
    pub(super) fn listed(&self, total: u64) -> Option<Listed> {
        let seen = self.seen.filter(|seen| seen.next.is_none())?;
        let buckets = 1u64 << seen.bits;
        let fits = total <= MANY * buckets && (buckets == 1 || total >= NEXT_TO_NONE * buckets);
        fits.then(|| Listed { of: seen.of, names: self.names.clone() })
    }

    /// Writes lists.
    pub(super) fn write(&mut self, lane: &Lane, lists: &Lists) -> Result<(), StoreError> {
        self.delete_gone(lane)?;
        if lists.is_whole {
            return self.write_round(lane, lists);
        }
        let Some(from) = self.seen.filter(|seen| seen.next.is_none()) else {
            return Err(damaged(Malformed("lists that are not whole")));
        };
        if lists.of.generation <= from.of.generation {
            return Ok(());
        }
        let changed = in_buckets(&from, lists);
        let steps = steps(&changed);
        let has_names = self.names != lists.names;
        let names = from.names + u64::from(has_names);
        let last = steps.len().saturating_sub(1);
        for (number, step) in steps.into_iter().enumerate() {
            let mut to = Seen { of: lists.of, next: None, done: 0, names, ..from };
            if number < last {
                let done = changed[step.end - 1].0 + 1;
                to = Seen { of: from.of, next: Some(lists.of), done, ..to };
            }
            let mut asked = Step::new(self.seen, to);
            asked.names = (has_names && number == 0).then(|| encode_names(&lists.names));
            asked.lists(from.round, &changed[step]);
            asked.run(lane)?;
            self.seen = Some(to);
        }
        self.names = lists.names.clone();
        Ok(())
    }

    /// Makes a round of its own, shows it, and deletes the one before.
    fn write_round(&mut self, lane: &Lane, lists: &Lists) -> Result<(), StoreError> {
        let before = self.seen;
        let bits = lists.total.div_ceil(FEW).max(1).next_power_of_two().trailing_zeros();
        let round = before.map_or(0, |before| before.round) + 1;
        let names = before.map_or(0, |before| before.names) + 1;
        let to = Seen { round, bits, of: lists.of, next: None, done: 0, names };
        self.set_gone(lane, Some((round, bits)))?;
        let changed = in_buckets(&to, lists);
        for step in steps(&changed) {
            let mut asked = Step { after: None, ..Step::new(before, to) };
            asked.lists(round, &changed[step]);
            asked.run(lane)?;
        }
        let gone = before.map(|before| (before.round, before.bits));
        let mut asked = Step::new(before, to);
        asked.names = Some(encode_names(&lists.names));
        asked.gone = Some(gone);
        asked.run(lane)?;
        (self.seen, self.names, self.gone) = (Some(to), lists.names.clone(), gone);
        self.delete_gone(lane)
    }

    fn set_gone(&mut self, lane: &Lane, gone: Option<(u64, u32)>) -> Result<(), StoreError> {
        let step = Step { before: self.seen, gone: Some(gone), ..Step::default() };
        step.run(lane)?;
        self.gone = gone;
        Ok(())
    }

    fn delete_gone(&mut self, lane: &Lane) -> Result<(), StoreError> {
        let Some((round, bits)) = self.gone else { return Ok(()) };
        let all: Vec<u64> = (0..1u64 << bits).collect();
        for buckets in all.chunks(AT_ONCE) {
            let mut step = Step { before: self.seen, ..Step::default() };
            step.keys.extend(buckets.iter().map(|bucket| (round, *bucket, Vec::new())));
            step.deletes = true;
            step.run(lane)?;
        }
        self.set_gone(lane, None)
    }
}

/// A list in its bucket: the field, and the bytes.
type InBucket = (u64, [u8; 8], Vec<u8>);

fn in_buckets(seen: &Seen, lists: &Lists) -> Vec<InBucket> {
    let of = |(whose, numbers): &(Whose, Vec<u32>)| {
        (seen.bucket(whose.hash), whose.hash.to_be_bytes(), encode_list(numbers))
    };
    let mut all: Vec<InBucket> = lists.changed.iter().map(of).collect();
    all.sort_unstable();
    all
}

/// Cuts lists into steps, none within a bucket. There is always one.
fn steps(lists: &[InBucket]) -> Vec<Range<usize>> {
    let (mut steps, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, (bucket, field, list)) in lists.iter().enumerate() {
        bytes += field.len() + list.len();
        let ends = lists.get(at + 1).is_none_or(|next| next.0 != *bucket);
        if ends && (bytes >= STEP.0 || at + 1 - from >= STEP.1) {
            steps.push(from..at + 1);
            (from, bytes) = (at + 1, 0);
        }
    }
    if from < lists.len() || steps.is_empty() {
        steps.push(from..lists.len());
    }
    steps
}

/// The fields of a bucket and what they become, an empty text where they go.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One step of a change.
#[derive(Default)]
struct Step {
    before: Option<Seen>,
    /// What there is after it; as before, where `None`.
    after: Option<Seen>,
    names: Option<Vec<u8>>,
    gone: Option<Option<(u64, u32)>>,
    keys: Vec<(u64, u64, Fields)>,
    deletes: bool,
}

impl Step {
    fn new(before: Option<Seen>, after: Seen) -> Self {
        Self { before, after: Some(after), ..Self::default() }
    }

    fn lists(&mut self, round: u64, lists: &[InBucket]) {
        for bucket in lists.chunk_by(|a, b| a.0 == b.0) {
            let fields = bucket.iter().map(|(_, field, list)| (field.to_vec(), list.clone()));
            self.keys.push((round, bucket[0].0, fields.collect()));
        }
    }

    fn run(&self, lane: &Lane) -> Result<(), StoreError> {
        let blobs = lane.blobs();
        let text = |seen: Option<Seen>| seen.map_or_else(String::new, |seen| seen.text());
        let mut args = vec![
            lane.token().into_bytes(),
            text(self.before).into_bytes(),
            text(self.after.or(self.before)).into_bytes(),
            self.names.clone().unwrap_or_default(),
            match self.gone {
                None => b"-".to_vec(),
                Some(None) => Vec::new(),
                Some(Some((round, bits))) => format!("{round} {bits}").into_bytes(),
            },
            if self.deletes { b"1".to_vec() } else { b"0".to_vec() },
        ];
        let mut keys = vec![lane.key().to_owned()];
        for (round, bucket, fields) in &self.keys {
            keys.push(key(blobs, *round, *bucket));
            args.push(fields.len().to_string().into_bytes());
            args.extend(fields.iter().flat_map(|(field, list)| [field.clone(), list.clone()]));
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let call = functions::call("list", &keys, &args);
        match reply::text(&blobs.link.one(lane.key(), call)?) {
            Some("OK") => Ok(()),
            Some("FENCED" | "CHANGED") => Err(StoreError::Fenced { what: blobs.to_string() }),
            _ => Err(blobs.link.odd("lists that were written")),
        }
    }
}

/// What a lane had, and the names of its numbers.
type Known = (Seen, Arc<Legend>);

/// Finds lists, from any node.
#[derive(Debug)]
pub struct Lookups {
    store: Store,
    /// Of each lane, what was last seen, and the names.
    known: Mutex<Vec<Option<Known>>>,
}

impl Lookups {
    /// Those of a store.
    pub fn new(store: Store) -> Self {
        let known = vec![None; usize::from(store.layout().lanes())];
        Self { store, known: Mutex::new(known) }
    }

    /// What some profiles of a lane are in, in their order; `None` where its lists have never been kept.
    fn look_in(&self, lane: u16, whose: &[Whose]) -> Result<Option<Vec<Found>>, StoreError> {
        let Store { link, keys, layout, .. } = &self.store;
        let blobs = Blobs { link: link.clone(), keys: keys.clone(), tag: layout.tag(lane).into() };
        let at = keys.lane(&blobs.tag, "lane");
        let mut found: Vec<Option<Found>> = vec![None; whose.len()];
        // What is known of a lane is asked for, and asked again where it was not so any longer.
        for _ in 0..8 {
            let known = self.known.lock().get(usize::from(lane)).cloned().flatten();
            let (seen, legend) = known.unwrap_or_default();
            let version = seen.names.to_string();
            let open: Vec<usize> = (0..whose.len()).filter(|at| found[*at].is_none()).collect();
            let calls = open.iter().map(|of| {
                let hash = whose[*of].hash;
                let keys = [at.clone(), key(&blobs, seen.round, seen.bucket(hash))];
                functions::call("look", &keys, &[&hash.to_be_bytes()[..], version.as_bytes()])
            });
            let calls: Vec<_> = calls.collect();
            let mut fresh = (seen, legend);
            for (of, answer) in open.into_iter().zip(link.run(&at, &calls)?) {
                let Some([now, names, list]) = reply::items(&answer) else {
                    return Err(link.odd("a list"));
                };
                let Some(text) = reply::text(now).filter(|text| !text.is_empty()) else {
                    return Ok(None);
                };
                let now = Seen::read(text).ok_or_else(|| link.odd("what lists there are"))?;
                if now.names != fresh.0.names {
                    // Told where they are others than those of the version that was asked with.
                    let Some(names) = reply::bytes(names).filter(|_| now.names != seen.names)
                    else {
                        continue;
                    };
                    fresh.1 = Arc::new(Legend::of(&decode_names(names).map_err(damaged)?));
                }
                fresh.0 = now;
                if (now.round, now.bits) != (seen.round, seen.bits) {
                    continue;
                }
                let is_there = *list != Value::Nil;
                let list = reply::bytes(list).filter(|_| is_there).unwrap_or_default();
                let of_bucket = now.of(seen.bucket(whose[of].hash));
                found[of] = Some(fresh.1.read(of_bucket, list).map_err(damaged)?);
            }
            if let Some(place) = self.known.lock().get_mut(usize::from(lane)) {
                *place = Some(fresh);
            }
            if found.iter().all(Option::is_some) {
                return Ok(Some(found.into_iter().flatten().collect()));
            }
        }
        Err(link.odd("lists that are always others"))
    }
}

impl Port for Lookups {
    fn look(&self, whose: Whose) -> Result<Option<Found>, StoreError> {
        let found = self.look_in(self.store.layout.lane_of(whose.shard), &[whose])?;
        Ok(found.and_then(|found| found.into_iter().next()))
    }

    fn look_all(&self, whose: &[Whose]) -> Result<Vec<Option<Found>>, StoreError> {
        let mut by_lane: BTreeMap<u16, (Vec<usize>, Vec<Whose>)> = BTreeMap::new();
        for (at, whose) in whose.iter().enumerate() {
            let of_lane = by_lane.entry(self.store.layout.lane_of(whose.shard)).or_default();
            of_lane.0.push(at);
            of_lane.1.push(*whose);
        }
        let mut all = vec![None; whose.len()];
        for (lane, (places, whose)) in by_lane {
            for (at, found) in
                places.into_iter().zip(self.look_in(lane, &whose)?.into_iter().flatten())
            {
                all[at] = Some(found);
            }
        }
        Ok(all)
    }

    fn is_at_hand(&self) -> bool {
        false
    }
}
