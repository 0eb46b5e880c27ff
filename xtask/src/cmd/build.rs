//! `cargo xtask build`.

use crate::report::Failure;

/// Build plugin crates into wasm modules.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`build` is not there yet"))
}
