//! The history of an audience: its size, and how many entered and left it, by hour and by day.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::Services;
use super::asking::ask;
use super::audiences::newest;
use super::problem::Problem;
use crate::model::time::format_rfc3339;
use crate::segment::Per;
use crate::segment::Period;
use crate::segment::Row;
use crate::segment::Tally;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// What one row is of.
    #[serde(default)]
    per: Unit,
    /// An instant, in RFC 3339 or such as `-2h`; all that is kept where there is none.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::instant")]
    from: Option<String>,
    /// As `from`.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::instant")]
    to: Option<String>,
}

/// How an audience grew.
#[derive(Serialize, JsonSchema)]
pub(super) struct History {
    /// The segment.
    id: String,
    per: &'static str,
    /// From when on there are rows.
    kept_from: String,
    generation: u64,
    true_for: String,
    rows: Vec<HistoryRow>,
}

/// An hour or a day.
#[derive(Serialize, JsonSchema)]
struct HistoryRow {
    /// When it begins.
    time: String,
    /// Of how many hours something is known.
    hours: u32,
    /// Members at its end.
    members: u64,
    /// How many came.
    adds: u64,
    /// How many went.
    removes: u64,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[schemars(rename = "HistoryUnit", inline)]
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
    Ok(HttpResponse::Ok().json(History {
        id: id.into_inner(),
        per: name,
        kept_from: format_rfc3339(told.kept_from),
        generation: told.generation,
        true_for: format_rfc3339(told.true_for),
        rows: told.rows.iter().map(row).collect(),
    }))
}

fn row(row: &Row) -> HistoryRow {
    let Tally { members, adds, removes } = row.tally;
    let time = format_rfc3339(row.time);
    HistoryRow { time, hours: row.hours, members, adds, removes }
}
