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
    ("harness", &["test", "--no-fail-fast", "--package", "harness", "--package", "suite-runner"]),
    (
        "everything else",
        &["test", "--no-fail-fast", "--workspace", "--exclude", "harness", "--exclude", "suite-runner"],
    ),
    // The command line's comments are its help texts, not Markdown.
    ("documentation", &["doc", "--workspace", "--exclude", "xtask", "--no-deps", "--quiet"]),
];

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|root| root.join(".ci/run").is_file())
    else {
        return Err(Failure::usage("`ci` checks Plugwright itself: run it in a checkout"));
    };
    let folder = root.join("target/tools");
    tools::install_image_tools(root, &folder)?;
    tools::envoy(&folder)?;
    tools::openid_provider(root, &folder)?;
    tools::browser(root, &folder)?;
    tools::other_languages(root, &folder)?;
    let deny = tools::cargo_deny(&folder)?;
    if args.prepare {
        return Ok(());
    }
    let cargo = environment::cargo();
    for (name, arguments) in STEPS {
        step(root, name, &cargo, arguments)?;
    }
    step(root, "dependencies", &deny, &["check", "licenses", "bans", "sources"])?;
    data("all checks passed");
    Ok(())
}

fn step(root: &Path, name: &str, program: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let shown = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    note(format!("== {name}: {shown} {}", arguments.join(" ")));
    let started = Instant::now();
    let mut command = Command::new(program);
    command.current_dir(root).args(arguments).env("RUSTDOCFLAGS", "--deny warnings");
    let status = command.status().map_err(|error| Failure::environment(format!("failed to run {shown}: {error}")))?;
    if !status.success() {
        return Err(Failure::bad(format!("step `{name}` failed")));
    }
    note(format!("== {name}: {} s", started.elapsed().as_secs()));
    Ok(())
}
