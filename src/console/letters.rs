//! Dead letters: what was accepted and could not be folded.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::problem::Problem;
use crate::model::time::format_rfc3339;
use crate::store::journal::EventNo;
use crate::store::state::DeadLetter;

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/dead-letters`
pub(super) async fn list(
    services: web::Data<Services>,
    page: web::Query<Page>,
) -> Result<HttpResponse, Problem> {
    let limit = page.limit.unwrap_or(100).clamp(1, 1000);
    let after = page.after.as_deref().map(event_no).transpose()?;
    let letters = web::block(move || services.engine.dead_letters(after, limit))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::internal(&error))?;
    let letters: Vec<Value> = letters.iter().map(described).collect();
    Ok(HttpResponse::Ok().json(json!({ "dead_letters": letters })))
}

/// `GET /api/v1/dead-letters/{number}`: with its bytes, in base64.
pub(super) async fn show(
    services: web::Data<Services>,
    number: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let event = event_no(&number)?;
    let letter = web::block(move || services.engine.dead_letter(event))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::internal(&error))?
        .ok_or_else(|| unknown(&number))?;
    let mut shown = described(&letter);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &letter.bytes);
    shown["base64"] = json!(base64);
    Ok(HttpResponse::Ok().json(shown))
}

/// `DELETE /api/v1/dead-letters/{number}`
pub(super) async fn drop(
    services: web::Data<Services>,
    number: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let event = event_no(&number)?;
    let dropped = web::block(move || services.engine.drop_dead_letters(&[event]))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::internal(&error))?;
    if dropped == 0 {
        return Err(unknown(&number));
    }
    Ok(HttpResponse::NoContent().finish())
}

fn described(letter: &DeadLetter) -> Value {
    json!({
        "number": format!("{}.{}", letter.event.record, letter.event.part),
        "received": format_rfc3339(letter.time),
        "reason": letter.reason,
        "bytes": letter.bytes.len(),
    })
}

/// Reads `record.part`.
fn event_no(text: &str) -> Result<EventNo, Problem> {
    let wrong = || Problem::bad_request("a dead letter's number is of the form 4711.0");
    let (record, part) = text.split_once('.').ok_or_else(wrong)?;
    Ok(EventNo {
        record: record.parse().map_err(|_| wrong())?,
        part: part.parse().map_err(|_| wrong())?,
    })
}

fn unknown(number: &str) -> Problem {
    Problem::not_found(format!("there is no dead letter {number}"))
}
