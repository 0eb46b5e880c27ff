//! Builds one plugin again and again while somebody works on it: quickly, and not for keeps.
//!
//! No link-time optimisation, incremental, in a folder of its own, so that neither `build` nor anybody's `cargo test`
//! waits for it. What such a module does is what a packaged one does; how large and fast it is, is not.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::Message;

use super::compile::{arguments, publish, surround};
use super::{CompileError, Plugin, TARGET, Toolchain, Workspace, fresh};

pub(super) const NAME: &str = "plugwright-dev";

/// Dependencies change seldom: they are made small, which makes the module quick to load.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("inherits", "\"dev\""),
    ("opt-level", "1"),
    ("package.\"*\".opt-level", "\"s\""),
    ("lto", "\"off\""),
    ("codegen-units", "16"),
    ("panic", "\"abort\""),
    ("strip", "true"),
    ("debug", "false"),
    ("debug-assertions", "false"),
    ("overflow-checks", "false"),
    ("incremental", "true"),
];

/// What came of a build.
#[derive(Debug)]
pub struct Developed {
    /// The module, `target/plugins/dev/<name>.wasm` or where `plugin.toml` says; none when it does not compile.
    pub module: Option<PathBuf>,
    /// What the compiler says, errors and warnings, as for a terminal when `colour` was asked for.
    pub diagnostics: String,
    /// The files that the module is made of, when it was made, and as far as whatever makes it says so.
    pub sources: BTreeSet<PathBuf>,
}

/// Builds a plugin. Sources that do not compile are an outcome and no error.
pub fn develop(
    cargo: &Path,
    workspace: &Workspace,
    plugin: &Plugin,
    toolchain: &Toolchain,
    colour: bool,
) -> Result<Developed, CompileError> {
    let mut command = Command::new(cargo);
    let what = ["rustc", "--quiet", "--package", &plugin.name, "--lib", "--crate-type", "cdylib", "--target", TARGET];
    command.current_dir(&workspace.root).args(what).args(arguments(NAME, SETTINGS));
    command.args(["--message-format", "json-render-diagnostics"]).arg("--target-dir").arg(workspace.target.join("dev"));
    command.args(["--color", if colour { "always" } else { "never" }]);
    surround(&mut command, workspace, toolchain);
    let spawn = |source| CompileError::Spawn { cargo: cargo.to_owned(), source };
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(spawn)?;
    let errors = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What can be read of it is shown.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let mut artifact = None;
    if let Some(stdout) = child.stdout.take() {
        for message in Message::parse_stream(std::io::BufReader::new(stdout)) {
            let message =
                message.map_err(|source| CompileError::Io { action: "read", path: "cargo's output".into(), source })?;
            if let Message::CompilerArtifact(built) = message
                && built.manifest_path.parent().is_some_and(|folder| folder == plugin.root)
            {
                artifact = built.filenames.into_iter().find(|file| file.extension() == Some("wasm"));
            }
        }
    }
    let diagnostics = errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
    let sound = child.wait().map_err(spawn)?.success();
    let Some(artifact) = artifact.filter(|_| sound).map(PathBuf::from) else {
        if sound {
            return Err(CompileError::NoModule { plugin: plugin.name.clone() });
        }
        return Ok(Developed { module: None, diagnostics, sources: BTreeSet::new() });
    };
    let module = workspace.target.join("plugins/dev").join(format!("{}.wasm", plugin.name));
    if let Some(folder) = module.parent() {
        let failed = |source| CompileError::Io { action: "create", path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    publish(&artifact, &module)?;
    let sources = fresh::listed(&artifact).unwrap_or_default();
    let sources = sources.into_iter().map(|path| workspace.root.join(path)).collect();
    Ok(Developed { module: Some(module), diagnostics, sources })
}
