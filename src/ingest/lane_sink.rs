//! The sink of a process that appends to the lanes of a shared store: each record goes to the lane of its owner.

use std::sync::Arc;

use super::identity::Keys;
use crate::model::Identifier;
use crate::model::ImportLines;
use crate::model::Record;
use crate::model::codec::Reader;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;
use crate::store::lanes::Layout;
use crate::store::state::Identity;

/// Appends each record to the journal of its owner's lane.
pub struct LaneSink {
    keys: Keys,
    layout: Layout,
    journals: Vec<Arc<dyn Journal>>,
}

impl LaneSink {
    /// Appends to these journals, one for each lane.
    pub fn new(identity: Identity, layout: Layout, journals: Vec<Arc<dyn Journal>>) -> Self {
        Self { keys: Keys::new(identity), layout, journals }
    }

    fn lane(&self, owner: &Identifier) -> usize {
        let place = self.keys.place(owner.namespace.as_str(), owner.value());
        usize::from(self.layout.lane_of(place.shard))
    }

    /// Every lane is told of all lines of an import, and given the events that are its own.
    fn lines(&self, lines: &ImportLines, lane: usize) -> ImportLines {
        let own = lines.events.iter().filter(|line| self.lane(line.event.owner()) == lane);
        ImportLines {
            import: lines.import.clone(),
            first_line: lines.first_line,
            lines: lines.lines,
            events: own.cloned().collect(),
            rejected: if lane == 0 { lines.rejected.clone() } else { Vec::new() },
        }
    }
}

impl Sink for LaneSink {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        let mut parts: Vec<Batch> = self.journals.iter().map(|_| Batch::new()).collect();
        let mut push = |lane: usize, record: &Record| {
            // A part is no larger than the whole, which fits.
            let _ = parts[lane].push(record);
        };
        let mut reader = Reader::new(batch.bytes());
        for _ in 0..batch.len() {
            let record = reader.bytes().and_then(Record::decode).expect("it was encoded here");
            match &record {
                Record::Event(event) => push(self.lane(event.owner()), &record),
                Record::Choice(choice) => push(self.lane(&choice.identifier), &record),
                Record::Import(lines) => {
                    for lane in 0..self.journals.len() {
                        push(lane, &Record::Import(self.lines(lines, lane)));
                    }
                }
            }
        }
        for (journal, part) in self.journals.iter().zip(parts) {
            journal.append(&part)?;
        }
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.journals.iter().find_map(|journal| journal.trouble())
    }
}
