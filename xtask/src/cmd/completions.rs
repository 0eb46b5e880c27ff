//! `cargo xtask completions`.

use clap_complete::{Shell, generate};

use crate::report::data;

/// Print a shell's completions for `cargo-plugwright`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut command: clap::Command) {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "cargo-plugwright", &mut script);
    data(String::from_utf8_lossy(&script).trim_end());
}
