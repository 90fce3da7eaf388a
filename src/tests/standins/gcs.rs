//! A bucket of Google Cloud Storage as its JSON API has it, of what connectors and the official client for reading ask.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{Reply, Request, Service};

/// One bucket.
pub(crate) struct Gcs {
    bucket: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tokens: u32,
    objects: BTreeMap<String, String>,
    /// Uploads that go on, each with its name, its size and what came of it.
    uploads: Vec<(String, usize, Vec<u8>)>,
    takes_less: bool,
    violations: Vec<String>,
}

impl Gcs {
    pub(crate) fn new(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), state: Mutex::default() }
    }

    /// All objects. What was not as the contract has it fails the test.
    pub(crate) fn objects(&self) -> BTreeMap<String, String> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        state.objects.clone()
    }

    /// Puts something where others will want to.
    pub(crate) fn put(&self, name: &str, text: &str) {
        self.state.lock().unwrap().objects.insert(name.to_owned(), text.to_owned());
    }

    /// Tokens that are out are not good any more.
    pub(crate) fn expire_tokens(&self) {
        self.state.lock().unwrap().tokens += 1;
    }

    /// Keeps a part alone of what it is sent next of an upload that goes on.
    pub(crate) fn take_less_once(&self) {
        self.state.lock().unwrap().takes_less = true;
    }

    /// `uploadType=resumable`: where its parts go.
    fn begin(
        &self,
        state: &mut State,
        request: &Request,
        query: &BTreeMap<String, String>,
    ) -> Result<Reply, String> {
        let size = request.header("x-upload-content-length").and_then(|size| size.parse().ok());
        let size: usize = size.filter(|size| *size > 0).ok_or("no length")?;
        if !request.body.is_empty() {
            return Err("a body where an upload begins".into());
        }
        if state.objects.contains_key(&query["name"]) {
            return Ok(Reply::new(412, json!({ "error": { "code": 412 } }).to_string()));
        }
        state.uploads.push((query["name"].clone(), size, Vec::new()));
        let host = request.header("host").ok_or("no host")?;
        let at = format!(
            "http://{host}/upload/storage/v1/b/{}/o?upload_id={}",
            self.bucket,
            state.uploads.len() - 1
        );
        Ok(Reply::new(200, "").with("Location", &at))
    }

    /// A part of an upload that goes on.
    fn part(&self, state: &mut State, request: &Request, id: &str) -> Result<Reply, String> {
        const UNIT: usize = 256 << 10;
        let takes_less = std::mem::take(&mut state.takes_less);
        let upload = id.parse::<usize>().ok().and_then(|id| state.uploads.get_mut(id));
        let (name, size, came) = upload.ok_or("no such upload")?;
        let range = request.header("content-range").and_then(|range| {
            let (range, of) = range.strip_prefix("bytes ")?.split_once('/')?;
            let (from, to) = range.split_once('-')?;
            Some((
                from.parse::<usize>().ok()?,
                to.parse::<usize>().ok()?,
                of.parse::<usize>().ok()?,
            ))
        });
        let (from, to, of) = range.ok_or("no range")?;
        let is_last = to + 1 == of;
        if from != came.len() || of != *size || to + 1 - from != request.body.len() {
            return Err(format!("{from}-{to}/{of} after {}", came.len()));
        }
        if !is_last && !request.body.len().is_multiple_of(UNIT) {
            return Err("a part that is no multiple of 256 KiB".into());
        }
        if takes_less && request.body.len() > UNIT {
            came.extend_from_slice(&request.body[..UNIT]);
        } else {
            came.extend_from_slice(&request.body);
        }
        if came.len() < of {
            let range = format!("bytes=0-{}", came.len() - 1);
            return Ok(Reply::new(308, "").with("Range", &range));
        }
        let text = String::from_utf8(came.clone()).map_err(|_| "UTF-8")?;
        let name = name.clone();
        if state.objects.contains_key(&name) {
            return Ok(Reply::new(412, json!({ "error": { "code": 412 } }).to_string()));
        }
        let shown = self.shown(&name, &text);
        state.objects.insert(name, text);
        Ok(Reply::new(200, shown.to_string()))
    }

    fn shown(&self, name: &str, text: &str) -> Value {
        json!({ "kind": "storage#object", "name": name, "bucket": self.bucket, "generation": "1",
                "size": text.len().to_string(), "md5Hash": STANDARD.encode(*md5::compute(text)) })
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut state = self.state.lock().unwrap();
        if path == "/token" {
            let form = String::from_utf8_lossy(&request.body).into_owned();
            if !form.contains("grant_type=refresh_token") {
                return Err("another grant".into());
            }
            let given =
                json!({ "access_token": format!("ya29.{}", state.tokens), "expires_in": 3599 });
            return Ok(Reply::new(200, given.to_string()));
        }
        let objects = format!("/storage/v1/b/{}/o", self.bucket);
        // Who knows an upload may go on with it.
        if request.method == "PUT" && path == format!("/upload{objects}") {
            return self.part(&mut state, request, query.get("upload_id").ok_or("no upload")?);
        }
        let token = request.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        if token != Some(&format!("ya29.{}", state.tokens)) {
            return Ok(Reply::new(401, json!({ "error": { "code": 401 } }).to_string()));
        }
        let name_of = |path: &str, before: &str| {
            let name = path.strip_prefix(before)?.strip_prefix(&objects)?.strip_prefix('/')?;
            Some(percent_decode_str(name).decode_utf8().ok()?.into_owned())
        };
        if request.method == "POST" && path == format!("/upload{objects}") {
            let keys: Vec<&str> = query.keys().map(String::as_str).collect();
            if keys != ["ifGenerationMatch", "name", "uploadType"] {
                return Err(format!("query {query:?}"));
            }
            if query["ifGenerationMatch"] != "0" {
                return Err("an object that may be written over".into());
            }
            match query["uploadType"].as_str() {
                "media" => {}
                "resumable" => return self.begin(&mut state, request, &query),
                other => return Err(format!("uploadType {other}")),
            }
            let name = &query["name"];
            if state.objects.contains_key(name) {
                return Ok(Reply::new(412, json!({ "error": { "code": 412 } }).to_string()));
            }
            let text = String::from_utf8(request.body.clone()).map_err(|_| "UTF-8")?;
            let shown = self.shown(name, &text);
            state.objects.insert(name.clone(), text);
            return Ok(Reply::new(200, shown.to_string()));
        }
        let missing = || Reply::new(404, json!({ "error": { "code": 404 } }).to_string());
        match request.method.as_str() {
            "GET" if format!("{path}/o") == objects => {
                let shown =
                    json!({ "kind": "storage#bucket", "name": self.bucket, "location": "EU" });
                Ok(Reply::new(200, shown.to_string()))
            }
            "GET" if path == objects => {
                let items: Vec<Value> =
                    state.objects.iter().map(|(name, text)| self.shown(name, text)).collect();
                Ok(Reply::new(
                    200,
                    json!({ "kind": "storage#objects", "items": items }).to_string(),
                ))
            }
            "GET" if path.starts_with("/download") => {
                let name = name_of(path, "/download").ok_or(path)?;
                Ok(state
                    .objects
                    .get(&name)
                    .map_or_else(missing, |text| Reply::new(200, text.as_str())))
            }
            "GET" => {
                let name = name_of(path, "").ok_or(path)?;
                let found = state.objects.get(&name);
                Ok(found.map_or_else(missing, |text| {
                    Reply::new(200, self.shown(&name, text).to_string())
                }))
            }
            "DELETE" => {
                let name = name_of(path, "").ok_or(path)?;
                Ok(state.objects.remove(&name).map_or_else(missing, |_| Reply::new(204, "")))
            }
            method => Err(format!("{method} {path}")),
        }
    }
}

impl Service for Gcs {
    fn answer(&self, request: &Request) -> Reply {
        self.take(request).unwrap_or_else(|why| {
            self.state.lock().unwrap().violations.push(why.clone());
            Reply::new(400, json!({ "error": { "code": 400, "message": why } }).to_string())
        })
    }
}
