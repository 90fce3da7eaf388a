//! Probes, metrics and tokens.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::json;
use std::sync::atomic::Ordering;

use super::Services;
use super::problem::Problem;
use super::tokens::Scope;
use super::tokens::TokenError;
use super::tokens::Tokens;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    scope: Scope,
}

/// `GET /livez`: no thread has died that only a restart brings back.
pub(super) async fn live(services: web::Data<Services>) -> HttpResponse {
    probe(services.workers.trouble(), "ok")
}

fn probe(trouble: Option<String>, well: &str) -> HttpResponse {
    match trouble {
        None => HttpResponse::Ok().body(format!("{well}\n")),
        Some(trouble) => HttpResponse::ServiceUnavailable().body(format!("{trouble}\n")),
    }
}

/// What is not listed.
pub(super) async fn nowhere() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found("there is no such call"))
}

/// `GET /readyz`: events are taken and durable.
pub(super) async fn ready(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    if services.draining.load(Ordering::Acquire) {
        return Ok(probe(Some("stopping".into()), ""));
    }
    // After a refused append the journal tries the disk.
    let trouble = web::block(move || {
        let threads = services.workers.trouble();
        threads.or_else(|| services.lanes.trouble()).or_else(|| services.sink.trouble())
    })
    .await
    .map_err(|error| Problem::internal(&error))?;
    Ok(probe(trouble, "ready"))
}

/// `GET /metrics`
pub(super) async fn metrics(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let text = web::block(move || {
        services.segments.measure();
        let metrics = &services.metrics;
        services.lanes.measure(metrics);
        metrics.raise(&metrics.journal_lost_bytes, services.sink.lost());
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        metrics.clock_behind.set(services.clock.behind() as f64 / 1000.0);
        metrics.render()
    })
    .await
    .map_err(|error| Problem::internal(&error))?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text))
}

/// `GET /api/v1/tokens`
pub(super) async fn tokens(tokens: web::Data<Tokens>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "tokens": tokens.list() }))
}

/// `POST /api/v1/tokens`: makes a token and shows it once.
pub(super) async fn create_token(
    services: web::Data<Services>,
    tokens: web::Data<Tokens>,
    asked: web::Json<NewToken>,
) -> Result<HttpResponse, Problem> {
    let name = asked.name.clone();
    let now = services.clock.now();
    let secret = web::block(move || tokens.create(&asked.name, asked.scope, now))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(json!({ "name": name, "token": secret })))
}

/// `DELETE /api/v1/tokens/{name}`
pub(super) async fn revoke_token(
    tokens: web::Data<Tokens>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    web::block(move || tokens.revoke(&name))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::NoContent().finish())
}

fn problem(error: TokenError) -> Problem {
    match error {
        TokenError::Taken(_) => Problem::conflict(error.to_string()),
        TokenError::Name => Problem::bad_request(error.to_string()),
        TokenError::Unknown(_) => Problem::not_found(error.to_string()),
        TokenError::Io(_) => Problem::internal(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_what_is_the_matter() {
        assert_eq!(probe(None, "ok").status(), 200);
        assert_eq!(probe(Some("the thread segments ended".into()), "ok").status(), 503);
    }
}
