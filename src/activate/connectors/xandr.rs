//! `kind = "xandr"`: segments of Xandr Monetize and Curate, by the Batch Segment Service.
//!
//! ```text
//! POST /auth                              a token for two hours
//! GET  /segment?member_id=…&code=…        finds one, POST /segment?member_id=… makes one
//! POST /batch-segment?member_id=…         a job, and where to upload to within five minutes
//! POST <upload_url>                       the file
//! GET  /batch-segment?member_id=…&job_id=…  a minute later and on: phase, counts, some lines that were wrong
//! ```
//! A user's line says when membership ends, in minutes, and -1 takes it away. What was uploaded is worked on for up to a day. An
//! answer's own status says nothing: what it holds does.
//!
//! Written from published documentation, and verified against a stand-in; it never met the platform itself.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flate2::Compression;
use flate2::GzBuilder;
use parking_lot::Mutex;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use serde_json::json;
use url::Url;

use super::avro;
use super::fit;
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Found;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::config::Xandr;
use crate::config::XandrFormat;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::HOUR;
use crate::model::time::MINUTE;
use crate::net::Answered;
use crate::net::Limit;
use crate::net::Outgoing;
use crate::net::OutgoingRequest;
use crate::net::Pace;
use crate::net::read_secret;
use crate::store::ledger::Batch;
use crate::store::ledger::Job;
use crate::store::ledger::Refusal;

/// A file of so many lines is some MiB: far below the most, and small enough to prepare in memory.
const MAX_ROWS: usize = 50_000;
const NAMESPACES: &[&str] = &["xandr", "idfa", "gaid", "rida", "email_sha256"];
const TEXT_NAMESPACES: &[&str] = &["xandr", "idfa", "gaid", "rida"];
const TIMEOUT: Duration = Duration::from_secs(60);
/// A token is good for two hours without use.
const TOKEN: Millis = 2 * HOUR - 5 * MINUTE;
/// How often a member may call, of reads and of writes: all are counted as the same here.
const LIMITS: &[Limit] = &[Limit::a_minute(1_000)];
/// So often one may log in within so long.
const LOGINS: (usize, Millis) = (10, 5 * MINUTE);
/// Where files are uploaded to, beside the API's own host.
const HOSTS: [&str; 3] = [".adnxs.net", ".adnxs.com", ".appnexus.com"];
/// Ends a job's name where nobody knows whether it has its file.
const UNSURE: char = '?';
/// So many times the pace, which is a minute, a job waits for its file.
const WINDOW: Millis = 6;
/// What is not done is not asked for less often than this.
const LONGEST_POLL: Millis = HOUR;
const WRONG: [&str; 5] = [
    "num_invalid_format",
    "num_invalid_user",
    "num_invalid_segment",
    "num_unauth_segment",
    "num_past_expiration",
];
/// Xandr's own schema, of the kinds of ids that are sent here.
const SCHEMA: &str = r#"{"type":"record","name":"user","fields":[{"name":"uid","type":[{"name":"anid","type":"long"},{"name":"device_id","type":"record","fields":[{"name":"id","type":"string"},{"name":"domain","type":{"name":"domain_type","type":"enum","symbols":["idfa","sha1udid","md5udid","openudid","aaid","windowsadid","rida","tifa","vida","lgudid"]}}]},{"name":"hem","type":"record","fields":[{"name":"hex_encoded","type":"string"}]}]},{"name":"segments","type":{"type":"array","items":{"name":"segment","type":"record","fields":[{"name":"id","type":"int","default":0},{"name":"code","type":"string","default":""},{"name":"member_id","type":"int","default":0},{"name":"expiration","type":"int","default":0},{"name":"timestamp","type":"long","default":0},{"name":"value","type":"int","default":0}]}}}]}"#;

/// Keeps segments of one member.
pub struct XandrConnector {
    settings: Xandr,
    outgoing: Outgoing,
    pace: Arc<Pace>,
    caps: Caps,
    session: Mutex<Session>,
    /// Nothing is uploaded before.
    next_upload: AtomicI64,
}

#[derive(Default)]
struct Session {
    token: Option<(String, Millis)>,
    /// When one was asked for.
    logins: VecDeque<Millis>,
}

/// A user, in the order of lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum User<'a> {
    Xandr(u64),
    /// An id, its kind in Avro and in text.
    Device(&'a str, &'static str, &'static str),
    Hash(&'a str),
}

impl XandrConnector {
    /// A connector for a member; nothing is called yet.
    pub fn new(settings: Xandr, outgoing: Outgoing) -> Self {
        let namespaces = match settings.format {
            XandrFormat::Avro => NAMESPACES,
            XandrFormat::Text => TEXT_NAMESPACES,
        };
        let caps = Caps {
            max_rows: MAX_ROWS,
            namespaces: Some(namespaces),
            mixes: true,
            ttl: Some(settings.ttl.0),
            min_size: None,
        };
        let next_upload = AtomicI64::new(Millis::MIN);
        let pace = outgoing.pace(settings.url.as_str());
        Self { settings, outgoing, pace, caps, session: Mutex::default(), next_upload }
    }

    fn name(&self) -> String {
        self.settings.url.to_string()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.url.as_str().trim_end_matches('/'))
    }

    fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answered, Verdict> {
        let request = OutgoingRequest { method, url, headers, body, timeout: TIMEOUT };
        self.outgoing.call(&request).map_err(|error| http::unanswered(&self.name(), &error))
    }

    /// A token; asked for where there is none, and not oftener than one may.
    fn token(&self, now: Millis) -> Result<String, Verdict> {
        let mut session = self.session.lock();
        if let Some((token, until)) = &session.token
            && now < *until
        {
            return Ok(token.clone());
        }
        let (most, within) = LOGINS;
        while session.logins.front().is_some_and(|at| *at <= now - within) {
            session.logins.pop_front();
        }
        if session.logins.len() >= most {
            let first = session.logins.front().copied().unwrap_or(now);
            return Err(Verdict::Throttled(Some(first + within)));
        }
        let Xandr { username, password, .. } = &self.settings;
        let password = read_secret("password", password).map_err(Verdict::Retry)?;
        let body = json!({ "auth": { "username": username, "password": password } }).to_string();
        session.logins.push_back(now);
        let json = [("Content-Type", "application/json")];
        let answered = self.send("POST", &self.url("/auth"), &json, body.as_bytes())?;
        let told = response(&self.name(), &answered, now).map_err(|verdict| match verdict {
            Verdict::Fatal(_) => {
                Verdict::Fatal(format!("{} does not let {username} in", self.name()))
            }
            verdict => verdict,
        })?;
        let token =
            told["token"].as_str().filter(|token| token.bytes().all(|b| b.is_ascii_graphic()));
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Err(Verdict::Retry(format!("{} gave no token", self.name())));
        };
        session.token = Some((token.to_owned(), now + TOKEN));
        Ok(token.to_owned())
    }

    /// Makes a call of the member's, and takes what it answers; logs in anew, once, where the token is not known any more.
    fn call(&self, method: &str, path: &str, body: &[u8], now: Millis) -> Result<Value, Verdict> {
        for is_last in [false, true] {
            let token = self.token(now)?;
            let mut headers = vec![("Authorization", token.as_str())];
            if !body.is_empty() {
                headers.push(("Content-Type", "application/json"));
            }
            http::keep_pace(&self.pace, LIMITS, now)?;
            let answered = self.send(method, &self.url(path), &headers, body)?;
            if is_no_auth(&answered) && !is_last {
                self.session.lock().token = None;
                continue;
            }
            return response(&self.name(), &answered, now);
        }
        unreachable!("the second turn is the last")
    }

    /// The place of a segment that may be new.
    fn settling(&self, id: i32, now: Millis) -> String {
        format!("{id}@{}", now + self.settings.settle.0)
    }

    fn member(&self) -> &str {
        &self.settings.member
    }

    /// Where a file may go: where the API is, or to the platform's own hosts, and not less safely.
    fn upload_url(&self, text: &str) -> Option<String> {
        let (own, url) = (Url::parse(self.settings.url.as_str()).ok()?, Url::parse(text).ok()?);
        let host = url.host_str()?;
        let is_known = own.host_str() == Some(host) && own.port() == url.port()
            || HOSTS.iter().any(|end| host.ends_with(end));
        let is_as_safe = url.scheme() == "https" || url.scheme() == own.scheme();
        let is_plain = url.username().is_empty() && url.password().is_none();
        (is_known && is_as_safe && is_plain).then(|| url.into())
    }

    fn user<'a>(&self, identifier: &'a Identifier) -> Result<User<'a>, &'static str> {
        let value = identifier.value();
        let device = |domain, suffix| match fit::unfit_device(value) {
            None => Ok(User::Device(value, domain, suffix)),
            Some(why) => Err(why),
        };
        match (identifier.namespace.as_str(), self.settings.format) {
            ("xandr", _) => match value.parse::<u64>() {
                // 0 and -1 are browsers that said no.
                Ok(id @ 1..=0x7fff_ffff_ffff_ffff) if value == id.to_string() => {
                    Ok(User::Xandr(id))
                }
                _ => Err("it is no id of Xandr's: a number from 1 on"),
            },
            ("idfa", _) => device("idfa", "^3"),
            ("gaid", _) => device("aaid", "^8"),
            ("rida", _) => device("rida", "^10"),
            ("email_sha256", XandrFormat::Avro) => {
                fit::unfit_hash(value).map_or(Ok(User::Hash(value)), Err)
            }
            _ => Err("the platform takes no such identifier"),
        }
    }
}

/// A segment's id, and until when it is left alone. 0 is no segment: neither the configuration nor an answer gives it.
fn place_of(place: &str) -> (i32, Millis) {
    let (id, until) = place.split_once('@').unwrap_or((place, ""));
    (id.parse().unwrap_or(0), until.parse().unwrap_or(Millis::MIN))
}

fn is_no_auth(answered: &Answered) -> bool {
    let told: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
    answered.status == 401 || told["response"]["error_id"] == "NOAUTH"
}

/// What an answer holds; else what that means. Pure.
fn response(name: &str, answered: &Answered, now: Millis) -> Result<Value, Verdict> {
    let mut told: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
    let told = told["response"].take();
    let said = || match told["error"].as_str() {
        Some(error) => {
            let error: String = error.chars().filter(|c| !c.is_control()).take(300).collect();
            format!("{name}: {} {error}", told["error_id"].as_str().unwrap_or_default())
        }
        None => http::said(name, answered),
    };
    let error_id = told["error_id"].as_str().unwrap_or_default();
    let error_code = told["error_code"].as_str().unwrap_or_default();
    match (error_id, error_code, answered.status) {
        ("RATE_LIMIT_EXCEEDED", ..) | (_, "RATE_LIMIT_EXCEEDED", _) => {
            let until = http::wait_until(answered, now).unwrap_or(now + HOUR);
            return Err(Verdict::Throttled(Some(until)));
        }
        ("FILESIZE_LIMIT_EXCEEDED", ..) | (_, "FILESIZE_LIMIT_EXCEEDED", _) | (.., 413) => {
            return Err(Verdict::Split(said()));
        }
        ("NOAUTH", ..) | (.., 401) => {
            return Err(Verdict::Fatal(format!("not let in: {}", said())));
        }
        ("UNAUTH", ..) | (.., 403) => {
            return Err(Verdict::Fatal(format!("may not do this: {}", said())));
        }
        ("SYSTEM" | "INTEGRITY", ..) => return Err(Verdict::Retry(said())),
        ("", "", 200..=299) => {}
        (.., status) => {
            let later = http::later(name, answered, now);
            return Err(match later {
                Some(later) => later,
                None if status == 404 => Verdict::Gone(said()),
                None => Verdict::Fatal(said()),
            });
        }
    }
    match told["status"].as_str() {
        Some("OK") => Ok(told),
        Some(_) => Err(Verdict::Fatal(said())),
        None => Err(Verdict::Unknown(http::said(name, answered))),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// A segment's id, which files have as a number.
fn segment_of(value: &Value) -> Option<i32> {
    i32::try_from(number(value)).ok().filter(|id| *id > 0)
}

/// An id, which comes as a number or as a text.
fn id_of(value: &Value) -> Option<String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ((1..=128).contains(&text.len()) && text.bytes().all(fits)).then_some(text)
}

/// The job that an answer tells of.
fn job_of(told: &Value) -> &Value {
    match &told["batch_segment_upload_job"] {
        Value::Array(jobs) => jobs.first().unwrap_or(&Value::Null),
        job => job,
    }
}

/// What became of an upload. `lines` has each line of the batch by how the file begins it. Pure.
fn judge(job: &Value, lines: &BTreeMap<String, usize>, separators: [char; 2]) -> Option<Verdict> {
    match job["phase"].as_str() {
        Some("completed") => {}
        Some("error") => {
            let why = job["error_code"].as_str().or_else(|| job["error_message"].as_str());
            return Some(match why {
                Some("FILESIZE_LIMIT_EXCEEDED") => Verdict::Split("the file is too large".into()),
                // Nothing of it was taken.
                why => Verdict::Gone(format!(
                    "the upload failed there: {}",
                    why.unwrap_or("no reason")
                )),
            });
        }
        _ => return None,
    }
    let wrong: Vec<(&str, u64)> = WRONG
        .into_iter()
        .map(|kind| (kind, number(&job[kind])))
        .filter(|(_, count)| *count > 0)
        .collect();
    if wrong.is_empty() {
        return Some(Verdict::Accepted);
    }
    let shown: Vec<String> = wrong.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let shown = shown.join(", ");
    if wrong.iter().any(|(kind, _)| *kind == "num_unauth_segment") {
        return Some(Verdict::Fatal(format!("the segment is not ours to fill: {shown}")));
    }
    if wrong.iter().any(|(kind, _)| *kind == "num_invalid_segment") {
        // No line is wrong by itself: a segment is known everywhere after a while.
        return Some(Verdict::Gone(format!(
            "the segment is not known yet, or not any more: {shown}"
        )));
    }
    let all: u64 = wrong.iter().map(|(_, count)| count).sum();
    let mut refused = BTreeMap::new();
    for text in job["error_log_lines"].as_str().unwrap_or_default().lines() {
        // What is wrong, and then the line as it was.
        let Some((kind, line)) = text.trim().split_once('-') else { continue };
        let uid = line.split(separators[0]).next().unwrap_or_default();
        let domain = line.rsplit_once('^').map_or("", |(_, domain)| domain);
        let key = if domain.is_empty() { uid.to_owned() } else { format!("{uid}^{domain}") };
        if let Some(at) = lines.get(&key).filter(|_| WRONG.contains(&kind)) {
            refused.insert(*at, kind.to_owned());
        }
    }
    Some(match refused.len() as u64 == all {
        true => {
            Verdict::Partial(refused.into_iter().map(|(line, why)| Refusal { line, why }).collect())
        }
        false => Verdict::Split(shown),
    })
}

impl User<'_> {
    /// How a line of text begins, with what ends it.
    fn key(&self) -> String {
        match self {
            Self::Xandr(id) => id.to_string(),
            Self::Device(id, _, suffix) => format!("{id}{suffix}"),
            Self::Hash(hash) => (*hash).to_owned(),
        }
    }
}

/// Minutes as files have them.
fn minutes(ttl: Millis) -> i32 {
    i32::try_from(ttl / MINUTE).unwrap_or(i32::MAX)
}

fn text(lines: &[(User<'_>, i32)], segment: i32, [uid, field]: [char; 2]) -> Vec<u8> {
    let mut out = String::new();
    for (user, minutes) in lines {
        let (id, suffix) = match user {
            User::Xandr(id) => (id.to_string(), ""),
            User::Device(id, _, suffix) => ((*id).to_owned(), *suffix),
            User::Hash(hash) => ((*hash).to_owned(), ""),
        };
        out.push_str(&format!("{id}{uid}{segment}{field}{minutes}{suffix}\n"));
    }
    out.into_bytes()
}

fn records(lines: &[(User<'_>, i32)], segment: i32, sync: [u8; 16]) -> Vec<u8> {
    let domains = ["idfa", "sha1udid", "md5udid", "openudid", "aaid", "windowsadid", "rida"];
    let mut file = avro::File::new(SCHEMA, sync);
    for (user, minutes) in lines {
        file.record(|out| {
            match user {
                User::Xandr(id) => {
                    avro::put_long(out, 0);
                    avro::put_long(out, i64::try_from(*id).unwrap_or(i64::MAX));
                }
                User::Device(id, domain, _) => {
                    avro::put_long(out, 1);
                    avro::put_string(out, id);
                    let at = domains.iter().position(|one| one == domain).unwrap_or(0);
                    avro::put_long(out, i64::try_from(at).unwrap_or(0));
                }
                User::Hash(hash) => {
                    avro::put_long(out, 2);
                    avro::put_string(out, hash);
                }
            }
            // An array of one: id, code, member_id, expiration, timestamp, value.
            avro::put_long(out, 1);
            avro::put_long(out, segment.into());
            avro::put_string(out, "");
            avro::put_long(out, 0);
            avro::put_long(out, (*minutes).into());
            avro::put_long(out, 0);
            avro::put_long(out, 0);
            avro::put_long(out, 0);
        });
    }
    file.finish()
}

impl Connector for XandrConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        let path = format!("/segment?member_id={}&num_elements=1", self.member());
        let tried = self.call("GET", &path, b"", now);
        tried.map(|_| ()).or_else(|verdict| verdict.why().map_or(Ok(()), Err))
    }

    fn place(&self, segment: &str) -> Place {
        match self.settings.audiences.get(segment) {
            Some(place) => Place::Named(place.clone()),
            None => Place::Made,
        }
    }

    fn find(&self, segment: &str, now: Millis) -> Result<Found, Verdict> {
        let code = utf8_percent_encode(segment, NON_ALPHANUMERIC);
        let path = format!("/segment?member_id={}&code={code}", self.member());
        let told = match self.call("GET", &path, b"", now) {
            Err(Verdict::Gone(_)) => return Ok(Found::Nothing),
            told => told?,
        };
        let mut all = match &told["segments"] {
            Value::Array(all) => all.clone(),
            _ => vec![told["segment"].clone()],
        };
        all.retain(|one| one["code"] == segment);
        let id = all.first().and_then(|one| segment_of(&one["id"]));
        // It may be the one of which we never heard that it was made.
        Ok(id.map_or(Found::Nothing, |id| Found::Place(self.settling(id, now))))
    }

    fn make(&self, segment: &str, now: Millis) -> Result<String, Verdict> {
        let body = json!({ "segment": {
            "short_name": segment,
            "code": segment,
            "expire_minutes": minutes(self.settings.ttl.0),
        } });
        let path = format!("/segment?member_id={}", self.member());
        let told = self.call("POST", &path, body.to_string().as_bytes(), now)?;
        let id = segment_of(&told["id"]).or_else(|| segment_of(&told["segment"]["id"]));
        let id = id.ok_or_else(|| {
            Verdict::Unknown(format!(
                "{} made a segment for {segment} and did not say its id",
                self.name()
            ))
        })?;
        Ok(self.settling(id, now))
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let ends = minutes(self.settings.ttl.0);
        let adds = batch.changes.adds.iter().map(|identifier| (identifier, ends));
        let removes = batch.changes.removes.iter().map(|identifier| (identifier, -1));
        let (mut lines, mut refused) = (Vec::with_capacity(batch.changes.len()), Vec::new());
        for (line, (identifier, minutes)) in adds.chain(removes).enumerate() {
            match self.user(identifier) {
                Ok(user) => lines.push((user, minutes)),
                Err(why) => refused.push(Refusal { line, why: why.to_owned() }),
            }
        }
        // As the platform wants them: sorted by id.
        lines.sort();
        let (segment, _) = place_of(place);
        let id = batch.id();
        let mut sync = [0; 16];
        sync.iter_mut().zip(id.as_str().bytes()).for_each(|(to, from)| *to = from);
        let mut body = match self.settings.format {
            XandrFormat::Avro => records(&lines, segment, sync),
            XandrFormat::Text => text(&lines, segment, self.settings.separators),
        };
        if self.settings.gzip {
            let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
            let done = packed.write_all(&body).and_then(|()| packed.finish());
            body = done.expect("a Vec takes all");
        }
        let address = place.to_owned();
        Encoded { batch: id, method: "POST", address, body, lines: lines.len(), refused }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let (segment, settled_at) = place_of(&encoded.address);
        if segment < 1 {
            return Verdict::Fatal(format!("{} is no segment's number", encoded.address));
        }
        if now < settled_at {
            let why = "the new segment is left alone until it is known everywhere";
            return Verdict::NotReady(settled_at, why.to_owned());
        }
        let next = self.next_upload.load(Ordering::SeqCst);
        if now < next {
            return Verdict::Throttled(Some(next));
        }
        self.next_upload.store(now + self.settings.pace.0, Ordering::SeqCst);
        match self.upload(encoded, now) {
            Ok(job) => Verdict::Staged(job),
            Err(verdict) => verdict,
        }
    }

    fn ask(&self, job: &Job, (batch, _): (&Batch, &Encoded), now: Millis) -> Verdict {
        let (id, is_sure) = match job.name.strip_suffix(UNSURE) {
            Some(id) => (id, false),
            None => (job.name.as_str(), true),
        };
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        let path = format!("/batch-segment?member_id={}&job_id={id}", self.member());
        let told = match self.call("GET", &path, b"", now) {
            // Whether it was asked says nothing of the batch.
            Err(Verdict::Unknown(why) | Verdict::Split(why)) => return Verdict::Retry(why),
            Err(verdict) => return verdict,
            Ok(told) => told,
        };
        let pace = self.settings.pace.0;
        let wait = ((now - job.since) / 4).clamp(pace, LONGEST_POLL.max(pace));
        let later = Verdict::Staged(Job { ask_at: now + wait, ..job.clone() });
        let told = job_of(&told);
        if !is_sure && told["phase"] == "starting" && now - job.since >= WINDOW * pace {
            return Verdict::Gone("the file never arrived there".to_owned());
        }
        if told["error_code"] == "RATE_LIMIT_EXCEEDED" {
            self.next_upload.fetch_max(now + HOUR, Ordering::SeqCst);
        }
        let lines = self.lines_of(batch);
        judge(told, &lines, self.settings.separators).unwrap_or(later)
    }
}

impl XandrConnector {
    /// Asks for a job, and uploads the file to where it says.
    fn upload(&self, encoded: &Encoded, now: Millis) -> Result<Job, Verdict> {
        let path = format!("/batch-segment?member_id={}", self.member());
        // Without a file nothing comes of a job: it may be asked for again.
        let told = self.call("POST", &path, b"", now).map_err(|verdict| match verdict {
            Verdict::Unknown(why) => Verdict::Retry(why),
            verdict => verdict,
        })?;
        let job = job_of(&told);
        let said = |what: &str| Verdict::Retry(format!("{} gave no {what}", self.name()));
        let id = id_of(&job["job_id"]).filter(|id| id != "null").ok_or_else(|| said("job"))?;
        let url = job["upload_url"].as_str().ok_or_else(|| said("place to upload to"))?;
        let url = self.upload_url(url).ok_or_else(|| {
            Verdict::Fatal(format!(
                "{} wants the file somewhere that is not the platform's; nothing was uploaded",
                self.name()
            ))
        })?;
        let headers = [("Content-Type", "application/octet-stream")];
        let job = |name: String| Job { name, ask_at: now + self.settings.pace.0, since: now };
        // The job tells whether it has the file. Another with the same one could be done before it, and then a removal, and
        // at last this one.
        let unsure = || job(format!("{id}{UNSURE}"));
        let answered = match self.send("POST", &url, &headers, &encoded.body) {
            Err(Verdict::Unknown(_)) => return Ok(unsure()),
            answered => answered?,
        };
        match response(&self.name(), &answered, now) {
            Ok(_) => Ok(job(id)),
            // The answer to a file need not say anything.
            Err(Verdict::Unknown(_)) if answered.status == 200 => Ok(job(id)),
            Err(Verdict::Unknown(_) | Verdict::Retry(_)) => Ok(unsure()),
            // The place is good for five minutes.
            Err(Verdict::Gone(why)) => Err(Verdict::Retry(why)),
            Err(verdict) => Err(verdict),
        }
    }

    /// The lines of a batch, by how the file begins and ends each.
    fn lines_of(&self, batch: &Batch) -> BTreeMap<String, usize> {
        let all = batch.changes.adds.iter().chain(&batch.changes.removes).enumerate();
        all.filter_map(|(line, identifier)| Some((self.user(identifier).ok()?.key(), line)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::answered;
    use super::super::testing::batch;
    use super::super::testing::holds_for_ten_thousand;
    use super::super::testing::identifier;
    use super::*;
    use crate::config::Period;
    use crate::config::SecretSource;
    use crate::model::time::DAY;

    const NOW: Millis = 1_795_500_000_123;
    const DEVICE: &str = "aebe52e7-03ee-455a-b3c4-e57283966239";
    const HASH: &str = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";

    fn connector(format: XandrFormat, url: &str) -> XandrConnector {
        let settings = Xandr {
            url: url.parse().unwrap(),
            member: "456".into(),
            username: "u".into(),
            password: SecretSource::Env("THRONG_NO_SUCH".into()),
            audiences: BTreeMap::from([("loyal".to_owned(), "10000".to_owned())]),
            format,
            separators: [',', ':'],
            gzip: false,
            ttl: Period(30 * DAY),
            settle: Period(20 * MINUTE),
            pace: Period(MINUTE),
        };
        XandrConnector::new(settings, Outgoing::new())
    }

    fn people() -> Batch {
        batch(
            vec![
                identifier("xandr", "5727816213491965430"),
                identifier("xandr", "0"),
                identifier("gaid", DEVICE),
                identifier("email_sha256", HASH),
            ],
            vec![identifier("idfa", DEVICE), identifier("xandr", "17")],
        )
    }

    #[test]
    fn lines_of_text_are_sorted_and_say_when_membership_ends() {
        let connector = connector(XandrFormat::Text, "https://api.appnexus.com");
        let encoded = connector.encode(&people(), "10000@1795500000000");
        let expected = format!(
            "17,10000:-1\n5727816213491965430,10000:43200\n{DEVICE},10000:43200^8\n{DEVICE},10000:-1^3\n"
        );
        assert_eq!(String::from_utf8(encoded.body.clone()).unwrap(), expected);
        let refused: Vec<(usize, &str)> =
            encoded.refused.iter().map(|refusal| (refusal.line, &*refusal.why)).collect();
        assert_eq!(
            refused,
            [
                (1, "it is no id of Xandr's: a number from 1 on"),
                (3, "the platform takes no such identifier"),
            ]
        );
        assert_eq!(connector.deliver(&encoded, 1_795_499_999_999).as_str(), "retry");
        assert_eq!(place_of("10000"), (10_000, Millis::MIN));
    }

    #[test]
    fn a_file_of_avro_is_the_same_each_time_and_holds_what_text_does_not() {
        let connector = connector(XandrFormat::Avro, "https://api.appnexus.com");
        let encoded = connector.encode(&people(), "10000");
        assert_eq!(encoded, connector.encode(&people(), "10000"));
        assert_eq!((encoded.lines, encoded.refused.len()), (5, 1));
        assert!(encoded.body.starts_with(b"Obj\x01"));
    }

    #[test]
    fn ten_thousand_are_as_the_contract_has_them() {
        let read = |encoded: &Encoded, _: bool| {
            let text = String::from_utf8(encoded.body.clone()).map_err(|e| e.to_string())?;
            let mut found = Vec::new();
            for line in text.lines() {
                let (line, domain) = line.split_once('^').unwrap_or((line, ""));
                let (uid, segment) = line.split_once(',').ok_or("no separator")?;
                let (id, minutes) = segment.split_once(':').ok_or("no minutes")?;
                let is_number = uid.parse::<u64>().is_ok();
                if id != "10000"
                    || !["43200", "-1"].contains(&minutes)
                    || is_number != domain.is_empty()
                {
                    return Err(line.to_owned());
                }
                if !["", "3", "8", "10"].contains(&domain) {
                    return Err(format!("domain {domain}"));
                }
                found.push(uid.to_owned());
            }
            Ok(found)
        };
        let connector = connector(XandrFormat::Text, "https://api.appnexus.com");
        holds_for_ten_thousand(&connector, ("10000", 4 << 20), &read);
    }

    #[test]
    fn files_go_to_the_platform_and_nowhere_else() {
        let real = connector(XandrFormat::Text, "https://api.appnexus.com");
        for (url, is_known) in [
            ("https://data-api-gslb.adnxs.net/segment-upload/JFY8", true),
            ("https://api.appnexus.com/x", true),
            ("http://data-api-gslb.adnxs.net/segment-upload/JFY8", false),
            ("https://evil.example/adnxs.net", false),
            ("https://adnxs.net.evil.example/", false),
            ("https://u:p@data-api-gslb.adnxs.net/", false),
            ("http://169.254.169.254/latest", false),
            ("file:///etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(real.upload_url(url).is_some(), is_known, "{url}");
        }
        let local = connector(XandrFormat::Text, "http://127.0.0.1:8000");
        assert!(local.upload_url("http://127.0.0.1:8000/upload/1").is_some());
        assert!(local.upload_url("http://127.0.0.1:8001/upload/1").is_none());
    }

    #[test]
    fn what_an_answer_holds_is_the_verdict() {
        let of = |status: u16, body: &str| {
            response("x", &answered(status, body), NOW).map_err(|v| v.as_str())
        };
        assert!(of(200, r#"{"response":{"status":"OK","id":1}}"#).is_ok());
        for (status, body, expected) in [
            (
                200,
                r#"{"response":{"status":"ERROR","error_id":"NOAUTH","error":"no"}}"#,
                "rejected",
            ),
            (
                200,
                r#"{"response":{"status":"ERROR","error_id":"SYNTAX","error":"no"}}"#,
                "rejected",
            ),
            (200, r#"{"response":{"status":"ERROR","error_id":"SYSTEM","error":"no"}}"#, "retry"),
            (200, r#"{"response":{"error_id":"RATE_LIMIT_EXCEEDED","error":"no"}}"#, "retry"),
            (200, r#"{"response":{"error_id":"FILESIZE_LIMIT_EXCEEDED","error":"no"}}"#, "split"),
            (200, "<html>", "retry"),
            (413, "", "split"),
            (429, "", "retry"),
            (503, "", "retry"),
            (404, "", "gone"),
            (400, "", "rejected"),
        ] {
            assert_eq!(of(status, body), Err(expected), "{status} {body}");
        }
        let limit = response(
            "x",
            &answered(200, r#"{"response":{"error_id":"RATE_LIMIT_EXCEEDED"}}"#),
            NOW,
        );
        assert_eq!(limit.unwrap_err(), Verdict::Throttled(Some(NOW + HOUR)));
    }

    #[test]
    fn what_became_of_a_file_is_told_by_line_or_found_by_halves() {
        let connector = connector(XandrFormat::Text, "https://api.appnexus.com");
        let lines = connector.lines_of(&people());
        let judged = |job: Value| {
            judge(job_of(&json!({ "batch_segment_upload_job": job })), &lines, [',', ':'])
        };
        for phase in ["starting", "uploading", "validating", "processing", "?"] {
            assert_eq!(judged(json!({ "phase": phase })), None);
        }
        let done = json!({ "phase": "completed", "num_valid": 5, "num_invalid_user": 0 });
        assert_eq!(judged(done.clone()), Some(Verdict::Accepted));
        assert_eq!(judged(json!([done])), Some(Verdict::Accepted));
        let told = json!({ "phase": "completed", "num_invalid_user": "2",
            "error_log_lines": format!("\n\nnum_invalid_user-17,10000:-1\nnum_invalid_user-{DEVICE},10000:43200^8\n") });
        let refusal = |line| Refusal { line, why: "num_invalid_user".into() };
        assert_eq!(judged(told), Some(Verdict::Partial(vec![refusal(2), refusal(5)])));
        let some = json!({ "phase": "completed", "num_invalid_format": 3, "error_log_lines": "num_invalid_format-17,10000:-1" });
        assert_eq!(judged(some).unwrap().as_str(), "split");
        let unknown = json!({ "phase": "completed", "num_invalid_segment": 5 });
        assert_eq!(judged(unknown).unwrap().as_str(), "gone");
        let foreign = json!({ "phase": "completed", "num_unauth_segment": 5 });
        assert_eq!(judged(foreign).unwrap().as_str(), "rejected");
        let large = json!({ "phase": "error", "error_code": "FILESIZE_LIMIT_EXCEEDED" });
        assert_eq!(judged(large).unwrap().as_str(), "split");
        assert_eq!(judged(json!({ "phase": "error" })).unwrap().as_str(), "gone");
    }
}
