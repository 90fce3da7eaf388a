//! A request's body, bounded in bytes, in time and in what it inflates to.
//!
//! actix-web has no timer for bodies, and its own decompression inflates before it compares sizes. What
//! the body is encoded as is told by its first bytes: clients label gzip as anything.

use actix_web::http::header::CONTENT_ENCODING;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use actix_web::web::BytesMut;
use actix_web::web::Payload;
use flate2::read::MultiGzDecoder;
use futures_core::Stream;
use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// The most bytes of a body as sent.
pub(super) const MAX_BODY: usize = 512 << 10;
/// The most bytes that a gzipped body inflates to.
const MAX_INFLATED: usize = 1 << 20;
/// How many times its size a gzipped body may inflate to, where that is more than may be sent as it is: what clients batch
/// is much alike, and shrinks to a fiftieth.
const MAX_RATIO: usize = 20;
/// The least bytes a second at which a body arrives.
const MIN_RATE: usize = 1 << 10;
/// Bytes of bodies on their way, of all requests together.
pub(super) const MAX_ARRIVING: usize = 256 << 20;
const GZIP: &[u8] = b"\x1f\x8b";

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadBody {
    TooLarge,
    TooSlow,
    /// So many are on their way that there is no room for it now.
    NoRoom,
    Unreadable,
    /// Encoded in a way other than gzip, or gzipped twice.
    Encoding,
}

/// Room for bodies on their way, of all requests together: each may be slow, and thousands may be.
#[derive(Debug)]
pub(super) struct Room {
    free: AtomicUsize,
}

/// What one body takes of it.
struct Taken<'a> {
    room: &'a Room,
    bytes: usize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self { free: AtomicUsize::new(bytes) }
    }
}

impl Taken<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), BadBody> {
        let take = |free: usize| free.checked_sub(bytes);
        let taken = self.room.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map_err(|_| BadBody::NoRoom)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.room.free.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Reads the whole body, inflated where it is gzip. It has to arrive within `patience`, and from half of it on at
/// [`MIN_RATE`].
pub(super) async fn read(
    headers: &HeaderMap,
    payload: Payload,
    patience: Duration,
    room: &Room,
) -> Result<Bytes, BadBody> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if stated
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: u64| length > MAX_BODY as u64)
    {
        return Err(BadBody::TooLarge);
    }
    let body = arrive(payload, patience, room).await?;
    if body.starts_with(GZIP) {
        return inflate(&body);
    }
    // Gzip that a proxy has already taken off is still labelled so.
    let encoding = headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().trim_ascii());
    match encoding {
        None | Some(b"" | b"identity" | b"gzip" | b"x-gzip") => Ok(body),
        Some(_) => Err(BadBody::Encoding),
    }
}

/// The bytes of a body as they come.
async fn arrive(mut payload: Payload, patience: Duration, room: &Room) -> Result<Bytes, BadBody> {
    let mut taken = Taken { room, bytes: 0 };
    let mut parts: Option<BytesMut> = None;
    let mut first = Bytes::new();
    let started = Instant::now();
    loop {
        let earned = Duration::from_secs((taken.bytes / MIN_RATE) as u64);
        let until = started + earned.max(patience / 2).min(patience);
        let next = poll_fn(|context| Pin::new(&mut payload).poll_next(context));
        let next = tokio::time::timeout_at(until, next).await.map_err(|_| BadBody::TooSlow)?;
        let Some(part) = next else { break };
        let part = part.map_err(|_| BadBody::Unreadable)?;
        if taken.bytes + part.len() > MAX_BODY {
            return Err(BadBody::TooLarge);
        }
        taken.take(part.len())?;
        // Most come in one part, which need not be copied.
        match &mut parts {
            None if first.is_empty() => first = part,
            None => {
                let mut both = BytesMut::with_capacity(2 * (first.len() + part.len()));
                both.extend_from_slice(&first);
                both.extend_from_slice(&part);
                parts = Some(both);
            }
            Some(parts) => parts.extend_from_slice(&part),
        }
    }
    Ok(parts.map_or(first, BytesMut::freeze))
}

pub(super) fn inflate(body: &[u8]) -> Result<Bytes, BadBody> {
    let limit = MAX_INFLATED.min(MAX_BODY.max(body.len() * MAX_RATIO));
    let mut inflated = Vec::with_capacity(limit.min(body.len() * 4));
    // One byte beyond the limit tells that there is more, without inflating it.
    let mut decoder = MultiGzDecoder::new(body).take(limit as u64 + 1);
    decoder.read_to_end(&mut inflated).map_err(|_| BadBody::Unreadable)?;
    if inflated.len() > limit {
        return Err(BadBody::TooLarge);
    }
    if inflated.starts_with(GZIP) {
        return Err(BadBody::Encoding);
    }
    Ok(inflated.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_inflated_up_to_its_bounds() {
        assert_eq!(&inflate(&gzip(b"{\"site\":\"s\"}")).unwrap()[..], b"{\"site\":\"s\"}");
        // What may be sent as it is may be sent gzipped, and beyond that the ratio counts.
        assert_eq!(inflate(&gzip(&vec![b' '; MAX_BODY])).unwrap().len(), MAX_BODY);
        assert_eq!(inflate(&gzip(&vec![b' '; MAX_BODY + 1])), Err(BadBody::TooLarge));
        assert_eq!(inflate(&gzip(&vec![b' '; 1 << 20])), Err(BadBody::TooLarge));
        assert_eq!(inflate(&gzip(&gzip(b"{}"))), Err(BadBody::Encoding));
        let mut cut = gzip(b"{\"site\":\"s\"}");
        cut.truncate(cut.len() - 4);
        assert_eq!(inflate(&cut), Err(BadBody::Unreadable));
        assert_eq!(inflate(b"\x1f\x8b"), Err(BadBody::Unreadable));
        // Noise does not deflate, so that only the absolute bound applies.
        let mut noise: u32 = 1;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        })
        .take(MAX_INFLATED + 1)
        .collect();
        assert_eq!(inflate(&gzip(&bytes)), Err(BadBody::TooLarge));
        assert_eq!(inflate(&gzip(&bytes[1..])).unwrap().len(), MAX_INFLATED);
    }
}
