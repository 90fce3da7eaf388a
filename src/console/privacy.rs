//! The rights of those whose data this is, asked by who answers for them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::api::shapes::Limit;
use super::asking::ask;
use super::problem::Problem;
use crate::privacy::Asked;
use crate::privacy::Privacy;
use crate::privacy::PrivacyError;
use crate::privacy::Receipt;
use crate::store::chain;
use crate::store::journal::JournalError;

/// Who is meant, and how far.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    #[schemars(schema_with = "super::api::shapes::namespace")]
    namespace: String,
    /// Its identifier there.
    #[schemars(schema_with = "super::api::shapes::value")]
    value: String,
    /// All profiles that share an identifier with theirs, and so on.
    #[serde(default)]
    person: bool,
}

/// Who is to be erased, and how far.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToErase {
    #[schemars(schema_with = "super::api::shapes::namespace")]
    namespace: String,
    /// Its identifier there.
    #[schemars(schema_with = "super::api::shapes::value")]
    value: String,
    /// All profiles that share an identifier with theirs, and so on.
    #[serde(default)]
    person: bool,
    /// Nothing is taken of them any more.
    #[serde(default)]
    suppress: bool,
}

/// Whose choice it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ChoiceOf")]
pub(super) struct Choosing {
    #[schemars(schema_with = "super::api::shapes::namespace")]
    namespace: String,
    /// Its identifier there.
    #[schemars(schema_with = "super::api::shapes::value")]
    value: String,
    /// All profiles that share an identifier with theirs, and so on.
    #[serde(default)]
    person: bool,
    /// Whether it is no, or yes again.
    #[serde(default = "yes")]
    opted_out: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReceiptsPage")]
pub(super) struct Page {
    /// How many at most, the newest first.
    #[serde(default)]
    limit: Limit,
}

fn yes() -> bool {
    true
}

/// `POST /api/v1/privacy/erase`: 200 where nothing is pending, else 202.
pub(super) async fn erase(
    services: web::Data<Services>,
    subject: web::Json<ToErase>,
) -> Result<HttpResponse, Problem> {
    let ToErase { namespace, value, person, suppress } = subject.into_inner();
    let named = Privacy::named(&namespace, &value)?;
    let asked = Asked { named, namespace, person, suppress, by: "operator".to_owned() };
    let receipt = ask(move |_| services.privacy.erase(&asked)).await?;
    Ok(answer(receipt))
}

/// `POST /api/v1/privacy/access`
pub(super) async fn access(
    services: web::Data<Services>,
    subject: web::Json<Subject>,
) -> Result<HttpResponse, Problem> {
    let Subject { namespace, value, person } = subject.into_inner();
    let named = Privacy::named(&namespace, &value)?;
    let held = ask(move |caller| services.privacy.access(&named, person, caller)).await?;
    Ok(HttpResponse::Ok().json(held))
}

/// `POST /api/v1/privacy/opt-out`: the choice, and what it finds.
pub(super) async fn opt_out(
    services: web::Data<Services>,
    subject: web::Json<Choosing>,
) -> Result<HttpResponse, Problem> {
    let Choosing { namespace, value, person, opted_out } = subject.into_inner();
    let named = Privacy::named(&namespace, &value)?;
    let chosen = ask(move |_| services.privacy.choose(&named, person, opted_out)).await?;
    Ok(HttpResponse::Ok().json(json!({
        "opted_out": opted_out,
        "profiles": chosen.profiles,
        "destinations": chosen.held,
    })))
}

/// `GET /api/v1/privacy/receipts`
pub(super) async fn receipts(
    services: web::Data<Services>,
    page: web::Query<Page>,
) -> Result<HttpResponse, Problem> {
    let Limit(limit) = page.limit;
    let receipts = ask(move |_| services.privacy.receipts(limit)).await?;
    let receipts: Vec<Value> = receipts.into_iter().map(|receipt| receipt.document).collect();
    Ok(HttpResponse::Ok().json(json!({ "receipts": receipts })))
}

/// `GET /api/v1/privacy/receipts/{id}`: as it stands now, signed now.
pub(super) async fn receipt(
    services: web::Data<Services>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let receipt = ask(move |_| services.privacy.receipt(&id)).await?;
    Ok(HttpResponse::Ok().json(receipt.document))
}

/// `GET /api/v1/privacy/key`: what receipts are verified with.
pub(super) async fn key(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let key = ask(move |_| services.privacy.receipt_key()).await?;
    Ok(HttpResponse::Ok().json(json!({ "algorithm": "Ed25519", "key": key })))
}

fn answer(receipt: Receipt) -> HttpResponse {
    let status = if receipt.is_done { StatusCode::OK } else { StatusCode::ACCEPTED };
    HttpResponse::build(status).json(receipt.document)
}

impl From<PrivacyError> for Problem {
    fn from(error: PrivacyError) -> Self {
        match error {
            PrivacyError::Wrong(why) => Self::meaningless(why),
            PrivacyError::Unknown(_) => Self::not_found(error.to_string()),
            PrivacyError::Ask(error) => error.into(),
            PrivacyError::GoesOn(_) => Self::unavailable(error.to_string()),
            PrivacyError::Store(error) if error.is_retryable() => Self::unavailable(chain(&error)),
            PrivacyError::Journal(
                ref error @ (JournalError::Full(_) | JournalError::NoRoom(_)),
            ) => Self::unavailable(error.to_string()),
            PrivacyError::Store(_) | PrivacyError::Journal(_) | PrivacyError::Quarantine(_) => {
                Self::internal(&error)
            }
        }
    }
}
