//! The names of keys. What is in braces decides the node that holds a key of a cluster.

use std::fmt::Write;

/// Names keys below a prefix, which keeps several installations apart on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// `throng`.
impl Default for Keys {
    fn default() -> Self {
        Self::new("throng")
    }
}

impl Keys {
    /// Names keys below `prefix`, which has no brace in it.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: safe(prefix) }
    }

    /// A key that the whole store has once.
    pub(super) fn store(&self, name: &str) -> String {
        self.tagged("store", name)
    }

    /// A key of a lane.
    pub(super) fn lane(&self, tag: &str, name: &str) -> String {
        self.tagged(&safe(tag), name)
    }

    /// A key of a destination's ledger.
    pub(super) fn destination(&self, destination: &str, name: &str) -> String {
        self.tagged(&format!("to.{}", safe(destination)), name)
    }

    fn tagged(&self, tag: &str, name: &str) -> String {
        format!("{}:{{{tag}}}:{name}", self.prefix)
    }
}

/// The text with every byte written as `%` and two digits that could end a tag or the name's part.
pub(super) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02x}").expect("a String takes all");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_the_tag_of_its_key() {
        let keys = Keys::default();
        assert_eq!(keys.lane("017", "ev"), "throng:{017}:ev");
        assert_eq!(keys.destination("a}b:é", "out"), "throng:{to.a%7db%3a%c3%a9}:out");
        assert_ne!(keys.lane("store", "x"), keys.lane("to.store", "x"));
    }
}
