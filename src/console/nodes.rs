//! The nodes that share the store: who is there and what each holds back, and striking one off.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::Peering;
use super::Services;
use super::problem::Problem;
use crate::cluster::horizon::Horizon;
use crate::cluster::horizon::SILENT;
use crate::model::Millis;
use crate::model::time::format_rfc3339;
use crate::net::Clock;
use crate::store::StoreError;
use crate::store::chain;
use crate::store::nodes::Heard;
use crate::store::nodes::Listed;
use crate::store::nodes::Role;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retire {
    /// Also where the node is heard of now.
    #[serde(default)]
    force: bool,
}

/// The nodes that share the store.
#[derive(Serialize, JsonSchema)]
pub(super) struct Nodes {
    nodes: Vec<NodeRow>,
    /// The node that leads.
    leader: Option<String>,
    /// T: every event acknowledged before it is counted.
    t: Option<String>,
    /// How old T is, in milliseconds.
    t_age_ms: Option<Millis>,
    /// By how much the clocks of the nodes differ, in milliseconds.
    spread_ms: Millis,
}

/// A node.
#[derive(Serialize, JsonSchema)]
struct NodeRow {
    id: String,
    roles: Vec<Role>,
    /// Of its private listener.
    address: Option<String>,
    /// The lanes that it has in its hands.
    lanes: Vec<u16>,
    leads: bool,
    /// How long ago it was heard of, in milliseconds.
    heard_ms: Millis,
    /// By how much its clock is ahead of the store's, in milliseconds.
    offset_ms: Millis,
    /// Up to when all that it took is shipped.
    mark: Option<String>,
    mark_age_ms: Option<Millis>,
    version: String,
    /// `well` or `silent`.
    state: &'static str,
}

/// A node that was struck off.
#[derive(Serialize, JsonSchema)]
pub(super) struct Retired {
    retired: String,
    mark: Option<String>,
    /// Whether it took events, or may have.
    takes_events: bool,
}

/// The nodes as the store has them now.
pub(super) struct Seen {
    pub(super) listed: Listed,
    /// Who leads.
    pub(super) leader: Option<String>,
    pub(super) horizon: Horizon,
    /// How old T is; `None` where nobody holds anything back.
    pub(super) t_age: Option<Millis>,
}

impl Seen {
    /// Asks the store. Blocks, for some seconds at most.
    pub(super) fn now(peering: &Peering, clock: &dyn Clock) -> Result<Self, StoreError> {
        let leader = peering.nodes.leader()?.map(|(id, _)| id);
        let listed = peering.nodes.list()?;
        let horizon = Horizon::of(&listed);
        let t_age = horizon.t.map(|t| clock.now().saturating_sub(t));
        Ok(Self { listed, leader, horizon, t_age })
    }

    /// How long ago a node was heard of.
    pub(super) fn since(&self, heard: &Heard) -> Millis {
        self.listed.store_time.saturating_sub(heard.heard).max(0)
    }

    /// How old a node's mark is by its own clock: so far it holds T back.
    fn mark_age(&self, heard: &Heard) -> Option<Millis> {
        let now = self.listed.store_time.saturating_add(heard.offset);
        heard.node.mark.map(|mark| now.saturating_sub(mark).max(0))
    }

    fn row(&self, heard: &Heard) -> NodeRow {
        let node = &heard.node;
        let since = self.since(heard);
        NodeRow {
            id: node.id.clone(),
            roles: node.roles.into(),
            address: node.address.clone(),
            lanes: node.lanes.clone(),
            leads: self.leader.as_ref() == Some(&node.id),
            heard_ms: since,
            offset_ms: heard.offset,
            mark: node.mark.map(format_rfc3339),
            mark_age_ms: self.mark_age(heard),
            version: node.version.clone(),
            state: if since < SILENT { "well" } else { "silent" },
        }
    }
}

/// `GET /api/v1/nodes`
pub(super) async fn list(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let seen =
        web::block(move || Seen::now(peering(&services)?, &*services.clock).map_err(problem));
    let seen = seen.await.map_err(|error| Problem::internal(&error))??;
    Ok(HttpResponse::Ok().json(Nodes {
        nodes: seen.listed.nodes.iter().map(|heard| seen.row(heard)).collect(),
        t: seen.horizon.t.map(format_rfc3339),
        t_age_ms: seen.t_age,
        spread_ms: seen.horizon.spread,
        leader: seen.leader,
    }))
}

/// `DELETE /api/v1/nodes/{id}?force=…`: what the node has not shipped is not waited for any longer.
pub(super) async fn retire(
    services: web::Data<Services>,
    id: web::Path<String>,
    asked: web::Query<Retire>,
) -> Result<HttpResponse, Problem> {
    let retired = web::block(move || strike_off(peering(&services)?, &id, asked.force));
    let retired = retired.await.map_err(|error| Problem::internal(&error))??;
    Ok(HttpResponse::Ok().json(retired))
}

fn strike_off(peering: &Peering, id: &str, force: bool) -> Result<Retired, Problem> {
    let listed = peering.nodes.list().map_err(problem)?;
    // One of another version may be there and not be read.
    let known = listed.nodes.iter().find(|heard| heard.node.id == id);
    let since = known.map(|heard| listed.store_time.saturating_sub(heard.heard).max(0));
    if let Some(since) = since.filter(|since| *since < SILENT && !force) {
        return Err(Problem::conflict(format!(
            "{id} was heard of {since} ms ago, and would be back with its next beat: stop it first, which strikes it \
             off where nothing is left to ship; once it is silent for {} s it can be retired, or at once with --force",
            SILENT / 1_000
        )));
    }
    if !peering.nodes.retire(id).map_err(problem)? {
        return Err(Problem::not_found(format!(
            "there is no node {id}; `throng node list` has those there are"
        )));
    }
    let mark = known.and_then(|heard| heard.node.mark);
    tracing::warn!(node = id, "retired {id}: what it has not shipped is not waited for any longer");
    Ok(Retired {
        retired: id.to_owned(),
        mark: mark.map(format_rfc3339),
        takes_events: known.is_none_or(|_| mark.is_some()),
    })
}

fn peering(services: &Services) -> Result<&Peering, Problem> {
    services.peering.as_ref().ok_or_else(|| {
        Problem::not_found(
            "this server has its store for itself, so there are no other nodes: several share one on Redis \
             (store.backend = \"redis\")",
        )
    })
}

fn problem(error: StoreError) -> Problem {
    if error.is_retryable() {
        Problem::unavailable(chain(&error))
    } else {
        Problem::internal(&error)
    }
}
