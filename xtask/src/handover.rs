//! Hands work over to a binary that is built on first use, so that building a plugin never waits for the engine.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::environment;
use crate::report::{Failure, note};

/// How long cargo may take before it is said what for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Replace this process by `binary` of the workspace's `package`, with its standard input from `stdin` when given.
/// Returns only when that fails.
pub(crate) fn exec(package: &str, binary: &str, arguments: Vec<OsString>, stdin: Option<Stdio>) -> Failure {
    match locate(package, binary) {
        Ok(program) => replace_by(&program, arguments, stdin),
        Err(failure) => failure,
    }
}

/// Replace this process by a program. Returns only when that fails.
pub(crate) fn replace_by(program: &Path, arguments: Vec<OsString>, stdin: Option<Stdio>) -> Failure {
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(stdin) = stdin {
        command.stdin(stdin);
    }
    replace(command, program)
}

/// Run `binary` of the workspace's `package` on this standard input, and have its standard output.
pub(crate) fn answer(package: &str, binary: &str, input: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let program = locate(package, binary)?;
    let failed = |error| Failure::environment(format!("failed to run {}: {error}", program.display()));
    let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    // It may answer before it has read everything.
    let writer = child.stdin.take().map(|mut stdin| std::thread::spawn(move || stdin.write_all(&input)));
    let mut output = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut output).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    // What it did not read is said by how it ended.
    let _ = writer.map(std::thread::JoinHandle::join);
    if status.success() {
        Ok(output)
    } else {
        Err(Failure::environment(format!("{} ended with {status}", program.display())))
    }
}

#[cfg(unix)]
fn replace(mut command: Command, program: &Path) -> Failure {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Failure::environment(format!("failed to run {}: {error}", program.display()))
}

#[cfg(not(unix))]
fn replace(mut command: Command, program: &Path) -> Failure {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(3)),
        Err(error) => Failure::environment(format!("failed to run {}: {error}", program.display())),
    }
}

/// In a checkout the binary is built from it. An installed `cargo plugwright` prefers one that is installed too, and
/// falls back to the checkout that it was installed from.
pub(crate) fn locate(package: &str, binary: &str) -> Result<PathBuf, Failure> {
    let file = format!("{binary}{}", std::env::consts::EXE_SUFFIX);
    let beside =
        std::env::current_exe().ok().map(|program| program.with_file_name(&file)).filter(|path| path.is_file());
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|root| root.join(folder(package)).is_dir());
    match checkout {
        Some(root) if environment::runs_from_checkout() => build(root, package, binary, beside.is_some()),
        _ => match (beside.or_else(|| environment::on_path(&file)), checkout) {
            (Some(installed), _) => Ok(installed),
            (None, Some(root)) => {
                let built_before = environment::target(root).join("debug").join(&file).is_file();
                build(root, package, binary, built_before)
            }
            (None, None) => Err(Failure::environment(format!("`{binary}` is not installed"))
                .hint(format!("in a checkout of Plugwright: cargo install --path {}", folder(package)))),
        },
    }
}

/// Where in the repository a package is.
fn folder(package: &str) -> &str {
    if package == "suite-runner" { "suites/runner" } else { package }
}

/// Whether cargo sets a variable for the package that it compiles or runs.
fn is_of_a_package(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let rest = ["CARGO_CRATE_NAME", "CARGO_BIN_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || rest.contains(&name.as_ref())
}

/// What cargo told this program of itself would be taken for a change by build scripts (ring's), and have them and the
/// engine behind them compiled again and again by turns.
pub(crate) fn forget_package(command: &mut Command) {
    std::env::vars_os().map(|(name, _)| name).filter(|name| is_of_a_package(name)).for_each(|name| {
        command.env_remove(name);
    });
}

/// What cargo says, and a word when it takes long, for other sources or another cargo: it is quiet about a binary that
/// was there.
fn waited(child: Child, binary: &str) -> std::io::Result<Output> {
    let (ended, ends) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let gone = |_| std::io::Error::other("nobody waits for it");
    match ends.recv_timeout(PATIENCE) {
        Ok(output) => output,
        Err(_) => {
            note(format!("bringing `{binary}` up to date"));
            ends.recv().map_err(gone)?
        }
    }
}

fn build(root: &Path, package: &str, binary: &str, built_before: bool) -> Result<PathBuf, Failure> {
    let mut command = Command::new(environment::cargo());
    forget_package(&mut command);
    command.current_dir(root).args(["build", "--package", package, "--bin", binary]);
    command.args(["--message-format", "json-render-diagnostics"]);
    if built_before {
        command.arg("--quiet");
    } else {
        let engine = if ["harness", "suite-runner"].contains(&package) {
            "; with an engine in it, this takes a few minutes once"
        } else {
            ""
        };
        note(format!("building `{binary}` on first use{engine}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let failed = |error: std::io::Error| Failure::environment(format!("failed to run cargo: {error}"));
    let child = command.spawn().map_err(failed)?;
    let output = if built_before { waited(child, binary) } else { child.wait_with_output() }.map_err(failed)?;
    if !output.status.success() {
        return Err(Failure::environment(format!("cargo could not build `{binary}`")));
    }
    let executable = output.stdout.split(|byte| *byte == b'\n').find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        let is_it = message.pointer("/target/name")?.as_str()? == binary;
        let executable = message.get("executable")?.as_str()?;
        is_it.then(|| PathBuf::from(executable))
    });
    executable.ok_or_else(|| Failure::environment(format!("cargo built `{binary}` but did not say where it is")))
}

#[cfg(test)]
mod tests {
    use super::is_of_a_package;

    #[test]
    fn what_cargo_says_of_a_package_is_told_from_what_it_is_told_itself() {
        for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_LINKS", "CARGO_PKG_VERSION_PRE", "CARGO_BIN_NAME"] {
            assert!(is_of_a_package(name.as_ref()), "{name}");
        }
        for name in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS", "PATH"] {
            assert!(!is_of_a_package(name.as_ref()), "{name}");
        }
    }
}
