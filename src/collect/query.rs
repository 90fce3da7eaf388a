//! The parameters of a pixel's query: `key=value` pairs, form-encoded (`+` is a space).

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
    let bytes = text.as_bytes();
    let Some(first) = bytes.iter().position(|b| matches!(b, b'%' | b'+')) else {
        return Cow::Borrowed(text);
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after;
                nibble(*high) << 4 | nibble(*low)
            }
            (byte, _) => *byte,
        });
    }
    Cow::Owned(
        String::from_utf8(decoded)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

/// The value of a hexadecimal digit.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_before_they_are_decoded() {
        let found: Vec<_> = pairs("a=1&&b=x%26y%3Dz+%2B&c&=d&e=caf%C3%a9&f=%ff%4&g=%zz%%41")
            .map(|(key, value)| (decode(key).into_owned(), decode(value).into_owned()))
            .collect();
        let expected = [
            ("a", "1"),
            ("b", "x&y=z +"),
            ("c", ""),
            ("", "d"),
            ("e", "café"),
            ("f", "\u{fffd}%4"),
            ("g", "%zz%A"),
        ];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
