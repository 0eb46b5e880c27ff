//! Runs cargo for the plugin crates and puts each module at `target/plugins/<name>.wasm`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{Artifact, Message};

use super::toolchain::{Kind, Toolchain};
use super::{Built, Plugin, TARGET, Workspace};

/// Cargo's settings for a plugin. They are passed on the command line, so that a crate gets the same module in any
/// workspace, whatever profiles that workspace defines.
#[derive(Debug, Clone, Copy)]
pub struct Profile;

impl Profile {
    pub(super) const NAME: &str = "plugwright";
    const SETTINGS: &[(&str, &str)] = &[
        ("inherits", "\"release\""),
        ("opt-level", "\"z\""),
        ("lto", "\"fat\""),
        ("codegen-units", "1"),
        ("panic", "\"abort\""),
        ("strip", "true"),
        ("debug", "false"),
        ("overflow-checks", "false"),
        ("incremental", "false"),
    ];

    fn how(workspace: &Workspace) -> How {
        How { profile: Self::NAME, settings: Self::SETTINGS, target: workspace.target.clone(), own: &[] }
    }
}

/// A way of building.
pub(super) struct How {
    /// The profile's name, which is a folder's, too.
    pub(super) profile: &'static str,
    /// Its settings.
    pub(super) settings: &'static [(&'static str, &'static str)],
    /// The target folder.
    pub(super) target: PathBuf,
    /// What the compiler is told of the package's own crate besides.
    pub(super) own: &'static [&'static str],
}

/// A profile by its name, with these settings.
pub(super) fn arguments(name: &str, settings: &[(&str, &str)]) -> impl Iterator<Item = String> {
    let settings =
        settings.iter().flat_map(move |(key, value)| ["--config".to_owned(), format!("profile.{name}.{key}={value}")]);
    ["--profile".to_owned(), name.to_owned()].into_iter().chain(settings)
}

/// Why modules could not be built.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Cargo could not be started.
    #[error("failed to run {}", cargo.display())]
    Spawn {
        /// The cargo in question.
        cargo: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Cargo's own messages have been shown on standard error.
    #[error("cargo could not build `{plugin}`")]
    Failed {
        /// The plugin.
        plugin: String,
    },
    /// Cargo succeeded without reporting a module for a plugin.
    #[error("cargo built `{plugin}` but reported no wasm file for it")]
    NoModule {
        /// The plugin.
        plugin: String,
    },
    /// Reading cargo's output or writing a module failed.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Build the plugins; cargo talks on standard error as usual.
///
/// The modules depend on nothing but the sources, `Cargo.lock` and the toolchain: folders are remapped, and flags from
/// the environment or a cargo configuration do not take part.
pub fn compile(
    cargo: &Path,
    workspace: &Workspace,
    plugins: &[Plugin],
    toolchain: &Toolchain,
) -> Result<Vec<Built>, CompileError> {
    plugins
        .iter()
        .map(|plugin| {
            let built = build_one(cargo, workspace, plugin, toolchain, &Profile::how(workspace))?;
            let module = workspace.target.join("plugins").join(format!("{}.wasm", plugin.name));
            publish(&built, &module)?;
            Ok(Built {
                plugin: plugin.clone(),
                module,
                artifact: built,
                toolchain: Some(toolchain.description.clone()),
            })
        })
        .collect()
}

/// Where cargo put the plugin's module.
pub(super) fn build_one(
    cargo: &Path,
    workspace: &Workspace,
    plugin: &Plugin,
    toolchain: &Toolchain,
    how: &How,
) -> Result<PathBuf, CompileError> {
    // One plugin at a time, and no other crate type: with an `rlib` beside it (for the crate's own tests), cargo leaves
    // link-time optimisation out without a word, and modules grow by a quarter.
    let what = ["rustc", "--package", &plugin.name, "--lib", "--crate-type", "cdylib"];
    let mut modules = run(cargo, workspace, &what, (&plugin.name, toolchain, how), |artifact| {
        artifact.manifest_path.parent().is_some_and(|folder| folder == plugin.root)
    })?;
    modules.pop().map(|(_, module)| module).ok_or_else(|| CompileError::NoModule { plugin: plugin.name.clone() })
}

/// Build the examples of a package, each of which is a `cdylib`, as [`compile`] builds plugins: where they are, by name.
///
/// `features` are those of the package that are turned on.
pub fn compile_examples(
    cargo: &Path,
    workspace: &Workspace,
    package: &str,
    features: &str,
    toolchain: &Toolchain,
) -> Result<BTreeMap<String, PathBuf>, CompileError> {
    let what = ["build", "--package", package, "--examples", "--features", features];
    let how = Profile::how(workspace);
    let built = run(cargo, workspace, &what, (package, toolchain, &how), |artifact| artifact.target.is_example())?;
    let folder = workspace.target.join("plugins/examples");
    std::fs::create_dir_all(&folder).map_err(|source| CompileError::Io {
        action: "create",
        path: folder.clone(),
        source,
    })?;
    built
        .into_iter()
        .map(|(name, built)| {
            let module = folder.join(format!("{name}.wasm"));
            publish(&built, &module)?;
            Ok((name, module))
        })
        .collect()
}

/// Runs cargo and keeps the modules that it reports, each with its target's name.
fn run(
    cargo: &Path,
    workspace: &Workspace,
    what: &[&str],
    (plugin, toolchain, how): (&str, &Toolchain, &How),
    wanted: impl Fn(&Artifact) -> bool,
) -> Result<Vec<(String, PathBuf)>, CompileError> {
    let spawn = |source| CompileError::Spawn { cargo: cargo.to_owned(), source };
    let mut child = command(cargo, workspace, what, toolchain, how).spawn().map_err(spawn)?;
    let mut modules = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for message in Message::parse_stream(BufReader::new(stdout)) {
            let message =
                message.map_err(|source| CompileError::Io { action: "read", path: "cargo's output".into(), source })?;
            if let Message::CompilerArtifact(artifact) = message
                && wanted(&artifact)
                && let Some(wasm) = artifact.filenames.iter().find(|file| file.extension() == Some("wasm"))
            {
                modules.push((artifact.target.name.clone(), wasm.clone().into()));
            }
        }
    }
    if !child.wait().map_err(spawn)?.success() {
        return Err(CompileError::Failed { plugin: plugin.to_owned() });
    }
    Ok(modules)
}

fn command(cargo: &Path, workspace: &Workspace, what: &[&str], toolchain: &Toolchain, how: &How) -> Command {
    let mut command = Command::new(cargo);
    command
        .current_dir(&workspace.root)
        .args(what)
        .args(["--target", TARGET])
        .args(arguments(how.profile, how.settings));
    command.args(["--message-format", "json-render-diagnostics"]).arg("--target-dir").arg(&how.target);
    surround(&mut command, workspace, toolchain);
    if !how.own.is_empty() {
        command.arg("--").args(how.own);
    }
    command
}

/// Gives cargo the toolchain and the flags that belong to it, and nothing that the environment says of flags.
pub(super) fn surround(command: &mut Command, workspace: &Workspace, toolchain: &Toolchain) {
    let mut libc = None;
    if let Kind::Distribution { linker, libc: folder } = &toolchain.kind {
        command.args(["-Z", "build-std=std,panic_abort"]).env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker);
        libc = Some(folder.as_path());
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, toolchain, libc));
    command.env("RUSTC", &toolchain.rustc).env_remove("RUSTFLAGS").env_remove("RUSTC_WRAPPER");
    command.env_remove("RUSTC_WORKSPACE_WRAPPER").stdin(Stdio::null()).stdout(Stdio::piped());
}

/// Flags joined by the unit separator, as `CARGO_ENCODED_RUSTFLAGS` wants them.
fn flags(workspace: &Workspace, toolchain: &Toolchain, libc: Option<&Path>) -> OsString {
    let mut flags: Vec<OsString> = Vec::new();
    for (from, to) in workspace.remap.iter().chain(&toolchain.remap) {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    if let Some(libc) = libc {
        let mut search = OsString::from("-Lnative=");
        search.push(libc);
        flags.extend(["-Clink-self-contained=no".into(), search]);
    }
    flags.join(OsString::from("\x1f").as_os_str())
}

/// Copy under a temporary name, then rename: whoever reads `to` sees the old module or the new one.
pub(super) fn publish(from: &Path, to: &Path) -> Result<(), CompileError> {
    let bytes =
        std::fs::read(from).map_err(|source| CompileError::Io { action: "read", path: from.to_owned(), source })?;
    if std::fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    crate::file::write_atomically(to, &bytes).map_err(|source| CompileError::Io {
        action: "write",
        path: to.to_owned(),
        source,
    })
}
