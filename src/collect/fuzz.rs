//! What strangers send, read to the end without a connection around it.

use actix_web::http::header::COOKIE;
use actix_web::http::header::FORWARDED;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderName;
use actix_web::http::header::HeaderValue;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::body;
use super::cookie::Cookies;
use super::cookie::Scope;
use super::cookie::is_opted_out;
use super::cookie::syncs;
use super::forwarded;
use super::lookup;
use super::pixel;
use super::protocols;
use super::query::decode;
use super::query::pairs;
use super::secret::Secret;
use super::worker::Shared;
use super::worker::Worker;
use crate::config::Config;
use crate::config::Durability;
use crate::ingest::canonical::Agents;
use crate::ingest::canonical::Arrival;
use crate::ingest::canonical::Dropped;
use crate::ingest::canonical::Sent;
use crate::ingest::canonical::Window;
use crate::ingest::canonical::split;
use crate::metrics::Metrics;
use crate::model::Event;
use crate::model::Millis;
use crate::model::NamespaceOrder;
use crate::model::Record;
use crate::model::Source;
use crate::net::Clock;
use crate::store::journal::Batch;
use crate::store::journal::JournalError;
use crate::store::journal::Sink;

const NOW: Millis = 1_700_000_000_000;

struct Still;

impl Clock for Still {
    fn now(&self) -> Millis {
        NOW
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn append(&self, _: &Batch) -> Result<(), JournalError> {
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

thread_local! {
    static ORDER: NamespaceOrder = NamespaceOrder::default();
    static WORKER: Worker = {
        let (config, secret) = (Config::default(), Secret::new([7; 32]));
        let shared = Shared::new(&config, Arc::new(Still), Metrics::new(), secret, Duration::ZERO);
        Worker::new(Arc::new(shared), Arc::new(Nowhere), Durability::DiskBuffered)
    };
}

fn with_arrival<T>(with: impl FnOnce(&Arrival<'_>) -> T) -> T {
    ORDER.with(|order| {
        with(&Arrival {
            source: Source::Js,
            received: NOW,
            window: Window::Within(86_400_000),
            order,
            phone_country: Some("DE"),
            cookie: None,
            user_agent: None,
            country: None,
            locale: None,
            consent: None,
        })
    })
}

/// What is journaled of an event is read back as it was.
fn keep(event: Event) {
    assert!(!event.ids.is_empty() && (1..=128).contains(&event.name.len()));
    let (record, mut bytes) = (Record::Event(event), Vec::new());
    record.encode(&mut bytes);
    assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
}

/// Takes an event that was read on to the form that is journaled.
pub(super) fn finish(sent: Sent) {
    let _ = sent.consent().map(|said| said.gdpr_applies());
    let (mut agents, mut dropped) = (Agents::default(), Dropped::default());
    let event =
        with_arrival(|arrival| sent.into_event(arrival, &mut agents, &mut || None, &mut dropped));
    event.into_iter().for_each(keep);
}

/// A query of the pixel.
pub(crate) fn pixel(bytes: &[u8]) {
    let query = String::from_utf8_lossy(bytes);
    for (key, value) in pairs(&query) {
        let _ = (decode(key), decode(value));
    }
    let event =
        WORKER.with(|worker| with_arrival(|arrival| pixel::read_alone(worker, &query, arrival)));
    event.into_iter().for_each(keep);
}

/// A body of `/v1/events`.
pub(crate) fn events(bytes: &[u8]) {
    let Ok(parts) = split::events(bytes, 500) else { return };
    parts.into_iter().filter_map(|part| Sent::parse(part).ok()).for_each(finish);
}

/// A body in the protocols of others.
pub(crate) fn segment(bytes: &[u8]) {
    protocols::fuzz::segment(bytes);
}

/// The same, of Snowplow's.
pub(crate) fn snowplow(bytes: &[u8]) {
    protocols::fuzz::snowplow(bytes);
}

/// The same, of Matomo's.
pub(crate) fn matomo(bytes: &[u8]) {
    protocols::fuzz::matomo(bytes);
}

/// The same, of Unomi's.
pub(crate) fn unomi(bytes: &[u8]) {
    protocols::fuzz::unomi(bytes);
}

/// What is asked of audiences, by a query and by a body.
pub(crate) fn lookup(bytes: &[u8]) {
    lookup::read_alone(bytes);
}

/// A body that may be gzip.
pub(crate) fn inflate(bytes: &[u8]) {
    if let Ok(inflated) = body::inflate(bytes) {
        assert!(inflated.len() <= (1 << 20).min((512 << 10).max(20 * bytes.len())));
    }
}

/// The header of cookies: one that was not made here is none.
pub(crate) fn cookie(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.append(COOKIE, value);
    let cookies = Cookies::new(&Secret::new([7; 32]), false);
    let config = Config::default();
    for is_https in [true, false] {
        assert_eq!(cookies.read(&headers, Scope::of(&config.sites[0], is_https)), None);
        let _ = is_opted_out(&headers, is_https);
        let known = syncs(&headers, is_https);
        // What is remembered of it is what is read the next time.
        let name = cookies.remember_syncs(&known, is_https);
        let pair =
            name.to_str().unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
        let mut again = HeaderMap::new();
        if let Ok(pair) = HeaderValue::from_str(&pair) {
            again.append(COOKIE, pair);
        }
        let names = |syncs: &[(String, i64)]| {
            syncs.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&syncs(&again, is_https)), names(&known));
    }
}

/// The headers in which a proxy says who sent a request.
pub(crate) fn forwarded(bytes: &[u8]) {
    let proxies = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let names = [
        FORWARDED,
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-proto"),
    ];
    for name in names {
        let mut headers = HeaderMap::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(name.clone(), value);
            }
        }
        let _ = forwarded::read(&headers, &proxies, proxies[0]);
    }
}
