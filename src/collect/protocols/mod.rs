//! The protocols of others: a site that runs one of their clients points it here and changes nothing else.
//!
//! A protocol is a file: its paths, and a pure function from what a client sends to canonical events. All that
//! follows is what `/v1/events` does. A bad event is set aside with its reason, and its neighbours are taken;
//! 4xx is for a body that cannot be read, and for a key that is no site's.

mod draft;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
mod matomo;
mod segment;
mod snowplow;
mod unomi;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::web;
use actix_web::web::Payload;
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;

use super::answer;
use super::answer::Refused;
use super::gather;
use super::gather::Read;
use super::gather::Taken;
use super::gather::Unread;
use super::worker::Endpoint;
use crate::ingest::canonical::Code;
use crate::model::Outcome;

/// The most bytes of a query.
const MAX_QUERY: usize = 8 << 10;

/// The paths of all protocols; `snowplow_path` is a further one of Snowplow's.
pub(super) fn configure(app: &mut web::ServiceConfig, snowplow_path: Option<&str>) {
    matomo::configure(app);
    segment::configure(app);
    snowplow::configure(app, snowplow_path);
    unomi::configure(app);
}

/// A path that a page of any origin may ask for.
fn resource(path: &str) -> actix_web::Resource {
    web::resource(path)
        .route(web::method(Method::OPTIONS).to(answer::preflight))
        .default_service(super::wrong_method())
}

/// Takes what a request holds, and answers as the protocol does.
async fn answer(
    request: &HttpRequest,
    payload: Payload,
    endpoint: Endpoint,
    read: impl Fn(&[u8]) -> Result<Read, Unread>,
    success: impl Fn(&Taken) -> HttpResponse,
) -> HttpResponse {
    let started = Instant::now();
    let taken = take(request, payload, endpoint, read).await;
    finish(request, endpoint, started, taken, success)
}

/// Takes what a request holds.
async fn take(
    request: &HttpRequest,
    payload: Payload,
    endpoint: Endpoint,
    read: impl Fn(&[u8]) -> Result<Read, Unread>,
) -> Result<Taken, Refused> {
    let worker = super::worker(request);
    if request.query_string().len() > MAX_QUERY {
        worker.count(endpoint, Outcome::TooLarge, 1);
        return Err(Refused::LongQuery);
    }
    let body = gather::read(worker, request, payload, endpoint).await?;
    let read = read(&body);
    // What it inflated to is not held while the disk is waited for.
    drop(body);
    gather::take(worker, request, endpoint, read).await
}

/// Answers what became of a request.
fn finish(
    request: &HttpRequest,
    endpoint: Endpoint,
    started: Instant,
    taken: Result<Taken, Refused>,
    success: impl Fn(&Taken) -> HttpResponse,
) -> HttpResponse {
    let worker = super::worker(request);
    let response = match taken {
        Ok(taken) if is_key_unknown(&taken) => refused(Refused::UnknownKey),
        Ok(taken) => answer::with_cookies(success(&taken), taken.cookies),
        Err(why) => refused(why),
    };
    answer::sent(worker, request, endpoint, started, response)
}

/// Whether nothing of a request names a site: its client is set up wrongly, and should hear so.
fn is_key_unknown(taken: &Taken) -> bool {
    let mut rejected = taken.rejected.iter();
    taken.accepted == 0
        && !taken.rejected.is_empty()
        && rejected.all(|(_, why)| why.code == Code::Site)
}

/// Why a request was not taken, in a status that clients understand.
fn refused(why: Refused) -> HttpResponse {
    let mut response = answer::refused(why);
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        // Of any 5xx they try a few times and then drop what they have; after 429 they wait.
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    }
    response
}

/// 200, with what was set aside where something was: clients read the first part, and people the second.
fn success(taken: &Taken) -> HttpResponse {
    #[derive(Serialize)]
    struct Success<'a> {
        success: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        rejected: Vec<answer::Rejected<'a>>,
    }
    let rejected = answer::rejected(&taken.rejected);
    answer::json(StatusCode::OK, &Success { success: true, rejected })
}

/// 200, with an image that nobody keeps.
fn gif() -> HttpResponse {
    super::pixel::image(None)
}

/// Answers what a client in a page asks before it sends, for the key of a site.
fn settings(request: &HttpRequest, key: &str, settings: &Value) -> HttpResponse {
    let worker = super::worker(request);
    let mut response = if worker.shared.sites.contains_key(key) {
        answer::json(StatusCode::OK, settings)
    } else {
        refused(Refused::UnknownKey)
    };
    answer::share(worker, request, &mut response);
    worker.answered(response)
}
