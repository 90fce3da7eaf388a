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
    let mut named = Vec::new();
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
            if first == place {
                named.push((place, span));
            } else {
                let message = format!("another segment has this name: {}", parsed[first].path);
                let told = Diagnostic::error("duplicate", span, message);
                read.diagnostics.push(told.with_hint("give one of them another name"));
            }
        }
        let (segment, diagnostics) = (read.file, read.diagnostics);
        parsed.push(ParsedFile { path, text, segment, diagnostics });
    }
    // A file that says no name has its id for one.
    for (place, span) in named {
        let other = ids.get(&parsed[place].segment.name).filter(|other| **other != place);
        if let Some(other) =
            other.filter(|other| parsed[**other].segment.name == parsed[**other].segment.id)
        {
            let message = format!("another segment has this name: {}", parsed[*other].path);
            let told = Diagnostic::error("duplicate", span, message);
            parsed[place].diagnostics.push(told.with_hint("give one of them another name"));
        }
    }
    parsed
}

/// The id that a file's path gives its segment.
fn stem(path: &str) -> &str {
    Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::has_errors;

    #[test]
    fn a_name_is_one_segments_also_where_it_is_the_id_of_one_that_says_none() {
        let file = |id: &str, name: &str| {
            let name = if name.is_empty() { String::new() } else { format!("name = \"{name}\"\n") };
            (format!("{id}.toml"), format!("{name}rule = 'did x'\n"))
        };
        let wrong = |files: &[(&str, &str)]| {
            let files = files.iter().map(|(id, name)| file(id, name));
            let parsed = parse_files(files).into_iter();
            parsed
                .filter(|file| has_errors(&file.diagnostics))
                .map(|file| file.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(wrong(&[("a", "b"), ("b", "")]), ["a.toml"]);
        assert_eq!(wrong(&[("a", ""), ("b", "a")]), ["b.toml"]);
        assert_eq!(wrong(&[("a", "n"), ("b", "n")]), ["b.toml"]);
        assert!(wrong(&[("a", "a"), ("b", ""), ("c", "d")]).is_empty());
        assert!(wrong(&[("a", "b"), ("b", "a")]).is_empty());
    }
}
