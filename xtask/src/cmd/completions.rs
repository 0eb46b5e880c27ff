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
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        // The generator writes a hyphen in the program's name in two ways, and so would find none of its own cases
        // for what stands behind a command.
        script = script.replace("cargo__subcmd__plugwright", "cargo__plugwright");
    }
    data(script.trim_end());
}
