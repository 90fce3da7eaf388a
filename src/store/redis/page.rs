//! The images of one block, listed in one value: a few bytes each, and small images whole.
//!
//! ```text
//! leases  count, then epoch and token of each that wrote one of the images
//! images  count, then kind (0 owners, 1 others, 2 profiles, 3 column) and, of a column, day and trait;
//!         then 0 and its bytes, or one more than the number of its lease and where it lies
//! ```

use std::collections::BTreeMap;

use super::blob::Body;
use super::blob::Stored;
use super::lease::Lease;
use crate::model::Malformed;
use crate::model::codec::Reader;
use crate::model::codec::put_bytes;
use crate::model::codec::put_u8;
use crate::model::codec::put_varint;
use crate::model::time::Day;
use crate::store::state::PartKind;

/// The images of a block: identifiers, profiles, and then columns by day and trait.
pub(super) type Page = BTreeMap<Image, Body>;

/// What an image is of, in the order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Image {
    Owners,
    Others,
    Profiles,
    Column(Day, u32),
}

impl From<PartKind> for Image {
    fn from(kind: PartKind) -> Self {
        match kind {
            PartKind::Owners => Self::Owners,
            PartKind::Others => Self::Others,
            PartKind::Profiles => Self::Profiles,
            PartKind::Column { id, day } => Self::Column(day, id),
        }
    }
}

impl From<Image> for PartKind {
    fn from(image: Image) -> Self {
        match image {
            Image::Owners => Self::Owners,
            Image::Others => Self::Others,
            Image::Profiles => Self::Profiles,
            Image::Column(day, id) => Self::Column { id, day },
        }
    }
}

/// How many bytes an image has.
pub(super) fn length(body: &Body) -> u64 {
    match body {
        Body::Inline(bytes) => bytes.len() as u64,
        Body::Stored(stored) => stored.bytes,
    }
}

fn zigzag(day: Day) -> u64 {
    ((day << 1) ^ (day >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> Day {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

pub(super) fn encode(page: &Page) -> Vec<u8> {
    let mut leases: Vec<Lease> = page
        .values()
        .filter_map(|body| match body {
            Body::Stored(stored) => Some(stored.lease),
            Body::Inline(_) => None,
        })
        .collect();
    leases.sort_unstable();
    leases.dedup();
    let mut out = Vec::new();
    put_varint(&mut out, leases.len() as u64);
    for lease in &leases {
        put_varint(&mut out, lease.epoch);
        out.extend_from_slice(&lease.token.to_le_bytes());
    }
    put_varint(&mut out, page.len() as u64);
    for (image, body) in page {
        match image {
            Image::Owners => put_u8(&mut out, 0),
            Image::Others => put_u8(&mut out, 1),
            Image::Profiles => put_u8(&mut out, 2),
            Image::Column(day, id) => {
                put_u8(&mut out, 3);
                put_varint(&mut out, zigzag(*day));
                put_varint(&mut out, u64::from(*id));
            }
        }
        match body {
            Body::Inline(bytes) => {
                put_varint(&mut out, 0);
                put_bytes(&mut out, bytes);
            }
            Body::Stored(stored) => {
                let lease = leases.binary_search(&stored.lease).expect("all leases are listed");
                put_varint(&mut out, lease as u64 + 1);
                stored.encode_place(&mut out);
            }
        }
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Page, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut leases = Vec::new();
    for _ in 0..reader.length()? {
        let epoch = reader.varint()?;
        let token = reader.take(4)?.try_into().map_err(|_| Malformed("cut short"))?;
        leases.push(Lease { epoch, token: u32::from_le_bytes(token) });
    }
    let mut page = Page::new();
    for _ in 0..reader.length()? {
        let image = match reader.u8()? {
            0 => Image::Owners,
            1 => Image::Others,
            2 => Image::Profiles,
            3 => {
                let day = unzigzag(reader.varint()?);
                let id = u32::try_from(reader.varint()?).map_err(|_| Malformed("a trait"))?;
                Image::Column(day, id)
            }
            _ => return Err(Malformed("an unknown kind of image")),
        };
        let body = match reader.varint()?.checked_sub(1) {
            None => Body::Inline(reader.bytes()?.to_vec()),
            Some(lease) => {
                let lease = usize::try_from(lease).ok().and_then(|at| leases.get(at));
                let lease = *lease.ok_or(Malformed("a lease that is not listed"))?;
                Body::Stored(Stored::decode_place(lease, &mut reader)?)
            }
        };
        page.insert(image, body);
    }
    reader.finish()?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_back_as_written_and_damage_is_an_error() {
        let stored = |epoch, first| {
            let lease = Lease { epoch, token: 7 };
            Body::Stored(Stored { lease, attempt: 300, first, parts: 2, bytes: 9 })
        };
        let page = Page::from([
            (Image::Owners, stored(1, 0)),
            (Image::Profiles, Body::Inline(vec![1, 2])),
            (Image::Column(Day::MIN, 0), stored(2, 5)),
            (Image::Column(-1, u32::MAX), stored(1, 2)),
            (Image::Column(Day::MAX, 1), Body::Inline(Vec::new())),
        ]);
        let bytes = encode(&page);
        assert_eq!(decode(&bytes), Ok(page));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err());
        }
    }
}
