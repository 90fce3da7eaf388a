//! Many segment files read together: what is wrong between them that needs no meaning of names.

use std::collections::HashMap;
use std::path::Path;

use crate::rules::diagnostic::Diagnostic;
use crate::rules::segment_file::SegmentFile;
use crate::rules::segment_file::read;

/// One segment file of a set.
#[derive(Debug, Clone)]
pub struct ParsedFile {
    /// Its path, as it was given.
    pub path: String,
    /// Its text, which spans are of.
    pub text: String,
    /// What it says; not to be used where a diagnostic is an error.
    pub segment: SegmentFile,
    /// What is wrong with it.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads segment files, each a path and a text, and finds the ids and names that two of them have.
///
/// The files come back in the order in which they were given; of two that clash the later has the error.
pub fn parse_files(files: impl IntoIterator<Item = (String, String)>) -> Vec<ParsedFile> {
    let mut parsed: Vec<ParsedFile> = Vec::new();
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    for (path, text) in files {
        let id = stem(&path).to_owned();
        let mut read = read(&id, &text);
        let place = parsed.len();
        let first = *ids.entry(id.clone()).or_insert(place);
        if first != place {
            let message = format!("another file makes the segment `{id}`: {}", parsed[first].path);
            let told = Diagnostic::error("duplicate", None, message);
            read.diagnostics.push(told.with_hint("give one of the files another name"));
        } else if let Some(span) = read.name {
            let first = *names.entry(read.file.name.clone()).or_insert(place);
            if first != place {
                let message = format!("another segment has this name: {}", parsed[first].path);
                let told = Diagnostic::error("duplicate", span, message);
                read.diagnostics.push(told.with_hint("give one of them another name"));
            }
        }
        let (segment, diagnostics) = (read.file, read.diagnostics);
        parsed.push(ParsedFile { path, text, segment, diagnostics });
    }
    parsed
}

/// The id that a file's path gives its segment.
fn stem(path: &str) -> &str {
    Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or("")
}
