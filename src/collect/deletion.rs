//! Deletion requests of others, by the Data Deletion Request Framework: the files that say how, and the endpoint.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Semaphore;

use super::body;
use super::body::BadBody;
use super::visitor::Visitor;
use crate::privacy::Privacy;
use crate::privacy::PrivacyError;
use crate::privacy::ddrf::Ddrf;
use crate::privacy::ddrf::MOST_BYTES;
use crate::store::chain;

/// So many requests are verified at a time: each may wait for the domains that it names.
const AT_A_TIME: usize = 8;

/// Who takes deletion requests of others.
pub struct Deletion {
    privacy: Arc<Privacy>,
    ddrf: Ddrf,
    room: Semaphore,
}

impl Deletion {
    /// Takes what is right.
    pub fn new(privacy: Arc<Privacy>, ddrf: Ddrf) -> Self {
        Self { privacy, ddrf, room: Semaphore::new(AT_A_TIME) }
    }
}

/// `GET /dsrdelete.json`
pub(super) async fn file(request: HttpRequest) -> HttpResponse {
    told(request, |deletion| deletion.ddrf.file(&deletion.privacy)).await
}

/// `GET /.well-known/iabtl/jwks.json`
pub(super) async fn key_set(request: HttpRequest) -> HttpResponse {
    told(request, |deletion| deletion.ddrf.key_set(&deletion.privacy)).await
}

async fn told(
    request: HttpRequest,
    what: impl FnOnce(&Deletion) -> Result<Value, PrivacyError> + Send + 'static,
) -> HttpResponse {
    let worker = super::worker(&request);
    let Some(deletion) = worker.shared.deletion.clone() else {
        return super::not_found(request).await;
    };
    let response = match web::block(move || what(&deletion)).await {
        Ok(Ok(told)) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "application/json"))
            .body(told.to_string()),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    };
    worker.answered(response)
}

/// `POST /privacy/delete`: a request (`rqJWT`) as it is, or as the member of a JSON object. 202 where it is taken, else 400,
/// each with `{"acJWT": …}`.
pub(super) async fn take(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let worker = super::worker(&request);
    let Some(deletion) = worker.shared.deletion.clone() else {
        return super::not_found(request).await;
    };
    let now = worker.shared.clock.now();
    let address = Visitor::of(&request, &worker.shared).address;
    let too_many = || {
        HttpResponse::TooManyRequests()
            .insert_header(("Retry-After", "60"))
            .body("too many requests: try again in a minute\n")
    };
    if worker.shared.limiter.take(address, 1, now).is_err() {
        return worker.answered(too_many());
    }
    let (patience, arriving) = (worker.shared.patience, &worker.shared.arriving);
    let body = match body::read(request.headers(), payload, patience, arriving).await {
        Ok(body) if body.len() <= MOST_BYTES => body,
        Ok(_) | Err(BadBody::TooLarge) => {
            let message = "the request is too large\n";
            return worker.answered(HttpResponse::PayloadTooLarge().body(message));
        }
        Err(_) => {
            let message = "the request cannot be read\n";
            return worker.answered(HttpResponse::BadRequest().body(message));
        }
    };
    let Ok(room) = deletion.room.try_acquire() else { return worker.answered(too_many()) };
    let asked = deletion.clone();
    let taken = web::block(move || asked.ddrf.take(&asked.privacy, &body)).await;
    drop(room);
    let response = match taken {
        Ok(Ok(told)) => {
            let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::BAD_REQUEST);
            HttpResponse::build(status)
                .insert_header((CONTENT_TYPE, "application/json"))
                .body(json!({ "acJWT": told.token }).to_string())
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    };
    worker.answered(response)
}

fn failed(error: &(dyn std::error::Error + 'static)) -> HttpResponse {
    tracing::warn!(error = %chain(error), "a deletion request was not answered");
    HttpResponse::ServiceUnavailable()
        .insert_header(("Retry-After", "60"))
        .body("not now: try again in a minute\n")
}
