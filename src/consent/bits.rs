//! Bits out of text: each character of base64url stands for six.

use super::Unreadable;

/// No character of base64url.
const NONE: u8 = 0xff;
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut values = [NONE; 256];
    let mut value = 0u8;
    while value < 64 {
        values[alphabet[value as usize] as usize] = value;
        value += 1;
    }
    values
}

/// Reads bits, the highest of each character first. Reading beyond the end is an error, never a zero.
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    /// The bits of a text that is of base64url, without padding.
    pub(super) fn new(text: &'a str) -> Result<Self, Unreadable> {
        let text = text.as_bytes();
        if text.iter().any(|byte| VALUES[usize::from(*byte)] == NONE) {
            return Err(Unreadable::Character);
        }
        Ok(Self { text, at: 0 })
    }

    /// How many bits are left.
    pub(super) fn remaining(&self) -> usize {
        self.text.len() * 6 - self.at
    }

    /// Takes up to 64 bits as a number.
    fn take(&mut self, count: usize) -> Result<u64, Unreadable> {
        if count > self.remaining() {
            return Err(Unreadable::CutShort);
        }
        let mut value = 0;
        let mut left = count;
        while left > 0 {
            let unread = 6 - self.at % 6;
            let taken = unread.min(left);
            let bits = u64::from(VALUES[usize::from(self.text[self.at / 6])]) >> (unread - taken);
            value = value << taken | bits & ((1 << taken) - 1);
            self.at += taken;
            left -= taken;
        }
        Ok(value)
    }

    /// Takes one bit.
    pub(super) fn flag(&mut self) -> Result<bool, Unreadable> {
        Ok(self.take(1)? == 1)
    }

    /// Takes up to 8 bits.
    pub(super) fn u8(&mut self, count: usize) -> Result<u8, Unreadable> {
        u8::try_from(self.take(count)?).map_err(|_| Unreadable::Value)
    }

    /// Takes up to 16 bits.
    pub(super) fn u16(&mut self, count: usize) -> Result<u16, Unreadable> {
        u16::try_from(self.take(count)?).map_err(|_| Unreadable::Value)
    }

    /// Takes up to 63 bits.
    pub(super) fn i64(&mut self, count: usize) -> Result<i64, Unreadable> {
        i64::try_from(self.take(count)?).map_err(|_| Unreadable::Value)
    }

    /// Takes up to 64 bits as a set: the first of them is the lowest bit.
    pub(super) fn set(&mut self, count: usize) -> Result<u64, Unreadable> {
        let bits = self.take(count)?;
        Ok(if count == 0 { 0 } else { bits.reverse_bits() >> (64 - count) })
    }

    /// Takes a number above 0 in the Fibonacci coding, which ends at the first two ones in a row.
    pub(super) fn fibonacci(&mut self) -> Result<u16, Unreadable> {
        let (mut fibonacci, mut next) = (1u32, 2);
        let mut value = 0u32;
        let mut before = false;
        loop {
            let bit = self.flag()?;
            if bit && before {
                return u16::try_from(value).map_err(|_| Unreadable::Value);
            }
            if bit {
                value += fibonacci;
            }
            before = bit;
            if fibonacci > u32::from(u16::MAX) {
                return Err(Unreadable::Value);
            }
            (fibonacci, next) = (next, fibonacci + next);
        }
    }

    /// Whether nothing is left but the zeros that fill up the last characters: to bytes, or to groups of bytes.
    pub(super) fn is_at_the_padding(&self) -> bool {
        let mut rest = self.clone();
        let left = rest.remaining();
        left < 24 && rest.take(left) == Ok(0)
    }
}
