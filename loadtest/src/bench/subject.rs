//! What is measured at its highest rate, and how.

use super::{Place, Settings, median, seconds};
use crate::bare::Bare;
use crate::pixel::{self, Answers, Load};
use crate::random::Random;
use crate::request::{self, Requests, Visitors};
use crate::scrape::{Scrape, cpu_seconds};
use crate::server::Server;
use anyhow::{Result, bail};
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A server under one set of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The bare handler.
    Bare,
    /// Throng, `disk`.
    Disk,
    /// Throng, `disk-buffered`.
    Buffered,
    /// Throng, `disk`, the fold held back.
    DiskHeld,
    /// Throng, `disk-buffered`, the fold held back.
    BufferedHeld,
    /// Throng on Redis, `redis-everysec`, the fold held back.
    EverysecHeld,
    /// Throng on Redis, `redis-always`, the fold held back.
    AlwaysHeld,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare",
            Self::Disk => "disk",
            Self::Buffered => "disk-buffered",
            Self::DiskHeld => "disk, fold held",
            Self::BufferedHeld => "disk-buffered, fold held",
            Self::EverysecHeld => "redis-everysec, fold held",
            Self::AlwaysHeld => "redis-always, fold held",
        })
    }
}

/// One run, or the medians of several.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measured {
    /// Answers a second.
    pub rate: f64,
    /// Seconds that half of the answers took at most.
    pub p50: f64,
    /// Seconds that 99 % of the answers took at most.
    pub p99: f64,
    /// Seconds that 99.9 % of the answers took at most.
    pub p999: f64,
    /// Microseconds of processor time that the server used for a hit, fold included.
    pub cpu_micros: f64,
}

impl Measured {
    /// Sums up a run in which the server used this much processor time.
    pub(super) fn new(answers: &Answers, cpu: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
        let hits = answers.latency.count().max(1) as f64;
        Self {
            rate: answers.rate(),
            p50: seconds(answers.latency.quantile(0.5)),
            p99: seconds(answers.latency.quantile(0.99)),
            p999: seconds(answers.latency.quantile(0.999)),
            cpu_micros: cpu / hits * 1e6,
        }
    }

    /// The median of each number.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(rounds.iter().map(pick).collect());
        Self {
            rate: of(|m| m.rate),
            p50: of(|m| m.p50),
            p99: of(|m| m.p99),
            p999: of(|m| m.p999),
            cpu_micros: of(|m| m.cpu_micros),
        }
    }
}

impl Subject {
    /// All, the bare handler first.
    pub const ALL: [Self; 7] = [
        Self::Bare,
        Self::Disk,
        Self::Buffered,
        Self::DiskHeld,
        Self::BufferedHeld,
        Self::EverysecHeld,
        Self::AlwaysHeld,
    ];

    /// Whether its fold is held back.
    pub fn held(self) -> bool {
        !matches!(self, Self::Bare | Self::Disk | Self::Buffered)
    }

    /// The least share of the bare handler's rate that is good enough.
    pub fn aim(self) -> Option<f64> {
        match self {
            Self::Bare => None,
            Self::Disk => Some(0.3),
            Self::Buffered => Some(0.45),
            Self::DiskHeld => Some(0.5),
            Self::BufferedHeld => Some(0.8),
            Self::EverysecHeld => Some(0.6),
            Self::AlwaysHeld => Some(0.4),
        }
    }

    /// How often the Redis that it runs on writes to its disk; `None` of a store of its own.
    fn redis(self) -> Option<&'static str> {
        match self {
            Self::EverysecHeld => Some("everysec"),
            Self::AlwaysHeld => Some("always"),
            _ => None,
        }
    }

    /// A place for a server of this kind.
    pub(super) fn place(self, settings: &Settings) -> Result<Place> {
        let durability = match self {
            Self::Bare | Self::Disk | Self::DiskHeld => "journal.durability=disk",
            Self::Buffered | Self::BufferedHeld => "journal.durability=disk-buffered",
            Self::EverysecHeld => "journal.durability=redis-everysec",
            Self::AlwaysHeld => "journal.durability=redis-always",
        };
        let hold = self.held().then_some(settings.hold.as_str());
        let extra: Vec<_> = [Some(durability), hold].into_iter().flatten().collect();
        Place::new(settings, &extra, self.redis())
    }

    /// Measures it at its highest rate, on a store of its own.
    pub(super) fn highest(self, settings: &Settings) -> Result<Measured> {
        if self == Self::Bare {
            let bare = Bare::start(&settings.loadtest, settings.workers)?;
            return highest(settings, bare.address, bare.pid(), &bare_requests(settings));
        }
        let place = self.place(settings)?;
        let server = Server::start(&place.plan)?;
        let requests = browser_requests(settings, server.collect()?)?;
        let measured = highest(settings, server.collect()?, server.pid(), &requests)?;
        all_taken(&Scrape::of(server.console)?)?;
        server.stop()?;
        Ok(measured)
    }
}

/// Requests with cookies that the server made.
pub(super) fn browser_requests(settings: &Settings, collect: SocketAddr) -> Result<Requests> {
    let cookies = request::cookies(collect, "demo", settings.visitors)?;
    Ok(Requests::new("demo", Visitors::Cookies(cookies), Random::seed()))
}

/// Requests as long as those with cookies, for a server that does not read them.
pub(super) fn bare_requests(settings: &Settings) -> Requests {
    let cookie = |n: usize| format!("throng={n:032x}.{:022x}", 0);
    let cookies = (0..settings.visitors).map(cookie).collect();
    Requests::new("demo", Visitors::Cookies(cookies), Random::seed())
}

/// Fails where a hit was answered with its image and not accepted.
pub(super) fn all_taken(scrape: &Scrape) -> Result<()> {
    let pixel = "endpoint=\"pixel\"";
    let all = scrape.sum("throng_collect_events_total", pixel);
    let accepted =
        scrape.sum("throng_collect_events_total", "endpoint=\"pixel\",outcome=\"accepted\"");
    if all > accepted {
        bail!("of {all} hits only {accepted} were accepted");
    }
    Ok(())
}

fn highest(
    settings: &Settings,
    target: SocketAddr,
    pid: u32,
    requests: &Requests,
) -> Result<Measured> {
    let mut load = Load {
        target,
        connections: settings.connections,
        threads: 1,
        rate: None,
        warm_up: Duration::ZERO,
        time: Duration::from_secs_f64((settings.seconds / 4.0).min(1.0)),
    };
    pixel::run(&load, requests, Random::seed())?;
    load.time = Duration::from_secs_f64(settings.seconds);
    let before = cpu_seconds(pid)?;
    let answers = pixel::run(&load, requests, Random::seed())?;
    let cpu = cpu_seconds(pid)? - before;
    if answers.refused > 0 {
        bail!("{} hits were refused", answers.refused);
    }
    Ok(Measured::new(&answers, cpu))
}
