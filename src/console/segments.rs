//! Segment files: read, written and removed.

use actix_web::HttpMessage;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;

use super::Services;
use super::asking::Waiting;
use super::audiences::Described;
use super::audiences::Wrong;
use super::audiences::described;
use super::audiences::problems;
use super::audiences::unknown;
use super::audiences::wrong;
use super::problem::Problem;
use crate::segment::Base;
use crate::segment::Caller;
use crate::segment::Changes;
use crate::segment::EditError;
use crate::segment::PlanError;
use crate::segment::Told;

/// A segment as JSON, in the form that it is answered in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SegmentSent")]
pub(super) struct Sent {
    /// The text of the file.
    #[schemars(example = "name = \"Readers\"\nrule = \"did page_view in 30d\"\n")]
    toml: String,
}

/// The live segments.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Segments")]
pub(super) struct Listed {
    segments: Vec<Described>,
    problems: Vec<Wrong>,
}

/// A segment with the text of its file.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SegmentWithText")]
pub(super) struct Shown {
    #[serde(flatten)]
    described: Described,
    toml: String,
}

/// A file that was written.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SegmentWritten")]
pub(super) struct Written {
    id: String,
    /// What its author is told.
    diagnostics: Vec<Told>,
}

/// What was done.
#[derive(Serialize, JsonSchema)]
pub(super) struct Applied {
    /// How many files were changed.
    changed: usize,
}

/// `GET /api/v1/segments`
pub(super) async fn list(services: web::Data<Services>) -> HttpResponse {
    let live = services.segments.live();
    let segments = live.segments.values().filter(|s| !s.hidden).map(|s| described(s)).collect();
    HttpResponse::Ok().json(Listed { segments, problems: problems(&services) })
}

/// `GET /api/v1/segments/{id}`
pub(super) async fn show(
    services: web::Data<Services>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let live = services.segments.live();
    let segment = live.segments.get(&*id).filter(|s| !s.hidden).ok_or_else(|| unknown(&id))?;
    let shown = Shown { described: described(segment), toml: segment.text.to_string() };
    Ok(HttpResponse::Ok().json(shown))
}

/// `PUT /api/v1/segments/{id}`: the file as TOML, or as JSON with its text under `toml`. It is live when
/// answered.
pub(super) async fn put(
    services: web::Data<Services>,
    id: web::Path<String>,
    request: HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let id = id.into_inner();
    let text = if request.content_type() == "application/json" {
        let sent: Sent = serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        sent.toml
    } else {
        let text = String::from_utf8(body.to_vec());
        text.map_err(|_| Problem::bad_request("expected TOML in UTF-8"))?
    };
    let name = id.clone();
    let (told, was_there) = web::block(move || services.segments.put(&name, &text))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| problem(error, &id))?;
    let mut response = if was_there { HttpResponse::Ok() } else { HttpResponse::Created() };
    Ok(response.json(Written { id, diagnostics: told }))
}

/// `DELETE /api/v1/segments/{id}`
pub(super) async fn delete(
    services: web::Data<Services>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = id.into_inner();
    let name = id.clone();
    web::block(move || services.segments.delete(&name))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| problem(error, &id))?;
    Ok(HttpResponse::NoContent().finish())
}

/// Files that are to be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PlanAsked")]
pub(super) struct Wanted {
    /// Texts by id; `null` of a file that is to go.
    files: Changes,
    /// Whether those that are not among them are to go too.
    #[serde(default)]
    prune: bool,
}

/// A plan that is to be done.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Planned {
    /// Texts by id; `null` of a file that is to go.
    files: Changes,
    /// What the plan was made on, as the plan says.
    base: Base,
}

/// `POST /api/v1/plan`: what would change, and nothing does.
pub(super) async fn plan(
    services: web::Data<Services>,
    wanted: web::Json<Wanted>,
) -> Result<HttpResponse, Problem> {
    let Wanted { files, prune } = wanted.into_inner();
    let caller = Arc::new(Caller::default());
    let _waiting = Waiting(caller.clone());
    let asked = services.clone();
    let mut plan = web::block(move || asked.segments.plan(&files, prune, &caller))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| match error {
            PlanError::Edit(error) => problem(error, "of a plan"),
            PlanError::Ask(error) => error.into(),
        })?;
    let named = plan.destinations.iter().map(|sent| &sent.destination);
    plan.unknown_destinations =
        named.filter(|name| !services.pusher.knows(name)).cloned().collect();
    Ok(HttpResponse::Ok().json(plan))
}

/// `POST /api/v1/apply`: does what a plan says, all or nothing. It is live when answered.
pub(super) async fn apply(
    services: web::Data<Services>,
    planned: web::Json<Planned>,
) -> Result<HttpResponse, Problem> {
    let Planned { files, base } = planned.into_inner();
    let changed = web::block(move || services.segments.apply(&files, &base))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| problem(error, "of a plan"))?;
    Ok(HttpResponse::Ok().json(Applied { changed }))
}

fn problem(error: EditError, id: &str) -> Problem {
    match error {
        EditError::Stale(_) => Problem::conflict(error.to_string()),
        EditError::Wrong(told) => {
            let text: Vec<&str> = told.iter().map(|told| told.rendered.trim_end()).collect();
            let detail = text.join("\n");
            Problem::diagnostics(detail, serde_json::to_value(&told).unwrap_or(Value::Null))
        }
        EditError::Conflict(problems) => {
            let text: Vec<&str> = problems.iter().map(|p| p.rendered.trim_end()).collect();
            let wrong: Vec<Wrong> = problems.iter().map(wrong).collect();
            Problem::conflict(text.join("\n")).with("problems", json!(wrong))
        }
        EditError::Unknown => unknown(id),
        EditError::Folder(_) => Problem::unavailable(error.to_string()),
    }
}
