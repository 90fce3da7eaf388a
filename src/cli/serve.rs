//! `throng serve`: runs the product until it is told to stop.

use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::app;
use crate::app::App;
use crate::config;
use crate::config::Config;
use crate::config::Overrides;
use crate::net::use_master_key;
use crate::store::embedded::closed;
use crate::store::nodes;
use crate::store::nodes::Roles;

use super::client::data_dir;
use super::{Failure, Global};

/// Where the settings are where `--config` names no file.
const DEFAULT_CONFIG: &str = "config/throng.toml";

/// Arguments of `throng serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Folder of segment files, watched
    #[arg(long, value_name = "DIR", default_value = "segments")]
    segments: PathBuf,
    /// What this process does; several share a store on Redis, the embedded store has one that does all
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
    /// Goes on although the journal is damaged, and reports what was skipped
    #[arg(long)]
    salvage: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    All,
    Collect,
    Work,
    Console,
}

impl Role {
    fn roles(self) -> Roles {
        match self {
            Self::All => Roles::ALL,
            Self::Collect => [nodes::Role::Collect].into_iter().collect(),
            Self::Work => [nodes::Role::Work].into_iter().collect(),
            Self::Console => [nodes::Role::Console].into_iter().collect(),
        }
    }
}

/// Runs the server.
pub(super) fn run(global: &Global, command: &Serve) -> Result<ExitCode, Failure> {
    log();
    closed::close();
    let options = app::Options {
        config: settings(global)?,
        destinations: destinations(global),
        data: data_dir(global),
        segments: command.segments.clone(),
        roles: command.role.roles(),
        salvage: command.salvage,
    };
    // What is wrong with the destinations is told while it starts.
    let running =
        App::start(options).map_err(|error| match error.downcast::<config::ConfigError>() {
            Ok(wrong) => Failure::Usage(told(&wrong)),
            Err(error) => error.into(),
        })?;
    if let Some(collect) = running.collect() {
        eprintln!("collect  {collect}");
    }
    eprintln!("console  {}", running.console());
    running.join()?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the settings that the options name; every problem is told.
pub(super) fn settings(global: &Global) -> Result<Config, Failure> {
    let overrides = Overrides {
        environment: std::env::vars().filter(|(name, _)| name.starts_with("THRONG_")).collect(),
        set: global.set.clone(),
    };
    let file = config_file(global);
    let config = config::read(file.as_deref(), &overrides);
    let config = config.map_err(|error| Failure::Usage(told(&error)))?;
    use_master_key(config.secrets.master_key.clone());
    Ok(config)
}

/// What is wrong with settings, for people.
pub(super) fn told(error: &config::ConfigError) -> String {
    let source = std::error::Error::source(error).map(|s| format!(": {s}")).unwrap_or_default();
    format!("{error}{source}")
}

/// The file of settings; `None` where the built-in ones are all there is.
pub(super) fn config_file(global: &Global) -> Option<PathBuf> {
    match &global.config {
        Some(file) => Some(file.clone()),
        None => Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| file.is_file()),
    }
}

/// The file of destinations beside the settings.
pub(super) fn destinations(global: &Global) -> PathBuf {
    let beside = config_file(global).unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    beside.parent().unwrap_or(Path::new(".")).join("destinations.toml")
}

/// Libraries that would write into a talkative log what they send and receive.
const TALKATIVE: [&str; 11] = [
    "actix_http",
    "actix_web",
    "h2",
    "hyper",
    "hyper_util",
    "object_store",
    "reqwest",
    "russh",
    "rustls",
    "ureq",
    "ureq_proto",
];

/// Starts the log on standard error; `THRONG_LOG` says how much (`debug`, `throng::ingest=debug`).
pub(super) fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("THRONG_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,actix_server=warn,actix_http=off")
    });
    // What these send and receive has secrets in it.
    let filter =
        TALKATIVE.iter().fold(filter, |filter, name| match format!("{name}=info").parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        });
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}
