//! Runs cargo for the plugin crates and puts each module at `target/plugins/<name>.wasm`.

use std::ffi::OsString;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{CrateType, Message};

use super::toolchain::{Kind, Toolchain};
use super::{Built, Plugin, TARGET, Workspace};

/// Cargo's settings for a plugin. They are passed on the command line, so that a crate gets the same module in any
/// workspace, whatever profiles that workspace defines.
#[derive(Debug, Clone, Copy)]
pub struct Profile;

impl Profile {
    const NAME: &str = "plugwright";
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

    fn arguments() -> impl Iterator<Item = String> {
        let settings = Self::SETTINGS
            .iter()
            .flat_map(|(key, value)| ["--config".to_owned(), format!("profile.{}.{key}={value}", Self::NAME)]);
        ["--profile".to_owned(), Self::NAME.to_owned()].into_iter().chain(settings)
    }
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
    #[error("cargo could not build {}", .plugins.join(", "))]
    Failed {
        /// The plugins asked for.
        plugins: Vec<String>,
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

/// Build the plugins with one cargo call; cargo talks on standard error as usual.
///
/// The modules depend on nothing but the sources, `Cargo.lock` and the toolchain: folders are remapped, and flags from
/// the environment or a cargo configuration do not take part.
pub fn compile(
    cargo: &Path,
    workspace: &Workspace,
    plugins: &[Plugin],
    toolchain: &Toolchain,
) -> Result<Vec<Built>, CompileError> {
    let names = || plugins.iter().map(|plugin| plugin.name.clone()).collect::<Vec<_>>();
    let mut child = command(cargo, workspace, plugins, toolchain)
        .spawn()
        .map_err(|source| CompileError::Spawn { cargo: cargo.to_owned(), source })?;
    let mut modules = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for message in Message::parse_stream(BufReader::new(stdout)) {
            let message =
                message.map_err(|source| CompileError::Io { action: "read", path: "cargo's output".into(), source })?;
            if let Message::CompilerArtifact(artifact) = message
                && artifact.target.crate_types.contains(&CrateType::CDyLib)
            {
                let wasm = artifact.filenames.iter().find(|file| file.extension() == Some("wasm"));
                modules.extend(wasm.map(|file| (artifact.manifest_path, PathBuf::from(file))));
            }
        }
    }
    let status = child.wait().map_err(|source| CompileError::Spawn { cargo: cargo.to_owned(), source })?;
    if !status.success() {
        return Err(CompileError::Failed { plugins: names() });
    }

    plugins
        .iter()
        .map(|plugin| {
            let built = modules
                .iter()
                .find(|(manifest, _)| manifest.parent().is_some_and(|folder| folder == plugin.root))
                .ok_or_else(|| CompileError::NoModule { plugin: plugin.name.clone() })?;
            let module = workspace.target.join("plugins").join(format!("{}.wasm", plugin.name));
            publish(&built.1, &module)?;
            Ok(Built { plugin: plugin.clone(), module, toolchain: Some(toolchain.description.clone()) })
        })
        .collect()
}

fn command(cargo: &Path, workspace: &Workspace, plugins: &[Plugin], toolchain: &Toolchain) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(&workspace.root).args(["build", "--lib", "--target", TARGET]);
    command.args(["--message-format", "json-render-diagnostics"]).args(Profile::arguments());
    command.arg("--target-dir").arg(&workspace.target);
    for plugin in plugins {
        command.args(["--package", &plugin.name]);
    }
    if let Kind::Distribution { linker, libc } = &toolchain.kind {
        command.args(["-Z", "build-std=std,panic_abort"]).env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, toolchain, Some(libc)));
    } else {
        command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, toolchain, None));
    }
    command.env("RUSTC", &toolchain.rustc).env_remove("RUSTFLAGS").env_remove("RUSTC_WRAPPER");
    command.env_remove("RUSTC_WORKSPACE_WRAPPER").stdin(Stdio::null()).stdout(Stdio::piped());
    command
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
fn publish(from: &Path, to: &Path) -> Result<(), CompileError> {
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
