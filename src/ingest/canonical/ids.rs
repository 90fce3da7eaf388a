//! The identifiers of one event: trimmed, checked, and hashed where they name a person.

use super::Arrival;
use super::Code;
use super::MAX_IDS;
use super::Rejection;
use super::email;
use super::phone;
use crate::model::Identifier;
use crate::model::InvalidIdentifier;
use crate::model::Namespace;

/// Why an identifier was dropped from an event that may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Its namespace is not of the form.
    Namespace,
    /// Its value is empty, too long, no text, or the hash of nothing.
    Value,
    /// A device id of zeros alone.
    Zero,
    /// No e-mail address.
    Email,
    /// No phone number, or one of an unknown country.
    Phone,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Namespace, Self::Value, Self::Zero, Self::Email, Self::Phone];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Value => "value",
            Self::Zero => "zero",
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }
}

/// How many identifiers were dropped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped([u32; 5]);

impl Dropped {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u32)> {
        DropReason::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    fn reasons(&self) -> String {
        self.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Namespaces whose values are hashes made by the sender.
const HASHED: [&str; 5] = [
    "email_sha256",
    "email_gmail_sha256",
    "phone_e164_sha256",
    "phone_digits_sha256",
    "phone_national_sha1",
];
/// The hashes of the empty string: what a sender makes of a person without an address.
const HASHES_OF_NOTHING: [&str; 2] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
];

/// What someone is known by under a namespace, as a caller writes it: `email` and `phone` stand for their hashes. The
/// error says what is wrong.
pub fn identifiers_of(namespace: &str, value: &str) -> Result<Vec<Identifier>, String> {
    let mut ids = Ids::default();
    ids.add_known(namespace, value, None);
    let mut taken = ids.taken();
    taken.sort_unstable();
    taken.dedup();
    if !taken.is_empty() {
        return Ok(taken);
    }
    Err(match namespace {
        "email" => "this is no e-mail address".to_owned(),
        "phone" => "this is no phone number; it begins with `+` and the country's code".to_owned(),
        _ => "a namespace is [a-z][a-z0-9_]{0,31}, a value 1 to 256 bytes without control characters, and neither \
              zeros alone nor the hash of nothing"
            .to_owned(),
    })
}

/// Whether a value is all of what was sent. U+FFFD stands for bytes that were no UTF-8, of which there are many: whoever
/// is named by it may be anybody.
pub fn is_whole(value: &str) -> bool {
    !value.contains(char::REPLACEMENT_CHARACTER)
}

/// Gathers the identifiers of one event.
#[derive(Debug, Default)]
pub struct Ids {
    taken: Vec<Identifier>,
    dropped: Dropped,
}

impl Ids {
    /// Takes one as sent. `email` and `phone` become their hashes; a bad one is dropped and counted.
    pub fn add(&mut self, namespace: &str, value: &str, phone_country: Option<&str>) {
        if is_whole(value) {
            self.add_known(namespace, value, phone_country);
        } else {
            self.dropped.count(DropReason::Value);
        }
    }

    /// The same of one that somebody asks about, and that may have been taken long ago.
    fn add_known(&mut self, namespace: &str, value: &str, phone_country: Option<&str>) {
        match namespace {
            "email" => match email::hash(value) {
                Some(hashes) => {
                    self.take("email_sha256", &hashes.sha256);
                    self.take("email_gmail_sha256", &hashes.gmail_sha256);
                }
                None => self.dropped.count(DropReason::Email),
            },
            "phone" => match phone::hash(value, phone_country) {
                Some(hashes) => {
                    self.take("phone_e164_sha256", &hashes.e164_sha256);
                    self.take("phone_digits_sha256", &hashes.digits_sha256);
                    self.take("phone_national_sha1", &hashes.national_sha1);
                }
                None => self.dropped.count(DropReason::Phone),
            },
            _ => self.take(namespace, value),
        }
    }

    /// Counts one that is dropped.
    pub fn drop_one(&mut self, reason: DropReason) {
        self.dropped.count(reason);
    }

    fn take(&mut self, namespace: &str, value: &str) {
        let hash_of_nothing = HASHED.contains(&namespace)
            && HASHES_OF_NOTHING.iter().any(|hash| hash.eq_ignore_ascii_case(value.trim()));
        if hash_of_nothing {
            return self.dropped.count(DropReason::Value);
        }
        let made = Namespace::new(namespace).and_then(|ns| Identifier::new(ns, value));
        match made {
            Ok(identifier) => self.taken.push(identifier),
            Err(InvalidIdentifier::Namespace) => self.dropped.count(DropReason::Namespace),
            Err(InvalidIdentifier::Value) => self.dropped.count(DropReason::Value),
            Err(InvalidIdentifier::AllZero) => self.dropped.count(DropReason::Zero),
        }
    }

    /// What was taken, in no order; nothing is added.
    pub fn taken(self) -> Vec<Identifier> {
        self.taken
    }

    /// Ends the gathering: adds the browser's cookie unless one was named, or a new one from `mint` where
    /// there is nothing else, and sorts the owner first.
    ///
    /// What was dropped is added to `dropped`, whether the event is kept or not.
    pub fn finish(
        mut self,
        arrival: &Arrival<'_>,
        mint: &mut dyn FnMut() -> Option<Identifier>,
        dropped: &mut Dropped,
    ) -> Result<Vec<Identifier>, Rejection> {
        for (total, new) in dropped.0.iter_mut().zip(self.dropped.0) {
            *total += new;
        }
        if let Some(cookie) = &arrival.cookie
            && !self.taken.iter().any(|id| id.namespace == cookie.namespace)
        {
            self.taken.push(cookie.clone());
        }
        if self.taken.is_empty()
            && let Some(cookie) = mint()
        {
            self.taken.push(cookie);
        }
        if self.taken.len() > 1 {
            arrival.order.sort(&mut self.taken);
        }
        match self.taken.len() {
            0 if self.dropped == Dropped::default() => {
                let message = "ids: expected at least one identifier";
                Err(Rejection::new(Code::Ids, message))
            }
            0 => {
                let reasons = self.dropped.reasons();
                let message = format!("ids: none is usable (dropped for: {reasons})");
                Err(Rejection::new(Code::Ids, message))
            }
            1..=MAX_IDS => Ok(self.taken),
            _ => {
                let message = format!("ids: expected at most {MAX_IDS} identifiers");
                Err(Rejection::new(Code::Ids, message))
            }
        }
    }
}
