//! At half the highest rate: do answers stay quick, and does the fold keep up?

use super::subject::{all_taken, bare_requests, browser_requests};
use super::{Measured, Settings, Subject, seconds};
use crate::bare::Bare;
use crate::pixel::{self, Load};
use crate::probe;
use crate::random::Random;
use crate::scrape::{Scrape, cpu_seconds};
use crate::server::Server;
use anyhow::{Result, bail};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What half the highest rate did.
#[derive(Debug, Clone, Serialize)]
pub struct Half {
    /// What was measured.
    pub subject: Subject,
    /// Hits a second that were due.
    pub due: f64,
    /// The server's answers.
    pub measured: Measured,
    /// The bare handler's answers at the same rate.
    pub bare: Measured,
    /// Seconds that half of the disk's syncs and 99 % of them take at most, without a server.
    pub fdatasync: (f64, f64),
    /// The fold's lag in seconds: the mean of the first third, of the last third, and the longest.
    pub lag: (f64, f64, f64),
    /// Seconds after the last hit until everything was folded.
    pub drained: f64,
}

pub(super) fn measure(settings: &Settings, subject: Subject, due: f64) -> Result<Half> {
    let sync = probe::fdatasync(&settings.directory, Duration::from_secs(2))?;
    let load = |target| Load {
        target,
        connections: settings.connections,
        threads: 1,
        rate: Some(due),
        warm_up: Duration::from_secs(1),
        time: Duration::from_secs_f64(settings.half_seconds),
    };

    let bare_server = Bare::start(&settings.loadtest, settings.workers)?;
    let before = cpu_seconds(bare_server.pid())?;
    let mut bare_load = load(bare_server.address);
    bare_load.time = bare_load.time.min(Duration::from_secs(6));
    let answers = pixel::run(&bare_load, &bare_requests(settings), Random::seed())?;
    let bare = Measured::new(&answers, cpu_seconds(bare_server.pid())? - before);
    drop(bare_server);

    let place = subject.place(settings)?;
    let server = Server::start(&place.plan)?;
    let requests = browser_requests(settings, server.collect()?)?;
    let before = cpu_seconds(server.pid())?;
    let done = AtomicBool::new(false);
    let collect = server.collect()?;
    let (answers, lags) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample_lag(server.console, &done));
        let answers = pixel::run(&load(collect), &requests, Random::seed());
        done.store(true, Ordering::Relaxed);
        (answers, sampler.join())
    });
    let answers = answers?;
    let lags = lags.map_err(|_| anyhow::anyhow!("the sampler panicked"))??;
    let ended = Instant::now();
    let measured = Measured::new(&answers, cpu_seconds(server.pid())? - before);
    let scrape = wait_until_folded(server.console, Duration::from_secs(60))?;
    let drained = seconds(ended.elapsed());
    all_taken(&scrape)?;
    server.stop()?;
    let third = (lags.len() / 3).max(1);
    Ok(Half {
        subject,
        due,
        measured,
        bare,
        fdatasync: (seconds(sync.quantile(0.5)), seconds(sync.quantile(0.99))),
        lag: (
            mean(&lags[..third.min(lags.len())]),
            mean(&lags[lags.len().saturating_sub(third)..]),
            lags.iter().copied().fold(0.0, f64::max),
        ),
        drained,
    })
}

fn sample_lag(console: SocketAddr, done: &AtomicBool) -> Result<Vec<f64>> {
    let mut lags = Vec::new();
    while !done.load(Ordering::Relaxed) {
        lags.push(Scrape::of(console)?.sum("throng_ingest_fold_lag_seconds", ""));
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(lags)
}

/// Waits until every record of the journal is folded, and returns the scrape that said so.
pub(super) fn wait_until_folded(console: SocketAddr, patience: Duration) -> Result<Scrape> {
    let start = Instant::now();
    loop {
        let scrape = Scrape::of(console)?;
        let logged = scrape.sum("throng_ingest_logged_events_total", "");
        let folded = scrape.sum("throng_ingest_folded_events_total", "");
        if folded >= logged && scrape.sum("throng_ingest_fold_lag_seconds", "") <= 0.0 {
            return Ok(scrape);
        }
        if start.elapsed() > patience {
            bail!("after {patience:?} {folded} of {logged} events were folded");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
