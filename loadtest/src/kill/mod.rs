//! Kills the server at random moments under load and counts what is left.
//!
//! Each message has an id of its own; four messages share a visitor and carry the values 1, 2, 4 and 8, so
//! count and sum together tell exactly which of the four were counted, and that each was counted once.
//! Posts that were not answered are sent again after the restart, as a client would, and some that
//! were answered are sent twice.

mod ledger;
mod sender;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::server::{Plan as ServerPlan, Server};
use ledger::Ledger;

/// Visitors whose messages are counted: the rule of a segment that is there from the start.
const LIVE: &str = "kill_hit";
/// The same events by a trait that no segment asks, so that it is filled from the archive.
const LATER: &str = r#"kill_hit[note != "never"]"#;

/// How long the audience may take to hold who its rule finds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `throng` binary.
    pub throng: PathBuf,
    /// Where the data directory is made.
    pub directory: PathBuf,
    /// How often the server is killed.
    pub rounds: u32,
    /// Everything is counted after this many rounds, and at the end.
    pub check_every: u32,
    /// The server is killed when it has answered some number of posts and hits below this.
    pub answers: u64,
    /// Concurrent clients; half of them post, half load the pixel.
    pub clients: usize,
    /// Further settings of the server, each `key=value`.
    pub settings: Vec<String>,
    /// The same seed kills after the same numbers of answers.
    pub seed: u64,
}

/// What was found, all of it as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How often the server was killed.
    pub rounds: u32,
    /// Messages that were answered as accepted, each counted once.
    pub answered: usize,
    /// Messages that were sent and never answered.
    pub unanswered: usize,
    /// Those of the unanswered that were counted, once.
    pub unanswered_counted: usize,
    /// Answered messages that were sent again on purpose.
    pub repeated: usize,
    /// The longest a start took, in seconds.
    pub longest_start: f64,
    /// The seed.
    pub seed: u64,
}

/// Runs the test; `tell` is given a line for each step.
///
/// # Errors
/// Says which messages are missing, doubled or unknown, or what else went wrong.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("kill-").tempdir_in(&plan.directory)?;
    let path = std::path::absolute(directory.path())?;
    let settings = plan.settings.clone();
    let server_plan = ServerPlan { settings, ..ServerPlan::within(&path, &plan.throng)? };
    std::fs::write(
        server_plan.segments.join("kill-live.toml"),
        format!("rule = 'count {LIVE} >= 1 and sum {LIVE}.value >= 1'\n"),
    )?;
    match rounds(plan, &server_plan, tell) {
        Ok(report) => Ok(report),
        Err(error) => {
            let kept = directory.keep();
            Err(error.context(format!("seed {}; the data stay in {}", plan.seed, kept.display())))
        }
    }
}

fn rounds(plan: &Plan, server_plan: &ServerPlan, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut random = Random::new(plan.seed);
    let mut ledger = Ledger::default();
    let mut longest_start = Duration::ZERO;
    for round in 1..=plan.rounds {
        let before = Instant::now();
        let mut server = Server::start(server_plan).with_context(|| format!("round {round}"))?;
        longest_start = longest_start.max(before.elapsed());
        let answers = 1 + random.below(plan.answers);
        sender::load(&mut server, plan.clients, answers, &mut ledger, &mut random)
            .with_context(|| format!("round {round}"))?;
        if round % plan.check_every == 0 && round < plan.rounds {
            let mut server = Server::start(server_plan)?;
            check(&server, &ledger).with_context(|| format!("after round {round}"))?;
            tell(&format!("round {round}: {} answered, all counted once", ledger.answered()));
            server.kill()?;
        }
    }
    let server = Server::start(server_plan)?;
    let unanswered_counted = check(&server, &ledger)?;
    server.stop()?;
    Ok(Report {
        rounds: plan.rounds,
        answered: ledger.answered(),
        unanswered: ledger.unanswered(),
        unanswered_counted,
        repeated: ledger.repeated(),
        longest_start: longest_start.as_secs_f64(),
        seed: plan.seed,
    })
}

/// Compares what the server counted with what it answered; returns how many unanswered messages it
/// counted.
fn check(server: &Server, ledger: &Ledger) -> Result<usize> {
    let mut extra = None;
    for selector in [LIVE, LATER] {
        let mut counted = ledger::Counted::default();
        for values in 1..16_u32 {
            let rule = format!(
                "count {selector} = {} and sum {selector}.value = {values}",
                values.count_ones()
            );
            let members = server.command(&["eval", &rule, "--members", "user_id"])?;
            counted.add(&members, values)?;
        }
        let all = server.command(&["eval", &format!("did {selector}"), "--members", "user_id"])?;
        counted.all(&all)?;
        let found = ledger.compare(&counted).with_context(|| format!("asking {selector}"))?;
        if extra.is_some_and(|extra| extra != found) {
            bail!("two rules that ask the same found {extra:?} and {found} unanswered messages");
        }
        extra = Some(found);
    }
    audience(server)?;
    Ok(extra.unwrap_or(0))
}

/// Waits until the audience of the segment holds who a rule of the same text finds. While it is filled
/// from the archive it answers nobody.
fn audience(server: &Server) -> Result<()> {
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let rule = format!("count {LIVE} >= 1 and sum {LIVE}.value >= 1");
    let wanted = sorted(server.command(&["eval", &rule, "--members", "user_id"])?);
    let start = Instant::now();
    loop {
        let found = server.command(&["audience", "members", "kill-live", "--as", "user_id"]);
        let found = found.map(sorted);
        if found.as_ref().is_ok_and(|found| *found == wanted) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let found = found.context("asking the audience")?;
            bail!("the audience has {} members, the rule {}", found.len(), wanted.len());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
