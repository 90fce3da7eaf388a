//! `backup.json`: what a backup holds, as of when.

use std::collections::BTreeSet;
use std::path::Component;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use super::MADE_SEGMENTS;
use super::restore::RestoreError;
use crate::model::Millis;

/// The manifest's name.
pub const MANIFEST: &str = "backup.json";
/// The version of the manifest's form, and of what a directory with one holds.
const FORMAT: u32 = 1;
const PRODUCT: &str = "throng";
/// Longer is no manifest: an archive of a hundred thousand files takes 20 MiB.
const LONGEST: u64 = 1 << 30;

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// `throng`.
    pub product: String,
    /// The version of this form.
    pub format: u32,
    /// The version of the program that made it.
    pub version: String,
    /// When it was asked for; written as RFC 3339.
    #[serde(with = "crate::model::rfc3339")]
    pub begun: Millis,
    /// T of the copy: every event acknowledged before it is in; written as RFC 3339.
    #[serde(with = "crate::model::rfc3339")]
    pub true_for: Millis,
    /// How many shards the store has.
    pub shards: u16,
    /// What there is, counted.
    pub counts: Counts,
    /// Every file but this one, in order of path.
    pub files: Vec<File>,
}

/// What a backup holds, counted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Counts {
    /// Events counted as of the state's snapshot.
    pub counted: u64,
    /// Records of the journal that the fold goes on with after a restore.
    pub to_fold: u64,
    /// Profiles, as many as there were when the backup began.
    pub profiles: u64,
    /// Files of the archive.
    pub archive_files: u64,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path below the directory, with `/` between names.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// What any version of the manifest says.
#[derive(Deserialize)]
struct Head {
    product: String,
    format: u32,
    version: String,
}

impl Manifest {
    /// A manifest of this version.
    pub(super) fn new(
        begun: Millis,
        true_for: Millis,
        shards: u16,
        counts: Counts,
        files: Vec<File>,
    ) -> Self {
        let (product, version) = (PRODUCT.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Self { product, format: FORMAT, version, begun, true_for, shards, counts, files }
    }

    /// How many bytes its files have.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The manifest as JSON without its list of files.
    pub fn summary(&self) -> serde_json::Value {
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        shown["files"] = self.files.len().into();
        shown["bytes"] = self.bytes().into();
        let made = self.files.iter().filter(|file| file.path.starts_with(MADE_SEGMENTS)).count();
        if made > 0 {
            shown["made_segments"] = made.into();
        }
        shown
    }

    /// Reads the manifest of a directory.
    pub(super) fn read(dir: &Path) -> Result<Self, RestoreError> {
        let path = dir.join(MANIFEST);
        let foreign =
            |what: &str| RestoreError::Foreign { path: path.clone(), what: what.to_owned() };
        let text = match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > LONGEST => return Err(foreign("it is too long")),
            Ok(_) => std::fs::read(&path).map_err(super::failed("read", &path))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(RestoreError::NoBackup(dir.to_owned()));
            }
            Err(error) => return Err(super::failed("read", &path)(error).into()),
        };
        let head: Head =
            serde_json::from_slice(&text).map_err(|error| foreign(&error.to_string()))?;
        if head.product != PRODUCT {
            return Err(foreign("another program wrote it"));
        }
        if head.format != FORMAT {
            return Err(foreign(&format!(
                "throng {} wrote it as backup format {}, and this version reads {FORMAT}; restore with that \
                 version or a later one",
                head.version.escape_default(),
                head.format
            )));
        }
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| foreign(&error.to_string()))?;
        let mut seen = BTreeSet::new();
        for file in &manifest.files {
            let is_below =
                Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_)));
            if !is_below || file.path.is_empty() || !seen.insert(&file.path) {
                return Err(foreign(&format!("it lists `{}`", file.path.escape_default())));
            }
        }
        Ok(manifest)
    }
}
