//! Apache Unomi's context requests and events: what a page does, and in the same call what its visitor is in.
//!
//! A visitor is known by our cookie, which is made with its first event. A page is told a `profileId` that stands for it
//! and is none of our identifiers, and the audiences that `/v1/audiences` would tell it.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web;
use actix_web::web::Payload;
use serde_json::json;
use std::cell::RefCell;
use std::time::Instant;

use super::draft::Draft;
use super::draft::Fields;
use super::draft::Object;
use super::draft::consent;
use super::draft::take_object;
use crate::collect::answer;
use crate::collect::gather;
use crate::collect::gather::MAX_EVENTS;
use crate::collect::gather::Read;
use crate::collect::gather::Taken;
use crate::collect::gather::Unread;
use crate::collect::lookup;
use crate::collect::worker::Endpoint;
use crate::consent::Signals;
use crate::ingest::canonical::Code;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::Sent;
use crate::ingest::canonical::sent::Unreadable;
use crate::ingest::canonical::sent::object;
use crate::ingest::canonical::split;
use crate::ingest::canonical::split::NoEvents;
use crate::model::Value;

const MAX_MEMBERS: usize = 64;
/// What Unomi says of a profile that events have changed.
const PROFILE_UPDATED: u8 = 4;

/// The paths of Unomi; those under `/cxs` are the same.
pub(super) fn configure(app: &mut web::ServiceConfig) {
    for folder in ["", "/cxs"] {
        let context_path = format!("{folder}/context.json");
        app.service(super::resource(&context_path).route(web::post().to(context)));
        let collector = format!("{folder}/eventcollector");
        app.service(super::resource(&collector).route(web::post().to(collect)));
    }
}

async fn collect(request: HttpRequest, payload: Payload) -> HttpResponse {
    let read = |body: &[u8]| read(body).map(|asked| asked.events);
    let updated = |taken: &Taken| {
        let updated = if taken.accepted > 0 { PROFILE_UPDATED } else { 0 };
        answer::json(StatusCode::OK, &json!({ "updated": updated }))
    };
    super::answer(&request, payload, Endpoint::Unomi, read, updated).await
}

async fn context(request: HttpRequest, payload: Payload) -> HttpResponse {
    let started = Instant::now();
    let said = RefCell::new((String::new(), Value::Null, None));
    let read = |body: &[u8]| {
        let asked = read(body)?;
        said.replace((asked.scope, asked.session, asked.consent));
        Ok(asked.events)
    };
    let taken = super::take(&request, payload, Endpoint::Unomi, read).await;
    let (scope, session, consent) = said.into_inner();
    let consent =
        Sent::of(consent.map(|consent| ("consent".into(), consent)).into_iter().collect());
    let mut segments = Vec::new();
    let says_no = taken
        .as_ref()
        .is_ok_and(|taken| taken.rejected.iter().any(|(_, why)| why.code == Code::Consent));
    // Whoever says no by one of the events is told nothing in the answer to it.
    let is_asked = taken.is_ok() && !says_no && !scope.is_empty();
    if let (true, Ok(mut said)) = (is_asked, consent.consent()) {
        if said == Signals::default() {
            said = gather::signals(request.query_string(), Endpoint::Unomi);
        }
        segments = lookup::told_to_page(&request, &scope, said).await;
    }
    let context = |taken: &Taken| {
        let worker = crate::collect::worker(&request);
        let mut session_id = String::new();
        session.write_json(&mut session_id);
        let known = taken.cookie.clone().or_else(|| worker.known(&request, &scope));
        let known = known.filter(|_| !says_no);
        let answer = json!({
            "profileId": known.map(|known| worker.cookies.alias(&known)),
            "sessionId": serde_json::from_str::<serde_json::Value>(&session_id).ok(),
            "profileSegments": segments,
            "profileProperties": {},
            "profileScores": {},
            "sessionProperties": {},
            "filteringResults": {},
            "personalizations": {},
            "personalizationResults": {},
            "trackedConditions": [],
            "consents": {},
            "anonymousBrowsing": false,
            "processedEvents": taken.accepted,
        });
        answer::json(StatusCode::OK, &answer)
    };
    super::finish(&request, Endpoint::Unomi, started, taken, context)
}

/// What a request brings and asks.
pub(super) struct Asked {
    pub(super) events: Read,
    /// The site that it is of as a whole.
    scope: String,
    session: Value,
    /// What its page says of consent.
    consent: Option<Value>,
}

/// Reads a request.
pub(super) fn read(body: &[u8]) -> Result<Asked, Unread> {
    let members = split::members(body, MAX_MEMBERS).map_err(|_| NoEvents::NotJson)?;
    let member = |name: &[u8]| {
        let (_, value) = members.iter().rev().find(|(key, _)| *key == name)?;
        Some(*value)
    };
    let source = member(b"source").and_then(|json| object(json).ok()).unwrap_or_default();
    let session = member(b"sessionId").and_then(|json| crate::model::value::parse_json(json).ok());
    let parts = match member(b"events") {
        Some(events) if events.starts_with(b"[") => split::events(events, MAX_EVENTS)?,
        Some(b"null") | None => Vec::new(),
        Some(_) => return Err(NoEvents::NotJson.into()),
    };
    gather::shared(member(b"source").map_or(0, <[u8]>::len), parts.len())?;
    let events =
        gather::each(&parts, |json| map(object(json)?, &source).map_err(Unreadable::Rejected))?;
    let of_first =
        |read: &Result<Sent, Rejection>| Some(read.as_ref().ok()?.site().ok()?.to_owned());
    let scope = Object(&source).text("scope").map(str::to_owned);
    let scope = scope.or_else(|| events.first().and_then(of_first)).unwrap_or_default();
    let session = session.filter(|session| matches!(session, Value::String(_)));
    let consent = consent(Object(&source).object("properties").object("consent"));
    Ok(Asked { events, scope, session: session.unwrap_or(Value::Null), consent })
}

/// Writes an event, of a page that the request may state for all, as a canonical one.
fn map(mut event: Fields, shared: &Fields) -> Result<Sent, Rejection> {
    let properties = take_object(&mut event, "properties")?;
    let flattened = take_object(&mut event, "flattenedProperties")?;
    let (event, shared) = (Object(&event), Object(shared));
    let (target, source) = (event.object("target"), event.object("source"));
    let is_of_page = target.text("itemType").is_none_or(|kind| kind == "page");
    let name = match event.text("eventType").unwrap_or_default() {
        "view" if is_of_page => "page_view",
        name => name,
    };
    let mut draft = Draft::new(event.text("scope").or(shared.text("scope")).unwrap_or_default());
    draft.set("event", name);
    draft.set_value("time", event.value("timeStamp").cloned());
    draft.set("message_id", event.text("itemId"));

    let pages = [target, source, shared].map(|item| item.object("properties").object("pageInfo"));
    let said = |item: Object<'_>| consent(item.object("properties").object("consent"));
    let own = said(target).or_else(|| said(source));
    draft.consent([own, said(shared)].into_iter().flatten());
    let page = pages.into_iter().find(|page| !page.0.is_empty()).unwrap_or(Object(&[]));
    draft.page("url", page.text("destinationURL"));
    draft.page("referrer", page.text("referringURL"));
    draft.page("title", page.text("pageName"));
    draft.set("locale", page.text("language"));

    draft.props(properties);
    // The fields of a form stand in an object of their own.
    draft.props(flattened);
    if is_of_page {
        for part in ["categories", "tags"] {
            draft.prop_value(part, page.value(part).cloned());
        }
    } else {
        draft.props(target.object("properties").0.to_vec());
        draft.prop("item_id", target.text("itemId"));
        draft.prop("item_type", target.text("itemType"));
    }
    Ok(draft.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::protocols::golden::assert_golden;
    use crate::collect::protocols::golden::recorded;
    use crate::collect::protocols::golden::text;

    #[test]
    fn what_pages_send_becomes_canonical_events() {
        for name in ["apache-unomi-tracker-context", "apache-unomi-tracker-eventcollector"] {
            let asked = read(recorded(&format!("{name}.json")).as_bytes()).unwrap();
            assert_eq!((&*asked.scope, asked.session), ("shop", Value::string("sess-123")));
            assert_golden(&asked.events, &format!("{name}.ndjson"));
        }
    }

    #[test]
    fn a_page_says_what_its_visitor_chose() {
        let of = |consent: &str| {
            let body = format!(
                r#"{{"source":{{"scope":"s","itemType":"page","properties":{{"consent":{consent}}}}},
                "events":[{{"eventType":"view","itemId":"m-1"}}]}}"#
            );
            let asked = read(body.as_bytes()).unwrap();
            (asked.consent.is_some(), text(&asked.events[0]))
        };
        let event = |consent: &str| {
            format!(r#"{{"site":"s","event":"page_view","message_id":"m-1"{consent}}}"#)
        };
        assert_eq!(
            of(r#"{"gdpr":1,"tcf":"CP","types":[]}"#),
            (true, event(r#","consent":{"gdpr":1,"tcf":"CP"}"#))
        );
        assert_eq!(of("[]"), (false, event("")));
    }

    #[test]
    fn a_form_keeps_no_address_and_a_request_may_ask_and_bring_nothing() {
        let body = r#"{"source":{"scope":"s"},"events":[{"eventType":"form","itemId":"m-1","timeStamp":7,
            "target":{"itemType":"form","itemId":"f-1"},"properties":{"n":1},
            "flattenedProperties":{"fields":{"email":"a@b.example","plan":"pro"}}},7]}"#;
        let asked = read(body.as_bytes()).unwrap();
        let texts: Vec<_> = asked.events.iter().map(text).collect();
        assert_eq!(
            texts,
            [
                r#"{"site":"s","event":"form","time":7,"message_id":"m-1","props":{"n":1,"fields":{"plan":"pro"},"item_id":"f-1","item_type":"form"}}"#,
                "site: expected a JSON object"
            ]
        );
        for body in [r#"{"sessionId":7}"#, r#"{"events":null,"source":7}"#] {
            let asked = read(body.as_bytes()).unwrap();
            assert_eq!((asked.events.len(), asked.session), (0, Value::Null));
        }
        let many = vec![r#"{"eventType":"view"}"#; 500].join(",");
        let page = "x".repeat(2_200);
        let body = format!(r#"{{"source":{{"scope":"s","u":"{page}"}},"events":[{many}]}}"#);
        let why = read(body.as_bytes()).err().unwrap().why;
        assert_eq!(why, NoEvents::TooMany(500), "what all of them share is of each");
        for body in ["", "[]", r#"{"events":{}}"#, r#"{"events":[{]}"#] {
            assert_eq!(read(body.as_bytes()).err().unwrap().why, NoEvents::NotJson, "{body}");
        }
    }
}
