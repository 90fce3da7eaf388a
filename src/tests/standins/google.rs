//! Google's Data Manager API as its discovery document and guides have it: holds who is in each list, works on requests for a
//! while, and refuses what is not of the form. The endpoint of tokens is at `/token`, and the page where somebody agrees at `/auth`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::RSA_PKCS1_2048_8192_SHA256;
use ring::signature::UnparsedPublicKey;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Reply;
use super::Request;
use super::Service;
use super::consent::Choice;
use super::consent::Consent;

const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SCOPE: &str = "https://www.googleapis.com/auth/datamanager";
const CLIENT: &str = "a-client";

/// A member: of which kind, and its value.
pub(crate) type Member = (String, String);

/// One account.
pub(crate) struct Google {
    account: String,
    /// The public key of the service account, and who that is.
    key: Vec<u8>,
    email: String,
    /// The schemas of the discovery document.
    schemas: Value,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lists: Vec<List>,
    /// Access tokens that are good, each for so many calls yet.
    tokens: BTreeMap<String, u32>,
    made_tokens: u32,
    /// How many calls a token is good for.
    calls_of_token: u32,
    refresh_token: String,
    consent: Consent,
    requests: Vec<Ingest>,
    /// How often a request is asked for before it is done.
    slow: u32,
    /// Values of members that are refused when a request is worked on, and whether it is said which they are.
    bad: BTreeSet<String>,
    tells: bool,
    /// Values for which a whole call is refused.
    malformed: BTreeSet<String>,
    largest: usize,
    violations: Vec<String>,
}

struct List {
    id: u64,
    name: String,
    key_type: String,
    members: BTreeSet<Member>,
}

struct Ingest {
    id: String,
    list: u64,
    is_add: bool,
    members: Vec<Member>,
    left: u32,
    status: Option<Value>,
}

/// `google.rpc.Status`.
pub(crate) fn status(code: u16, status: &str, reason: &str) -> Reply {
    let details = json!([{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason,
                           "domain": "datamanager.googleapis.com", "metadata": { "quota_limit": reason } }]);
    let body = json!({ "error": { "code": code, "message": reason, "status": status, "details": details } });
    Reply::new(code, body.to_string())
}

/// The discovery document that the official client has.
pub(crate) fn discovery() -> PathBuf {
    let venv = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/lib"));
    let python =
        std::fs::read_dir(&venv).expect("run `make tools`").next().unwrap().unwrap().path();
    python.join("site-packages/googleapiclient/discovery_cache/documents/datamanager.v1.json")
}

impl Google {
    /// `key` is the public key of the service account `email`.
    pub(crate) fn new(account: &str, email: &str, key: &[u8]) -> Self {
        let text = std::fs::read_to_string(discovery()).expect("run `make tools`");
        let document: Value = serde_json::from_str(&text).unwrap();
        let state = State { calls_of_token: u32::MAX, slow: 1, tells: true, ..State::default() };
        Self {
            account: account.to_owned(),
            key: key.to_vec(),
            email: email.to_owned(),
            schemas: document["schemas"].clone(),
            state: Mutex::new(state),
        }
    }

    /// Who is in a list of a name; `None` where there is none. What was not as the contract has it fails the test.
    pub(crate) fn members(&self, name: &str) -> Option<BTreeSet<Member>> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        let mut lists = state.lists.iter().filter(|list| list.name == name);
        let found = lists.next()?.members.clone();
        assert!(lists.next().is_none(), "two lists are named {name}");
        Some(found)
    }

    pub(crate) fn set_bad(&self, bad: &[&str], tells: bool) {
        let mut state = self.state.lock().unwrap();
        (state.bad, state.tells) = (bad.iter().map(|bad| (*bad).to_owned()).collect(), tells);
    }

    pub(crate) fn set_malformed(&self, malformed: &[&str]) {
        self.state.lock().unwrap().malformed =
            malformed.iter().map(|one| (*one).to_owned()).collect();
    }

    pub(crate) fn set_slow(&self, slow: u32) {
        self.state.lock().unwrap().slow = slow;
    }

    /// Tokens are good for so many calls from now on, and those that are out are not.
    pub(crate) fn expire_tokens(&self, calls: u32) {
        let mut state = self.state.lock().unwrap();
        state.tokens.clear();
        state.calls_of_token = calls;
    }

    pub(crate) fn set_refresh_token(&self, token: &str) {
        self.state.lock().unwrap().refresh_token = token.to_owned();
    }

    /// What somebody does who is asked to agree.
    pub(crate) fn set_choice(&self, choice: Choice) {
        self.state.lock().unwrap().consent.choice = choice;
    }

    /// What was not as the contract has it.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    pub(crate) fn refresh_token(&self) -> String {
        self.state.lock().unwrap().refresh_token.clone()
    }

    /// How many calls with members were taken, and the largest.
    pub(crate) fn requests(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.requests.len(), state.largest)
    }

    fn token(&self, request: &Request) -> Reply {
        let form: BTreeMap<String, String> =
            url::form_urlencoded::parse(&request.body).into_owned().collect();
        let wrong = |error: &str| Reply::new(400, json!({ "error": error }).to_string());
        let mut state = self.state.lock().unwrap();
        let mut answer = json!({ "expires_in": 3599, "token_type": "Bearer" });
        match form.get("grant_type").map(String::as_str) {
            Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => {
                if let Err(why) = self.check_assertion(&form["assertion"], request) {
                    state.violations.push(why);
                    return wrong("invalid_grant");
                }
            }
            Some("refresh_token") => {
                if form["refresh_token"] != state.refresh_token {
                    return wrong("invalid_grant");
                }
                if (form["client_id"].as_str(), form["client_secret"].as_str())
                    != (CLIENT, "its-secret")
                {
                    return Reply::new(401, json!({ "error": "invalid_client" }).to_string());
                }
                // The one before is not good any more.
                state.refresh_token = format!("{}+", state.refresh_token);
                answer["refresh_token"] = state.refresh_token.clone().into();
            }
            Some("authorization_code") => {
                if form.get("client_secret").map(String::as_str) != Some("its-secret") {
                    return Reply::new(401, json!({ "error": "invalid_client" }).to_string());
                }
                match state.consent.redeem(&form) {
                    Ok((more, has_refresh)) => {
                        answer["scope"] = more["scope"].clone();
                        if has_refresh {
                            state.refresh_token = "1//agreed".into();
                            answer["refresh_token"] = state.refresh_token.clone().into();
                        }
                    }
                    Err((error, violation)) => {
                        state.violations.extend(violation);
                        return wrong(error);
                    }
                }
            }
            _ => return wrong("unsupported_grant_type"),
        }
        state.made_tokens += 1;
        let token = format!("ya29.{}", state.made_tokens);
        let calls = state.calls_of_token;
        state.tokens.insert(token.clone(), calls);
        answer["access_token"] = token.into();
        Reply::new(200, answer.to_string())
    }

    fn check_assertion(&self, assertion: &str, request: &Request) -> Result<(), String> {
        let (signed, signature) = assertion.rsplit_once('.').ok_or("no signature")?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string());
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.key);
        key.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| "a wrong signature")?;
        let (header, claims) = signed.split_once('.').ok_or("no claims")?;
        let parse = |part: &str| {
            serde_json::from_slice::<Value>(&decode(part)?).map_err(|error| error.to_string())
        };
        if parse(header)? != json!({ "alg": "RS256", "typ": "JWT" }) {
            return Err("another header".into());
        }
        let claims = parse(claims)?;
        let host = request.header("host").ok_or("no host")?;
        let lives = claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat);
        let is_well = claims["iss"] == self.email
            && claims["scope"] == SCOPE
            && claims["aud"] == format!("http://{host}/token")
            && claims["iat"].as_i64().is_some_and(|iat| iat > 1_700_000_000)
            && lives.is_some_and(|lives| (1..=3600).contains(&lives));
        if is_well { Ok(()) } else { Err(format!("claims {claims}")) }
    }

    /// Whether a value is of a schema of the discovery document: no field more, and each of its type.
    fn conforms(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(named) = schema["$ref"].as_str() {
            let fields = &self.schemas[named]["properties"];
            let object = value.as_object().ok_or_else(|| format!("{at} is no object"))?;
            for (key, value) in object {
                let field = &fields[key];
                if field.is_null() || field["readOnly"] == true {
                    return Err(format!("{at}.{key} is no field of {named}"));
                }
                self.conforms(field, value, &format!("{at}.{key}"))?;
            }
            return Ok(());
        }
        let wrong = || format!("{at} is no {schema}: {value}");
        match schema["type"].as_str() {
            Some("array") => {
                let items = value.as_array().ok_or_else(wrong)?;
                items.iter().try_for_each(|item| self.conforms(&schema["items"], item, at))
            }
            Some("string") => {
                let text = value.as_str().ok_or_else(wrong)?;
                let is_one =
                    schema["enum"].as_array().is_none_or(|all| all.iter().any(|one| one == text));
                if is_one { Ok(()) } else { Err(wrong()) }
            }
            Some("boolean") => value.as_bool().map(|_| ()).ok_or_else(wrong),
            Some("integer") => value.as_i64().map(|_| ()).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let mut query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        query.remove("alt");
        let token = request.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        {
            let mut state = self.state.lock().unwrap();
            let Some(calls) = token.and_then(|token| state.tokens.get_mut(token)) else {
                return Ok(status(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED"));
            };
            if *calls == 0 {
                return Ok(status(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED"));
            }
            *calls -= 1;
        }
        let lists = format!("/v1/accountTypes/GOOGLE_ADS/accounts/{}/userLists", self.account);
        let body = || -> Result<Value, String> {
            if request
                .header("content-type")
                .is_none_or(|kind| !kind.starts_with("application/json"))
            {
                return Err("no JSON".into());
            }
            serde_json::from_slice(&request.body).map_err(|error| error.to_string())
        };
        match (request.method.as_str(), path) {
            ("GET", path) if path == lists => self.list(&query),
            ("POST", path) if path == lists => self.make(&body()?),
            ("POST", "/v1/audienceMembers:ingest") => self.change(&body()?, true),
            ("POST", "/v1/audienceMembers:remove") => self.change(&body()?, false),
            ("GET", "/v1/requestStatus:retrieve") => Ok(self.retrieve(&query["requestId"])),
            (method, _) => Err(format!("{method} {path}")),
        }
    }

    /// Two lists a page.
    fn list(&self, query: &BTreeMap<String, String>) -> Result<Reply, String> {
        if query.keys().any(|key| !["pageSize", "pageToken"].contains(&key.as_str())) {
            return Err(format!("query {query:?}"));
        }
        let from: usize =
            query.get("pageToken").map_or(Ok(0), |token| token.parse()).map_err(|_| "a page")?;
        let state = self.state.lock().unwrap();
        let page: Vec<Value> = state.lists.iter().skip(from).take(2).map(List::shown).collect();
        let mut answer = json!({ "userLists": page });
        if from + 2 < state.lists.len() {
            answer["nextPageToken"] = (from + 2).to_string().into();
        }
        Ok(Reply::new(200, answer.to_string()))
    }

    fn make(&self, body: &Value) -> Result<Reply, String> {
        self.conforms(&json!({ "$ref": "UserList" }), body, "userList")?;
        let seconds = body["membershipDuration"]
            .as_str()
            .and_then(|text| text.strip_suffix('s')?.parse().ok());
        let seconds: u64 = seconds.ok_or("no duration")?;
        if !seconds.is_multiple_of(86_400) || seconds > 540 * 86_400 {
            return Ok(status(400, "INVALID_ARGUMENT", "MEMBERSHIP_DURATION_TOO_LONG"));
        }
        let info = &body["ingestedUserListInfo"];
        let [key_type] = &info["uploadKeyTypes"].as_array().ok_or("no key types")?[..] else {
            return Err("key types are not mixed".into());
        };
        let of_type = match key_type.as_str().unwrap_or_default() {
            "CONTACT_ID" => &info["contactIdInfo"],
            "MOBILE_ID" if info["mobileIdInfo"]["appId"].is_string() => &info["mobileIdInfo"],
            "USER_ID" => &info["userIdInfo"],
            other => return Err(format!("key type {other}")),
        };
        if of_type["dataSourceType"] != "DATA_SOURCE_TYPE_FIRST_PARTY" {
            return Err("no data source".into());
        }
        let name = body["displayName"].as_str().ok_or("no name")?.to_owned();
        let mut state = self.state.lock().unwrap();
        if state.lists.iter().any(|list| list.name == name) {
            return Ok(status(409, "ALREADY_EXISTS", "NAME_ALREADY_USED"));
        }
        let id = 8_765_432_100_000 + state.lists.len() as u64;
        let key_type = key_type.as_str().unwrap().to_owned();
        state.lists.push(List { id, name, key_type, members: BTreeSet::new() });
        Ok(Reply::new(200, state.lists[state.lists.len() - 1].shown().to_string()))
    }

    fn change(&self, body: &Value, is_add: bool) -> Result<Reply, String> {
        let schema =
            if is_add { "IngestAudienceMembersRequest" } else { "RemoveAudienceMembersRequest" };
        self.conforms(&json!({ "$ref": schema }), body, "request")?;
        let [destination] = &body["destinations"].as_array().ok_or("no destinations")?[..] else {
            return Err("not one destination".into());
        };
        let account = json!({ "accountType": "GOOGLE_ADS", "accountId": self.account });
        if destination["operatingAccount"] != account {
            return Ok(status(403, "PERMISSION_DENIED", "ACCESS_DENIED"));
        }
        let list: u64 = destination["productDestinationId"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .ok_or("no list")?;
        let members = body["audienceMembers"].as_array().ok_or("no members")?;
        let mut state = self.state.lock().unwrap();
        state.largest = state.largest.max(members.len());
        let Some(of) = state.lists.iter().find(|one| one.id == list) else {
            return Ok(status(404, "NOT_FOUND", "DESTINATION_NOT_FOUND"));
        };
        if members.is_empty() || members.len() > 10_000 {
            return Ok(status(400, "INVALID_ARGUMENT", "TOO_MANY_AUDIENCE_MEMBERS"));
        }
        if of.key_type == "CONTACT_ID" {
            if body["encoding"] != "HEX" {
                return Err("no encoding".into());
            }
            if is_add && body["termsOfService"]["customerMatchTermsOfServiceStatus"] != "ACCEPTED" {
                return Ok(status(400, "FAILED_PRECONDITION", "TERMS_AND_CONDITIONS_NOT_SIGNED"));
            }
        }
        let mut read = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let member = identity(&of.key_type, member)?;
            let is_hash = |text: &str| {
                text.len() == 64
                    && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                    && text != NOTHING
            };
            if (of.key_type == "CONTACT_ID" && !is_hash(&member.1))
                || state.malformed.contains(&member.1)
            {
                let field = format!("audience_members.audience_members[{index}].user_data");
                let details = json!([
                    { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "INVALID_SHA256_FORMAT" },
                    { "@type": "type.googleapis.com/google.rpc.BadRequest",
                      "fieldViolations": [{ "field": field, "description": "not a hash" }] },
                ]);
                let error = json!({ "code": 400, "message": "no", "status": "INVALID_ARGUMENT", "details": details });
                return Ok(Reply::new(400, json!({ "error": error }).to_string()));
            }
            read.push(member);
        }
        let id = format!("request-{}", state.requests.len());
        let left = state.slow;
        state.requests.push(Ingest {
            id: id.clone(),
            list,
            is_add,
            members: read,
            left,
            status: None,
        });
        Ok(Reply::new(200, json!({ "requestId": id, "fieldWarnings": [] }).to_string()))
    }

    fn retrieve(&self, id: &str) -> Reply {
        let mut state = self.state.lock().unwrap();
        let State { requests, lists, bad, tells, .. } = &mut *state;
        let Some(request) = requests.iter_mut().find(|request| request.id == id) else {
            return status(404, "NOT_FOUND", "REQUEST_NOT_FOUND");
        };
        let told = match &request.status {
            Some(told) => told.clone(),
            None if request.left > 0 => {
                request.left -= 1;
                json!({ "requestStatus": "PROCESSING" })
            }
            None => {
                let list = lists.iter_mut().find(|list| list.id == request.list).unwrap();
                let mut indices = Vec::new();
                for (index, member) in request.members.iter().enumerate() {
                    match request.is_add {
                        true if bad.contains(&member.1) => indices.push(index),
                        true => _ = list.members.insert(member.clone()),
                        false => _ = list.members.remove(member),
                    }
                }
                let told = if indices.is_empty() {
                    json!({ "requestStatus": "SUCCESS" })
                } else {
                    let mut count = Map::new();
                    count.insert("reason".into(), "PROCESSING_ERROR_REASON_NO_CONSENT".into());
                    count.insert("recordCount".into(), indices.len().to_string().into());
                    if *tells {
                        count.insert("recordIndices".into(), indices.clone().into());
                    }
                    let all = indices.len() == request.members.len();
                    json!({ "requestStatus": if all { "FAILED" } else { "PARTIAL_SUCCESS" },
                            "errorInfo": { "errorCounts": [count] } })
                };
                request.status = Some(told.clone());
                told
            }
        };
        Reply::new(200, json!({ "requestStatusPerDestination": [told] }).to_string())
    }
}

impl List {
    fn shown(&self) -> Value {
        json!({ "name": format!("accountTypes/GOOGLE_ADS/accounts/1/userLists/{}", self.id), "id": self.id.to_string(),
                "displayName": self.name, "membershipDuration": "46656000s" })
    }
}

/// What a member is known by; it has to be of the list's kind.
fn identity(key_type: &str, member: &Value) -> Result<Member, String> {
    let wrong = || format!("{member} in a list of {key_type}");
    let fields = member.as_object().filter(|fields| fields.len() == 1).ok_or_else(wrong)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    match key_type {
        "CONTACT_ID" => {
            let ids = fields.get("userData").and_then(|data| data["userIdentifiers"].as_array());
            let [id] = &ids.ok_or_else(wrong)?[..] else {
                return Err("several people in one".into());
            };
            let (kind, value) = id.as_object().and_then(|id| id.iter().next()).ok_or_else(wrong)?;
            Ok((kind.clone(), text(value)?))
        }
        "MOBILE_ID" => {
            let ids = fields.get("mobileData").and_then(|data| data["mobileIds"].as_array());
            let [id] = &ids.ok_or_else(wrong)?[..] else {
                return Err("several devices in one".into());
            };
            Ok(("mobile".into(), text(id)?))
        }
        _ => Ok((
            "user".into(),
            text(fields.get("userIdData").map(|data| &data["userId"]).ok_or_else(wrong)?)?,
        )),
    }
}

impl Service for Google {
    fn answer(&self, request: &Request) -> Reply {
        if request.path == "/token" {
            return self.token(request);
        }
        if request.method == "GET" && request.path.starts_with("/auth?") {
            let asked = self.state.lock().unwrap().consent.ask(SCOPE, CLIENT, &request.path);
            return asked.unwrap_or_else(|why| {
                self.state.lock().unwrap().violations.push(why.clone());
                Reply::new(400, why)
            });
        }
        self.take(request).unwrap_or_else(|why| {
            self.state.lock().unwrap().violations.push(why.clone());
            status(400, "INVALID_ARGUMENT", &why)
        })
    }
}
