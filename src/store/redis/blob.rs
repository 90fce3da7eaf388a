//! Contents: what is too large for a lane's index lies under keys of its own, and the index says where.
//!
//! A key's name is the lease and the attempt that wrote it and a number, so none is ever written twice with
//! different bytes, and what no index names is found and deleted. Nobody sees contents before the index does.

use redis::Cmd;
use redis::Value;

use super::keys::Keys;
use super::lease::Lease;
use super::link::Link;
use super::reply;
use crate::model::Malformed;
use crate::model::codec::Reader;
use crate::model::codec::put_bytes;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;
use crate::store::StoreError;

/// No key holds more: larger contents are cut.
pub(super) const PART: usize = 1 << 20;
/// So many bytes or commands are on their way at once.
const IN_FLIGHT: (usize, usize) = (1 << 20, 256);
/// What takes no more bytes than this lies in the index itself: a key of its own costs about a hundred.
pub(super) const INLINE: usize = 96;

/// Where contents lie: `parts` keys from number `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stored {
    pub(super) lease: Lease,
    pub(super) attempt: u64,
    pub(super) first: u32,
    pub(super) parts: u32,
    pub(super) bytes: u64,
}

impl Stored {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.lease.epoch);
        out.extend_from_slice(&self.lease.token.to_le_bytes());
        self.encode_place(out);
    }

    /// Without the lease.
    pub(super) fn encode_place(&self, out: &mut Vec<u8>) {
        for number in [self.attempt, self.first.into(), self.parts.into(), self.bytes] {
            put_varint(out, number);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let epoch = reader.varint()?;
        let token = reader.take(4)?.try_into().map_err(|_| Malformed("cut short"))?;
        Self::decode_place(Lease { epoch, token: u32::from_le_bytes(token) }, reader)
    }

    pub(super) fn decode_place(lease: Lease, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let short = |number: u64| u32::try_from(number).map_err(|_| Malformed("a key's number"));
        let attempt = reader.varint()?;
        let (first, parts) = (short(reader.varint()?)?, short(reader.varint()?)?);
        first.checked_add(parts).ok_or(Malformed("a key's number"))?;
        Ok(Self { lease, attempt, first, parts, bytes: reader.varint()? })
    }

    /// Joins ranges that go on in each other.
    pub(super) fn join(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort_unstable();
        let mut joined: Vec<Self> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last)
                    if (last.lease, last.attempt) == (range.lease, range.attempt)
                        && last.first + last.parts == range.first =>
                {
                    last.parts += range.parts;
                    last.bytes += range.bytes;
                }
                _ => joined.push(range),
            }
        }
        joined
    }
}

/// A value of the index: small ones whole, others by where they lie, with what is asked of them without reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) meta: Vec<u8>,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Inline(Vec<u8>),
    Stored(Stored),
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.body {
            Body::Inline(bytes) => {
                put_u8(&mut out, 0);
                put_bytes(&mut out, &self.meta);
                out.extend_from_slice(bytes);
            }
            Body::Stored(stored) => {
                put_u8(&mut out, 1);
                put_bytes(&mut out, &self.meta);
                stored.encode(&mut out);
            }
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let meta = reader.bytes()?.to_vec();
        let body = match kind {
            0 => Body::Inline(reader.take(reader.remaining())?.to_vec()),
            1 => Body::Stored(Stored::decode(&mut reader)?),
            _ => return Err(Malformed("an unknown kind of entry")),
        };
        reader.finish()?;
        Ok(Self { meta, body })
    }
}

/// Reads, writes and deletes the contents of a lane.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    pub(super) link: Link,
    pub(super) keys: Keys,
    pub(super) tag: Box<str>,
}

impl Blobs {
    fn name(&self, lease: Lease, attempt: u64, number: u32) -> String {
        let name = format!("c:{}.{}.{attempt}.{number}", lease.epoch, lease.token_text());
        self.keys.lane(&self.tag, &name)
    }

    /// The keys of contents.
    pub(super) fn names(&self, stored: &Stored) -> impl Iterator<Item = String> {
        let Stored { lease, attempt, first, parts, .. } = *stored;
        (first..first.saturating_add(parts)).map(move |number| self.name(lease, attempt, number))
    }

    /// Writes contents of one attempt, each under its number.
    pub(super) fn write<'b>(
        &self,
        lease: Lease,
        attempt: u64,
        contents: impl Iterator<Item = (u32, &'b [u8])>,
    ) -> Result<(), StoreError> {
        let (mut cmds, mut bytes) = (Vec::new(), 0);
        for (number, part) in contents {
            let full = bytes + part.len() > IN_FLIGHT.0 || cmds.len() >= IN_FLIGHT.1;
            if full && !cmds.is_empty() {
                self.run(&std::mem::take(&mut cmds))?;
                bytes = 0;
            }
            let mut cmd = redis::cmd("SET");
            cmd.arg(self.name(lease, attempt, number)).arg(part);
            cmds.push(cmd);
            bytes += part.len();
        }
        self.run(&cmds).map(drop)
    }

    /// Reads the contents of entries, in order, and hands each on with its number.
    pub(super) fn each<'e>(
        &self,
        entries: impl Iterator<Item = &'e Body>,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut batch: Vec<(usize, &Body)> = Vec::new();
        let (mut bytes, mut cmds) = (0, 0);
        for entry in entries.enumerate() {
            if let Body::Stored(stored) = entry.1 {
                bytes += usize::try_from(stored.bytes).unwrap_or(usize::MAX);
                cmds += 1;
            }
            batch.push(entry);
            if bytes >= IN_FLIGHT.0 || cmds >= IN_FLIGHT.1 {
                self.hand_on(&std::mem::take(&mut batch), &mut take)?;
                (bytes, cmds) = (0, 0);
            }
        }
        self.hand_on(&batch, &mut take)
    }

    fn hand_on(
        &self,
        batch: &[(usize, &Body)],
        take: &mut impl FnMut(usize, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut cmds = Vec::new();
        for (_, body) in batch {
            if let Body::Stored(stored) = body {
                for number in stored.first..stored.first + stored.parts {
                    let mut cmd = redis::cmd("GET");
                    cmd.arg(self.name(stored.lease, stored.attempt, number));
                    cmds.push(cmd);
                }
            }
        }
        let mut answers = self.run(&cmds)?.into_iter();
        for (at, body) in batch {
            match body {
                Body::Inline(bytes) => take(*at, bytes)?,
                Body::Stored(stored) => {
                    let parts = answers.by_ref().take(stored.parts as usize);
                    take(*at, &self.whole(stored, parts)?)?;
                }
            }
        }
        Ok(())
    }

    fn whole(
        &self,
        stored: &Stored,
        parts: impl Iterator<Item = Value>,
    ) -> Result<Vec<u8>, StoreError> {
        let mut whole = Vec::new();
        for part in parts {
            let part = reply::into_bytes(part).ok_or_else(|| self.gone())?;
            if whole.is_empty() {
                whole = part;
            } else {
                whole.extend_from_slice(&part);
            }
        }
        if whole.len() as u64 == stored.bytes { Ok(whole) } else { Err(self.gone()) }
    }

    fn gone(&self) -> StoreError {
        StoreError::Malformed {
            what: self.to_string(),
            hint: "contents are gone that count; `maxmemory-policy` has to be `noeviction`, and nobody else may \
                   delete keys: restore a backup"
                .to_owned(),
            source: None,
        }
    }

    /// Reads one part by its number.
    pub(super) fn part(&self, of: &Stored, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        if number >= of.parts {
            return Ok(None);
        }
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.name(of.lease, of.attempt, of.first + number));
        let answer = self.link.one(&self.keys.lane(&self.tag, ""), cmd)?;
        reply::into_bytes(answer).map(Some).ok_or_else(|| self.gone())
    }

    /// Reads the contents of one entry.
    pub(super) fn read(&self, body: &Body) -> Result<Vec<u8>, StoreError> {
        let mut whole = Vec::new();
        self.each(std::iter::once(body), |_, bytes| {
            whole = bytes.to_vec();
            Ok(())
        })?;
        Ok(whole)
    }

    /// Deletes contents; tells how many keys there were.
    pub(super) fn delete(&self, ranges: &[Stored]) -> Result<u64, StoreError> {
        let mut deleted = 0;
        let mut cmds: Vec<Cmd> = Vec::new();
        for range in ranges {
            for number in range.first..range.first + range.parts {
                let mut cmd = redis::cmd("UNLINK");
                cmd.arg(self.name(range.lease, range.attempt, number));
                cmds.push(cmd);
                if cmds.len() >= IN_FLIGHT.1 {
                    deleted += self.count(&std::mem::take(&mut cmds))?;
                }
            }
        }
        deleted += self.count(&cmds)?;
        Ok(deleted)
    }

    fn count(&self, cmds: &[Cmd]) -> Result<u64, StoreError> {
        Ok(self.run(cmds)?.iter().filter_map(reply::number).sum())
    }

    /// Deletes what attempts after the last one that counts may have left.
    pub(super) fn sweep_after(&self, lease: Lease, attempt: u64) -> Result<u64, StoreError> {
        // Keys are written in order, as many at a time; attempts that wrote nothing are few in a row.
        const AHEAD: u32 = 256;
        const EMPTY: u32 = 3;
        let (mut deleted, mut empty, mut attempt) = (0, 0, attempt);
        while empty < EMPTY {
            attempt += 1;
            let (mut first, mut found) = (0, 0);
            loop {
                let range = Stored { lease, attempt, first, parts: AHEAD, bytes: 0 };
                let gone = self.delete(&[range])?;
                found += gone;
                if gone == 0 {
                    break;
                }
                first += AHEAD;
            }
            empty = if found == 0 { empty + 1 } else { 0 };
            deleted += found;
        }
        Ok(deleted)
    }

    fn run(&self, cmds: &[Cmd]) -> Result<Vec<Value>, StoreError> {
        if cmds.is_empty() {
            return Ok(Vec::new());
        }
        self.link.run(&self.keys.lane(&self.tag, ""), cmds)
    }
}

/// Names the lane, for errors.
impl std::fmt::Display for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lane {} in {}", self.tag, self.link)
    }
}
