//! The identifiers of members, each once.

use std::collections::HashSet;
use std::hash::Hasher;

use siphasher::sip128::Hasher128;
use siphasher::sip128::SipHasher24;

use super::AskError;
use super::Segments;
use super::Which;
use crate::model::Namespace;
use crate::plan::Members;
use crate::store::StoreError;

impl Segments {
    /// Gives the values that members hold in a namespace, each once, in no order, until `each` says that it
    /// wants no more.
    pub fn members_of(
        &self,
        members: &Members,
        namespace: &Namespace,
        each: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), AskError> {
        // An owner is there once; only a value that others hold too can come twice. Kept are keyed hashes
        // of 128 bits: among billions no two are equal, and nobody can make two.
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| StoreError::Unavailable {
            what: "the system's random numbers".to_owned(),
            source: Box::new(error),
        })?;
        let hash = |value: &str| {
            let mut hasher = SipHasher24::new_with_key(&key);
            hasher.write(value.as_bytes());
            let hash = hasher.finish128();
            [hash.h1, hash.h2]
        };
        let mut seen: HashSet<[u64; 2]> = HashSet::new();
        let mut wanted = true;
        let shards = &*self.parts.shards;
        shards.values(Which::Others, &members.shards, namespace, &mut |value| {
            wanted = !seen.insert(hash(value)) || each(value);
            wanted
        })?;
        if wanted {
            shards.values(Which::Owner, &members.shards, namespace, &mut |value| {
                (!seen.is_empty() && seen.contains(&hash(value))) || each(value)
            })?;
        }
        Ok(())
    }
}
