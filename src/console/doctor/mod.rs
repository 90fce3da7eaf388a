//! A checkup of the node that is asked, and of what it stands on: what was found, and what to do.
//!
//! It is asked when something is wrong, so it answers whatever that is: what has to wait for a store that does not
//! answer is not looked at, and told as such.

mod own;
mod shared;

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Serialize;

use super::Services;
use super::problem::Problem;
use crate::store::health::Finding;
use crate::store::health::SERVERS;
use crate::store::health::State;

/// What a checkup found.
#[derive(Serialize, JsonSchema)]
pub(super) struct Checkup {
    /// Whether nobody has to do anything.
    well: bool,
    checks: Vec<Finding>,
}

/// `GET /api/v1/doctor`
pub(super) async fn look(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let found = web::block(move || found(&services));
    let found = found.await.map_err(|error| Problem::internal(&error))?;
    let well = found.iter().all(|finding| finding.state != State::Ill);
    Ok(HttpResponse::Ok().json(Checkup { well, checks: found }))
}

/// Looks at everything. Blocks.
fn found(services: &Services) -> Vec<Finding> {
    let servers = services.checkup.as_ref().map_or_else(Vec::new, |checkup| checkup.check());
    let is_well = |finding: &Finding| finding.state != State::Ill;
    let some_answers = servers.iter().any(|finding| finding.check == SERVERS && is_well(finding));
    let all_answer = servers.iter().all(|finding| finding.check != SERVERS || is_well(finding));
    let mut found = own::found(services, all_answer);
    found.extend(servers);
    if let Some(peering) = services.peering.as_ref().filter(|_| some_answers) {
        found.extend(shared::found(services, peering));
    }
    found
}
