//! Imports, line by line.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

use super::Services;
use super::problem::Problem;
use crate::ingest::ImportError;
use crate::store::journal::JournalError;

/// How long an answer waits for the last line to be folded.
const PATIENCE: Duration = Duration::from_secs(600);
/// So many rejected lines are listed in an answer.
const LISTED: usize = 10_000;

#[derive(Deserialize)]
pub(super) struct Asked {
    name: String,
    first_line: Option<u64>,
    #[serde(default)]
    settle: bool,
}

/// `GET /api/v1/import/events?name=…`: how far an import has come; with `settle=true` after its last line
/// has been folded.
pub(super) async fn status(
    services: web::Data<Services>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, Problem> {
    let asked = asked.into_inner();
    let (taken, status, rejected) = web::block(move || {
        let taken = services.importer.taken(&asked.name).map_err(problem)?;
        let segments = &services.segments;
        if asked.settle {
            segments.caught_up(PATIENCE)?;
            // Rejected lines are listed once they are committed.
            if !segments.shards().commit(PATIENCE)? {
                return Err(problem(ImportError::Behind));
            }
        }
        let status = segments.import(&asked.name)?.unwrap_or_default();
        let rejected = segments.shards().rejected(&asked.name, 0, LISTED)?;
        Ok::<_, Problem>((taken, status, rejected))
    })
    .await
    .map_err(|error| Problem::internal(&error))??;
    let rejected_lines: Vec<_> = rejected
        .iter()
        .map(|line| json!({ "line": line.line, "code": line.code, "message": line.message }))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "lines": taken,
        "accepted": status.counted + status.duplicates,
        "counted": status.counted,
        "duplicates": status.duplicates,
        "rejected": status.rejected,
        "rejected_lines": rejected_lines,
    })))
}

/// `POST /api/v1/import/events?name=…&first_line=…`: takes lines of NDJSON, durable when answered.
pub(super) async fn take(
    services: web::Data<Services>,
    asked: web::Query<Asked>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let asked = asked.into_inner();
    let first_line =
        asked.first_line.ok_or_else(|| Problem::bad_request("first_line: expected a number"))?;
    let taken = web::block(move || services.importer.take(&asked.name, first_line, &body))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(json!({
        "lines": taken.lines,
        "accepted": taken.accepted,
        "rejected": taken.rejected,
    })))
}

fn problem(error: ImportError) -> Problem {
    match error {
        ImportError::OutOfOrder { .. } => Problem::conflict(error.to_string()),
        ImportError::Name => Problem::bad_request(error.to_string()),
        ImportError::TooLarge => Problem::too_large(error.to_string()),
        ImportError::Behind
        | ImportError::Journal(JournalError::Full(_) | JournalError::NoRoom(_)) => {
            Problem::unavailable(error.to_string())
        }
        ImportError::Journal(error) => Problem::internal(&error),
    }
}
