//! The bytes of a frame's header.
//!
//! ```text
//! 0 magic · 4 payload length · 8 records · 12 payload crc · 16 first record · 24 synced · 32 reserved · 36 header crc
//! ```
//!
//! Both checksums are CRC-32C over the journal's salt first, and the header's also over the frame's
//! position: bytes that a sender chose, or a copy of a frame elsewhere, never pass for a frame.

use crate::store::journal::MAX_FRAME;

/// How long a header is.
pub(super) const HEADER: usize = 40;
/// [`HEADER`] as an offset.
pub(super) const HEADER_LEN: u64 = HEADER as u64;

const DATA: [u8; 4] = *b"THf1";
const GAP: [u8; 4] = *b"THg1";

/// The journal's salt, mixed into every checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(salt: &[u8; 16]) -> Self {
        Self(crc32c::crc32c(salt))
    }

    /// The checksum of a frame's payload.
    pub(super) fn payload_crc(self, payload: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, payload)
    }

    fn header_crc(self, start: u64, fields: &[u8]) -> u32 {
        let at = crc32c::crc32c_append(self.0, &start.to_le_bytes());
        crc32c::crc32c_append(at, fields)
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records.
    Data,
    /// A damaged range that was skipped: its payload means nothing and is not checked.
    Gap,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// The payload's length.
    pub(super) length: u32,
    /// How many records it holds; 0 in a gap.
    pub(super) count: u32,
    pub(super) payload_crc: u32,
    /// The number of its first record; of a gap, the number that follows it.
    pub(super) first: u64,
    /// The position known to be durable when the frame was written.
    pub(super) synced: u64,
}

impl Header {
    pub(super) fn encode(&self, seed: Seed, start: u64) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(match self.kind {
            Kind::Data => &DATA,
            Kind::Gap => &GAP,
        });
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..32].copy_from_slice(&self.synced.to_le_bytes());
        let crc = seed.header_crc(start, &out[..36]);
        out[36..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of a frame that starts at `start`; `None` where there is none.
    pub(super) fn decode(seed: Seed, start: u64, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.try_into().ok()?;
        let kind = match bytes[..4].try_into().ok()? {
            DATA => Kind::Data,
            GAP => Kind::Gap,
            _ => return None,
        };
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        if u32_at(36)? != seed.header_crc(start, &bytes[..36]) {
            return None;
        }
        let header = Self {
            kind,
            length: u32_at(4)?,
            count: u32_at(8)?,
            payload_crc: u32_at(12)?,
            first: u64_at(16)?,
            synced: u64_at(24)?,
        };
        let plausible = kind == Kind::Gap
            || (header.count > 0 && header.count <= header.length && header.length <= MAX_LENGTH);
        plausible.then_some(header)
    }

    /// The frame's size, header included.
    pub(super) fn size(&self) -> u64 {
        HEADER_LEN + u64::from(self.length)
    }

    /// Whether these bytes could be the start of a header.
    pub(super) fn has_magic(bytes: &[u8]) -> bool {
        bytes.starts_with(&DATA) || bytes.starts_with(&GAP)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "16 MiB fit in 32 bits")]
const MAX_LENGTH: u32 = MAX_FRAME as u32;
