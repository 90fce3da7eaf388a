//! The segment files that a command is given: which they are, and what they hold.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::rules::Diagnostic;
use crate::rules::ParsedFile;
use crate::rules::SegmentFile;
use crate::rules::parse_files;

use super::Failure;

/// Segment files, read and parsed.
pub(super) struct Files {
    /// Those that were asked for, by path.
    pub(super) asked: Vec<ParsedFile>,
    /// Their neighbours, which rules of those asked for may name.
    pub(super) neighbours: Vec<SegmentFile>,
}

/// Finds the files that paths mean: a file is itself, a folder the `*.toml` in it.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = BTreeSet::new();
    for path in paths {
        let kind = std::fs::metadata(path)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        if kind.is_dir() {
            found.extend(in_folder(path)?);
        } else {
            found.insert(path.clone());
        }
    }
    Ok(found.into_iter().collect())
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::Usage(format!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|kind| kind == "toml") && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// Reads and parses what paths mean, and the neighbours of single files.
pub(super) fn load(paths: &[PathBuf]) -> Result<Files, Failure> {
    let asked = find(paths)?;
    let mut near = BTreeSet::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // A folder that cannot be listed has no neighbours to offer.
        near.extend(in_folder(folder.unwrap_or(Path::new("."))).unwrap_or_default());
    }
    let names: BTreeSet<_> = asked.iter().filter_map(|path| path.file_name()).collect();
    let mut neighbours = Vec::new();
    for path in near.iter().filter(|path| !names.contains(&path.file_name().unwrap_or_default())) {
        if let (Some(id), Ok(text)) = (path.file_stem(), read(path)) {
            neighbours.push(SegmentFile::parse(&id.to_string_lossy(), &text).0);
        }
    }
    let mut unreadable = Vec::new();
    let texts = asked.iter().enumerate().map(|(place, path)| {
        let text = read(path).unwrap_or_else(|error| {
            unreadable.push((place, error));
            String::new()
        });
        (path.display().to_string(), text)
    });
    let mut asked = parse_files(texts.collect::<Vec<_>>());
    for (place, error) in unreadable {
        asked[place].diagnostics = vec![Diagnostic::error("unreadable", None, error)];
    }
    Ok(Files { asked, neighbours })
}

/// Reads a file's text, or says why not.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        format!("is no UTF-8 text: byte {} is wrong", error.utf8_error().valid_up_to() + 1)
    })
}
