//! The fold by itself: a journal is written while the fold is held back, then folded by a server that
//! has nothing else to do.

use super::half::wait_until_folded;
use super::{Settings, Subject, seconds};
use crate::pixel::{self, Load};
use crate::random::Random;
use crate::request::{Requests, Visitors};
use crate::scrape::{Scrape, cpu_seconds, resident_bytes, thread_cpu_seconds};
use crate::server::Server;
use anyhow::{Result, bail};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Visitors of the journal that waits.
const VISITORS: u64 = 200_000;

/// What the fold costs.
#[derive(Debug, Clone, Serialize)]
pub struct Fold {
    /// Events that waited.
    pub events: f64,
    /// Seconds from the start of the server until all were folded.
    pub seconds: f64,
    /// Events a second of processor time of the fold's thread.
    pub per_fold_core_second: f64,
    /// Events a second of processor time of the whole process, commits, start and rest included.
    pub per_core_second: f64,
    /// Profiles in the dictionary.
    pub profiles: f64,
    /// Facts in the columns.
    pub facts: f64,
    /// Bytes of the columns for each fact.
    pub bytes_a_fact: f64,
    /// Bytes of the dictionary for each profile.
    pub bytes_a_profile: f64,
    /// Resident bytes of the process.
    pub resident: f64,
}

/// Sends a server the events that are to wait.
pub(super) fn fill(settings: &Settings, server: &Server) -> Result<()> {
    let load = Load {
        target: server.collect()?,
        connections: settings.connections,
        threads: 1,
        rate: None,
        warm_up: Duration::ZERO,
        time: Duration::from_secs_f64(2.0 * settings.seconds),
    };
    let requests = Requests::new("demo", Visitors::Named(VISITORS), Random::seed());
    pixel::run(&load, &requests, Random::seed()).map(drop)
}

pub(super) fn measure(settings: &Settings) -> Result<Fold> {
    let place = Subject::BufferedHeld.place(settings)?;
    let server = Server::start(&place.plan)?;
    fill(settings, &server)?;
    let held = Scrape::of(server.console)?;
    let logged = held.sum("throng_ingest_logged_events_total", "");
    if held.sum("throng_ingest_folded_events_total", "") > 0.0 {
        bail!("`{}` did not hold the fold back", settings.hold);
    }
    server.stop()?;

    let mut plan = place.plan.clone();
    plan.settings.retain(|setting| *setting != settings.hold);
    let start = Instant::now();
    let server = Server::start(&plan)?;
    let scrape = loop {
        let scrape = wait_until_folded(server.console, Duration::from_secs(120))?;
        if scrape.sum("throng_ingest_folded_events_total", "") >= logged {
            break scrape;
        }
        if start.elapsed() > Duration::from_secs(120) {
            bail!("the journal that waited was not folded");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let took = seconds(start.elapsed());
    let cpu = cpu_seconds(server.pid())?;
    let fold_cpu = thread_cpu_seconds(server.pid(), "fold")?;
    #[expect(clippy::cast_precision_loss, reason = "memory stays far below 2^53")]
    let resident = resident_bytes(server.pid())? as f64;
    server.stop()?;

    let profiles = scrape.sum("throng_profiles", "").max(1.0);
    let facts = scrape.sum("throng_facts", "").max(1.0);
    let memory = |part: &str| scrape.sum("throng_memory_bytes", &format!("part=\"{part}\""));
    Ok(Fold {
        events: logged,
        seconds: took,
        per_fold_core_second: logged / fold_cpu.max(1e-9),
        per_core_second: logged / cpu.max(1e-9),
        profiles,
        facts,
        bytes_a_fact: memory("columns") / facts,
        bytes_a_profile: memory("dictionary") / profiles,
        resident,
    })
}
