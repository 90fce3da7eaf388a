//! The messages of Segment, which RudderStack and Jitsu speak, too.
//!
//! A request is one message, or a batch of them. `track` becomes an event of its name, `page` and `screen` become
//! `page_view` and `screen_view`; `identify`, `group` and `alias` become events of these names: what they say of a
//! profile is its attributes and links.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header::AUTHORIZATION;
use actix_web::http::header::HeaderMap;
use actix_web::web;
use actix_web::web::Payload;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::draft::Draft;
use super::draft::Fields;
use super::draft::Object;
use super::draft::consent;
use super::draft::take_object;
use crate::collect::gather;
use crate::collect::gather::MAX_EVENTS;
use crate::collect::gather::Read;
use crate::collect::gather::Unread;
use crate::collect::query::decode;
use crate::collect::query::pairs;
use crate::collect::worker::Endpoint;
use crate::ingest::canonical::Code;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::Sent;
use crate::ingest::canonical::sent::Unreadable;
use crate::ingest::canonical::sent::object;
use crate::ingest::canonical::sent::readable;
use crate::ingest::canonical::split;
use crate::ingest::canonical::split::NoEvents;
use crate::model::Value;
use crate::model::time::parse_rfc3339;
use crate::model::value::parse_json;

/// What a message can be, in short and in long: the last part of the path that it is sent to.
const KINDS: [(&str, &str); 6] = [
    ("p", "page"),
    ("i", "identify"),
    ("t", "track"),
    ("g", "group"),
    ("a", "alias"),
    ("s", "screen"),
];
const BATCHES: [&str; 3] = ["/v1/batch", "/v1/b", "/beacon/v1/batch"];
/// Members that the object of a batch has at most.
const MAX_MEMBERS: usize = 64;
/// What RudderStack's pages say for "no referrer".
const DIRECT: &str = "$direct";

/// The paths of Segment, RudderStack and Jitsu.
pub(super) fn configure(app: &mut web::ServiceConfig) {
    let long = KINDS.iter().flat_map(|(short, long)| {
        let jitsu = [format!("/api/s/{long}"), format!("/api/s/s2s/{long}")];
        [format!("/v1/{short}"), format!("/v1/{long}")].into_iter().chain(jitsu)
    });
    for path in long.chain(BATCHES.map(str::to_owned)) {
        app.service(super::resource(&path).route(web::post().to(collect)));
    }
    app.service(super::resource("/v1/projects/{key}/settings").route(web::get().to(settings)));
    for path in ["/sourceConfig", "/sourceConfig/"] {
        app.service(super::resource(path).route(web::get().to(source_config)));
    }
}

async fn collect(request: HttpRequest, payload: Payload) -> HttpResponse {
    let read = |body: &[u8]| {
        let last = request.path().rsplit('/').next().unwrap_or_default();
        let kind = KINDS.iter().find(|(short, long)| [*short, *long].contains(&last));
        read(body, key(request.headers(), request.query_string()), kind.map(|(_, long)| *long))
    };
    super::answer(&request, payload, Endpoint::Segment, read, super::success).await
}

/// What `@segment/analytics-next` asks before it sends: that Segment's own destination is all there is.
async fn settings(request: HttpRequest, key: web::Path<String>) -> HttpResponse {
    let integration =
        json!({ "apiKey": *key, "unbundledIntegrations": [], "addBundledMetadata": true });
    let plan = json!({ "__default": { "enabled": true, "integrations": {} } });
    let settings = json!({
        "integrations": { "Segment.io": integration },
        "plan": { "track": plan, "identify": plan, "group": plan },
        "edgeFunction": {},
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "remotePlugins": [],
        "analyticsNextEnabled": true,
        "legacyVideoPluginsEnabled": false,
        // It would report on itself to Segment.
        "metrics": { "sampleRate": 0 },
    });
    super::settings(&request, &key, &settings)
}

/// What `@rudderstack/analytics-js` asks before it sends: that there are no destinations in the page.
async fn source_config(request: HttpRequest) -> HttpResponse {
    let key = key(request.headers(), request.query_string()).unwrap_or_default();
    // It would report on itself to RudderStack.
    let quiet = json!({ "errors": { "enabled": false }, "metrics": { "enabled": false } });
    let settings = json!({
        "source": {
            "id": key,
            "name": key,
            "writeKey": key,
            "enabled": true,
            "workspaceId": key,
            "config": { "statsCollection": quiet },
            "dataplanes": {},
            "connections": [],
            "destinations": [],
        },
    });
    super::settings(&request, &key, &settings)
}

/// The key that a request itself tells: as the user of `Authorization: Basic`, before the colon of `X-Write-Key`, or as
/// the parameter `writeKey`.
fn key(headers: &HeaderMap, query: &str) -> Option<String> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let basic = header(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, encoded) = value.split_once(' ')?;
        let decoded = STANDARD.decode(encoded.trim()).ok()?;
        scheme.eq_ignore_ascii_case("basic").then(|| String::from_utf8(decoded).ok()).flatten()
    });
    let key = basic.or_else(|| header("x-write-key").map(str::to_owned)).or_else(|| {
        let (_, value) = pairs(query).find(|(name, _)| *name == "writeKey")?;
        Some(decode(value).into_owned())
    })?;
    let key = user(&key);
    (!key.is_empty()).then(|| key.to_owned())
}

/// What stands before the colon of a key and its secret.
fn user(key: &str) -> &str {
    key.split(':').next().unwrap_or(key)
}

/// What the messages of a request share.
struct Envelope {
    key: Option<String>,
    /// What a message is that does not say it.
    kind: Option<&'static str>,
    sent_at: Option<Value>,
    context: Fields,
}

/// Reads the messages of a body, sent with a key to the path of a kind.
pub(super) fn read(
    body: &[u8],
    key: Option<String>,
    kind: Option<&'static str>,
) -> Result<Read, Unread> {
    let members = split::members(body, MAX_MEMBERS).map_err(|_| NoEvents::NotJson)?;
    let member = |name: &[u8]| members.iter().rev().find(|(key, _)| *key == name);
    let mut envelope = Envelope { key, kind, sent_at: None, context: Vec::new() };
    let Some((_, batch)) = member(b"batch").filter(|(_, batch)| batch.starts_with(b"[")) else {
        return gather::each(&[body], |json| message(json, &envelope));
    };
    let value = |name: &[u8]| {
        let (_, value) = member(name)?;
        parse_json(value).ok()
    };
    envelope.sent_at = value(b"sentAt");
    if let (None, Some(Value::String(key))) = (&envelope.key, value(b"writeKey")) {
        envelope.key = Some(user(&key).to_owned());
    }
    let messages = split::events(batch, MAX_EVENTS)?;
    let context = member(b"context").map_or(&b"{}"[..], |(_, context)| context);
    gather::shared(context.len(), messages.len())?;
    // It may say that nothing of the batch is to be kept: without it no message can be judged.
    match readable(context) {
        Ok(Value::Object(context)) => envelope.context = context,
        Ok(_) => {}
        Err(Unreadable::Rejected(why)) => {
            return Ok(messages.iter().map(|_| Err(why.clone())).collect());
        }
        Err(Unreadable::NotJson(_)) => return Err(NoEvents::NotJson.into()),
    }
    gather::each(&messages, |json| message(json, &envelope))
}

fn message(json: &[u8], envelope: &Envelope) -> Result<Sent, Unreadable> {
    Ok(map(object(json)?, envelope))
}

/// Writes a message as a canonical event.
fn map(mut message: Fields, envelope: &Envelope) -> Sent {
    let own_key = Object(&message).text("writeKey").map(user).unwrap_or_default();
    let mut draft = Draft::new(envelope.key.as_deref().unwrap_or(own_key));
    let properties = draft.mapped(take_object(&mut message, "properties"));
    let mut traits = draft.mapped(take_object(&mut message, "traits"));
    let mut context = draft.mapped(take_object(&mut message, "context"));
    if context.is_empty() {
        context = envelope.context.clone();
    }
    let known = draft.mapped(take_object(&mut context, "traits"));
    let (message, context) = (Object(&message), Object(&context));

    let kind = message.text("type").or(envelope.kind).unwrap_or_default();
    let name = match kind {
        "track" => Ok(message.text("event").unwrap_or_default()),
        "page" => Ok("page_view"),
        "screen" => Ok("screen_view"),
        "identify" | "group" | "alias" => Ok(kind),
        _ => {
            let message = "type: expected identify, track, page, screen, group or alias";
            Err(Rejection::new(Code::EventName, message))
        }
    };
    let name = draft.mapped(name);
    draft.set("event", name);
    // Where both are there, the first is what a caller stated, or what somebody has corrected.
    let time = message.value("timestamp").or_else(|| message.value("originalTimestamp"));
    draft.set_value("time", time.cloned());
    let sent_at = message.value("sentAt").or(envelope.sent_at.as_ref());
    // It only corrects a clock: one that cannot be read is no reason to lose the event.
    let is_time =
        |value: &&Value| matches!(value, Value::String(text) if parse_rfc3339(text).is_some());
    draft.set_value("sentAt", sent_at.filter(is_time).cloned());
    draft.set("message_id", message.name("messageId"));

    draft.id("user_id", message.name("userId"));
    draft.id("anonymous_id", message.name("anonymousId"));
    if kind == "alias" {
        draft.id("anonymous_id", message.name("previousId"));
    }
    if kind != "group" {
        draft.contact(Object(&traits));
    }
    draft.contact(Object(&known));
    device(&mut draft, context);
    page(&mut draft, context.object("page"), kind, Object(&properties));

    match kind {
        "identify" => {
            draft.attrs(traits);
            draft.attrs(known);
        }
        "group" => {
            draft.prop("group_id", message.name("groupId"));
            draft.props(std::mem::take(&mut traits));
        }
        "page" | "screen" => {
            let of_page =
                |name: &str| kind == "page" && ["url", "referrer", "title"].contains(&name);
            draft.props(properties.into_iter().filter(|(name, _)| !of_page(name)).collect());
            draft.prop("name", message.text("name"));
            draft.prop("category", message.text("category"));
        }
        _ => draft.props(properties),
    }
    let campaign = context.value("campaign");
    let is_filled = |value: &&Value| matches!(value, Value::Object(fields) if !fields.is_empty());
    draft.prop_value("campaign", campaign.filter(is_filled).cloned());
    draft.set("user_agent", context.text("userAgent"));
    draft.set("locale", context.text("locale"));
    let of_batch = consent(Object(&envelope.context).object("consent"));
    let own = consent(context.object("consent"));
    draft.consent([own, of_batch].into_iter().flatten());
    draft.finish()
}

/// The page of a message: a `page` call may state another one than its context.
fn page(draft: &mut Draft, page: Object<'_>, kind: &str, properties: Object<'_>) {
    for part in ["url", "referrer", "title"] {
        let stated = if kind == "page" { properties.text(part) } else { None };
        draft.page(part, stated.or_else(|| page.text(part)).filter(|text| *text != DIRECT));
    }
}

/// What an app's message tells of its device.
fn device(draft: &mut Draft, context: Object<'_>) {
    let (device, os) = (context.object("device"), context.object("os"));
    let is_tv = os.text("name").is_some_and(|name| name.eq_ignore_ascii_case("tvos"));
    let kind = device.text("type").unwrap_or_default().to_ascii_lowercase();
    let namespace = match &*kind {
        "ios" if !is_tv => "idfa",
        "ios" | "tvos" => "tifa",
        "android" => "gaid",
        _ => return,
    };
    if device.value("adTrackingEnabled") != Some(&Value::Bool(false)) {
        draft.id(namespace, device.text("advertisingId"));
    }
    let is_tablet = device.text("model").is_some_and(|model| model.starts_with("iPad"));
    let kind = match namespace {
        "tifa" => "tv",
        _ if is_tablet => "tablet",
        _ => "mobile",
    };
    draft.device("kind", kind);
    draft.device("os", os.text("name"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::protocols::golden::assert_golden;
    use crate::collect::protocols::golden::recorded;
    use crate::collect::protocols::golden::text;
    use actix_web::test::TestRequest;

    fn texts(body: &str, key: Option<&str>, kind: Option<&'static str>) -> Vec<String> {
        let read = read(body.as_bytes(), key.map(str::to_owned), kind).unwrap();
        read.iter().map(text).collect()
    }

    #[test]
    fn what_clients_send_becomes_canonical_events() {
        for name in [
            "segment-analytics-node",
            "segment-analytics-python",
            "segment-analytics-next-page",
            "segment-analytics-next-batch",
            "rudder-sdk-node",
            "rudder-sdk-python",
            "rudder-analytics-js-batch",
            "jitsu-js-page",
            "jitsu-js-identify",
        ] {
            let body = recorded(&format!("{name}.json"));
            // Their batches do not say whose they are: a header does, or the query.
            let key = name.starts_with("rudder").then(|| "WK_rudder".to_owned());
            assert_golden(&read(body.as_bytes(), key, None).unwrap(), &format!("{name}.ndjson"));
        }
    }

    #[test]
    fn a_key_stands_in_a_header_in_the_query_or_in_the_body() {
        let of = |name: &'static str, value: &str, query: &str| {
            let request = TestRequest::default().insert_header((name, value)).to_http_request();
            key(request.headers(), query)
        };
        let shop = || Some("shop".to_owned());
        assert_eq!(of("authorization", "Basic c2hvcDo=", ""), shop());
        assert_eq!(of("authorization", "basic c2hvcDpzZWNyZXQ=", "writeKey=other"), shop());
        assert_eq!(of("x-write-key", "shop:secret", ""), shop());
        assert_eq!(of("accept", "*/*", "a=b&writeKey=sh%6fp"), shop());
        for (name, value) in [
            ("authorization", "Basic ?"),
            ("authorization", "Basic /w=="),
            ("authorization", "Basic Og=="),
            ("authorization", "Bearer c2hvcDo="),
            ("x-write-key", ":secret"),
        ] {
            assert_eq!(of(name, value, ""), None, "{value}");
        }
        let event = r#"{"type":"identify","userId":1,"writeKey":"own:***"}"#;
        let expected = r#"{"site":"SITE","event":"identify","ids":{"user_id":"1"}}"#;
        for (body, key, site) in [
            (event.to_owned(), None, "own"),
            (event.to_owned(), Some("told"), "told"),
            (format!(r#"{{"batch":[{event}],"writeKey":"all"}}"#), None, "all"),
            (format!(r#"{{"batch":[{event}]}}"#), None, "own"),
        ] {
            assert_eq!(texts(&body, key, None), [expected.replace("SITE", site)]);
        }
        let keyless = r#"{"type":"identify","userId":"1"}"#;
        assert_eq!(texts(keyless, None, None), [expected.replace("SITE", "")]);
    }

    #[test]
    fn a_bad_message_is_set_aside_and_a_body_that_is_none_is_refused() {
        let bad = [
            r#"{"type":"track","userId":"1","event":"a"}"#,
            r#"{"type":"merge","userId":"1"}"#,
            r#"{"userId":"1"}"#,
            r#"{"type":"track","userId":"1","event":"a","properties":[]}"#,
            r#"{"type":"track","userId":"1","event":"\ud83d"}"#,
            "7",
        ];
        let body = format!(r#"{{"sentAt":"soon","batch":[{}]}}"#, bad.join(","));
        assert_eq!(
            texts(&body, Some("s"), None),
            [
                r#"{"site":"s","event":"a","ids":{"user_id":"1"}}"#,
                "event_name: type: expected identify, track, page, screen, group or alias",
                "event_name: type: expected identify, track, page, screen, group or alias",
                "props: properties: expected an object",
                "props: not JSON: unexpected end of hex escape at line 1 column 45",
                "site: expected a JSON object",
            ]
        );
        let refused = |body: &str| read(body.as_bytes(), Some("s".to_owned()), None).err().unwrap();
        for body in ["", "[]", "7", r#"{"batch":[{"type":"track"}"#, r#"{"type":"track""#] {
            assert_eq!(refused(body), Unread { why: NoEvents::NotJson, events: 1 }, "{body}");
        }
        let half = refused(r#"{"batch":[{},{"type":}]}"#);
        assert_eq!(half, Unread { why: NoEvents::NotJson, events: 2 });
        let many = format!(r#"{{"batch":[{}]}}"#, vec!["1"; 501].join(","));
        assert_eq!(refused(&many).why, NoEvents::TooMany(MAX_EVENTS));
    }

    #[test]
    fn who_it_is_may_be_told_as_a_number_or_as_nobody() {
        let body = r#"{"type":"screen","userId":7.0,"anonymousId":"","messageId":12,"name":"Home",
            "context":{"os":{"name":"iOS"},"device":{"type":"iOS","advertisingId":"AB-1","model":"iPad4,1"}}}"#;
        assert_eq!(
            texts(body, Some("s"), None),
            [
                r#"{"site":"s","event":"screen_view","message_id":"12","ids":{"user_id":"7.0","idfa":"AB-1"},"props":{"name":"Home"},"device":{"kind":"tablet","os":"iOS"}}"#
            ]
        );
        let body = r#"{"userId":null,"anonymousId":"a","previousId":"b",
            "context":{"device":{"type":"android","advertisingId":"AB-1","adTrackingEnabled":false}}}"#;
        assert_eq!(
            texts(body, Some("s"), Some("alias")),
            [
                r#"{"site":"s","event":"alias","ids":{"anonymous_id":"a","anonymous_id":"b"},"device":{"kind":"mobile"}}"#
            ]
        );
    }

    #[test]
    fn addresses_and_numbers_are_identifiers_and_stand_nowhere_else() {
        let body = r#"{"type":"identify","userId":"1","traits":{"email":"a@b.example","phone":"+491"},
            "context":{"traits":{"email":"c@d.example","plan":"pro"},"consent":{"tcf":"CP","categoryPreferences":{}}}}"#;
        assert_eq!(
            texts(body, Some("s"), None),
            [
                r#"{"site":"s","event":"identify","consent":{"tcf":"CP"},"ids":{"user_id":"1","email":"a@b.example","phone":"+491"},"attrs":{"plan":"pro"}}"#
            ]
        );
        for body in [
            r#"{"type":"track","userId":"1","event":"Invite","properties":{"email":"friend@b.example"}}"#,
            r#"{"type":"group","userId":"1","traits":{"email":"all@b.example","phone":"+49"}}"#,
        ] {
            let [text] = &texts(body, Some("s"), None)[..] else { panic!() };
            assert!(!text.contains("b.example") && !text.contains("+49"), "{text}");
        }
        let body = r#"{"type":"identify","userId":"1","traits":{"Email":"a@b.example","properties.email":"a@b.example","emails":["a@b.example"],
            "address":{"city":"Ulm","email":"a@b.example","more":[{"Phone-Number":"+491","n":[[{"e_mail":7}]]}]},
            "wants":{"email":true,"phone":false},"email_format":"html","phone_model":"X"},
            "context":{"campaign":{"name":"n","email":"a@b.example"}}}"#;
        assert_eq!(
            texts(body, Some("s"), None),
            [
                r#"{"site":"s","event":"identify","ids":{"user_id":"1"},"props":{"campaign":{"name":"n"}},"attrs":{"address":{"city":"Ulm","more":[{"n":[[{}]]}]},"wants":{"email":true,"phone":false},"email_format":"html","phone_model":"X"}}"#
            ]
        );
    }

    #[test]
    fn a_call_says_which_page_it_is_of() {
        let body = r#"{"type":"page","userId":"1","category":"Docs",
            "properties":{"url":"https://a.example/virtual","category":"Own","referrer":"$direct"},
            "context":{"page":{"url":"https://a.example/","referrer":"https://b.example/","title":"A"},
            "campaign":{"source":"mail"}}}"#;
        assert_eq!(
            texts(body, Some("s"), None),
            [
                r#"{"site":"s","event":"page_view","ids":{"user_id":"1"},"props":{"category":"Own","campaign":{"source":"mail"}},"page":{"url":"https://a.example/virtual","title":"A"}}"#
            ]
        );
    }
}
