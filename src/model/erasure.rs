//! What is erased, and who opted out by name: identifiers, known by keyed hashes alone, so that the order to forget one
//! does not keep it.

use super::codec::Malformed;
use super::codec::Reader;
use super::codec::put_i64;
use super::codec::put_u8;
use super::codec::put_varint;
use super::time::Millis;

/// The keyed hash of an identifier: who does not have the store's key cannot tell whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Print(pub [u64; 2]);

/// The order to forget the profiles that some identifiers own, and what was received of them before a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// When it was asked for.
    pub received: Millis,
    /// The identifiers.
    pub prints: Vec<Print>,
    /// What happened or was received up to then is erased.
    pub before: Millis,
    /// Whether nothing is taken of them any more, either.
    pub for_good: bool,
}

/// Whether whoever has one of some identifiers may be activated: the profiles that own one, and those that come to have
/// one among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptOut {
    /// When it was asked for. What was asked last stands.
    pub received: Millis,
    /// The identifiers.
    pub prints: Vec<Print>,
    /// Opted out, or in again.
    pub opted_out: bool,
}

/// So many identifiers are erased by one record at most, or opted out.
pub const MOST_ERASED: usize = 1 << 16;

impl Print {
    /// The hash as 32 hex digits.
    pub fn hex(self) -> String {
        format!("{:016x}{:016x}", self.0[0], self.0[1])
    }

    /// Reads what [`Print::hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let half = |text: &str| u64::from_str_radix(text, 16).ok();
        Some(Self([half(&text[..16])?, half(&text[16..])?]))
    }
}

impl Erasure {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.received);
        put_i64(out, self.before);
        put_u8(out, u8::from(self.for_good));
        put_prints(out, &self.prints);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let received = reader.i64()?;
        let before = reader.i64()?;
        let for_good = reader.u8()? == 1;
        Ok(Self { received, prints: prints(reader)?, before, for_good })
    }
}

impl OptOut {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.received);
        put_u8(out, u8::from(self.opted_out));
        put_prints(out, &self.prints);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (received, opted_out) = (reader.i64()?, reader.u8()? == 1);
        Ok(Self { received, prints: prints(reader)?, opted_out })
    }
}

fn put_prints(out: &mut Vec<u8>, prints: &[Print]) {
    put_varint(out, prints.len() as u64);
    for half in prints.iter().flat_map(|print| print.0) {
        out.extend_from_slice(&half.to_le_bytes());
    }
}

fn prints(reader: &mut Reader<'_>) -> Result<Vec<Print>, Malformed> {
    let count = reader.length()?;
    if count > MOST_ERASED {
        return Err(Malformed("too many identifiers at once"));
    }
    let mut prints = Vec::with_capacity(count);
    for _ in 0..count {
        let mut half = || -> Result<u64, Malformed> {
            let bytes = reader.take(8)?;
            Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Malformed("a hash"))?))
        };
        prints.push(Print([half()?, half()?]));
    }
    Ok(prints)
}
