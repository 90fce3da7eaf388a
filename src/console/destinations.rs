//! Destinations: what is pushed where, and pushing it now.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::asking::ask;
use super::problem::Problem;
use crate::activate::PushError;
use crate::model::time::format_rfc3339;

#[derive(Deserialize)]
pub(super) struct Push {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    drain: bool,
}

#[derive(Deserialize)]
pub(super) struct OfSegment {
    segment: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
}

/// `GET /api/v1/destinations`
pub(super) async fn list(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    // How long ago something was is for who shows it, whose clock may be another.
    let now = format_rfc3339(services.clock.now());
    let destinations = statuses(services).await?;
    Ok(HttpResponse::Ok().json(json!({ "destinations": destinations, "now": now })))
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
    let limit = page.limit.unwrap_or(100).clamp(1, 1000);
    let deliveries = web::block(move || services.pusher.deliveries(&name, limit))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(json!({ "deliveries": deliveries })))
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
    Ok(HttpResponse::Ok().json(json!({ "reports": reports })))
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
    Ok(HttpResponse::Ok().json(json!({ "waterfalls": found })))
}

/// `GET /api/v1/destinations/{name}/refused`: what it would not take.
pub(super) async fn refused(
    services: web::Data<Services>,
    name: web::Path<String>,
    page: web::Query<Page>,
) -> Result<HttpResponse, Problem> {
    let limit = page.limit.unwrap_or(100).clamp(1, 1000);
    let found = web::block(move || services.pusher.refused(&name, limit))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    let refused = found.iter().map(|(segment, refused)| {
        let identifier = &refused.identifier;
        json!({
            "segment": segment,
            "namespace": identifier.namespace.as_str(),
            "value": identifier.value(),
            "why": refused.why,
            "since": format_rfc3339(refused.since),
        })
    });
    let refused: Vec<Value> = refused.collect();
    Ok(HttpResponse::Ok().json(json!({ "refused": refused })))
}

/// `POST /api/v1/destinations/{name}/pause` and `…/resume`.
pub(super) async fn pause(
    services: web::Data<Services>,
    path: web::Path<(String, Pause)>,
) -> Result<HttpResponse, Problem> {
    let (name, pause) = path.into_inner();
    let paused = pause == Pause::Pause;
    web::block(move || services.pusher.set_paused(&name, paused))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(json!({ "paused": paused })))
}

/// `POST /api/v1/destinations/{name}/replay`, `…/resync` and `…/reseed`: a push after which all is as it should be.
pub(super) async fn again(
    services: web::Data<Services>,
    path: web::Path<(String, Again)>,
) -> Result<HttpResponse, Problem> {
    let settling = services.clone();
    ask(move |caller| settling.segments.settle(caller)).await?;
    let (name, again) = path.into_inner();
    let reports = web::block(move || match again {
        Again::Replay => services.pusher.replay(&name),
        Again::Resync => services.pusher.resync(&name),
        Again::Reseed => services.pusher.reseed(&name),
    })
    .await
    .map_err(|error| Problem::internal(&error))?
    .map_err(problem)?;
    Ok(HttpResponse::Ok().json(json!({ "reports": reports })))
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
    Ok(HttpResponse::Ok().json(json!({ "ok": ok, "message": message })))
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Pause {
    Pause,
    Resume,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Again {
    Replay,
    Resync,
    Reseed,
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
