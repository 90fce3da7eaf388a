//! Reads memory back from the store at start: images, then the deltas after them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::identity::Keys;
use super::identity::Namespaces;
use super::memory::Memory;
use super::schema::Schema;
use super::shard::Shard;
use super::skips::Skips;
use super::traits::Traits;
use crate::bitmap::TraitId;
use crate::model::Millis;
use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::state::Part;
use crate::store::state::PartKind;
use crate::store::state::Piece;
use crate::store::state::State;
use crate::store::state::damaged;

/// The bytes of a shard's deltas and images.
pub(crate) type Sizes = (u64, u64);

/// Reads what was committed.
pub(crate) fn load(
    state: &dyn State,
    retention: Millis,
) -> Result<(Memory, Vec<Sizes>), StoreError> {
    let loaded = state.load()?;
    let keys = Keys::new(loaded.identity);
    let mut memory = Memory::new(keys, retention, loaded.checkpoint);
    memory.namespaces = Namespaces::load(loaded.namespaces).map_err(damaged)?;
    memory.skips = Skips::load(&loaded.skips).map_err(damaged)?;
    memory.schema = Schema::load(&loaded.schema).map_err(damaged)?;
    let imports = loaded.imports.into_iter();
    memory.imports = imports.map(|progress| (progress.import.clone(), progress)).collect();
    memory.next_trait = loaded.next_trait;
    let mut traits = Traits::default();
    for row in &loaded.traits {
        if !traits.load(row) {
            memory.pending.dropped_traits.insert(row.id);
        }
    }
    let shards = load_shards(state, &keys, &memory.namespaces, &traits)?;
    memory.traits = Arc::new(traits);
    let mut sizes = Vec::with_capacity(shards.len());
    for (place, (shard, size)) in memory.shards.iter_mut().zip(shards) {
        *place = shard;
        sizes.push(size);
    }
    Ok((memory, sizes))
}

/// Reads all shards, some at a time.
fn load_shards(
    state: &dyn State,
    keys: &Keys,
    namespaces: &Namespaces,
    traits: &Traits,
) -> Result<Vec<(Shard, Sizes)>, StoreError> {
    let count = usize::from(keys.shards());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(shard) = u16::try_from(number).ok().filter(|n| *n < keys.shards())
                    else {
                        break;
                    };
                    let loaded = load_shard(state, shard, keys, namespaces, traits);
                    done.lock().push((shard, loaded));
                }
            });
        }
    });
    let mut done = done.into_inner();
    done.sort_by_key(|(shard, _)| *shard);
    done.into_iter().map(|(_, loaded)| loaded).collect()
}

fn load_shard(
    state: &dyn State,
    number: ShardId,
    keys: &Keys,
    namespaces: &Namespaces,
    traits: &Traits,
) -> Result<(Shard, Sizes), StoreError> {
    let mut shard = Shard::default();
    let (mut deltas, mut images) = (0, 0);
    state.load_shard(number, &mut |piece| {
        match piece {
            Piece::Image(part, bytes) => {
                images += bytes.len() as u64;
                if is_wanted(part, traits) {
                    shard.load(part, bytes, keys, namespaces).map_err(damaged)?;
                }
            }
            Piece::Delta(commit, bytes) => {
                deltas += bytes.len() as u64;
                let keep = |id| traits.wants(id, commit);
                shard.replay(bytes, keys, namespaces, keep).map_err(damaged)?;
            }
        }
        Ok(())
    })?;
    Ok((shard, (deltas, images)))
}

fn is_wanted(part: Part, traits: &Traits) -> bool {
    match part.kind {
        PartKind::Column { id, .. } => traits.is_kept(TraitId(id)),
        PartKind::Owners | PartKind::Others | PartKind::Profiles => true,
    }
}
