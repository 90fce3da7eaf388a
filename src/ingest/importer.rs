//! Imports: takes the lines of a file in order, each once, whatever happens on the way.
//!
//! How far an import has come is what the journal says. The fold tells up to where it has folded; what was
//! appended since is remembered here, and a restart folds it before the first question is answered.

use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;

use crate::ingest::canonical::Agents;
use crate::ingest::canonical::Dropped;
use crate::ingest::canonical::Import;
use crate::ingest::canonical::import_lines;
use crate::metrics::Metrics;
use crate::model::NamespaceOrder;
use crate::model::Outcome;
use crate::model::Record;
use crate::net::Clock;
use crate::store::journal::Batch;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;

/// Waits until everything appended is folded, and tells the last line taken of an import, 0 of an unknown one;
/// `None` where that takes too long.
pub type Progress = Box<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// Why lines were not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// They are not the ones that come next.
    #[error("lines up to {taken} were taken; send line {} next", .taken + 1)]
    OutOfOrder {
        /// The last line taken.
        taken: u64,
    },
    /// The name is no name.
    #[error("an import's name is 1 to 200 bytes without control characters")]
    Name,
    /// The lines do not fit in one batch of the journal.
    #[error("these lines are too many for one request; send fewer")]
    TooLarge,
    /// The fold is too far behind, or has stopped.
    #[error("the fold has not come so far yet; try again")]
    Behind,
    /// The journal did not take them.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What became of some lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The last line taken of the whole import.
    pub lines: u64,
    /// How many of these lines were accepted.
    pub accepted: u64,
    /// How many of these lines were rejected.
    pub rejected: u64,
}

/// Takes the lines of imports.
pub struct Importer {
    sink: Arc<dyn Sink>,
    folded: Progress,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    order: NamespaceOrder,
    countries: Vec<(String, String)>,
    /// The imports that lines were sent of since the start. Each has a lock of its own, so that its lines
    /// are appended in order and others need not wait.
    slots: Mutex<HashMap<Box<str>, Arc<Mutex<Slot>>>>,
}

/// An import that goes on.
struct Slot {
    /// The last line appended.
    appended: u64,
    agents: Agents,
}

impl Importer {
    /// Imports into a sink; `folded` knows how far imports are. `countries` are those of sites whose phone
    /// numbers lack one.
    pub fn new(
        sink: Arc<dyn Sink>,
        folded: Progress,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        order: NamespaceOrder,
        countries: Vec<(String, String)>,
    ) -> Self {
        Self { sink, folded, clock, metrics, order, countries, slots: Mutex::default() }
    }

    /// The last line that was taken of an import; 0 of an unknown one. Blocks until the fold has come
    /// after, the first time.
    pub fn taken(&self, name: &str) -> Result<u64, ImportError> {
        check(name)?;
        let slot = self.slots.lock().get(name).cloned();
        match slot {
            Some(slot) => Ok(slot.lock().appended),
            None => self.folded(name),
        }
    }

    /// Takes lines of NDJSON, the first with the number `first_line`. Lines that were taken before are
    /// left out; a gap is refused. Blocks until they are durable.
    pub fn take(&self, name: &str, first_line: u64, text: &[u8]) -> Result<Taken, ImportError> {
        let slot = self.slot(name)?;
        let mut slot = slot.lock();
        let Slot { appended, agents } = &mut *slot;
        if first_line == 0 || first_line > *appended + 1 {
            return Err(ImportError::OutOfOrder { taken: *appended });
        }
        let (first_line, text) = skip_lines(text, first_line, *appended + 1);
        let countries: Vec<(&str, &str)> =
            self.countries.iter().map(|(site, country)| (&**site, &**country)).collect();
        let import = Import {
            name,
            received: self.clock.now(),
            order: &self.order,
            phone_countries: &countries,
        };
        let mut dropped = Dropped::default();
        let lines = import_lines(&import, first_line, text, agents, &mut dropped);
        for (reason, count) in dropped.iter() {
            let counter = &self.metrics.collect_identifiers_dropped;
            counter.with_label_values(&[reason.as_str()]).inc_by(u64::from(count));
        }
        if lines.lines == 0 {
            return Ok(Taken { lines: *appended, accepted: 0, rejected: 0 });
        }
        let taken = Taken {
            lines: lines.first_line + lines.lines - 1,
            accepted: lines.events.len() as u64,
            rejected: lines.rejected.len() as u64,
        };
        let mut batch = Batch::new();
        batch.push(&Record::Import(lines)).map_err(|_| ImportError::TooLarge)?;
        self.sink.append(&batch)?;
        *appended = taken.lines;
        let count = |outcome: Outcome, events: u64| {
            let labels = ["import", outcome.as_str()];
            self.metrics.collect_events.with_label_values(&labels).inc_by(events);
        };
        count(Outcome::Accepted, taken.accepted);
        count(Outcome::Invalid, taken.rejected);
        Ok(taken)
    }

    fn slot(&self, name: &str) -> Result<Arc<Mutex<Slot>>, ImportError> {
        check(name)?;
        if let Some(slot) = self.slots.lock().get(name) {
            return Ok(slot.clone());
        }
        let slot = Slot { appended: self.folded(name)?, agents: Agents::default() };
        let mut slots = self.slots.lock();
        Ok(slots.entry(name.into()).or_insert_with(|| Arc::new(Mutex::new(slot))).clone())
    }

    /// The last line folded of an import of which nothing was appended since the start: so it is the last.
    fn folded(&self, name: &str) -> Result<u64, ImportError> {
        (self.folded)(name).ok_or(ImportError::Behind)
    }
}

fn check(name: &str) -> Result<(), ImportError> {
    if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
        return Err(ImportError::Name);
    }
    Ok(())
}

/// Leaves out lines before `wanted`.
fn skip_lines(text: &[u8], mut line: u64, wanted: u64) -> (u64, &[u8]) {
    let mut rest = text;
    while line < wanted && !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        rest = &rest[end..];
        line += 1;
    }
    (line, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_were_taken_are_left_out() {
        assert_eq!(skip_lines(b"a\nb\nc", 1, 3), (3, &b"c"[..]));
        assert_eq!(skip_lines(b"a\nb\n", 4, 4), (4, &b"a\nb\n"[..]));
        assert_eq!(skip_lines(b"a\nb\n", 1, 9), (3, &b""[..]));
    }
}
