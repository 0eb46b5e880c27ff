//! `cargo xtask run`.

use crate::report::Failure;

/// Serve a filter chain on a real HTTP listener.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`run` is not there yet"))
}
