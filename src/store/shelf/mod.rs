//! Small values that the whole store has once, by name: what several processes have to agree on.

#[cfg(test)]
pub(crate) mod conformance;

use super::StoreError;

/// The longest name, in bytes.
pub const MAX_NAME: usize = 256;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;

/// A store of small values. Calls block.
///
/// A name is 1 to [`MAX_NAME`] bytes without control characters, a value at most [`MAX_VALUE`] bytes, and an
/// empty value is one; what is longer is [`StoreError::Refused`].
///
/// After an error that is retryable nothing of the call was done, or all of it where only the answer was lost: the
/// same call may be made again.
pub trait Shelf: Send + Sync {
    /// The value of a name.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps a value where there is none; returns the one that stands, which is the first one's.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError>;

    /// Puts `new` in the place of `expected`, where that is what stands; `None` is no value, so that this makes a
    /// value, changes it or deletes it. Tells whether `new` stands.
    ///
    /// Where `new` stands already the answer is `true` whoever put it there, so that a swap may be repeated after a
    /// lost answer. If meanwhile a third value has taken its place, the repeat says `false` of a swap that was done,
    /// and if `expected` has come back, it is done once more. Whoever cannot bear that puts something of its own into
    /// the value, such as a random number.
    fn swap(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool, StoreError>;

    /// The names that begin with a text, in order.
    fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
}

/// Refuses a name that cannot be kept.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    if (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(StoreError::Refused {
        what: "a name of the shelf".to_owned(),
        hint: format!("it is 1 to {MAX_NAME} bytes without control characters"),
    })
}

/// Refuses a value that cannot be kept.
pub(super) fn check_value(name: &str, value: &[u8]) -> Result<(), StoreError> {
    if value.len() <= MAX_VALUE {
        return Ok(());
    }
    Err(StoreError::Refused {
        what: format!("the value of `{name}`"),
        hint: format!("it has {} bytes and may have {MAX_VALUE}", value.len()),
    })
}
