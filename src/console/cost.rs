//! What each live segment costs.

use actix_web::HttpResponse;
use actix_web::web;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::asking::ask;
use super::problem::Problem;
use super::rules::millis;
use crate::model::time::format_rfc3339;

/// `GET /api/v1/costs`: all of them evaluated once, of all profiles.
pub(super) async fn costs(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let costs = ask(move |caller| services.segments.costs(caller)).await?;
    let segments = costs.segments.iter().map(|(id, cost)| {
        json!({
            "id": id,
            "nanoseconds": cost.nanoseconds,
            "alone_nanoseconds": cost.alone,
            "bytes": cost.bytes,
            "parts": cost.parts,
            "shared_parts": cost.shared,
        })
    });
    Ok(HttpResponse::Ok().json(json!({
        "at": format_rfc3339(costs.at),
        "nanoseconds": costs.segments.values().map(|cost| cost.nanoseconds).sum::<u64>(),
        "segments": segments.collect::<Value>(),
        "took_ms": millis(costs.took),
    })))
}
