//! What each live segment costs.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Serialize;

use super::Services;
use super::asking::ask;
use super::problem::Problem;
use super::rules::millis;
use crate::model::time::format_rfc3339;

/// What all live segments cost.
#[derive(Serialize, JsonSchema)]
pub(super) struct Costs {
    /// When they were evaluated.
    at: String,
    /// What all of them took.
    nanoseconds: u64,
    segments: Vec<CostOf>,
    /// How long the answer took, in milliseconds.
    took_ms: f64,
}

/// What one segment costs.
#[derive(Serialize, JsonSchema)]
struct CostOf {
    /// The segment.
    id: String,
    /// Its share of what all took.
    nanoseconds: u64,
    /// What it would take without the others.
    alone_nanoseconds: u64,
    /// Bytes that are read for it, divided in the same way.
    bytes: u64,
    /// Of how many parts it is made.
    parts: u64,
    /// How many of these others are made of too.
    shared_parts: u64,
}

/// `GET /api/v1/costs`: all of them evaluated once, of all profiles.
pub(super) async fn costs(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let costs = ask(move |caller| services.segments.costs(caller)).await?;
    let segments = costs.segments.iter().map(|(id, cost)| CostOf {
        id: id.to_string(),
        nanoseconds: cost.nanoseconds,
        alone_nanoseconds: cost.alone,
        bytes: cost.bytes,
        parts: cost.parts,
        shared_parts: cost.shared,
    });
    Ok(HttpResponse::Ok().json(Costs {
        at: format_rfc3339(costs.at),
        nanoseconds: costs.segments.values().map(|cost| cost.nanoseconds).sum::<u64>(),
        segments: segments.collect(),
        took_ms: millis(costs.took),
    }))
}
