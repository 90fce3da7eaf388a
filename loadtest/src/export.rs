//! A large audience on its way into files: seconds, and how much more memory than before.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::scrape::{peak_bytes, reset_peak, resident_bytes};
use crate::segments::{now, wait_live, wait_true};
use crate::server::{Plan as ServerPlan, Server};

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `throng` binary.
    pub throng: PathBuf,
    /// Where the data directory is made.
    pub directory: PathBuf,
    /// Members, each with one identifier.
    pub members: u64,
}

/// What was measured. Times are in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Members, each with one identifier.
    pub members: u64,
    /// Until all were imported, folded and in the audience.
    pub import: f64,
    /// The first push: all are added.
    pub all: f64,
    /// Bytes resident before it, and the most during it.
    pub resident: [u64; 2],
    /// A push after which nothing is other than before.
    pub none: f64,
    /// A push after one in a thousand came.
    pub few: f64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Runs the measurement; `tell` is given a line for each step.
///
/// # Errors
/// The files do not hold each member once, or the server fails.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("export-").tempdir_in(&plan.directory)?;
    let path = std::path::absolute(directory.path())?;
    let server_plan = ServerPlan::within(&path, &plan.throng)?;
    std::fs::create_dir_all(path.join("config"))?;
    let (segment, rule) = (path.join("segments/all.toml"), "rule = 'did visit'\nmin_size = 1\n");
    std::fs::write(&segment, rule)?;
    std::fs::write(
        path.join("config/destinations.toml"),
        "[[destination]]\nname = \"files\"\nkind = \"file\"\npath = \"out\"\nevery = \"1d\"\n",
    )?;
    let server = Server::start(&server_plan)?;
    wait_live(&server, 1)?;
    let begun = Instant::now();
    import(&server, &path, 0..plan.members)?;
    let import_took = begun.elapsed().as_secs_f64();
    tell(&format!("{} members are in the audience after {import_took:.0} s", plan.members));

    // Only now, so that nobody is sent by schedule before.
    std::fs::write(&segment, format!("{rule}\n[[activate]]\ndestination = \"files\"\n"))?;
    wait_true(&server)?;
    reset_peak(server.pid())?;
    let before = resident_bytes(server.pid())?;
    let all = push(&server, plan.members)?;
    let peak = peak_bytes(server.pid())?;
    tell(&format!("all are written after {all:.1} s"));
    let none = push(&server, 0)?;
    let few = plan.members.div_ceil(1_000);
    import(&server, &path, plan.members..plan.members + few)?;
    let few = push(&server, few)?;
    let bytes = check(&path.join("out/all"), plan.members + plan.members.div_ceil(1_000))?;
    server.stop()?;
    Ok(Report {
        members: plan.members,
        import: import_took,
        all,
        resident: [before, peak],
        none,
        few,
        bytes,
    })
}

fn import(server: &Server, path: &Path, users: std::ops::Range<u64>) -> Result<()> {
    let file = path.join("events.ndjson");
    let mut out = BufWriter::new(File::create(&file)?);
    let time = now()?;
    for user in users {
        writeln!(
            out,
            r#"{{"site":"demo","event":"visit","time":{time},"ids":{{"user_id":"user-{user:012}"}}}}"#
        )?;
    }
    out.flush()?;
    server.command(&["import", "events", &file.to_string_lossy()])?;
    wait_true(server)?;
    std::fs::remove_file(&file)?;
    Ok(())
}

/// Pushes; tells how long that took.
fn push(server: &Server, adds: u64) -> Result<f64> {
    let begun = Instant::now();
    let said = server.command(&["destination", "push", "files", "--json"])?;
    let took = begun.elapsed().as_secs_f64();
    let said: serde_json::Value = serde_json::from_str(&said)?;
    if said[0]["adds"].as_u64() != Some(adds) || said[0]["removes"].as_u64() != Some(0) {
        bail!("{adds} were to be added: {said}");
    }
    Ok(took)
}

/// Counts who is in the files, each once; tells their size.
fn check(folder: &Path, members: u64) -> Result<u64> {
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += entry.metadata()?.len();
        for line in BufReader::new(File::open(entry.path())?).lines().skip(1) {
            let line = line?;
            let user = line.trim_end().strip_prefix("add,user_id,user-");
            let user: u64 = user.context("a line that adds nobody")?.parse()?;
            if !seen.insert(user) {
                bail!("{user} is added twice");
            }
        }
    }
    if seen.len() as u64 != members {
        bail!("{} are in the files, and not {members}", seen.len());
    }
    Ok(bytes)
}
