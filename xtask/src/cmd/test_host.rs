//! `cargo xtask test-host`.

use crate::handover;
use crate::report::{Failure, data};

/// Print where the program is that runs modules for plugins' own tests; it is built on first use.
///
/// With `PLUGWRIGHT_TEST_HOST` set to it and `PLUGWRIGHT_TEST_MODULES` to a folder of modules, such as target/plugins,
/// `cargo test` has a plugin's tests run on its module instead of natively.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<(), Failure> {
    let program = handover::locate("harness", "plugwright-test-host")?;
    data(program.display().to_string());
    Ok(())
}
