//! Xandr's Batch Segment Service as its documentation has it: holds who is in each segment and until when, works on jobs phase by
//! phase, and refuses what is not of the form. It takes files of text; one of Avro is kept as it came.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::{Reply, Request, Service};

/// A user: the id, and its domain's number where it is a device.
pub(crate) type User = (String, String);

/// One member.
pub(crate) struct Xandr {
    member: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tokens: Vec<String>,
    logins: u32,
    /// Tokens that are given from now on are good for so many calls.
    calls_of_token: Option<u32>,
    left_of_token: u32,
    segments: BTreeMap<u64, Segment>,
    jobs: Vec<Job>,
    /// How often a job is asked for before it is done.
    slow: u32,
    bad: Vec<String>,
    /// Whether it is said which lines were wrong.
    tells: bool,
    violations: Vec<String>,
    /// Files that are in a job, however often they came.
    files: usize,
}

struct Segment {
    code: String,
    members: BTreeMap<User, i64>,
}

struct Job {
    id: String,
    file: Option<Vec<u8>>,
    left: u32,
    done: Option<Value>,
}

fn ok(fields: Value) -> Reply {
    let mut response = json!({ "status": "OK" });
    response.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Reply::new(200, json!({ "response": response }).to_string())
}

/// An error, as the platform tells it with a good status.
pub(crate) fn error(id: &str) -> Reply {
    let response = json!({ "status": "ERROR", "error_id": id, "error": "told so" });
    Reply::new(200, json!({ "response": response }).to_string())
}

impl Xandr {
    pub(crate) fn new(member: &str) -> Self {
        let state = State { slow: 1, tells: true, ..State::default() };
        Self { member: member.to_owned(), state: Mutex::new(state) }
    }

    /// Who is in the segment of a code, and for how many minutes; `None` where there is none. What was not as the contract
    /// has it fails the test.
    pub(crate) fn members(&self, code: &str) -> Option<BTreeMap<User, i64>> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        let mut found = state.segments.values().filter(|segment| segment.code == code);
        let members = found.next()?.members.clone();
        assert!(found.next().is_none(), "two segments have the code {code}");
        Some(members)
    }

    pub(crate) fn set_bad(&self, bad: &[&str], tells: bool) {
        let mut state = self.state.lock().unwrap();
        (state.bad, state.tells) = (bad.iter().map(|bad| (*bad).to_owned()).collect(), tells);
    }

    pub(crate) fn forget_tokens(&self, calls: u32) {
        let mut state = self.state.lock().unwrap();
        state.tokens.clear();
        state.calls_of_token = Some(calls);
    }

    pub(crate) fn logins(&self) -> u32 {
        self.state.lock().unwrap().logins
    }

    /// How many files were uploaded.
    pub(crate) fn files(&self) -> usize {
        self.state.lock().unwrap().files
    }

    /// The file that was uploaded last.
    pub(crate) fn last_file(&self) -> Vec<u8> {
        self.state.lock().unwrap().jobs.iter().rev().find_map(|job| job.file.clone()).unwrap()
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut state = self.state.lock().unwrap();
        let json =
            || serde_json::from_slice::<Value>(&request.body).map_err(|error| error.to_string());
        if (request.method.as_str(), path) == ("POST", "/auth") {
            let auth = json()?["auth"].clone();
            if auth != json!({ "username": "u", "password": "p" }) {
                return Ok(error("UNAUTH"));
            }
            state.logins += 1;
            let token = format!("token:{}", state.logins);
            state.left_of_token = state.calls_of_token.unwrap_or(u32::MAX);
            state.tokens = vec![token.clone()];
            return Ok(ok(json!({ "token": token })));
        }
        if let Some(id) = path.strip_prefix("/upload/") {
            if request.header("content-type") != Some("application/octet-stream") {
                return Err("another type of file".into());
            }
            let Some(job) = state.jobs.iter_mut().find(|job| job.id == id && job.file.is_none())
            else {
                return Ok(Reply::new(404, ""));
            };
            job.file = Some(request.body.clone());
            state.files += 1;
            return Ok(ok(json!({})));
        }
        let token = request.header("authorization").unwrap_or_default().to_owned();
        if !state.tokens.contains(&token) || state.left_of_token == 0 {
            return Ok(error("NOAUTH"));
        }
        state.left_of_token -= 1;
        if query.get("member_id") != Some(&self.member) {
            return Err("another member".into());
        }
        match (request.method.as_str(), path) {
            ("GET", "/segment") => {
                let Some(code) = query.get("code") else {
                    return Ok(ok(json!({ "segments": [] })));
                };
                let found = state.segments.iter().filter(|(_, segment)| segment.code == *code);
                let found: Vec<Value> =
                    found.map(|(id, segment)| json!({ "id": id, "code": segment.code })).collect();
                Ok(ok(json!({ "count": found.len(), "segments": found })))
            }
            ("POST", "/segment") => {
                let body = json()?;
                let segment = body["segment"].as_object().ok_or("no segment")?;
                let keys: Vec<&str> = segment.keys().map(String::as_str).collect();
                if keys != ["short_name", "code", "expire_minutes"]
                    && keys != ["code", "expire_minutes", "short_name"]
                {
                    return Err(format!("fields {keys:?}"));
                }
                if segment["expire_minutes"].as_u64().is_none_or(|minutes| minutes > 180 * 1_440) {
                    return Err("too long a membership".into());
                }
                let code = segment["code"].as_str().ok_or("no code")?.to_owned();
                if state.segments.values().any(|one| one.code == code) {
                    return Ok(error("SYNTAX"));
                }
                let id = 10_000 + state.segments.len() as u64;
                state.segments.insert(id, Segment { code, members: BTreeMap::new() });
                Ok(ok(json!({ "id": id })))
            }
            ("POST", "/batch-segment") => {
                if !request.body.is_empty() {
                    return Err("a job with a body".into());
                }
                let (id, left) = (format!("job{}", state.jobs.len()), state.slow);
                let host = request.header("host").ok_or("no host")?;
                let url = format!("http://{host}/upload/{id}");
                let job = json!({ "job_id": id, "upload_url": url, "phase": "starting" });
                state.jobs.push(Job { id, file: None, left, done: None });
                Ok(ok(json!({ "batch_segment_upload_job": job })))
            }
            ("GET", "/batch-segment") => Ok(state.work(&query["job_id"])),
            (method, _) => Err(format!("{method} {path}")),
        }
    }
}

impl State {
    /// Works on a job, a phase each time that it is asked for.
    fn work(&mut self, id: &str) -> Reply {
        let Self { jobs, segments, bad, tells, violations, .. } = self;
        let Some(job) = jobs.iter_mut().find(|job| job.id == id) else {
            return Reply::new(404, "");
        };
        let shown = match (&job.done, &job.file) {
            (Some(done), _) => done.clone(),
            (None, None) => json!({ "phase": "starting" }),
            (None, Some(_)) if job.left > 0 => {
                job.left -= 1;
                json!({ "phase": "processing", "percent_complete": 50 })
            }
            (None, Some(file)) => {
                let (mut wrong, mut log, mut valid) = (0, String::new(), 0);
                let text = if file.starts_with(b"Obj\x01") {
                    ""
                } else {
                    std::str::from_utf8(file).unwrap_or("?")
                };
                let mut before: Option<((u64, String), User)> = None;
                for line in text.lines() {
                    match parse(line) {
                        Err(why) => violations.push(why),
                        Ok((user, segment, minutes)) => {
                            // Sorted by id, and each user once.
                            let key = (user.0.parse::<u64>().unwrap_or(u64::MAX), user.0.clone());
                            if before.as_ref().is_some_and(|(last, _)| *last > key) {
                                violations.push(format!("{user:?} comes too late"));
                            }
                            if before.is_some_and(|(_, known)| known == user) {
                                violations.push(format!("{user:?} twice"));
                            }
                            before = Some((key, user.clone()));
                            if bad.contains(&user.0) && minutes != -1 {
                                wrong += 1;
                                log.push_str(&format!("\nnum_invalid_user-{line}"));
                                continue;
                            }
                            valid += 1;
                            let Some(segment) = segments.get_mut(&segment) else {
                                violations.push(format!("segment {segment}"));
                                continue;
                            };
                            match minutes {
                                -1 => _ = segment.members.remove(&user),
                                minutes => _ = segment.members.insert(user, minutes),
                            }
                        }
                    }
                }
                let mut done = json!({ "phase": "completed", "percent_complete": 100, "num_valid": valid,
                                       "num_invalid_user": wrong, "num_invalid_format": 0, "num_invalid_segment": 0,
                                       "num_unauth_segment": 0, "num_past_expiration": 0 });
                if *tells {
                    done["error_log_lines"] = log.into();
                }
                job.done = Some(done.clone());
                done
            }
        };
        ok(json!({ "batch_segment_upload_job": shown }))
    }
}

/// A user, a segment and minutes.
fn parse(line: &str) -> Result<(User, u64, i64), String> {
    let wrong = || format!("a line {line:?}");
    let (rest, domain) = line.split_once('^').unwrap_or((line, ""));
    let (uid, rest) = rest.split_once(',').ok_or_else(wrong)?;
    let (segment, minutes) = rest.split_once(':').ok_or_else(wrong)?;
    let minutes: i64 = minutes.parse().map_err(|_| wrong())?;
    if !(minutes == -1 || (1..=180 * 1_440).contains(&minutes))
        || !["", "3", "8", "10"].contains(&domain)
    {
        return Err(wrong());
    }
    Ok(((uid.to_owned(), domain.to_owned()), segment.parse().map_err(|_| wrong())?, minutes))
}

impl Service for Xandr {
    fn answer(&self, request: &Request) -> Reply {
        self.take(request).unwrap_or_else(|why| {
            self.state.lock().unwrap().violations.push(why.clone());
            error("SYNTAX")
        })
    }
}
