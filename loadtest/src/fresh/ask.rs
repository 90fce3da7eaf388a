//! Events of new visitors, followed one after the other until they show.

use anyhow::{Result, bail};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::sample;
use crate::histogram::Histogram;
use crate::http::Client;
use crate::server::Server;

/// Where an event shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reflects {
    /// The audience has one member more, and tells a time after the event.
    Audience,
    /// The profile is told to be in the audience.
    Lookup,
    /// The profile is told to be a member, with its event.
    Why,
}

pub(super) const WHERE: [Reflects; 3] = [Reflects::Audience, Reflects::Lookup, Reflects::Why];

/// An event that is not reflected after so long is lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before it is asked again.
const PAUSE: Duration = Duration::from_millis(4);
/// Between two events.
const BETWEEN: Duration = Duration::from_millis(30);

impl Reflects {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Audience => "audience",
            Self::Lookup => "lookup",
            Self::Why => "why",
        }
    }
}

/// Sends events and measures how long each takes to show, until it is told to stop.
pub(super) fn follow(
    place: Reflects,
    server: &Server,
    token: &str,
    segments: usize,
    stop: &AtomicBool,
) -> Result<Histogram> {
    let mut sender = Client::connect(server.collect()?)?;
    let mut asker = Client::connect(server.console)?.with_token(token);
    let mut found = Histogram::default();
    let mut number = 0usize;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        // The probes of each place have segments, events and visitors of their own.
        let (segment, event) = sample::probe(segments, number, place as usize);
        let user = format!("probe-{}-{number}", place.name());
        let before = match place {
            Reflects::Audience => members(&mut asker, &segment)?,
            Reflects::Lookup | Reflects::Why => 0,
        };
        let body = format!(
            r#"{{"site":"demo","event":"{event}","ids":{{"user_id":"{user}"}},"props":{{"value":99}}}}"#
        );
        let (head, _, body) = sender.post("/v1/events", &body)?;
        let acknowledged = Instant::now();
        if head.status != 200 {
            bail!("an event was answered with {}: {}", head.status, String::from_utf8_lossy(body));
        }
        loop {
            let shows = match place {
                Reflects::Audience => members(&mut asker, &segment)? > before,
                Reflects::Lookup => {
                    let path = format!("/api/v1/profiles/user_id/{user}/audiences");
                    let shown = ask(&mut asker, &path)?;
                    let audiences = shown["audiences"].as_array().cloned().unwrap_or_default();
                    audiences.iter().any(|audience| *audience == *segment)
                }
                Reflects::Why => {
                    let path = format!("/api/v1/profiles/user_id/{user}/why/{segment}");
                    ask(&mut asker, &path)?["member"] == true
                }
            };
            if shows {
                break;
            }
            if acknowledged.elapsed() > PATIENCE {
                bail!("{event} of {user} does not show in {segment}");
            }
            std::thread::sleep(PAUSE);
        }
        found.record(acknowledged.elapsed());
        std::thread::sleep(BETWEEN);
    }
    Ok(found)
}

/// How many members an audience has. Nobody but one probe at a time enters it.
fn members(asker: &mut Client, segment: &str) -> Result<u64> {
    let shown = ask(asker, &format!("/api/v1/audiences/{segment}"))?;
    Ok(shown["members"].as_u64().unwrap_or(0))
}

/// A profile that is not known yet is none.
fn ask(asker: &mut Client, path: &str) -> Result<Value> {
    let (head, _, body) = asker.get(path)?;
    match head.status {
        200 => Ok(serde_json::from_slice(body)?),
        404 => Ok(Value::Null),
        status => bail!("{path} was answered with {status}: {}", String::from_utf8_lossy(body)),
    }
}
