//! Builds plugins so that it can be said which of their code was executed: with names, lines, and functions as written.
//!
//! What such a module does is what a packaged one does. The folder and the dependencies are those of `develop`.

use std::path::Path;

use super::compile::{How, build_one, publish};
use super::{Built, CompileError, Plugin, Toolchain, Workspace, develop};

/// Nothing of the plugin is inlined, merged or left out. Dependencies have the settings of `develop`, so that they are
/// compiled once for both; a registry's packages are meant by `*`.
const SETTINGS: &[(&str, &str)] = &[
    ("inherits", "\"dev\""),
    ("opt-level", "0"),
    ("package.\"*\".opt-level", "\"s\""),
    ("package.\"*\".strip", "true"),
    ("package.\"*\".debug", "false"),
    ("lto", "\"off\""),
    ("codegen-units", "16"),
    ("panic", "\"abort\""),
    ("strip", "\"none\""),
    ("debug", "\"line-tables-only\""),
    ("debug-assertions", "false"),
    ("overflow-checks", "false"),
    ("incremental", "true"),
];

/// Builds the plugins, each into `target/plugins/coverage/<name>.wasm`. What [`compile`](super::compile()) has written
/// stays as it is.
pub fn covered(
    cargo: &Path,
    workspace: &Workspace,
    plugins: &[Plugin],
    toolchain: &Toolchain,
) -> Result<Vec<Built>, CompileError> {
    let how = How { profile: develop::NAME, settings: SETTINGS, target: workspace.target.join("dev") };
    let folder = workspace.target.join("plugins/coverage");
    std::fs::create_dir_all(&folder).map_err(|source| CompileError::Io {
        action: "create",
        path: folder.clone(),
        source,
    })?;
    plugins
        .iter()
        .map(|plugin| {
            let artifact = build_one(cargo, workspace, plugin, toolchain, &how)?;
            let module = folder.join(format!("{}.wasm", plugin.name));
            publish(&artifact, &module)?;
            let toolchain = Some(toolchain.description.clone());
            Ok(Built { plugin: plugin.clone(), module, artifact, toolchain })
        })
        .collect()
}
