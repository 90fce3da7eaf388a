//! Dead letters: what was accepted and could not be folded.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::Services;
use super::api::shapes::Limit;
use super::problem::Problem;
use crate::ingest::BadLetterNo;
use crate::ingest::LetterNo;
use crate::model::time::format_rfc3339;
use crate::store::state::DeadLetter;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// The number of the last one that is known already.
    #[schemars(regex(pattern = r"^([0-9]{1,4}:)?[0-9]{1,18}\.[0-9]{1,9}$"))]
    after: Option<String>,
    /// How many at most.
    #[serde(default)]
    limit: Limit,
}

/// The dead letters.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetters")]
pub(super) struct Listed {
    dead_letters: Vec<Described>,
}

/// What was accepted and could not be folded.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
struct Described {
    /// Its number.
    number: String,
    /// When it was received.
    received: String,
    /// Why it could not be folded.
    reason: String,
    /// How many bytes it has.
    bytes: usize,
}

/// A dead letter with its bytes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetterWithBytes")]
pub(super) struct Shown {
    #[serde(flatten)]
    described: Described,
    /// Its bytes in base64.
    base64: String,
}

/// `GET /api/v1/dead-letters`
pub(super) async fn list(
    services: web::Data<Services>,
    page: web::Query<Page>,
) -> Result<HttpResponse, Problem> {
    let limit = page.limit.0;
    let after = page.after.as_deref().map(number_of).transpose()?;
    let letters = web::block(move || services.segments.shards().dead_letters(after, limit))
        .await
        .map_err(|error| Problem::internal(&error))??;
    let dead_letters = letters.iter().map(|(number, letter)| described(*number, letter)).collect();
    Ok(HttpResponse::Ok().json(Listed { dead_letters }))
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
    let described = described(asked, &letter);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &letter.bytes);
    Ok(HttpResponse::Ok().json(Shown { described, base64 }))
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

fn described(number: LetterNo, letter: &DeadLetter) -> Described {
    Described {
        number: number.to_string(),
        received: format_rfc3339(letter.time),
        reason: letter.reason.to_string(),
        bytes: letter.bytes.len(),
    }
}

fn number_of(text: &str) -> Result<LetterNo, Problem> {
    text.parse().map_err(|error: BadLetterNo| Problem::bad_request(error.to_string()))
}

fn unknown(number: &str) -> Problem {
    Problem::not_found(format!("there is no dead letter {number}"))
}
