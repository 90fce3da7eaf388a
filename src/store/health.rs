//! What a checkup finds, and the checkup of the servers that a store is kept on.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

/// How something is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Well,
    /// Worth knowing: it could not be looked at, or is about to go wrong.
    Note,
    /// Somebody has to do something.
    Ill,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: String,
    /// How it is.
    pub state: State,
    /// What was found, on one line.
    pub found: String,
    /// What to do, where it is not well.
    pub advice: Option<String>,
}

/// The check that says which servers of a store answer, and which do not.
pub const SERVERS: &str = "servers";

/// Looks at the servers that a store is kept on. Blocks, for some seconds at most.
pub trait Checkup: Send + Sync {
    /// What was found; whether they answer in any case, as [`SERVERS`].
    fn check(&self) -> Vec<Finding>;
}

impl Finding {
    /// All is as it should be.
    pub fn well(check: &str, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Well, found: found.into(), advice: None }
    }

    /// Worth knowing.
    pub fn note(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Note, advice: Some(advice.into()), ..Self::well(check, found) }
    }

    /// Somebody has to do something.
    pub fn ill(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Ill, advice: Some(advice.into()), ..Self::well(check, found) }
    }
}

/// The room of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What an unprivileged process can still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

impl Room {
    /// The room of the file system that holds a path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }
}

/// Writes to a directory, durably; nothing of it stays.
pub fn try_dir(dir: &Path) -> io::Result<()> {
    let trial = dir.join(".throng-checkup");
    let written = std::fs::File::create(&trial).and_then(|mut file| {
        io::Write::write_all(&mut file, b"throng\n")?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&trial);
    written.and(removed)
}

/// Bytes as people read them: `312.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_takes_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        try_dir(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(try_dir(&dir.path().join("gone")).is_err());
        let room = Room::of(dir.path()).unwrap();
        assert!(room.free <= room.total && room.total > 0);
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        let told = [0, 1023, 1024, 1_587_200, 3 << 30].map(bytes);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB"]);
    }
}
