//! The client of a running server: finds it, sends the token, and turns its answers into words.

use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, Global};
use crate::net::outgoing::tls;
use crate::net::outgoing::unverified;

/// A running server's private listener.
pub(super) struct Client {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

/// What `<data>/run.json` tells.
#[derive(Debug, serde::Deserialize)]
pub(super) struct RunFile {
    /// Address of the private listener.
    pub(super) console: String,
    /// The server's process.
    pub(super) pid: i32,
    /// The listeners that are spoken to with TLS.
    #[serde(default)]
    tls: Vec<String>,
}

/// The data directory that the options name.
pub(super) fn data_dir(global: &Global) -> PathBuf {
    global.data.clone().unwrap_or_else(|| PathBuf::from("data"))
}

impl RunFile {
    fn is_tls(&self) -> bool {
        self.tls.iter().any(|listener| listener == "console")
    }
}

/// Reads where a running server listens; says what to do where there is none.
pub(super) fn run_file(data: &Path) -> Result<RunFile, Failure> {
    let none = |why: &str| {
        Failure::OutOfReach(format!(
            "no server runs on {} ({why}); start one with `throng serve`, or name one with --server \
             or --data",
            data.display()
        ))
    };
    let text = std::fs::read_to_string(data.join("run.json")).map_err(|_| none("no run.json"))?;
    let run: RunFile = serde_json::from_str(&text).map_err(|_| none("run.json is unreadable"))?;
    let alive = rustix::process::Pid::from_raw(run.pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
    if alive { Ok(run) } else { Err(none("its process has gone")) }
}

impl Client {
    /// Finds the server through `--server`, or through the data directory.
    pub(super) fn find(global: &Global) -> Result<Self, Failure> {
        let data = data_dir(global);
        let mut is_verified = true;
        let base = match &global.server {
            Some(url) => {
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    return Err(Failure::Usage(format!(
                        "--server {url}: expected a URL such as http://127.0.0.1:8081"
                    )));
                }
                url.trim_end_matches('/').to_owned()
            }
            None => {
                let run = run_file(&data)?;
                // Its certificate is for the name that others know it by. The call stays on this machine, and goes to who
                // wrote the file.
                is_verified = !run.is_tls();
                format!("{}://{}", if run.is_tls() { "https" } else { "http" }, run.console)
            }
        };
        let token = match &global.token {
            Some(token) => Some(token.clone()),
            None => std::fs::read_to_string(data.join("token")).ok().map(|t| t.trim().to_owned()),
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .tls_config(if is_verified { tls() } else { unverified() })
            .build()
            .into();
        Ok(Self { base, token, agent })
    }

    /// Where a call goes. A part of its path that is empty would make another call of it.
    fn url(&self, path: &str) -> Result<String, Failure> {
        let parts = path.split('?').next().unwrap_or_default();
        if parts.contains("//") || parts.ends_with('/') {
            return Err(Failure::Usage("an argument is empty".to_owned()));
        }
        Ok(format!("{}{path}", self.base))
    }

    /// `GET`s JSON.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        let mut request = self.agent.get(self.url(path)?);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.json(request.call())
    }

    /// `POST`s bytes and returns the JSON of the answer.
    pub(super) fn post(&self, path: &str, kind: &str, body: &[u8]) -> Result<Value, Failure> {
        let mut request = self.agent.post(self.url(path)?).content_type(kind);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.json(request.send(body))
    }

    /// `POST`s JSON and returns the JSON of the answer.
    pub(super) fn post_json(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// `DELETE`s.
    pub(super) fn delete(&self, path: &str) -> Result<Value, Failure> {
        let mut request = self.agent.delete(self.url(path)?);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.json(request.call())
    }

    /// `GET`s or `POST`s and gives each line of the answer as it comes.
    pub(super) fn lines(
        &self,
        path: &str,
        body: Option<&Value>,
        mut each: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let url = self.url(path)?;
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let answer = match body {
            Some(body) => {
                let mut request = self.agent.post(url).content_type("application/json");
                if let Some(authorization) = &authorization {
                    request = request.header("Authorization", authorization);
                }
                request.send(body.to_string())
            }
            None => {
                let mut request = self.agent.get(url);
                if let Some(authorization) = &authorization {
                    request = request.header("Authorization", authorization);
                }
                request.call()
            }
        };
        let mut answer = answer.map_err(|error| self.out_of_reach(&error))?;
        if !answer.status().is_success() {
            return Err(self.refused(&mut answer));
        }
        for line in BufReader::new(answer.body_mut().as_reader()).lines() {
            let line = line.map_err(|error| {
                Failure::OutOfReach(format!("the server's answer broke off: {error}"))
            })?;
            each(&line)?;
        }
        Ok(())
    }

    fn json(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Failure> {
        let mut answer = answer.map_err(|error| self.out_of_reach(&error))?;
        if !answer.status().is_success() {
            return Err(self.refused(&mut answer));
        }
        let mut text = String::new();
        answer.body_mut().as_reader().read_to_string(&mut text).map_err(|error| {
            Failure::OutOfReach(format!("the server's answer broke off: {error}"))
        })?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        // Of our server: it may be as deep as rules are.
        let mut reader = serde_json::Deserializer::from_str(&text);
        reader.disable_recursion_limit();
        Value::deserialize(&mut reader).map_err(|error| {
            Failure::OutOfReach(format!("the server's answer is no JSON: {error}"))
        })
    }

    fn out_of_reach(&self, error: &ureq::Error) -> Failure {
        Failure::OutOfReach(format!("{} is out of reach: {error}", self.base))
    }

    fn refused(&self, answer: &mut ureq::http::Response<ureq::Body>) -> Failure {
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let problem: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        self.problem(status, &problem, &text)
    }

    /// A problem document (RFC 9457) as a failure: its `detail`, or what there is.
    pub(super) fn problem(&self, status: u16, problem: &Value, text: &str) -> Failure {
        let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or(text);
        match status {
            401 | 403 => Failure::OutOfReach(format!(
                "{}: {detail}; give a token with --token, or --data of the server's directory",
                self.base
            )),
            // A rule with errors is answered with them; what is refused otherwise was no argument for the command.
            422 if problem["diagnostics"].is_array() => {
                Failure::Refused(detail.to_owned(), problem.clone())
            }
            400 | 422 => Failure::Usage(detail.to_owned()),
            409 => Failure::Refused(detail.to_owned(), problem.clone()),
            404 | 410 | 413 => Failure::No(detail.to_owned()),
            _ => Failure::OutOfReach(format!("{} answered {status}: {detail}", self.base)),
        }
    }
}

/// Escapes a text for a path segment or query value of a URL.
pub(super) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
