//! Calls to an ad platform: its token, its pace, and what it says of both.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::http;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::config::Platform;
use crate::model::Millis;
use crate::net::Answered;
use crate::net::Limit;
use crate::net::Outgoing;
use crate::net::OutgoingRequest;
use crate::net::Pace;
use crate::net::read_secret;

/// How long a call may take: platforms think about ten thousand lines for a while.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An account on a platform, and the way there.
pub(super) struct Api {
    pub(super) settings: Platform,
    outgoing: Outgoing,
    pace: Arc<Pace>,
    /// How often it may be called.
    limits: &'static [Limit],
    /// The platform asked to be left alone until then.
    not_before: AtomicI64,
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    /// What follows the platform's address.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

impl Api {
    pub(super) fn new(settings: Platform, outgoing: Outgoing, limits: &'static [Limit]) -> Self {
        let pace = outgoing.pace(settings.url.as_str());
        Self { settings, outgoing, pace, limits, not_before: AtomicI64::new(Millis::MIN) }
    }

    /// Who it is in messages.
    pub(super) fn name(&self) -> String {
        self.settings.url.to_string()
    }

    /// The token, read anew, so that it may be changed while the server runs.
    pub(super) fn token(&self) -> Result<String, Verdict> {
        read_secret("token", &self.settings.token).map_err(Verdict::Retry)
    }

    /// The secret that calls are signed with, where there is one.
    pub(super) fn secret(&self) -> Result<Option<String>, Verdict> {
        let secret = self.settings.secret.as_ref();
        secret.map(|from| read_secret("secret", from).map_err(Verdict::Retry)).transpose()
    }

    /// Where a segment goes, as the configuration says.
    pub(super) fn place(&self, segment: &str) -> Place {
        match self.settings.audiences.get(segment) {
            Some(place) => Place::Named(place.clone()),
            None => Place::Made,
        }
    }

    /// Makes no call before a time.
    pub(super) fn rest_until(&self, until: Millis) {
        self.not_before.fetch_max(until, Ordering::SeqCst);
    }

    /// Makes a call; answers whose status alone says that it is to be tried again are verdicts already.
    pub(super) fn call(&self, call: &Call<'_>, now: Millis) -> Result<Answered, Verdict> {
        let not_before = self.not_before.load(Ordering::SeqCst);
        if now < not_before {
            return Err(Verdict::Throttled(Some(not_before)));
        }
        http::keep_pace(&self.pace, self.limits, now)?;
        let url = format!("{}{}", self.settings.url.as_str().trim_end_matches('/'), call.path);
        let request = OutgoingRequest {
            method: call.method,
            url: &url,
            headers: call.headers,
            body: call.body,
            timeout: TIMEOUT,
        };
        let answered = self.outgoing.call(&request);
        answered.map_err(|error| http::unanswered(&self.name(), &error))
    }
}
