//! `throng demo`: real sample data through the whole product, as a site would send it.

use clap::Args;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::app;
use crate::app::App;
use crate::config::Config;
use crate::model::Millis;
use crate::model::time;
use crate::store::embedded::closed;
use crate::store::nodes::Roles;

use super::client::Client;
use super::output::{count, print, table};
use super::serve::{log, settings};
use super::{Failure, Global};

/// Sample events, one canonical event a line; `loadtest/data/README.md` has their sources and terms.
const SAMPLES: [(&str, &[u8]); 2] = [
    ("retail", include_bytes!("../../loadtest/data/retail.ndjson.gz")),
    ("web", include_bytes!("../../loadtest/data/web.ndjson.gz")),
];
/// Events of one request.
const BATCH: usize = 200;

/// Arguments of `throng demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "The demo's data is in the folder `demo` of the data directory, made anew each time."
)]
pub(super) struct Demo {
    /// Stops when the table is printed, instead of staying up
    #[arg(long)]
    exit: bool,
    /// Folder of segment files
    #[arg(long, value_name = "DIR", default_value = "segments")]
    segments: PathBuf,
}

/// Runs the demo.
pub(super) fn run(global: &Global, command: &Demo) -> Result<ExitCode, Failure> {
    if !command.segments.is_dir() {
        return Err(Failure::Usage(format!(
            "{} is no folder; run the demo where the sources are checked out, or name a folder with \
             --segments",
            command.segments.display()
        )));
    }
    if std::env::var_os("THRONG_LOG").is_none() {
        // The demo's own lines are what one came to see.
    } else {
        log();
    }
    closed::close();
    // A folder of its own below the data directory: it is emptied.
    let data = global.data.clone().unwrap_or_else(|| PathBuf::from("data")).join("demo");
    let config = free_ports(settings(global)?);
    empty(&data)?;
    let destinations = data.join("destinations.toml");
    let pushed = data.join("pushed");
    std::fs::write(
        &destinations,
        format!(
            "[[destination]]\nname = \"demo-files\"\nkind = \"file\"\npath = {:?}\nformat = \"csv\"\n\
             every = \"5s\"\n",
            pushed.display().to_string()
        ),
    )
    .map_err(|error| Failure::OutOfReach(format!("{}: {error}", destinations.display())))?;
    eprintln!("starting a server in {}", data.display());
    let running = App::start(app::Options {
        config,
        destinations,
        data: data.clone(),
        segments: command.segments.clone(),
        roles: Roles::ALL,
        salvage: false,
    })?;
    let collect = running.collect().expect("the demo takes events");
    let console = running.console();
    let demo = Global { data: Some(data.clone()), server: None, token: None, ..global.clone() };
    let client = Client::find(&demo)?;
    for (name, sample) in SAMPLES {
        send(&collect, name, sample)?;
    }
    eprintln!("pushing to {}", pushed.display());
    let report = report(&client)?;
    if global.json {
        print(&report.to_string())?;
    } else {
        print(&shown(&report, &collect, &console, &data.display().to_string()))?;
    }
    if command.exit {
        running.stop();
    } else {
        eprintln!("the server stays up; Ctrl-C stops it");
    }
    running.join()?;
    Ok(ExitCode::SUCCESS)
}

/// Takes free ports where the configured ones are in use.
fn free_ports(mut config: Config) -> Config {
    for address in [&mut config.collect.listen, &mut config.console.listen] {
        if std::net::TcpListener::bind(*address).is_err() {
            address.set_port(0);
        }
    }
    config
}

fn empty(data: &std::path::Path) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::OutOfReach(format!("{}: {error}", data.display()));
    if let Ok(run) = super::client::run_file(data) {
        return Err(Failure::OutOfReach(format!(
            "another demo runs on {} (process {}); stop it first",
            data.display(),
            run.pid
        )));
    }
    match std::fs::remove_dir_all(data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::fs::create_dir_all(data).map_err(failed)
}

/// Sends a sample, moved in time so that its last event is a minute old.
fn send(collect: &str, name: &str, sample: &[u8]) -> Result<(), Failure> {
    let broken = |what: String| Failure::OutOfReach(format!("sample {name}: {what}"));
    let mut events: Vec<Value> = Vec::new();
    for line in BufReader::new(GzDecoder::new(sample)).lines() {
        let line = line.map_err(|error| broken(error.to_string()))?;
        events.push(serde_json::from_str(&line).map_err(|error| broken(error.to_string()))?);
    }
    let when = |event: &Value| event["time"].as_str().and_then(time::parse_rfc3339);
    let last = events.iter().filter_map(when).max().unwrap_or_default();
    let shift: Millis =
        crate::net::Clock::now(&crate::net::SystemClock::default()) - time::MINUTE - last;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .build()
        .into();
    let total = events.len();
    let (mut accepted, mut rejected) = (0, 0);
    let started = Instant::now();
    for batch in events.chunks_mut(BATCH) {
        for event in batch.iter_mut() {
            if let Some(time) = when(event) {
                event["time"] = json!(time::format_rfc3339(time + shift));
            }
        }
        let mut answer = agent
            .post(format!("{collect}/v1/events"))
            .content_type("application/json")
            .send(json!(batch).to_string())
            .map_err(|error| broken(error.to_string()))?;
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let told: Value = serde_json::from_str(&text)
            .map_err(|_| broken(format!("{} {text}", answer.status())))?;
        accepted += told["accepted"].as_u64().unwrap_or(0);
        rejected += told["rejected"].as_array().map_or(0, Vec::len);
    }
    eprintln!(
        "sent {} {name} events in {} ms: {} accepted, {rejected} rejected",
        count(total as u64),
        started.elapsed().as_millis(),
        count(accepted),
    );
    Ok(())
}

/// Evaluates every segment, pushes, and puts the answers together.
fn report(client: &Client) -> Result<Value, Failure> {
    let audiences = client.get("/api/v1/audiences?settle=true")?;
    let pushed =
        client.post_json("/api/v1/destinations/demo-files/push?dry_run=false", &json!({}))?;
    let mut rows = Vec::new();
    for audience in audiences["audiences"].as_array().into_iter().flatten() {
        let id = audience["id"].as_str().unwrap_or_default();
        let shown = client.get(&format!("/api/v1/audiences/{id}"))?;
        let answer = client.post_json(
            "/api/v1/eval",
            &json!({ "rule": format!("segment {id}"), "level": shown["level"] }),
        )?;
        let report = pushed["reports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|report| report["segment"].as_str() == Some(id));
        rows.push(json!({
            "segment": id,
            "rule": shown["rule"],
            "members": answer["count"],
            "took_ms": answer["took_ms"],
            "pushed": report.map(|report| &report["held"]),
        }));
    }
    Ok(Value::Array(rows))
}

fn shown(report: &Value, collect: &str, console: &str, data: &str) -> String {
    let rows = report.as_array().into_iter().flatten().map(|row| {
        let (rule, _) = crate::rules::parse(row["rule"].as_str().unwrap_or_default());
        let rule = crate::rules::print_inline(&rule);
        let short: String = match rule.char_indices().nth(60) {
            Some((at, _)) => format!("{}…", &rule[..at]),
            None => rule,
        };
        vec![
            row["segment"].as_str().unwrap_or_default().to_owned(),
            short,
            row["members"].as_u64().map_or_else(|| "–".into(), count),
            format!("{:.1} ms", row["took_ms"].as_f64().unwrap_or_default()),
            row["pushed"].as_u64().map_or_else(|| "–".into(), count),
        ]
    });
    let mut out = String::from("\n");
    out.push_str(&table(&["SEGMENT", "RULE", "MEMBERS", "TIME", "PUSHED IDS"], rows));
    out.push_str(&format!(
        "\ncollect  {collect}   (pixel: {collect}/pixel.gif?s=demo&e=page_view)\n\
         console  {console}\n\
         pushed   {data}/pushed\n\n\
         try next, in another terminal:\n  \
         target/release/throng --data {data} eval 'count purchase in 30d >= 5 and profile.country = \"FR\"'\n  \
         target/release/throng --data {data} explain 'did purchase in 7d and not did refund in 30d'\n  \
         target/release/throng --data {data} audience list\n"
    ));
    out
}
