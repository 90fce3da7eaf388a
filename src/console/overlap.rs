//! Overlaps of audiences: the regions of a few, or what many share two by two.

use actix_web::HttpResponse;
use actix_web::web;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

use super::Services;
use super::asking::ask;
use super::audiences::newest;
use super::audiences::summary;
use super::problem::Problem;
use super::rules::millis;
use crate::model::time::format_rfc3339;
use crate::rules::Level;
use crate::segment::Audience;
use crate::segment::Generation;
use crate::segment::OverlapError;
use crate::segment::Pairs;
use crate::segment::Region;
use crate::segment::Regions;

/// The body: `audiences` alone, or `rows`, and `columns` where they are others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(default)]
    audiences: Option<Vec<String>>,
    #[serde(default)]
    rows: Option<Vec<String>>,
    #[serde(default)]
    columns: Option<Vec<String>>,
}

/// What is asked.
enum Wanted {
    Regions(Vec<String>),
    Pairs(Vec<String>, Vec<String>),
}

impl Asked {
    fn wanted(self) -> Result<Wanted, Problem> {
        match (self.audiences, self.rows, self.columns) {
            (Some(audiences), None, None) => Ok(Wanted::Regions(audiences)),
            (None, Some(rows), columns) => {
                let columns = columns.unwrap_or_else(|| rows.clone());
                Ok(Wanted::Pairs(rows, columns))
            }
            _ => Err(Problem::bad_request(
                "expected `audiences` for their regions, or `rows` and perhaps `columns` for a table of pairs",
            )),
        }
    }
}

/// `POST /api/v1/overlap`: all of one generation.
pub(super) async fn overlap(
    services: web::Data<Services>,
    asked: web::Json<Asked>,
) -> Result<HttpResponse, Problem> {
    let wanted = asked.into_inner().wanted()?;
    let generation = newest(&services)?;
    let begun = Instant::now();
    let mut answer = ask(move |caller| match wanted {
        Wanted::Regions(ids) => {
            let found = generation.regions(&ids, caller)?;
            let mut answer = head(&generation, found.level);
            add_regions(&mut answer, &found);
            Ok::<Value, OverlapError>(answer)
        }
        Wanted::Pairs(rows, columns) => {
            let found = generation.pairs(&rows, &columns, caller)?;
            let mut answer = head(&generation, found.level);
            add_pairs(&mut answer, &found);
            Ok(answer)
        }
    })
    .await?;
    answer["took_ms"] = json!(millis(begun.elapsed()));
    Ok(HttpResponse::Ok().json(answer))
}

fn head(generation: &Generation, level: Level) -> Value {
    json!({
        "generation": generation.number,
        "true_for": format_rfc3339(generation.true_for),
        "level": level.as_str(),
    })
}

fn add_regions(answer: &mut Value, found: &Regions) {
    let id = |place: &usize| found.audiences[*place].segment.file.id.as_str();
    let region = |region: &Region| {
        let inside: Vec<&str> = region.inside.iter().map(id).collect();
        json!({ "in": inside, "members": region.members })
    };
    answer["audiences"] = summaries(&found.audiences);
    answer["any"] = json!(found.any);
    answer["regions"] = found.regions.iter().map(region).collect();
}

fn add_pairs(answer: &mut Value, found: &Pairs) {
    answer["rows"] = summaries(&found.rows);
    answer["columns"] = summaries(&found.columns);
    answer["members"] = json!(found.members);
}

fn summaries(audiences: &[Arc<Audience>]) -> Value {
    audiences.iter().map(|audience| summary(audience)).collect()
}

impl From<OverlapError> for Problem {
    fn from(error: OverlapError) -> Self {
        match error {
            OverlapError::Unknown(_) => Self::not_found(error.to_string()),
            OverlapError::Count { .. } | OverlapError::Twice(_) | OverlapError::Levels { .. } => {
                Self::bad_request(error.to_string())
            }
            OverlapError::NotYet { .. } => Self::unavailable(error.to_string()),
            OverlapError::Ask(error) => error.into(),
        }
    }
}
