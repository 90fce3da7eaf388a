//! Probes, metrics and tokens.

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use std::sync::atomic::Ordering;

use super::Services;
use super::problem::Problem;
use super::tokens::Bearer;
use super::tokens::Listed;
use super::tokens::Scope;
use super::tokens::TokenError;
use super::tokens::Tokens;
use super::tokens::Wanted;
use crate::model::time::format_rfc3339;
use crate::model::time::parse_rfc3339;

/// A token that is to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// What it is for; unique.
    #[schemars(schema_with = "super::api::shapes::token_name")]
    name: String,
    /// What it may do: at least one, and no more than the token has that asks.
    #[schemars(length(min = 1))]
    scopes: Vec<Scope>,
    /// From when on it opens nothing, in RFC 3339; never where it is left out.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::time_or_none")]
    expires: Option<String>,
}

/// The tokens but for the operator's.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
pub(super) struct TokensListed {
    tokens: Vec<Listed>,
}

/// A token that was made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TokenMade")]
pub(super) struct Made {
    name: String,
    /// It is shown this once, and kept nowhere.
    token: String,
}

/// `GET /livez`: no thread has died that only a restart brings back.
pub(super) async fn live(services: web::Data<Services>) -> HttpResponse {
    probe(services.workers.trouble(), "ok")
}

fn probe(trouble: Option<String>, well: &str) -> HttpResponse {
    let (mut answer, line) = match trouble {
        None => (HttpResponse::Ok(), well.to_owned()),
        Some(trouble) => (HttpResponse::ServiceUnavailable(), trouble),
    };
    answer.content_type(ContentType::plaintext()).body(format!("{line}\n"))
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
    HttpResponse::Ok().json(TokensListed { tokens: tokens.list() })
}

/// `POST /api/v1/tokens`: makes a token and shows it once.
pub(super) async fn create_token(
    tokens: web::Data<Tokens>,
    bearer: web::ReqData<Bearer>,
    asked: web::Json<NewToken>,
) -> Result<HttpResponse, Problem> {
    let NewToken { name, scopes, expires } = asked.into_inner();
    if let Some(more) = scopes.iter().find(|scope| !bearer.may(**scope)) {
        let more = serde_json::to_string(more).unwrap_or_default();
        return Err(Problem::forbidden(format!(
            "a token makes none that may more than itself: this one has not the scope {more}"
        )));
    }
    let instant = |text: &str| {
        parse_rfc3339(text).ok_or_else(|| {
            Problem::meaningless(format!(
                "expires: {text:?} is no instant such as 2027-01-31T00:00:00Z"
            ))
        })
    };
    let expires = expires.as_deref().map(instant).transpose()?;
    if let Some(end) = bearer.expires.filter(|end| expires.is_none_or(|expires| expires > *end)) {
        return Err(Problem::forbidden(format!(
            "a token makes none that lasts longer than itself: say that it expires at {} or before",
            format_rfc3339(end)
        )));
    }
    let called = name.clone();
    let token =
        web::block(move || tokens.create(&Wanted { name: &called, scopes: &scopes, expires }));
    let token = token.await.map_err(|error| Problem::internal(&error))?.map_err(problem)?;
    Ok(HttpResponse::Ok().json(Made { name, token }))
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
        TokenError::Taken(_) | TokenError::Kept(_) | TokenError::Expired => {
            Problem::conflict(error.to_string())
        }
        TokenError::Name | TokenError::NoScope => Problem::bad_request(error.to_string()),
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
