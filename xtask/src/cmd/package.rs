//! `cargo xtask package`.

use crate::report::Failure;

/// Build, check and assemble images into the OCI layout.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`package` is not there yet"))
}
