//! How far a journal is shipped, and under which name, in a file of the data directory.
//!
//! The place spares work after a restart and is not trusted: to ship from before it changes nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::model::Millis;
use crate::store::embedded::write_small_file;
use crate::store::journal::Position;

/// The file's name in the data directory.
const FILE: &str = "shipped";

/// Where shipping goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Everything before it is in the lanes.
    pub(super) shipped: Position,
    /// How often the journal was found to be another than the one that was shipped.
    pub(super) turn: u32,
    /// The store that it was shipped to.
    pub(super) store: String,
    /// The last number that was acknowledged in each lane.
    pub(super) acknowledged: Vec<u64>,
    /// The last mark that was told, about.
    pub(super) mark: Option<Millis>,
}

/// The place cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", .path.display())]
pub struct PlaceError {
    /// What was tried.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system answered.
    #[source]
    pub source: io::Error,
}

/// How far the journal of a data directory is shipped, as far as is known. So far it was durable once.
pub fn shipped(data: &Path) -> Result<Position, PlaceError> {
    Ok(Place::read(data)?.unwrap_or_default().shipped)
}

/// The last mark that was told of the journal of a data directory, as far as is known.
pub fn marked(data: &Path) -> Result<Option<Millis>, PlaceError> {
    Ok(Place::read(data)?.and_then(|place| place.mark))
}

impl Place {
    /// The place that was written down, where one was that can be read.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, PlaceError> {
        let path = data.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PlaceError { action: "read", path, source }),
        };
        let place = Self::parse(&String::from_utf8_lossy(&bytes));
        if place.is_none() {
            tracing::warn!(
                "{} is not what was written there; the journal is shipped anew",
                path.display()
            );
        }
        Ok(place)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.lines();
        let (shipped, turn) = lines.next()?.split_once(' ')?;
        let (shipped, turn) = (Position(shipped.parse().ok()?), turn.parse().ok()?);
        let mut words = lines.next().unwrap_or_default().split(' ');
        let store = words.next().unwrap_or_default().to_owned();
        let acknowledged = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let mark = lines.next().and_then(|mark| mark.parse().ok());
        Some(Self { shipped, turn, store, acknowledged, mark })
    }

    pub(super) fn write(&self, data: &Path) -> Result<(), PlaceError> {
        let path = data.join(FILE);
        let mut text = format!("{} {}\n{}", self.shipped, self.turn, self.store);
        self.acknowledged.iter().for_each(|number| text.push_str(&format!(" {number}")));
        text.push('\n');
        if let Some(mark) = self.mark {
            text.push_str(&format!("{mark}\n"));
        }
        write_small_file(&path, text.as_bytes(), 0o600).map_err(|source| PlaceError {
            action: "write",
            path,
            source,
        })
    }
}
