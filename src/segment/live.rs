//! The live segments as others see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::Library;
use crate::rules::Body;
use crate::rules::SegmentFile;

/// The live segments at one time.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Grows with every change.
    pub version: u64,
    /// The segments by id.
    pub segments: BTreeMap<String, Arc<Segment>>,
    /// Files whose latest version is not live, and why.
    pub problems: Vec<Problem>,
    /// Why the folder cannot be read, so that what was live stays.
    pub folder: Option<String>,
}

impl Live {
    /// The segments that a rule may name.
    pub(super) fn library(&self) -> Library {
        let mut library = Library::new();
        for segment in self.segments.values() {
            library.insert(&segment.file.id, segment.file.body.clone());
        }
        library
    }

    /// How many segments have an audience.
    pub fn count(&self) -> usize {
        self.segments.values().filter(|segment| !segment.hidden).count()
    }
}

/// A live segment.
#[derive(Debug, PartialEq)]
pub struct Segment {
    /// What its file says.
    pub file: SegmentFile,
    /// The file's text.
    pub text: String,
    /// Its file has gone, and another segment still refers to it: no audience, no activation.
    pub hidden: bool,
    /// It cannot be evaluated, though it is as it was when it was good: the settings or what it asks are
    /// others now. Its audience stays as it is, and so do its activations.
    pub frozen: bool,
}

impl Segment {
    /// Whether its members follow every event; those of a look-alike are of its last training.
    pub fn follows(&self) -> bool {
        matches!(self.file.body, Body::Rule(_))
    }
}

/// A file that is not live as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The segment's id: the file's stem.
    pub id: String,
    /// The diagnostics as text, with the lines they point at.
    pub rendered: String,
    /// Whether the last good version is live in its place.
    pub keeps_last_good: bool,
    /// Whether that cannot be evaluated either, so that its audience stands still.
    pub frozen: bool,
}
