//! The command line: `serve` and `demo` run the product, `check` and `fmt` work on files, and every other
//! command asks a running server.

mod audience;
mod audit;
mod authorize;
mod backup;
mod check;
mod client;
mod completions;
mod cost;
mod deadletter;
mod demo;
mod destination;
mod doctor;
mod estimate;
mod eval;
mod files;
mod fmt;
mod history;
mod import;
mod lookalike;
mod node;
mod output;
mod overlap;
mod partner;
mod plan;
mod privacy;
mod quarantine;
mod secret;
mod serve;
mod snippet;
mod store;
mod token;
mod transfer;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::segment::instant;

pub use output::Failure;

/// Self-hosted data management platform: pixels in, exact audiences out, kept in step on ad platforms.
#[derive(Debug, Parser)]
#[command(name = "throng", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
struct Global {
    /// Settings file [default: config/throng.toml where it exists, else built-in defaults]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory of the server, or where to find the running one [default: ./data]
    #[arg(long, global = true, value_name = "DIR", env = "THRONG_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
    /// Private address of a running server, such as `http://127.0.0.1:8081`
    #[arg(long, global = true, value_name = "URL", env = "THRONG_SERVER", hide_env_values = true)]
    server: Option<String>,
    /// Token for the server [default: the file `token` of the data directory]
    #[arg(long, global = true, value_name = "T", env = "THRONG_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Answers as JSON, for machines
    #[arg(long, global = true)]
    json: bool,
    /// The instant to answer for: RFC 3339 with zone, or before now such as -2h
    #[arg(long, global = true, value_name = "TIME", allow_hyphen_values = true, value_parser = at)]
    at: Option<String>,
    /// Any setting, such as --set collect.listen=127.0.0.1:9000
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: both listeners, the fold, the audiences and the pushes
    Serve(serve::Serve),
    /// Send real sample data through the whole product, and stay up to look around
    Demo(demo::Demo),
    /// Check segment files, offline; exit 1 with diagnostics
    Check(check::Check),
    /// Print segment files in the one canonical way
    Fmt(fmt::Fmt),
    /// Show what other segment files would change: members, what refers to them, what is sent where
    Plan(plan::Plan),
    /// Do what a plan says, all or nothing
    Apply(plan::Apply),
    /// Import events, through the server and its journal
    #[command(subcommand)]
    Import(import::Import),
    /// Count who a rule holds, or list their identifiers
    Eval(eval::Eval),
    /// Say about how many a rule holds within a moment, and then exactly
    Estimate(estimate::Estimate),
    /// List audiences, show one, export its members, count what several share, or show how one grew
    #[command(subcommand)]
    Audience(audience::Audience),
    /// Show what a look-alike has learnt of its seed, or train it now
    Lookalike(lookalike::Lookalike),
    /// Show how a rule is answered: shared parts, order, sizes, time
    Explain(eval::Explain),
    /// Say clause by clause why a profile is in a segment, or not
    Why(eval::Why),
    /// List destinations, push to them, or get the tokens that they want
    #[command(subcommand)]
    Destination(destination::Destination),
    /// List, show or drop what could not be folded
    #[command(subcommand)]
    Deadletter(deadletter::Deadletter),
    /// List who is set aside for they kept sending, or take one back
    #[command(subcommand)]
    Quarantine(quarantine::Quarantine),
    /// Show all that is held of someone, as JSON
    Access(privacy::Access),
    /// Erase someone from the store, and from every destination that has them; print the receipt
    Erase(privacy::Erase),
    /// Keep someone out of every destination, whether known already or not
    OptOut(privacy::OptOut),
    /// Show what was erased and what is pending, or check the signature of a receipt
    #[command(subcommand)]
    Receipt(privacy::Receipt),
    /// Copy a store while it is served into a directory, or check such a copy
    Backup(backup::Backup),
    /// Make a data directory of a backup; no server may have it
    Restore(backup::Restore),
    /// Check settings, server, store, clock and destinations, and say what to do; exit 1 if anything is not well
    Doctor(doctor::Doctor),
    /// List the processes that share a store, or strike one off
    #[command(subcommand)]
    Node(node::Node),
    /// Measure what the store takes
    #[command(subcommand)]
    Store(store::Store),
    /// Bring a store from a data directory to Redis, or back; no server may run on either
    Move(transfer::Move),
    /// List the partners that cookies are synced with, and how many browsers were matched
    #[command(subcommand)]
    Partner(partner::Partner),
    /// List who changed what, or check that nobody has touched that list
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Encrypt secrets that are to stand in the settings, and take another master key
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Make, list and revoke tokens of the private listener
    #[command(subcommand)]
    Token(token::Token),
    /// Print what a site's pages, servers and apps send, to be pasted
    Snippet(snippet::Snippet),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

/// Takes `--at` as it is written, where it is an instant.
fn at(text: &str) -> Result<String, String> {
    instant(Some(text), 0).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Whether a command asks about an instant.
fn has_a_past(command: &Command) -> bool {
    matches!(
        command,
        Command::Eval(_)
            | Command::Estimate(_)
            | Command::Explain(_)
            | Command::Why(_)
            | Command::Audience(audience::Audience::Members { .. })
    )
}

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // clap's own code for usage is 2; help and version are no failure.
            return if error.use_stderr()
                && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let global = cli.global;
    if global.at.is_some() && !has_a_past(&cli.command) {
        let told = "--at: this is answered for now; eval, estimate, explain, why and audience members take another time";
        return Failure::Usage(told.to_owned()).report();
    }
    let done = match cli.command {
        Command::Serve(command) => serve::run(&global, &command),
        Command::Demo(command) => demo::run(&global, &command),
        Command::Check(command) => check::run(&global, &command),
        Command::Fmt(command) => fmt::run(&global, &command),
        Command::Plan(command) => plan::plan(&global, &command),
        Command::Apply(command) => plan::apply(&global, &command),
        Command::Import(command) => import::run(&global, &command),
        Command::Eval(command) => eval::run(&global, &command),
        Command::Estimate(command) => estimate::run(&global, &command),
        Command::Audience(command) => audience::run(&global, &command),
        Command::Lookalike(command) => lookalike::run(&global, &command),
        Command::Explain(command) => eval::explain(&global, &command),
        Command::Why(command) => eval::why(&global, &command),
        Command::Destination(command) => destination::run(&global, &command),
        Command::Deadletter(command) => deadletter::run(&global, &command),
        Command::Quarantine(command) => quarantine::run(&global, &command),
        Command::Access(command) => privacy::access(&global, &command),
        Command::Erase(command) => privacy::erase(&global, &command),
        Command::OptOut(command) => privacy::opt_out(&global, &command),
        Command::Receipt(command) => privacy::receipt(&global, &command),
        Command::Backup(command) => backup::run(&global, &command),
        Command::Restore(command) => backup::restore(&global, &command),
        Command::Doctor(command) => doctor::run(&global, &command),
        Command::Node(command) => node::run(&global, &command),
        Command::Store(command) => store::run(&global, &command),
        Command::Move(command) => transfer::run(&global, &command),
        Command::Partner(command) => partner::run(&global, &command),
        Command::Secret(command) => secret::run(&global, &command),
        Command::Audit(command) => audit::run(&global, &command),
        Command::Token(command) => token::run(&global, &command),
        Command::Snippet(command) => snippet::run(&global, &command),
        Command::Completions(command) => completions::run(&command),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
