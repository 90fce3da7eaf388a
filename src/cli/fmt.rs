//! `throng fmt`
use super::{Failure, Global};
use clap::Args;
use std::process::ExitCode;
#[derive(Debug, Args)]
pub(super) struct Fmt {}
pub(super) fn run(_: &Global, _: &Fmt) -> Result<ExitCode, Failure> {
    Ok(ExitCode::SUCCESS)
}
