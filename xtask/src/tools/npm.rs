//! Modules of npm: the OpenID provider that the suites sign in at, and what drives a browser.

use std::path::Path;
use std::process::Command;

use super::run;
use crate::report::{Failure, note};

/// What says which versions of what are installed.
const FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// The modules of `examples/openid/provider` in `folder`.
pub(super) fn openid_provider(root: &Path, folder: &Path) -> Result<(), Failure> {
    modules("the OpenID provider", &root.join("examples/openid/provider"), folder, "openid-provider")
}

/// The modules of `page/tests/browser` in `folder`.
pub(super) fn browser(root: &Path, folder: &Path) -> Result<(), Failure> {
    modules("the browser's driver", &root.join("page/tests/browser"), folder, "browser")
}

/// The modules that the lock file in `sources` names, in a folder of this name.
fn modules(what: &str, sources: &Path, folder: &Path, name: &str) -> Result<(), Failure> {
    let home = folder.join(name);
    let io = |error: std::io::Error| Failure::environment(error).context(&format!("install {what}"));
    let same = |file: &&str| matches!((std::fs::read(sources.join(file)), std::fs::read(home.join(file))), (Ok(a), Ok(b)) if a == b);
    if FILES.iter().all(same) {
        return Ok(());
    }
    note(format!("installing {what} with npm"));
    std::fs::create_dir_all(folder).map_err(io)?;
    let partial = tempfile::Builder::new().prefix(&format!(".{name}-")).tempdir_in(folder).map_err(io)?;
    for file in FILES {
        std::fs::copy(sources.join(file), partial.path().join(file)).map_err(io)?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(partial.path()).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    run(&mut npm).map_err(|failure| failure.hint("the suites need Node.js 18 or newer, with npm"))?;
    if home.exists() {
        std::fs::remove_dir_all(&home).map_err(io)?;
    }
    // Another process may have been quicker: what it put there is the same.
    let partial = partial.keep();
    if std::fs::rename(&partial, &home).is_err() {
        std::fs::remove_dir_all(&partial).map_err(io)?;
    }
    Ok(())
}
