//! Programs compiled from Go modules: Istio's own fetcher, and a registry that Debian does not have.
//!
//! The module proxy refuses zot's module; what it would have shown, the referrers API, crane's registry shows.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{debian, run};
use crate::environment;
use crate::report::{Failure, note};

/// CNCF distribution, the successor of Debian's docker-registry.
const DISTRIBUTION: &str = "3.1.1";

/// The release that Istio's module asks for.
const GO: (u32, u32) = (1, 26);

/// Compile what is missing or outdated in `folder`.
pub(super) fn build(root: &Path, folder: &Path) -> Result<(), Failure> {
    let folder =
        std::path::absolute(folder).map_err(|error| Failure::environment(format!("{}: {error}", folder.display())))?;
    let go = program(&folder)?;
    // Go's own cache knows whether the sources changed since.
    let sources = root.join("registry-tests/istio-fetch");
    let fetcher = folder.join("istio-fetch");
    if !fetcher.is_file() {
        note("compiling Istio's fetcher");
    }
    let mut command = command(&go);
    command.current_dir(sources).args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o"]).arg(fetcher);
    run(&mut command)?;

    let home = folder.join(format!("distribution-{DISTRIBUTION}"));
    if !home.join("registry").is_file() {
        note(format!("compiling distribution {DISTRIBUTION}"));
        let module = format!("github.com/distribution/distribution/v3/cmd/registry@v{DISTRIBUTION}");
        let mut command = self::command(&go);
        run(command.env("GOBIN", &home).args(["install", "-trimpath", "-ldflags=-s -w", &module]))?;
    }
    Ok(())
}

/// Fetch what the plugin in `examples/go` is made of, so that it builds without a network.
pub(super) fn example(root: &Path, folder: &Path) -> Result<(), Failure> {
    let mut command = command(&program(folder)?);
    run(command.current_dir(root.join("examples/go")).args(["mod", "download"]))
}

fn program(folder: &Path) -> Result<PathBuf, Failure> {
    match environment::on_path("go").filter(|program| is_recent(program.as_path())) {
        Some(program) => Ok(program),
        None => debian::go(folder),
    }
}

/// Without a C compiler, whatever the environment says of flags.
fn command(go: &Path) -> Command {
    let mut command = Command::new(go);
    command.env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").env("GOWORK", "off");
    command.env_remove("GOOS").env_remove("GOARCH").env_remove("GOROOT");
    command
}

fn is_recent(program: &Path) -> bool {
    let output = Command::new(program).args(["env", "GOVERSION"]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| release(&String::from_utf8_lossy(&output.stdout)).is_some_and(|found| found >= GO))
}

/// `go1.26.8` is release 1.26.
fn release(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.trim().strip_prefix("go")?.split_once('.')?;
    let minor = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn a_release_is_the_first_two_numbers() {
        assert_eq!(release("go1.26.8\n"), Some((1, 26)));
        assert_eq!(release("go1.27rc1"), Some((1, 27)));
        assert_eq!(release("go1.9"), Some((1, 9)));
        assert_eq!(release("devel go1.27-abc"), None);
    }
}
