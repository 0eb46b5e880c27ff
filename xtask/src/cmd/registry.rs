//! `cargo xtask registry`.

use crate::report::Failure;

/// Serve a registry for trying things out.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`registry` is not there yet"))
}
