//! The history of an audience: its size, and how many entered and left it, by hour and by day.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Services;
use super::asking::ask;
use super::audiences::newest;
use super::problem::Problem;
use crate::model::time::format_rfc3339;
use crate::segment::Per;
use crate::segment::Period;
use crate::segment::Row;
use crate::segment::Tally;

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    per: Unit,
    /// All that is kept where there is none.
    from: Option<String>,
    to: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Hour,
    #[default]
    Day,
}

/// `GET /api/v1/audiences/{id}/history[?per=hour|day&from=TIME&to=TIME]`
pub(super) async fn history(
    services: web::Data<Services>,
    id: web::Path<String>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, Problem> {
    newest(&services)?;
    let Asked { per, from, to } = asked.into_inner();
    let (per, name) = match per {
        Unit::Hour => (Per::Hour, "hour"),
        Unit::Day => (Per::Day, "day"),
    };
    let period = Period { per, from, to };
    let told = ask({
        let (services, id) = (services.clone(), id.clone());
        move |_| services.segments.history(&id, &period)
    });
    let told = told.await?;
    let rows: Vec<Value> = told.rows.iter().map(row).collect();
    Ok(HttpResponse::Ok().json(json!({
        "id": *id,
        "per": name,
        "kept_from": format_rfc3339(told.kept_from),
        "generation": told.generation,
        "true_for": format_rfc3339(told.true_for),
        "rows": rows,
    })))
}

fn row(row: &Row) -> Value {
    let Tally { members, adds, removes } = row.tally;
    json!({
        "time": format_rfc3339(row.time),
        "hours": row.hours,
        "members": members,
        "adds": adds,
        "removes": removes,
    })
}
