//! Lanes in other hands, read as they were at one moment while their owners go on.
//!
//! A lane's index is one hash, so one command reads a moment of it, and contents are never written to again. All that
//! a reader needs is that nothing is deleted that its index names, and no frame behind the archive's end: a **pin** is
//! a reader and a time in the lane's hash, and until then commits leave on the list what they replaced, and nothing is
//! released from the stream. A commit after the pin sees it, and one before it has replaced nothing that is in an
//! index read after it. Commits do not wait. A pin that is not renewed is over.

use std::sync::Arc;
use std::time::Duration;

use super::Journal;
use super::Lane;
use super::Mode;
use super::State;
use super::functions;
use super::link::Link;
use super::reply;
use super::store::Store;
use crate::store::StoreError;
use crate::store::journal::Journal as JournalPort;
use crate::store::journal::Position;
use crate::store::state::State as StatePort;

/// Keeps what a lane held when it was pinned.
#[derive(Debug)]
pub struct Pin {
    link: Link,
    key: String,
    reader: String,
}

/// Why a lane is not pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPin {
    /// Nobody has ever taken the lane, so that there is nothing to read.
    Nothing,
    /// Another reads it, for so long at least unless it lets go earlier.
    Taken(String, Duration),
    /// The pin was over: what it kept may be gone.
    Over,
}

/// A lane as it was at one moment.
pub struct Pinned {
    /// What was kept of its fold. It cannot be changed.
    pub state: Arc<dyn StatePort>,
    /// Its journal, which goes on. It holds what lay past the archive's end then.
    pub journal: Arc<dyn JournalPort>,
}

impl Store {
    /// A pin of a lane for a reader, for `ttl`.
    pub fn pin(
        &self,
        lane: u16,
        reader: &str,
        ttl: Duration,
    ) -> Result<Result<Pin, NoPin>, StoreError> {
        let key = self.keys.lane(&self.layout.tag(lane), "lane");
        let pin = Pin { link: self.link.clone(), key, reader: reader.to_owned() };
        Ok(pin.ask(ttl, false)?.map(|()| pin))
    }

    /// Reads a lane that is pinned, as it is now.
    pub fn read_pinned(&self, lane: u16) -> Result<Pinned, StoreError> {
        let tag = self.layout.tag(lane);
        let lane = Arc::new(Lane::of_others(self, &tag)?);
        // Nothing is appended by who reads.
        let journal = Journal::open(self.link.clone(), &self.keys, &tag, Mode::Everysec)?;
        Ok(Pinned { state: Arc::new(State::new(self.clone(), lane)), journal: Arc::new(journal) })
    }

    /// Up to where each lane is committed, and where its journal ends; the end was asked for first.
    pub fn progress(&self) -> Result<Vec<(Position, Position)>, StoreError> {
        let mut found = Vec::new();
        for lane in 0..self.layout.lanes() {
            let tag = self.layout.tag(lane);
            let number = |key: String, field: &str| {
                let mut cmd = redis::cmd("HGET");
                cmd.arg(&key).arg(field);
                Ok::<_, StoreError>(Position(
                    reply::number(&self.link.one(&key, cmd)?).unwrap_or(0),
                ))
            };
            let end = number(self.keys.lane(&tag, "log"), "end")?;
            found.push((number(self.keys.lane(&tag, "lane"), "position")?, end));
        }
        Ok(found)
    }
}

impl Pin {
    /// Keeps it for `ttl` from now on.
    pub fn renew(&self, ttl: Duration) -> Result<Result<(), NoPin>, StoreError> {
        self.ask(ttl, true)
    }

    /// Lets go.
    pub fn let_go(&self) -> Result<(), StoreError> {
        self.ask(Duration::ZERO, true).map(|_| ())
    }

    fn ask(&self, ttl: Duration, again: bool) -> Result<Result<(), NoPin>, StoreError> {
        let (millis, again) = (ttl.as_millis().to_string(), if again { "1" } else { "0" });
        let args = [self.reader.as_bytes(), millis.as_bytes(), again.as_bytes()];
        let answer = self.link.one(&self.key, functions::call("pin", &[&self.key], &args))?;
        let said: Vec<&str> =
            reply::items(&answer).unwrap_or_default().iter().filter_map(reply::text).collect();
        match said[..] {
            ["OK"] => Ok(Ok(())),
            ["NONE"] => Ok(Err(NoPin::Nothing)),
            ["OVER"] => Ok(Err(NoPin::Over)),
            // Of a pin that was held it says the same: it was over.
            ["TAKEN", ..] if again == "1" => Ok(Err(NoPin::Over)),
            ["TAKEN", reader, left] => {
                let left = Duration::from_millis(left.parse().unwrap_or(0));
                Ok(Err(NoPin::Taken(reader.to_owned(), left)))
            }
            _ => Err(self.link.odd("a pin")),
        }
    }
}
