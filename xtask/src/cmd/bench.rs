//! `cargo xtask bench`.

mod dev;
mod measure;
mod process;
mod proxy;
mod registry;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::environment;
use crate::report::{Failure, note};

/// Measure Plugwright, against other programs where there are any, all in one run.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Dev(dev::Args),
    Registry(registry::Args),
    Proxy(proxy::Args),
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.what {
        What::Dev(args) => dev::run(args),
        What::Registry(args) => registry::run(args),
        What::Proxy(args) => proxy::run(args),
    }
}

/// The checkout that is measured.
fn checkout() -> Result<&'static Path, Failure> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .filter(|root| root.join(".ci/run").is_file())
        .ok_or_else(|| Failure::usage("`bench` measures Plugwright itself: run it in a checkout"))
}

/// One of our programs as users have it.
fn release(root: &Path, package: &str, kind: &str, binary: &str) -> Result<PathBuf, Failure> {
    note(format!("building {binary} in release"));
    let mut command = Command::new(environment::cargo());
    command.current_dir(root).args(["build", "--release", "--quiet", "--package", package, kind, binary]);
    let output = command
        .args(["--message-format", "json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::environment(format!("failed to run cargo: {error}")))?;
    let found = output.stdout.split(|byte| *byte == b'\n').find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        (message.pointer("/target/name")? == binary).then_some(())?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    found
        .filter(|_| output.status.success())
        .ok_or_else(|| Failure::environment(format!("cargo could not build {binary}")))
}
