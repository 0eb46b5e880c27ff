//! `cargo xtask pull`.

use crate::report::Failure;

/// Copy an image from a registry to a layout or file.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`pull` is not there yet"))
}
