//! One profile: what is held of it, and why it is in a segment or not. And what events were seen.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::time::Duration;

use super::Services;
use super::asking::ask;
use super::problem::Problem;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::time::format_rfc3339;

/// What `why` is asked beside the profile and the segment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyAsked {
    at: Option<String>,
    #[serde(default)]
    events: Events,
}

/// How thoroughly the events are looked for whose properties a clause asks for.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Events {
    /// Those that are found soon.
    #[default]
    Soon,
    /// All that are told.
    All,
}

/// So long events are read where who asks wants an answer soon.
const SOON: Duration = Duration::from_millis(100);
/// So long where they want all.
const THOROUGH: Duration = Duration::from_secs(60);

/// `GET /api/v1/profiles/{namespace}/{value}`
pub(super) async fn show(
    services: web::Data<Services>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let identifier = identifier(&path.0, &path.1)?;
    let shown = ask(move |caller| services.segments.profile(&identifier, caller)).await?;
    Ok(HttpResponse::Ok().json(shown))
}

/// `GET /api/v1/profiles/{namespace}/{value}/audiences`
pub(super) async fn audiences(
    services: web::Data<Services>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let identifier = identifier(&path.0, &path.1)?;
    let found = ask(move |_| services.segments.audiences_of(&identifier)).await?;
    Ok(HttpResponse::Ok().json(json!({
        "audiences": found.audiences.iter().map(|id| &**id).collect::<Vec<_>>(),
        "generation": found.generation,
        "true_for": format_rfc3339(found.true_for),
    })))
}

/// `GET /api/v1/profiles/{namespace}/{value}/why/{segment}`
pub(super) async fn why(
    services: web::Data<Services>,
    path: web::Path<(String, String, String)>,
    asked: web::Query<WhyAsked>,
) -> Result<HttpResponse, Problem> {
    let (namespace, value, segment) = path.into_inner();
    let identifier = identifier(&namespace, &value)?;
    let WhyAsked { at, events } = asked.into_inner();
    let read = match events {
        Events::Soon => SOON,
        Events::All => THOROUGH,
    };
    let shown = ask(move |caller| {
        services.segments.why(&segment, &identifier, at.as_deref(), read, caller)
    })
    .await?;
    Ok(HttpResponse::Ok().json(shown))
}

/// `GET /api/v1/schema`
pub(super) async fn schema(services: web::Data<Services>) -> HttpResponse {
    let schema = services.segments.shards().schema();
    let events: Vec<Value> = schema
        .events()
        .map(|name| {
            let properties: Vec<&str> = schema.properties(name).collect();
            json!({ "event": name, "properties": properties })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "events": events }))
}

fn identifier(namespace: &str, value: &str) -> Result<Identifier, Problem> {
    let namespace =
        Namespace::new(namespace).map_err(|error| Problem::bad_request(error.to_string()))?;
    Identifier::new(namespace, value).map_err(|error| Problem::bad_request(error.to_string()))
}
