//! What stands for no id in the place of a partner's: partners send `0`, nothing, or the macro itself where they have none.

use super::query::decode;

/// So often may a text be encoded again on its way through redirections.
const MOST_ENCODED: usize = 3;

/// Words that say that there is no id.
const WORDS: [&str; 21] = [
    "-1",
    "null",
    "(null)",
    "nil",
    "undefined",
    "none",
    "nan",
    "n/a",
    "na",
    "false",
    "unknown",
    "optout",
    "opt-out",
    "opt_out",
    "opted-out",
    "no-id",
    // Macros of which a template's marks were lost.
    "uid",
    "uuid",
    "tdid",
    "userid",
    "user_id",
];

/// Marks that macros are written with, and no id is.
const MARKS: [char; 12] = ['$', '{', '}', '[', ']', '<', '>', '#', '@', '!', '(', ')'];

/// Whether a text, decoded once, is an id.
pub(super) fn is_id(text: &str) -> bool {
    let mut text = text.trim().to_owned();
    // A macro may be encoded more than once before somebody passes it on: an id with a `%` of its own reads the same.
    for _ in 0..MOST_ENCODED {
        if is_nothing(&text) {
            return false;
        }
        let decoded = decode(&text.replace('+', "%2B")).trim().to_owned();
        if decoded == text {
            break;
        }
        text = decoded;
    }
    !is_nothing(&text)
}

fn is_nothing(text: &str) -> bool {
    let is_word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    // `0`, and the UUID of zeros that stands for who opted out.
    let is_zero = text.bytes().all(|b| b"0-.xX".contains(&b));
    // Quotes around nothing, a space that cannot be seen.
    let is_blank = !text.contains(char::is_alphanumeric);
    let encloses =
        |mark: &str| text.len() > 2 * mark.len() && text.starts_with(mark) && text.ends_with(mark);
    let is_macro = text.contains(MARKS) || text.contains("%%") || encloses("%") || encloses("__");
    is_blank || is_word || is_zero || is_macro
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_no_id_is_none() {
        for id in [
            "5727816213491965430",
            "AEBE52E7-03EE-455A-B3C4-E57283966239",
            "CAESEKx_y-z",
            "00a",
            "a/b+c==",
            "50%off",
            "k-_x__y",
            "aHR0cDovL2E~.",
        ] {
            assert!(is_id(id), "{id}");
        }
        for none in [
            "",
            " ",
            "0",
            "00000000-0000-0000-0000-000000000000",
            "-1",
            "$UID",
            "${UID}",
            "%%TDID%%",
            "%%GOOGLE_GID%%",
            "$$TTD_UID$$",
            "{uid}",
            "{{uid}}",
            "[UID]",
            "<UID>",
            "#PMUID",
            "@@UID@@",
            "!UID!",
            "(UID)",
            "__UID__",
            "%UID%",
            "%24UID",
            "%2524UID",
            "%252524UID",
            "%7Buid%7D",
            "%5BUID%5D",
            "%25%25TDID%25%25",
            "null",
            "Undefined",
            "NaN",
            "optout",
            "%30",
            "%20",
            "\"\"",
            "\u{200b}",
            "+",
            "0.0",
            "0x0",
            "UID",
            "TDID",
        ] {
            assert!(!is_id(none), "{none}");
        }
    }
}
