//! The parameters of a pixel's query: `key=value` pairs, form-encoded (`+` is a space).

use percent_encoding::percent_decode;
use std::borrow::Cow;

/// The pairs of a query in order, as sent: still encoded.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes a part of a pair; bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_before_they_are_decoded() {
        let found: Vec<_> = pairs("a=1&&b=x%26y%3Dz+%2B&c&=d&e=caf%C3%A9&f=%ff%4")
            .map(|(key, value)| (decode(key).into_owned(), decode(value).into_owned()))
            .collect();
        let expected = [
            ("a", "1"),
            ("b", "x&y=z +"),
            ("c", ""),
            ("", "d"),
            ("e", "café"),
            ("f", "\u{fffd}%4"),
        ];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
