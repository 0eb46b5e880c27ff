//! `cargo xtask ci`.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::report::{Failure, data, note};
use crate::{environment, tools};

/// Run every check and every test, exactly as CI does, installing the programs they need.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only install the programs: after that, `cargo test` finds them.
    #[arg(long)]
    prepare: bool,
}

/// The steps, cheapest first. The engine's crate is tested alone so that its dependencies are compiled with the same
/// features as for `cargo xtask run`, once.
const STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]),
    ("harness", &["test", "--package", "harness"]),
    ("everything else", &["test", "--workspace", "--exclude", "harness"]),
    ("documentation", &["doc", "--workspace", "--no-deps", "--quiet"]),
];

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|root| root.join(".ci/run").is_file())
    else {
        return Err(Failure::usage("`ci` checks Plugwright itself: run it in a checkout"));
    };
    tools::install_image_tools()?;
    tools::envoy(&root.join("target/tools"))?;
    if args.prepare {
        return Ok(());
    }
    for (name, arguments) in STEPS {
        note(format!("== {name}: cargo {}", arguments.join(" ")));
        let started = Instant::now();
        let mut command = Command::new(environment::cargo());
        command.current_dir(root).args(*arguments).env("RUSTDOCFLAGS", "--deny warnings");
        let status = command.status().map_err(|error| Failure::environment(format!("failed to run cargo: {error}")))?;
        if !status.success() {
            return Err(Failure::bad(format!("step `{name}` failed")));
        }
        note(format!("== {name}: {} s", started.elapsed().as_secs()));
    }
    data("all checks passed");
    Ok(())
}
