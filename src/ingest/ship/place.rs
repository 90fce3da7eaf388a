//! How far a journal is shipped, and under which name, in a file of the data directory.
//!
//! The place spares work after a restart and is not trusted: to ship from before it changes nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::store::embedded::write_small_file;
use crate::store::journal::Position;

/// The file's name in the data directory.
const FILE: &str = "shipped";

/// Where shipping goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Everything before it is in the lanes.
    pub(super) shipped: Position,
    /// How often the journal was found to be another than the one that was shipped.
    pub(super) turn: u32,
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
        let (shipped, turn) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { shipped: Position(shipped.parse().ok()?), turn: turn.parse().ok()? })
    }

    pub(super) fn write(self, data: &Path) -> Result<(), PlaceError> {
        let path = data.join(FILE);
        let text = format!("{} {}\n", self.shipped, self.turn);
        write_small_file(&path, text.as_bytes(), 0o600).map_err(|source| PlaceError {
            action: "write",
            path,
            source,
        })
    }
}
