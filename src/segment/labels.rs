//! What others are told of a segment beside its id: its tags, and its place in the taxonomies of others.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::Segments;
use crate::rules::SegmentFile;
use crate::rules::taxonomy::IAB_AUDIENCE;
use crate::rules::taxonomy::iab_audience;

/// A node that publishes nothing reads the files of those that do once in so long.
const READ: Duration = Duration::from_secs(5);

/// What a segment is labelled with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// Its tags.
    pub tags: Vec<String>,
    /// Its id in the IAB Audience Taxonomy 1.1, where it has one that is there.
    pub iab_audience: Option<u32>,
}

/// The labels of live segments, by id.
pub type Labels = BTreeMap<String, Label>;

/// The labels that were made last.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    labels: Arc<Labels>,
    /// The version of the live segments; 0 where others have them.
    version: u64,
    at: Instant,
}

impl Label {
    fn of(file: &SegmentFile) -> Self {
        let iab = file.taxonomy.get(IAB_AUDIENCE).and_then(|id| iab_audience(id));
        Self { tags: file.tags.clone(), iab_audience: iab.map(|(id, _)| id) }
    }
}

impl Segments {
    /// The labels of live segments. On a node that publishes nothing they are some seconds old and may be read from the
    /// store, which blocks.
    pub fn labels(&self) -> io::Result<Arc<Labels>> {
        let live = self.live();
        let mut last = self.labelled.last.lock();
        let fresh = last.as_ref().filter(|last| {
            last.version == live.version && (live.version > 0 || last.at.elapsed() < READ)
        });
        if let Some(fresh) = fresh {
            return Ok(fresh.labels.clone());
        }
        let labels: Labels = match live.version {
            0 => {
                let copies = self.registry.copies()?;
                let files = copies.iter().map(|(id, text)| (id, SegmentFile::parse(id, text).0));
                files.map(|(id, file)| (id.clone(), Label::of(&file))).collect()
            }
            _ => {
                let segments = live.segments.iter();
                segments.map(|(id, segment)| (id.clone(), Label::of(&segment.file))).collect()
            }
        };
        let labels = Arc::new(labels);
        *last = Some(Last { labels: labels.clone(), version: live.version, at: Instant::now() });
        Ok(labels)
    }
}
