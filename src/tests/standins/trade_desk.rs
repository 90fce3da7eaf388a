//! The Trade Desk's first-party Data API: holds the identifiers of each name with their minutes, and refuses what is not
//! as the contract has it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use serde_json::Value;
use serde_json::json;
use sha1::Sha1;

use super::Reply;
use super::Request;
use super::Service;

/// What is held of a name: minutes by kind and value of the identifier.
pub(crate) type Members = BTreeMap<(String, String), u64>;

const MOST_BYTES: usize = 2_500_000;
const MOST_ITEMS: usize = 1_600;
const MOST_MINUTES: u64 = 180 * 24 * 60;

/// The platform, as one advertiser sees it.
pub(crate) struct TradeDesk {
    advertiser: String,
    token: String,
    secret: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<String, Members>,
    /// Values that the platform takes for nobody's.
    bad: BTreeSet<String>,
    /// The bytes under each trace id.
    traces: BTreeMap<String, Vec<u8>>,
    repeats: usize,
    calls: usize,
    largest: usize,
    violations: Vec<String>,
}

impl TradeDesk {
    pub(crate) fn new(advertiser: &str, token: &str, secret: Option<&str>) -> Self {
        Self {
            advertiser: advertiser.to_owned(),
            token: token.to_owned(),
            secret: secret.map(str::to_owned),
            state: Mutex::default(),
        }
    }

    /// What it holds of a name. What was not as the contract has it fails the test.
    pub(crate) fn held(&self, name: &str) -> Members {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        state.held.get(name).cloned().unwrap_or_default()
    }

    /// Takes a value for nobody's from now on.
    pub(crate) fn refuse(&self, value: &str) {
        self.state.lock().unwrap().bad.insert(value.to_owned());
    }

    /// How many calls came, and how often one came again.
    pub(crate) fn calls(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.calls, state.repeats)
    }

    /// Items of the largest call.
    pub(crate) fn largest(&self) -> usize {
        self.state.lock().unwrap().largest
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        self.state.lock().unwrap().calls += 1;
        let header = |name| request.header(name).ok_or_else(|| format!("no {name}"));
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/data/advertiser") {
            return Err(format!("{} {}", request.method, request.path));
        }
        if header("content-type")? != "application/json" || header("ttd-auth")? != self.token {
            return Err("content type or token".into());
        }
        match (&self.secret, request.header("ttdsignature")) {
            (None, None) => {}
            (Some(secret), Some(signature)) => {
                let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
                mac.update(&request.body);
                if signature != STANDARD.encode(mac.finalize().into_bytes()) {
                    return Err("signature".into());
                }
            }
            _ => return Err("a signature where none is, or none where one is".into()),
        }
        if request.body.len() > MOST_BYTES {
            return Err("too large".into());
        }
        let body: Value = serde_json::from_slice(&request.body).map_err(|e| e.to_string())?;
        keys(&body, &["AdvertiserId", "DataLoadTraceId", "DataOrigins", "Items"])?;
        if body["AdvertiserId"] != self.advertiser {
            return Err("the advertiser".into());
        }
        self.origins(&body["DataOrigins"])?;
        let trace = body["DataLoadTraceId"].as_str().filter(|id| !id.is_empty()).ok_or("trace")?;
        let items = body["Items"].as_array().ok_or("items")?;
        if !(1..=MOST_ITEMS).contains(&items.len()) {
            return Err(format!("{} items", items.len()));
        }
        let items = items.iter().map(item).collect::<Result<Vec<_>, String>>()?;
        let who: BTreeSet<_> = items.iter().map(|item| &item.who).collect();
        if who.len() != items.len() {
            return Err("an identifier twice".into());
        }
        let mut state = self.state.lock().unwrap();
        state.largest = state.largest.max(items.len());
        match state.traces.get(trace) {
            Some(bytes) if *bytes != request.body => return Err("a repeat with other bytes".into()),
            Some(_) => state.repeats += 1,
            None => _ = state.traces.insert(trace.to_owned(), request.body.clone()),
        }
        let mut failed = Vec::new();
        for (number, item) in (1..).zip(items) {
            if state.bad.contains(&item.who.1) {
                failed.push(json!({
                    "ItemNumber": format!("{number}"),
                    "DataNumber": "1",
                    "DataName": item.name,
                    "ErrorCode": "UserNotMapped",
                    "Message": "The user is not mapped.",
                }));
                continue;
            }
            let held = state.held.entry(item.name).or_default();
            match item.minutes {
                0 => _ = held.remove(&item.who),
                minutes => _ = held.insert(item.who, minutes),
            }
        }
        let body = if failed.is_empty() { json!({}) } else { json!({ "FailedLines": failed }) };
        Ok(Reply::new(200, body.to_string()).with("Content-Type", "application/json"))
    }

    /// The advertiser's own data, and perhaps who brings it: the official client names itself.
    fn origins(&self, value: &Value) -> Result<(), String> {
        let origins = value.as_array().ok_or("origins")?;
        origins.iter().try_for_each(|origin| keys(origin, &["Id", "Type"]))?;
        let own = json!({ "Type": "Advertiser", "Id": self.advertiser });
        let is_other = |origin: &Value| origin["Type"] == "Integration" && origin["Id"].is_string();
        match &origins[..] {
            [first, rest @ ..] if *first == own && rest.iter().all(is_other) => Ok(()),
            _ => Err(format!("origins {value}")),
        }
    }
}

struct Item {
    who: (String, String),
    name: String,
    minutes: u64,
}

/// An object with these keys and no others.
fn keys(value: &Value, known: &[&str]) -> Result<(), String> {
    let mut keys: Vec<&str> = value.as_object().ok_or("an object")?.keys().map(|k| &**k).collect();
    keys.sort_unstable();
    if keys == known { Ok(()) } else { Err(format!("keys {keys:?}, not {known:?}")) }
}

fn item(value: &Value) -> Result<Item, String> {
    let kinds: Vec<&str> =
        ["TDID", "DAID", "UID2"].into_iter().filter(|kind| value.get(kind).is_some()).collect();
    let [kind] = kinds[..] else { return Err(format!("identifiers {kinds:?} of an item")) };
    let mut known = ["Data", kind];
    known.sort_unstable();
    keys(value, &known)?;
    let id = value[kind].as_str().ok_or("an identifier")?;
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    let is_hex = id.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    let fits = match kind {
        "UID2" => STANDARD.decode(id).is_ok() && id.len() == 44,
        _ => parts == [8, 4, 4, 4, 12] && is_hex,
    };
    let [data] = &value["Data"].as_array().ok_or("data")?[..] else { return Err("data".into()) };
    match data.get("TimestampUtc") {
        Some(time) => {
            keys(data, &["Name", "TimestampUtc", "TtlInMinutes"])?;
            let time = time.as_str().filter(|time| time.parse::<jiff::Timestamp>().is_ok());
            time.ok_or("a time")?;
        }
        None => keys(data, &["Name", "TtlInMinutes"])?,
    }
    let name = data["Name"].as_str().filter(|name| !name.is_empty()).ok_or("a name")?;
    let minutes =
        data["TtlInMinutes"].as_u64().filter(|ttl| *ttl <= MOST_MINUTES).ok_or("a ttl")?;
    if !fits {
        return Err(format!("no {kind}"));
    }
    Ok(Item { who: (kind.to_owned(), id.to_owned()), name: name.to_owned(), minutes })
}

impl Service for TradeDesk {
    fn answer(&self, request: &Request) -> Reply {
        if request.method == "HEAD" {
            return Reply::new(405, "");
        }
        match self.take(request) {
            Ok(reply) => reply,
            Err(violation) => {
                self.state.lock().unwrap().violations.push(violation.clone());
                Reply::new(400, violation)
            }
        }
    }
}
