//! A project of its own from end to end: installed over git, made, and published by the workflow that was made with it.
//!
//! Cargo and `new` are told the project's public address, and git is told that this is a repository on this
//! machine: it has this tree in one commit, whatever has been committed of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]
#![expect(clippy::print_stdout, reason = "whoever sees it fail wants to know in which step")]

mod github;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use github::{Event, Machine, Workflow};
use support::registry::{ACTOR, DockerRegistry, PASSWORD};
use support::{Ended, build_programs, finish, repository};
use tempfile::TempDir;

/// Where a project has the SDK from.
const ORIGIN: &str = env!("CARGO_PKG_REPOSITORY");

/// A machine on which nothing of Plugwright is, but what would take long to compile again.
struct Fresh {
    folder: TempDir,
    /// What `cargo install` compiles in: in the target folder, from which it is filled without copying.
    _compiled: TempDir,
    environment: Vec<(String, String)>,
    /// The only commit of the repository.
    commit: String,
}

impl Fresh {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let compiled = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "docker", ".cargo"] {
            fs::create_dir(at(name)).unwrap();
        }
        let origin = at("plugwright.git");
        let configuration = format!(
            "[url \"file://{}\"]\n\tinsteadOf = {ORIGIN}\n[user]\n\tname = Ann\n\temail = ann@example.com\n\
             [init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n",
            origin.display()
        );
        fs::write(at("gitconfig"), configuration).unwrap();
        // As the repository has it, so that what is compiled already is taken.
        fs::write(at(".cargo/config.toml"), "[profile.dev]\ndebug = \"line-tables-only\"\n").unwrap();
        links(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap(), compiled.path());
        let cargo = std::env::var("CARGO").unwrap();
        // An optimised program does the same, and takes minutes to compile.
        let install = format!("set -- install --debug --target-dir '{}' \"$@\"", compiled.path().display());
        program(
            &at("bin/cargo"),
            &format!("if [ \"$1\" = install ]; then shift; {install}; fi\nexec '{cargo}' \"$@\"\n"),
        );
        // There is no docker where this runs, and skopeo logs in by the same rules and keeps it in the same format.
        let login = "[ \"$1\" = login ] || { echo \"no rule for docker $1\" >&2; exit 1; }\n\
                     exec skopeo \"$@\" --tls-verify=false --authfile \"$DOCKER_CONFIG/config.json\"\n";
        program(&at("bin/docker"), login);
        let programs = Path::new(env!("CARGO_BIN_EXE_cargo-plugwright")).parent().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let path =
            [at("bin"), at("installed/bin"), programs.to_owned()].into_iter().chain(std::env::split_paths(&path));
        let environment = [
            ("PATH", std::env::join_paths(path).unwrap().into_string().unwrap()),
            ("CARGO_INSTALL_ROOT", at("installed").display().to_string()),
            ("CARGO_NET_GIT_FETCH_WITH_CLI", "true".to_owned()),
            ("DOCKER_CONFIG", at("docker").display().to_string()),
            ("GIT_CONFIG_GLOBAL", at("gitconfig").display().to_string()),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            // What is the same has the same commit.
            ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z".to_owned()),
            ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        let mut fresh = Self { folder, _compiled: compiled, environment, commit: String::new() };
        fresh.commit = fresh.publish(&origin);
        fresh
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command here, without what the cargo that runs this test says of itself.
    fn command(&self, folder: &Path, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if (text.starts_with("CARGO") && text != "CARGO_HOME") || text == "REGISTRY_AUTH_FILE" {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    #[track_caller]
    fn runs(&self, folder: &Path, program: &str, arguments: &[&str]) -> Ended {
        finish(&mut self.command(folder, program, arguments)).fine()
    }

    /// This tree as the only commit of a repository.
    fn publish(&self, origin: &Path) -> String {
        let git = |arguments: &[&str]| {
            let mut git = self.command(repository(), "git", arguments);
            git.env("GIT_DIR", origin).env("GIT_WORK_TREE", repository());
            finish(&mut git).fine().stdout.trim().to_owned()
        };
        self.runs(self.path(), "git", &["init", "--quiet", "--bare", origin.to_str().unwrap()]);
        git(&["add", "--all"]);
        let commit = git(&["commit-tree", &git(&["write-tree"]), "-m", "Plugwright"]);
        git(&["update-ref", "refs/heads/main", &commit]);
        commit
    }
}

impl Drop for Fresh {
    /// Takes this commit away from where cargo keeps repositories: nobody else has use for it.
    fn drop(&mut self) {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let Some(home) = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))) else { return };
        for repository in fs::read_dir(home.join("git/checkouts")).into_iter().flatten().flatten() {
            for checkout in fs::read_dir(repository.path()).into_iter().flatten().flatten() {
                if self.commit.starts_with(&*checkout.file_name().to_string_lossy()) {
                    let _ = fs::remove_dir_all(checkout.path());
                }
            }
        }
    }
}

/// A program that is a script.
fn program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Has what is compiled already in another target folder, too, but for what is in this repository: cargo would take it for
/// what comes over git. What cargo and build scripts write into where it is, is copied; compilers put a new file in an
/// old one's place.
fn links(from: &Path, to: &Path) {
    let metadata = support::cargo(&["metadata", "--no-deps", "--format-version", "1"]).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let named = |value: &serde_json::Value| value["name"].as_str().unwrap().replace('-', "_");
    let packages = metadata["packages"].as_array().unwrap().iter();
    let own: BTreeSet<String> = packages
        .flat_map(|package| package["targets"].as_array().unwrap().iter().chain([package]).map(named))
        .collect();
    assert!(own.contains("xtask") && own.contains("cargo_plugwright"), "{own:?}");
    fs::create_dir(to.join("debug")).unwrap();
    for (part, how) in [("deps", "--link"), ("build", "--recursive"), (".fingerprint", "--recursive")] {
        let mut copy = Command::new("cp");
        copy.args(["--archive", how]).arg(from.join("debug").join(part)).arg(to.join("debug"));
        finish(&mut copy).fine();
        for entry in fs::read_dir(to.join("debug").join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().replace('-', "_");
            let name = name.rsplit_once('_').map_or(name.as_str(), |(name, _)| name);
            if own.contains(name) || name.strip_prefix("lib").is_some_and(|name| own.contains(name)) {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.unwrap();
            }
        }
    }
}

#[test]
fn a_project_is_made_and_published_by_its_workflow_with_nothing_but_git_and_a_registry() {
    build_programs(&[("suite-runner", "plugwright-suites"), ("config-schema", "plugwright-schema")]);
    let fresh = Fresh::new();
    let registry = DockerRegistry::with_password(fresh.path());
    // As a README of such a project says.
    let commit = fresh.commit.as_str();
    let install = ["install", "--locked", "--quiet", "--git", ORIGIN, "--rev", commit, "xtask"];
    fresh.runs(fresh.path(), "cargo", &install);

    let prefix = format!("{}/acme", registry.address);
    let new = ["plugwright", "new", "own", "--standalone", "own", "--registry", &prefix];
    fresh.runs(fresh.path(), "cargo", &new);
    let project = fresh.path().join("own");
    let manifest = fs::read_to_string(project.join("Cargo.toml")).unwrap();
    let sdk = format!("plugwright-sdk = {{ git = \"{ORIGIN}\", rev = \"{commit}\" }}\n");
    assert!(manifest.contains(&sdk), "{sdk}{manifest}");

    // As its author does it; the versions are those that the repository is locked to.
    fs::copy(repository().join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    fresh.runs(&project, "cargo", &["metadata", "--quiet", "--offline", "--format-version", "1"]);
    let lock = fs::read_to_string(project.join("Cargo.lock")).unwrap();
    assert!(lock.contains(&format!("source = \"git+{ORIGIN}?rev={commit}#{commit}\"\n")), "{lock}");
    for arguments in [&["init", "--quiet"][..], &["add", "."], &["commit", "--quiet", "-m", "It is there"]] {
        fresh.runs(&project, "git", arguments);
    }
    fresh.runs(&project, "git", &["tag", "v0.1.0"]);
    fresh.runs(&project, "git", &["tag", "v0.2.0"]);

    let workflow = Workflow::read(&project.join(".github/workflows/plugin.yaml"));
    let push = |git_ref| Event { name: "push", git_ref };
    assert_eq!(workflow.jobs(&push("refs/heads/topic")), [""; 0]);
    assert_eq!(workflow.jobs(&push("refs/heads/main")), ["test"]);
    assert_eq!(workflow.jobs(&Event { name: "pull_request", git_ref: "refs/pull/1/merge" }), ["test"]);
    let release = push("refs/tags/v0.1.0");
    assert_eq!(workflow.jobs(&release), ["test", "publish"]);

    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new");
    fs::create_dir_all(&shared).unwrap();
    let machine = Machine {
        project: &project,
        folder: fresh.path(),
        environment: fresh.environment.clone(),
        // What other projects have compiled is not compiled again.
        prepare: &|folder| symlink(&shared, folder.join("target")).unwrap(),
        actor: ACTOR,
        token: PASSWORD,
    };
    let tested = workflow.run("test", &release, &machine);
    assert!(tested.failed().is_none(), "{:#?}", tested.failed());
    assert!(tested.steps.len() >= 8, "{:#?}", tested.steps);
    assert_eq!(tested.steps[0].0, format!("cargo {}", install.join(" ").replace("--quiet ", "")));
    let published = workflow.run("publish", &release, &machine);
    assert!(published.failed().is_none(), "{:#?}", published.failed());

    // The output is the image in the registry, which takes nothing from somebody without the token.
    let image = published.outputs.get("image").unwrap();
    let (name, digest) = image.split_once('@').unwrap();
    assert_eq!(name, format!("{prefix}/own"));
    assert!(published.summary.starts_with(image), "{}", published.summary);
    fresh.runs(&project, "cargo", &["plugwright", "verify", image]);
    let tag = format!("{prefix}/own:0.1.0");
    let inspected = fresh.runs(&project, "cargo", &["plugwright", "inspect", &tag]).stdout;
    let head = fresh.runs(&project, "git", &["rev-parse", "HEAD"]).stdout;
    assert!(inspected.contains(digest) && inspected.contains(head.trim()), "{head}{inspected}");
    fs::remove_file(fresh.path().join("docker/config.json")).unwrap();
    finish(&mut fresh.command(&project, "cargo", &["plugwright", "verify", image]))
        .refused(3, &["unauthorized", "no credentials"]);

    // A tag that is not the crate's version ends before anybody has logged in.
    let refused = workflow.run("publish", &push("refs/tags/v0.2.0"), &machine);
    assert_eq!(refused.failed().unwrap().0, "the tag is the crate's version");
    assert!(!fresh.path().join("docker/config.json").exists());
}
