//! Questions that take long: asked on a thread of their own, and given up when the caller has gone.

use actix_web::web;
use serde_json::Value;
use std::sync::Arc;

use super::problem::Problem;
use crate::model::Namespace;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::store::chain;

/// Says so when the caller has gone, so that long work stops.
pub(super) struct Waiting(pub(super) Arc<Caller>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Asks, and tells the question when nobody waits for its answer any more.
pub(super) async fn ask<T: Send + 'static, E: Into<Problem> + Send + 'static>(
    question: impl FnOnce(&Caller) -> Result<T, E> + Send + 'static,
) -> Result<T, Problem> {
    let caller = Arc::new(Caller::default());
    let _waiting = Waiting(caller.clone());
    let asked = web::block(move || question(&caller)).await;
    asked.map_err(|error| Problem::internal(&error))?.map_err(Into::into)
}

/// A namespace as a caller writes it.
pub(super) fn namespace(text: &str) -> Result<Namespace, Problem> {
    Namespace::new(text).map_err(|error| Problem::bad_request(format!("{text:?}: {error}")))
}

/// Why a question has no answer, in HTTP.
impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Rule(told) => {
                let text: Vec<&str> = told.iter().map(|told| told.rendered.trim_end()).collect();
                let detail = text.join("\n");
                Self::diagnostics(detail, serde_json::to_value(&told).unwrap_or(Value::Null))
            }
            AskError::At(_) => Self::meaningless(error.to_string()),
            AskError::TooEarly { .. } | AskError::NotYet(_) => Self::conflict(error.to_string()),
            AskError::Unknown(_) => Self::not_found(error.to_string()),
            AskError::Behind
            | AskError::Cancelled
            | AskError::Missing(_)
            | AskError::Moving
            | AskError::Away(_) => Self::unavailable(error.to_string()),
            AskError::Store(error) if error.is_retryable() => Self::unavailable(chain(&error)),
            // It may come back: a file of the archive, its server, a disk.
            AskError::Fill(_) => Self::unavailable(chain(&error)),
            AskError::Store(_) | AskError::Elsewhere(_) => Self::internal(&error),
        }
    }
}
