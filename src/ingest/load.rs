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

/// Reads what was committed of some shards; of all where `own` is `None`.
pub(crate) fn load(
    state: &dyn State,
    retention: Millis,
    own: Option<&[ShardId]>,
) -> Result<(Memory, Vec<Sizes>), StoreError> {
    let loaded = state.load()?;
    let keys = Keys::new(loaded.identity);
    let all: Vec<ShardId> = (0..keys.shards()).collect();
    let own = own.unwrap_or(&all);
    let mut memory = Memory::new(keys, retention, loaded.checkpoint, own);
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
    let shards = load_shards(state, own, &keys, &memory.namespaces, &traits)?;
    memory.traits = Arc::new(traits);
    let mut sizes = vec![Sizes::default(); memory.shards.len()];
    for (number, shard, size) in shards {
        memory.shards[usize::from(number)] = shard;
        sizes[usize::from(number)] = size;
    }
    Ok((memory, sizes))
}

/// Reads shards, some at a time.
fn load_shards(
    state: &dyn State,
    own: &[ShardId],
    keys: &Keys,
    namespaces: &Namespaces,
    traits: &Traits,
) -> Result<Vec<(ShardId, Shard, Sizes)>, StoreError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(own.len()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(own.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(number) = own.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let loaded = load_shard(state, *number, keys, namespaces, traits);
                    done.lock().push(loaded.map(|(shard, sizes)| (*number, shard, sizes)));
                }
            });
        }
    });
    done.into_inner().into_iter().collect()
}

/// Reads one shard, and the bytes of its deltas and images.
pub(super) fn load_shard(
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
