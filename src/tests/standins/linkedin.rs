//! LinkedIn's segments as their contract has them: holds who is in each, and refuses what is not of the form.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_json::json;

use super::Reply;
use super::Request;
use super::Service;

const BASE: &str = "/rest";
const VERSION: &str = "202604";
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An identifier: what it is, and its value.
pub(crate) type User = (String, String);

/// One account.
pub(crate) struct LinkedIn {
    account: String,
    token: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    segments: Vec<Segment>,
    /// Values of which a line is refused, with its status.
    bad: BTreeMap<String, u16>,
    /// For how many calls a new segment is not there.
    slow: u32,
    calls: Vec<String>,
    /// Elements of the largest call, and whether one had adds and removes.
    largest: usize,
    has_mixed: bool,
    violations: Vec<String>,
}

struct Segment {
    id: u64,
    source: (String, String),
    /// It is not there for so many calls.
    hidden: u32,
    members: BTreeSet<User>,
}

/// An answer that says that something is wrong.
pub(crate) fn wrong(status: u16, code: &str, message: &str) -> Reply {
    Reply::new(status, json!({ "status": status, "code": code, "message": message }).to_string())
}

impl LinkedIn {
    pub(crate) fn new(account: &str, token: &str) -> Self {
        Self { account: account.to_owned(), token: token.to_owned(), state: Mutex::default() }
    }

    /// The ids of the segments of one of ours.
    pub(crate) fn of(&self, segment: &str) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        state.segments.iter().filter(|one| one.source.1 == segment).map(|one| one.id).collect()
    }

    /// Who is in a segment. What was not as the contract has it fails the test.
    pub(crate) fn members(&self, id: u64) -> BTreeSet<User> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        let found = state.segments.iter().find(|one| one.id == id);
        found.map(|one| one.members.clone()).unwrap_or_default()
    }

    /// Lines of these values are refused.
    pub(crate) fn set_bad(&self, bad: &[(&str, u16)]) {
        let bad = bad.iter().map(|&(value, status)| (value.to_owned(), status)).collect();
        self.state.lock().unwrap().bad = bad;
    }

    /// A segment that is made is not there for so many calls.
    pub(crate) fn set_slow(&self, slow: u32) {
        self.state.lock().unwrap().slow = slow;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Elements of the largest call, and whether one had adds and removes.
    pub(crate) fn largest(&self) -> (usize, bool) {
        let state = self.state.lock().unwrap();
        (state.largest, state.has_mixed)
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        let path = request.path.strip_prefix(BASE).ok_or("another address")?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.state.lock().unwrap().calls.push(format!("{} {path}", request.method));
        let header = |name| request.header(name).ok_or_else(|| format!("no {name}"));
        let token = header("authorization")?.strip_prefix("Bearer ").ok_or("no Bearer")?;
        if token != self.token {
            return Ok(wrong(401, "INVALID_ACCESS_TOKEN", "Invalid access token"));
        }
        if header("x-restli-protocol-version")? != "2.0.0" {
            return Err("another protocol".into());
        }
        if header("linkedin-version")? != VERSION {
            return Ok(wrong(426, "NONEXISTENT_VERSION", "Requested version is not active"));
        }
        match (request.method.as_str(), path.split('/').collect::<Vec<_>>().as_slice()) {
            ("GET", ["", "dmpSegments"]) => self.find(query),
            ("POST", ["", "dmpSegments"]) => self.make(&body(request, query)?),
            ("POST", ["", "dmpSegments", id, "users"]) => {
                if header("x-restli-method")? != "BATCH_CREATE" {
                    return Err("another method".into());
                }
                let id = id.parse().map_err(|_| format!("segment {id}"))?;
                self.change(id, &body(request, query)?)
            }
            (method, _) => Err(format!("{method} {path}")),
        }
    }

    fn find(&self, query: &str) -> Result<Reply, String> {
        let mut parts = BTreeMap::new();
        for part in query.split('&') {
            let (key, value) = part.split_once('=').ok_or("a query")?;
            if value.contains([':', '(', ')', ',', '\'']) {
                return Err(format!("{value} is not encoded"));
            }
            let value = percent_decode_str(value).decode_utf8().map_err(|_| "UTF-8")?.into_owned();
            parts.insert(key, value);
        }
        let keys: Vec<&str> = parts.keys().copied().collect();
        if keys != ["account", "q", "sourcePlatform", "sourceSegmentId"] || parts["q"] != "account"
        {
            return Err(format!("query {query}"));
        }
        if parts["account"] != self.account {
            return Err("another account".into());
        }
        let source = (parts["sourcePlatform"].clone(), parts["sourceSegmentId"].clone());
        let state = self.state.lock().unwrap();
        let found = state.segments.iter().filter(|one| one.source == source).map(|one| {
            json!({ "id": one.id, "name": one.source.1, "sourcePlatform": one.source.0,
                    "sourceSegmentId": one.source.1, "account": self.account, "type": "USER",
                    "destinations": [{ "destination": "LINKEDIN", "status": "BUILDING" }] })
        });
        let elements: Vec<Value> = found.collect();
        let paging = json!({ "start": 0, "count": 10, "links": [] });
        Ok(Reply::new(200, json!({ "elements": elements, "paging": paging }).to_string()))
    }

    fn make(&self, body: &Value) -> Result<Reply, String> {
        let all = ["account", "destinations", "name", "sourcePlatform", "sourceSegmentId", "type"];
        keys(body, &all)?;
        let text = |key: &str| body[key].as_str().filter(|text| !text.is_empty()).ok_or("a text");
        if text("account")? != self.account
            || text("type")? != "USER"
            || body["destinations"] != json!([{ "destination": "LINKEDIN" }])
        {
            return Err(format!("make {body}"));
        }
        text("name")?;
        let source = (text("sourcePlatform")?.to_owned(), text("sourceSegmentId")?.to_owned());
        let mut state = self.state.lock().unwrap();
        if state.segments.iter().any(|one| one.source == source) {
            return Ok(wrong(409, "CONFLICT", "There is such a segment"));
        }
        let id = 10_804 + state.segments.len() as u64;
        let hidden = state.slow;
        state.segments.push(Segment { id, source, hidden, members: BTreeSet::new() });
        Ok(Reply::new(201, "").with("x-restli-id", &id.to_string()))
    }

    fn change(&self, id: u64, body: &Value) -> Result<Reply, String> {
        keys(body, &["elements"])?;
        let elements = body["elements"].as_array().filter(|list| !list.is_empty());
        let elements = elements.ok_or("elements")?;
        if elements.len() > 5_000 {
            return Err(format!("{} elements", elements.len()));
        }
        let changes: Vec<(bool, User)> = elements.iter().map(read).collect::<Result<_, _>>()?;
        let distinct: BTreeSet<&User> = changes.iter().map(|(_, user)| user).collect();
        if distinct.len() < changes.len() {
            return Err("one twice in a call".into());
        }
        let mut state = self.state.lock().unwrap();
        let State { segments, bad, largest, has_mixed, .. } = &mut *state;
        let missing = || wrong(404, "RESOURCE_NOT_FOUND", "No such segment");
        let Some(segment) = segments.iter_mut().find(|one| one.id == id) else {
            return Ok(missing());
        };
        if segment.hidden > 0 {
            segment.hidden -= 1;
            return Ok(missing());
        }
        *largest = (*largest).max(changes.len());
        let adds = changes.iter().filter(|(adds, _)| *adds).count();
        *has_mixed |= 0 < adds && adds < changes.len();
        let mut told = Vec::new();
        for (adds, user) in changes {
            if let Some(status) = bad.get(&user.1) {
                let error = json!({ "status": status, "message": "Invalid user id" });
                told.push(json!({ "status": status, "error": error }));
                continue;
            }
            match adds {
                true => segment.members.insert(user),
                false => segment.members.remove(&user),
            };
            told.push(json!({ "status": 201 }));
        }
        Ok(Reply::new(200, json!({ "elements": told }).to_string()))
    }
}

/// The body of a call that has no query.
fn body(request: &Request, query: &str) -> Result<Value, String> {
    if request.header("content-type") != Some("application/json") || !query.is_empty() {
        return Err("content type, or a query".into());
    }
    serde_json::from_slice(&request.body).map_err(|error| error.to_string())
}

fn keys(value: &Value, expected: &[&str]) -> Result<(), String> {
    let mut keys: Vec<&str> = value.as_object().ok_or("an object")?.keys().map(|k| &**k).collect();
    keys.sort_unstable();
    if keys == expected { Ok(()) } else { Err(format!("keys {keys:?}")) }
}

/// Whether an element adds, and whom.
fn read(element: &Value) -> Result<(bool, User), String> {
    keys(element, &["action", "userIds"])?;
    let adds = match element["action"].as_str() {
        Some("ADD") => true,
        Some("REMOVE") => false,
        _ => return Err(format!("action {}", element["action"])),
    };
    let [one] = element["userIds"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err("one user id".into());
    };
    keys(one, &["idType", "idValue"])?;
    let (of, value) = (one["idType"].as_str().ok_or("type")?, one["idValue"].as_str().ok_or("id")?);
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_fit = match of {
        "SHA256_EMAIL" => value.len() == 64 && is_hex(value) && value != NOTHING,
        "SHA512_EMAIL" => value.len() == 128 && is_hex(value),
        "GOOGLE_AID" => {
            let lengths: Vec<usize> = value.split('-').map(str::len).collect();
            lengths == [8, 4, 4, 4, 12] && is_hex(&value.replace('-', ""))
        }
        _ => false,
    };
    if is_fit {
        Ok((adds, (of.to_owned(), value.to_owned())))
    } else {
        Err(format!("{of} {value}"))
    }
}

impl Service for LinkedIn {
    fn answer(&self, request: &Request) -> Reply {
        self.take(request).unwrap_or_else(|violation| {
            self.state.lock().unwrap().violations.push(violation.clone());
            wrong(400, "ILLEGAL_ARGUMENT", &violation)
        })
    }
}
