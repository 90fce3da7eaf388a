//! Imports, line by line.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use std::time::Duration;

use super::Services;
use super::problem::Problem;
use crate::ingest::ImportError;
use crate::store::journal::JournalError;

/// How long an answer waits for the last line to be folded.
const PATIENCE: Duration = Duration::from_secs(600);
/// So many rejected lines are listed in an answer.
const LISTED: usize = 10_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The import: 1 to 200 bytes without control characters.
    #[schemars(schema_with = "super::api::shapes::import_name")]
    name: String,
    /// Waits until its last line has been folded.
    #[serde(default)]
    settle: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// The import: 1 to 200 bytes without control characters.
    #[schemars(schema_with = "super::api::shapes::import_name")]
    name: String,
    /// The number of the first line, counted from 1 over the whole import.
    #[schemars(range(max = 18_446_744_073_709_551_615_u64))]
    first_line: u64,
}

/// How far an import has come.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ImportStatus")]
pub(super) struct Status {
    /// Lines that were taken, and are durable.
    lines: u64,
    /// Lines that were folded as events.
    accepted: u64,
    /// Those of them that count.
    counted: u64,
    /// Those of them that were there already.
    duplicates: u64,
    /// Lines that were left out, for they are of someone who was erased and of before that.
    erased: u64,
    /// Lines that were rejected.
    rejected: u64,
    /// The first 10,000 of these.
    rejected_lines: Vec<RejectedLine>,
}

/// A line that was rejected.
#[derive(Serialize, JsonSchema)]
struct RejectedLine {
    line: u64,
    /// A short stable word for the reason.
    code: String,
    message: String,
}

/// What was taken.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ImportTaken")]
pub(super) struct Taken {
    /// Lines of the import that were taken up to now.
    lines: u64,
    /// How many of those sent were accepted.
    accepted: u64,
    /// How many of them were rejected.
    rejected: u64,
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
    let rejected_lines = rejected
        .into_iter()
        .map(|line| RejectedLine {
            line: line.line,
            code: line.code.to_string(),
            message: line.message.to_string(),
        })
        .collect();
    Ok(HttpResponse::Ok().json(Status {
        lines: taken,
        accepted: status.counted + status.duplicates,
        counted: status.counted,
        duplicates: status.duplicates,
        erased: status.erased,
        rejected: status.rejected,
        rejected_lines,
    }))
}

/// `POST /api/v1/import/events?name=…&first_line=…`: takes lines of NDJSON, durable when answered.
pub(super) async fn take(
    services: web::Data<Services>,
    asked: web::Query<Given>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let Given { name, first_line } = asked.into_inner();
    let taken = web::block(move || services.importer.take(&name, first_line, &body))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(problem)?;
    Ok(HttpResponse::Ok().json(Taken {
        lines: taken.lines,
        accepted: taken.accepted,
        rejected: taken.rejected,
    }))
}

fn problem(error: ImportError) -> Problem {
    match error {
        ImportError::OutOfOrder { .. } => Problem::conflict(error.to_string()),
        ImportError::Name => Problem::meaningless(error.to_string()),
        ImportError::TooLarge => Problem::too_large(error.to_string()),
        ImportError::Behind
        | ImportError::Journal(JournalError::Full(_) | JournalError::NoRoom(_)) => {
            Problem::unavailable(error.to_string())
        }
        ImportError::Journal(error) => Problem::internal(&error),
    }
}
