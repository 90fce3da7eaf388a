//! Calls to what is not ours: destinations.
//!
//! Nothing is tried twice here, no redirection is followed and no proxy asked: who calls knows whether a call may be
//! repeated. What an answer means is for the caller too; what is told apart here is whether anything was sent.

mod guard;
mod pace;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;

use guard::Guarded;
pub use guard::OffLimits;
pub use guard::is_reachable;
use pace::Paces;
pub use pace::{Limit, Pace};

/// How long is waited for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that was not used for so long is not used again.
const IDLE: Duration = Duration::from_secs(3);
/// So much is read of an answer: destinations say little, and what they say is shown in part only.
const ANSWER: u64 = 1 << 20;
/// Bytes of an answer's headers.
const HEADERS: usize = 64 << 10;

/// Calls others. A clone is the same.
#[derive(Clone)]
pub struct Outgoing {
    agent: ureq::Agent,
    paces: Paces,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// Where to.
    pub url: &'a str,
    /// Headers beside those that every call has.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// How long the whole call may take, the answer's last byte included.
    pub timeout: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Its headers, with names in lower case; those that are no text are left out.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it is read.
    pub body: Vec<u8>,
}

/// Why nothing came back. Each is a line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    /// Nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// What was sent may have been taken or not.
    #[error("{0}")]
    Lost(String),
}

/// TLS that trusts whom the system trusts; `SSL_CERT_FILE` names others.
pub fn tls() -> TlsConfig {
    TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

/// TLS with whoever answers: for calls that do not leave this machine.
pub fn unverified() -> TlsConfig {
    TlsConfig::builder()
        .disable_verification(true)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

impl Outgoing {
    /// Calls that trust whom the system trusts, and go to no private network.
    pub fn new() -> Self {
        Self { agent: Self::agent(false), paces: Paces::default() }
    }

    /// The same, at the same pace, where private networks and this machine may be called or not.
    pub fn allowing_private(&self, allow: bool) -> Self {
        Self { agent: Self::agent(allow), paces: self.paces.clone() }
    }

    fn agent(allow_private: bool) -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_age(IDLE)
            .timeout_connect(Some(CONNECT))
            .max_response_header_size(HEADERS)
            .user_agent(concat!("throng/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls())
            .build();
        let guarded = Guarded::new(allow_private);
        ureq::Agent::with_parts(config, DefaultConnector::default(), guarded)
    }

    /// The pace of calls to a platform, of all who call it by this or a clone of it.
    pub fn pace(&self, address: &str) -> Arc<Pace> {
        self.paces.of(address)
    }

    /// Makes a call, and takes the answer whatever its status.
    pub fn call(&self, request: &OutgoingRequest<'_>) -> Result<Answered, OutgoingError> {
        let mut built = ureq::http::Request::builder().method(request.method).uri(request.url);
        for (name, value) in request.headers {
            built = built.header(*name, *value);
        }
        let built = built
            .body(request.body)
            .map_err(|error| OutgoingError::NotSent(format!("the call cannot be made: {error}")))?;
        let built = self.agent.configure_request(built);
        let built = built.timeout_global(Some(request.timeout)).build();
        let answer = self.agent.run(built).map_err(failed)?;
        let status = answer.status().as_u16();
        let headers = answer.headers().iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        let headers = headers.collect();
        let mut body = Vec::new();
        // The status is the verdict: of a body that breaks off, what has come of it has to do.
        let _ = answer.into_body().into_reader().take(ANSWER).read_to_end(&mut body);
        Ok(Answered { status, headers, body })
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

impl Answered {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The beginning of the body as one line for people.
    pub fn gist(&self) -> String {
        const LONGEST: usize = 300;
        let text = String::from_utf8_lossy(&self.body);
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        let is_shown = |c: &char| !c.is_control();
        let mut gist: String = line.chars().filter(is_shown).take(LONGEST).collect();
        if line.chars().count() > LONGEST {
            gist.push('…');
        }
        gist
    }
}

/// What an error of the client means.
fn failed(error: ureq::Error) -> OutgoingError {
    use ureq::Timeout;
    match &error {
        ureq::Error::HostNotFound => {
            OutgoingError::NotSent("the name of the host is not known".into())
        }
        ureq::Error::ConnectionFailed
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::TlsRequired
        | ureq::Error::Other(_)
        | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            OutgoingError::NotSent(error.to_string())
        }
        ureq::Error::Io(source) if source.kind() == std::io::ErrorKind::ConnectionRefused => {
            OutgoingError::NotSent("the connection is refused".into())
        }
        ureq::Error::Timeout(_) => OutgoingError::Lost("no answer in time".into()),
        _ => OutgoingError::Lost(format!("the connection broke off: {error}")),
    }
}
