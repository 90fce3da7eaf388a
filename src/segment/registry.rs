//! The live segments: the files of the folder, each in its latest good version.
//!
//! A file that is wrong, or made wrong by what another says, keeps its last good version; what is the
//! matter is told in the log once, and by the API for as long as it is so. A segment whose file has gone
//! stays, hidden, while a live one refers to it.

use parking_lot::Mutex;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::plan;
use crate::rules::Diagnostic;
use crate::rules::SegmentFile;
use crate::rules::has_errors;
use crate::segment::folder::Files;
use crate::segment::folder::Folder;

/// The live segments at one time.
#[derive(Debug, Default)]
pub struct Live {
    /// Grows with every change.
    pub version: u64,
    /// The segments by id.
    pub segments: BTreeMap<String, Arc<Segment>>,
    /// Files whose latest version is not live, and why.
    pub problems: Vec<Problem>,
}

/// A live segment.
#[derive(Debug)]
pub struct Segment {
    /// What its file says.
    pub file: SegmentFile,
    /// The file's text.
    pub text: String,
    /// Its file has gone, and another segment still refers to it: no audience, no activation.
    pub hidden: bool,
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
}

/// What was seen and what stands, under one lock.
#[derive(Debug, Default)]
struct Seen {
    files: Option<Files>,
    /// How many namespaces had been seen: one more may make a wrong file right.
    namespaces: usize,
    good: BTreeMap<String, String>,
}

/// Watches the folder and holds the live segments.
#[derive(Debug)]
pub struct Registry {
    folder: Folder,
    seen: Mutex<Seen>,
    live: RwLock<Arc<Live>>,
}

impl Registry {
    /// Opens the folder; nothing is live before the first [`Registry::scan`].
    pub fn open(folder: &Path, data: &Path) -> io::Result<Self> {
        let folder = Folder::new(folder, data)?;
        let seen = Seen { files: None, namespaces: 0, good: folder.read_copies()? };
        Ok(Self { folder, seen: Mutex::new(seen), live: RwLock::default() })
    }

    /// The live segments.
    pub fn live(&self) -> Arc<Live> {
        self.live.read().clone()
    }

    /// The path of a segment's file.
    pub fn file(&self, id: &str) -> PathBuf {
        self.folder.file(id)
    }

    /// Reads the folder and takes what changed; returns whether the live segments are others now.
    pub fn scan(&self, context: &plan::Context<'_>) -> io::Result<bool> {
        let files = self.folder.read()?;
        let mut seen = self.seen.lock();
        let namespaces = context.seen.map_or(0, BTreeSet::len);
        let may_be_right_now =
            namespaces != seen.namespaces && !self.live.read().problems.is_empty();
        if seen.files.as_ref() == Some(&files) && !may_be_right_now {
            return Ok(false);
        }
        seen.namespaces = namespaces;
        let chosen = choose(&files, &seen.good, context);
        for (id, segment) in &chosen.segments {
            if !segment.hidden && seen.good.get(id) != Some(&segment.text) {
                self.folder.keep(id, &segment.text)?;
                seen.good.insert(id.clone(), segment.text.clone());
            }
        }
        let gone: Vec<String> = seen
            .good
            .keys()
            .filter(|id| !files.contains_key(*id) && !chosen.segments.contains_key(*id))
            .cloned()
            .collect();
        for id in gone {
            self.folder.forget(&id)?;
            seen.good.remove(&id);
        }
        seen.files = Some(files);
        drop(seen);
        let before = self.live();
        for problem in chosen.problems.iter().filter(|p| !before.problems.contains(p)) {
            let kept = if problem.keeps_last_good {
                "its last good version stays live"
            } else {
                "there is no good version yet, so it is left out"
            };
            tracing::warn!(
                segment = problem.id,
                "segment {} is wrong; {kept}\n{}",
                problem.id,
                problem.rendered.trim_end()
            );
        }
        let is_same = before.version > 0
            && before.segments.len() == chosen.segments.len()
            && before.segments.iter().all(|(id, old)| {
                chosen
                    .segments
                    .get(id)
                    .is_some_and(|new| new.text == old.text && new.hidden == old.hidden)
            });
        let version = if is_same { before.version } else { before.version + 1 };
        *self.live.write() = Arc::new(Live { version, ..chosen });
        Ok(!is_same)
    }
}

/// A candidate for being live.
struct Candidate {
    segment: Segment,
    is_latest: bool,
}

/// Chooses the latest good version of each segment, so that all of them together have no error.
fn choose(files: &Files, good: &BTreeMap<String, String>, context: &plan::Context<'_>) -> Live {
    let mut candidates: BTreeMap<String, Candidate> = BTreeMap::new();
    let mut problems: BTreeMap<String, String> = BTreeMap::new();
    let last_good = |id: &str, hidden: bool| {
        let text = good.get(id)?;
        let (file, diagnostics) = SegmentFile::parse(id, text);
        let segment = Segment { file, text: text.clone(), hidden };
        (!has_errors(&diagnostics)).then_some(Candidate { segment, is_latest: false })
    };
    for (id, text) in files {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                problems.insert(id.clone(), format!("{id}.toml: {error}"));
                candidates.extend(last_good(id, false).map(|candidate| (id.clone(), candidate)));
                continue;
            }
        };
        let (file, diagnostics) = SegmentFile::parse(id, text);
        if has_errors(&diagnostics) {
            problems.insert(id.clone(), render(id, text, &diagnostics));
            candidates.extend(last_good(id, false).map(|candidate| (id.clone(), candidate)));
        } else {
            let segment = Segment { file, text: text.clone(), hidden: false };
            candidates.insert(id.clone(), Candidate { segment, is_latest: true });
        }
    }
    // Each round replaces or drops at least one candidate that has an error, so this ends.
    loop {
        let set: Vec<&SegmentFile> = candidates.values().map(|c| &c.segment.file).collect();
        let checked = plan::check(&set, context);
        let mut wrong: BTreeMap<String, Vec<Diagnostic>> = BTreeMap::new();
        for (id, diagnostics) in checked {
            if has_errors(&diagnostics) {
                wrong.insert(id, diagnostics);
            }
        }
        if wrong.is_empty() {
            break;
        }
        // What a good version still refers to comes back first, hidden.
        let mut missing: BTreeSet<String> = BTreeSet::new();
        for id in wrong.keys() {
            let Some(candidate) = candidates.get(id) else { continue };
            for name in plan::references_of(&candidate.segment.file.body) {
                let name = &*name.text;
                if !candidates.contains_key(name) && good.contains_key(name) {
                    missing.insert(name.to_owned());
                }
            }
        }
        let mut came_back = false;
        for id in missing {
            if let Some(candidate) = last_good(&id, !files.contains_key(&id)) {
                candidates.insert(id, candidate);
                came_back = true;
            }
        }
        for (id, diagnostics) in wrong {
            let Some(candidate) = candidates.get(&id) else { continue };
            problems
                .entry(id.clone())
                .or_insert_with(|| render(&id, &candidate.segment.text, &diagnostics));
            if came_back {
                continue;
            }
            let replacement = if candidate.is_latest { last_good(&id, false) } else { None };
            match replacement {
                Some(replacement) if replacement.segment.text != candidate.segment.text => {
                    candidates.insert(id, replacement);
                }
                _ => {
                    candidates.remove(&id);
                }
            }
        }
    }
    let problems = problems
        .into_iter()
        .map(|(id, rendered)| {
            let keeps_last_good = candidates.contains_key(&id);
            Problem { id, rendered, keeps_last_good }
        })
        .collect();
    let segments =
        candidates.into_iter().map(|(id, candidate)| (id, Arc::new(candidate.segment))).collect();
    Live { version: 0, segments, problems }
}

fn render(id: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    crate::rules::render(&format!("{id}.toml"), text, diagnostics)
}
