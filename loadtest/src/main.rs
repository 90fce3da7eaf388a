//! The command line of the load tests.

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::bench;
use loadtest::erase;
use loadtest::export;
use loadtest::fresh;
use loadtest::kill;
use loadtest::lookup;
use loadtest::pixel::{self, Load};
use loadtest::random::Random;
use loadtest::request::{self, Requests, Visitors};
use loadtest::segments;
use loadtest::{bare, probe};
use std::io::{Write, stderr, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

// The one that the server has: the bare handler is to be no worse off.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Load on Throng from outside.
#[derive(Debug, Parser)]
#[command(name = "loadtest")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send pixel hits, at a fixed rate or as fast as answers come, and print the latencies.
    Pixel {
        /// The server's public listener.
        #[arg(long)]
        target: SocketAddr,
        /// Hits a second; without it as many as the connections carry.
        #[arg(long)]
        rate: Option<f64>,
        /// Keep-alive connections.
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Threads that send.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Seconds to measure, after one that is not.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// The site key of the hits.
        #[arg(long, default_value = "demo")]
        site: String,
        /// Browsers whose cookies the server makes first; 0 names visitors by `user_id` instead.
        #[arg(long, default_value_t = 0)]
        cookies: usize,
        /// Visitors that are named by `user_id`.
        #[arg(long, default_value_t = 100_000)]
        visitors: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Serve the pixel's image and nothing else; prints the address.
    Bare {
        /// Address and port; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Worker threads.
        #[arg(long, default_value_t = 2)]
        workers: usize,
    },
    /// Time an `fdatasync` after a 4 KiB append.
    Probe {
        /// A folder on the disk in question.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
        /// Seconds to measure.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Measure `throng serve` beside the bare handler and print the ratios.
    Bench {
        /// The server's binary; by default the one beside this program.
        #[arg(long)]
        throng: Option<PathBuf>,
        /// Where data directories are made.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
        /// Rounds over all servers.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Measured seconds of each server in each round.
        #[arg(long, default_value_t = 4.0)]
        seconds: f64,
        /// Seconds at half the highest rate.
        #[arg(long, default_value_t = 15.0)]
        half_seconds: f64,
        /// Keep-alive connections. Where an answer waits for a sync or for Redis, as many hits as there are connections
        /// wait together: with few it is their waiting that is measured.
        #[arg(long, default_value_t = 256)]
        connections: usize,
        /// Worker threads of both servers.
        #[arg(long, default_value_t = 2)]
        workers: usize,
        /// Browsers with a cookie.
        #[arg(long, default_value_t = 2_000)]
        visitors: usize,
        /// The setting that holds the fold back.
        #[arg(long, default_value = "ingest.hold_fold=true")]
        hold: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure how soon an event that was acknowledged shows in its audience, in a lookup and in `why`.
    Fresh {
        /// The server's binary; by default the one beside this program.
        #[arg(long)]
        throng: Option<PathBuf>,
        /// Where the data directory is made.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
        /// Live segments.
        #[arg(long, default_value_t = 1_000)]
        segments: usize,
        /// Profiles with events before it begins.
        #[arg(long, default_value_t = 1_000_000)]
        profiles: u64,
        /// Events a second that arrive meanwhile.
        #[arg(long, default_value_t = 5_000.0)]
        rate: f64,
        /// Measured seconds.
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
        /// A setting of the server, `key=value`; may be given again.
        #[arg(long = "set")]
        settings: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Load many segments made from few traits, change one profile in a hundred, and print times and memory.
    Segments {
        /// The server's binary; by default the one beside this program.
        #[arg(long)]
        throng: Option<PathBuf>,
        /// Where the data directory is made.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
        /// Segment files.
        #[arg(long, default_value_t = 10_000)]
        segments: usize,
        /// Traits that they are made from.
        #[arg(long, default_value_t = 3_000)]
        traits: usize,
        /// Profiles, with four events each.
        #[arg(long, default_value_t = 1_000_000)]
        profiles: u64,
        /// How often one in a hundred of the profiles is changed, after a first time.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Erase some of many profiles, and print how long it takes until none is known, and until nothing of one lies anywhere.
    Erase {
        /// The server's binary; by default the one beside this program.
        #[arg(long)]
        throng: Option<PathBuf>,
        /// Where the data directory is made.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
        /// Profiles, with four events each.
        #[arg(long, default_value_t = 1_000_000)]
        profiles: u64,
        /// How many are erased.
        #[arg(long, default_value_t = 10)]
        erased: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Push a large audience into files, and print seconds and memory.
    Export {
        /// The server's binary; by default the one beside this program.
        #[arg(long)]
        throng: Option<PathBuf>,
        /// Where the data directory is made.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
        /// Members, each with one identifier.
        #[arg(long, default_value_t = 10_000_000)]
        members: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask which audiences somebody is in, at a fixed rate and of a thousand at once, and print how long it takes.
    Lookup {
        /// The server's binary; by default the one beside this program.
        #[arg(long)]
        throng: Option<PathBuf>,
        /// Where the data directory is made.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
        /// Live segments.
        #[arg(long, default_value_t = 1_000)]
        segments: usize,
        /// Profiles, with four events each.
        #[arg(long, default_value_t = 1_000_000)]
        profiles: u64,
        /// Lookups a second.
        #[arg(long, default_value_t = 20_000.0)]
        rate: f64,
        /// Measured seconds.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Keep-alive connections.
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Kill the server under load, again and again, and count what is left.
    Kill {
        /// The server's binary; by default the one beside this program.
        #[arg(long)]
        throng: Option<PathBuf>,
        /// Where the data directory is made.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
        /// How often to kill.
        #[arg(long, default_value_t = 50)]
        rounds: u32,
        /// Count everything after this many rounds.
        #[arg(long, default_value_t = 10)]
        check_every: u32,
        /// Kill after some number of answers below this.
        #[arg(long, default_value_t = 3_000)]
        answers: u64,
        /// Concurrent clients.
        #[arg(long, default_value_t = 8)]
        clients: usize,
        /// A setting of the server, `key=value`; may be given again.
        #[arg(long = "set")]
        settings: Vec<String>,
        /// Repeats an earlier run.
        #[arg(long)]
        seed: Option<u64>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    let mut out = stdout().lock();
    let mut tell = |line: &str| {
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(stderr(), "{line}");
    };
    match Arguments::parse().command {
        Command::Pixel {
            target,
            rate,
            connections,
            threads,
            seconds,
            site,
            cookies,
            visitors,
            json,
        } => {
            let visitors = match cookies {
                0 => Visitors::Named(visitors),
                count => Visitors::Cookies(request::cookies(target, &site, count)?),
            };
            let load = Load {
                target,
                connections,
                threads,
                rate,
                warm_up: Duration::from_secs(1),
                time: Duration::from_secs_f64(seconds),
            };
            let requests = Requests::new(&site, visitors, 0);
            let answers = pixel::run(&load, &requests, Random::seed())?;
            let millis = |share| answers.latency.quantile(share).as_secs_f64() * 1e3;
            if json {
                let report = serde_json::json!({
                    "rate": answers.rate(), "hits": answers.latency.count(), "p50_ms": millis(0.5),
                    "p99_ms": millis(0.99), "p999_ms": millis(0.999),
                    "max_ms": answers.latency.max().as_secs_f64() * 1e3,
                    "refused": answers.refused, "unsent": answers.unsent,
                });
                writeln!(out, "{report}")?;
            } else {
                writeln!(
                    out,
                    "{:.0} hits/s, p50 {:.2} ms, p99 {:.2} ms, p999 {:.2} ms, longest {:.2} ms, \
                     {} refused, {} due and not sent",
                    answers.rate(),
                    millis(0.5),
                    millis(0.99),
                    millis(0.999),
                    answers.latency.max().as_secs_f64() * 1e3,
                    answers.refused,
                    answers.unsent
                )?;
            }
        }
        Command::Bare { listen, workers } => bare::serve(listen, workers, &mut out)?,
        Command::Probe { directory, seconds } => {
            let histogram = probe::fdatasync(&directory, Duration::from_secs_f64(seconds))?;
            let millis = |share| histogram.quantile(share).as_secs_f64() * 1e3;
            writeln!(
                out,
                "{} syncs, p50 {:.3} ms, p99 {:.3} ms, p999 {:.3} ms",
                histogram.count(),
                millis(0.5),
                millis(0.99),
                millis(0.999)
            )?;
        }
        Command::Bench {
            throng,
            directory,
            rounds,
            seconds,
            half_seconds,
            connections,
            workers,
            visitors,
            hold,
            json,
        } => {
            let settings = bench::Settings {
                throng: beside_this(throng)?,
                loadtest: std::env::current_exe()?,
                directory,
                rounds: rounds.max(1),
                seconds,
                half_seconds,
                connections,
                workers,
                visitors: visitors.max(1),
                hold,
            };
            let report = bench::run(&settings, &mut tell)?;
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                write!(out, "{report}")?;
            }
        }
        Command::Fresh { throng, directory, segments, profiles, rate, seconds, settings, json } => {
            let plan = fresh::Plan {
                throng: beside_this(throng)?,
                directory,
                segments,
                profiles: profiles.clamp(1, 9_999_999),
                rate,
                time: Duration::from_secs_f64(seconds),
                settings,
            };
            let report = fresh::run(&plan, &mut tell)?;
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                write!(out, "{report}")?;
            }
        }
        Command::Segments { throng, directory, segments, traits, profiles, rounds, json } => {
            let plan = segments::Plan {
                throng: beside_this(throng)?,
                directory,
                segments: segments.max(20),
                traits: traits.max(20),
                profiles: profiles.max(1),
                rounds: rounds.max(1),
            };
            let report = segments::run(&plan, &mut tell)?;
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                writeln!(
                    out,
                    "{} segments of {} traits, {} profiles: live after {:.1} s without events, {:.1} s with them; \
                     {:.3} s of processor time in an idle second; all asked anew takes {:.2} s; after {} profiles changed a refresh \
                     takes {:.3} s, all for one change {:.3} s, for the first one {:.3} s, and is seen {:.2} s later; {} MiB resident, {:.0} of them columns",
                    report.segments,
                    report.traits,
                    report.profiles,
                    report.load_first,
                    report.load_again,
                    report.idle,
                    report.anew,
                    report.changed,
                    report.refresh,
                    report.round,
                    report.first,
                    report.seen_after,
                    report.resident >> 20,
                    report.columns / f64::from(1 << 20)
                )?;
            }
        }
        Command::Erase { throng, directory, profiles, erased, json } => {
            let throng = beside_this(throng)?;
            let (profiles, erased) = (profiles.max(1), erased.clamp(1, profiles.max(1)));
            let plan = erase::Plan { throng, directory, profiles, erased };
            let report = erase::run(&plan, &mut tell)?;
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                let ([answer, last_answer], [swept, last_swept]) = (report.answer, report.swept);
                writeln!(
                    out,
                    "{} profiles: one is erased in {answer:.2} s at the median, {last_answer:.2} at most, and nothing \
                     of it lies anywhere after {swept:.1} s, {last_swept:.1} at most; access {:.1} s",
                    report.profiles, report.access
                )?;
            }
        }
        Command::Export { throng, directory, members, json } => {
            let plan = export::Plan { throng: beside_this(throng)?, directory, members };
            let report = export::run(&plan, &mut tell)?;
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                let [before, peak] = report.resident;
                writeln!(
                    out,
                    "{} members, imported in {:.0} s: written in {:.1} s ({} MiB), from {} to at most {} MiB resident; a \
                     push of nothing {:.1} s, of one in a thousand more {:.1} s",
                    report.members,
                    report.import,
                    report.all,
                    report.bytes >> 20,
                    before >> 20,
                    peak >> 20,
                    report.none,
                    report.few
                )?;
            }
        }
        Command::Lookup {
            throng,
            directory,
            segments,
            profiles,
            rate,
            seconds,
            connections,
            json,
        } => {
            let plan = lookup::Plan {
                throng: beside_this(throng)?,
                directory,
                segments: segments.max(20),
                profiles: profiles.clamp(1, 9_000_000),
                rate,
                time: Duration::from_secs_f64(seconds),
                connections: connections.max(1),
            };
            let report = lookup::run(&plan, &mut tell)?;
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                let lookup::Report { one, thousand, told_after, .. } = &report;
                writeln!(
                    out,
                    "{} segments, {} profiles in {:.0} audiences each: {:.0} lookups a second ({:.0} asked for, {} \
                     failed) within {:.3} ms at the median, {:.3} at p99, {:.3} at p99.9, {:.1} at the longest; in the \
                     server {:.3} % within 1 ms; a thousand at once {:.1} ms, p99 {:.1}, longest {:.1}; an event is \
                     told after {:.0} ms, p99 {:.0}, longest {:.0}",
                    report.segments,
                    report.profiles,
                    report.audiences,
                    report.rates[1],
                    report.rates[0],
                    report.failed,
                    one[0],
                    one[1],
                    one[2],
                    one[3],
                    report.within_a_millisecond * 100.0,
                    thousand[0],
                    thousand[1],
                    thousand[2],
                    told_after[0],
                    told_after[1],
                    told_after[2]
                )?;
            }
        }
        Command::Kill {
            throng,
            directory,
            rounds,
            check_every,
            answers,
            clients,
            settings,
            seed,
            json,
        } => {
            let plan = kill::Plan {
                throng: beside_this(throng)?,
                directory,
                rounds,
                check_every: check_every.max(1),
                answers: answers.max(1),
                clients,
                settings,
                seed: seed.unwrap_or_else(Random::seed),
            };
            let report = kill::run(&plan, &mut tell)?;
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                writeln!(
                    out,
                    "{} kills: {} messages answered, each counted once ({} of them sent again); {} not \
                     answered, of which {} counted, once; longest start {:.2} s; seed {}",
                    report.rounds,
                    report.answered,
                    report.repeated,
                    report.unanswered,
                    report.unanswered_counted,
                    report.longest_start,
                    report.seed
                )?;
            }
        }
    }
    Ok(())
}

/// The server that was built together with this program, unless another is named.
fn beside_this(throng: Option<PathBuf>) -> Result<PathBuf> {
    Ok(match throng {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("throng"),
    })
}
