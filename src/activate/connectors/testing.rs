//! What the tests of connectors share: batches, answers, and what every connector's payloads have in common.

use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::net::Answered;
use crate::store::ledger::Batch;
use crate::store::ledger::Changes;
use crate::store::ledger::Target;

/// Namespaces that destinations take, and one that none does.
const NAMESPACES: [&str; 12] = [
    "cookie",
    "email_sha256",
    "email_gmail_sha256",
    "phone_e164_sha256",
    "phone_digits_sha256",
    "idfa",
    "gaid",
    "rida",
    "ttd",
    "uid2",
    "xandr",
    "user_id",
];

pub(super) fn identifier(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

/// The third batch of a segment `buyers` in generation 12.
pub(super) fn batch(adds: Vec<Identifier>, removes: Vec<Identifier>) -> Batch {
    Batch {
        target: Target::new("ads", "buyers"),
        generation: 12,
        seq: 3,
        true_for: 1_795_500_000_123,
        prepared_at: 0,
        changes: Changes { adds, removes },
    }
}

pub(super) fn answered(status: u16, body: &str) -> Answered {
    Answered { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
}

/// Identifiers as they come in: most as they should be, some as no platform wants them.
fn any_identifier() -> impl Strategy<Value = Identifier> {
    let value = prop_oneof![
        8 => "[0-9a-f]{64}",
        8 => "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        4 => "[1-9][0-9]{9,18}",
        1 => "[0-9A-F]{64}",
        1 => Just(super::http::SHA256_OF_NOTHING.to_owned()),
        2 => "[!-~]{1,80}",
        1 => "[a-zé\"\\\\<>&=+]{1,40}",
    ];
    let namespace = prop::sample::select(&NAMESPACES[..]);
    let made = |(namespace, value): (&str, String)| {
        Identifier::new(Namespace::new(namespace).ok()?, &value).ok()
    };
    (namespace, value).prop_filter_map("an identifier", made)
}

/// All texts of a body, wherever they stand.
pub(super) fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| texts(item, found)),
        Value::Number(number) => found.push(number.to_string()),
        _ => {}
    }
}

/// The members of a payload, of adds or not; or what is not as the contract has it.
pub(super) type Read<'a> = &'a dyn Fn(&Encoded, bool) -> Result<Vec<String>, String>;

/// Encodes ten thousand random identifiers, batch by batch, and holds what every payload has to be: the same each time,
/// each line in it once or refused with a reason, in no mix that the platform does not take, and within its size. `read`
/// gives the members of a payload with the contract's own checks.
pub(super) fn holds_for_ten_thousand(connector: &dyn Connector, of: (&str, usize), read: Read<'_>) {
    holds_as_written(connector, of, &|identifier| identifier.value().to_lowercase(), read);
}

/// The same, where `write` says how the platform has an identifier.
pub(super) fn holds_as_written(
    connector: &dyn Connector,
    (place, most_bytes): (&str, usize),
    write: &dyn Fn(&Identifier) -> String,
    read: Read<'_>,
) {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut left = 10_000_usize;
    let mut sent = 0;
    while left > 0 {
        let size = 1 + (left * 7) % 400;
        let all = proptest::collection::vec(any_identifier(), size).new_tree(&mut runner).unwrap();
        let all: BTreeSet<Identifier> =
            proptest::strategy::ValueTree::current(&all).into_iter().collect();
        left = left.saturating_sub(all.len().max(1));
        let all: Vec<Identifier> =
            all.into_iter().filter(|one| connector.caps().takes(&one.namespace)).collect();
        if all.is_empty() {
            continue;
        }
        let half = all.len() / 2;
        let batches = match connector.caps().mixes {
            true => vec![batch(all[..half].to_vec(), all[half..].to_vec())],
            false => vec![batch(all.clone(), Vec::new()), batch(Vec::new(), all.clone())],
        };
        for batch in batches {
            let encoded = connector.encode(&batch, place);
            assert_eq!(encoded, connector.encode(&batch, place), "encoding is pure");
            assert!(encoded.body.len() <= most_bytes, "{} bytes", encoded.body.len());
            let lines: Vec<&Identifier> =
                batch.changes.adds.iter().chain(&batch.changes.removes).collect();
            assert_eq!(encoded.lines + encoded.refused.len(), lines.len());
            assert!(encoded.refused.windows(2).all(|two| two[0].line < two[1].line));
            let is_refused =
                |at: usize| encoded.refused.binary_search_by_key(&at, |one| one.line).is_ok();
            let mut expected: Vec<String> =
                (0..lines.len()).filter(|at| !is_refused(*at)).map(|at| write(lines[at])).collect();
            let is_add = !batch.changes.adds.is_empty();
            let mut found = read(&encoded, is_add).unwrap_or_else(|why| {
                panic!("{why} in {}", String::from_utf8_lossy(&encoded.body))
            });
            found.iter_mut().for_each(|value| *value = value.to_lowercase());
            expected.sort();
            found.sort();
            assert_eq!(found, expected);
            sent += expected.len();
        }
    }
    assert!(sent > 300, "only {sent} lines were fit");
}
