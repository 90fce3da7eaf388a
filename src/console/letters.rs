//! Dead letters: what was accepted and could not be folded.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::problem::Problem;
use crate::ingest::BadLetterNo;
use crate::ingest::LetterNo;
use crate::model::time::format_rfc3339;
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
    let after = page.after.as_deref().map(number_of).transpose()?;
    let letters = web::block(move || services.segments.shards().dead_letters(after, limit))
        .await
        .map_err(|error| Problem::internal(&error))??;
    let letters: Vec<Value> =
        letters.iter().map(|(number, letter)| described(*number, letter)).collect();
    Ok(HttpResponse::Ok().json(json!({ "dead_letters": letters })))
}

/// `GET /api/v1/dead-letters/{number}`: with its bytes, in base64.
pub(super) async fn show(
    services: web::Data<Services>,
    number: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let asked = number_of(&number)?;
    let letter = web::block(move || services.segments.shards().dead_letter(asked))
        .await
        .map_err(|error| Problem::internal(&error))??
        .ok_or_else(|| unknown(&number))?;
    let mut shown = described(asked, &letter);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &letter.bytes);
    shown["base64"] = json!(base64);
    Ok(HttpResponse::Ok().json(shown))
}

/// `DELETE /api/v1/dead-letters/{number}`
pub(super) async fn drop(
    services: web::Data<Services>,
    number: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let asked = number_of(&number)?;
    let dropped = web::block(move || services.segments.shards().drop_dead_letter(asked))
        .await
        .map_err(|error| Problem::internal(&error))??;
    if !dropped {
        return Err(unknown(&number));
    }
    Ok(HttpResponse::NoContent().finish())
}

fn described(number: LetterNo, letter: &DeadLetter) -> Value {
    json!({
        "number": number.to_string(),
        "received": format_rfc3339(letter.time),
        "reason": letter.reason,
        "bytes": letter.bytes.len(),
    })
}

fn number_of(text: &str) -> Result<LetterNo, Problem> {
    text.parse().map_err(|error: BadLetterNo| Problem::bad_request(error.to_string()))
}

fn unknown(number: &str) -> Problem {
    Problem::not_found(format!("there is no dead letter {number}"))
}
