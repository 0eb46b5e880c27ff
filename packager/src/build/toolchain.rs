//! Gets a compiler for wasm32-wasip1 ready: the active toolchain, else rustup, else the distribution's packages.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::TARGET;

/// Debian's packages for the last way: a compiler, its library's source, and a libc for WASI.
const PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "wasi-libc"];

/// A download that has not ended by then is taken for a network that swallows packets.
const RUSTUP_LIMIT: Duration = Duration::from_mins(2);

/// Programs and folders the search looks at. The caller finds them; tests put others in their place.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The active compiler: `$RUSTC`, else `rustc` on the path.
    pub rustc: PathBuf,
    /// rustup, where there is one.
    pub rustup: Option<PathBuf>,
    /// The distribution's compiler, usually `/usr/bin/rustc`.
    pub system_rustc: PathBuf,
    /// The distribution's libc for WASI, usually `/usr/lib/wasm32-wasi`.
    pub system_libc: PathBuf,
    /// `wasm-ld`, where there is one; rustup's own rust-lld is preferred.
    pub wasm_ld: Option<PathBuf>,
    /// apt-get, where there is one.
    pub apt_get: Option<PathBuf>,
    /// Whether apt-get may install: we run as root.
    pub root: bool,
    /// Folder to run in: a `rust-toolchain.toml` there chooses the active toolchain.
    pub directory: PathBuf,
}

/// Which ways are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Preference {
    /// The first that works: active, rustup, distribution.
    #[default]
    Auto,
    /// The active toolchain, adding the target with rustup when it is missing.
    Rustup,
    /// The distribution's compiler with a standard library built from source.
    Distribution,
}

/// What may be installed, and where to say so.
pub struct Installer<'a> {
    /// `--no-install` clears this.
    pub allowed: bool,
    /// Told one sentence before anything is installed.
    pub talk: &'a mut dyn FnMut(&str),
}

/// How the target's standard library is had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Prebuilt, in the toolchain.
    Prebuilt,
    /// Built from source by cargo (`-Z build-std`) with the distribution's compiler.
    Distribution {
        /// rust-lld or wasm-ld.
        linker: PathBuf,
        /// Folder of the WASI libc.
        libc: PathBuf,
    },
}

/// A compiler that can build plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// How it gets a standard library.
    pub kind: Kind,
    /// `rustc 1.95.0 (59807616e 2026-04-14), prebuilt std`: part of a module's identity.
    pub description: String,
    /// The library's source folder, and what it is called in modules.
    pub(super) remap: Vec<(PathBuf, String)>,
    /// Files and folders that change when the toolchain does, or when there is a better one.
    pub(super) watch: Vec<PathBuf>,
}

/// One way of getting the target, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `active`, `rustup` or `distribution`.
    pub way: &'static str,
    /// What was found, for people.
    pub found: String,
    /// The toolchain, when this way is ready as it stands.
    pub toolchain: Option<Toolchain>,
}

/// Why there is no toolchain.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// No way works, or the ones that would need something installed that may not be.
    #[error("no toolchain for {TARGET}: {}", .found.join("; "))]
    Unavailable {
        /// What each way came to.
        found: Vec<String>,
        /// What to run.
        command: String,
    },
}

impl ToolchainError {
    /// The command that would make the target available.
    pub fn command(&self) -> &str {
        let Self::Unavailable { command, .. } = self;
        command
    }
}

impl Tools {
    /// Look at every way, in order, without changing anything.
    pub fn probe(&self) -> Vec<Probe> {
        vec![self.active(), self.rustup(), self.distribution()]
    }

    fn active(&self) -> Probe {
        let name = self.rustc.display();
        let (found, toolchain) = match self.compiler(&self.rustc) {
            Err(error) => (format!("`{name}` does not run: {error}"), None),
            Ok(compiler) if !compiler.has_prebuilt_std => {
                (format!("{} has no {TARGET} target", compiler.version), None)
            }
            Ok(compiler) => {
                let description = format!("{}, prebuilt std", compiler.version);
                let (remap, watch) = (compiler.remap(), compiler.watch());
                let toolchain =
                    Toolchain { rustc: self.rustc.clone(), kind: Kind::Prebuilt, description, remap, watch };
                (format!("{} has the {TARGET} target", compiler.version), Some(toolchain))
            }
        };
        Probe { way: "active", found, toolchain }
    }

    fn rustup(&self) -> Probe {
        let found = match &self.rustup {
            Some(rustup) => format!("{} can be asked for the target", rustup.display()),
            None => "no rustup on the path".to_owned(),
        };
        Probe { way: "rustup", found, toolchain: None }
    }

    fn distribution(&self) -> Probe {
        let missing = |what: &str, path: &Path| Probe {
            way: "distribution",
            found: format!("no {what} at {}", path.display()),
            toolchain: None,
        };
        if !self.system_rustc.exists() {
            return missing("compiler", &self.system_rustc);
        }
        let compiler = match self.compiler(&self.system_rustc) {
            Ok(compiler) => compiler,
            Err(error) => {
                let found = format!("{} does not run: {error}", self.system_rustc.display());
                return Probe { way: "distribution", found, toolchain: None };
            }
        };
        if !compiler.library.join("std/Cargo.toml").exists() {
            return missing("library source", &compiler.library);
        }
        if !self.system_libc.join("libc.a").exists() {
            return missing("libc for WASI", &self.system_libc);
        }
        let Some(linker) = self.linker() else {
            let found = "no rust-lld beside the active compiler and no wasm-ld on the path".to_owned();
            return Probe { way: "distribution", found, toolchain: None };
        };
        let mut watch = compiler.watch();
        watch.extend([self.system_rustc.clone(), self.system_libc.join("libc.a"), linker.clone()]);
        if let Ok(active) = self.compiler(&self.rustc) {
            watch.extend(active.watch());
        }
        let found = format!("{} with its library source, linked by {}", compiler.version, linker.display());
        let toolchain = Toolchain {
            rustc: self.system_rustc.clone(),
            description: format!("{}, std from source", compiler.version),
            remap: compiler.remap(),
            watch,
            kind: Kind::Distribution { linker, libc: self.system_libc.clone() },
        };
        Probe { way: "distribution", found, toolchain: Some(toolchain) }
    }

    fn linker(&self) -> Option<PathBuf> {
        let compiler = self.compiler(&self.rustc).ok();
        let beside = compiler.map(|c| c.sysroot.join("lib/rustlib").join(c.host).join("bin/rust-lld"));
        beside.filter(|path| path.exists()).or_else(|| self.wasm_ld.clone())
    }

    fn compiler(&self, rustc: &Path) -> Result<Compiler, String> {
        let verbose = self.output(rustc, ["-vV"])?;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
        let sysroot = PathBuf::from(self.output(rustc, ["--print", "sysroot"])?);
        // A target the compiler does not know is an error here, and as good as one it has no library for.
        let libdir = self.output(rustc, ["--print", "target-libdir", "--target", TARGET]).ok().map(PathBuf::from);
        let files = libdir.as_ref().and_then(|folder| std::fs::read_dir(folder).ok());
        let has_prebuilt_std = files.is_some_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
        });
        Ok(Compiler {
            version: verbose.lines().next().unwrap_or_default().trim().to_owned(),
            commit: field("commit-hash:").unwrap_or_else(|| "unknown".to_owned()),
            host: field("host:").unwrap_or_default(),
            library: sysroot.join("lib/rustlib/src/rust/library"),
            sysroot,
            libdir,
            has_prebuilt_std,
        })
    }

    fn output<const N: usize>(&self, program: &Path, arguments: [&str; N]) -> Result<String, String> {
        let mut command = Command::new(program);
        let output = command
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(stderr.lines().next().unwrap_or("it failed without a word").to_owned())
        }
    }

    fn apt_command(&self) -> String {
        let lld = if self.linker().is_some() { "" } else { " lld" };
        format!("apt-get update && apt-get install -y --no-install-recommends {}{lld}", PACKAGES.join(" "))
    }
}

/// What a compiler says about itself.
struct Compiler {
    version: String,
    commit: String,
    host: String,
    sysroot: PathBuf,
    library: PathBuf,
    /// Where the target's library is or would be.
    libdir: Option<PathBuf>,
    has_prebuilt_std: bool,
}

impl Compiler {
    /// The compiler, the targets it has, and the library of ours: its files' names have a hash in them.
    fn watch(&self) -> Vec<PathBuf> {
        let own = [self.sysroot.join("bin/rustc"), self.sysroot.join("lib/rustlib")];
        own.into_iter().chain(self.libdir.clone()).filter(|path| path.exists()).collect()
    }

    /// With the library's source installed, rustc names the real folder where it would otherwise say
    /// `/rustc/COMMIT/library`: always say the latter. A link is named by where it leads.
    fn remap(&self) -> Vec<(PathBuf, String)> {
        let name = format!("/rustc/{}/library", self.commit);
        let mut remap = vec![(self.library.clone(), name.clone())];
        remap.extend(self.library.canonicalize().ok().filter(|real| *real != self.library).map(|real| (real, name)));
        remap
    }
}

/// Find a toolchain, installing what is missing where that is allowed.
pub fn prepare(
    tools: &Tools,
    preference: Preference,
    installer: &mut Installer<'_>,
) -> Result<Toolchain, ToolchainError> {
    let mut found = Vec::new();
    let mut commands = Vec::new();
    if preference != Preference::Distribution {
        let active = tools.active();
        if let Some(toolchain) = active.toolchain {
            return Ok(toolchain);
        }
        found.push(active.found);
        if let Some(rustup) = &tools.rustup {
            commands.push(format!("rustup target add {TARGET}"));
            if installer.allowed {
                (installer.talk)(&format!("adding the {TARGET} target: rustup target add {TARGET}"));
                let outcome = run(rustup, ["target", "add", TARGET], &tools.directory, Some(RUSTUP_LIMIT));
                match (outcome, tools.active().toolchain) {
                    (Ok(()), Some(toolchain)) => return Ok(toolchain),
                    (Ok(()), None) => found.push("rustup added the target, but not to the active compiler".to_owned()),
                    (Err(reason), _) => found.push(format!("rustup could not add it: {reason}")),
                }
            }
        } else {
            found.push("no rustup on the path".to_owned());
        }
    }
    if preference != Preference::Rustup {
        let distribution = tools.distribution();
        if let Some(toolchain) = distribution.toolchain {
            return Ok(toolchain);
        }
        found.push(distribution.found);
        if let Some(apt_get) = &tools.apt_get {
            let command = tools.apt_command();
            commands.push(if tools.root { command.clone() } else { format!("sudo sh -c '{command}'") });
            if installer.allowed && tools.root {
                (installer.talk)(&format!("installing a compiler from the distribution: {command}"));
                match install_packages(apt_get, tools) {
                    Ok(()) => match tools.distribution() {
                        Probe { toolchain: Some(toolchain), .. } => return Ok(toolchain),
                        Probe { found: still, .. } => found.push(format!("after installing: {still}")),
                    },
                    Err(reason) => found.push(format!("apt-get could not install it: {reason}")),
                }
            }
        }
    }
    if !installer.allowed {
        found.push("installing is not allowed".to_owned());
    }
    commands.dedup();
    let command =
        commands.first().cloned().unwrap_or_else(|| format!("install rustup, then: rustup target add {TARGET}"));
    Err(ToolchainError::Unavailable { found, command: alternatives(&command, &commands) })
}

fn alternatives(first: &str, commands: &[String]) -> String {
    match commands {
        [_, second, ..] => format!("{first}   (or: {second})"),
        _ => first.to_owned(),
    }
}

fn install_packages(apt_get: &Path, tools: &Tools) -> Result<(), String> {
    run(apt_get, ["update", "-q"], &tools.directory, None)?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(PACKAGES);
    if tools.linker().is_none() {
        arguments.push("lld");
    }
    run(apt_get, arguments, &tools.directory, None)
}

/// Run an installer: its output goes to standard error, since standard output is ours for data.
fn run(
    program: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    directory: &Path,
    limit: Option<Duration>,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(io::stderr());
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUSTUP_MAX_RETRIES", "1");
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let started = Instant::now();
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{} ended with {status}", program.display())),
            None if limit.is_some_and(|limit| started.elapsed() > limit) => {
                // Errors here mean that it ended by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{} did not finish within {} s", program.display(), RUSTUP_LIMIT.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
