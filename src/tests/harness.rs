//! A real server for a test: the built binary, on a folder of its own and free ports.

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(super) const THRONG: &str = env!("CARGO_BIN_EXE_throng");

/// A folder with settings, segments and data, and the server that runs on it.
pub(super) struct Server {
    folder: tempfile::TempDir,
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
}

/// An answer of a listener.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: ureq::http::HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Server {
    /// Starts a server with one site `t` that needs no consent, and the given segments.
    pub(super) fn start(segments: &[(&str, &str)]) -> Self {
        Self::start_with(segments, "", &[])
    }

    /// Starts a server with more settings (TOML before the sites) and arguments of `serve`.
    pub(super) fn start_with(
        segments: &[(&str, &str)],
        settings: &str,
        arguments: &[&str],
    ) -> Self {
        Self::start_in(segments, settings, arguments, &[])
    }

    /// Starts it with more of an environment, too.
    pub(super) fn start_in(
        segments: &[(&str, &str)],
        settings: &str,
        arguments: &[&str],
        environment: &[(&'static str, String)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(folder.path().join("segments")).unwrap();
        let site =
            "\n[[site]]\nkey = \"t\"\nconsent = \"none\"\norigins = [\"https://shop.example\"]\n";
        fs::write(folder.path().join("throng.toml"), format!("{settings}{site}")).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let data = match arguments.iter().position(|argument| argument == "--data") {
            Some(at) => PathBuf::from(&arguments[at + 1]),
            None => data,
        };
        let environment = environment.to_vec();
        let mut server = Self { folder, data, arguments, environment, child: None };
        for (id, text) in segments {
            server.write_segment(id, text);
        }
        server.run();
        server
    }

    /// The environment of the next start.
    pub(super) fn set_environment(&mut self, environment: &[(&'static str, String)]) {
        self.environment = environment.to_vec();
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn write_segment(&self, id: &str, text: &str) {
        fs::write(self.folder.path().join("segments").join(format!("{id}.toml")), text).unwrap();
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(THRONG);
        command
            .current_dir(self.folder.path())
            .args(["serve", "--config", "throng.toml", "--set", "collect.listen=127.0.0.1:0"])
            .args(["--set", "console.listen=127.0.0.1:0"])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("THRONG_DATA");
        command
    }

    /// Starts the process, and waits until both listeners answer.
    pub(super) fn run(&mut self) {
        assert!(self.child.is_none());
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let child = self.command().stderr(log).stdout(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(60);
        while self.run_file().is_none() {
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(exited.is_none(), "the server ended: {}", self.log());
            assert!(Instant::now() < until, "the server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn run_file(&self) -> Option<Value> {
        let text = fs::read_to_string(self.data.join("run.json")).ok()?;
        let run: Value = serde_json::from_str(&text).ok()?;
        let pid = u64::from(self.child.as_ref()?.id());
        (run["pid"].as_u64() == Some(pid)).then_some(run)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether somebody else has killed it.
    pub(super) fn is_dead(&mut self) -> bool {
        let is_dead = self.child.as_mut().unwrap().try_wait().unwrap().is_some();
        if is_dead {
            self.child = None;
        }
        is_dead
    }

    /// The code that it has ended with by itself, where it has.
    pub(super) fn has_ended(&mut self) -> Option<i32> {
        self.child.as_mut().unwrap().try_wait().unwrap()?.code()
    }

    /// Stops it without a word, or lets it go on.
    pub(super) fn freeze(&self, frozen: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT }).unwrap();
    }

    /// The value of a metric without labels.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let text = get(&format!("{}/metrics", self.console()), &[]).body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Stops it as a service manager would, and returns whether it ended well.
    pub(super) fn stop(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < until, "the server does not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn collect(&self) -> String {
        format!("http://{}", self.run_file().unwrap()["collect"].as_str().unwrap())
    }

    pub(super) fn console(&self) -> String {
        format!("http://{}", self.run_file().unwrap()["console"].as_str().unwrap())
    }

    /// Runs a command of the command line against the server.
    pub(super) fn throng(&self, arguments: &[&str]) -> Output {
        Command::new(THRONG)
            .current_dir(self.folder.path())
            .args(arguments)
            .env_remove("THRONG_DATA")
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(super) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.throng(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The number a rule holds.
    pub(super) fn count(&self, rule: &str) -> u64 {
        self.ok(&["eval", rule]).trim().parse().unwrap()
    }

    /// The sorted members of a rule.
    pub(super) fn members(&self, rule: &str, namespace: &str) -> Vec<String> {
        let text = self.ok(&["eval", rule, "--members", namespace]);
        let mut members: Vec<String> = text.lines().map(str::to_owned).collect();
        members.sort();
        members
    }

    /// Posts events as JSON to the public listener.
    pub(super) fn post_events(&self, body: &Value) -> Answer {
        post(&format!("{}/v1/events", self.collect()), &body.to_string(), &[])
    }

    /// Posts events, and all of them are taken.
    pub(super) fn accepts(&self, events: &[Value]) {
        for part in events.chunks(500) {
            let taken = self.post_events(&Value::Array(part.to_vec())).json();
            assert_eq!(taken["accepted"], part.len(), "{taken}");
        }
    }

    /// Pushes what a destination is to have; the report of its first segment, whatever became of it.
    pub(super) fn push(&self, destination: &str) -> Value {
        let output = self.throng(&["destination", "push", destination, "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].clone()
    }

    /// Asks the private listener with the operator's token.
    pub(super) fn api(&self, path: &str) -> Answer {
        let token = fs::read_to_string(self.data.join("token")).unwrap();
        get(
            &format!("{}{path}", self.console()),
            &[("Authorization", &format!("Bearer {}", token.trim()))],
        )
    }

    /// Sends something to the private listener with the operator's token.
    pub(super) fn api_send(&self, method: &str, path: &str, body: &str, kind: &str) -> Answer {
        let token = fs::read_to_string(self.data.join("token")).unwrap();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.console()))
            .header("Authorization", format!("Bearer {}", token.trim()))
            .header("Content-Type", kind);
        let body = body.to_owned();
        answer(agent().run(request.body(body).unwrap()))
    }

    /// Waits until something is so; says what where it does not become so.
    pub(super) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < until, "not within 20 s: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    let mut body = Vec::new();
    response.body_mut().as_reader().read_to_end(&mut body).unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// `GET`s a URL.
pub(super) fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = agent().get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.call())
}

/// Sends a request as it is.
pub(super) fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(agent().run(request.body(body).unwrap()))
}

/// `POST`s a body.
pub(super) fn post(url: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = agent().post(url).content_type("application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.send(body))
}
