//! What strangers send in the protocols of others, read to the end without a request around it.

use super::draft::from_query;
use super::gather::Read;
use super::gather::Unread;
use super::matomo;
use super::segment;
use super::snowplow;
use super::unomi;
use crate::collect::fuzz::finish;

/// Takes all that was read on to the form that is journaled.
fn all(read: Result<Read, Unread>) {
    read.into_iter().flatten().flatten().for_each(finish);
}

/// Reads bytes as messages of Segment's, of each kind that a path tells.
pub(in crate::collect) fn segment(bytes: &[u8]) {
    for kind in [None, Some("track"), Some("alias")] {
        all(segment::read(bytes, Some("s".to_owned()), kind));
    }
}

/// Reads bytes as a body and as a query of Snowplow's.
pub(in crate::collect) fn snowplow(bytes: &[u8]) {
    all(snowplow::read(bytes, false));
    let query = String::from_utf8_lossy(bytes);
    let hit = from_query(&format!("aid=s&uid=u&{query}"));
    all(Ok(vec![snowplow::map(&hit, false)]));
}

/// Reads bytes as a body and as a query of Matomo's.
pub(in crate::collect) fn matomo(bytes: &[u8]) {
    all(matomo::read("idsite=s&rec=1&uid=u", bytes).map(|(read, _)| read));
    let query = String::from_utf8_lossy(bytes);
    let hit = from_query(&format!("idsite=s&rec=1&uid=u&{query}"));
    all(Ok(vec![matomo::map(&hit)]));
}

/// Reads bytes as what Unomi's tracker asks.
pub(in crate::collect) fn unomi(bytes: &[u8]) {
    all(unomi::read(bytes).map(|asked| asked.events));
}
