//! `throng destination authorize`: gets the refresh token of a destination from somebody who agrees in a browser.
//!
//! It reads the settings itself and needs no running server; one that runs reads the token at the next push.

use clap::Args;
use serde_json::json;
use std::process::ExitCode;

use super::Failure;
use super::Global;
use super::output::print;
use super::serve;
use crate::activate::connectors::installed_app;
use crate::app::Redirect;
use crate::app::Waited;
use crate::config;
use crate::config::Period;
use crate::model::time::HOUR;
use crate::model::time::SECOND;
use crate::net::Authorization;
use crate::net::OauthError;

/// Arguments of `throng destination authorize`.
#[derive(Debug, Args)]
pub(super) struct Authorize {
    /// The destination's name
    name: String,
    /// The port of 127.0.0.1 that the browser is sent back to [default: a free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// How long it waits for somebody to agree, 1s to 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = timeout)]
    timeout: Period,
}

fn timeout(text: &str) -> Result<Period, String> {
    let period = text.parse::<Period>().map_err(|error| error.to_string())?;
    match (SECOND..=HOUR).contains(&period.0) {
        true => Ok(period),
        false => Err("expected a time from 1s to 1h".to_owned()),
    }
}

/// Prints the address to open, waits for the answer, and writes the token.
pub(super) fn run(global: &Global, command: &Authorize) -> Result<ExitCode, Failure> {
    let Authorize { name, port, timeout } = command;
    // For the master key, should its secret be encrypted.
    serve::settings(global)?;
    let path = serve::destinations(global);
    let told = |error: config::ConfigError| Failure::Usage(serve::told(&error));
    let destinations = config::read_destinations(&path).map_err(told)?;
    let Some(destination) = destinations.iter().find(|one| one.name == *name) else {
        let known: Vec<&str> = destinations.iter().map(|one| one.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let path = path.display();
        return Err(Failure::No(format!(
            "no destination is named `{name}` in {path}; there is {known}"
        )));
    };
    let app = installed_app(destination).map_err(Failure::No)?;
    let file = app.file.display().to_string();
    let redirect = Redirect::bind(*port)?;
    let authorization = Authorization::begin(app, redirect.uri().to_owned()).map_err(failure)?;
    let url = authorization.url().map_err(failure)?;
    if global.json {
        let asked =
            json!({ "authorization_url": url, "redirect_uri": redirect.uri(), "timeout": timeout });
        print(&asked.to_string())?;
    } else {
        print(&url)?;
        eprintln!("{}", advice(redirect.uri(), *timeout));
    }
    match redirect.wait(authorization, timeout.to_duration())? {
        Waited::Answered(Ok(())) => {}
        Waited::Answered(Err(error)) => return Err(failure(error)),
        Waited::TimedOut { strangers } => return Err(Failure::No(late(*timeout, strangers))),
    }
    if global.json {
        print(
            &json!({ "destination": name, "refresh_token": format!("file:{file}") }).to_string(),
        )?;
    } else {
        print(&format!(
            "the refresh token is in {file}; `throng destination test {name}` tries it, and where pushes wait for it, \
             `throng destination push {name}` lets them go on"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do with the address.
fn advice(redirect_uri: &str, timeout: Period) -> String {
    let port = redirect_uri.trim_end_matches('/').rsplit(':').next().unwrap_or_default();
    format!(
        "Open this address in a browser on this machine, and agree. It is good for {timeout}.\n\
         Where the browser is on another machine, run there first: ssh -L {port}:127.0.0.1:{port} USER@THIS-MACHINE\n\
         (--port fixes the port beforehand.)"
    )
}

/// What is said where no answer came.
fn late(timeout: Period, strangers: usize) -> String {
    let calls = match strangers {
        0 => String::new(),
        _ => format!(
            " ({strangers} calls came that were no answer to it: open the address of the last run, not that of an earlier one)"
        ),
    };
    format!(
        "nobody agreed within {timeout}{calls}; run the command again, with a longer --timeout where that is too short. Where the \
         browser is on another machine, its way back has to lead here: ssh -L, as the command says"
    )
}

fn failure(error: OauthError) -> Failure {
    match error {
        OauthError::Refused(why) => Failure::No(why),
        OauthError::Later(why) => {
            Failure::OutOfReach(format!("{why}; nothing was written: run the command again"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_an_end() {
        for text in ["1s", "90s", "10m", "1h"] {
            assert!(timeout(text).is_ok(), "{text}");
        }
        for text in ["", "10", "0s", "999ms", "61m", "1d"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn who_sits_elsewhere_is_told_the_way_back() {
        let said = advice("http://127.0.0.1:8765/", Period(600_000));
        assert!(said.contains("ssh -L 8765:127.0.0.1:8765 ") && said.contains("10m"), "{said}");
        assert!(!late(Period(1_000), 0).contains("calls"));
        assert!(late(Period(1_000), 2).contains("2 calls"));
    }
}
