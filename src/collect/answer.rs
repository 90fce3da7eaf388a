//! Answers to scripts and servers: their status, their JSON, and who may read them across origins.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
use actix_web::http::header::ACCESS_CONTROL_ALLOW_HEADERS;
use actix_web::http::header::ACCESS_CONTROL_ALLOW_METHODS;
use actix_web::http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use actix_web::http::header::ACCESS_CONTROL_EXPOSE_HEADERS;
use actix_web::http::header::ACCESS_CONTROL_MAX_AGE;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::header::HeaderValue;
use actix_web::http::header::ORIGIN;
use actix_web::http::header::RETRY_AFTER;
use actix_web::http::header::SET_COOKIE;
use actix_web::http::header::VARY;
use serde::Serialize;
use std::time::Duration;
use std::time::Instant;

use super::body::BadBody;
use super::worker::Endpoint;
use super::worker::Worker;
use crate::ingest::canonical::Rejection;

/// The headers that browser clients send, allowed by name: one that is missing here keeps back what sends it. Those of
/// `RudderStack` that begin with `rsa-` come when it sends again.
const ALLOWED_HEADERS: &str = "authorization, content-type, anonymousid, sentat, x-write-key, x-retry-count, sp-anonymous, \
     x-enable-debug, x-ip-policy, rsa-retry-attempt, rsa-retry-reason, rsa-since-first-attempt, \
     rsa-since-last-attempt, rsa-recovered";

/// Why a whole request was not taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Refused {
    Body(BadBody),
    NotJson,
    TooManyEvents,
    LongQuery,
    UnknownKey,
    RateLimited(Duration),
    NotRecorded,
}

#[derive(Serialize)]
struct Answer<'a> {
    accepted: usize,
    rejected: Vec<Rejected<'a>>,
    /// The partners that the tag is to sync the browser's cookie with.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sync: &'a [String],
}

/// An event that was not taken.
#[derive(Serialize)]
pub(super) struct Rejected<'a> {
    index: usize,
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Problem {
    error: &'static str,
    message: &'static str,
}

/// 200 with an answer for each event that was not taken.
pub(super) fn events(
    accepted: usize,
    rejected: &[(usize, Rejection)],
    sync: &[String],
) -> HttpResponse {
    json(StatusCode::OK, &Answer { accepted, rejected: self::rejected(rejected), sync })
}

/// The events that were not taken, each with its place and the rule that it broke.
pub(super) fn rejected(rejected: &[(usize, Rejection)]) -> Vec<Rejected<'_>> {
    let rejected = rejected.iter().map(|(index, rejection)| Rejected {
        index: *index,
        code: rejection.code.as_str(),
        message: &rejection.message,
    });
    rejected.collect()
}

/// The status and reason of a request that was not taken.
pub(super) fn refused(why: Refused) -> HttpResponse {
    let (status, error, message) = match why {
        Refused::Body(BadBody::TooLarge) => {
            (413, "too_large", "a body is at most 512 KiB, inflated 1 MiB and 20 times its size")
        }
        Refused::Body(BadBody::TooSlow) => {
            (408, "too_slow", "a body has to arrive within 10 s, from 5 s on at 1 KiB/s")
        }
        Refused::Body(BadBody::NoRoom) => {
            (503, "no_room", "too many bodies are on their way: send the events again later")
        }
        Refused::Body(BadBody::Unreadable) => (400, "unreadable", "the body cannot be read"),
        Refused::Body(BadBody::Encoding) => {
            (415, "encoding", "a body is plain JSON, or gzipped once")
        }
        Refused::NotJson => {
            (400, "not_json", "expected a JSON object, or an array of JSON objects")
        }
        Refused::TooManyEvents => (413, "too_many", "a request holds at most 500 events"),
        Refused::LongQuery => (414, "long_query", "a query is at most 8 KiB: send a body instead"),
        Refused::UnknownKey => (401, "unknown_key", "no site here has this key: see [[site]] key"),
        Refused::RateLimited(_) => (429, "rate_limited", "too many events: send them later"),
        Refused::NotRecorded => {
            (503, "not_recorded", "the events cannot be kept now: send them again later")
        }
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = json(status, &Problem { error, message });
    let retry_after = match why {
        Refused::RateLimited(wait) => Some(wait.as_secs() + 1),
        Refused::NotRecorded | Refused::Body(BadBody::NoRoom) => Some(1),
        _ => None,
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Refused::Body(_) = why {
        // What is left of the body is not read, so the connection cannot go on.
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    response
}

/// An answer in JSON, which nobody keeps.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    let body = serde_json::to_vec(body).expect("texts and numbers are JSON");
    let mut response = HttpResponse::new(status).set_body(body).map_into_boxed_body();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    response
}

/// Sets cookies with an answer.
pub(super) fn with_cookies(mut response: HttpResponse, cookies: Vec<HeaderValue>) -> HttpResponse {
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Counts an answer on its way out, with the time it took, and lets the asking page read it.
pub(super) fn sent(
    worker: &Worker,
    request: &HttpRequest,
    endpoint: Endpoint,
    started: Instant,
    mut response: HttpResponse,
) -> HttpResponse {
    share(worker, request, &mut response);
    worker.took(endpoint, started.elapsed().as_secs_f64());
    worker.answered(response)
}

/// Answers a browser that asks whether its page may send.
pub(super) async fn preflight(request: HttpRequest) -> HttpResponse {
    let worker = super::worker(&request);
    let mut response = HttpResponse::new(StatusCode::NO_CONTENT);
    share(worker, &request, &mut response);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    worker.answered(response)
}

/// Lets the asking page read the answer: with credentials where a site lists its origin, and by the exact
/// origin; any other page without.
pub(super) fn share(worker: &Worker, request: &HttpRequest, response: &mut HttpResponse) {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    let listed = request.headers().get(ORIGIN).filter(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        worker.shared.sites.values().any(|site| site.allows(origin))
    });
    match listed {
        Some(origin) => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        None => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
    }
}
