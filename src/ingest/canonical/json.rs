//! JSON as clients write it.
//!
//! Python's `json` writes a float that is no number as `NaN`, `Infinity` or `-Infinity`, which JSON does not have.
//! `JSON.stringify` writes `null` for the same, and so they are read: a batch is not lost for one of them.

use serde_json::Error;

use crate::model::Value;
use crate::model::value::parse_json;

/// What stands for a number that is none.
const NO_NUMBERS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// Reads JSON text, `NaN` and the infinities as `null`.
pub fn read(text: &[u8]) -> Result<Value, Error> {
    // Nearly every text has none of them and is looked at once.
    parse_json(text).or_else(|error| match with_nulls(text) {
        Some(text) => parse_json(&text),
        None => Err(error),
    })
}

/// The text with `null` for each value that is no number, where it has one.
fn with_nulls(text: &[u8]) -> Option<Vec<u8>> {
    let mut written = Vec::new();
    let mut kept = 0;
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'I' | b'N' if !in_string => {
                let found = NO_NUMBERS.iter().find(|word| is_value(text, at, word));
                if let Some(word) = found {
                    written.extend_from_slice(&text[kept..at]);
                    written.extend_from_slice(b"null");
                    at += word.len();
                    kept = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    written.extend_from_slice(&text[kept..]);
    (kept > 0).then_some(written)
}

/// Whether a word stands at a place, and is all of a value.
fn is_value(text: &[u8], at: usize, word: &[u8]) -> bool {
    let (before, rest) = text.split_at(at);
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b",]}".contains(byte);
    let begins = |byte: &u8| byte.is_ascii_whitespace() || b":,[".contains(byte);
    rest.strip_prefix(word).is_some_and(|after| after.first().is_none_or(ends))
        && before.last().is_none_or(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> Option<String> {
        let mut text = String::new();
        read(json.as_bytes()).ok()?.write_json(&mut text);
        Some(text)
    }

    #[test]
    fn a_number_that_is_none_is_null() {
        for (sent, expected) in [
            (
                r#"{"a": NaN,"b":-Infinity , "c":[Infinity,NaN]}"#,
                r#"{"a":null,"b":null,"c":[null,null]}"#,
            ),
            (
                r#"{"NaN":"Infinity","a\"":"\\","b":NaN}"#,
                r#"{"NaN":"Infinity","a\"":"\\","b":null}"#,
            ),
            ("NaN", "null"),
            ("[\nNaN\n]", "[null]"),
            (r#"{"a":-1}"#, r#"{"a":-1}"#),
        ] {
            assert_eq!(text(sent).as_deref(), Some(expected), "{sent}");
        }
    }

    #[test]
    fn what_is_no_json_remains_none() {
        for sent in [
            "",
            "nan",
            "[NaN",
            "[NaNa]",
            "[xNaN]",
            "[-NaN]",
            "[--Infinity]",
            "{NaN:1}",
            "[NaN 1]",
            "[+Infinity]",
            "\"NaN",
            "NaN\\",
            "[NaN,\"\\",
        ] {
            assert_eq!(text(sent), None, "{sent}");
        }
    }
}
