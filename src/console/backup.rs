//! Backups: asked for here, and told as they go.

use actix_web::HttpResponse;
use actix_web::web;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use tokio::sync::mpsc::Sender;

use super::Services;
use super::audiences::Chunk;
use super::audiences::lines;
use super::problem::Problem;
use crate::backup::BackupError;
use crate::store::chain;

/// A caller hears of the progress so often.
const EVERY: Duration = Duration::from_millis(200);

/// Where a backup is to be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupAsked")]
pub(super) struct Asked {
    /// A directory on this machine, from its root.
    dir: PathBuf,
}

/// `POST /api/v1/backup`: streams NDJSON, `{"part","done","of","whole","unit"}` as it goes, and as the last
/// line `{"backup":{…}}` or `{"error":"…"}`. Who hangs up gives it up.
pub(super) async fn take(
    services: web::Data<Services>,
    asked: web::Json<Asked>,
) -> Result<HttpResponse, Problem> {
    let dir = asked.into_inner().dir;
    let job = web::block(move || {
        let profiles = services.lanes.stats().profiles;
        services.backups.begin(&dir, profiles).map_err(problem)
    })
    .await
    .map_err(|error| Problem::internal(&error))??;
    let (send, lines) = lines();
    tokio::task::spawn_blocking(move || {
        let mut told = None::<Instant>;
        let done = job.run(&mut |progress| {
            let is_due = told.is_none_or(|told| told.elapsed() >= EVERY);
            if !is_due && !progress.whole {
                return !send.is_closed();
            }
            told = Some(Instant::now());
            line(&send, &json!(progress))
        });
        let last = match done {
            Ok(manifest) => {
                tracing::info!(files = manifest.files.len(), "a backup was taken");
                json!({ "backup": manifest.summary() })
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "a backup was not taken");
                json!({ "error": error })
            }
        };
        line(&send, &last)
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines))
}

/// Sends a line; tells whether anybody listens.
fn line(send: &Sender<Chunk>, value: &Value) -> bool {
    send.blocking_send(Ok(Bytes::from(format!("{value}\n")))).is_ok()
}

fn problem(error: BackupError) -> Problem {
    match error {
        BackupError::Busy
        | BackupError::Unfit { .. }
        | BackupError::Unready(_)
        | BackupError::Elsewhere => Problem::conflict(error.to_string()),
        // What the system said of a directory that the caller named is the caller's to know.
        BackupError::NoRoom { .. } | BackupError::File(_) => Problem::conflict(chain(&error)),
        error => Problem::internal(&error),
    }
}
