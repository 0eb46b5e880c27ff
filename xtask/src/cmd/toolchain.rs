//! `cargo xtask toolchain`.

use crate::report::Failure;

/// Print which wasm toolchain was found and chosen.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::usage("`toolchain` is not there yet"))
}
