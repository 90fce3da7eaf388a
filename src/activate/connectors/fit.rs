//! Whether an identifier is one that a platform could know: what is not is never sent.

use super::http;

const SHA1_OF_NOTHING: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

/// What is wrong with a hash, where something is.
pub(super) fn unfit_hash(value: &str) -> Option<&'static str> {
    if !http::is_sha256(value) {
        return Some("it is no SHA-256 in lower-case hexadecimal");
    }
    (value == http::SHA256_OF_NOTHING).then_some("it is the hash of nothing")
}

/// What is wrong with a SHA-1, where something is.
pub(super) fn unfit_sha1(value: &str) -> Option<&'static str> {
    let fits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if value.len() != 40 || !value.bytes().all(fits) {
        return Some("it is no SHA-1 in lower-case hexadecimal");
    }
    (value == SHA1_OF_NOTHING).then_some("it is the hash of nothing")
}

/// What is wrong with a device's advertising id, where something is.
pub(super) fn unfit_device(value: &str) -> Option<&'static str> {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    let is_uuid = value.len() == 36 && value.bytes().enumerate().all(fits);
    (!is_uuid).then_some("it is no device id such as 4b61639e-47cc-4056-a16a-c8217e029462")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_platform_knows_is_told() {
        let hash = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
        assert_eq!(unfit_hash(hash), None);
        for wrong in ["jane@example.com", "", &hash[1..], &hash.to_uppercase()] {
            assert_eq!(unfit_hash(wrong), Some("it is no SHA-256 in lower-case hexadecimal"));
        }
        assert_eq!(unfit_hash(http::SHA256_OF_NOTHING), Some("it is the hash of nothing"));
        assert_eq!(unfit_device("4b61639e-47cc-4056-a16a-c8217e029462"), None);
        assert_eq!(unfit_device("4B61639E-47CC-4056-A16A-C8217E029462"), None);
        for wrong in [
            "4b61639e47cc4056a16ac8217e029462",
            "4b61639e-47cc-4056-a16a-c8217e02946g",
            "4b61639e-47cc-4056-a16a-c8217e0294620",
            "4b61639-e47cc-4056-a16a-c8217e029462",
        ] {
            assert!(unfit_device(wrong).is_some(), "{wrong}");
        }
    }
}
