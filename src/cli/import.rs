//! `throng import`: sends a file's lines to the server in order, and goes on where an earlier run stopped.

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::model::hex;

use super::client::{Client, escape};
use super::output::{NO, count, print};
use super::{Failure, Global};

/// Lines of one request: at most this many bytes, unless one line alone is longer.
const CHUNK: usize = 1 << 20;
/// A longer line is no event (32 KiB is the most); the server rejects it.
const LONGEST_LINE: u64 = 1 << 20;

/// Sub-commands of `throng import`.
#[derive(Debug, Subcommand)]
pub(super) enum Import {
    /// Import events: files of NDJSON, one canonical event a line; `-` is standard input
    Events {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A name for the import, instead of the file's hash; from a pipe, resuming needs it
        #[arg(long)]
        name: Option<String>,
        /// Exit 0 though lines were rejected
        #[arg(long)]
        skip_bad: bool,
    },
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Import) -> Result<ExitCode, Failure> {
    let Import::Events { files, name, skip_bad } = command;
    if name.is_some() && files.len() > 1 {
        return Err(Failure::Usage("--name names the import of one file; give one FILE".into()));
    }
    let client = Client::find(global)?;
    let mut rejected = 0;
    let mut reports = Vec::new();
    for file in files {
        let report = import(global, &client, file, name.as_deref())?;
        rejected += report["rejected"].as_u64().unwrap_or(0);
        reports.push(report);
    }
    if global.json {
        let shown = if reports.len() == 1 { reports.remove(0) } else { Value::Array(reports) };
        print(&shown.to_string())?;
    }
    Ok(if rejected > 0 && !skip_bad { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn import(
    global: &Global,
    client: &Client,
    file: &Path,
    name: Option<&str>,
) -> Result<Value, Failure> {
    let is_pipe = file == Path::new("-");
    let shown = if is_pipe { "standard input".to_owned() } else { file.display().to_string() };
    let unreadable = |error: io::Error| Failure::Usage(format!("{shown}: {error}"));
    let (name, input, length): (String, Box<dyn Read>, Option<u64>) = if is_pipe {
        let name = match name {
            Some(name) => format!("name:{name}"),
            // A pipe cannot be read twice, so an unnamed one is an import of its own.
            None => {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes)
                    .map_err(|error| Failure::OutOfReach(error.to_string()))?;
                format!("pipe:{}", hex(&bytes))
            }
        };
        (name, Box::new(io::stdin()), None)
    } else {
        let mut opened = File::open(file).map_err(unreadable)?;
        if opened.metadata().map_err(unreadable)?.is_dir() {
            return Err(Failure::Usage(format!("{shown} is a folder; give files")));
        }
        let name = match name {
            Some(name) => format!("name:{name}"),
            None => {
                let mut hash = Sha256::new();
                let mut buffer = vec![0; 1 << 18];
                loop {
                    match opened.read(&mut buffer).map_err(unreadable)? {
                        0 => break,
                        read => hash.update(&buffer[..read]),
                    }
                }
                opened.rewind().map_err(unreadable)?;
                format!("sha256:{}", hex(&hash.finalize()))
            }
        };
        let length = opened.metadata().map_err(unreadable)?.len();
        (name, Box::new(opened), Some(length))
    };
    let status = client.get(&format!("/api/v1/import/events?name={}", escape(&name)))?;
    let taken = status["lines"].as_u64().unwrap_or(0);
    let bar = progress(global, length);
    if taken > 0 && !global.json {
        eprintln!("{shown}: {} lines were taken before; going on from there", count(taken));
    }
    let sent = send(client, &name, input, taken, &bar, &shown)?;
    bar.finish_and_clear();
    // Durable is not yet folded: the report waits until the audiences can see the lines.
    let report =
        client.get(&format!("/api/v1/import/events?name={}&settle=true", escape(&name)))?;
    let number = |field: &str| report[field].as_u64().unwrap_or(0);
    if !global.json {
        for line in report["rejected_lines"].as_array().into_iter().flatten() {
            eprintln!(
                "{shown}:{}: {}: {}",
                line["line"],
                line["code"].as_str().unwrap_or_default(),
                line["message"].as_str().unwrap_or_default()
            );
        }
        let unlisted = number("rejected")
            .saturating_sub(report["rejected_lines"].as_array().map_or(0, Vec::len) as u64);
        if unlisted > 0 {
            eprintln!("{shown}: {} more lines were rejected", count(unlisted));
        }
        let erased = match number("erased") {
            0 => String::new(),
            lines => format!(", {} of erased people left out", count(lines)),
        };
        print(&format!(
            "{shown}: {} lines, {} accepted ({} counted, {} duplicates), {} rejected{erased}",
            count(number("lines")),
            count(number("accepted")),
            count(number("counted")),
            count(number("duplicates")),
            count(number("rejected")),
        ))?;
    }
    let mut report = report;
    report["file"] = json!(shown);
    report["sent"] = json!(sent);
    Ok(report)
}

/// Sends what lies beyond the lines taken, and returns how many lines that was.
fn send(
    client: &Client,
    name: &str,
    input: Box<dyn Read>,
    taken: u64,
    bar: &ProgressBar,
    shown: &str,
) -> Result<u64, Failure> {
    let mut input = BufReader::with_capacity(1 << 18, input);
    let (mut line_number, mut sent) = (0u64, 0u64);
    let mut chunk: Vec<u8> = Vec::with_capacity(CHUNK);
    let mut chunk_first = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut input)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
        if read as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
            skip_line(&mut input).map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
            line.truncate(64 << 10);
            line.push(b'\n');
        }
        let is_end = read == 0;
        if !is_end {
            line_number += 1;
            bar.inc(read as u64);
            if line_number <= taken {
                continue;
            }
        }
        let is_full = !chunk.is_empty() && chunk.len() + line.len() > CHUNK;
        if (is_full || is_end) && !chunk.is_empty() {
            let path =
                format!("/api/v1/import/events?name={}&first_line={chunk_first}", escape(name));
            client.post(&path, "application/x-ndjson", &chunk)?;
            chunk.clear();
        }
        if is_end {
            return Ok(sent);
        }
        if chunk.is_empty() {
            chunk_first = line_number;
        }
        chunk.extend_from_slice(&line);
        if !line.ends_with(b"\n") {
            chunk.push(b'\n');
        }
        sent += 1;
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (length, is_end) = match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        input.consume(length);
        if is_end {
            return Ok(());
        }
    }
}

fn progress(global: &Global, length: Option<u64>) -> ProgressBar {
    if global.json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{bar:32} {percent:>3} % {bytes}/{total_bytes} {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
