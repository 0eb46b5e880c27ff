//! What the suites that build plugins share.

use std::path::Path;

use packager::build::Tools;

/// The compilers of this machine, for a build in this folder. What is missing may be installed.
pub(crate) fn tools(directory: &Path) -> Tools {
    Tools {
        rustc: "rustc".into(),
        rustup: Some("rustup".into()),
        system_rustc: "/usr/bin/rustc".into(),
        system_libc: "/usr/lib/wasm32-wasi".into(),
        wasm_ld: None,
        apt_get: Some("apt-get".into()),
        root: true,
        directory: directory.to_owned(),
    }
}
