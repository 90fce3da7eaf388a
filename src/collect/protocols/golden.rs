//! What clients sent, as it was recorded, and the canonical events that are to come of it.

use std::path::Path;

use super::gather::Read;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::Sent;
use crate::model::value::write_json_object;

/// A line for an event: its canonical JSON, or why it was set aside.
pub(super) fn text(read: &Result<Sent, Rejection>) -> String {
    let read = read.as_ref().and_then(|sent| sent.fault().map_or(Ok(sent), Err));
    match read {
        Ok(sent) => {
            let mut json = String::new();
            write_json_object(sent.fields(), &mut json);
            json
        }
        Err(rejection) => format!("{}: {}", rejection.code.as_str(), rejection.message),
    }
}

/// What a client sent, by its name in `tests/`.
pub(super) fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/collect/protocols/tests").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares the events that were read with those that are to come, a line for each.
#[track_caller]
pub(super) fn assert_golden(read: &Read, name: &str) {
    let found: Vec<String> = read.iter().map(text).collect();
    let expected = recorded(name);
    assert_eq!(found, expected.lines().collect::<Vec<_>>(), "\n{}", found.join("\n"));
}
