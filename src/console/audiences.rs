//! Audiences: who is in the segments now.

use actix_web::HttpResponse;
use actix_web::web;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use tokio::sync::mpsc;

use super::Services;
use super::asking::ask;
use super::asking::namespace;
use super::problem::Problem;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::time::format_rfc3339;
use crate::plan::Members;
use crate::rules::Body;
use crate::segment::Audience;
use crate::segment::AudienceState;
use crate::segment::Generation;
use crate::segment::Problem as FileProblem;
use crate::segment::Segment;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Waits for a generation that is true for now.
    #[serde(default)]
    settle: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct As {
    /// The namespace of the identifiers.
    #[serde(rename = "as")]
    #[schemars(schema_with = "super::api::shapes::namespace")]
    namespace: String,
    /// An instant, in RFC 3339 or such as `-2h`; now where there is none.
    #[serde(default)]
    #[schemars(schema_with = "super::api::shapes::instant")]
    at: Option<String>,
}

/// The audiences of one generation.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Audiences")]
pub(super) struct Listed {
    /// The number of the generation.
    generation: u64,
    /// The instant that it is true for.
    true_for: String,
    audiences: Vec<Summary>,
    problems: Vec<Wrong>,
}

/// An audience as it stands in a list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Audience")]
pub(super) struct Summary {
    /// The id of its segment.
    id: String,
    name: String,
    /// What one member is: `device` or `person`.
    level: &'static str,
    /// How many members it has; none where it has no members yet.
    members: Option<u64>,
    /// How it is, such as `live` or `backfilling 62 %`.
    state: String,
    /// How much of its past is read, in percent, where that goes on.
    backfill: Option<u8>,
    /// The generation that its members are of.
    generation: u64,
    /// The instant that its members are true for.
    true_for: Option<String>,
    /// How long ago that is, in milliseconds.
    lag_ms: Option<i64>,
    /// The instant at which its members last became others, where that is known.
    changed_at: Option<String>,
}

/// What a segment's file says.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Segment")]
pub(super) struct Described {
    id: String,
    name: String,
    description: String,
    owner: String,
    /// What one member is: `device` or `person`.
    level: &'static str,
    rule: String,
    /// With fewer members nothing is added at destinations.
    min_size: Option<u64>,
    tags: Vec<String>,
    /// What it is in taxonomies, by their names.
    taxonomy: BTreeMap<String, String>,
    /// The names of the destinations that it is activated at.
    destinations: Vec<String>,
}

/// An audience, and what its segment's file says.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AudienceWithSegment")]
pub(super) struct Shown {
    #[serde(flatten)]
    summary: Summary,
    description: String,
    owner: String,
    rule: String,
    /// With fewer members nothing is added at destinations.
    min_size: Option<u64>,
    tags: Vec<String>,
    /// What it is in taxonomies, by their names.
    taxonomy: BTreeMap<String, String>,
    /// The names of the destinations that it is activated at.
    destinations: Vec<String>,
    /// What is wrong with the file now, where something is.
    problem: Option<String>,
}

/// What is wrong with a segment's file, or with the folder.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SegmentProblem")]
pub(super) struct Wrong {
    /// The segment; none where it is the folder.
    segment: Option<String>,
    /// All of it as text.
    rendered: String,
    /// Whether its last good version stays live.
    keeps_last_good: bool,
    /// Whether its audience stands still.
    frozen: bool,
}

/// `GET /api/v1/audiences`
pub(super) async fn list(
    services: web::Data<Services>,
    asked: web::Query<List>,
) -> Result<HttpResponse, Problem> {
    if asked.settle {
        let blocking = services.clone();
        ask(move |caller| blocking.segments.settle(caller)).await?;
    }
    let generation = newest(&services)?;
    let now = services.clock.now();
    Ok(HttpResponse::Ok().json(Listed {
        generation: generation.number,
        true_for: format_rfc3339(generation.true_for),
        audiences: generation.audiences.values().map(|a| summary(a, now)).collect(),
        problems: problems(&services),
    }))
}

/// The newest generation.
pub(super) fn newest(services: &Services) -> Result<Arc<Generation>, Problem> {
    if !services.segments.has_begun() {
        let begins = "this node has just begun to lead; try again in some seconds";
        return Err(Problem::unavailable(begins));
    }
    Ok(services.segments.generation())
}

/// `GET /api/v1/audiences/{id}`
pub(super) async fn show(
    services: web::Data<Services>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let generation = newest(&services)?;
    let audience = generation.audiences.get(&*id).ok_or_else(|| unknown(&id))?;
    let Described { description, owner, rule, min_size, tags, taxonomy, destinations, .. } =
        described(&audience.segment);
    let problem =
        services.segments.live().problems.iter().find(|p| p.id == *id).map(|p| p.rendered.clone());
    Ok(HttpResponse::Ok().json(Shown {
        summary: summary(audience, services.clock.now()),
        description,
        owner,
        rule,
        min_size,
        tags,
        taxonomy,
        destinations,
        problem,
    }))
}

/// `GET /api/v1/audiences/{id}/members?as=NAMESPACE[&at=TIME]`
pub(super) async fn members(
    services: web::Data<Services>,
    id: web::Path<String>,
    asked: web::Query<As>,
) -> Result<HttpResponse, Problem> {
    let namespace = namespace(&asked.namespace)?;
    if let Some(at) = asked.into_inner().at {
        let blocking = services.clone();
        let found = ask(move |caller| blocking.segments.members_at(&id, &at, caller)).await?;
        return Ok(members_answer(&services, found.members, namespace, None, found.at));
    }
    let generation = newest(&services)?;
    let audience = generation.audiences.get(&*id).ok_or_else(|| unknown(&id))?;
    let Some(members) = audience.members.clone() else {
        let told = format!("{} is {}", *id, audience.state);
        return Err(match audience.is_untrained() {
            true => Problem::conflict(told),
            false => Problem::unavailable(told),
        });
    };
    let true_for = audience.true_for;
    Ok(members_answer(&services, members, namespace, Some(audience.generation), true_for))
}

/// Streams the identifiers of members as NDJSON, each once, in no order.
pub(super) fn members_answer(
    services: &web::Data<Services>,
    members: Arc<Members>,
    namespace: Namespace,
    generation: Option<u64>,
    true_for: Millis,
) -> HttpResponse {
    let (send, receive) = lines();
    send_members(services, members, namespace, send);
    let mut response = HttpResponse::Ok();
    response
        .content_type("application/x-ndjson")
        .insert_header(("Throng-True-For", format_rfc3339(true_for)));
    if let Some(generation) = generation {
        response.insert_header(("Throng-Generation", generation.to_string()));
    }
    response.streaming(receive)
}

/// Sends the identifiers of members, each once, in no order, from a thread of its own.
pub(super) fn send_members(
    services: &web::Data<Services>,
    members: Arc<Members>,
    namespace: Namespace,
    send: mpsc::Sender<Chunk>,
) {
    let segments = services.segments.clone();
    tokio::task::spawn_blocking(move || {
        let mut lines = String::new();
        let mut gone = false;
        let told = segments.members_of(&members, &namespace, &mut |value: &str| {
            crate::model::value::write_json_string(value, &mut lines);
            lines.push('\n');
            if lines.len() > 1 << 16 {
                gone = send.blocking_send(Ok(Bytes::from(std::mem::take(&mut lines)))).is_err();
            }
            !gone
        });
        if let Err(error) = told {
            // The body ends without its last chunk, so that nobody takes it for all.
            tracing::warn!(%error, "members could not be read to the end");
            let _ = send.blocking_send(Err(Broken));
            return;
        }
        if !gone && !lines.is_empty() {
            let _ = send.blocking_send(Ok(Bytes::from(lines)));
        }
    });
}

/// A body that is sent line by line; its bound is what holds the sender back where the caller is slow.
pub(super) fn lines() -> (mpsc::Sender<Chunk>, Lines) {
    let (send, receive) = mpsc::channel(8);
    (send, Lines(receive))
}

/// Some lines, or that there are more which cannot be had.
pub(super) type Chunk = Result<Bytes, Broken>;

/// What is sent cannot be sent to its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be read to its end")]
pub(super) struct Broken;

/// What is sent, as a body.
pub(super) struct Lines(mpsc::Receiver<Chunk>);

impl futures_core::Stream for Lines {
    type Item = Chunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("there is no segment {id}"))
}

/// What is wrong with a file.
pub(super) fn wrong(problem: &FileProblem) -> Wrong {
    Wrong {
        segment: Some(problem.id.clone()),
        rendered: problem.rendered.clone(),
        keeps_last_good: problem.keeps_last_good,
        frozen: problem.frozen,
    }
}

pub(super) fn problems(services: &Services) -> Vec<Wrong> {
    let live = services.segments.live();
    let folder = live.folder.iter().map(|trouble| Wrong {
        segment: None,
        rendered: format!("error: {trouble}"),
        keeps_last_good: true,
        frozen: false,
    });
    folder.chain(live.problems.iter().map(wrong)).collect()
}

/// What a segment's file says.
pub(super) fn described(segment: &Segment) -> Described {
    let file = &segment.file;
    let rule = match &file.body {
        Body::Rule(rule) => crate::rules::print(rule),
        Body::Lookalike(lookalike) => format!("look-alike of {}", lookalike.seed.text),
    };
    Described {
        id: file.id.clone(),
        name: file.name.clone(),
        description: file.description.clone(),
        owner: file.owner.clone(),
        level: file.level.as_str(),
        rule,
        min_size: file.min_size,
        tags: file.tags.clone(),
        taxonomy: file.taxonomy.clone(),
        destinations: file.activate.iter().map(|a| a.destination.text.to_string()).collect(),
    }
}

/// An audience as it stands in the list.
pub(super) fn summary(audience: &Audience, now: Millis) -> Summary {
    let true_for = audience.members.as_ref().map(|_| audience.true_for);
    Summary {
        id: audience.segment.file.id.clone(),
        name: audience.segment.file.name.clone(),
        level: audience.segment.file.level.as_str(),
        members: audience.count,
        state: audience.state.to_string(),
        backfill: match audience.state {
            AudienceState::Backfilling { percent } => Some(percent),
            AudienceState::Live | AudienceState::Training | AudienceState::Failing { .. } => None,
        },
        generation: audience.generation,
        true_for: true_for.map(format_rfc3339),
        lag_ms: true_for.map(|true_for| now.saturating_sub(true_for).max(0)),
        changed_at: audience.changed.map(format_rfc3339),
    }
}
