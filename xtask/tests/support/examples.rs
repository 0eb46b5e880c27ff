//! The SDK's examples as modules, in `target/plugins/examples`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use packager::build::{self, Installer, Preference};

use super::repository;

#[path = "../../../packager/tests/support/mod.rs"]
mod compilers;

/// Builds them: where they are, by name.
pub(crate) fn modules() -> BTreeMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
    let workspace = build::discover(&cargo, repository(), None).unwrap();
    let tools = compilers::tools(repository());
    let mut talk = |_: &str| ();
    let installer = &mut Installer { allowed: true, talk: &mut talk };
    let toolchain = build::prepare(&tools, Preference::Auto, installer).unwrap();
    build::compile_examples(&cargo, &workspace, "plugwright-sdk", "log", &toolchain).unwrap()
}
