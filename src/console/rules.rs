//! Questions about a rule: check, eval and explain. Live segments are not touched.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::json;

use super::Services;
use super::asking::ask;
use super::asking::namespace;
use super::audiences::members_answer;
use super::problem::Problem;
use crate::model::time::format_rfc3339;
use crate::rules::Level;
use crate::segment::Question;

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
    let namespace = asked.members.as_deref().map(namespace).transpose()?;
    let asking = services.clone();
    let question = Question { rule: asked.rule, level: asked.level, at: asked.at };
    let answer = ask(move |cancelled| asking.segments.eval(&question, cancelled)).await?;
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
    let question = Question { rule: asked.rule, level: asked.level, at: asked.at };
    let explained = ask(move |cancelled| services.segments.explain(&question, cancelled)).await?;
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
