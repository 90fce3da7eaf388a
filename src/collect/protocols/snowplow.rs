//! Snowplow's tracker protocol: a list of events in a body, or one in a query, every value a text.
//!
//! Page views become `page_view`, page pings `page_ping`; a structured event has its action for a name, and a
//! self-describing one that of its schema. `network_userid` is our cookie, and `duid` an `anonymous_id`.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web;
use actix_web::web::Payload;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use std::collections::BTreeMap;

use super::draft::Draft;
use super::draft::Fields;
use super::draft::Object;
use super::draft::consent;
use super::draft::from_query;
use super::draft::number;
use crate::collect::gather;
use crate::collect::gather::MAX_EVENTS;
use crate::collect::gather::Read;
use crate::collect::gather::Taken;
use crate::collect::gather::Unread;
use crate::collect::worker::Endpoint;
use crate::ingest::canonical::Code;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::Sent;
use crate::ingest::canonical::json;
use crate::ingest::canonical::sent::Unreadable;
use crate::ingest::canonical::sent::object;
use crate::ingest::canonical::split;
use crate::ingest::canonical::split::NoEvents;
use crate::model::Value;
use crate::model::value::Number;

/// Trackers pad what they encode, or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const MAX_MEMBERS: usize = 64;
/// Entities that trackers attach by themselves, which say nothing of what happened.
const OF_TRACKERS: [&str; 3] = ["web_page", "client_session", "mobile_context"];

/// The entity that brings what the visitor chose.
const CONSENT: &str = "consent";

/// The paths of Snowplow; `path` is where trackers post that are told to by `postPath`.
pub(super) fn configure(app: &mut web::ServiceConfig, path: Option<&str>) {
    let posts = [Some("/com.snowplowanalytics.snowplow/tp2"), path];
    for path in posts.into_iter().flatten() {
        app.service(super::resource(path).route(web::post().to(post)));
    }
    app.service(super::resource("/i").route(web::get().to(get)));
}

async fn post(request: HttpRequest, payload: Payload) -> HttpResponse {
    let is_anonymous = is_anonymous(&request);
    let read = |body: &[u8]| read(body, is_anonymous);
    super::answer(&request, payload, Endpoint::Snowplow, read, ok).await
}

async fn get(request: HttpRequest, payload: Payload) -> HttpResponse {
    let is_anonymous = is_anonymous(&request);
    let read = |_: &[u8]| Ok(vec![map(&from_query(request.query_string()), is_anonymous)]);
    super::answer(&request, payload, Endpoint::Snowplow, read, |_| super::gif()).await
}

fn ok(_: &Taken) -> HttpResponse {
    HttpResponse::build(StatusCode::OK).content_type("text/plain").body("ok")
}

/// Whether a tracker asks that nobody be known by what it sends.
fn is_anonymous(request: &HttpRequest) -> bool {
    request.headers().contains_key("sp-anonymous")
}

/// Reads the events of a body.
pub(super) fn read(body: &[u8], is_anonymous: bool) -> Result<Read, Unread> {
    let members = split::members(body, MAX_MEMBERS).map_err(|_| NoEvents::NotJson)?;
    let data = members.iter().rev().find(|(key, _)| *key == b"data");
    let (_, data) = data.filter(|(_, data)| data.starts_with(b"[")).ok_or(NoEvents::NotJson)?;
    let events = split::events(data, MAX_EVENTS)?;
    gather::each(&events, |json| map(&object(json)?, is_anonymous).map_err(Unreadable::Rejected))
}

/// Writes an event as a canonical one.
pub(super) fn map(event: &Fields, is_anonymous: bool) -> Result<Sent, Rejection> {
    let event = Object(event);
    if is_anonymous {
        let message = "consent: SP-Anonymous: an event that nobody is known by is nobody's";
        return Err(Rejection::new(Code::Consent, message));
    }
    let mut draft = Draft::new(event.name("aid").unwrap_or_default());
    let (name, properties) = draft.mapped(named(event));
    draft.set("event", &*name);
    let withdraws = withdraws(&name, Object(&properties));
    if let Some(time) = event.name("ttm").and_then(Number::new) {
        draft.set_value("time", Some(Value::Number(time)));
    } else if let Some(happened) = event.name("dtm").and_then(Number::new) {
        // Some trackers state whole seconds: nothing is sent before it happens.
        let sent = event.name("stm").and_then(Number::new);
        let sent = sent
            .map(|sent| if millis(&sent) < millis(&happened) { happened.clone() } else { sent });
        draft.set_value("time", Some(Value::Number(happened)));
        draft.set_value("sentAt", sent.map(Value::Number));
    }
    draft.set("message_id", event.name("eid"));
    draft.id("user_id", event.name("uid"));
    draft.id("anonymous_id", event.name("duid"));
    let known = event.name("tnuid").or_else(|| event.name("nuid"));
    // A server hands on the cookie as it came, with its check.
    draft.id("cookie", known.map(|known| known.split('.').next().unwrap_or(known)));
    for (part, key) in [("url", "url"), ("referrer", "refr"), ("title", "page")] {
        draft.page(part, event.text(key));
    }
    draft.set("user_agent", event.text("ua"));
    draft.set("locale", event.text("lang"));
    draft.props(properties);
    entities(&mut draft, event);
    if withdraws {
        // Whatever string comes with it: it was made before.
        let withdrawn = vec![("withdrawn".into(), Value::Bool(true))];
        draft.replace("consent", Value::Object(withdrawn));
    }
    Ok(draft.finish())
}

fn millis(number: &Number) -> Option<i64> {
    number.as_str().parse().ok()
}

/// Whether an event of the trackers' own says that the visitor took back all consent.
fn withdraws(name: &str, data: Object<'_>) -> bool {
    match name {
        "consent_withdrawn" => data.value("all") == Some(&Value::Bool(true)),
        "consent_preferences" => {
            matches!(data.text("eventType"), Some("deny_all" | "withdrawn"))
        }
        _ => false,
    }
}

/// The name of an event, and its properties.
fn named(event: Object<'_>) -> Result<(String, Fields), Rejection> {
    match event.text("e").unwrap_or_default() {
        "pv" => Ok(("page_view".to_owned(), Vec::new())),
        "pp" => Ok(("page_ping".to_owned(), Vec::new())),
        "se" => {
            let mut properties = Vec::new();
            for (name, key) in [("category", "se_ca"), ("label", "se_la"), ("property", "se_pr")] {
                properties.extend(event.text(key).map(|text| (name.into(), Value::string(text))));
            }
            let value = event.name("se_va").map(number);
            properties.extend(value.map(|value| ("value".into(), value)));
            Ok((event.text("se_ac").unwrap_or_default().to_owned(), properties))
        }
        "ue" => {
            let what = "ue_px: expected an event that describes itself";
            let wrong = || Rejection::new(Code::Props, what);
            let envelope = envelope(event, "ue_px", "ue_pr")?.ok_or_else(wrong)?;
            let (_, data) = described(envelope).ok_or_else(wrong)?;
            let (name, data) = described(data).ok_or_else(wrong)?;
            let Value::Object(properties) = data else { return Err(wrong()) };
            Ok((name, properties))
        }
        _ => Err(Rejection::new(Code::EventName, "e: expected pv, pp, se or ue")),
    }
}

/// The JSON under a key that is encoded, or under one that is not.
fn envelope(event: Object<'_>, encoded: &str, plain: &str) -> Result<Option<Value>, Rejection> {
    let wrong = |key: &str| Rejection::new(Code::Props, format!("{key}: expected JSON"));
    if let Some(text) = event.text(encoded) {
        let json = BASE64.decode(text).map_err(|_| wrong(encoded))?;
        return json::read(&json).map(Some).map_err(|_| wrong(encoded));
    }
    let json = event.text(plain).map(|text| json::read(text.as_bytes()));
    json.transpose().map_err(|_| wrong(plain))
}

/// The name in a schema's URI, `iglu:vendor/name/format/version`, and what it describes.
fn described(value: Value) -> Option<(String, Value)> {
    let Value::Object(mut fields) = value else { return None };
    let name = Object(&fields).text("schema")?.strip_prefix("iglu:")?.split('/').nth(1)?.to_owned();
    let data = fields.iter_mut().find(|(key, _)| &**key == "data")?;
    Some((name, std::mem::replace(&mut data.1, Value::Null)))
}

/// Writes the entities that are attached to an event: each a property of its schema's name, several of one as a list.
fn entities(draft: &mut Draft, event: Object<'_>) {
    let Some(envelope) = draft.mapped(envelope(event, "cx", "co")) else { return };
    let wrong =
        || Rejection::new(Code::Props, "cx: expected a list of entities that describe themselves");
    let list = match described(envelope) {
        Some((_, Value::Array(list))) => Ok(list),
        _ => Err(wrong()),
    };
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut said = Vec::new();
    for entity in draft.mapped(list) {
        let Some((name, data)) = draft.mapped(described(entity).map(Some).ok_or_else(wrong)) else {
            continue;
        };
        if let Value::Object(fields) = &data {
            let data = Object(fields);
            match &*name {
                "client_session" if event.name("duid").is_none() => {
                    draft.id("anonymous_id", data.text("userId"));
                }
                "mobile_context" => {
                    draft.id("idfa", data.text("appleIdfa"));
                    draft.id("gaid", data.text("androidIdfa"));
                    draft.device("os", data.text("osType"));
                }
                CONSENT => {
                    if let Some(Value::Object(consent)) = consent(data) {
                        add_consent(&mut said, consent);
                        continue;
                    }
                }
                _ => {}
            }
        }
        if !OF_TRACKERS.contains(&&*name) {
            lists.entry(name).or_default().push(data);
        }
    }
    draft.consent(said.into_iter().map(Value::Object));
    let one_or_many = |(name, mut list): (String, Vec<Value>)| {
        let value = if list.len() == 1 { list.remove(0) } else { Value::Array(list) };
        (name.into(), value)
    };
    draft.props(lists.into_iter().map(one_or_many).collect());
}

/// Adds what an entity says of consent to what others do: to one that says the same or nothing of each of its keys, as
/// where one brings the string of one framework and the next that of another.
fn add_consent(said: &mut Vec<Fields>, new: Fields) {
    let value = |fields: &Fields, key: &str| Object(fields).value(key).cloned();
    let agrees = |one: &&mut Fields| {
        new.iter().all(|(key, new)| value(one, key).is_none_or(|known| known == *new))
    };
    match said.iter_mut().find(agrees) {
        Some(one) => {
            let more: Fields =
                new.into_iter().filter(|(key, _)| value(one, key).is_none()).collect();
            one.extend(more);
        }
        None => said.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::protocols::golden::assert_golden;
    use crate::collect::protocols::golden::recorded;
    use crate::collect::protocols::golden::text;

    #[test]
    fn what_trackers_send_becomes_canonical_events() {
        for name in [
            "snowplow-node-tracker",
            "snowplow-tracker-python",
            "snowplow-browser-tracker",
            "snowplow-browser-tracker-anonymous",
        ] {
            let body = recorded(&format!("{name}.json"));
            let read = read(body.as_bytes(), name.ends_with("anonymous")).unwrap();
            assert_golden(&read, &format!("{name}.ndjson"));
        }
        for name in ["snowplow-node-tracker", "snowplow-browser-tracker"] {
            let queries = recorded(&format!("{name}.txt"));
            let read = queries.lines().map(|query| map(&from_query(query), false)).collect();
            assert_golden(&read, &format!("{name}.txt.ndjson"));
        }
    }

    fn one(query: &str) -> String {
        text(&map(&from_query(query), false))
    }

    fn encoded(json: &str) -> String {
        BASE64.encode(json)
    }

    #[test]
    fn what_an_event_describes_may_be_encoded_with_padding_or_without_or_not_at_all() {
        let expected = r#"{"site":"s","event":"buy","props":{"n":1.50,"person":{}}}"#;
        let event = r#"{"schema":"iglu:a/buy/jsonschema/1-0-0","data":{"n":1.50,"email":"a@b.example","person":{"email":"a@b.example"}}}"#;
        let envelope =
            format!(r#"{{"schema":"iglu:a/unstruct_event/jsonschema/1-0-0","data":{event}}}"#);
        let padded = encoded(&format!("{envelope} "));
        assert!(padded.ends_with('='), "{padded}");
        for encoded in [&*padded, padded.trim_end_matches('=')] {
            assert_eq!(one(&format!("e=ue&aid=s&ue_px={encoded}")), expected);
        }
        assert_eq!(one(&format!("e=ue&aid=s&ue_pr={}", envelope.replace('+', "%2B"))), expected);
        let wrong = "props: ue_px: expected an event that describes itself";
        for envelope in [
            "7",
            "{}",
            r#"{"schema":"iglu:a/b/c/1"}"#,
            r#"{"schema":"iglu:a/b/c/1","data":{"schema":"buy","data":{}}}"#,
            r#"{"schema":"iglu:a/b/c/1","data":{"schema":"iglu:a/buy/c/1","data":[]}}"#,
        ] {
            assert_eq!(one(&format!("e=ue&aid=s&ue_px={}", encoded(envelope))), wrong);
        }
        assert_eq!(one("e=ue&aid=s"), wrong);
        assert_eq!(one("e=ue&aid=s&ue_px=%3F"), "props: ue_px: expected JSON");
        assert_eq!(one("e=ue&aid=s&ue_pr=%7B"), "props: ue_pr: expected JSON");
        let deep = encoded(&"[".repeat(9_000));
        assert_eq!(one(&format!("e=ue&aid=s&ue_px={deep}")), "props: ue_px: expected JSON");
    }

    #[test]
    fn entities_are_properties_and_those_of_a_device_identify_it() {
        let query = |entities: &str| {
            let list = format!(r#"{{"schema":"iglu:a/contexts/c/1","data":[{entities}]}}"#);
            format!("e=pv&aid=s&cx={}", encoded(&list))
        };
        let of = |entities: &str| one(&query(entities));
        let product =
            |sku: &str| format!(r#"{{"schema":"iglu:a/product/c/1","data":{{"sku":"{sku}"}}}}"#);
        assert_eq!(
            of(&format!("{},{}", product("1"), product("2"))),
            r#"{"site":"s","event":"page_view","props":{"product":[{"sku":"1"},{"sku":"2"}]}}"#
        );
        let mobile =
            r#"{"schema":"iglu:a/mobile_context/c/1","data":{"osType":"ios","appleIdfa":"AB-1"}}"#;
        let session = r#"{"schema":"iglu:a/client_session/c/1","data":{"userId":"u-1"}}"#;
        let user = r#"{"schema":"iglu:a/user/c/1","data":{"email":"a@b.example","tier":"gold"}}"#;
        assert_eq!(
            of(&format!("{mobile},{session},{user}")),
            r#"{"site":"s","event":"page_view","ids":{"idfa":"AB-1","anonymous_id":"u-1"},"props":{"user":{"tier":"gold"}},"device":{"os":"ios"}}"#
        );
        let consent = |data: &str| format!(r#"{{"schema":"iglu:a/consent/c/1","data":{data}}}"#);
        assert_eq!(
            of(&format!("{},{}", consent("{\"tcf\":\"CP\",\"n\":1}"), consent("{\"level\":2}"))),
            r#"{"site":"s","event":"page_view","consent":{"tcf":"CP"},"props":{"consent":{"level":2}}}"#
        );
        let [yes, no] = ["{\"us_privacy\":\"1YNN\"}", "{\"us_privacy\":\"1YYN\"}"].map(consent);
        for entities in [format!("{yes},{no}"), format!("{no},{yes}")] {
            let event = map(&from_query(&query(&entities)), false).unwrap();
            let all = [vec![event.consent().unwrap()], event.shared_consent().unwrap()].concat();
            let mut said: Vec<bool> = all.iter().map(|said| said.sale_opt_out).collect();
            said.sort_unstable();
            assert_eq!(said, [false, true], "what differs is judged by itself");
        }
        let apart = format!("{},{}", consent("{\"tcf\":\"CP\"}"), consent("{\"gpp\":\"DB\"}"));
        assert!(of(&apart).contains(r#""consent":{"tcf":"CP","gpp":"DB"}"#), "{}", of(&apart));
        assert_eq!(of("7"), "props: cx: expected a list of entities that describe themselves");
    }

    #[test]
    fn who_takes_back_all_consent_withdraws() {
        let of = |name: &str, data: &str| {
            let event = format!(r#"{{"schema":"iglu:a/{name}/jsonschema/1-0-0","data":{data}}}"#);
            let envelope = format!(r#"{{"schema":"iglu:a/unstruct_event/c/1","data":{event}}}"#);
            let consent = r#"{"schema":"iglu:a/contexts/c/1","data":[{"schema":"iglu:a/consent/c/1","data":{"tcf":"CP"}}]}"#;
            one(&format!("e=ue&aid=s&ue_px={}&cx={}", encoded(&envelope), encoded(consent)))
        };
        for (name, data, consent) in [
            ("consent_withdrawn", r#"{"all":true}"#, r#"{"withdrawn":true}"#),
            ("consent_withdrawn", r#"{"all":false}"#, r#"{"tcf":"CP"}"#),
            ("consent_preferences", r#"{"eventType":"deny_all"}"#, r#"{"withdrawn":true}"#),
            ("consent_preferences", r#"{"eventType":"withdrawn"}"#, r#"{"withdrawn":true}"#),
            ("consent_preferences", r#"{"eventType":"allow_all"}"#, r#"{"tcf":"CP"}"#),
            ("other", r#"{"all":true}"#, r#"{"tcf":"CP"}"#),
        ] {
            let expected =
                format!(r#"{{"site":"s","event":"{name}","consent":{consent},"props":{data}}}"#);
            assert_eq!(of(name, data), expected);
        }
    }

    #[test]
    fn a_server_hands_on_our_cookie_and_states_its_time() {
        let cookie = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            one(&format!("e=pp&aid=s&tnuid={cookie}.0123456789abcdef&ttm=7&dtm=8&stm=9")),
            format!(r#"{{"site":"s","event":"page_ping","time":7,"ids":{{"cookie":"{cookie}"}}}}"#)
        );
        assert_eq!(
            one("e=se&aid=s&se_ac=play&se_va=loud&dtm=1999&stm=1000"),
            r#"{"site":"s","event":"play","time":1999,"sentAt":1999,"props":{"value":"loud"}}"#
        );
        assert_eq!(one("e=tr&aid=s"), "event_name: e: expected pv, pp, se or ue");
    }

    #[test]
    fn a_body_that_is_no_list_of_events_is_refused() {
        for body in ["", "[]", "{}", r#"{"data":{}}"#, r#"{"data":[{"e":"pv"}"#, r#"{"data":[}]}"#]
        {
            let unread = read(body.as_bytes(), false).err().unwrap();
            assert_eq!(unread.why, NoEvents::NotJson, "{body}");
        }
        let read = read(br#"{"data":[{"e":"pv","aid":7},1]}"#, false).unwrap();
        let texts: Vec<_> = read.iter().map(text).collect();
        assert_eq!(texts, [r#"{"site":"7","event":"page_view"}"#, "site: expected a JSON object"]);
    }
}
