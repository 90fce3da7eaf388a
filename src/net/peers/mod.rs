//! Calls from node to node: HTTP to the private listener of another, with the secret that all share.
//!
//! Nothing is tried twice here, no redirection is followed and no proxy asked. Who calls knows whether a call may
//! be repeated.

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::io;
use std::io::Read;
use std::time::Duration;

use super::PeerSecret;

/// How long is waited for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that was not used for so long is not used again: the other side closes it after 5 s.
const IDLE: Duration = Duration::from_secs(3);
/// So much is read of an answer that refuses.
const PROBLEM: u64 = 64 << 10;
/// So much is said of it, in characters.
const DETAIL: usize = 500;

/// Calls other nodes. A clone is the same.
#[derive(Clone)]
pub struct Peers {
    agent: ureq::Agent,
    secret: PeerSecret,
}

/// What an answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the whole call may take, the answer's last byte included.
    pub timeout: Duration,
    /// How many bytes the answer may have.
    pub bytes: u64,
}

/// Why a node did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It does not answer, or not in time. Whether it did what was asked is not known.
    #[error("the node at {peer} is out of reach")]
    OutOfReach {
        /// Its address.
        peer: String,
        /// What was met.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It says why it does not.
    #[error("the node at {peer} answered {status}: {detail}")]
    Refused {
        /// Its address.
        peer: String,
        /// The status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// It answers what no node should.
    #[error("the node at {peer} answered what cannot be read: {hint}")]
    Malformed {
        /// Its address.
        peer: String,
        /// What is wrong.
        hint: String,
    },
}

/// A call that is passed on.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The method.
    pub method: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The body's content type.
    pub kind: Option<&'a str>,
    /// Whose it is.
    pub on_behalf: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

impl Call<'_> {
    /// The header that says whose a call is.
    pub const ON_BEHALF: &'static str = "throng-on-behalf-of";
}

/// The answer of a call that was passed on.
#[derive(Debug)]
pub struct Relayed {
    /// The status.
    pub status: u16,
    /// The headers that are text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Answer,
}

/// An answer that is read as it comes. An error of reading holds a [`PeerError`].
pub struct Answer {
    peer: String,
    body: ureq::BodyReader<'static>,
}

impl Peers {
    /// Calls with this secret.
    pub fn new(secret: PeerSecret) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_age(IDLE)
            .timeout_connect(Some(CONNECT))
            .build();
        Self { agent: agent.into(), secret }
    }

    /// `GET`s all of an answer. The address is `host:port`, the path begins with `/`.
    pub fn get(&self, address: &str, path: &str, limits: Limits) -> Result<Vec<u8>, PeerError> {
        self.open(address, path, limits)?.all()
    }

    /// `POST`s bytes of a content type and takes all of the answer.
    pub fn post(
        &self,
        address: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        limits: Limits,
    ) -> Result<Vec<u8>, PeerError> {
        self.open_post(address, path, kind, body, limits)?.all()
    }

    /// `GET`s an answer that is read as it comes.
    pub fn open(&self, address: &str, path: &str, limits: Limits) -> Result<Answer, PeerError> {
        let request = self.agent.get(url(address, path));
        let request = request.config().timeout_global(Some(limits.timeout)).build();
        let request = request.header("Authorization", self.secret.bearer());
        answer(address, request.call(), limits)
    }

    /// `POST`s bytes and gives an answer that is read as it comes.
    pub fn open_post(
        &self,
        address: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        limits: Limits,
    ) -> Result<Answer, PeerError> {
        let request = self.agent.post(url(address, path));
        let request = request.config().timeout_global(Some(limits.timeout)).build();
        let request = request.header("Authorization", self.secret.bearer()).content_type(kind);
        answer(address, request.send(body), limits)
    }
}

impl Peers {
    /// Passes a call on as it is, and gives the answer as it comes, whatever its status.
    pub fn relay(
        &self,
        address: &str,
        call: &Call<'_>,
        limits: Limits,
    ) -> Result<Relayed, PeerError> {
        let mut request = ureq::http::Request::builder()
            .method(call.method)
            .uri(url(address, call.path))
            .header("Authorization", self.secret.bearer());
        if let Some(kind) = call.kind {
            request = request.header("Content-Type", kind);
        }
        if let Some(by) = call.on_behalf {
            request = request.header(Call::ON_BEHALF, by);
        }
        let request = request.body(call.body).map_err(|error| PeerError::Malformed {
            peer: address.to_owned(),
            hint: format!("the call cannot be passed on: {error}"),
        })?;
        let request = self.agent.configure_request(request);
        let request =
            request.timeout_global(Some(limits.timeout)).allow_non_standard_methods(true).build();
        let answer = self.agent.run(request).map_err(|error| failed(address, error))?;
        let status = answer.status().as_u16();
        let headers = answer.headers().iter();
        let headers = headers
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect();
        let body = answer.into_body().into_with_config().limit(limits.bytes).reader();
        Ok(Relayed { status, headers, body: Answer { peer: address.to_owned(), body } })
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

fn url(address: &str, path: &str) -> String {
    format!("http://{address}{path}")
}

fn answer(
    peer: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    limits: Limits,
) -> Result<Answer, PeerError> {
    let answer = answer.map_err(|error| failed(peer, error))?;
    let status = answer.status();
    let body = |bytes| answer.into_body().into_with_config().limit(bytes).reader();
    if status.is_success() {
        return Ok(Answer { peer: peer.to_owned(), body: body(limits.bytes) });
    }
    let mut text = Vec::new();
    // What has come of it has to do: that it refuses is known.
    let _ = body(PROBLEM).read_to_end(&mut text);
    let problem: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let detail = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or(text.trim());
    let detail = detail.chars().take(DETAIL).collect();
    Err(PeerError::Refused { peer: peer.to_owned(), status: status.as_u16(), detail })
}

/// What an error of the client means.
fn failed(peer: &str, error: ureq::Error) -> PeerError {
    let peer = peer.to_owned();
    match error {
        ureq::Error::Protocol(_)
        | ureq::Error::Http(_)
        | ureq::Error::BadUri(_)
        | ureq::Error::BodyExceedsLimit(_)
        | ureq::Error::LargeResponseHeader(..) => {
            PeerError::Malformed { peer, hint: error.to_string() }
        }
        _ => PeerError::OutOfReach { peer, source: Box::new(error) },
    }
}

impl Answer {
    /// All of it.
    pub fn all(mut self) -> Result<Vec<u8>, PeerError> {
        let mut all = Vec::new();
        match self.read_to_end(&mut all) {
            Ok(_) => Ok(all),
            Err(error) => Err(self.error(error)),
        }
    }

    /// The error of a read.
    fn error(&self, error: io::Error) -> PeerError {
        match error.downcast::<PeerError>() {
            Ok(error) => error,
            Err(error) => failed(&self.peer, ureq::Error::from(error)),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Read for Answer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.body.read(into).map_err(|error| io::Error::other(self.error(error)))
    }
}
