//! Questions about a rule: check, eval and explain. Live segments are not touched.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::Services;
use super::audiences::members_answer;
use super::problem::Problem;
use crate::model::time::format_rfc3339;
use crate::rules::Level;
use crate::segment::AskError;
use crate::segment::Question;
use crate::segment::Told;

/// The body of a question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    rule: String,
    #[serde(default)]
    level: Level,
    #[serde(default)]
    at: Option<String>,
    /// A namespace: answer with the members' identifiers.
    #[serde(default)]
    members: Option<String>,
}

/// Set when the caller has gone, so that long work stops.
pub(super) struct Cancel(pub(super) Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// `POST /api/v1/check`: what the author of a rule is told.
pub(super) async fn check(
    services: web::Data<Services>,
    asked: web::Json<Asked>,
) -> Result<HttpResponse, Problem> {
    let told = web::block(move || services.segments.check(&asked.rule))
        .await
        .map_err(|error| Problem::internal(&error))?;
    Ok(HttpResponse::Ok().json(json!({ "diagnostics": told })))
}

/// `POST /api/v1/eval`: the number, or with `members` a line of NDJSON for each identifier.
pub(super) async fn eval(
    services: web::Data<Services>,
    asked: web::Json<Asked>,
) -> Result<HttpResponse, Problem> {
    let asked = asked.into_inner();
    let cancelled = Arc::new(AtomicBool::new(false));
    let guard = Cancel(cancelled.clone());
    let namespace = asked.members.clone();
    let blocking = services.clone();
    let answer = web::block(move || {
        let question = Question { rule: asked.rule, level: asked.level, at: asked.at };
        blocking.segments.eval(&question, &cancelled)
    })
    .await
    .map_err(|error| Problem::internal(&error))?
    .map_err(problem)?;
    drop(guard);
    if let Some(namespace) = namespace {
        return Ok(members_answer(&services, answer.members, namespace, None, answer.true_for));
    }
    Ok(HttpResponse::Ok().json(json!({
        "count": answer.count,
        "level": answer.level.as_str(),
        "true_for": format_rfc3339(answer.true_for),
        "at": format_rfc3339(answer.at),
        "took_ms": millis(answer.took),
        "diagnostics": answer.told,
    })))
}

/// `POST /api/v1/explain`: how a rule is answered.
pub(super) async fn explain(
    services: web::Data<Services>,
    asked: web::Json<Asked>,
) -> Result<HttpResponse, Problem> {
    let asked = asked.into_inner();
    let cancelled = Arc::new(AtomicBool::new(false));
    let _guard = Cancel(cancelled.clone());
    let explained = web::block(move || {
        let question = Question { rule: asked.rule, level: asked.level, at: asked.at };
        services.segments.explain(&question, &cancelled)
    })
    .await
    .map_err(|error| Problem::internal(&error))?
    .map_err(problem)?;
    Ok(HttpResponse::Ok().json(json!({
        "explain": explained.json,
        "text": explained.text,
        "diagnostics": explained.told,
    })))
}

/// A length of time in milliseconds with three places.
pub(super) fn millis(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// Why a question has no answer, in HTTP.
pub(super) fn problem(error: AskError) -> Problem {
    match error {
        AskError::Rule(told) => {
            let text: Vec<&str> = told.iter().map(|told: &Told| told.rendered.trim_end()).collect();
            let detail = text.join("\n");
            Problem::diagnostics(detail, serde_json::to_value(&told).unwrap_or(Value::Null))
        }
        AskError::At(_) | AskError::TooEarly { .. } | AskError::NotYet(_) => {
            Problem::bad_request(error.to_string())
        }
        AskError::Unknown(_) => Problem::not_found(error.to_string()),
        AskError::Behind | AskError::Cancelled => Problem::unavailable(error.to_string()),
        AskError::Fill(_) => Problem::internal(&error),
    }
}
