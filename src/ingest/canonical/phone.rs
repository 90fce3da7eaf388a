//! Phone numbers to the hashes that platforms match by.
//!
//! A number starts with `+`, or the site states its country. Calling codes are told apart by ITU-T E.164's
//! own rule (which first digits make a code of one, two or three digits), so every number with `+` is
//! read. Numbers without it are read for the countries in `COUNTRIES` only; of others they are refused.
//! Whether a number is in service, or of the right length for its country, is not known here.

use sha1::Sha1;
use sha2::Digest;
use sha2::Sha256;

use crate::model::hex;

/// The hashes of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256 of `+`, calling code and national number.
    pub e164_sha256: String,
    /// SHA-256 of the same without `+`.
    pub digits_sha256: String,
    /// SHA-1 of the national number alone.
    pub national_sha1: String,
}

/// Country, calling code, and the trunk prefix that is dialled inside the country and dropped from abroad.
const COUNTRIES: [(&str, &str, &str); 52] = [
    ("AT", "43", "0"),
    ("AU", "61", "0"),
    ("BE", "32", "0"),
    ("BG", "359", "0"),
    ("BR", "55", "0"),
    ("CA", "1", "1"),
    ("CH", "41", "0"),
    ("CL", "56", ""),
    ("CN", "86", "0"),
    ("CO", "57", ""),
    ("CY", "357", ""),
    ("CZ", "420", ""),
    ("DE", "49", "0"),
    ("DK", "45", ""),
    ("EE", "372", ""),
    ("ES", "34", ""),
    ("FI", "358", "0"),
    ("FR", "33", "0"),
    ("GB", "44", "0"),
    ("GR", "30", ""),
    ("HK", "852", ""),
    ("HR", "385", "0"),
    ("HU", "36", "06"),
    ("IE", "353", "0"),
    ("IL", "972", "0"),
    ("IN", "91", "0"),
    ("IS", "354", ""),
    ("IT", "39", ""),
    ("JP", "81", "0"),
    ("KR", "82", "0"),
    ("LI", "423", ""),
    ("LT", "370", "0"),
    ("LU", "352", ""),
    ("LV", "371", ""),
    ("MT", "356", ""),
    ("MX", "52", ""),
    ("NL", "31", "0"),
    ("NO", "47", ""),
    ("NZ", "64", "0"),
    ("PL", "48", ""),
    ("PT", "351", ""),
    ("RO", "40", "0"),
    ("RS", "381", "0"),
    ("SE", "46", "0"),
    ("SG", "65", ""),
    ("SI", "386", "0"),
    ("SK", "421", "0"),
    ("TR", "90", "0"),
    ("TW", "886", "0"),
    ("UA", "380", "0"),
    ("US", "1", "1"),
    ("ZA", "27", "0"),
];

/// Whether numbers without `+` of a country (two capital letters) can be read.
pub fn knows_country(country: &str) -> bool {
    COUNTRIES.iter().any(|(name, _, _)| *name == country)
}

/// Hashes a number, or `None` where it is none, or its country is not known.
pub fn hash(number: &str, country: Option<&str>) -> Option<Hashes> {
    let number = number.trim();
    let international = number.strip_prefix('+').or_else(|| {
        // The prefix dialled for abroad, outside North America.
        country.and(number.strip_prefix("00"))
    });
    let (code, national) = match international {
        Some(rest) => {
            // `+44 (0)20 …`: the trunk prefix that is left out from abroad. Italy's zero is dialled.
            let all = digits(&rest.replacen("(0)", "", 1))?;
            let (code, national) = all.split_at_checked(calling_code_length(&all))?;
            if code == "39" && rest.contains("(0)") {
                return None;
            }
            (code.to_owned(), national.to_owned())
        }
        None => {
            let (_, code, trunk) = COUNTRIES.iter().find(|(name, _, _)| Some(*name) == country)?;
            let national = digits(number)?;
            let national = national.strip_prefix(trunk).unwrap_or(&national);
            ((*code).to_owned(), national.to_owned())
        }
    };
    let all = format!("{code}{national}");
    if national.len() < 4 || !(7..=15).contains(&all.len()) || national.bytes().all(|b| b == b'0') {
        return None;
    }
    Some(Hashes {
        e164_sha256: hex(&Sha256::digest(format!("+{all}").as_bytes())),
        digits_sha256: hex(&Sha256::digest(all.as_bytes())),
        national_sha1: hex(&Sha1::digest(national.as_bytes())),
    })
}

/// The digits of a number written with the usual separators; `None` where there is anything else.
fn digits(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(text.len().min(32));
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            ' ' | '\u{a0}' | '\u{202f}' | '-' | '.' | '/' | '(' | ')' | '\u{2010}'..='\u{2013}' => {
            }
            _ => return None,
        }
    }
    Some(digits)
}

/// How many of a number's first digits are its calling code (ITU-T E.164: codes of one digit are 1 and 7,
/// those of two are listed, all others have three).
fn calling_code_length(digits: &str) -> usize {
    match digits.as_bytes() {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        // No calling code starts with 0: longer than any number, so that the split fails.
        [b'0', ..] => usize::MAX,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipe_gives_the_hash_that_platforms_expect() {
        let hashes = hash("+1 (206) 555-0100", None).unwrap();
        assert_eq!(
            [&*hashes.e164_sha256, &*hashes.digits_sha256, &*hashes.national_sha1],
            [
                "b4fa1a0e9e520f7186de1a00b1b84abb55a5c7feab09e7c3b8059ca32a6abd4f",
                "0000fd214ade3cd6a790d9a949f519b17b7c993625dd4782e14166523c66d415",
                "4147a9251399181cf7aee7bfdc969ab835aa5d89",
            ]
        );
    }

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        for (written, country, same) in [
            ("(206) 555-0100", Some("US"), "+12065550100"),
            ("1-206-555-0100", Some("US"), "+12065550100"),
            ("020 7946 0000", Some("GB"), "+442079460000"),
            ("0044 20 7946 0000", Some("GB"), "+442079460000"),
            ("+44 (0)20 7946 0000", None, "+442079460000"),
            ("06 12 34 56 78", Some("FR"), "+33612345678"),
            ("06 1234 5678", Some("IT"), "+390612345678"),
        ] {
            assert_eq!(hash(written, country), hash(same, None), "{written}");
            assert!(hash(same, None).is_some());
        }
    }

    #[test]
    fn what_is_no_number_has_no_hash() {
        for (wrong, country) in [
            ("", None),
            ("+", None),
            ("2065550100", None),
            ("2065550100", Some("ZZ")),
            ("+12", None),
            ("+0123456789", None),
            ("+1234567890123456", None),
            ("+1 206 555 0100 ext 5", None),
            ("+1+2065550100", None),
            ("+1 000 000 0000", None),
            ("٠٠٠٠٠٠٠٠", Some("US")),
        ] {
            assert_eq!(hash(wrong, country), None, "{wrong}");
        }
    }

    #[test]
    fn countries_are_in_order_and_have_a_code_of_their_length() {
        assert!(COUNTRIES.is_sorted());
        for (country, code, _) in COUNTRIES {
            assert_eq!(calling_code_length(&format!("{code}55555")), code.len(), "{country}");
        }
    }
}
