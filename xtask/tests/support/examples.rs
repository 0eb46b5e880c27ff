//! The SDK's examples as modules, in `target/plugins/examples`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use packager::build::{self, Installer, Preference, Tools};

use super::repository;

/// Builds them: where they are, by name.
pub(crate) fn modules() -> BTreeMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
    let workspace = build::discover(&cargo, repository(), None).unwrap();
    let tools = Tools {
        rustc: "rustc".into(),
        rustup: Some("rustup".into()),
        system_rustc: "/usr/bin/rustc".into(),
        system_libc: "/usr/lib/wasm32-wasi".into(),
        wasm_ld: None,
        apt_get: Some("apt-get".into()),
        root: true,
        directory: repository().to_owned(),
    };
    let mut talk = |_: &str| ();
    let installer = &mut Installer { allowed: true, talk: &mut talk };
    let toolchain = build::prepare(&tools, Preference::Auto, installer).unwrap();
    build::compile_examples(&cargo, &workspace, "plugwright-sdk", "log", &toolchain).unwrap()
}
