//! `cargo xtask push`.

use crate::report::Failure;

/// Copy an image from a layout or file to a registry.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`push` is not there yet"))
}
