//! One profile: what is held of it, and why it is in a segment or not. And what events were seen.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use std::time::Duration;

use super::Services;
use super::asking::ask;
use super::problem::Problem;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::time::format_rfc3339;

/// What `why` is asked beside the profile and the segment.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyAsked {
    /// An instant, in RFC 3339 or such as `-2h`; now where there is none.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::instant")]
    at: Option<String>,
    /// How thoroughly the events are looked for whose properties a clause asks for.
    #[serde(default)]
    events: Events,
}

/// How thoroughly the events are looked for whose properties a clause asks for.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum Events {
    /// Those that are found soon.
    #[default]
    Soon,
    /// All that are told.
    All,
}

/// The audiences that a profile is in.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AudiencesOfProfile")]
pub(super) struct Audiences {
    /// Ids of segments.
    audiences: Vec<String>,
    generation: u64,
    true_for: String,
}

/// What was seen.
#[derive(Serialize, JsonSchema)]
pub(super) struct Schema {
    events: Vec<SeenEvent>,
}

/// An event that was seen.
#[derive(Serialize, JsonSchema)]
struct SeenEvent {
    event: String,
    properties: Vec<String>,
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
    Ok(HttpResponse::Ok().json(Audiences {
        audiences: found.audiences.iter().map(|id| id.to_string()).collect(),
        generation: found.generation,
        true_for: format_rfc3339(found.true_for),
    }))
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
    let events = schema
        .events()
        .map(|name| {
            let properties = schema.properties(name).map(str::to_owned).collect();
            SeenEvent { event: name.to_owned(), properties }
        })
        .collect();
    HttpResponse::Ok().json(Schema { events })
}

pub(super) fn identifier(namespace: &str, value: &str) -> Result<Identifier, Problem> {
    let namespace =
        Namespace::new(namespace).map_err(|error| Problem::bad_request(error.to_string()))?;
    Identifier::new(namespace, value).map_err(|error| Problem::meaningless(error.to_string()))
}
