//! What collect has set aside: who kept sending, and the events that are kept meanwhile. Each node has its own.

use actix_web::HttpResponse;
use actix_web::web;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::problem::Problem;
use super::profiles;
use crate::ingest::QuarantineError;
use crate::model::time::format_rfc3339;
use crate::store::chain;

/// `GET /api/v1/quarantine`
pub(super) async fn list(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let quarantine = services.quarantine.clone();
    let found = web::block(move || quarantine.list())
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(failed)?;
    let found: Vec<Value> = found
        .iter()
        .map(|aside| {
            json!({
                "namespace": aside.namespace,
                "value": aside.value,
                "since": aside.since.map(format_rfc3339),
                "events": aside.events,
                "bytes": aside.bytes,
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "quarantine": found })))
}

/// `POST /api/v1/quarantine/{namespace}/{value}/restore`
pub(super) async fn restore(
    services: web::Data<Services>,
    of: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (namespace, value) = of.into_inner();
    let identifier = profiles::identifier(&namespace, &value)?;
    let services = services.into_inner();
    let restored = web::block(move || {
        let now = services.clock.now();
        services.quarantine.restore(&identifier, &*services.sink, now)
    })
    .await
    .map_err(|error| Problem::internal(&error))?
    .map_err(failed)?;
    let Some(events) = restored else {
        return Err(Problem::not_found(format!("nothing of this {namespace} is set aside here")));
    };
    Ok(HttpResponse::Ok().json(json!({ "events": events })))
}

fn failed(error: QuarantineError) -> Problem {
    Problem::unavailable(format!("{}; try again", chain(&error)))
}
