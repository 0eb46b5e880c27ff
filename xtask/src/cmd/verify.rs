//! `cargo xtask verify`.

use crate::report::Failure;

/// Check that an image is what Istio will load.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`verify` is not there yet"))
}
