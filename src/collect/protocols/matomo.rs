//! Matomo's tracking API: a hit in a query or a form, or a list of such queries in JSON.
//!
//! What a hit is of follows from the parameters that it has: a page view where nothing else. There is no id of a message
//! but that of an order: any other hit that is sent twice counts twice, and Matomo's clients send nothing twice.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web;
use actix_web::web::Payload;
use serde::Serialize;
use std::cell::Cell;

use super::draft::Draft;
use super::draft::Fields;
use super::draft::Object;
use super::draft::from_query;
use super::draft::number;
use crate::collect::answer;
use crate::collect::gather;
use crate::collect::gather::MAX_EVENTS;
use crate::collect::gather::Read;
use crate::collect::gather::Taken;
use crate::collect::gather::Unread;
use crate::collect::worker::Endpoint;
use crate::ingest::canonical::Code;
use crate::ingest::canonical::MAX_EVENT;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::Sent;
use crate::ingest::canonical::json;
use crate::ingest::canonical::sent::Unreadable;
use crate::ingest::canonical::sent::value;
use crate::ingest::canonical::split;
use crate::ingest::canonical::split::NoEvents;
use crate::model::Value;
use crate::model::value::Number;

const MAX_MEMBERS: usize = 64;
/// Parts of an item of an order, in their order.
const ITEM: [&str; 5] = ["sku", "name", "category", "price", "quantity"];
/// What an order states beside its total, and how it is called here.
const SUMS: [(&str, &str); 4] =
    [("ec_st", "subtotal"), ("ec_tx", "tax"), ("ec_sh", "shipping"), ("ec_dt", "discount")];

/// The paths of Matomo, by its name of today and by that of old.
pub(super) fn configure(app: &mut web::ServiceConfig) {
    for path in ["/matomo.php", "/piwik.php"] {
        let resource = super::resource(path).route(web::get().to(track));
        app.service(resource.route(web::post().to(track)));
    }
}

/// What a request is answered with, where it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Image,
    Nothing,
    /// How many of a list were taken.
    Count,
}

async fn track(request: HttpRequest, payload: Payload) -> HttpResponse {
    let wanted = Cell::new(Wanted::Image);
    let read = |body: &[u8]| {
        let (read, answer) = read(request.query_string(), body)?;
        wanted.set(answer);
        Ok(read)
    };
    let success = |taken: &Taken| match wanted.get() {
        Wanted::Image => super::gif(),
        Wanted::Nothing => HttpResponse::new(StatusCode::NO_CONTENT),
        Wanted::Count => count(taken),
    };
    super::answer(&request, payload, Endpoint::Matomo, read, success).await
}

fn count(taken: &Taken) -> HttpResponse {
    #[derive(Serialize)]
    struct Count {
        status: &'static str,
        tracked: usize,
        invalid: usize,
        invalid_indices: Vec<usize>,
    }
    let invalid_indices: Vec<usize> = taken.rejected.iter().map(|(index, _)| *index).collect();
    let invalid = invalid_indices.len();
    let count = Count { status: "success", tracked: taken.accepted, invalid, invalid_indices };
    answer::json(StatusCode::OK, &count)
}

/// Reads the hits of a request.
pub(super) fn read(query: &str, body: &[u8]) -> Result<(Read, Wanted), Unread> {
    let body = body.trim_ascii();
    if body.starts_with(b"{") {
        return list(body);
    }
    let form = std::str::from_utf8(body).map_err(|_| NoEvents::NotJson)?;
    let hit = if form.is_empty() { query.to_owned() } else { format!("{query}&{form}") };
    let fields = from_query(&hit);
    let wanted = match Object(&fields).text("send_image") {
        Some("0") => Wanted::Nothing,
        _ => Wanted::Image,
    };
    Ok((vec![sized(hit.len()).and_then(|()| map(&fields))], wanted))
}

/// Reads a list of hits.
fn list(body: &[u8]) -> Result<(Read, Wanted), Unread> {
    let members = split::members(body, MAX_MEMBERS).map_err(|_| NoEvents::NotJson)?;
    let member = |name: &[u8]| members.iter().rev().find(|(key, _)| *key == name);
    let requests = member(b"requests").filter(|(_, requests)| requests.starts_with(b"["));
    let (_, requests) = requests.ok_or(NoEvents::NotJson)?;
    let is_silent = member(b"send_image").is_some_and(|(_, image)| *image == b"0");
    let requests = split::events(requests, MAX_EVENTS)?;
    let read = gather::each(&requests, |json| {
        let fields = match value(json)? {
            Value::String(query) => from_query(query.trim_start_matches('?')),
            Value::Object(fields) => fields,
            _ => {
                let message = "requests: expected a query, or an object";
                return Err(Unreadable::Rejected(Rejection::new(Code::Props, message)));
            }
        };
        map(&fields).map_err(Unreadable::Rejected)
    })?;
    Ok((read, if is_silent { Wanted::Nothing } else { Wanted::Count }))
}

fn sized(bytes: usize) -> Result<(), Rejection> {
    if bytes <= MAX_EVENT {
        return Ok(());
    }
    Err(Rejection::new(Code::Size, "a hit is at most 32 KiB"))
}

/// What a page writes where it has nothing.
const UNDEFINED: &str = "undefined";

fn is_there(value: &Value) -> bool {
    !matches!(value, Value::String(text) if &**text == UNDEFINED)
}

/// The parameters of a hit.
#[derive(Clone, Copy)]
struct Hit<'a>(Object<'a>);

impl<'a> Hit<'a> {
    fn text(self, key: &str) -> Option<&'a str> {
        self.0.name(key).filter(|text| *text != UNDEFINED)
    }

    fn number(self, key: &str) -> Option<Value> {
        self.text(key).map(number)
    }

    fn json(self, key: &str) -> Option<Value> {
        json::read(self.text(key)?.as_bytes()).ok()
    }
}

/// Writes a hit as a canonical event.
pub(super) fn map(fields: &Fields) -> Result<Sent, Rejection> {
    let hit = Hit(Object(fields));
    if hit.text("rec") != Some("1") {
        return Err(Rejection::new(Code::Props, "rec: expected 1"));
    }
    let (name, properties) = named(hit)?;
    let mut draft = Draft::new(hit.text("idsite").unwrap_or_default());
    draft.set("event", name);
    if name == "page_view" {
        draft.prop_value("product", product(hit));
    }
    draft.set_value("time", hit.text("cdt").map(time));
    // An order counts once, however often its page is loaded again.
    let order = hit.text("ec_id").filter(|_| name == "purchase").map(|id| format!("order:{id}"));
    draft.set("message_id", order.as_deref());
    draft.id("user_id", hit.text("uid"));
    draft.id("anonymous_id", hit.text("cid").or_else(|| hit.text("_id")));
    draft.page("url", hit.text("url"));
    draft.page("referrer", hit.text("urlref"));
    draft.page("title", hit.text("action_name"));
    draft.set("user_agent", hit.text("ua"));
    let languages = hit.text("lang");
    draft.set("locale", languages.and_then(|all| all.split([',', ';']).next()));
    draft.props(properties);
    for key in ["cvar", "_cvar"] {
        draft.props(variables(hit, key));
    }
    let dimensions = fields.iter().filter(|(key, _)| key.starts_with("dimension"));
    draft.props(dimensions.filter(|(_, value)| is_there(value)).cloned().collect());
    draft.set_value("consent", consent(hit));
    Ok(draft.finish())
}

/// The name of a hit's event, and its properties.
fn named<'a>(hit: Hit<'a>) -> Result<(&'a str, Fields), Rejection> {
    let mut properties = Fields::new();
    let mut put = |name: &str, value: Option<Value>| {
        properties.extend(value.map(|value| (name.into(), value)));
    };
    let text = |key: &str| hit.text(key).map(Value::string);
    let name = if let Some(action) = hit.text("e_a") {
        put("category", text("e_c"));
        put("name", text("e_n"));
        put("value", hit.number("e_v"));
        action
    } else if let Some(goal) = hit.text("idgoal") {
        put("value", hit.number("revenue"));
        if goal == "0" {
            put("order_id", text("ec_id"));
            for (key, name) in SUMS {
                put(name, hit.number(key));
            }
            put("items", items(hit));
            if hit.text("ec_id").is_some() { "purchase" } else { "cart_update" }
        } else {
            put("goal_id", Some(Value::string(goal)));
            "goal"
        }
    } else if hit.text("search").is_some() {
        put("query", text("search"));
        put("category", text("search_cat"));
        put("results", hit.number("search_count"));
        "search"
    } else if hit.text("download").is_some() {
        put("url", text("download"));
        "download"
    } else if hit.text("link").is_some() {
        put("url", text("link"));
        "outlink"
    } else if hit.text("c_n").is_some() {
        for (key, name) in [("c_n", "name"), ("c_p", "piece"), ("c_t", "target")] {
            put(name, text(key));
        }
        put("interaction", text("c_i"));
        if hit.text("c_i").is_some() { "content_interaction" } else { "content_impression" }
    } else if hit.text("ping").is_some() {
        "page_ping"
    } else if hit.text("ca").is_some() {
        let message = "ca: expected a page view, an event, a goal, a search, a link or content";
        return Err(Rejection::new(Code::EventName, message));
    } else {
        "page_view"
    };
    Ok((name, properties))
}

/// The items of an order or cart, each with names for its parts.
fn items(hit: Hit<'_>) -> Option<Value> {
    let Value::Array(items) = hit.json("ec_items")? else { return None };
    let item = |item: Value| {
        let Value::Array(parts) = item else { return None };
        let parts = ITEM.iter().zip(parts).map(|(name, part)| ((*name).into(), part));
        Some(Value::Object(parts.collect()))
    };
    Some(Value::Array(items.into_iter().filter_map(item).collect()))
}

/// The product that a page view is of.
fn product(hit: Hit<'_>) -> Option<Value> {
    // Of several categories there is a list, as JSON.
    let categories = || hit.json("_pkc").filter(|value| matches!(value, Value::Array(_)));
    let category = categories().or_else(|| hit.text("_pkc").map(Value::string));
    let parts = [
        ("sku", hit.text("_pks").map(Value::string)),
        ("name", hit.text("_pkn").map(Value::string)),
        ("category", category),
        ("price", hit.number("_pkp")),
    ];
    let parts: Fields =
        parts.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect();
    (!parts.is_empty()).then_some(Value::Object(parts))
}

/// Custom variables, `{"1":["name","value"]}`.
fn variables(hit: Hit<'_>, key: &str) -> Fields {
    let Some(Value::Object(slots)) = hit.json(key) else { return Fields::new() };
    let pair = |slot: Value| {
        let Value::Array(pair) = slot else { return None };
        let [Value::String(name), value] = <[Value; 2]>::try_from(pair).ok()? else { return None };
        is_there(&value).then_some((name, value))
    };
    slots.into_iter().filter_map(|(_, slot)| pair(slot)).collect()
}

/// A stated time: seconds, or a date and time in UTC.
fn time(text: &str) -> Value {
    match text.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000)) {
        Some(millis) => {
            Number::new(&millis.to_string()).map_or_else(|| Value::string(text), Value::Number)
        }
        None => Value::string(format!("{}Z", text.replacen(' ', "T", 1))),
    }
}

/// What a page passes on of its visitor's choice, under the names that the pixel has.
fn consent(hit: Hit<'_>) -> Option<Value> {
    let keys = [
        ("gdpr", "gdpr"),
        ("gdpr_consent", "tcf"),
        ("gpp", "gpp"),
        ("gpp_sid", "gpp_sid"),
        ("us_privacy", "us_privacy"),
    ];
    let said: Fields = keys
        .iter()
        .filter_map(|(key, name)| Some(((*name).into(), Value::string(hit.text(key)?))))
        .collect();
    (!said.is_empty()).then_some(Value::Object(said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::protocols::golden::assert_golden;
    use crate::collect::protocols::golden::recorded;
    use crate::collect::protocols::golden::text;

    #[test]
    fn what_clients_send_becomes_canonical_events() {
        for name in ["matomo-js", "matomo-tracker"] {
            let queries = recorded(&format!("{name}.txt"));
            let read = queries.lines().map(|query| map(&from_query(query))).collect();
            assert_golden(&read, &format!("{name}.txt.ndjson"));
        }
        let (list, wanted) = read("", recorded("matomo-tracker.json").as_bytes()).unwrap();
        assert_eq!(wanted, Wanted::Count);
        assert_golden(&list, "matomo-tracker.ndjson");
    }

    fn one(query: &str) -> String {
        text(&map(&from_query(&format!("idsite=7&rec=1&{query}"))))
    }

    #[test]
    fn what_a_hit_is_of_follows_from_its_parameters() {
        for (query, expected) in [
            ("", r#""page_view""#),
            ("e_c=shop&e_a=undefined&e_n=x", r#""page_view""#),
            ("e_c=v&e_a=play&e_v=loud", r#""play","props":{"category":"v","value":"loud"}"#),
            ("idgoal=3&revenue=2.50", r#""goal","props":{"value":2.50,"goal_id":"3"}"#),
            ("idgoal=0&revenue=1", r#""cart_update","props":{"value":1}"#),
            (
                "idgoal=0&ec_id=o&ec_st=1&ec_tx=undefined&ec_items=%5B7%2C%5B%22a%22%5D%5D",
                r#""purchase","message_id":"order:o","props":{"order_id":"o","subtotal":1,"items":[{"sku":"a"}]}"#,
            ),
            ("search=shoes&search_count=4", r#""search","props":{"query":"shoes","results":4}"#),
            ("download=a.pdf&link=b", r#""download","props":{"url":"a.pdf"}"#),
            ("link=b", r#""outlink","props":{"url":"b"}"#),
            ("c_n=ad", r#""content_impression","props":{"name":"ad"}"#),
            (
                "c_n=ad&c_i=click",
                r#""content_interaction","props":{"name":"ad","interaction":"click"}"#,
            ),
            ("ping=1&ca=1", r#""page_ping""#),
        ] {
            assert_eq!(one(query), format!(r#"{{"site":"7","event":{expected}}}"#), "{query}");
        }
        assert!(one("ca=1&ma_id=x").starts_with("event_name: ca: expected a page view"));
        assert_eq!(text(&map(&from_query("idsite=7"))), "props: rec: expected 1");
    }

    #[test]
    fn a_hit_says_who_when_and_what_more() {
        assert_eq!(
            one(
                "_id=a&cid=b&uid=undefined&lang=de-DE,en;q=0.5&cdt=7&dimension1=x&dimension2=undefined&_cvar=%7B%221%22%3A%5B%22k%22%2C%22v%22%5D%2C%222%22%3A7%2C%223%22%3A%5B%22l%22%2C%22undefined%22%5D%7D"
            ),
            r#"{"site":"7","event":"page_view","time":7000,"locale":"de-DE","ids":{"anonymous_id":"b"},"props":{"k":"v","dimension1":"x"}}"#
        );
        assert_eq!(
            one(
                "cdt=2023-11-14+22:13:20&gdpr=1&gdpr_consent=CP&_pks=1&_pkc=%5B%22a%22%5D&email=a@b.example"
            ),
            r#"{"site":"7","event":"page_view","time":"2023-11-14T22:13:20Z","consent":{"gdpr":"1","tcf":"CP"},"props":{"product":{"sku":"1","category":["a"]}}}"#
        );
    }

    #[test]
    fn a_hit_comes_in_a_query_in_a_form_in_both_or_in_a_list() {
        let texts = |query: &str, body: &str| {
            let (read, wanted) = read(query, body.as_bytes()).unwrap();
            (read.iter().map(text).collect::<Vec<_>>().join("\n"), wanted)
        };
        let view = r#"{"site":"7","event":"page_view"}"#;
        assert_eq!(texts("idsite=7&rec=1", ""), (view.to_owned(), Wanted::Image));
        assert_eq!(texts("", "idsite=7&rec=1&send_image=0"), (view.to_owned(), Wanted::Nothing));
        assert_eq!(texts("idsite=7", "rec=1"), (view.to_owned(), Wanted::Image));
        let list =
            r#"{"requests":["?idsite=7&rec=1",{"idsite":7,"rec":1},7,"\ud83d"],"send_image":0}"#;
        let (found, wanted) = texts("", list);
        assert_eq!(wanted, Wanted::Nothing);
        let wrong = "props: requests: expected a query, or an object";
        assert!(found.starts_with(&format!("{view}\n{view}\n{wrong}\nprops: not JSON")), "{found}");
        for body in [&b"{"[..], b"{}", b"{\"requests\":[\"}", b"\xff"] {
            assert_eq!(read("", body).err().unwrap().why, NoEvents::NotJson);
        }
        let large = format!("idsite=7&rec=1&url={}", "x".repeat(33 << 10));
        assert_eq!(texts("", &large).0, "size: a hit is at most 32 KiB");
    }
}
