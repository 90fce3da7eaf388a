//! Partners that cookies are synced with: what became of calls, and how many of their ids count.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use actix_web::HttpResponse;
use actix_web::web;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::asking::ask;
use super::problem::Problem;
use crate::segment::AskError;
use crate::segment::Group;

/// `GET /api/v1/partners`: what became of calls since this process started, and of how many profiles an id counts.
pub(super) async fn list(services: web::Data<Services>) -> Result<HttpResponse, Problem> {
    let asked = services.clone();
    let held = ask(move |_| held(&asked)).await?;
    let partners = services.config.partners.iter().map(|partner| {
        let calls = services.metrics.syncs_of(&partner.name);
        let of = |direction: &str, result: &str| {
            calls.get(&(direction.to_owned(), result.to_owned())).copied().unwrap_or(0)
        };
        let errors = calls.iter().filter(|((direction, result), _)| {
            direction == "in" && (result == "error" || result.starts_with("error_"))
        });
        let [current, expired] = held.get(partner.namespace()).copied().unwrap_or_default();
        json!({
            "name": partner.name,
            "kind": partner.kind,
            "namespace": partner.namespace(),
            "every": partner.every,
            "ttl": partner.lifetime(),
            "asked": of("out", "sent"),
            "matched": of("in", "matched"),
            "no_match": of("in", "no_id"),
            "errors": errors.map(|(_, count)| count).sum::<u64>(),
            "no_cookie": of("in", "no_cookie") + of("out", "no_cookie"),
            "refused": of("in", "refused") + of("out", "refused"),
            "current": current,
            "expired": expired,
        })
    });
    Ok(HttpResponse::Ok().json(json!({ "partners": partners.collect::<Value>() })))
}

/// Of how many profiles an id of a namespace counts, and of how many none does any more.
fn held(services: &Services) -> Result<BTreeMap<String, [u64; 2]>, AskError> {
    let shards = services.segments.shards();
    let count = |group: &Group| -> Result<u64, AskError> {
        Ok(shards.group(group)?.found.iter().map(|profiles| profiles.len()).sum())
    };
    let mut held = BTreeMap::new();
    for partner in &services.config.partners {
        if let Entry::Vacant(place) = held.entry(partner.namespace().to_owned()) {
            let names = vec![place.key().clone()];
            let all = count(&Group::Holders(names.clone()))?;
            let current = count(&Group::Matching(names))?;
            place.insert([current, all.saturating_sub(current)]);
        }
    }
    Ok(held)
}
