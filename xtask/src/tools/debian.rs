//! Programs of Debian: installed from the machine's own release, or unpacked from a newer one into a folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;
use crate::environment;
use crate::report::{Failure, note};

/// Packages that the suites use, each with a program it brings.
const PACKAGES: &[(&str, &str)] = &[
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("buildah", "buildah"),
    ("podman", "podman"),
    ("openssl", "openssl"),
    ("wrk", "wrk"),
    // LuaJIT is built with it.
    ("make", "make"),
    // The OpenID provider runs on it.
    ("nodejs", "node"),
    ("npm", "npm"),
    // The trace page is looked at in it.
    ("chromium", "chromium"),
];

/// The release whose statically linked programs run on older ones as they are.
const NEWER: &str = "forky";

/// Its packages that the suites use, each with a program it brings.
const NEWER_PACKAGES: &[(&str, &str)] = &[("crane", "crane"), ("oras", "oras"), ("umoci", "umoci")];

/// Go for machines without one, and where it lies in the packages.
const GO_PACKAGES: &[&str] = &["golang-1.26-go", "golang-1.26-src"];
const GO: &str = "usr/lib/go-1.26/bin/go";

/// Install what is missing of the registries and image tools.
pub(super) fn install() -> Result<(), Failure> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, program)| environment::on_path(program).is_none()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let command = format!("apt-get update && apt-get install -y --no-install-recommends {list}");
    if environment::on_path("apt-get").is_none() {
        return Err(Failure::environment(format!("the suites need these programs: {list}"))
            .hint("install them with this machine's package manager"));
    }
    note(format!("installing {list}"));
    run(Command::new("sh").args(["-c", &command]).env("DEBIAN_FRONTEND", "noninteractive"))
        .map_err(|failure| failure.hint(format!("as root: {command}")))
}

/// Where the newer release's programs are, below `folder`.
pub(super) fn newer_programs(folder: &Path) -> PathBuf {
    newer(folder).join("usr/bin")
}

fn newer(folder: &Path) -> PathBuf {
    folder.join(format!("debian-{NEWER}"))
}

/// The newer release's programs in `folder`, downloaded where they are missing.
pub(super) fn unpack_newer(folder: &Path) -> Result<(), Failure> {
    let programs = newer_programs(folder);
    let missing = NEWER_PACKAGES.iter().filter(|(_, program)| !programs.join(program).is_file());
    unpack(folder, &missing.map(|(name, _)| *name).collect::<Vec<_>>())
}

/// The newer release's Go in `folder`.
pub(super) fn go(folder: &Path) -> Result<PathBuf, Failure> {
    let program = newer(folder).join(GO);
    if !program.is_file() {
        unpack(folder, GO_PACKAGES)?;
    }
    Ok(program)
}

/// Download packages with an apt configuration of our own, which the machine's never learns of, and unpack them
/// without installing anything.
fn unpack(folder: &Path, packages: &[&str]) -> Result<(), Failure> {
    if packages.is_empty() {
        return Ok(());
    }
    note(format!("fetching {} from Debian {NEWER}", packages.join(", ")));
    let folder = std::path::absolute(folder)
        .and_then(|folder| std::fs::create_dir_all(&folder).map(|()| folder))
        .map_err(|error| Failure::environment(format!("{}: {error}", folder.display())))?;
    let scratch = tempfile::tempdir_in(&folder)
        .map_err(|error| Failure::environment(format!("{}: {error}", folder.display())))?;
    let here = scratch.path();
    let sources = sources()?;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(here.join("state/lists/partial"))?;
        std::fs::create_dir_all(here.join("cache/archives/partial"))?;
        std::fs::create_dir_all(newer(&folder))?;
        std::fs::write(here.join("sources.list"), &sources)?;
        std::fs::write(here.join("apt.conf"), apt_configuration(here))
    };
    write().map_err(|error| Failure::environment(format!("{}: {error}", here.display())))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(here).env("APT_CONFIG", here.join("apt.conf")).arg("--quiet=2").args(arguments);
        run(&mut command).map_err(|failure| failure.hint("the suites need Debian's apt-get and dpkg, and its mirror"))
    };
    apt(&["update"])?;
    let named: Vec<String> = packages.iter().map(|package| format!("{package}/{NEWER}")).collect();
    let mut download = vec!["download"];
    download.extend(named.iter().map(String::as_str));
    apt(&download)?;
    for package in packages {
        let archive = std::fs::read_dir(here)
            .map_err(|error| Failure::environment(format!("{}: {error}", here.display())))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
            })
            .ok_or_else(|| Failure::environment(format!("apt-get downloaded nothing for {package}")))?;
        run(Command::new("dpkg").arg("-x").arg(archive).arg(newer(&folder)))?;
    }
    Ok(())
}

/// The newer release on the mirror that this machine uses for its own.
fn sources() -> Result<String, Failure> {
    let mirror = || {
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        let mut command = Command::new("apt-get");
        let output = command.args(["indextargets", "--format", format, "Created-By: Packages"]).output().ok()?;
        let lines = String::from_utf8(output.stdout).ok()?;
        lines.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
    };
    let hint = "the suites need Debian's apt-get and dpkg, and its mirror";
    let mirror = match mirror() {
        Some(mirror) => mirror,
        // Without lists apt-get does not know whose mirror is whose.
        None => {
            run(Command::new("apt-get").args(["update", "--quiet=2"])).map_err(|failure| failure.hint(hint))?;
            mirror().ok_or_else(|| Failure::environment("apt-get names no mirror of Debian").hint(hint))?
        }
    };
    Ok(format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {NEWER} main\n"))
}

fn apt_configuration(here: &Path) -> String {
    let here = here.display();
    format!(
        "Dir::State \"{here}/state\";\nDir::State::status \"/var/lib/dpkg/status\";\nDir::Cache \"{here}/cache\";\n\
         Dir::Etc::SourceList \"{here}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
         Acquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}
