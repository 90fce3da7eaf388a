//! Events on their way into files: as they were encoded, and where each belongs.
//!
//! In a file events lie by name, then by time: who asks for some names reads the row groups of these alone.

use std::collections::HashMap;

use crate::model::Event;
use crate::model::Millis;
use crate::model::ShardId;
use crate::model::codec::Reader;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::store::journal::EventNo;
use crate::store::journal::Position;

use super::ArchiveError;
use super::pace::Pace;
use super::write::Files;
use super::write::Place;

/// Some events, encoded one behind the other.
pub(super) struct Pile<'a> {
    pace: &'a Pace,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The names that there are, numbered as they came.
    names: HashMap<Box<str>, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    day: Day,
    shard: ShardId,
    name: u32,
    time: Millis,
    no: EventNo,
    start: usize,
}

impl<'a> Pile<'a> {
    /// An empty one. Its events are taken and written at this pace.
    pub(super) fn new(pace: &'a Pace) -> Self {
        Self { pace, bytes: Vec::new(), entries: Vec::new(), names: HashMap::new() }
    }

    pub(super) fn add(&mut self, no: EventNo, event: &Event, shard: ShardId) {
        let name = match self.names.get(&event.name) {
            Some(name) => *name,
            None => {
                let name = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.names.insert(event.name.clone(), name);
                name
            }
        };
        let (day, time) = (day_of(event.time), event.time);
        self.entries.push(Entry { day, shard, name, time, no, start: self.bytes.len() });
        event.encode(&mut self.bytes);
        self.pace.event();
    }

    /// Writes a file for each day and shard, of events that lie between two positions of the journal.
    pub(super) fn write(
        mut self,
        files: &mut Files<'_>,
        from: Position,
        to: Position,
    ) -> Result<(), ArchiveError> {
        let mut names: Vec<(&str, u32)> =
            self.names.iter().map(|(name, number)| (&**name, *number)).collect();
        names.sort_unstable();
        let mut ranks = vec![0; names.len()];
        for (rank, (_, number)) in (0..).zip(names) {
            ranks[number as usize] = rank;
        }
        self.entries.iter_mut().for_each(|entry| entry.name = ranks[entry.name as usize]);
        self.entries.sort_unstable();
        for group in self.entries.chunk_by(|a, b| (a.day, a.shard) == (b.day, b.shard)) {
            let place = Place { day: group[0].day, shard: group[0].shard, from, to };
            files.write(place, |push| {
                group.iter().try_for_each(|entry| {
                    self.pace.event();
                    let mut reader = Reader::new(&self.bytes[entry.start..]);
                    let event = Event::decode(&mut reader);
                    push(entry.no, &event.expect("it was encoded just before"))
                })
            })?;
        }
        Ok(())
    }
}
