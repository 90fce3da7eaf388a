//! Erasure from a large store: how long one profile takes, and how long it takes until nothing of it lies anywhere.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::segments::{now, wait_live, wait_true};
use crate::server::{Plan as ServerPlan, Server};

/// Events of a profile.
const EVENTS: u64 = 4;
/// How long the sweep of one may take.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `throng` binary.
    pub throng: PathBuf,
    /// Where the data directory is made.
    pub directory: PathBuf,
    /// Profiles, each with a cookie, a `user_id` and four events.
    pub profiles: u64,
    /// How many of them are erased, one after the other.
    pub erased: u64,
}

/// What was measured. Times are in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Profiles, with four events each.
    pub profiles: u64,
    /// From the command to its answer: no rule counts the profile any more. The median, and the longest.
    pub answer: [f64; 2],
    /// Until nothing of it lies in the store, the journal or the archive. The median, and the longest.
    pub swept: [f64; 2],
    /// The command that shows all that is held of one.
    pub access: f64,
}

/// Runs the measurement; `tell` is given a line for each step.
///
/// # Errors
/// What was erased is still counted, or the server fails.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("erase-").tempdir_in(&plan.directory)?;
    let path = std::path::absolute(directory.path())?;
    let server_plan = ServerPlan::within(&path, &plan.throng)?;
    std::fs::write(path.join("segments/all.toml"), "rule = 'did visit'\nmin_size = 1\n")?;
    let server = Server::start(&server_plan)?;
    wait_live(&server, 1)?;
    import(&server, &path, plan.profiles)?;
    tell(&format!("{} profiles are there", plan.profiles));
    let step = plan.profiles / plan.erased.max(1);
    let begun = Instant::now();
    let held = server.command(&["access", "user_id", &user(step / 2)])?;
    let access = begun.elapsed().as_secs_f64();
    let held: Value = serde_json::from_str(&held)?;
    if held["events"].as_array().map(|events| events.len() as u64) != Some(EVENTS) {
        bail!("not all is shown: {held}");
    }
    let (mut answers, mut sweeps) = (Vec::new(), Vec::new());
    for number in 0..plan.erased {
        let begun = Instant::now();
        let said = server.command(&["erase", "user_id", &user(number * step), "--json"])?;
        answers.push(begun.elapsed().as_secs_f64());
        let said: Value = serde_json::from_str(&said)?;
        let erased = &said["receipt"]["erased"];
        if erased["profiles"] != 1 || erased["events"] != EVENTS {
            bail!("another number was erased: {said}");
        }
        let id = said["receipt"]["id"].as_str().unwrap_or_default().to_owned();
        loop {
            let said = server.command(&["receipt", "show", &id, "--json"])?;
            let said: Value = serde_json::from_str(&said)?;
            if said["receipt"]["state"] == "done" {
                break;
            }
            if begun.elapsed() > PATIENCE {
                bail!("it is not swept: {said}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        sweeps.push(begun.elapsed().as_secs_f64());
        tell(&format!("one is erased, and swept after {:.1} s", begun.elapsed().as_secs_f64()));
    }
    let left = server.command(&["eval", "did visit"])?;
    if left.trim() != (plan.profiles - plan.erased).to_string() {
        bail!("{left} are left");
    }
    server.stop()?;
    let (answer, swept) = (middle_and_last(answers), middle_and_last(sweeps));
    Ok(Report { profiles: plan.profiles, answer, swept, access })
}

fn user(number: u64) -> String {
    format!("user-{number:012}")
}

fn middle_and_last(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    [middle, times.last().copied().unwrap_or_default()]
}

fn import(server: &Server, path: &Path, profiles: u64) -> Result<()> {
    let file = path.join("events.ndjson");
    let mut out = BufWriter::new(File::create(&file)?);
    let time = now()?;
    for event in 0..EVENTS {
        for number in 0..profiles {
            let at = time - event * 86_400_000;
            writeln!(
                out,
                r#"{{"site":"demo","event":"visit","time":{at},"ids":{{"cookie":"{number:032x}","user_id":"{}"}}}}"#,
                user(number)
            )?;
        }
    }
    out.flush()?;
    server.command(&["import", "events", &file.to_string_lossy()])?;
    wait_true(server)?;
    std::fs::remove_file(&file)?;
    Ok(())
}
