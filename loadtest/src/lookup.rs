//! Lookups: how long it takes to tell which of many audiences somebody is in, at a fixed rate and for many at once, and
//! how soon what somebody has just done is told.

use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::http::Client;
use crate::pixel::{self, Load};
use crate::random::Random;
use crate::request::Requests;
use crate::scrape::Scrape;
use crate::segments::{self, BASES, event, now, wait_live, wait_true};
use crate::server::{Plan as ServerPlan, Server};

/// Traits that the segments are made from.
const TRAITS: usize = 300;
/// Those who are asked about at once.
const BATCH: u64 = 1_000;
/// How often.
const BATCHES: usize = 200;
/// Events that are followed until they are told.
const FOLLOWED: usize = 200;
/// Something that somebody did shows after so long at the latest, or is counted as late.
const LATE: Duration = Duration::from_millis(250);
/// What is not told after so long is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `throng` binary.
    pub throng: PathBuf,
    /// Where the data directory is made.
    pub directory: PathBuf,
    /// Live segments.
    pub segments: usize,
    /// Profiles, with four events each.
    pub profiles: u64,
    /// Lookups a second.
    pub rate: f64,
    /// Measured time.
    pub time: Duration,
    /// Keep-alive connections.
    pub connections: usize,
}

/// What was measured. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Live segments.
    pub segments: usize,
    /// Profiles.
    pub profiles: u64,
    /// Audiences that a profile is in, in the mean.
    pub audiences: f64,
    /// Lookups a second that were asked for, and that were answered.
    pub rates: [f64; 2],
    /// Answers that were no 200, and lookups that could not be sent in time.
    pub failed: u64,
    /// From when a lookup was due to its whole answer: p50, p99, p99.9 and the longest.
    pub one: [f64; 4],
    /// In the server, from a request's head to its answer, at most: the share that took no longer than 1 ms.
    pub within_a_millisecond: f64,
    /// A thousand at once: p50, p99 and the longest.
    pub thousand: [f64; 3],
    /// From the answer to an event until a lookup tells of it: p50, p99 and the longest.
    pub told_after: [f64; 3],
    /// How many of the followed events were told later than 250 ms.
    pub late: usize,
}

/// Runs the measurement; `tell` is given a line for each step.
///
/// # Errors
/// A lookup tells what is not so, an event is not told, or the server fails.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("lookup-").tempdir_in(&plan.directory)?;
    let path = std::path::absolute(directory.path())?;
    let server_plan = ServerPlan::within(&path, &plan.throng)?;
    let mut random = Random::new(1);
    let made = segments::Plan {
        throng: plan.throng.clone(),
        directory: plan.directory.clone(),
        segments: plan.segments,
        traits: TRAITS,
        profiles: plan.profiles,
        rounds: 0,
    };
    segments::write_segments(&made, &server_plan.segments, &mut random)?;
    let mut members = vec![HashSet::new(); BASES];
    let file = path.join("events.ndjson");
    segments::write_events(&made, &file, &mut random, &mut members)?;
    let server = Server::start(&server_plan)?;
    wait_live(&server, plan.segments)?;
    server.command(&["import", "events", &file.to_string_lossy()])?;
    wait_true(&server)?;
    std::fs::remove_file(&file)?;
    tell(&format!("{} segments over {} profiles are live", plan.segments, plan.profiles));

    let token = std::fs::read_to_string(server_plan.data.join("token"))?;
    let token = token.trim();
    let target = server.collect()?;
    let audiences = check(plan, target, token, &members, &mut random)?;
    let load = Load {
        target,
        connections: plan.connections,
        threads: 1,
        rate: Some(plan.rate),
        warm_up: Duration::from_secs(1),
        time: plan.time,
    };
    let before = Scrape::of(server.console)?;
    let answers = pixel::run(&load, &Requests::lookups(token, plan.profiles, 7), 7)?;
    let after = Scrape::of(server.console)?;
    let grown = |name: &str, label: &str| after.sum(name, label) - before.sum(name, label);
    let of_server = "asker=\"server\"";
    let all = grown("throng_lookup_duration_seconds_count", of_server);
    // Where a bucket ends at a millisecond.
    let fast = grown("throng_lookup_duration_seconds_bucket", "asker=\"server\",le=\"0.001\"");
    tell(&format!("{:.0} lookups a second", answers.rate()));
    let thousand = thousands(plan, target, token, &mut random)?;
    let (told_after, late) = follow(plan, target, token, &mut random)?;
    server.stop()?;
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    let of =
        |found: &Histogram| [ms(found.quantile(0.5)), ms(found.quantile(0.99)), ms(found.max())];
    let one = &answers.latency;
    Ok(Report {
        segments: plan.segments,
        profiles: plan.profiles,
        audiences,
        rates: [plan.rate, answers.rate()],
        failed: answers.refused + answers.unsent,
        one: [
            ms(one.quantile(0.5)),
            ms(one.quantile(0.99)),
            ms(one.quantile(0.999)),
            ms(one.max()),
        ],
        within_a_millisecond: fast / f64::max(all, 1.0),
        thousand: of(&thousand),
        told_after: of(&told_after),
        late,
    })
}

fn results(client: &mut Client, users: &[u64]) -> Result<Vec<Vec<String>>> {
    #[derive(serde::Deserialize)]
    struct Answer {
        results: Vec<Vec<String>>,
    }
    let ids: Vec<String> =
        users.iter().map(|user| format!(r#"{{"user_id":"p{user:07}"}}"#)).collect();
    let (head, _, body) =
        client.post("/v1/audiences", &format!(r#"{{"ids":[{}]}}"#, ids.join(",")))?;
    if head.status != 200 {
        bail!("lookups were answered {}: {}", head.status, String::from_utf8_lossy(body));
    }
    Ok(serde_json::from_slice::<Answer>(body)?.results)
}

/// Compares what is told of some with what they did; how many audiences one is in, in the mean.
fn check(
    plan: &Plan,
    target: std::net::SocketAddr,
    token: &str,
    members: &[HashSet<u64>],
    random: &mut Random,
) -> Result<f64> {
    let mut client = Client::connect(target)?.with_token(token);
    let (mut audiences, mut asked) = (0usize, 0usize);
    for _ in 0..5 {
        let users: Vec<u64> = (0..BATCH).map(|_| random.below(plan.profiles)).collect();
        for (user, told) in users.iter().zip(results(&mut client, &users)?) {
            audiences += told.len();
            asked += 1;
            for (number, members) in members.iter().enumerate() {
                let base = format!("base-{number}");
                if told.contains(&base) != members.contains(user) {
                    bail!("of {user} it is told: {told:?}, which is wrong of {base}");
                }
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of a measurement")]
    Ok(audiences as f64 / asked as f64)
}

fn thousands(
    plan: &Plan,
    target: std::net::SocketAddr,
    token: &str,
    random: &mut Random,
) -> Result<Histogram> {
    let mut client = Client::connect(target)?.with_token(token);
    let mut found = Histogram::default();
    for _ in 0..BATCHES {
        let ids: Vec<String> = (0..BATCH)
            .map(|_| format!(r#"{{"user_id":"p{:07}"}}"#, random.below(plan.profiles)))
            .collect();
        let body = format!(r#"{{"ids":[{}]}}"#, ids.join(","));
        let begun = Instant::now();
        let (head, _, _) = client.post("/v1/audiences", &body)?;
        found.record(begun.elapsed());
        if head.status != 200 {
            bail!("lookups were answered {}", head.status);
        }
    }
    Ok(found)
}

/// Follows events until lookups tell of them.
fn follow(
    plan: &Plan,
    target: std::net::SocketAddr,
    token: &str,
    random: &mut Random,
) -> Result<(Histogram, usize)> {
    let mut sender = Client::connect(target)?;
    let mut asker = Client::connect(target)?.with_token(token);
    let (mut found, mut late) = (Histogram::default(), 0);
    for number in 0..FOLLOWED {
        let base = number % BASES;
        let user = plan.profiles + number as u64;
        let (head, _, _) =
            sender.post("/v1/events", &format!("[{}]", event(base, user, now()?)))?;
        let acknowledged = Instant::now();
        if head.status != 200 {
            bail!("an event was answered {}", head.status);
        }
        let base = format!("base-{base}");
        while !results(&mut asker, &[user])?.iter().any(|told| told.contains(&base)) {
            if acknowledged.elapsed() > PATIENCE {
                bail!("an event was not told within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = acknowledged.elapsed();
        found.record(took);
        late += usize::from(took > LATE);
        std::thread::sleep(Duration::from_millis(20 + random.below(60)));
    }
    Ok((found, late))
}
