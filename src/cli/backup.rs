//! `throng backup` asks a running server for a copy of its data directory; `throng restore` makes a data
//! directory of one.

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::backup;
use crate::backup::Manifest;
use crate::backup::Progress;
use crate::backup::RestoreError;
use crate::net::SystemClock;
use crate::store::chain;

use super::client::{Client, data_dir};
use super::output::{count, print};
use super::{Failure, Global};

/// Arguments of `throng backup`.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// A new or empty directory on the server's machine
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Checks the backup that DIR holds, and takes none; needs no server
    #[arg(long)]
    verify: bool,
}

/// Arguments of `throng restore`.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Takes a backup, or checks one.
pub(super) fn run(global: &Global, command: &Backup) -> Result<ExitCode, Failure> {
    let dir = &command.dir;
    let mut meter = Meter::new(global);
    if command.verify {
        let verified = backup::verify(dir, &mut |progress| meter.show(&json!(progress)));
        let manifest = verified.map_err(failure)?;
        return say(global, dir, "whole", &manifest.summary());
    }
    if global.server.is_some() && !dir.is_absolute() {
        return Err(Failure::Usage(format!(
            "{}: a server given with --server may be on another machine; give the whole path there",
            dir.display()
        )));
    }
    let dir = std::path::absolute(dir)
        .map_err(|error| Failure::Usage(format!("{}: {error}", dir.display())))?;
    let client = Client::find(global)?;
    let mut taken = None;
    client.lines("/api/v1/backup", Some(&json!({ "dir": dir })), |line| {
        let mut line: Value = serde_json::from_str(line).map_err(|error| {
            Failure::OutOfReach(format!("the server's answer is no JSON: {error}"))
        })?;
        if let Some(error) = line["error"].as_str() {
            return Err(Failure::OutOfReach(format!("no backup was taken: {error}")));
        }
        match line.get_mut("backup") {
            Some(backup) => taken = Some(backup.take()),
            None => meter.show(&line),
        }
        Ok(())
    })?;
    let taken = taken.ok_or_else(|| {
        Failure::OutOfReach("no backup was taken: the server's answer broke off".into())
    })?;
    say(global, &dir, "backed up", &taken)
}

/// Makes a data directory of a backup.
pub(super) fn restore(global: &Global, command: &Restore) -> Result<ExitCode, Failure> {
    let data = data_dir(global);
    let mut meter = Meter::new(global);
    let clock = SystemClock::default();
    let tell = &mut |progress: Progress| meter.show(&json!(progress));
    let manifest: Manifest = backup::restore(&command.dir, &data, &clock, tell).map_err(failure)?;
    say(global, &data, "restored", &manifest.summary())
}

fn failure(error: RestoreError) -> Failure {
    let text = chain(&error);
    if error.is_refusal() { Failure::No(text) } else { Failure::OutOfReach(text) }
}

/// Says what there is, as of when.
fn say(global: &Global, dir: &Path, what: &str, summary: &Value) -> Result<ExitCode, Failure> {
    if global.json {
        let mut summary = summary.clone();
        summary["dir"] = json!(dir);
        print(&summary.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let counts = &summary["counts"];
    let to_fold = match number(&counts["to_fold"]) {
        0 => String::new(),
        records => format!(" and {} records to fold", count(records)),
    };
    print(&format!(
        "{}: {what}, {} in {} files, true for {}: {} events counted{to_fold}, {} profiles",
        dir.display(),
        HumanBytes(number(&summary["bytes"])),
        count(number(&summary["files"])),
        summary["true_for"].as_str().unwrap_or_default(),
        count(number(&counts["counted"])),
        count(number(&counts["profiles"])),
    ))?;
    let made = number(&summary["made_segments"]);
    if made > 0 {
        print(&format!(
            "segments that were made through the API: {made}, in {}; a server on a data directory knows those that \
             are in its --segments folder, so copy them there before it starts",
            dir.join(backup::MADE_SEGMENTS).display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows how far it has come: a bar on a terminal, elsewhere a line for each part that is whole.
struct Meter {
    bar: Option<ProgressBar>,
    is_quiet: bool,
}

impl Meter {
    fn new(global: &Global) -> Self {
        let is_quiet = global.json;
        let bar = (!is_quiet && io::stderr().is_terminal()).then(|| {
            let style = "{prefix:9} {bar:32} {percent:>3} % {msg}";
            let style = ProgressStyle::with_template(style);
            let bar = ProgressBar::new(0);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, is_quiet }
    }

    /// Shows a [`Progress`].
    fn show(&mut self, progress: &Value) {
        let number = |field: &str| progress[field].as_u64().unwrap_or(0);
        let part = progress["part"].as_str().unwrap_or_default();
        let amount = |field: &str| match progress["unit"].as_str() {
            Some("bytes") | None => HumanBytes(number(field)).to_string(),
            Some(unit) => format!("{} {unit}", count(number(field))),
        };
        if let Some(bar) = &self.bar {
            bar.set_prefix(part.to_owned());
            bar.set_length(number("of"));
            bar.set_position(number("done"));
            bar.set_message(format!("{} of {}", amount("done"), amount("of")));
        }
        if progress["whole"] == true && !self.is_quiet {
            let line = format!("{part:9} {}", amount("done"));
            match &self.bar {
                Some(bar) => bar.suspend(|| eprintln!("{line}")),
                None => eprintln!("{line}"),
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
