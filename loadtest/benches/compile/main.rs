//! The compiler beside other engines: the same rules over the same events, with one thread, answers compared.
//!
//! `make bench-compile` runs it. ClickHouse, DuckDB and CRoaring are asked by `peers.py`; bit-sliced sums over the
//! `roaring` crate, and Throng, here.

#![expect(clippy::doc_markdown, reason = "engines are named as they name themselves")]

#[path = "../common/mod.rs"]
mod common;
mod facts;
mod questions;
mod refresh;
mod report;
mod sliced;

use anyhow::{Context, Result, bail};
use clap::Parser;
use facts::{DAYS, END};
use report::{Asked, Found, Report};
use serde_json::json;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use throng::bitmap::Snapshot;
use throng::model::time::DAY;

/// The server's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Throng's rule compiler beside ClickHouse, DuckDB, CRoaring and bit-sliced roaring bitmaps.
#[derive(Debug, Parser)]
#[command(name = "compile")]
struct Arguments {
    /// Events; the targets are for the default.
    #[arg(long, default_value_t = 20_000_000)]
    events: usize,
    /// Visitors; without it a quarter of the events.
    #[arg(long)]
    visitors: Option<u32>,
    /// A Python that has what requirements.txt lists; without it Throng is measured alone.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Where events and the tables of other engines are put for the time being.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-compile"))]
    directory: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The median of some runs, in milliseconds, after one that is not counted; what takes long runs less often.
fn timed<T>(mut run: impl FnMut() -> T) -> f64 {
    black_box(run());
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || (times.len() < 25 && begun.elapsed() < Duration::from_secs(2)) {
        let begun = Instant::now();
        black_box(run());
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    median(times)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let visitors = match arguments.visitors {
        Some(visitors) => visitors.max(1),
        None => u32::try_from(arguments.events / 4).context("too many events")?.max(1),
    };
    eprintln!("drawing {} events of {visitors} visitors", arguments.events);
    let events = facts::draw(arguments.events, visitors);
    let questions = questions::all();
    let mut found = Found::new();
    if let Some(python) = &arguments.python {
        std::fs::create_dir_all(&arguments.directory)?;
        facts::write(&events, &arguments.directory.join("events.bin"))?;
        // Milliseconds from the start of the first day, at noon of the last.
        let midday = (i64::from(DAYS) - 1) * DAY + DAY / 2;
        let asked = json!({ "days": DAYS, "midday": midday, "rules": questions });
        std::fs::write(arguments.directory.join("questions.json"), asked.to_string())?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compile/peers.py");
        let mut command = Command::new(python);
        command.arg(script).arg(&arguments.directory).stderr(Stdio::inherit());
        let output = command.output().with_context(|| format!("starting {}", python.display()))?;
        std::fs::remove_dir_all(&arguments.directory)?;
        if !output.status.success() {
            bail!("{script} ended with {}", output.status);
        }
        found = serde_json::from_slice(&output.stdout).context("reading what peers.py found")?;
    }

    eprintln!("building the columns");
    let begun = Instant::now();
    let snapshot = facts::columns(&events, visitors);
    let build = begun.elapsed().as_secs_f64();
    eprintln!("asking roaring bitmaps");
    found.insert("roaring sliced".into(), bit_sliced(&events));
    eprintln!("asking Throng");
    let noon = END - DAY / 2;
    let [mut built, mut sizes, mut midday] = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
    for (name, rules) in &questions {
        let program = questions::compile(rules);
        let count = |now| program.count(&snapshot, now, 1).expect("within retention");
        let asked = |ms, counts| Asked { ms, counts };
        let ms = timed(|| program.run(&snapshot, END, 1).expect("within retention"));
        built.insert((*name).to_owned(), asked(ms, count(END)));
        sizes.insert((*name).to_owned(), asked(timed(|| count(END)), count(END)));
        let ms = timed(|| program.run(&snapshot, noon, 1).expect("within retention"));
        midday.insert((*name).to_owned(), asked(ms, count(noon)));
    }
    found.insert("throng".into(), built);
    found.insert("throng sizes".into(), sizes);
    found.insert("throng midday".into(), midday);
    eprintln!("refreshing after 1 % of the profiles changed");
    let refreshed = refresh::all(&questions::compile(&questions["R6"]), &snapshot, visitors);
    let report = Report {
        events: arguments.events,
        visitors,
        build_seconds: build,
        refreshed,
        bytes_a_fact: bytes_a_fact(&snapshot),
        found,
    };
    let text = if arguments.json { report.json().to_string() } else { report.text() };
    writeln!(std::io::stdout(), "{text}")?;
    let differing = report.differing();
    if !differing.is_empty() {
        bail!("the answers are not the same:\n{}", differing.join("\n"));
    }
    Ok(())
}

/// R3 and R4, added up over bitmaps.
fn bit_sliced(events: &[facts::Event]) -> BTreeMap<String, Asked> {
    let counts = sliced::days(events, |event| u32::from(event.of == 0));
    let cents = sliced::days(events, |event| event.cents);
    let last = usize::from(DAYS) - 14;
    let ask = |days: &[_], least| Asked {
        ms: timed(|| sliced::at_least(days, least)),
        counts: vec![sliced::at_least(days, least).len()],
    };
    BTreeMap::from([
        ("R3".to_owned(), ask(&counts[last..], 3)),
        ("R4".to_owned(), ask(&cents, 10_000)),
    ])
}

/// Of days of a trait in a block that have a hundred facts or more, and of all others: what windows of whole days read,
/// and all with times and values.
fn bytes_a_fact(snapshot: &Snapshot) -> [[f64; 2]; 2] {
    let mut sums = [([0, 0], 0); 2];
    for block in snapshot.shards.iter().flatten() {
        for (id, columns) in block.traits() {
            for (day, column) in columns.days() {
                let (bytes, facts) = &mut sums[usize::from(column.len() < 100)];
                bytes[0] += block.memory_of_packed_day(id, day);
                bytes[1] += block.memory_of_day(id, day);
                *facts += column.len();
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    sums.map(|(bytes, facts)| bytes.map(|bytes| bytes as f64 / facts.max(1) as f64))
}
