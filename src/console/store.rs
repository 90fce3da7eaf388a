//! What the store takes.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Serialize;

use super::Services;
use super::problem::Problem;
use crate::store::sizes::Size;

/// What the store takes.
#[derive(Serialize, JsonSchema)]
pub(super) struct Sizes {
    /// All of it.
    bytes: u64,
    /// By what it is for.
    kinds: Vec<Size>,
}

/// `GET /api/v1/store/size`
pub(super) async fn size(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let measured = web::block(move || services.sizes.measure());
    let kinds = measured.await.map_err(|error| Problem::internal(&error))?;
    let kinds = kinds.map_err(|error| Problem::unavailable(crate::store::chain(&error)))?;
    let bytes: u64 = kinds.iter().map(|size| size.bytes).sum();
    Ok(HttpResponse::Ok().json(Sizes { bytes, kinds }))
}
