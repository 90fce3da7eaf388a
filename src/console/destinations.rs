//! Destinations: what is pushed where, and pushing it now.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::Services;
use super::api::shapes::Limit;
use super::asking::ask;
use super::problem::Problem;
use crate::activate::PushError;
use crate::activate::PushReport;
use crate::activate::Pusher;
use crate::activate::Waterfall;
use crate::model::time::format_rfc3339;
use crate::store::ledger::Delivery;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Push {
    /// Says what would be sent, and sends nothing.
    #[serde(default)]
    dry_run: bool,
    /// Removes as many as it takes, above `max_drain` too.
    #[serde(default)]
    drain: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSegment {
    /// Of this segment alone.
    segment: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// How many at most.
    #[serde(default)]
    limit: Limit,
}

/// The destinations.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Destinations")]
pub(super) struct Listed {
    #[schemars(with = "Vec<std::collections::BTreeMap<String, Value>>")]
    destinations: Vec<Value>,
    /// The server's clock.
    now: String,
}

/// Batches.
#[derive(Serialize, JsonSchema)]
pub(super) struct Deliveries {
    deliveries: Vec<Delivery>,
}

/// What a push did for each segment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PushReports")]
pub(super) struct Reports {
    reports: Vec<PushReport>,
}

/// What is left of audiences.
#[derive(Serialize, JsonSchema)]
pub(super) struct Waterfalls {
    waterfalls: Vec<Waterfall>,
}

/// What a destination would not take.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RefusedIdentifiers")]
pub(super) struct RefusedList {
    refused: Vec<RefusedOne>,
}

/// An identifier that a destination would not take.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RefusedIdentifier")]
struct RefusedOne {
    segment: String,
    namespace: String,
    value: String,
    why: String,
    since: String,
}

/// Whether a destination is paused.
#[derive(Serialize, JsonSchema)]
pub(super) struct Paused {
    paused: bool,
}

/// Whether a batch would be taken.
#[derive(Serialize, JsonSchema)]
pub(super) struct Tested {
    ok: bool,
    /// What is the matter, and what to do.
    message: String,
}

/// `GET /api/v1/destinations`
pub(super) async fn list(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    // How long ago something was is for who shows it, whose clock may be another.
    let now = format_rfc3339(services.clock.now());
    let destinations = statuses(services).await?;
    Ok(HttpResponse::Ok().json(Listed { destinations, now }))
}

/// `GET /api/v1/destinations/{name}`
pub(super) async fn show(
    services: web::Data<Services>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let destinations = statuses(services).await?;
    let found = destinations.into_iter().find(|d| d["name"].as_str() == Some(&name));
    let found = found.ok_or_else(|| unknown(&name))?;
    Ok(HttpResponse::Ok().json(found))
}

/// `GET /api/v1/destinations/{name}/deliveries`
pub(super) async fn deliveries(
    services: web::Data<Services>,
    name: web::Path<String>,
    page: web::Query<Page>,
) -> Result<HttpResponse, Problem> {
    let limit = page.limit.0;
    let deliveries = web::block(move || services.pusher.deliveries(&name, limit))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(Deliveries { deliveries }))
}

/// `POST /api/v1/destinations/{name}/push?dry_run=…&drain=…`: pushes what everything acknowledged up to now says.
pub(super) async fn push(
    services: web::Data<Services>,
    name: web::Path<String>,
    asked: web::Query<Push>,
) -> Result<HttpResponse, Problem> {
    let settling = services.clone();
    ask(move |caller| settling.segments.settle(caller)).await?;
    let Push { dry_run, drain } = *asked;
    let reports = web::block(move || match drain && !dry_run {
        true => services.pusher.drain_once(&name),
        false => services.pusher.run_once(Some(&name), dry_run),
    })
    .await
    .map_err(|error| Problem::internal(&error))?
    .map_err(problem)?;
    Ok(HttpResponse::Ok().json(Reports { reports }))
}

/// `GET /api/v1/destinations/{name}/waterfall?segment=…`: what is left of audiences at each step, and why.
pub(super) async fn waterfall(
    services: web::Data<Services>,
    name: web::Path<String>,
    asked: web::Query<OfSegment>,
) -> Result<HttpResponse, Problem> {
    let settling = services.clone();
    ask(move |caller| settling.segments.settle(caller)).await?;
    let mut found = web::block(move || services.pusher.waterfalls(&name))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    if let Some(segment) = &asked.segment {
        found.retain(|one| one.segment == *segment);
    }
    Ok(HttpResponse::Ok().json(Waterfalls { waterfalls: found }))
}

/// `GET /api/v1/destinations/{name}/refused`: what it would not take.
pub(super) async fn refused(
    services: web::Data<Services>,
    name: web::Path<String>,
    page: web::Query<Page>,
) -> Result<HttpResponse, Problem> {
    let limit = page.limit.0;
    let found = web::block(move || services.pusher.refused(&name, limit))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    let refused = found.iter().map(|(segment, refused)| {
        let identifier = &refused.identifier;
        RefusedOne {
            segment: segment.clone(),
            namespace: identifier.namespace.as_str().to_owned(),
            value: identifier.value().to_owned(),
            why: refused.why.to_string(),
            since: format_rfc3339(refused.since),
        }
    });
    let refused = refused.collect();
    Ok(HttpResponse::Ok().json(RefusedList { refused }))
}

/// `POST /api/v1/destinations/{name}/pause`
pub(super) async fn pause(
    services: web::Data<Services>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    set_paused(services, name.into_inner(), true).await
}

/// `POST /api/v1/destinations/{name}/resume`
pub(super) async fn resume(
    services: web::Data<Services>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    set_paused(services, name.into_inner(), false).await
}

async fn set_paused(
    services: web::Data<Services>,
    name: String,
    paused: bool,
) -> Result<HttpResponse, Problem> {
    web::block(move || services.pusher.set_paused(&name, paused))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(Paused { paused }))
}

/// `POST /api/v1/destinations/{name}/replay`
pub(super) async fn replay(
    services: web::Data<Services>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    again(services, name.into_inner(), Pusher::replay).await
}

/// `POST /api/v1/destinations/{name}/resync`
pub(super) async fn resync(
    services: web::Data<Services>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    again(services, name.into_inner(), Pusher::resync).await
}

/// `POST /api/v1/destinations/{name}/reseed`
pub(super) async fn reseed(
    services: web::Data<Services>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    again(services, name.into_inner(), Pusher::reseed).await
}

/// A push after which all is as it should be.
async fn again(
    services: web::Data<Services>,
    name: String,
    push: fn(&Pusher, &str) -> Result<Vec<PushReport>, PushError>,
) -> Result<HttpResponse, Problem> {
    let settling = services.clone();
    ask(move |caller| settling.segments.settle(caller)).await?;
    let reports = web::block(move || push(&services.pusher, &name))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(Reports { reports }))
}

/// `POST /api/v1/destinations/{name}/test`: whether a batch would be taken, without sending one.
pub(super) async fn test(
    services: web::Data<Services>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let checked = web::block(move || services.pusher.check(&name))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    let (ok, message) = match checked {
        Ok(()) => (true, "ready to take batches".to_owned()),
        Err(trouble) => (false, trouble),
    };
    Ok(HttpResponse::Ok().json(Tested { ok, message }))
}

async fn statuses(services: web::Data<Services>) -> Result<Vec<Value>, Problem> {
    let statuses = web::block(move || services.pusher.status())
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    statuses
        .iter()
        .map(|status| serde_json::to_value(status).map_err(|error| Problem::internal(&error)))
        .collect()
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!(
        "there is no destination {name}; config/destinations.toml lists them"
    ))
}

fn problem(error: PushError) -> Problem {
    match error {
        PushError::NotReady => Problem::unavailable(error.to_string()),
        PushError::Store(error) => Problem::internal(&error),
        other => Problem::not_found(other.to_string()),
    }
}
