//! The bytes of events and values, shared by the journal, the stores and the archive's tail.
//!
//! Little-endian, lengths as LEB128 varints. A reader checks every bound and allocates no more than its
//! input holds, so any bytes can be given to it. A version lies in the file or frame around them.

use super::consent::{Consent, Purposes};
use super::event::{Device, Event, Page, Source};
use super::identifier::{Identifier, Namespace};
use super::value::{Number, Value};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes: {0}")]
pub struct Malformed(pub &'static str);

/// How deep a value may nest: what `serde_json` lets in.
const MAX_DEPTH: usize = 128;

/// Appends a byte.
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends a 64-bit integer.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends an unsigned integer, 7 bits a byte.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a length and the text.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Appends a text that may be missing.
pub fn put_opt_str(out: &mut Vec<u8>, text: Option<&str>) {
    put_u8(out, u8::from(text.is_some()));
    if let Some(text) = text {
        put_str(out, text);
    }
}

/// Reads what the `put_…` functions wrote, front to back.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// Reads a 64-bit integer.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        let bytes = self.take(8)?;
        Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| Malformed("cut short"))?))
    }

    /// Reads a varint.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint is too long"))
    }

    /// Reads a count of things that take at least a byte each.
    pub fn length(&mut self) -> Result<usize, Malformed> {
        let length =
            usize::try_from(self.varint()?).map_err(|_| Malformed("a length is too large"))?;
        if length > self.rest.len() {
            return Err(Malformed("a length is beyond the end"));
        }
        Ok(length)
    }

    /// Reads a length and that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        self.take(length)
    }

    /// Reads a text.
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// Reads a text that may be missing.
    pub fn opt_str(&mut self) -> Result<Option<&'a str>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.str().map(Some),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    /// Ends the reading; what is left over is an error.
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }
}

impl Identifier {
    /// Appends the identifier's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, self.namespace.as_str());
        put_str(out, self.value());
    }

    /// Reads an identifier.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let namespace = Namespace::new(reader.str()?).map_err(|_| Malformed("a namespace"))?;
        Self::new(namespace, reader.str()?).map_err(|_| Malformed("an identifier"))
    }
}

impl Value {
    /// Appends the value's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => put_u8(out, 0),
            Self::Bool(false) => put_u8(out, 1),
            Self::Bool(true) => put_u8(out, 2),
            Self::Number(number) => {
                put_u8(out, 3);
                put_str(out, number.as_str());
            }
            Self::String(text) => {
                put_u8(out, 4);
                put_str(out, text);
            }
            Self::Array(items) => {
                put_u8(out, 5);
                put_varint(out, items.len() as u64);
                for item in items {
                    item.encode(out);
                }
            }
            Self::Object(fields) => {
                put_u8(out, 6);
                encode_fields(fields, out);
            }
        }
    }

    /// Reads a value.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::decode_within(reader, MAX_DEPTH)
    }

    fn decode_within(reader: &mut Reader<'_>, depth: usize) -> Result<Self, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed("a value nests too deep"))?;
        Ok(match reader.u8()? {
            0 => Self::Null,
            1 => Self::Bool(false),
            2 => Self::Bool(true),
            3 => Self::Number(Number::new(reader.str()?).ok_or(Malformed("a number"))?),
            4 => Self::String(reader.str()?.into()),
            5 => {
                let count = reader.length()?;
                let mut items = Vec::with_capacity(count.min(1024));
                for _ in 0..count {
                    items.push(Self::decode_within(reader, depth)?);
                }
                Self::Array(items)
            }
            6 => Self::Object(decode_fields_within(reader, depth)?),
            _ => return Err(Malformed("an unknown kind of value")),
        })
    }
}

/// Appends the bytes of named values.
pub fn encode_fields(fields: &[(Box<str>, Value)], out: &mut Vec<u8>) {
    put_varint(out, fields.len() as u64);
    for (name, value) in fields {
        put_str(out, name);
        value.encode(out);
    }
}

/// Reads named values.
pub fn decode_fields(reader: &mut Reader<'_>) -> Result<Vec<(Box<str>, Value)>, Malformed> {
    decode_fields_within(reader, MAX_DEPTH)
}

fn decode_fields_within(
    reader: &mut Reader<'_>,
    depth: usize,
) -> Result<Vec<(Box<str>, Value)>, Malformed> {
    let count = reader.length()?;
    let mut fields = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        let name = reader.str()?.into();
        fields.push((name, Value::decode_within(reader, depth)?));
    }
    Ok(fields)
}

impl Consent {
    /// Appends the consent's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.purposes.bits().into());
        put_varint(out, self.vendors.len() as u64);
        for vendor in &self.vendors {
            put_varint(out, (*vendor).into());
        }
    }

    /// Reads a consent.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bits = u32::try_from(reader.varint()?).map_err(|_| Malformed("a set of purposes"))?;
        let purposes = Purposes::from_bits(bits);
        if purposes.bits() != bits {
            return Err(Malformed("a set of purposes"));
        }
        let count = reader.length()?;
        let mut vendors = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            let vendor = u16::try_from(reader.varint()?).map_err(|_| Malformed("a vendor's id"))?;
            if vendors.last().is_some_and(|last| *last >= vendor) {
                return Err(Malformed("vendors that are not in order"));
            }
            vendors.push(vendor);
        }
        Ok(Self { purposes, vendors })
    }
}

impl Event {
    /// Appends the event's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, &self.site);
        put_str(out, &self.name);
        put_i64(out, self.time);
        put_i64(out, self.received);
        let source = match self.source {
            Source::Pixel => 0,
            Source::Js => 1,
            Source::Api => 2,
            Source::Import => 3,
        };
        let flags = [self.time_replaced, self.bot, self.consent.is_some()];
        let flags = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        put_u8(out, source | flags << 2);
        put_opt_str(out, self.message_id.as_deref());
        put_varint(out, self.ids.len() as u64);
        for id in &self.ids {
            id.encode(out);
        }
        encode_fields(&self.props, out);
        encode_fields(&self.attrs, out);
        for text in [
            &self.page.url,
            &self.page.referrer,
            &self.page.title,
            &self.device.kind,
            &self.device.os,
            &self.device.browser,
            &self.country,
            &self.locale,
        ] {
            put_opt_str(out, text.as_deref());
        }
        if let Some(consent) = &self.consent {
            consent.encode(out);
        }
    }

    /// Reads an event. Those that were written before events had a consent have none.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let site = reader.str()?.into();
        let name = reader.str()?.into();
        let time = reader.i64()?;
        let received = reader.i64()?;
        let flags = reader.u8()?;
        let message_id = reader.opt_str()?.map(Into::into);
        let count = reader.length()?;
        let mut ids = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            ids.push(Identifier::decode(reader)?);
        }
        if ids.is_empty() {
            return Err(Malformed("an event without an identifier"));
        }
        let props = decode_fields(reader)?;
        let attrs = decode_fields(reader)?;
        let mut text = || Ok(reader.opt_str()?.map(Into::into));
        let page = Page { url: text()?, referrer: text()?, title: text()? };
        let device = Device { kind: text()?, os: text()?, browser: text()? };
        let (country, locale) = (text()?, text()?);
        let consent = if flags & 16 == 0 { None } else { Some(Consent::decode(reader)?.into()) };
        Ok(Self {
            site,
            name,
            time,
            received,
            time_replaced: flags & 4 != 0,
            source: match flags & 3 {
                0 => Source::Pixel,
                1 => Source::Js,
                2 => Source::Api,
                _ => Source::Import,
            },
            message_id,
            ids,
            props,
            attrs,
            page,
            device,
            bot: flags & 8 != 0,
            country,
            locale,
            consent,
        })
    }
}
