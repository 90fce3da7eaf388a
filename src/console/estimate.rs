//! About how many members a rule has, ever more exactly.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use tokio::sync::watch;

use super::Services;
use super::asking::Waiting;
use super::audiences::lines;
use super::problem::Problem;
use super::rules::line_of;
use super::rules::millis;
use crate::model::time::format_rfc3339;
use crate::rules::Level;
use crate::segment::Caller;
use crate::segment::Estimate;
use crate::segment::Question;

/// The body of the question.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EstimateAsked")]
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
}

/// When who asks is told something at the latest, were it only that nobody is counted yet.
const FIRST: Duration = Duration::from_millis(250);
/// How often a better estimate is told.
const EVERY: Duration = Duration::from_millis(100);

/// `POST /api/v1/estimate`: lines of NDJSON. Each tells a number of members with its interval of 95 %; the last is
/// exact, or a problem.
pub(super) async fn estimate(
    services: web::Data<Services>,
    asked: web::Json<Asked>,
) -> Result<HttpResponse, Problem> {
    let Asked { rule, level, at } = asked.into_inner();
    let question = Question { rule, level, at };
    let asked = Instant::now();
    let caller = Arc::new(Caller::default());
    let waiting = Waiting(caller.clone());
    let (tell, mut told) = watch::channel(None::<Estimate>);
    let mut asking = Box::pin(web::block(move || {
        services.segments.estimate(&question, &caller, &|estimate| {
            tell.send_replace(Some(estimate));
        })
    }));
    // A rule that is wrong is a problem of its own, and what is known at once needs no second line.
    let soon = tokio::time::timeout(FIRST, async {
        tokio::select! {
            biased;
            done = &mut asking => Some(done),
            told = told.wait_for(|told| told.is_some_and(|e| e.count.is_some() && !e.exact)) => {
                if told.is_ok() { None } else { Some((&mut asking).await) }
            }
        }
    });
    let mut answered = soon.await.ok().flatten();
    if let Some(Ok(Err(error))) = answered {
        return Err(error.into());
    }
    let (send, body) = lines();
    actix_web::rt::spawn(async move {
        let _waiting = waiting;
        let mut tick = tokio::time::interval(EVERY);
        let mut last = None;
        let done = loop {
            if let Some(done) = answered.take() {
                break done;
            }
            tokio::select! {
                biased;
                done = &mut asking => answered = Some(done),
                _ = tick.tick() => {
                    let now = *told.borrow();
                    if now != last || last.is_none() {
                        last = now.or(Some(Estimate::new(0, 0, 0, false)));
                        let line = now.map_or_else(nothing, |now| number(&now, asked.elapsed()));
                        if send.send(Ok(line_of(&line))).await.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        let done = done
            .map_err(|error| Problem::internal(&error))
            .and_then(|done| done.map_err(Problem::from));
        let last = *told.borrow();
        let line = match (done, last) {
            (Ok(of), Some(last)) => {
                let mut line = number(&last, of.took);
                line["level"] = json!(of.level.as_str());
                line["true_for"] = json!(format_rfc3339(of.true_for));
                line["at"] = json!(format_rfc3339(of.at));
                line["diagnostics"] = json!(of.told);
                line
            }
            (Ok(_), None) => nothing(),
            (Err(problem), _) => json!({ "problem": problem.document() }),
        };
        let _ = send.send(Ok(line_of(&line))).await;
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(body))
}

/// Not even how many profiles there are is known.
fn nothing() -> Value {
    json!({ "count": null, "exact": false })
}

fn number(estimate: &Estimate, took: Duration) -> Value {
    json!({
        "count": estimate.count,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": if estimate.exact { 1.0 } else { 0.95 },
        "sampled": estimate.sampled,
        "of": estimate.of,
        "exact": estimate.exact,
        "took_ms": millis(took),
    })
}
