//! `throng doctor`: what is not well, and what to do about it.

use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

use crate::app;
use crate::config::Config;
use crate::config::read_destinations;
use crate::store::health::Finding;
use crate::store::health::SERVERS;
use crate::store::health::State;

use super::client::Client;
use super::output::{NO, OUT_OF_REACH, print};
use super::{Failure, Global, serve};

/// Arguments of `throng doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {}

/// Looks at the settings, then at the server; where that is out of reach, at what can be looked at from here.
pub(super) fn run(global: &Global, _: &Doctor) -> Result<ExitCode, Failure> {
    let (config, mut found) = settings(global);
    let asked = Client::find(global).and_then(|client| client.get("/api/v1/doctor"));
    let is_reached = match asked.and_then(|answer| checks(&answer)) {
        Ok(checks) => {
            found.push(Finding::well("server", "answers"));
            found.extend(checks);
            true
        }
        Err(failure) => {
            let advice =
                "what can be looked at from here follows; of a server elsewhere, see its log";
            let from_here = config.as_ref().map_or_else(Vec::new, from_here);
            let advice = Some(advice.to_owned()).filter(|_| !from_here.is_empty());
            found.push(Finding { advice, ..Finding::ill("server", failure.message(), "") });
            found.extend(from_here);
            false
        }
    };
    let is_well = found.iter().all(|finding| finding.state != State::Ill);
    print(&if global.json {
        json!({ "well": is_well, "checks": found }).to_string()
    } else {
        lines(&found)
    })?;
    Ok(match (is_reached, is_well) {
        (false, _) => ExitCode::from(OUT_OF_REACH),
        (true, false) => ExitCode::from(NO),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// Reads the settings, as a server started here would.
fn settings(global: &Global) -> (Option<Config>, Vec<Finding>) {
    const CHECK: &str = "settings";
    let advice = "the server does not start with it; config/README.md has every setting";
    let (config, mut found) = match serve::settings(global) {
        Ok(config) => {
            let from = serve::config_file(global).map_or_else(
                || "the built-in defaults".to_owned(),
                |file| file.display().to_string(),
            );
            (Some(config), vec![Finding::well(CHECK, format!("read from {from}"))])
        }
        Err(failure) => (None, vec![Finding::ill(CHECK, failure.message(), advice)]),
    };
    let file = serve::destinations(global);
    if let Err(error) = read_destinations(&file) {
        found.push(Finding::ill(CHECK, crate::store::chain(&error), advice));
    }
    (config, found)
}

/// The findings of an answer.
fn checks(answer: &Value) -> Result<Vec<Finding>, Failure> {
    serde_json::from_value(answer["checks"].clone())
        .map_err(|error| Failure::OutOfReach(format!("the server's answer is no checkup: {error}")))
}

/// What can be looked at without a server.
fn from_here(config: &Config) -> Vec<Finding> {
    match app::checkup(config) {
        None => Vec::new(),
        Some(Ok(checkup)) => checkup.check(),
        Some(Err(error)) => {
            vec![Finding::ill(SERVERS, crate::store::chain(&error), "set `store.url` right")]
        }
    }
}

fn lines(found: &[Finding]) -> String {
    let width = found.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let line = |finding: &Finding| {
        let sign = match finding.state {
            State::Well => '✓',
            State::Note => '!',
            State::Ill => '✗',
        };
        let advice = finding.advice.iter().map(|advice| format!(" → {advice}")).collect::<String>();
        // What a message has on several lines stays one here.
        let text =
            format!("{}{advice}", finding.found).split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{sign} {:width$}  {text}\n", finding.check)
    };
    found.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_with_a_sign_and_what_to_do() {
        let found = [
            Finding::well("threads", "all run"),
            Finding::note("fold", "unknown", "wait"),
            Finding::ill("disk", "full:\n  of events", "free some"),
        ];
        assert_eq!(
            lines(&found),
            "✓ threads  all run\n! fold     unknown → wait\n✗ disk     full: of events → free some\n"
        );
    }
}
