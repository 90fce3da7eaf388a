//! Look-alikes: what they have learnt, and another training.

use actix_web::HttpResponse;
use actix_web::web;

use super::Services;
use super::asking::ask;
use super::audiences::newest;
use super::problem::Problem;

/// `GET /api/v1/audiences/{id}/lookalike`
pub(super) async fn show(
    services: web::Data<Services>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    newest(&services)?;
    Ok(HttpResponse::Ok().json(services.segments.lookalike(&id)?))
}

/// `POST /api/v1/audiences/{id}/lookalike`: trains it now, and answers when its members are published.
pub(super) async fn train(
    services: web::Data<Services>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    newest(&services)?;
    let told = ask(move |caller| services.segments.train(&id, caller)).await?;
    Ok(HttpResponse::Ok().json(told))
}
