//! The fold on Redis by one worker and by two: how long each takes for the same number of events that waited, and
//! how much processor time each process used.
//!
//! One worker folds its lanes on several threads, so on few cores two take as long as one; then it shows in the
//! processor time of each that they share the work.

use super::{Place, Settings, fold, seconds};
use crate::scrape::{Scrape, cpu_seconds};
use crate::server::{Plan, Server};
use anyhow::{Result, bail};
use serde::Serialize;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// What so many workers took.
#[derive(Debug, Clone, Serialize)]
pub struct Workers {
    /// Events that waited in the lanes.
    pub events: f64,
    /// Seconds from the start of the processes until all were folded.
    pub seconds: f64,
    /// Seconds of processor time that each process used for it.
    pub cpu: Vec<f64>,
}

pub(super) fn measure(settings: &Settings, workers: usize) -> Result<Workers> {
    let place = Place::new(settings, &["journal.durability=redis-everysec"], Some("everysec"))?;
    let node = |name: &str, role: &'static str| Plan {
        data: place.plan.data.with_file_name(name),
        role: Some(role),
        ..place.plan.clone()
    };
    // The traits of the rules are to be there before any event.
    let first = Server::start(&node("w0", "work"))?;
    until("the rules are live", || {
        let scrape = Scrape::of(first.console)?;
        Ok(scrape.count("throng_segment_members") >= super::RULES.len())
    })?;
    first.stop()?;
    let collector = Server::start(&node("c", "collect"))?;
    fold::fill(settings, &collector)?;
    until("all is shipped", || {
        Ok(Scrape::of(collector.console)?.sum("throng_spool_bytes", "") <= 0.0)
    })?;
    let events = Scrape::of(collector.console)?.sum("throng_ingest_logged_events_total", "");

    let start = Instant::now();
    let plans = (0..workers).map(|worker| node(&format!("w{worker}"), "work"));
    let running = plans.map(|plan| Server::start(&plan)).collect::<Result<Vec<_>>>()?;
    until("all is folded", || {
        let folded = running.iter().map(|server| {
            Ok(Scrape::of(server.console)?.sum("throng_ingest_folded_events_total", ""))
        });
        Ok(folded.sum::<Result<f64>>()? >= events)
    })?;
    let took = seconds(start.elapsed());
    let cpu = running.iter().map(|server| cpu_seconds(server.pid())).collect::<Result<_>>()?;
    running.into_iter().try_for_each(Server::stop)?;
    collector.stop()?;
    Ok(Workers { events, seconds: took, cpu })
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > PATIENCE {
            bail!("{what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
