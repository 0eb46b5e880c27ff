//! What `new` makes works as it is: every template, in a workspace and as a project of its own.
//!
//! The READMEs' blocks and the workflows' steps are run as they are written. All projects share one target folder, so that
//! what they have in common is compiled once. With `UPDATE_GOLDEN=1` the templates' schemas and tables are written anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Ended, Server, finish, plugwright, repository, request};
use tempfile::TempDir;

/// Each template, and what a plain request to it is answered with; a network filter answers none.
const TEMPLATES: [(&str, Option<u16>); 6] = [
    ("headers", Some(200)),
    ("auth", Some(401)),
    ("callout", Some(503)),
    ("body", Some(200)),
    ("network", None),
    ("lua", Some(400)),
];

/// A folder for projects whose cargo compiles as the repository's does, calls this program, and stays off the network.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".cargo")).unwrap();
    let config =
        "[alias]\nxtask = \"plugwright\"\n[net]\noffline = true\n[profile.dev]\ndebug = \"line-tables-only\"\n";
    fs::write(folder.path().join(".cargo/config.toml"), config).unwrap();
    folder
}

/// Has a project compile where the others do, with the versions that the repository is locked to.
fn share_target(project: &Path) {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new");
    fs::create_dir_all(&shared).unwrap();
    std::os::unix::fs::symlink(shared, project.join("target")).unwrap();
    fs::copy(repository().join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
}

/// The repository's workspace, with no plugins in it.
fn workspace(root: &Path) -> PathBuf {
    let tree = root.join("tree");
    fs::create_dir(&tree).unwrap();
    let repository = repository();
    let manifest = fs::read_to_string(repository.join("Cargo.toml")).unwrap();
    let lines = manifest.lines().filter(|line| !line.starts_with("default-members")).map(|line| {
        if line.starts_with("members = ") {
            return "members = [\"plugins/*\"]".to_owned();
        }
        line.replace("{ path = \"", &format!("{{ path = \"{}/", repository.display()))
    });
    fs::write(tree.join("Cargo.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    for file in ["rustfmt.toml", "clippy.toml"] {
        fs::copy(repository.join(file), tree.join(file)).unwrap();
    }
    share_target(&tree);
    tree
}

/// A shell in a folder, with this program where cargo finds it.
fn shell(folder: &Path, script: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_cargo-plugwright")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([program.to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut command = Command::new("bash");
    command.args(["-e", "-c", script]).current_dir(folder).env("PATH", path).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        // What cargo says of this package is not for the cargos in there.
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_TARGET_") {
            command.env_remove(name);
        }
    }
    command
}

#[track_caller]
fn runs(folder: &Path, script: &str) -> Ended {
    finish(&mut shell(folder, script)).fine()
}

/// The blocks of a README that are commands: what kind, and their text.
fn blocks(readme: &str) -> Vec<(String, String)> {
    let parts: Vec<&str> = readme.split("```").collect();
    let blocks = parts.iter().skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    blocks.map(|(kind, text)| (kind.to_owned(), text.to_owned())).collect()
}

/// Does what a README says, in the folder where it says so; the server is asked something.
#[track_caller]
fn follow(folder: &Path, readme: &Path, answer: Option<u16>) {
    let text = fs::read_to_string(readme).unwrap();
    assert!(!text.contains("{{"), "{text}");
    let mut ran = 0;
    for (kind, script) in blocks(&text) {
        match kind.as_str() {
            "sh" => {
                runs(folder, &script);
                ran += 1;
            }
            "sh server" => {
                let script = format!("exec {} --listen 127.0.0.1:0", script.trim_end());
                let server = Server::start(&mut shell(folder, &script));
                if let Some(status) = answer {
                    assert_eq!(request(server.address(), "GET", "/", &[]).status, status, "{script}");
                }
                assert_eq!(server.stop("TERM").code, 0);
                ran += 1;
            }
            other => assert_eq!(other, "sh install"),
        }
    }
    assert!(ran >= 2, "{text}");
}

/// Every test that a README names beside its threats is there.
#[track_caller]
fn names_its_tests(plugin: &Path) {
    let readme = fs::read_to_string(plugin.join("README.md")).unwrap();
    let tests = fs::read_to_string(plugin.join("tests/traffic.rs")).unwrap();
    let rows = readme.lines().skip_while(|line| !line.starts_with("| threat |")).skip(2);
    let names: Vec<_> = rows.map_while(|row| row.strip_suffix("` |")?.rsplit_once('`')).map(|(_, name)| name).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("fn {name}(")), "{name}");
    }
}

/// Takes over into a template what `UPDATE_GOLDEN=1` had the plugin's own tests write.
fn take_over(plugin: &Path, template: &str) {
    let home = repository().join("xtask/templates").join(template);
    let plain = |text: &str| text.replace(&format!("my-{template}"), "plugin-name");
    let schema = fs::read_to_string(plugin.join("config.schema.json")).unwrap();
    fs::write(home.join("config.schema.json"), plain(&schema)).unwrap();
    let readme = fs::read_to_string(plugin.join("README.md")).unwrap();
    let (_, after) = readme.split_once("<!-- begin configuration -->\n").unwrap();
    let (table, _) = after.split_once("<!-- end configuration -->").unwrap();
    fs::write(home.join("table.md"), plain(table)).unwrap();
}

#[test]
fn every_template_works_in_a_workspace() {
    let folder = folder();
    let tree = workspace(folder.path());
    for (template, _) in TEMPLATES {
        let made = plugwright(&tree, &["new", &format!("my-{template}"), "--template", template]).fine();
        for path in made.stdout.lines() {
            assert!(tree.join(path).is_file(), "{path}");
        }
        assert!(made.stderr.contains("next:"), "{}", made.stderr);
    }
    let members = TEMPLATES.iter().filter(|(template, _)| *template != "lua");
    let members: Vec<_> = members.map(|(template, _)| format!("--package my-{template}")).collect();
    runs(&tree, &format!("cargo fmt --check {}", members.join(" ")));
    runs(&tree, "cargo clippy --quiet --workspace --all-targets -- --deny warnings");
    runs(&tree, "cargo test --quiet --workspace");
    for (template, answer) in TEMPLATES {
        let place = if template == "lua" { "extensions" } else { "plugins" };
        let plugin = tree.join(place).join(format!("my-{template}"));
        follow(&tree, &plugin.join("README.md"), answer);
        if template != "lua" {
            names_its_tests(&plugin);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                take_over(&plugin, template);
            }
            for manifest in ["wasmplugin", "trafficextension"] {
                let file = plugin.join("manifests").join(manifest).with_extension("yaml");
                let file = file.to_str().unwrap();
                plugwright(&tree, &["lint", "-f", file]).fine();
                let gateway = "gateway.networking.k8s.io/gateway-name=gateway";
                let mut explain = vec!["explain", "-f", file, "--namespace", "default", "--kind", "gateway"];
                explain.extend(["--label", gateway]);
                if template == "network" {
                    explain.extend(["--layer", "network"]);
                }
                let chain = plugwright(&tree, &explain).fine().stdout;
                assert!(chain.contains(&format!("my-{template}")), "{chain}");
            }
        }
    }
}

#[test]
fn every_template_works_as_a_project_of_its_own() {
    let folder = folder();
    let sdk = repository().join("sdk");
    for (template, answer) in TEMPLATES {
        let name = format!("own-{template}");
        let mut arguments = vec!["new", &name, "--template", template, "--standalone", &name];
        arguments.extend(["--registry", "ghcr.io/acme/plugins", "--sdk", sdk.to_str().unwrap()]);
        plugwright(folder.path(), &arguments).fine();
        let project = folder.path().join(&name);
        for file in [".gitignore", "LICENSE", "README.md"] {
            assert!(project.join(file).is_file(), "{file}");
        }
        share_target(&project);
        let workflow = fs::read_to_string(project.join(".github/workflows/plugin.yaml")).unwrap();
        let steps: Vec<_> = workflow.lines().filter_map(|line| line.strip_prefix("    - run: cargo ")).collect();
        let (installs, steps): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| step.starts_with("install "));
        assert!(!installs.is_empty() && !steps.is_empty(), "{workflow}");
        for step in steps {
            runs(&project, &format!("cargo {step}"));
        }
        follow(&project, &project.join("README.md"), answer);
    }
}

#[test]
fn a_workflow_publishes_with_no_more_rights_than_that_takes() {
    let folder = folder();
    let arguments = [
        "new",
        "x",
        "--standalone",
        "x",
        "--registry",
        "ghcr.io/acme/plugins",
        "--sdk",
        "https://git.example/a.git#0f1e",
    ];
    plugwright(folder.path(), &arguments).fine();
    let workflow = fs::read_to_string(folder.path().join("x/.github/workflows/plugin.yaml")).unwrap();
    assert!(!workflow.contains("{{cargo") && !workflow.contains("{{registry"), "{workflow}");
    for part in [
        "\npermissions: {}\n",
        "      packages: write\n",
        "  REGISTRY: ghcr.io/acme/plugins\n",
        "cargo install --locked --git https://git.example/a.git --rev 0f1e xtask\n",
    ] {
        assert!(workflow.contains(part), "{part}: {workflow}");
    }
    assert_eq!(workflow.matches("write").count(), 1, "{workflow}");
    let manifest = fs::read_to_string(folder.path().join("x/Cargo.toml")).unwrap();
    let dependency = "plugwright-sdk = { git = \"https://git.example/a.git\", rev = \"0f1e\" }\n";
    assert!(manifest.contains(dependency), "{manifest}");
}

#[test]
fn the_sdk_of_this_program_is_named_by_its_revision() {
    let folder = folder();
    plugwright(folder.path(), &["new", "x"]).fine();
    let manifest = fs::read_to_string(folder.path().join("x/Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("plugwright-sdk")).unwrap();
    assert!(line.contains(&format!("git = \"{}\", ", env!("CARGO_PKG_REPOSITORY"))), "{line}");
    assert!(line.contains("rev = ") || line.contains("tag = "), "{line}");
}

/// Refused, and nothing is there that was not.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let names = || {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let mut all = vec!["new"];
    all.extend(arguments);
    plugwright(folder, &all).refused(code, parts);
    assert_eq!(names(), before);
}

#[test]
fn a_name_that_something_would_refuse_later_is_refused_at_once() {
    let folder = folder();
    refused(folder.path(), &["Header_Append"], 2, &["Kubernetes", "hint: write `header-append`"]);
    refused(folder.path(), &["match"], 2, &["keyword of Rust", "hint: write `match-plugin`"]);
    refused(folder.path(), &["../x"], 2, &["DNS label"]);
    refused(folder.path(), &["serde"], 2, &["every plugin is made of"]);
    refused(folder.path(), &["x", "--registry", "ghcr.io/Acme"], 2, &["--registry `ghcr.io/Acme`", "upper-case"]);
    refused(folder.path(), &["x", "--description", "two\nlines"], 2, &["--description", "one line"]);
    refused(folder.path(), &["x", "--sdk", "nowhere"], 2, &["--sdk `nowhere`", "plugwright-sdk"]);
    refused(repository(), &["basic-auth"], 2, &["a package `basic-auth` already"]);
    refused(repository(), &["packager"], 2, &["a package `packager` already"]);
    refused(repository(), &["x", "--sdk", "sdk"], 2, &["--sdk", "--standalone"]);
}

#[test]
fn what_is_there_is_never_touched() {
    let folder = folder();
    fs::create_dir(folder.path().join("x")).unwrap();
    refused(folder.path(), &["x"], 2, &["x is there already"]);
    assert_eq!(fs::read_dir(folder.path().join("x")).unwrap().count(), 0);
    fs::write(folder.path().join("file"), "mine").unwrap();
    refused(folder.path(), &["y", "--standalone", "file"], 2, &["file is there already"]);
    refused(folder.path(), &["y", "--standalone", "file/y"], 3, &["file/y"]);
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    refused(folder.path(), &["y", "--standalone", "link"], 2, &["link is there already"]);
}

#[test]
fn another_kind_of_project_has_no_place_for_a_plugin() {
    let folder = folder();
    fs::write(folder.path().join("Cargo.toml"), "[package]\nname = \"app\"\n").unwrap();
    refused(folder.path(), &["x"], 2, &["Cargo.toml", "plugins/*", "--standalone"]);
    fs::write(folder.path().join("Cargo.toml"), "[workspace]\nmembers = [\"a\"\n").unwrap();
    refused(folder.path(), &["x"], 1, &["Cargo.toml:2:"]);
}

#[test]
fn a_dry_run_and_json_say_what_there_would_be() {
    let folder = folder();
    let said = plugwright(folder.path(), &["new", "x", "--dry-run"]).fine();
    assert!(said.stdout.lines().any(|line| line == "x/src/lib.rs"), "{}", said.stdout);
    let json = plugwright(folder.path(), &["new", "x", "--dry-run", "--json"]).fine().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["written"], false);
    assert_eq!(json["next"][0], "cargo test");
    assert!(!folder.path().join("x").exists());
}

#[test]
fn names_that_a_template_uses_itself_are_kept_apart() {
    let folder = folder();
    for name in ["config", "plugin", "host"] {
        plugwright(folder.path(), &["new", name]).fine();
        let lib = fs::read_to_string(folder.path().join(name).join("src/lib.rs")).unwrap();
        let capital = name[..1].to_uppercase() + &name[1..];
        assert!(lib.contains(&format!("pub struct {capital}Filter {{")), "{lib}");
    }
}
