//! Builds plugins so that it can be said which of their code was executed: with names, lines, and functions as written.
//!
//! What such a module does is what a packaged one does. The folder and the dependencies are those of `develop`.

use std::path::Path;

use super::compile::{How, build_one, publish};
use super::{Built, CompileError, Plugin, Toolchain, Workspace, develop};

/// What the compiler is told of the plugin's own crate, and of no other, so that those are compiled once for `develop`
/// and this: nothing is inlined, merged or left out.
const OWN: &[&str] = &["-Copt-level=0", "-Cdebuginfo=line-tables-only", "-Cstrip=none"];

/// Builds the plugins, each into `target/plugins/coverage/<name>.wasm`. What [`compile`](super::compile()) has written
/// stays as it is.
pub fn covered(
    cargo: &Path,
    workspace: &Workspace,
    plugins: &[Plugin],
    toolchain: &Toolchain,
) -> Result<Vec<Built>, CompileError> {
    let target = workspace.target.join("dev");
    let how = How { profile: develop::NAME, settings: develop::SETTINGS, target, own: OWN };
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
