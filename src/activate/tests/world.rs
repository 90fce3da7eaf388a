//! A world to push from: people, segments, and where they go.

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::activate::Activation;
use crate::activate::Audiences;
use crate::activate::NoAudience;
use crate::activate::WholeAudience;
use crate::ingest::Matches;
use crate::ingest::Watermark;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::segment::Group;
use crate::store::StoreError;

pub(super) type Lines = BTreeSet<(String, String)>;

pub(super) fn identifier(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

/// The people and segments of a test.
#[derive(Debug, Default, Clone)]
pub(super) struct World {
    pub(super) ready: bool,
    pub(super) generation: u64,
    pub(super) activations: Vec<Activation>,
    /// Members by segment, as (shard, ordinal).
    pub(super) members: BTreeMap<String, BTreeSet<(ShardId, Ordinal)>>,
    /// Why there is no audience, while there is none.
    pub(super) missing: Option<NoAudience>,
    /// Segments whose files are wrong and never were right.
    pub(super) unreadable: BTreeSet<String>,
    pub(super) marked: BTreeSet<(ShardId, Ordinal)>,
    /// Who may not be made known to a vendor, or to nobody.
    pub(super) unconsented: BTreeMap<Option<u16>, BTreeSet<(ShardId, Ordinal)>>,
    /// The vendor of destinations.
    pub(super) vendor: Option<u16>,
    /// Segments whose members may not go to destinations.
    pub(super) suppress: Vec<String>,
    /// The segment of those who alone may.
    pub(super) fresh: Option<String>,
    pub(super) identifiers: BTreeMap<(ShardId, Ordinal), Vec<Identifier>>,
    /// Those that do not count any more.
    pub(super) expired: BTreeMap<(ShardId, Ordinal), Vec<Identifier>>,
}

impl World {
    /// The identifiers that should be held for a segment at a destination.
    pub(super) fn desired(&self, destination: &str, segment: &str) -> Lines {
        let mut desired = Lines::new();
        for activation in &self.activations {
            if activation.segment != segment || activation.destination != destination {
                continue;
            }
            for profile in self.members.get(segment).into_iter().flatten() {
                if !self.may_go(profile) {
                    continue;
                }
                for identifier in self.identifiers.get(profile).into_iter().flatten() {
                    let asked = activation.identifiers.as_ref();
                    if asked.is_none_or(|asked| asked.contains(&identifier.namespace)) {
                        desired.insert((
                            identifier.namespace.to_string(),
                            identifier.value().to_owned(),
                        ));
                    }
                }
            }
        }
        desired
    }

    /// Whether all terms of destinations let a profile go there.
    pub(super) fn may_go(&self, profile: &(ShardId, Ordinal)) -> bool {
        let is_in = |segment: &String| self.members[segment].contains(profile);
        let unconsented = self.unconsented.get(&self.vendor);
        !self.marked.contains(profile)
            && !unconsented.is_some_and(|out| out.contains(profile))
            && !self.suppress.iter().any(is_in)
            && self.fresh.as_ref().is_none_or(is_in)
    }

    /// The identifiers that someone has who is not marked.
    pub(super) fn in_use(&self) -> Lines {
        let mut in_use = Lines::new();
        for (profile, identifiers) in &self.identifiers {
            if !self.marked.contains(profile) {
                let lines = identifiers.iter();
                in_use.extend(lines.map(|one| (one.namespace.to_string(), one.value().to_owned())));
            }
        }
        in_use
    }
}

#[derive(Debug, Default)]
pub(super) struct Source(pub(super) Mutex<World>, Mutex<Seen>);

/// What was seen of the profiles' identifiers, by shard: what comes to a profile later is a further one.
#[derive(Debug, Default)]
struct Seen {
    counts: BTreeMap<(ShardId, Ordinal), usize>,
    /// Whose identifiers came, in order.
    grown: [Vec<Ordinal>; 3],
    forgotten: [u64; 3],
    /// How many profiles were read.
    read: u64,
}

impl Source {
    pub(super) fn new(world: World) -> Self {
        Self(Mutex::new(world), Mutex::default())
    }

    /// How many profiles' identifiers were read since it was last asked.
    pub(super) fn read(&self) -> u64 {
        std::mem::take(&mut self.1.lock().read)
    }

    /// Sees what has become of the profiles.
    fn see(&self) -> parking_lot::MutexGuard<'_, Seen> {
        let (world, mut seen) = (self.0.lock(), self.1.lock());
        let Seen { counts, grown, forgotten, .. } = &mut *seen;
        for (profile, identifiers) in &world.identifiers {
            let before = counts.insert(*profile, identifiers.len()).unwrap_or(1);
            let new = identifiers.len().saturating_sub(before);
            grown[usize::from(profile.0)].extend(std::iter::repeat_n(profile.1, new));
        }
        counts.retain(|profile, _| {
            let stays = world.identifiers.contains_key(profile);
            forgotten[usize::from(profile.0)] += u64::from(!stays);
            stays
        });
        seen
    }
}

impl Audiences for Source {
    fn activations(&self) -> Option<Vec<Activation>> {
        let world = self.0.lock();
        world.ready.then(|| world.activations.clone())
    }

    fn is_unreadable(&self, segment: &str) -> bool {
        self.0.lock().unreadable.contains(segment)
    }

    fn audience(&self, segment: &str) -> Result<WholeAudience, NoAudience> {
        let world = self.0.lock();
        if let Some(why) = world.missing {
            return Err(why);
        }
        let members = world.members.get(segment).ok_or(NoAudience::NotWhole)?;
        Ok(WholeAudience { generation: world.generation, true_for: 7, members: by_shard(members) })
    }

    fn watermarks(&self) -> Result<Vec<Watermark>, StoreError> {
        let seen = self.see();
        let of = |(grown, forgotten): (&Vec<Ordinal>, &u64)| Watermark {
            loaded: 1,
            others: u32::try_from(grown.len()).unwrap(),
            forgotten: *forgotten,
        };
        Ok(seen.grown.iter().zip(&seen.forgotten).map(of).collect())
    }

    fn group(&self, group: &Group) -> Result<Vec<RoaringBitmap>, StoreError> {
        if let Group::Grown(others) = group {
            let seen = self.see();
            let since = |(grown, others): (&Vec<Ordinal>, &u32)| {
                grown[usize::try_from(*others).unwrap()..].iter().collect()
            };
            return Ok(seen.grown.iter().zip(others).map(since).collect());
        }
        let world = self.0.lock();
        let holds = |wanted: &[String], identifiers: &[Identifier]| {
            identifiers.iter().any(|one| wanted.iter().any(|name| *name == one.namespace.as_str()))
        };
        Ok(match group {
            Group::Everyone => by_shard(world.identifiers.keys()),
            // Half of whom the tests mark are the one, half the other.
            Group::OptedOut => {
                by_shard(world.marked.iter().filter(|(_, ordinal)| ordinal % 2 == 0))
            }
            Group::Bots => by_shard(world.marked.iter().filter(|(_, ordinal)| ordinal % 2 == 1)),
            Group::Unconsented(vendor) => {
                by_shard(world.unconsented.get(vendor).into_iter().flatten())
            }
            Group::Holders(wanted) => {
                let holders = world.identifiers.iter().filter(|(_, ids)| holds(wanted, ids));
                by_shard(holders.map(|(profile, _)| profile))
            }
            Group::Holding(wanted) => {
                let has =
                    |identifiers: &[Identifier]| identifiers.iter().any(|one| wanted.contains(one));
                let holding = world.identifiers.iter().filter(|(_, ids)| has(ids));
                by_shard(holding.map(|(profile, _)| profile))
            }
            Group::Rematched(_) => by_shard(world.expired.keys()),
            Group::Matching(_) | Group::Grown(_) => unreachable!("told above, or not asked"),
        })
    }

    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        matches: Matches,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), StoreError> {
        let world = self.0.lock();
        self.1.lock().read += profiles.len();
        for ordinal in profiles {
            let of = (shard, ordinal);
            world.identifiers.get(&of).into_iter().flatten().for_each(&mut *each);
            if matches == Matches::All {
                world.expired.get(&of).into_iter().flatten().for_each(&mut *each);
            }
        }
        Ok(())
    }
}

fn by_shard<'a>(profiles: impl IntoIterator<Item = &'a (ShardId, Ordinal)>) -> Vec<RoaringBitmap> {
    let mut shards = vec![RoaringBitmap::new(); 3];
    for (shard, ordinal) in profiles {
        shards[usize::from(*shard)].insert(*ordinal);
    }
    shards
}

pub(super) fn activation(segment: &str, min_size: u64) -> Activation {
    let segment = segment.into();
    let (destination, is_own_min) = ("crm".into(), true);
    Activation { segment, destination, identifiers: None, min_size, is_own_min }
}

/// Profiles `0..count` in three shards, each with a cookie of its own and a user id that two share.
pub(super) fn people(count: u32) -> BTreeMap<(ShardId, Ordinal), Vec<Identifier>> {
    (0..count)
        .map(|n| {
            let shard = ShardId::try_from(n % 3).unwrap();
            let ids = vec![
                identifier("cookie", &format!("c{n:02}")),
                identifier("user_id", &format!("u{:02}", n / 2)),
            ];
            ((shard, n), ids)
        })
        .collect()
}

pub(super) fn profiles(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<(ShardId, Ordinal)> {
    numbers.into_iter().map(|n| (ShardId::try_from(n % 3).unwrap(), n)).collect()
}
