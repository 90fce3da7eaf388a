//! Lists in memory: four bytes for each profile, and each list that some profiles share once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::BLOCK;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::store::StoreError;
use crate::store::audiences::Found;
use crate::store::audiences::Last;
use crate::store::audiences::Legend;
use crate::store::audiences::Listed;
use crate::store::audiences::Lists;
use crate::store::audiences::Names;
use crate::store::audiences::Whose;
use crate::store::audiences::encode_list;
use crate::store::state::damaged;

/// The lists of a store, as of one generation.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// `None` before they were made.
    of: Option<Last>,
    names: Names,
    legend: Legend,
    /// By shard and block, the place of each profile's list; 0 where it has none.
    blocks: HashMap<(ShardId, u32), Box<[u32]>>,
    kinds: Kinds,
}

/// Each list once, by a number that is at least 1.
#[derive(Debug, Default)]
struct Kinds {
    lists: Vec<Arc<[u8]>>,
    /// How many profiles have it.
    uses: Vec<u32>,
    numbers: HashMap<Arc<[u8]>, u32>,
    free: Vec<u32>,
}

impl Memory {
    pub(super) fn listed(&self) -> Option<Listed> {
        self.of.map(|of| Listed { of, names: self.names.clone() })
    }

    /// Takes a change over, or lists that are whole.
    pub(super) fn take(&mut self, lists: &Lists) {
        if lists.is_whole {
            (self.blocks, self.kinds) = Default::default();
        }
        for (whose, numbers) in &lists.changed {
            let Some(ordinal) = whose.ordinal else { continue };
            let (block, at) = place(ordinal);
            let bytes = encode_list(numbers);
            let key = (whose.shard, block);
            if bytes.is_empty() && !self.blocks.contains_key(&key) {
                continue;
            }
            let new = self.kinds.take(bytes);
            let empty = || vec![0; BLOCK as usize].into_boxed_slice();
            let block = self.blocks.entry(key).or_insert_with(empty);
            self.kinds.give(std::mem::replace(&mut block[at], new));
        }
        self.of = Some(lists.of);
        if self.names != lists.names {
            (self.names, self.legend) = (lists.names.clone(), Legend::of(&lists.names));
        }
    }

    /// The bytes they take, about, and how many profiles have one.
    pub(super) fn size(&self) -> (u64, u64) {
        let blocks = self.blocks.len() as u64 * u64::from(BLOCK) * 4;
        // Each list, what finds it, and what the allocator adds.
        let kinds: u64 = self.kinds.lists.iter().map(|list| list.len() as u64 + 80).sum();
        (blocks + kinds, self.kinds.uses.iter().map(|uses| u64::from(*uses)).sum())
    }

    pub(super) fn look(&self, whose: Whose) -> Result<Option<Found>, StoreError> {
        let Some(of) = self.of else { return Ok(None) };
        let kind = whose.ordinal.map_or(0, |ordinal| {
            let (block, at) = place(ordinal);
            self.blocks.get(&(whose.shard, block)).map_or(0, |block| block[at])
        });
        let bytes = kind.checked_sub(1).map(|kind| &*self.kinds.lists[kind as usize]);
        Ok(Some(self.legend.read(of, bytes.unwrap_or_default()).map_err(damaged)?))
    }
}

fn place(ordinal: Ordinal) -> (u32, usize) {
    (ordinal / BLOCK, (ordinal % BLOCK) as usize)
}

impl Kinds {
    fn take(&mut self, bytes: Vec<u8>) -> u32 {
        if bytes.is_empty() {
            return 0;
        }
        if let Some(number) = self.numbers.get(&bytes[..]) {
            self.uses[*number as usize - 1] += 1;
            return *number;
        }
        let bytes: Arc<[u8]> = bytes.into();
        let number = match self.free.pop() {
            Some(number) => {
                self.lists[number as usize - 1] = bytes.clone();
                self.uses[number as usize - 1] = 1;
                number
            }
            None => {
                self.lists.push(bytes.clone());
                self.uses.push(1);
                u32::try_from(self.lists.len()).expect("no more lists than profiles")
            }
        };
        self.numbers.insert(bytes, number);
        number
    }

    fn give(&mut self, number: u32) {
        let Some(at) = number.checked_sub(1).map(|at| at as usize) else { return };
        self.uses[at] -= 1;
        if self.uses[at] == 0 {
            let bytes = std::mem::replace(&mut self.lists[at], Arc::new([]));
            self.numbers.remove(&bytes);
            self.free.push(number);
        }
    }
}
