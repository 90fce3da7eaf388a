//! The product beside a bare handler, on the same cores in the same minutes, by turns.
//!
//! Three questions: what share of the bare handler's rate is left, with the fold at work and with
//! it held back; whether, at half the highest rate, the fold keeps up and answers stay quick; and what
//! the fold costs by itself.

mod fold;
mod half;
mod report;
mod subject;
mod workers;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use fold::Fold;
pub use half::Half;
pub use subject::{Measured, Subject};
pub use workers::Workers;

use crate::redis::Redis;
use crate::server::Plan;

/// Rules whose traits the fold keeps while it is measured.
const RULES: [(&str, &str); 8] = [
    ("readers", "count page_view in 7d >= 3"),
    ("front", r#"did page_view[page.path starts with "/p/1"] in 1d"#),
    ("shoes", r#"count product_view[category = "shoes"] in 14d >= 2"#),
    ("shirts", r#"did product_view[category = "shirts"] then purchase within 2h"#),
    ("spenders", "sum purchase.value in 30d >= 50"),
    ("phones", r#"days page_view[device.kind = "mobile"] in 30d >= 2"#),
    ("lookers", "did product_view in 7d and not did purchase in 7d"),
    ("late", "last product_view after last purchase"),
];

/// What to measure and for how long.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `throng` binary.
    pub throng: PathBuf,
    /// This binary, for the bare handler.
    pub loadtest: PathBuf,
    /// Where data directories are made; on the disk that is to be measured.
    pub directory: PathBuf,
    /// Rounds over all subjects; the medians count.
    pub rounds: usize,
    /// Measured seconds of each subject in each round.
    pub seconds: f64,
    /// Seconds at half the highest rate.
    pub half_seconds: f64,
    /// Keep-alive connections.
    pub connections: usize,
    /// Worker threads of both servers.
    pub workers: usize,
    /// Browsers with a cookie.
    pub visitors: usize,
    /// The setting that holds the fold back.
    pub hold: String,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Processors that server and generator shared.
    pub cores: usize,
    /// Each subject at its highest rate, medians over the rounds.
    pub highest: Vec<Highest>,
    /// Each durability at half its highest rate.
    pub half: Vec<Half>,
    /// The fold by itself; missing where it could not be held back.
    pub fold: Option<Fold>,
    /// The fold on Redis by one worker and by two.
    pub workers: Vec<Workers>,
    /// What could not be measured, and why.
    pub left_out: Vec<String>,
}

/// A subject at its highest rate.
#[derive(Debug, Clone, Serialize)]
pub struct Highest {
    /// What was measured.
    pub subject: Subject,
    /// The median of the rounds.
    pub measured: Measured,
    /// The median over the rounds of its rate to the bare handler's in the same round.
    pub of_bare: f64,
    /// The least share that is good enough.
    pub aim: Option<f64>,
}

/// Measures everything; `tell` is given a line for each step.
pub fn run(settings: &Settings, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut report = Report {
        cores: std::thread::available_parallelism()?.get(),
        highest: Vec::new(),
        half: Vec::new(),
        fold: None,
        workers: Vec::new(),
        left_out: Vec::new(),
    };
    let mut subjects = Subject::ALL.to_vec();
    let mut rounds: Vec<Vec<Measured>> = vec![Vec::new(); subjects.len()];
    for round in 1..=settings.rounds {
        let mut at = 0;
        while at < subjects.len() {
            let subject = subjects[at];
            match subject.highest(settings) {
                Ok(measured) => {
                    tell(&format!("round {round}: {subject} {:.0} hits/s", measured.rate));
                    rounds[at].push(measured);
                    at += 1;
                }
                Err(error) if subject.held() => {
                    report.left_out.push(format!("{subject}: {error:#}"));
                    subjects.remove(at);
                    rounds.remove(at);
                }
                Err(error) => return Err(error).with_context(|| format!("measuring {subject}")),
            }
        }
    }
    let bare: Vec<f64> = rounds[0].iter().map(|measured| measured.rate).collect();
    for (subject, rounds) in subjects.iter().zip(&rounds) {
        let ratios = rounds.iter().zip(&bare).map(|(measured, bare)| measured.rate / bare);
        report.highest.push(Highest {
            subject: *subject,
            of_bare: median(ratios.collect()),
            measured: Measured::median(rounds),
            aim: subject.aim(),
        });
    }
    for subject in [Subject::Disk, Subject::Buffered] {
        let highest = report.highest.iter().find(|highest| highest.subject == subject);
        let rate = highest.context("it was measured above")?.measured.rate / 2.0;
        tell(&format!("half: {subject} at {rate:.0} hits/s"));
        report.half.push(half::measure(settings, subject, rate)?);
    }
    if subjects.iter().any(|subject| subject.held()) {
        tell("fold: a journal that waited");
        report.fold = Some(fold::measure(settings)?);
    }
    for workers in [1, 2] {
        tell(&format!("workers: {workers} on Redis"));
        match workers::measure(settings, workers) {
            Ok(measured) => report.workers.push(measured),
            Err(error) => report.left_out.push(format!("{workers} workers on Redis: {error:#}")),
        }
    }
    Ok(report)
}

/// A data directory of its own, removed when dropped, and how to start a server on it.
struct Place {
    _redis: Option<Redis>,
    _directory: tempfile::TempDir,
    plan: Plan,
}

impl Place {
    /// `fsync` is how often a Redis to run on writes to its disk, where it is to run on one.
    fn new(settings: &Settings, extra: &[&str], fsync: Option<&str>) -> Result<Self> {
        let directory =
            tempfile::Builder::new()
                .prefix("bench-")
                .tempdir_in(&settings.directory)
                .with_context(|| format!("making a folder in {}", settings.directory.display()))?;
        let path = std::path::absolute(directory.path())?;
        let segments = path.join("segments");
        write_rules(&segments)?;
        let workers = format!("collect.workers={}", settings.workers);
        let redis = fsync.map(|fsync| Redis::start(&path.join("redis"), fsync)).transpose()?;
        let shared = redis.iter().flat_map(|redis| {
            ["store.backend=redis".to_owned(), format!("store.url={}", redis.url())]
        });
        let plan = Plan {
            binary: std::path::absolute(&settings.throng)?,
            data: path.join("data"),
            segments,
            role: None,
            settings: extra.iter().map(|&s| s.to_owned()).chain([workers]).chain(shared).collect(),
        };
        if !plan.binary.exists() {
            bail!("{} is missing; build it first", plan.binary.display());
        }
        Ok(Self { _redis: redis, _directory: directory, plan })
    }
}

fn write_rules(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for (id, rule) in RULES {
        std::fs::write(folder.join(format!("{id}.toml")), format!("rule = '''\n{rule}\n'''\n"))?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.get(values.len().wrapping_sub(1) / 2), values.get(values.len() / 2)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
