//! `throng check`
use super::{Failure, Global};
use clap::Args;
use std::process::ExitCode;
#[derive(Debug, Args)]
pub(super) struct Check {}
pub(super) fn run(_: &Global, _: &Check) -> Result<ExitCode, Failure> {
    Ok(ExitCode::SUCCESS)
}
