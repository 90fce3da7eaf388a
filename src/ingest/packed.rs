//! Identifiers in few bytes, one behind the other.
//!
//! An entry is a varint of the namespace's number and the form, then the value: hexadecimal digits, with or
//! without a UUID's hyphens, at half their length, any other text with its length before it. A value has
//! one form only, so equal entries are equal identifiers.

use std::borrow::Cow;

use crate::model::Malformed;
use crate::model::codec::Reader;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A byte of the length less one, then the text.
    Text = 0,
    /// 32 lower-case hexadecimal digits.
    Hex16 = 1,
    /// A UUID in lower case.
    Uuid = 2,
    /// A UUID in upper case.
    UpperUuid = 3,
    /// 40 lower-case hexadecimal digits: a SHA-1.
    Hex20 = 4,
    /// 64 lower-case hexadecimal digits: a SHA-256.
    Hex32 = 5,
    /// Nothing: an identifier was here and is forgotten.
    Forgotten = 6,
}

/// The entry that stands for a forgotten one.
pub(crate) const FORGOTTEN: [u8; 1] = [Form::Forgotten as u8];

impl Form {
    fn of(value: &[u8]) -> Self {
        let digits = |form, bytes: &[u8]| {
            if bytes.iter().all(|b| digit(*b).is_some()) { form } else { Self::Text }
        };
        match value.len() {
            32 => digits(Self::Hex16, value),
            40 => digits(Self::Hex20, value),
            64 => digits(Self::Hex32, value),
            36 if HYPHENS.iter().all(|at| value[*at] == b'-') => {
                let mut lower = [0; 36];
                lower.copy_from_slice(value);
                lower.make_ascii_lowercase();
                let is_hex = (0..36).all(|at| HYPHENS.contains(&at) || digit(lower[at]).is_some());
                if !is_hex {
                    Self::Text
                } else if lower == value {
                    Self::Uuid
                } else if value.iter().all(|b| !b.is_ascii_lowercase()) {
                    Self::UpperUuid
                } else {
                    Self::Text
                }
            }
            _ => Self::Text,
        }
    }

    fn read(number: u64) -> Result<Self, Malformed> {
        Ok(match number {
            0 => Self::Text,
            1 => Self::Hex16,
            2 => Self::Uuid,
            3 => Self::UpperUuid,
            4 => Self::Hex20,
            5 => Self::Hex32,
            6 => Self::Forgotten,
            _ => return Err(Malformed("an unknown form of an identifier")),
        })
    }

    /// How many bytes the digits take; `None` of a text.
    fn length(self) -> Option<usize> {
        match self {
            Self::Text => None,
            Self::Hex16 | Self::Uuid | Self::UpperUuid => Some(16),
            Self::Hex20 => Some(20),
            Self::Hex32 => Some(32),
            Self::Forgotten => Some(0),
        }
    }
}

const HYPHENS: [usize; 4] = [8, 13, 18, 23];

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Appends an identifier: its namespace's number, and its value of 1 to 256 bytes.
pub(crate) fn pack(namespace: u16, value: &str, out: &mut Vec<u8>) {
    let form = Form::of(value.as_bytes());
    put_varint(out, u64::from(namespace) << 3 | form as u64);
    if form == Form::Text {
        // An identifier is 1 to 256 bytes long.
        put_u8(out, u8::try_from(value.len().saturating_sub(1)).unwrap_or(u8::MAX));
        out.extend_from_slice(&value.as_bytes()[..value.len().min(256)]);
        return;
    }
    let mut half = None;
    for byte in value.bytes().filter(|byte| *byte != b'-') {
        let digit = digit(byte.to_ascii_lowercase()).unwrap_or(0);
        match half.take() {
            None => half = Some(digit),
            Some(high) => out.push(high << 4 | digit),
        }
    }
}

/// Reads an entry: the namespace's number and the value.
pub(crate) fn unpack(entry: &[u8]) -> Result<(u16, Cow<'_, str>), Malformed> {
    let mut reader = Reader::new(entry);
    let (number, form) = head(&mut reader)?;
    let Some(length) = form.length() else {
        let length = usize::from(reader.u8()?) + 1;
        let text = std::str::from_utf8(reader.take(length)?)
            .map_err(|_| Malformed("an identifier is not UTF-8"))?;
        return Ok((number, text.into()));
    };
    let digits: &[u8; 16] =
        if form == Form::UpperUuid { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    let mut value = String::with_capacity(length * 2 + 4);
    for byte in reader.take(length)? {
        if matches!(form, Form::Uuid | Form::UpperUuid) && HYPHENS.contains(&value.len()) {
            value.push('-');
        }
        value.push(char::from(digits[usize::from(byte >> 4)]));
        value.push(char::from(digits[usize::from(byte & 15)]));
    }
    Ok((number, value.into()))
}

/// The number of an entry's namespace.
pub(crate) fn namespace(entry: &[u8]) -> Option<u16> {
    head(&mut Reader::new(entry)).ok().map(|(number, _)| number)
}

fn head(reader: &mut Reader<'_>) -> Result<(u16, Form), Malformed> {
    let head = reader.varint()?;
    let number = u16::try_from(head >> 3).map_err(|_| Malformed("a namespace's number"))?;
    Ok((number, Form::read(head & 7)?))
}

/// Takes one entry off a reader.
pub(crate) fn take<'a>(reader: &mut Reader<'a>, all: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let start = all.len() - reader.remaining();
    let (_, form) = head(reader)?;
    let length = match form.length() {
        Some(length) => length,
        None => usize::from(reader.u8()?) + 1,
    };
    reader.take(length)?;
    Ok(&all[start..all.len() - reader.remaining()])
}

/// Appends an entry with another number of its namespace; one that is forgotten has none.
pub(crate) fn renumber(
    entry: &[u8],
    new: impl Fn(u16) -> Option<u16>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(entry);
    let (number, form) = head(&mut reader)?;
    if form == Form::Forgotten {
        out.extend_from_slice(entry);
        return Ok(());
    }
    let number = new(number).ok_or(Malformed("an unknown namespace"))?;
    put_varint(out, u64::from(number) << 3 | form as u64);
    out.extend_from_slice(&entry[entry.len() - reader.remaining()..]);
    Ok(())
}

/// Entries by number, in the order they were pushed.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunks: Vec<Chunk>,
    length: u32,
}

/// So many entries to a chunk, so that one that is full wastes nothing.
const CHUNK: u32 = 4096;
/// The start of each of so many entries is kept; the ones between are walked to.
const STEP: u32 = 16;

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Arena {
    /// How many entries there are.
    pub(crate) fn len(&self) -> u32 {
        self.length
    }

    /// Adds a packed entry and returns its number; `None` where there is no number left.
    pub(crate) fn push(&mut self, entry: &[u8]) -> Option<u32> {
        let number = self.length;
        self.length = self.length.checked_add(1)?;
        if number.is_multiple_of(CHUNK) {
            if let Some(full) = self.chunks.last_mut() {
                full.bytes.shrink_to_fit();
                full.starts.shrink_to_fit();
            }
            self.chunks.push(Chunk::default());
        }
        let chunk = self.chunks.last_mut().expect("one was just pushed");
        if number.is_multiple_of(STEP) {
            chunk.starts.push(u32::try_from(chunk.bytes.len()).expect("4,096 short entries"));
        }
        chunk.bytes.extend_from_slice(entry);
        Some(number)
    }

    /// The entry of a number below the length.
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        let chunk = &self.chunks[(number / CHUNK) as usize];
        let start = chunk.starts[(number % CHUNK / STEP) as usize] as usize;
        let all = &chunk.bytes[start..];
        let mut reader = Reader::new(all);
        for _ in 0..number % STEP {
            take(&mut reader, all).expect("only whole entries are pushed");
        }
        take(&mut reader, all).expect("only whole entries are pushed")
    }

    /// Gives the entries from a number on, at most `limit`, each with its number.
    pub(crate) fn each(&self, from: u32, limit: u32, give: &mut dyn FnMut(u32, &[u8])) {
        let end = self.length.min(from.saturating_add(limit));
        let mut at = from;
        while at < end {
            let chunk = &self.chunks[(at / CHUNK) as usize];
            let start = at - at % STEP;
            let all = &chunk.bytes[chunk.starts[(start % CHUNK / STEP) as usize] as usize..];
            let mut reader = Reader::new(all);
            let last = end.min((at / CHUNK).saturating_add(1).saturating_mul(CHUNK));
            for number in start..last {
                let entry = take(&mut reader, all).expect("only whole entries are pushed");
                if number >= at {
                    give(number, entry);
                }
            }
            at = last;
        }
    }

    /// The bytes of memory it takes.
    pub(crate) fn memory(&self) -> usize {
        self.chunks.iter().map(|c| c.bytes.capacity() + c.starts.capacity() * 4 + 48).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_hexadecimal_takes_half() {
        let hex = "0123456789abcdef".repeat(4);
        for (value, length) in [
            ("7", 3),
            ("é", 4),
            (&hex[..32], 17),
            (&hex[..40], 21),
            (&hex, 33),
            (&hex[..31], 33),
            ("0123456789ABCDEF0123456789ABCDEF", 34),
            ("01234567-89ab-cdef-0123-456789abcdef", 17),
            ("01234567-89AB-CDEF-0123-456789ABCDEF", 17),
            ("01234567-89AB-cdef-0123-456789ABCDEF", 38),
            ("01234567-8901-0123-0123-456789012345", 17),
            ("01234567-89ab-cdef-0123-456789abcde-", 38),
            ("0123456789012345678901234567890éabcd", 39),
            (&"x".repeat(256), 258),
        ] {
            let mut bytes = Vec::new();
            pack(3, value, &mut bytes);
            assert_eq!(bytes.len(), length, "{value}");
            assert_eq!(unpack(&bytes).unwrap(), (3, value.into()));
        }
    }

    #[test]
    fn another_number_of_the_namespace_changes_nothing_else() {
        for (value, number) in [("é", 300), ("0123456789abcdef0123456789abcdef", 1), ("x", 0)] {
            let (mut before, mut after) = (Vec::new(), Vec::new());
            pack(7, value, &mut before);
            renumber(&before, |old| (old == 7).then_some(number), &mut after).unwrap();
            assert_eq!(unpack(&after).unwrap(), (number, value.into()));
            assert!(renumber(&before, |_| None, &mut Vec::new()).is_err());
        }
        let mut after = Vec::new();
        renumber(&FORGOTTEN, |_| None, &mut after).unwrap();
        assert_eq!(after, FORGOTTEN);
    }

    #[test]
    fn an_arena_gives_entries_back_by_number() {
        let mut arena = Arena::default();
        let entry = |n: u32| {
            let mut bytes = Vec::new();
            pack(u16::try_from(n % 300).unwrap(), &"v".repeat((n % 97) as usize + 1), &mut bytes);
            bytes
        };
        for n in 0..10_000 {
            assert_eq!(arena.push(&entry(n)), Some(n));
        }
        for n in [0, 1, 15, 16, 4095, 4096, 9_999] {
            assert_eq!(arena.get(n), entry(n));
        }
        for (from, limit) in [(0, 20_000), (0, 1), (17, 4_096), (4_095, 2), (9_999, 9), (10_000, 9)]
        {
            let mut given = Vec::new();
            arena.each(from, limit, &mut |n, bytes| {
                assert_eq!(bytes, entry(n));
                given.push(n);
            });
            assert_eq!(given, (from..10_000.min(from + limit)).collect::<Vec<_>>());
        }
    }
}
