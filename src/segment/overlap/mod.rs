//! Overlaps: how many members the audiences of one generation share, exactly.
//!
//! The node that publishes has all audiences of all shards, so nothing is asked of others. Counted is shard by shard,
//! on several threads.

mod pairs;
mod regions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;

use super::AskError;
use super::Audience;
use super::Caller;
use super::Generation;
use crate::plan::Members;
use crate::rules::Level;

/// The regions of more audiences are told to nobody: each doubles them.
pub const MOST_APART: usize = 6;
/// No more rows, and no more columns, in a table of pairs.
pub const MOST_PAIRED: usize = 100;

/// Why there is no overlap to tell.
#[derive(Debug, thiserror::Error)]
pub enum OverlapError {
    /// There is no such segment.
    #[error("there is no segment {0}")]
    Unknown(String),
    /// Too many are named, or none.
    #[error("{named} audiences are named{place}: name 1 to {most}{hint}")]
    Count {
        /// How many.
        named: usize,
        /// Where.
        place: &'static str,
        /// How many may be.
        most: usize,
        /// What else there is.
        hint: &'static str,
    },
    /// One is named more than once.
    #[error("{0} is named twice; name each audience once")]
    Twice(String),
    /// They are not of one level.
    #[error(
        "{person} has persons for members and {device} devices: only audiences of one level are compared"
    )]
    Levels {
        /// One at level `person`.
        person: String,
        /// One at level `device`.
        device: String,
    },
    /// One has no members yet.
    #[error("{id} has no members yet: it is {state}")]
    NotYet {
        /// Which.
        id: String,
        /// What state it is in.
        state: String,
        /// Whether it has none for as long as its look-alike cannot be trained: waiting alone does not help.
        is_untrained: bool,
    },
    /// The answer is not wanted any more.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// The regions of some audiences: who is in these and in none of the others.
#[derive(Debug)]
pub struct Regions {
    /// The audiences, as they were named.
    pub audiences: Vec<Arc<Audience>>,
    /// What one member is.
    pub level: Level,
    /// How many members are in any of the audiences.
    pub any: u64,
    /// All regions but that of who is in none: those of one audience first, then of two, and so on.
    pub regions: Vec<Region>,
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The places of the audiences that its members are in.
    pub inside: Vec<usize>,
    /// How many they are.
    pub members: u64,
}

/// How many members each of some audiences shares with each of others.
#[derive(Debug)]
pub struct Pairs {
    /// The audiences of the rows.
    pub rows: Vec<Arc<Audience>>,
    /// The audiences of the columns.
    pub columns: Vec<Arc<Audience>>,
    /// What one member is.
    pub level: Level,
    /// For each row, how many members it shares with each column.
    pub members: Vec<Vec<u64>>,
}

impl Generation {
    /// Counts the regions of up to [`MOST_APART`] audiences.
    pub fn regions(&self, ids: &[String], caller: &Caller) -> Result<Regions, OverlapError> {
        let hint = "; a table of pairs takes more";
        check_count(ids, "", MOST_APART, hint)?;
        let audiences = self.named(ids)?;
        let level = one_level(audiences.iter())?;
        let members = members_of(&audiences)?;
        let all = 1 << members.len();
        let sizes = by_shard(&members, all, caller, regions::count)?;
        let mut masks: Vec<usize> = (1..all).collect();
        masks.sort_by_key(|mask| (mask.count_ones(), std::cmp::Reverse(mask.reverse_bits())));
        let regions = masks.into_iter().map(|mask| {
            let inside = (0..members.len()).filter(|place| mask >> place & 1 == 1).collect();
            Region { inside, members: sizes[mask] }
        });
        let regions = regions.collect();
        Ok(Regions { audiences, level, any: sizes.iter().sum(), regions })
    }

    /// Counts what each of up to [`MOST_PAIRED`] audiences shares with each of as many.
    pub fn pairs(
        &self,
        rows: &[String],
        columns: &[String],
        caller: &Caller,
    ) -> Result<Pairs, OverlapError> {
        check_count(rows, " for rows", MOST_PAIRED, "")?;
        check_count(columns, " for columns", MOST_PAIRED, "")?;
        let (rows, columns) = (self.named(rows)?, self.named(columns)?);
        let level = one_level(rows.iter().chain(&columns))?;
        // Who is in both is looked at once, and each two once.
        let mut of_both = rows.clone();
        let place_of = |audience: &Arc<Audience>, all: &mut Vec<Arc<Audience>>| {
            all.iter().position(|known| Arc::ptr_eq(known, audience)).unwrap_or_else(|| {
                all.push(audience.clone());
                all.len() - 1
            })
        };
        let places: Vec<usize> =
            columns.iter().map(|column| place_of(column, &mut of_both)).collect();
        let members = members_of(&of_both)?;
        let two = |row: usize, column: usize| (row.min(column), row.max(column));
        let wanted: BTreeSet<(usize, usize)> = (0..rows.len())
            .flat_map(|row| places.iter().map(move |place| two(row, *place)))
            .filter(|(a, b)| a != b)
            .collect();
        let wanted: Vec<(usize, usize)> = wanted.into_iter().collect();
        let shared = by_shard(&members, wanted.len(), caller, |shard, sizes| {
            pairs::count(shard, &wanted, sizes);
        })?;
        let size = |row: usize, column: usize| match wanted.binary_search(&two(row, column)) {
            Ok(at) => shared[at],
            Err(_) => members[row].len(),
        };
        let of_row = |row| places.iter().map(|column| size(row, *column)).collect();
        let members = (0..rows.len()).map(of_row).collect();
        Ok(Pairs { rows, columns, level, members })
    }

    fn named(&self, ids: &[String]) -> Result<Vec<Arc<Audience>>, OverlapError> {
        let mut seen = BTreeSet::new();
        let found = ids.iter().map(|id| {
            let audience = self.audiences.get(id);
            let audience = audience.ok_or_else(|| OverlapError::Unknown(id.clone()))?;
            match seen.insert(id) {
                true => Ok(audience.clone()),
                false => Err(OverlapError::Twice(id.clone())),
            }
        });
        found.collect()
    }
}

fn check_count(
    ids: &[String],
    place: &'static str,
    most: usize,
    hint: &'static str,
) -> Result<(), OverlapError> {
    match ids.len() {
        named if named == 0 || named > most => {
            Err(OverlapError::Count { named, place, most, hint })
        }
        _ => Ok(()),
    }
}

/// The level that all of them have. Who is a person of several profiles is one member at one level and several at
/// the other, so that they cannot be compared.
fn one_level<'a>(
    audiences: impl Iterator<Item = &'a Arc<Audience>> + Clone,
) -> Result<Level, OverlapError> {
    let first = |level| {
        let mut files = audiences.clone().map(|audience| &audience.segment.file);
        files.find(|file| file.level == level).map(|file| file.id.clone())
    };
    match (first(Level::Person), first(Level::Device)) {
        (Some(person), Some(device)) => Err(OverlapError::Levels { person, device }),
        (None, Some(_)) => Ok(Level::Device),
        _ => Ok(Level::Person),
    }
}

fn members_of(audiences: &[Arc<Audience>]) -> Result<Vec<Arc<Members>>, OverlapError> {
    let members = audiences.iter().map(|audience| {
        audience.members.clone().ok_or_else(|| OverlapError::NotYet {
            id: audience.segment.file.id.clone(),
            state: audience.state.to_string(),
            is_untrained: audience.is_untrained(),
        })
    });
    members.collect()
}

/// Counts shard by shard, on several threads, and sums up: `count` is given the bitmaps of one shard and adds to so
/// many sizes.
fn by_shard(
    members: &[Arc<Members>],
    sizes: usize,
    caller: &Caller,
    count: impl Fn(&[&RoaringBitmap], &mut [u64]) + Sync,
) -> Result<Vec<u64>, AskError> {
    let shards = members.iter().map(|members| members.shards.len()).max().unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(shards).max(1);
    let next = AtomicUsize::new(0);
    let none = RoaringBitmap::new();
    let work = || -> Result<Vec<u64>, AskError> {
        let mut found = vec![0; sizes];
        loop {
            caller.still_wanted()?;
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= shards {
                return Ok(found);
            }
            let of = members.iter().map(|members| members.shards.get(shard));
            let of: Vec<&RoaringBitmap> = of.map(|of| of.map_or(&none, |of| &**of)).collect();
            count(&of, &mut found);
        }
    };
    let mut all = vec![0; sizes];
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut add = |found: Result<Vec<u64>, AskError>| -> Result<(), AskError> {
            all.iter_mut().zip(found?).for_each(|(sum, found)| *sum += found);
            Ok(())
        };
        add(work())?;
        for other in others {
            match other.join() {
                Ok(found) => add(found)?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
    .map(|()| all)
}
