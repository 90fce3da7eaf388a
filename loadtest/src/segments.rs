//! Many segments made from few traits: how long they take to load, what a refresh costs, and the memory of all.
//!
//! Some segments ask a trait each, and their members are known; all others combine traits, and refer to one of
//! the former, which is so referred to a thousand times.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http::Client;
use crate::random::Random;
use crate::scrape::{Scrape, cpu_seconds, resident_bytes};
use crate::server::{Plan as ServerPlan, Server};

/// Segments that ask one trait each.
pub(crate) const BASES: usize = 10;
/// Traits of one event name: the kinds of the event.
const KINDS: usize = 10;
/// Events of each profile.
const EVENTS: usize = 4;
/// Days over which events are spread.
const DAYS: u64 = 29;
/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `throng` binary.
    pub throng: PathBuf,
    /// Where the data directory is made.
    pub directory: PathBuf,
    /// Segment files.
    pub segments: usize,
    /// Traits that they are made from.
    pub traits: usize,
    /// Profiles.
    pub profiles: u64,
    /// How often one in a hundred of the profiles is changed, after a first time.
    pub rounds: usize,
}

/// What was measured. Times are in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Segment files.
    pub segments: usize,
    /// Traits that they are made from.
    pub traits: usize,
    /// Profiles.
    pub profiles: u64,
    /// From the first start, without events, until all segments are live.
    pub load_first: f64,
    /// Until the events were imported and folded.
    pub import: f64,
    /// From the next start, with all events, until all audiences are true for a later time.
    pub load_again: f64,
    /// The first refresh after that start, which asks everybody everything.
    pub anew: f64,
    /// Processor time of a second in which nothing happens.
    pub idle: f64,
    /// Profiles that were changed in each round.
    pub changed: u64,
    /// All refreshes of the first change together: rows are made of the columns.
    pub first: f64,
    /// The mean of the refreshes after a later change, which may take several.
    pub refresh: f64,
    /// All refreshes of such a round together.
    pub round: f64,
    /// From the last answer until audiences are true for a later time; the longest.
    pub seen_after: f64,
    /// Resident bytes of the process at the end.
    pub resident: u64,
    /// Bytes of the columns at the end, about.
    pub columns: f64,
}

/// Runs the measurement; `tell` is given a line for each step.
///
/// # Errors
/// An audience has other members than it should, a step takes too long, or the server fails.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("segments-").tempdir_in(&plan.directory)?;
    let path = std::path::absolute(directory.path())?;
    let server_plan = ServerPlan::within(&path, &plan.throng)?;
    let mut random = Random::new(1);
    write_segments(plan, &server_plan.segments, &mut random)?;

    let begun = Instant::now();
    let server = Server::start(&server_plan)?;
    wait_live(&server, plan.segments)?;
    let load_first = begun.elapsed().as_secs_f64();
    tell(&format!("{} segments are live after {load_first:.1} s", plan.segments));

    let mut members = vec![HashSet::new(); BASES];
    let file = path.join("events.ndjson");
    write_events(plan, &file, &mut random, &mut members)?;
    let begun = Instant::now();
    server.command(&["import", "events", &file.to_string_lossy()])?;
    wait_true(&server)?;
    let import = begun.elapsed().as_secs_f64();
    std::fs::remove_file(&file)?;
    tell(&format!(
        "{} events are in the audiences after {import:.1} s",
        plan.profiles * EVENTS as u64
    ));
    check(&server, &members)?;
    server.stop()?;

    let begun = Instant::now();
    let server = Server::start(&server_plan)?;
    let anew = first_refresh(&server)?;
    wait_live(&server, plan.segments)?;
    wait_true(&server)?;
    let load_again = begun.elapsed().as_secs_f64();
    tell(&format!("after a restart all are true for a later time in {load_again:.1} s"));

    let before = cpu_seconds(server.pid())?;
    std::thread::sleep(Duration::from_secs(10));
    let idle = (cpu_seconds(server.pid())? - before) / 10.0;
    tell(&format!("{idle:.3} s of processor time in an idle second"));

    let changed = plan.profiles.div_ceil(100);
    let (mut first, mut refreshes, mut spent, mut seen_after) = (0.0, 0.0, 0.0, 0.0_f64);
    for round in 0..=plan.rounds {
        let before = Scrape::of(server.console)?;
        change(plan, &server, changed, &mut random, &mut members)?;
        let begun = Instant::now();
        wait_true(&server)?;
        seen_after = seen_after.max(begun.elapsed().as_secs_f64());
        let after = Scrape::of(server.console)?;
        let grown = |name: &str| after.sum(name, "") - before.sum(name, "");
        let took = grown("throng_segment_refresh_duration_seconds_sum");
        if round == 0 {
            first = took;
        } else {
            refreshes += grown("throng_segment_refresh_duration_seconds_count");
            spent += took;
        }
        check(&server, &members)?;
    }
    let scrape = Scrape::of(server.console)?;
    let report = Report {
        segments: plan.segments,
        traits: plan.traits,
        profiles: plan.profiles,
        load_first,
        import,
        load_again,
        anew,
        idle,
        changed,
        first,
        refresh: spent / f64::max(refreshes, 1.0),
        #[expect(clippy::cast_precision_loss, reason = "a few rounds")]
        round: spent / (plan.rounds.max(1) as f64),
        seen_after,
        resident: resident_bytes(server.pid())?,
        columns: scrape.sum("throng_memory_bytes", "part=\"columns\""),
    };
    server.stop()?;
    Ok(report)
}

pub(crate) fn selector(number: usize) -> String {
    format!("e{}[kind = \"k{}\"]", number / KINDS, number % KINDS)
}

pub(crate) fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(crate) fn write_segments(plan: &Plan, folder: &Path, random: &mut Random) -> Result<()> {
    // Every trait is asked by some segment.
    let mut next = BASES;
    for number in 0..plan.segments {
        let mut rule = String::new();
        if number < BASES {
            write!(rule, "did {} in 30d", selector(number))?;
        } else {
            write!(rule, "segment base-{} ", number % BASES)?;
            for group in 0..1 + random.below(3) {
                rule.push_str(if group == 0 && random.below(3) > 0 { "or (" } else { "and not (" });
                for term in 0..=random.below(3) {
                    rule.push_str(if term > 0 { " or " } else { "" });
                    let event = selector(next % plan.traits);
                    next += 1;
                    let days = [1, 7, 14, 30][index(random.below(4))];
                    match random.below(5) {
                        0 => write!(rule, "count {event} in {days}d >= 2")?,
                        _ => write!(rule, "did {event} in {days}d")?,
                    }
                }
                rule.push_str(") ");
            }
            rule = grouped(&rule);
        }
        let name = if number < BASES { format!("base-{number}") } else { format!("s-{number:05}") };
        std::fs::write(folder.join(format!("{name}.toml")), format!("rule = '''{rule}'''\n"))?;
    }
    Ok(())
}

/// `or` and `and` are not written side by side without parentheses.
fn grouped(rule: &str) -> String {
    match rule.split_once(" and not ") {
        Some((first, rest)) if first.contains(" or ") => format!("({first}) and not {rest}"),
        _ => rule.to_owned(),
    }
}

#[expect(clippy::disallowed_methods, reason = "who sends events has the clock of the system")]
pub(crate) fn now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    Ok(u64::try_from(now.as_millis())?)
}

pub(crate) fn event(number: usize, profile: u64, time: u64) -> String {
    format!(
        r#"{{"site":"demo","event":"e{}","time":{time},"ids":{{"user_id":"p{profile:07}"}},"props":{{"kind":"k{}"}}}}"#,
        number / KINDS,
        number % KINDS
    )
}

pub(crate) fn write_events(
    plan: &Plan,
    file: &Path,
    random: &mut Random,
    members: &mut [HashSet<u64>],
) -> Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let now = now()?;
    for profile in 0..plan.profiles {
        for _ in 0..EVENTS {
            let number = index(random.below(plan.traits as u64));
            if let Some(members) = members.get_mut(number) {
                members.insert(profile);
            }
            let time = now - random.below(DAYS * 86_400_000);
            writeln!(out, "{}", event(number, profile, time))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Sends one event of each of so many profiles.
fn change(
    plan: &Plan,
    server: &Server,
    changed: u64,
    random: &mut Random,
    members: &mut [HashSet<u64>],
) -> Result<()> {
    let mut client = Client::connect(server.collect()?)?;
    let mut left = changed;
    while left > 0 {
        let batch = left.min(500);
        left -= batch;
        let now = now()?;
        let events: Vec<String> = (0..batch)
            .map(|_| {
                let (number, profile) =
                    (index(random.below(plan.traits as u64)), random.below(plan.profiles));
                if let Some(members) = members.get_mut(number) {
                    members.insert(profile);
                }
                event(number, profile, now)
            })
            .collect();
        let (head, _, body) = client.post("/v1/events", &format!("[{}]", events.join(",")))?;
        if head.status != 200 {
            bail!("events were answered {}: {}", head.status, String::from_utf8_lossy(body));
        }
    }
    Ok(())
}

/// Waits until something holds of a scrape.
fn wait(server: &Server, what: &str, holds: impl Fn(&Scrape) -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds(&Scrape::of(server.console)?) {
        if begun.elapsed() > PATIENCE {
            bail!("{what} took longer than {PATIENCE:?}");
        }
        // A scrape of so many audiences is work for the server too.
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

pub(crate) fn wait_live(server: &Server, segments: usize) -> Result<()> {
    wait(server, "loading the segments", |scrape| {
        scrape.count("throng_segment_members") >= segments
            && scrape.sum("throng_segment_last_refresh_timestamp_seconds", "") > 0.0
    })
}

/// Waits for the first refresh; tells how long it took.
fn first_refresh(server: &Server) -> Result<f64> {
    let took = Cell::new(0.0);
    wait(server, "the first refresh", |scrape| {
        let all =
            |what: &str| scrape.sum(&format!("throng_segment_refresh_duration_seconds_{what}"), "");
        took.set(all("sum") / f64::max(all("count"), 1.0));
        all("count") > 0.0
    })?;
    Ok(took.get())
}

/// Waits until audiences are true for now.
pub(crate) fn wait_true(server: &Server) -> Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century")]
    let now = now()? as f64 / 1000.0;
    wait(server, "the refresh", |scrape| {
        scrape.sum("throng_segment_last_refresh_timestamp_seconds", "") >= now
    })
}

/// Compares the audiences of single traits with whom they are to hold.
fn check(server: &Server, members: &[HashSet<u64>]) -> Result<()> {
    let scrape = Scrape::of(server.console)?;
    for (number, members) in members.iter().enumerate() {
        let label = format!("segment=\"base-{number}\"");
        let found = scrape.sum("throng_segment_members", &label);
        #[expect(clippy::cast_precision_loss, reason = "a count of profiles")]
        let expected = members.len() as f64;
        if (found - expected).abs() > 0.5 {
            bail!("base-{number} has {found} members and not {expected}");
        }
    }
    Ok(())
}
