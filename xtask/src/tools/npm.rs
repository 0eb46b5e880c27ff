//! Programs of npm: the OpenID provider that the suites sign in at, the compiler of `AssemblyScript`, and what drives a browser.

use std::path::Path;
use std::process::Command;

use super::run;
use crate::report::{Failure, note};

/// What says which versions of what are installed.
const FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// The modules of `examples/openid/provider` in `folder`.
pub(super) fn openid_provider(root: &Path, folder: &Path) -> Result<(), Failure> {
    install(&root.join("examples/openid/provider"), folder, "openid-provider")
}

/// The compiler of `examples/assemblyscript` in `folder`, as its lock file names it.
pub(super) fn assemblyscript(root: &Path, folder: &Path) -> Result<(), Failure> {
    install(&root.join("examples/assemblyscript"), folder, "assemblyscript")
}

/// What drives a browser, as the lock file of `page/tests/browser` names it, in `folder`.
pub(super) fn browser(root: &Path, folder: &Path) -> Result<(), Failure> {
    install(&root.join("page/tests/browser"), folder, "browser")
}

fn install(sources: &Path, folder: &Path, name: &str) -> Result<(), Failure> {
    let home = folder.join(name);
    let doing = format!("install {name}");
    let io = |error: std::io::Error| Failure::environment(error).context(&doing);
    let same = |file: &&str| matches!((std::fs::read(sources.join(file)), std::fs::read(home.join(file))), (Ok(a), Ok(b)) if a == b);
    if FILES.iter().all(same) {
        return Ok(());
    }
    note(format!("installing {name} with npm"));
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
