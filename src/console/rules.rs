//! Questions about a rule: check, eval and explain. Live segments are not touched.

use actix_web::HttpResponse;
use actix_web::web;
use actix_web::web::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use super::Services;
use super::asking::Waiting;
use super::asking::ask;
use super::asking::namespace;
use super::audiences::lines;
use super::audiences::members_answer;
use super::audiences::send_members;
use super::problem::Problem;
use crate::model::Namespace;
use crate::model::time::format_rfc3339;
use crate::rules::Level;
use crate::segment::Answer;
use crate::segment::Caller;
use crate::segment::Question;
use crate::segment::Stage;
use crate::segment::Told;

/// The body of a question.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RuleAsked")]
pub(super) struct Asked {
    /// The rule.
    #[schemars(example = "did page_view in 30d")]
    rule: String,
    /// What one member is.
    #[serde(default)]
    level: Level,
    /// An instant, in RFC 3339 or such as `-2h`; now where there is none.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::instant_or_none")]
    at: Option<String>,
    /// A namespace: answer with the members' identifiers.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::namespace_or_none")]
    members: Option<String>,
    /// Answer line by line, and tell meanwhile how far the answer is.
    #[serde(default)]
    progress: bool,
}

/// A rule that is to be checked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RuleText")]
pub(super) struct Text {
    /// The rule.
    #[schemars(example = "did page_view in 30d")]
    rule: String,
}

/// A rule that is to be explained.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExplainAsked")]
pub(super) struct ExplainAsked {
    /// The rule.
    #[schemars(example = "did page_view in 30d")]
    rule: String,
    /// What one member is.
    #[serde(default)]
    level: Level,
    /// An instant, in RFC 3339 or such as `-2h`; now where there is none.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::instant_or_none")]
    at: Option<String>,
}

/// What the author of a rule is told.
#[derive(Serialize, JsonSchema)]
pub(super) struct Checked {
    diagnostics: Vec<Told>,
}

/// How many a rule holds.
#[derive(Serialize, JsonSchema)]
pub(super) struct Counted {
    count: u64,
    /// What one member is: `device` or `person`.
    level: &'static str,
    /// Everything acknowledged before this instant is in.
    true_for: String,
    /// The instant of the question.
    at: String,
    /// How long the answer took, in milliseconds.
    took_ms: f64,
    diagnostics: Vec<Told>,
}

/// How a rule is answered.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explained {
    explain: serde_json::Value,
    /// The same for people.
    text: String,
    diagnostics: Vec<Told>,
}

/// How often who waits is told how far the answer is.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// `POST /api/v1/check`: what the author of a rule is told.
pub(super) async fn check(
    services: web::Data<Services>,
    asked: web::Json<Text>,
) -> Result<HttpResponse, Problem> {
    let told = web::block(move || services.segments.check(&asked.rule))
        .await
        .map_err(|error| Problem::internal(&error))?;
    Ok(HttpResponse::Ok().json(Checked { diagnostics: told }))
}

/// `POST /api/v1/eval`: the number, or with `members` a line of NDJSON for each identifier. With `progress`
/// lines of NDJSON in any case: objects that tell how far it is, then the number or a problem, then the
/// identifiers.
pub(super) async fn eval(
    services: web::Data<Services>,
    asked: web::Json<Asked>,
) -> Result<HttpResponse, Problem> {
    let asked = asked.into_inner();
    let namespace = asked.members.as_deref().map(namespace).transpose()?;
    let asking = services.clone();
    let question = Question { rule: asked.rule, level: asked.level, at: asked.at };
    if asked.progress {
        return Ok(eval_by_lines(services, question, namespace));
    }
    let answer = ask(move |caller| asking.segments.eval(&question, caller)).await?;
    if let Some(namespace) = namespace {
        return Ok(members_answer(&services, answer.members, namespace, None, answer.true_for));
    }
    Ok(HttpResponse::Ok().json(number(&answer)))
}

fn number(answer: &Answer) -> Counted {
    Counted {
        count: answer.count,
        level: answer.level.as_str(),
        true_for: format_rfc3339(answer.true_for),
        at: format_rfc3339(answer.at),
        took_ms: millis(answer.took),
        diagnostics: answer.told.clone(),
    }
}

/// Answers with lines from the start, so that a long answer shows how far it is.
fn eval_by_lines(
    services: web::Data<Services>,
    question: Question,
    namespace: Option<Namespace>,
) -> HttpResponse {
    let (send, body) = lines();
    actix_web::rt::spawn(async move {
        let caller = Arc::new(Caller::default());
        let waiting = Waiting(caller.clone());
        let asking = services.clone();
        let mut asked =
            std::pin::pin!(web::block(move || asking.segments.eval(&question, &caller)));
        let mut tick = tokio::time::interval(TELL_EVERY);
        tick.tick().await;
        let answered = loop {
            tokio::select! {
                answered = &mut asked => break answered,
                _ = tick.tick() => {
                    let line = match waiting.0.stage() {
                        Stage::Waiting => json!({ "stage": "waiting" }),
                        Stage::Reading(percent) => json!({ "stage": "reading", "percent": percent }),
                        Stage::Evaluating => json!({ "stage": "evaluating" }),
                    };
                    if send.send(Ok(line_of(&line))).await.is_err() {
                        return;
                    }
                }
            }
        };
        let answered = answered
            .map_err(|error| Problem::internal(&error))
            .and_then(|answer| answer.map_err(Problem::from));
        let answer = match answered {
            Ok(answer) => answer,
            Err(problem) => {
                let _ = send.send(Ok(line_of(&json!({ "problem": problem.document() })))).await;
                return;
            }
        };
        if send.send(Ok(line_of(&json!(number(&answer))))).await.is_ok()
            && let Some(namespace) = namespace
        {
            send_members(&services, answer.members, namespace, send);
        }
    });
    HttpResponse::Ok().content_type("application/x-ndjson").streaming(body)
}

pub(super) fn line_of(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

/// `POST /api/v1/explain`: how a rule is answered.
pub(super) async fn explain(
    services: web::Data<Services>,
    asked: web::Json<ExplainAsked>,
) -> Result<HttpResponse, Problem> {
    let ExplainAsked { rule, level, at } = asked.into_inner();
    let question = Question { rule, level, at };
    let explained = ask(move |caller| services.segments.explain(&question, caller)).await?;
    Ok(HttpResponse::Ok().json(Explained {
        explain: explained.json,
        text: explained.text,
        diagnostics: explained.told,
    }))
}

/// A length of time in milliseconds with three places.
pub(super) fn millis(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}
