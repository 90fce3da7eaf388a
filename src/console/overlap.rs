//! Overlaps of audiences: the regions of a few, or what many share two by two.

use actix_web::HttpResponse;
use actix_web::web;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

use super::Services;
use super::asking::ask;
use super::audiences::Summary;
use super::audiences::newest;
use super::audiences::summary;
use super::problem::Problem;
use super::rules::millis;
use crate::model::Millis;
use crate::model::time::format_rfc3339;
use crate::segment::Audience;
use crate::segment::OverlapError;
use crate::segment::Pairs;
use crate::segment::Region;
use crate::segment::Regions;

/// The body: `audiences` alone, or `rows`, and `columns` where they are others.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OverlapAsked", example = serde_json::json!({ "audiences": ["lookers", "buyers"] }))]
#[schemars(extend("anyOf" = [
    {
        "required": ["audiences"],
        "properties": { "audiences": { "type": "array" }, "rows": { "type": "null" }, "columns": { "type": "null" } },
    },
    {
        "required": ["rows"],
        "properties": { "audiences": { "type": "null" }, "rows": { "type": "array" } },
    },
]))]
pub(super) struct Asked {
    #[serde(default)]
    #[schemars(length(min = 1, max = 6), extend("uniqueItems" = true))]
    audiences: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(length(min = 1, max = 100), extend("uniqueItems" = true))]
    rows: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(length(min = 1, max = 100), extend("uniqueItems" = true))]
    columns: Option<Vec<String>>,
}

/// What audiences share: `any` and `regions` of a few, or `rows`, `columns` and `members` of pairs.
#[derive(Serialize, JsonSchema)]
pub(super) struct Overlap {
    generation: u64,
    true_for: String,
    /// What one member is: `device` or `person`.
    level: &'static str,
    #[serde(flatten)]
    found: Found,
    /// How long the answer took, in milliseconds.
    took_ms: f64,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Found {
    Regions {
        audiences: Vec<Summary>,
        /// Who is in any of them.
        any: u64,
        regions: Vec<RegionFound>,
    },
    Pairs {
        rows: Vec<Summary>,
        columns: Vec<Summary>,
        /// A row of numbers for each of `rows`.
        members: Vec<Vec<u64>>,
    },
}

/// Who is in all of some audiences, and in no other.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Region")]
struct RegionFound {
    r#in: Vec<String>,
    members: u64,
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
            _ => Err(Problem::meaningless(
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
    let (begun, now) = (Instant::now(), services.clock.now());
    let answer = ask(move |caller| {
        let (level, found) = match wanted {
            Wanted::Regions(ids) => {
                let found = generation.regions(&ids, caller)?;
                (found.level, of_regions(&found, now))
            }
            Wanted::Pairs(rows, columns) => {
                let found = generation.pairs(&rows, &columns, caller)?;
                (found.level, of_pairs(found, now))
            }
        };
        Ok::<_, OverlapError>(Overlap {
            generation: generation.number,
            true_for: format_rfc3339(generation.true_for),
            level: level.as_str(),
            found,
            took_ms: millis(begun.elapsed()),
        })
    });
    Ok(HttpResponse::Ok().json(answer.await?))
}

fn of_regions(found: &Regions, now: Millis) -> Found {
    let id = |place: &usize| found.audiences[*place].segment.file.id.clone();
    let region = |region: &Region| RegionFound {
        r#in: region.inside.iter().map(id).collect(),
        members: region.members,
    };
    Found::Regions {
        audiences: summaries(&found.audiences, now),
        any: found.any,
        regions: found.regions.iter().map(region).collect(),
    }
}

fn of_pairs(found: Pairs, now: Millis) -> Found {
    let (rows, columns) = (summaries(&found.rows, now), summaries(&found.columns, now));
    Found::Pairs { rows, columns, members: found.members }
}

fn summaries(audiences: &[Arc<Audience>], now: Millis) -> Vec<Summary> {
    audiences.iter().map(|audience| summary(audience, now)).collect()
}

impl From<OverlapError> for Problem {
    fn from(error: OverlapError) -> Self {
        match error {
            OverlapError::Unknown(_) => Self::not_found(error.to_string()),
            OverlapError::Count { .. } | OverlapError::Twice(_) => {
                Self::meaningless(error.to_string())
            }
            OverlapError::Levels { .. } | OverlapError::NotYet { is_untrained: true, .. } => {
                Self::conflict(error.to_string())
            }
            OverlapError::NotYet { .. } => Self::unavailable(error.to_string()),
            OverlapError::Ask(error) => error.into(),
        }
    }
}
