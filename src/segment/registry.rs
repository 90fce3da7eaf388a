//! The live segments: the files of the folder, each in its latest good version.
//!
//! A file that is wrong, or made wrong by what another says, keeps its last good version; what is the
//! matter is told in the log once, and by the API for as long as it is so. A segment whose file has gone
//! stays, hidden, while a live one refers to it. A folder that cannot be read changes nothing.

use parking_lot::Mutex;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::choose::Chosen;
use super::choose::choose;
use super::folder::Files;
use super::folder::Folder;
use super::live::Live;
use super::live::Problem;
use super::live::Segment;
use super::proposal::Changes;
use crate::plan;
use crate::store::shelf::Shelf;

/// So many copies are written together, which takes two syncs instead of two for each.
const MANY: usize = 16;

/// What was seen and what stands, under one lock.
#[derive(Debug, Default)]
struct Seen {
    files: Option<Files>,
    /// How many namespaces had been seen: one more may make a wrong file right.
    namespaces: usize,
    good: BTreeMap<String, String>,
    /// Good versions whose copies could not be written.
    unsaved: BTreeSet<String>,
    /// Whether it was said that there is no folder, and nothing to lose by it.
    said_none: bool,
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
        let seen = Seen { good: folder.read_copies()?, ..Seen::default() };
        Ok(Self { folder, seen: Mutex::new(seen), live: RwLock::default() })
    }

    /// Opens the folder of a node that shares its store with others: see [`Registry::reopen`].
    pub fn shared(folder: &Path, shelf: Arc<dyn Shelf>) -> Self {
        let folder = Folder::shared(folder, shelf);
        Self { folder, seen: Mutex::default(), live: RwLock::default() }
    }

    /// Begins anew, with the good versions that stand now: others may have changed them meanwhile.
    pub fn reopen(&self) -> io::Result<()> {
        let mut seen = self.seen.lock();
        *seen = Seen { good: self.folder.read_copies()?, ..Seen::default() };
        *self.live.write() = Arc::default();
        Ok(())
    }

    /// Forgets what was live: another node says what is.
    pub(super) fn close(&self) {
        *self.seen.lock() = Seen::default();
        *self.live.write() = Arc::default();
    }

    /// The last good versions of all files, as they are kept.
    pub(super) fn copies(&self) -> io::Result<BTreeMap<String, String>> {
        self.folder.read_copies()
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
    ///
    /// Where the folder cannot be read everything stays: at the start, the last good versions.
    pub fn scan(&self, context: &plan::Context<'_>) -> bool {
        let mut seen = self.seen.lock();
        self.save(&mut seen);
        let (files, trouble) = match self.folder.read() {
            Ok(files) => (files, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound && seen.good.is_empty() => {
                if !std::mem::replace(&mut seen.said_none, true) {
                    let folder = self.folder.path().display();
                    tracing::info!("there is no folder {folder}, so there are no segments yet");
                }
                (Files::new(), None)
            }
            Err(error) => {
                let folder = self.folder.path().display();
                let trouble = format!("the folder {folder} cannot be read: {error}");
                let is_new = self.live().folder.as_ref() != Some(&trouble);
                if is_new {
                    tracing::error!(
                        "{trouble}; the {} segments that were live stay as they are",
                        seen.good.len()
                    );
                }
                if self.live().version > 0 || seen.good.is_empty() {
                    if is_new {
                        let live = Live { folder: Some(trouble), ..Live::clone(&self.live()) };
                        *self.live.write() = Arc::new(live);
                    }
                    return false;
                }
                let copies = seen.good.iter().map(|(id, text)| (id.clone(), Ok(text.clone())));
                (copies.collect(), Some(trouble))
            }
        };
        if trouble.is_none() && self.live().folder.is_some() {
            tracing::info!("the folder {} can be read again", self.folder.path().display());
        }
        let namespaces = context.seen.map_or(0, BTreeSet::len);
        let live = self.live();
        let may_be_right_now = namespaces != seen.namespaces && !live.problems.is_empty();
        if seen.files.as_ref() == Some(&files) && !may_be_right_now && live.folder == trouble {
            return false;
        }
        seen.namespaces = namespaces;
        let chosen = choose(&files, &seen.good, context);
        let mut taken = Vec::new();
        for (id, segment) in &chosen.segments {
            if !segment.hidden && seen.good.get(id) != Some(&segment.text) {
                seen.good.insert(id.clone(), segment.text.clone());
                taken.push(id.clone());
            }
        }
        self.write_copies(&mut seen, taken);
        let is_gone = |id: &String| !files.contains_key(id) && !chosen.segments.contains_key(id);
        let gone: Vec<String> = seen.good.keys().filter(|id| is_gone(id)).cloned().collect();
        for id in gone {
            seen.good.remove(&id);
            seen.unsaved.remove(&id);
            if let Err(error) = self.folder.forget(&id) {
                tracing::warn!(segment = id, %error, "the copy of a deleted segment stays behind");
            }
        }
        seen.files = Some(files);
        for problem in chosen.problems.iter().filter(|p| !live.problems.contains(p)) {
            tell(problem);
        }
        let is_same = live.version > 0 && live.segments == chosen.segments;
        *self.live.write() = Arc::new(Live {
            version: if is_same { live.version } else { live.version + 1 },
            segments: chosen.segments,
            problems: chosen.problems,
            folder: trouble,
        });
        !is_same
    }

    /// Writes the file of a segment, or removes it where `text` is `None`, if no file becomes wrong by it.
    /// Returns whether there was one before. It is live with the next [`Registry::scan`].
    pub(super) fn edit(
        &self,
        id: &str,
        text: Option<&str>,
        context: &plan::Context<'_>,
    ) -> Result<bool, EditError> {
        let seen = self.seen.lock();
        let mut files = self.files(&seen)?;
        let known = choose(&files, &seen.good, context);
        let before = match text {
            Some(text) => files.insert(id.to_owned(), Ok(text.to_owned())),
            None => files.remove(id),
        };
        if before.is_none() && text.is_none() {
            return Err(EditError::Unknown);
        }
        without_new_problems(&known, choose(&files, &seen.good, context))?;
        self.write(id, text)?;
        Ok(before.is_some())
    }

    /// The segments with other files, nothing of which is written. With `prune` files that are not among them go.
    pub(super) fn propose(
        &self,
        wanted: &Changes,
        prune: bool,
        context: &plan::Context<'_>,
    ) -> Result<Proposed, EditError> {
        self.proposed(&self.seen.lock(), wanted, prune, context)
    }

    /// Writes files, or removes them, all or none, where `check` finds nothing against it; tells how many were not
    /// so before. They are live with the next [`Registry::scan`].
    pub(super) fn apply(
        &self,
        wanted: &Changes,
        check: &dyn Fn(&Proposed) -> Result<(), EditError>,
        context: &plan::Context<'_>,
    ) -> Result<usize, EditError> {
        // No scan sees a part of it.
        let seen = self.seen.lock();
        let proposed = self.proposed(&seen, wanted, false, context)?;
        check(&proposed)?;
        let before = |id: &String| proposed.texts.get(id).cloned();
        let begun =
            proposed.changes.iter().map(|(id, text)| (id.clone(), [text.clone(), before(id)]));
        self.folder.begin(&begun.collect()).map_err(EditError::Folder)?;
        let mut written = Vec::new();
        for (id, text) in &proposed.changes {
            if let Err(error) = self.write(id, text.as_deref()) {
                for id in written {
                    // What cannot be written back either is told with the first trouble, and shows in the next plan.
                    let _ = self.write(id, proposed.texts.get(id).map(String::as_str));
                }
                let _ = self.folder.end();
                return Err(error);
            }
            written.push(id);
        }
        self.folder.end().map_err(EditError::Folder)?;
        Ok(proposed.changes.len())
    }

    fn proposed(
        &self,
        seen: &Seen,
        wanted: &Changes,
        prune: bool,
        context: &plan::Context<'_>,
    ) -> Result<Proposed, EditError> {
        let mut files = self.files(seen)?;
        let before = choose(&files, &seen.good, context);
        let texts = files.iter().filter_map(|(id, text)| Some((id.clone(), text.clone().ok()?)));
        let texts: BTreeMap<String, String> = texts.collect();
        let pruned = files.keys().filter(|id| prune && !wanted.contains_key(*id));
        let mut changes: Changes = pruned.map(|id| (id.clone(), None)).collect();
        let mut unchanged = 0;
        for (id, text) in wanted {
            if texts.get(id) == text.as_ref() {
                unchanged += usize::from(text.is_some());
            } else {
                changes.insert(id.clone(), text.clone());
            }
        }
        for (id, text) in &changes {
            match text {
                Some(text) => files.insert(id.clone(), Ok(text.clone())),
                None => files.remove(id),
            };
        }
        let after = choose(&files, &seen.good, context);
        // What is wrong with a file that is to be is told, though it may have been so before: its author looks at it.
        let is_told = |problem: &Problem| {
            let is_wanted = wanted.get(&problem.id).is_some_and(Option::is_some);
            is_wanted || !before.problems.contains(problem)
        };
        let after = without_problems(after, is_told)?;
        let (before, after) = (before.segments, after.segments);
        Ok(Proposed { before, after, texts, changes, unchanged })
    }

    fn files(&self, seen: &Seen) -> Result<Files, EditError> {
        match self.folder.read() {
            Ok(files) => Ok(files),
            Err(error) if error.kind() == io::ErrorKind::NotFound && seen.good.is_empty() => {
                Ok(Files::new())
            }
            Err(error) => Err(EditError::Folder(error)),
        }
    }

    fn write(&self, id: &str, text: Option<&str>) -> Result<(), EditError> {
        match text {
            Some(text) => self.folder.write(id, text),
            None => self.folder.remove(id),
        }
        .map_err(EditError::Folder)
    }

    /// Writes the copies that could not be written before.
    fn save(&self, seen: &mut Seen) {
        let unsaved: Vec<String> = seen.unsaved.iter().cloned().collect();
        self.write_copies(seen, unsaved);
    }

    /// Writes copies of good versions. One that cannot be written is no reason to hold a change back: it is
    /// live, and its copy is tried again.
    fn write_copies(&self, seen: &mut Seen, ids: Vec<String>) {
        let texts: Vec<_> = ids.iter().filter_map(|id| seen.good.get_key_value(id)).collect();
        // What goes wrong with one of many is told of it alone.
        if texts.len() >= MANY && self.folder.keep_all(&texts) {
            ids.iter().for_each(|id| _ = seen.unsaved.remove(id));
            return;
        }
        for id in ids {
            let Some(text) = seen.good.get(&id) else { continue };
            match self.folder.keep(&id, text) {
                Ok(()) => {
                    seen.unsaved.remove(&id);
                }
                Err(error) => {
                    if seen.unsaved.insert(id.clone()) {
                        tracing::warn!(
                            segment = id,
                            %error,
                            "segment {id} is live, but no copy of it can be written: until there is \
                             one, a restart knows only the version before"
                        );
                    }
                }
            }
        }
    }
}

/// The segments as they are, and as they would be with other files.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) before: BTreeMap<String, Arc<Segment>>,
    pub(super) after: BTreeMap<String, Arc<Segment>>,
    /// What the files say now.
    pub(super) texts: BTreeMap<String, String>,
    /// The files that are to be others.
    pub(super) changes: Changes,
    /// How many are as they are to be.
    pub(super) unchanged: usize,
}

/// What was chosen, unless something is wrong that was not before.
fn without_new_problems(before: &Chosen, after: Chosen) -> Result<Chosen, EditError> {
    without_problems(after, |problem| !before.problems.contains(problem))
}

/// What was chosen, unless something is wrong that is to be told.
fn without_problems(
    after: Chosen,
    is_told: impl Fn(&Problem) -> bool,
) -> Result<Chosen, EditError> {
    let problems: Vec<Problem> =
        after.problems.iter().filter(|problem| is_told(problem)).cloned().collect();
    if problems.is_empty() { Ok(after) } else { Err(EditError::Conflict(problems)) }
}

/// Why a segment's file is not written or removed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text has errors.
    #[error("the segment has errors")]
    Wrong(Vec<super::Told>),
    /// With it other files, or this one beside them, would be wrong.
    #[error("segments would be wrong with it")]
    Conflict(Vec<Problem>),
    /// There is no such file.
    #[error("there is no such segment")]
    Unknown,
    /// What a plan was made on is not so any more.
    #[error("the plan does not hold any more: {}; plan again", .0.join(", "))]
    Stale(Vec<String>),
    /// The folder cannot be read or written.
    #[error("the folder of segments cannot be read or written: {0}")]
    Folder(#[source] io::Error),
}

fn tell(problem: &Problem) {
    let kept = match problem {
        Problem { frozen: true, .. } => "its audience stands still until it is right",
        Problem { keeps_last_good: true, .. } => "its last good version stays live",
        _ => "there is no good version yet, so it is left out",
    };
    tracing::warn!(
        segment = problem.id,
        "segment {} is wrong; {kept}\n{}",
        problem.id,
        problem.rendered.trim_end()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NamespaceOrder;
    use crate::model::time::DAY;
    use std::fs;

    fn scan(registry: &Registry) -> bool {
        let namespaces = NamespaceOrder::default();
        registry.scan(&plan::Context {
            namespaces: &namespaces,
            seen: None,
            retention: 90 * DAY,
            schema: None,
            now: None,
        })
    }

    fn ids(registry: &Registry) -> Vec<String> {
        registry.live().segments.keys().cloned().collect()
    }

    /// A folder with the segment `buyers`, that was taken.
    fn taken() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (folder, data) = (dir.path().join("segments"), dir.path().join("data"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("buyers.toml"), "rule = 'did purchase'").unwrap();
        let registry = Registry::open(&folder, &data).unwrap();
        assert!(scan(&registry));
        (dir, folder, data)
    }

    #[test]
    fn a_folder_that_goes_and_comes_back_removes_nothing() {
        let (dir, folder, data) = taken();
        let registry = Registry::open(&folder, &data).unwrap();
        scan(&registry);
        let aside = dir.path().join("aside");
        fs::rename(&folder, &aside).unwrap();
        assert!(!scan(&registry));
        assert_eq!(ids(&registry), ["buyers"]);
        assert!(registry.live().folder.as_ref().unwrap().contains("cannot be read"));
        assert!(data.join("segments/buyers.toml").is_file());
        fs::rename(&aside, &folder).unwrap();
        assert!(!scan(&registry));
        assert_eq!(registry.live().folder, None);
        // A file that is deleted while the folder is there does end its segment.
        fs::remove_file(folder.join("buyers.toml")).unwrap();
        assert!(scan(&registry));
        assert!(ids(&registry).is_empty());
        assert!(!data.join("segments/buyers.toml").exists());
    }

    #[test]
    fn a_start_with_another_folder_keeps_the_last_good_versions() {
        let (dir, folder, data) = taken();
        let registry = Registry::open(&dir.path().join("segmnets"), &data).unwrap();
        assert!(scan(&registry));
        assert_eq!(ids(&registry), ["buyers"]);
        assert!(registry.live().folder.is_some());
        assert!(!scan(&registry));
        let again = Registry::open(&folder, &data).unwrap();
        assert!(scan(&again));
        assert_eq!(ids(&again), ["buyers"]);
        assert_eq!(again.live().folder, None);
    }

    #[test]
    fn a_first_start_without_a_folder_goes_on_with_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("segments");
        let registry = Registry::open(&folder, &dir.path().join("data")).unwrap();
        assert!(scan(&registry));
        assert!(registry.live().version > 0 && registry.live().folder.is_none());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("buyers.toml"), "rule = 'did purchase'").unwrap();
        assert!(scan(&registry));
        assert_eq!(ids(&registry), ["buyers"]);
    }

    #[test]
    fn a_change_whose_copy_cannot_be_written_is_live_and_written_later() {
        let (_dir, folder, data) = taken();
        let registry = Registry::open(&folder, &data).unwrap();
        scan(&registry);
        // A folder stands where the copy is to be.
        let copy = data.join("segments/buyers.toml");
        fs::remove_file(&copy).unwrap();
        fs::create_dir(&copy).unwrap();
        fs::write(folder.join("buyers.toml"), "rule = 'did order'").unwrap();
        assert!(scan(&registry));
        assert_eq!(registry.live().segments["buyers"].text, "rule = 'did order'");
        fs::remove_dir(&copy).unwrap();
        scan(&registry);
        assert_eq!(fs::read_to_string(&copy).unwrap(), "rule = 'did order'");
    }
}
