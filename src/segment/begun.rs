//! A change of several files that was begun: a crash in its midst leaves none of it half done, since the next start
//! ends it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::store::embedded::remove_small_file;
use crate::store::embedded::write_small_file;

/// The file of a data directory that says what was begun.
const FILE: &str = "segments.begun";

/// What files are to say, and said before, by id; nothing where there is to be none, or was none.
pub(super) type Begun = BTreeMap<String, [Option<String>; 2]>;

/// Says that a change is begun.
pub(super) fn begin(data: &Path, begun: &Begun) -> io::Result<()> {
    write_small_file(&data.join(FILE), &serde_json::to_vec(begun)?, 0o600)
}

/// Says that all of it is done, or undone.
pub(super) fn end(data: &Path) -> io::Result<()> {
    remove_small_file(&data.join(FILE)).map(|_| ())
}

/// Does what is left of a change that was begun, where nobody has changed one of its files since.
pub(super) fn recover(data: &Path, file: impl Fn(&str) -> PathBuf) -> io::Result<()> {
    let begun = match fs::read(data.join(FILE)) {
        Ok(bytes) => serde_json::from_slice::<Begun>(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(begun) = begun.inspect_err(|error| {
        tracing::warn!(%error, "{FILE} of the data directory cannot be read: a plan may be half applied");
    }) else {
        return end(data);
    };
    let mut left = Vec::new();
    for (id, [to_be, before]) in &begun {
        let now = match fs::read_to_string(file(id)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if now == *to_be {
            continue;
        }
        if now != *before {
            tracing::warn!(
                segment = id,
                "a plan was half applied when the server ended, and {id}.toml was changed since: apply it again"
            );
            return end(data);
        }
        left.push((id, to_be));
    }
    for (id, to_be) in &left {
        match to_be {
            Some(text) => write_small_file(&file(id), text.as_bytes(), 0o644)?,
            None => _ = remove_small_file(&file(id))?,
        }
    }
    tracing::info!(
        files = left.len(),
        "a plan that was half applied when the server ended is applied"
    );
    end(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_done_wherever_it_ended_and_nothing_of_it_where_a_file_is_another() {
        let change: Begun = [
            ("a", [Some("new a"), Some("old a")]),
            ("b", [Some("new b"), None]),
            ("c", [None, Some("old c")]),
        ]
        .map(|(id, texts)| (id.to_owned(), texts.map(|text| text.map(str::to_owned))))
        .into();
        for done in 0..=4 {
            let folder = tempfile::tempdir().unwrap();
            let data = tempfile::tempdir().unwrap();
            let file = |id: &str| folder.path().join(format!("{id}.toml"));
            let read = |id: &str| fs::read_to_string(file(id)).ok();
            fs::write(file("a"), "old a").unwrap();
            fs::write(file("c"), "old c").unwrap();
            begin(data.path(), &change).unwrap();
            for (id, [to_be, _]) in change.iter().take(done) {
                match to_be {
                    Some(text) => fs::write(file(id), text).unwrap(),
                    None => fs::remove_file(file(id)).unwrap(),
                }
            }
            if done == 4 {
                fs::write(file("a"), "of somebody").unwrap();
                fs::remove_file(file("b")).unwrap();
            }
            recover(data.path(), file).unwrap();
            let expected = match done {
                4 => [Some("of somebody"), None, None],
                _ => [Some("new a"), Some("new b"), None],
            };
            assert_eq!(["a", "b", "c"].map(read), expected.map(|text| text.map(str::to_owned)));
            // It is over.
            fs::write(file("a"), "later").unwrap();
            recover(data.path(), file).unwrap();
            assert_eq!(read("a").as_deref(), Some("later"));
        }
    }
}
