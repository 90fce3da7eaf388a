//! `throng move` brings a store from a data directory to Redis, or back, while no server runs on either.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::archive;
use crate::archive::Home;
use crate::config::{BucketUrl, Config};
use crate::ingest;
use crate::store::chain;
use crate::store::redis::{Keys, Times};
use crate::transfer;
use crate::transfer::{MoveError, Options, Place, Progress, Report};

use super::client::data_dir;
use super::output::{NO, count, print, table};
use super::serve::settings;
use super::{Failure, Global};

/// Arguments of `throng move`.
#[derive(Debug, Args)]
pub(super) struct Move {
    /// Where the store is: a data directory, or Redis (redis://HOST:PORT, of a cluster several with commas)
    #[arg(long, value_name = "PLACE")]
    from: Place,
    /// Where it is to be: the other of the two, and empty
    #[arg(long, value_name = "PLACE")]
    to: Place,
    /// Folder or bucket that gets the archive's files, linked where that can be [default: where the settings have it]
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Folder of segment files; gets those that were made through the API, which only Redis keeps
    #[arg(long, value_name = "DIR", default_value = "segments")]
    segments: PathBuf,
}

/// Moves a store.
pub(super) fn run(global: &Global, command: &Move) -> Result<ExitCode, Failure> {
    let config = settings(global)?;
    let options = options(global, &config, command)?;
    let mut meter = Meter::new(global);
    let moved = transfer::transfer(&options, &mut |progress| meter.show(progress));
    drop(meter);
    let report = moved.map_err(failure)?;
    if global.json {
        let mut answer = json!(report);
        answer["same"] = json!(report.is_same());
        answer["archive"] = json!(options.to_archive.to_string());
        print(&answer.to_string())?;
    } else {
        print(&compared(&report))?;
        if report.is_same() {
            print(&next(&options, &report))?;
        }
    }
    if report.is_same() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "throng: what has come to {} is not the same; no server starts on it: find out what is wrong with it, \
         and run the move again",
        options.to
    );
    Ok(ExitCode::from(NO))
}

fn failure(error: MoveError) -> Failure {
    let text = format!("nothing was moved: {}", chain(&error));
    if error.is_refusal() { Failure::No(text) } else { Failure::OutOfReach(text) }
}

fn options(global: &Global, config: &Config, command: &Move) -> Result<Options, Failure> {
    let Move { from, to, archive, segments } = command;
    let whole = |path: &Path| {
        std::path::absolute(path)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    };
    // As the servers of either have it.
    let data = match (from, to) {
        (Place::Directory(dir), Place::Redis(_)) => dir.clone(),
        (Place::Redis(_), Place::Directory(_)) => data_dir(global),
        _ => {
            return Err(Failure::Usage(format!(
                "--from {from} --to {to}: one of them is a data directory such as ./data, the other Redis, such \
                 as redis://127.0.0.1:6379"
            )));
        }
    };
    let uploads = std::env::temp_dir().join(format!("throng-uploads-{}", std::process::id()));
    let home = |at: &Path, folder: &str| -> Result<Home, Failure> {
        let at = if BucketUrl::is_meant(at) { at.to_owned() } else { whole(at)? };
        let home = Home::new(&at, &config.archive, &uploads.join(folder));
        home.map_err(|error| Failure::Usage(chain(&error)))
    };
    let of_source = config.archive.path.clone().unwrap_or_else(|| data.join("archive"));
    let of_target = match (archive, to) {
        (Some(archive), _) => archive.clone(),
        (None, Place::Directory(dir)) if config.archive.path.is_none() => dir.join("archive"),
        (None, _) => of_source.clone(),
    };
    let dedup_memory = usize::try_from(config.events.dedup_memory.0).unwrap_or(usize::MAX);
    Ok(Options {
        from: from.clone(),
        to: to.clone(),
        keys: Keys::default(),
        trust: config.store.trust(),
        times: Times::default(),
        fold: ingest::Options::new(config.events.retention.0, dedup_memory),
        policy: archive::Policy {
            bytes: config.archive.file_size.0,
            age: config.archive.file_age.0,
        },
        lanes: config.store.lanes.unwrap_or(16),
        archive: home(&of_source, "from")?,
        to_archive: home(&of_target, "to")?,
        segments: segments.clone(),
    })
}

/// Everything that was compared.
fn compared(report: &Report) -> String {
    let rows = report.compared.iter().map(|compared| {
        let same = match (compared.same, &compared.why) {
            (true, _) => "same".to_owned(),
            (false, None) => "DIFFERS".to_owned(),
            (false, Some(why)) => format!("DIFFERS: {why}"),
        };
        vec![compared.what.clone(), count(compared.from), count(compared.to), same]
    });
    table(&["WHAT", "FROM", "TO", ""], rows)
}

/// What there is now, and what to do next.
fn next(options: &Options, report: &Report) -> String {
    let mut text = String::new();
    let archive = &options.to_archive;
    let stays = options.archive.is_same(&options.to_archive);
    match &options.to {
        Place::Redis(urls) => {
            text += &format!(
                "\n{} holds the store now, {} shards in {} lanes. To go on, set\n\n\
                 [store]\nbackend = \"{}\"\nurl = \"{}\"{}\n\n[archive]\npath = \"{archive}\"\n\n\
                 and start servers with data directories of their own (`throng serve --data DIR`).\n",
                options.to,
                report.shards,
                report.lanes,
                if urls.contains(',') { "redis-cluster" } else { "redis" },
                options.to,
                if urls.contains('@') { "  # with its user and password" } else { "" },
            );
        }
        Place::Directory(dir) => {
            text += &format!(
                "\n{} holds the store now. To go on, set\n\n[store]\nbackend = \"embedded\"\n\n\
                 [archive]\npath = \"{archive}\"\n\nand start `throng serve --data {}`.\n",
                dir.display(),
                dir.display(),
            );
        }
    }
    for file in &report.made {
        text += &format!("{} was written: its segment had no file.\n", file.display());
    }
    if report.letters_dropped > 0 {
        text += &format!(
            "{} dead letters stayed behind: they were too old, or too many for one store.\n",
            count(report.letters_dropped)
        );
    }
    text += &match stays {
        false => format!(
            "{} is as it was, but for being folded to its end: keep it until you are content, and start no \
             server on it.\n",
            options.from
        ),
        true => format!(
            "The archive's files stayed in {archive} and are the new store's from now on: what a server on \
             one of the two does to them the other misses. Start none on {}.\n",
            options.from
        ),
    };
    text
}

/// Shows how far it has come: a bar on a terminal, elsewhere a line for each part that is whole.
struct Meter {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    last: Option<Progress>,
}

impl Meter {
    fn new(global: &Global) -> Self {
        let is_quiet = global.json;
        let bar = (!is_quiet && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{prefix:8} {bar:32} {human_pos}/{human_len}");
            let bar = ProgressBar::new(0);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, is_quiet, last: None }
    }

    fn show(&mut self, progress: Progress) -> bool {
        if self.last.is_some_and(|last| last.part != progress.part) {
            self.end();
        }
        self.last = Some(progress);
        if let Some(bar) = &self.bar {
            bar.set_prefix(progress.part);
            bar.set_length(progress.of);
            bar.set_position(progress.done);
        }
        true
    }

    /// Says that a part is whole.
    fn end(&mut self) {
        let Some(Progress { part, done, of }) = self.last.take() else { return };
        if self.is_quiet || done < of {
            return;
        }
        let what = match part {
            "fold" => "bytes of the journal",
            "ids" => "message ids",
            "archive" => "files",
            "ledger" => "identifiers",
            _ => "shards",
        };
        let line = format!("{part:8} {} {what}", count(done));
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
