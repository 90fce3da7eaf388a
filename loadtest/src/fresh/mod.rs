//! How soon what was acknowledged is reflected: in the audience, in the lookup of a profile, and in `why`, while other
//! events arrive at a fixed rate.

mod ask;
mod sample;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::pixel::{self, Load};
use crate::random::Random;
use crate::request::{Requests, Visitors};
use crate::scrape;
use crate::server::{Plan as ServerPlan, Server};
use ask::{Reflects, WHERE};

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `throng` binary.
    pub throng: PathBuf,
    /// Where the data directory is made.
    pub directory: PathBuf,
    /// How many segments are live.
    pub segments: usize,
    /// How many profiles have events before anything is measured.
    pub profiles: u64,
    /// Events a second that arrive beside the probes.
    pub rate: f64,
    /// Measured time.
    pub time: Duration,
    /// Further settings of the server, each `key=value`.
    pub settings: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How many segments were live.
    pub segments: usize,
    /// How many profiles there were.
    pub profiles: u64,
    /// Seconds that the import of their events took, and the audiences after it.
    pub import_seconds: f64,
    /// Events a second that arrived and were answered.
    pub rate: f64,
    /// Events that were due and could not be sent, or were refused.
    pub missed: u64,
    /// Seconds of processor time that the server took for a second.
    pub cores: f64,
    /// Resident memory of the server at the end, in MiB.
    pub memory_mib: f64,
    /// From the acknowledgement of an event to its reflection.
    pub reflected: Vec<Reflected>,
}

/// How soon events were reflected in one place.
#[derive(Debug, Clone, Serialize)]
pub struct Reflected {
    /// Where.
    pub place: &'static str,
    /// How many events were followed.
    pub events: u64,
    /// In milliseconds, as all below.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Runs it; `tell` is given a line for each step.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("fresh-").tempdir_in(&plan.directory)?;
    let path = std::path::absolute(directory.path())?;
    let settings = plan.settings.clone();
    let server_plan = ServerPlan { settings, ..ServerPlan::within(&path, &plan.throng)? };
    for (name, text) in sample::segments(plan.segments) {
        std::fs::write(server_plan.segments.join(format!("{name}.toml")), text)?;
    }
    let file = path.join("events.ndjson");
    sample::write_events(&file, plan.profiles)?;
    let server = Server::start(&server_plan)?;
    let before = Instant::now();
    server.command(&["import", "events", &file.to_string_lossy()])?;
    std::fs::remove_file(&file)?;
    server.command(&["eval", "everyone"])?;
    settled(&server)?;
    let import_seconds = before.elapsed().as_secs_f64();
    tell(&format!(
        "{} profiles and {} segments after {import_seconds:.1} s",
        plan.profiles, plan.segments
    ));

    let stop = AtomicBool::new(false);
    let kinds: Vec<String> =
        sample::names().iter().map(|name| format!("{name}&p.value=19.90")).collect();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let visitors = Visitors::Named(plan.profiles);
    let requests = Requests::of_kinds("demo", &kinds, visitors, 0).reseeded(Random::seed());
    let load = Load {
        target: server.collect()?,
        connections: 64,
        threads: 1,
        rate: Some(plan.rate),
        warm_up: Duration::from_secs(2),
        time: plan.time,
    };
    let token = std::fs::read_to_string(path.join("data").join("token"))?;
    let before = (Instant::now(), scrape::cpu_seconds(server.pid())?);
    let (answers, found) = std::thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        let probes: Vec<_> = WHERE
            .into_iter()
            .map(|place| {
                let token = token.trim();
                scope.spawn(move || ask::follow(place, server, token, plan.segments, stop))
            })
            .collect();
        let answers = pixel::run(&load, &requests, Random::seed());
        stop.store(true, Ordering::Relaxed);
        let found: Vec<Result<Histogram>> = probes
            .into_iter()
            .map(|probe| probe.join().unwrap_or_else(|_| bail!("a probe panicked")))
            .collect();
        (answers, found)
    });
    let answers = answers?;
    let cores = (scrape::cpu_seconds(server.pid())? - before.1) / before.0.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let memory_mib = scrape::resident_bytes(server.pid())? as f64 / f64::from(1 << 20);
    let mut reflected = Vec::new();
    for (place, found) in WHERE.into_iter().zip(found) {
        let found = found.with_context(|| format!("following events to {}", place.name()))?;
        reflected.push(Reflected::new(place, &found));
    }
    server.stop()?;
    Ok(Report {
        segments: plan.segments,
        profiles: plan.profiles,
        import_seconds,
        rate: answers.rate(),
        missed: answers.refused + answers.unsent,
        cores,
        memory_mib,
        reflected,
    })
}

/// Waits until every audience has its members.
fn settled(server: &Server) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(600);
    loop {
        let list = server.command(&["audience", "list", "--json"])?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        let audiences = list.as_array().or_else(|| list["audiences"].as_array());
        let audiences = audiences.context("the list of audiences reads oddly")?;
        if !audiences.is_empty() && audiences.iter().all(|audience| audience["state"] == "live") {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("the audiences are not whole after ten minutes");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Reflected {
    fn new(place: Reflects, found: &Histogram) -> Self {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            place: place.name(),
            events: found.count(),
            p50_ms: millis(found.quantile(0.5)),
            p99_ms: millis(found.quantile(0.99)),
            max_ms: millis(found.max()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} segments, {} profiles ({:.1} s to import and evaluate), {:.0} events/s ({} missed), \
             {:.2} cores and {:.0} MiB of the server",
            self.segments,
            self.profiles,
            self.import_seconds,
            self.rate,
            self.missed,
            self.cores,
            self.memory_mib
        )?;
        for Reflected { place, events, p50_ms, p99_ms, max_ms } in &self.reflected {
            writeln!(
                f,
                "{place:>9}: p50 {p50_ms:6.1} ms, p99 {p99_ms:6.1} ms, longest {max_ms:6.1} ms after \
                 the answer ({events} events)"
            )?;
        }
        Ok(())
    }
}
