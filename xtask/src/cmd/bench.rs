//! `cargo xtask bench`.

mod measure;
mod registry;

use crate::report::Failure;

/// Measure Plugwright against other programs, all in one run.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Registry(registry::Args),
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.what {
        What::Registry(args) => registry::run(args),
    }
}
