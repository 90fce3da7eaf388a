//! A world to push from: people, segments, and where they go.

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::activate::Activation;
use crate::activate::Audiences;
use crate::activate::NoAudience;
use crate::activate::WholeAudience;
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
    /// Segments whose members may not go to destinations.
    pub(super) suppress: Vec<String>,
    /// The segment of those who alone may.
    pub(super) fresh: Option<String>,
    pub(super) identifiers: BTreeMap<(ShardId, Ordinal), Vec<Identifier>>,
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
        !self.marked.contains(profile)
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
pub(super) struct Source(pub(super) Mutex<World>);

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

    fn group(&self, group: &Group) -> Result<Vec<RoaringBitmap>, StoreError> {
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
            Group::Holders(wanted) => {
                let holders = world.identifiers.iter().filter(|(_, ids)| holds(wanted, ids));
                by_shard(holders.map(|(profile, _)| profile))
            }
        })
    }

    fn identifiers(
        &self,
        shard: ShardId,
        profiles: &RoaringBitmap,
        each: &mut dyn FnMut(&Identifier),
    ) -> Result<(), StoreError> {
        let world = self.0.lock();
        for ordinal in profiles {
            world.identifiers.get(&(shard, ordinal)).into_iter().flatten().for_each(&mut *each);
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
