//! `POST /v1/events`: canonical events, one or an array, each with its own answer.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Payload;
use std::rc::Rc;
use std::time::Instant;

use super::answer;
use super::answer::Refused;
use super::gather;
use super::gather::MAX_EVENTS;
use super::gather::Taken;
use super::gather::Unread;
use super::pixel::MAX_QUERY;
use super::worker::Endpoint;
use super::worker::Worker;
use crate::ingest::canonical::Sent;
use crate::ingest::canonical::split;
use crate::model::Outcome;

/// Takes the events of the body.
pub(super) async fn events(request: HttpRequest, payload: Payload) -> HttpResponse {
    let started = Instant::now();
    let worker = super::worker(&request);
    let response = match collect(worker, &request, payload).await {
        Ok(taken) => {
            let answer = answer::events(taken.accepted, &taken.rejected, &taken.due);
            answer::with_cookies(answer, taken.cookies)
        }
        Err(why) => answer::refused(why),
    };
    answer::sent(worker, &request, Endpoint::Events, started, response)
}

async fn collect(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    payload: Payload,
) -> Result<Taken, Refused> {
    if request.query_string().len() > MAX_QUERY {
        worker.count(Endpoint::Events, Outcome::TooLarge, 1);
        return Err(Refused::LongQuery);
    }
    let body = gather::read(worker, request, payload, Endpoint::Events).await?;
    let read = split::events(&body, MAX_EVENTS)
        .map_err(Unread::from)
        .and_then(|parts| gather::each(&parts, Sent::parse));
    // What it inflated to is not held while the disk is waited for.
    drop(body);
    gather::take(worker, request, Endpoint::Events, read).await
}
