//! The events of the comparison, as columns and as a file that other engines read.

use crate::common::{NOW, TRAITS};
use anyhow::Result;
use loadtest::random::Random;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use throng::bitmap::{Block, Snapshot, TraitId};
use throng::model::time::DAY;
use throng::model::{Measure, Millis};

/// Days with events.
pub(crate) const DAYS: u16 = 30;
/// The instant after the last of them, so that windows of days hold whole days.
pub(crate) const END: Millis = NOW + 1;
/// Shards of the columns.
pub(crate) const SHARDS: u32 = 16;
/// The trait of what the purchases cost, which are a tenth of the events of trait 3.
pub(crate) const COST: TraitId = TraitId(1000);

/// One event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) visitor: u32,
    /// From 0 on, the commonest first.
    pub(crate) of: u16,
    pub(crate) day: u16,
    millis: u32,
    /// 0 where it is no purchase.
    pub(crate) cents: u32,
}

impl Event {
    fn time(&self) -> Millis {
        END - (Millis::from(DAYS) - Millis::from(self.day)) * DAY + Millis::from(self.millis)
    }
}

/// The column of an event's trait.
pub(crate) fn column(of: u16) -> TraitId {
    TraitId(u32::from(of) + 1)
}

/// Where a visitor's facts are.
pub(crate) fn place(visitor: u32) -> (usize, u32) {
    ((visitor % SHARDS) as usize, visitor / SHARDS)
}

/// Draws events, in order of time.
pub(crate) fn draw(count: usize, visitors: u32) -> Vec<Event> {
    let mut random = Random::new(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=TRAITS)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        })
        .collect();
    let small = |number: u64| u32::try_from(number).expect("it was drawn below 32 bits");
    let mut events: Vec<Event> = (0..count)
        .map(|_| {
            let share = f64::from(small(random.below(1 << 32))) / f64::from(u32::MAX);
            let of = sums.partition_point(|edge| *edge < share * sum).min(sums.len() - 1);
            let at = random.below(u64::from(DAYS) * DAY.unsigned_abs());
            let cents =
                if of == 3 && random.below(10) == 0 { 100 + random.below(19_901) } else { 0 };
            Event {
                visitor: small(random.below(u64::from(visitors))),
                of: u16::try_from(of).expect("few traits"),
                day: u16::try_from(at / DAY.unsigned_abs()).expect("few days"),
                millis: small(at % DAY.unsigned_abs()),
                cents: small(cents),
            }
        })
        .collect();
    events.sort_unstable_by_key(|event| (event.day, event.millis));
    events
}

/// The columns of events.
pub(crate) fn columns(events: &[Event], visitors: u32) -> Snapshot {
    let mut shards: Vec<Vec<Block>> = Vec::new();
    for shard in 0..SHARDS {
        let profiles = visitors / SHARDS + u32::from(visitors % SHARDS > shard);
        let blocks = (0..profiles.div_ceil(1 << 16)).map(|number| {
            let mut block = Block::new();
            block.set_population((profiles - (number << 16)).min(1 << 16));
            block
        });
        shards.push(blocks.collect());
    }
    for event in events {
        let (shard, ordinal) = place(event.visitor);
        let block = &mut shards[shard][(ordinal >> 16) as usize];
        let (low, time) = (u16::try_from(ordinal & 0xffff).expect("16 bits"), event.time());
        block.add_fact(TraitId::ANY, low, time, None);
        block.add_fact(column(event.of), low, time, None);
        if event.cents > 0 {
            block.add_fact(COST, low, time, Some(Measure(i64::from(event.cents) * 100)));
        }
    }
    let shards = shards.into_iter().map(|blocks| blocks.into_iter().map(Arc::new).collect());
    Snapshot { shards: shards.collect(), true_for: END, retention: 90 * DAY }
}

/// Writes events as other engines read them: all numbers, the lowest byte first, without a gap.
pub(crate) fn write(events: &[Event], path: &Path) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for Event { visitor, of, day, millis, cents } in events {
        out.write_all(&visitor.to_le_bytes())?;
        out.write_all(&of.to_le_bytes())?;
        out.write_all(&day.to_le_bytes())?;
        out.write_all(&millis.to_le_bytes())?;
        out.write_all(&cents.to_le_bytes())?;
    }
    out.flush()?;
    Ok(())
}
