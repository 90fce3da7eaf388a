//! Answers that are errors: problem documents (RFC 9457), with one place for status codes.

use actix_web::error::JsonPayloadError;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};
use std::fmt;

/// The content type of a problem document.
pub(super) const PROBLEM: &str = "application/problem+json";

/// An error as the caller is told it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// Further members of the document.
    more: Option<(&'static str, Value)>,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), more: None }
    }

    /// 400: the request says something that cannot be.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }

    /// 401: no token, or an unknown one.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "no valid token",
            "send `Authorization: Bearer <token>`; the operator's token is in the file `token` of the \
             data directory",
        )
    }

    /// 403: the token's scope does not reach so far.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not allowed", detail)
    }

    /// 404: there is no such thing.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    /// 409: it does not fit what is there.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 405: the path is one, and the method none of its.
    pub(super) fn method(method: &str, there: &str) -> Self {
        let detail = format!("{method}: this path has {there}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "no such method", detail)
    }

    /// 413: more than is taken.
    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too large", detail)
    }

    /// 415: a body of another content type.
    pub(super) fn content_type(expected: &str) -> Self {
        let detail = format!("expected a body of the content type {expected}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "another content type", detail)
    }

    /// 422: it has the form that is documented, and cannot be meant.
    pub(super) fn meaningless(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "it has no meaning", detail)
    }

    /// 422: a rule or file with errors; `detail` shows them as text, `diagnostics` for machines.
    pub(super) fn diagnostics(detail: impl Into<String>, diagnostics: Value) -> Self {
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "the rule has errors", detail);
        problem.more = Some(("diagnostics", diagnostics));
        problem
    }

    /// The same, with more for machines.
    pub(super) fn with(mut self, name: &'static str, more: Value) -> Self {
        self.more = Some((name, more));
        self
    }

    /// 503: not now; trying again later makes sense.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not available now", detail)
    }

    /// 500: ours. The cause is logged here and not told.
    pub(super) fn internal(error: &dyn fmt::Display) -> Self {
        tracing::error!(%error, "a request of the private listener failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error",
            "the server's log says what happened",
        )
    }
}

impl Problem {
    /// What the framework refused by itself, as a problem.
    pub(super) fn of_status(status: StatusCode, detail: &str) -> Self {
        let title = match status.as_u16() {
            404 => "not found",
            413 => "too large",
            500.. => "internal error",
            _ => "bad request",
        };
        Self::new(status, title, detail)
    }

    /// A body that is no JSON, or not the JSON that is documented.
    pub(super) fn of_json(error: &JsonPayloadError) -> Self {
        match error {
            JsonPayloadError::ContentType => Self::content_type("application/json"),
            JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
                Self::too_large(error.to_string())
            }
            _ => Self::bad_request(error.to_string()),
        }
    }

    /// The problem document.
    pub(super) fn document(&self) -> Value {
        let mut body =
            json!({ "title": self.title, "status": self.status.as_u16(), "detail": self.detail });
        if let Some((name, value)) = &self.more {
            body[*name] = value.clone();
        }
        body
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let body = self.document();
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header(("WWW-Authenticate", "Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header(("Retry-After", "1"));
        }
        response.content_type(PROBLEM).body(body.to_string())
    }
}
