//! E-mail addresses to the hashes that platforms match by.
//!
//! Two recipes: the address trimmed and in lower case, and the same with the dots and the `+tag` of Gmail's
//! mailboxes taken out. The address itself goes no further.

use sha2::Digest;
use sha2::Sha256;

use crate::model::hex;

/// The hashes of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256 of the trimmed address in lower case, in hexadecimal.
    pub sha256: String,
    /// The same under Gmail's rule; of other providers' addresses, the same hash.
    pub gmail_sha256: String,
}

/// Hashes an address, or `None` where it is none.
pub fn hash(address: &str) -> Option<Hashes> {
    let address = address.trim().to_lowercase();
    let (local, domain) = address.rsplit_once('@')?;
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if local.is_empty() || domain.is_empty() || address.len() > 254 || address.contains(odd) {
        return None;
    }
    let sha256 = hex(&Sha256::digest(address.as_bytes()));
    let gmail_sha256 = if matches!(domain, "gmail.com" | "googlemail.com") {
        let mailbox = local.split('+').next().unwrap_or_default().replace('.', "");
        if mailbox.is_empty() {
            return None;
        }
        hex(&Sha256::digest(format!("{mailbox}@{domain}").as_bytes()))
    } else {
        sha256.clone()
    };
    Some(Hashes { sha256, gmail_sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipe_gives_the_hash_that_platforms_expect() {
        let plain = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
        let gmail = "d6117306485ed0e50afab3ac871e98f81699151f30281527d63ff5f233656c69";
        for address in ["jane.doe+news@gmail.com", "  Jane.Doe+News@GMAIL.com\n"] {
            let hashes = hash(address).unwrap();
            assert_eq!((hashes.sha256.as_str(), hashes.gmail_sha256.as_str()), (plain, gmail));
        }
        let other = hash("jane.doe+news@example.com").unwrap();
        let unchanged = "dbf1912b4cad4df9823f627874244e64b50a6ac550b9cb33b17df671a26679db";
        assert_eq!((other.sha256.as_str(), other.gmail_sha256.as_str()), (unchanged, unchanged));
    }

    #[test]
    fn what_is_no_address_has_no_hash() {
        let long = format!("{}@example.com", "a".repeat(250));
        for wrong in
            ["", "  ", "@", "a@", "@b.example", "ab", "a b@c.example", "+x@gmail.com", &long]
        {
            assert_eq!(hash(wrong), None, "{wrong:?}");
        }
    }
}
