//! The pseudonymous names a profile is known by, and the order in which one of them owns an event.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// Who minted an identifier's value: `cookie`, `idfa`, `user_id`, `email_sha256` …
///
/// Invariant: `[a-z][a-z0-9_]{0,31}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Box<str>);

/// The namespaces of devices, in the order in which one owns an event. `anonymous_id` is what the client of another
/// vendor keeps in its browser or app.
pub const DEVICE_NAMESPACES: [&str; 10] =
    ["cookie", "anonymous_id", "idfa", "gaid", "rida", "afai", "tifa", "vida", "lgudid", "msai"];

/// The other namespaces that are always known, in the order in which one owns an event.
pub const OTHER_NAMESPACES: [&str; 11] = [
    "user_id",
    "crm_id",
    "email_sha256",
    "email_gmail_sha256",
    "phone_e164_sha256",
    "phone_digits_sha256",
    "phone_national_sha1",
    "xandr",
    "google",
    "ttd",
    "uid2",
];

/// One pseudonymous name, such as `cookie:7d44…` or `user_id:12680`.
///
/// Invariant: the value is 1 to 256 bytes of UTF-8 without control characters or outer white space.
///
/// Nodes send it to each other as its two texts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(String, String)", into = "(String, String)")]
pub struct Identifier {
    /// Who minted the value.
    pub namespace: Namespace,
    value: Box<str>,
}

/// Why something is not an [`Identifier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentifier {
    /// The namespace is not of the form.
    #[error("a namespace is a lower-case letter, then up to 31 lower-case letters, digits or `_`")]
    Namespace,
    /// The value is empty, too long, or holds a control character.
    #[error("an identifier is 1 to 256 bytes without control characters")]
    Value,
    /// A device id of zeros alone, which every opted-out device sends.
    #[error("an all-zero device id identifies nobody")]
    AllZero,
}

impl Namespace {
    /// Takes a namespace of the form `[a-z][a-z0-9_]{0,31}`.
    pub fn new(text: &str) -> Result<Self, InvalidIdentifier> {
        let mut bytes = text.bytes();
        let fits = text.len() <= 32
            && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if fits { Ok(Self(text.into())) } else { Err(InvalidIdentifier::Namespace) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one identifier of this namespace is one device.
    pub fn is_device(&self) -> bool {
        DEVICE_NAMESPACES.contains(&&*self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Identifier {
    /// Takes a value after trimming it; an all-zero value of a device namespace is refused.
    pub fn new(namespace: Namespace, value: &str) -> Result<Self, InvalidIdentifier> {
        let value = value.trim();
        if value.is_empty() || value.len() > 256 || value.chars().any(char::is_control) {
            return Err(InvalidIdentifier::Value);
        }
        let is_zero = |b: u8| b == b'0' || b == b'-';
        if namespace.is_device() && value.bytes().all(is_zero) {
            return Err(InvalidIdentifier::AllZero);
        }
        Ok(Self { namespace, value: value.into() })
    }

    /// The value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl From<Identifier> for (String, String) {
    fn from(Identifier { namespace, value }: Identifier) -> Self {
        (namespace.0.into(), value.into())
    }
}

impl TryFrom<(String, String)> for Identifier {
    type Error = InvalidIdentifier;

    fn try_from((namespace, value): (String, String)) -> Result<Self, InvalidIdentifier> {
        Self::new(Namespace::new(&namespace)?, &value)
    }
}

/// Shows the namespace only: an identifier is personal data and must not reach a log.
impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({}:…)", self.namespace)
    }
}

/// The order of namespaces: the first identifier of an event, in this order, names its profile.
///
/// Devices, then the others that are always known, then those of `[identity] namespaces` as listed,
/// then any other by name.
#[derive(Debug, Clone, Default)]
pub struct NamespaceOrder {
    configured: Vec<Namespace>,
}

impl NamespaceOrder {
    /// The order with the namespaces of the configuration.
    pub fn new(configured: Vec<Namespace>) -> Self {
        Self { configured }
    }

    /// Whether a namespace is listed or configured, so that a rule may name it though no profile has
    /// one.
    pub fn knows(&self, namespace: &str) -> bool {
        self.known().any(|known| known == namespace)
    }

    /// The names of the listed and configured namespaces, in order.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        DEVICE_NAMESPACES
            .into_iter()
            .chain(OTHER_NAMESPACES)
            .chain(self.configured.iter().map(Namespace::as_str))
    }

    /// Every listed and configured namespace, in order.
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.known().filter_map(|name| Namespace::new(name).ok()).collect()
    }

    /// Sorts an event's identifiers so that its owner is first, and drops doubled ones.
    pub fn sort(&self, identifiers: &mut Vec<Identifier>) {
        identifiers.sort_by(|a, b| {
            let rank = |i: &Identifier| {
                self.known().position(|known| known == i.namespace.as_str()).unwrap_or(usize::MAX)
            };
            rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
        });
        identifiers.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(namespace: &str, value: &str) -> Identifier {
        Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
    }

    #[test]
    fn the_owner_is_first() {
        let order = NamespaceOrder::new(vec![Namespace::new("loyalty").unwrap()]);
        let mut ids: Vec<_> =
            ["zeta", "alpha", "loyalty", "uid2", "user_id", "gaid", "anonymous_id", "cookie"]
                .map(|ns| identifier(ns, "1"))
                .into();
        order.sort(&mut ids);
        let sorted: Vec<_> = ids.iter().map(|i| i.namespace.as_str()).collect();
        let expected =
            ["cookie", "anonymous_id", "gaid", "user_id", "uid2", "loyalty", "alpha", "zeta"];
        assert_eq!(sorted, expected);
    }

    #[test]
    fn bad_values_are_refused() {
        let gaid = || Namespace::new("gaid").unwrap();
        assert_eq!(identifier("user_id", " 7 ").value(), "7");
        assert_eq!(
            Identifier::new(gaid(), "00000000-0000-0000-0000-000000000000"),
            Err(InvalidIdentifier::AllZero)
        );
        assert!(Identifier::new(Namespace::new("user_id").unwrap(), "0").is_ok());
        for value in ["", "  ", "a\u{0}b", "a\u{85}b", &"x".repeat(257)] {
            assert_eq!(Identifier::new(gaid(), value), Err(InvalidIdentifier::Value));
        }
        for namespace in ["", "A", "1a", "a-b", "é", &"a".repeat(33)] {
            assert!(Namespace::new(namespace).is_err(), "{namespace}");
        }
        assert_eq!(format!("{:?}", identifier("user_id", "7")), "Identifier(user_id:…)");
    }
}
