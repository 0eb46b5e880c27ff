//! Real plugin crates through the real cargo: discovery, and modules that do not depend on where they are built.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use packager::build::{Built, DiscoverError, Installer, Preference, compile, discover, prepare};
use support::tools;

fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Copy the plugins and what they are made of, and nothing else, into a workspace of their own.
fn copy_plugins(to: &Path) {
    fs::create_dir_all(to).unwrap();
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find(|line| line.starts_with("members")).unwrap();
    let defaults = manifest.lines().find(|line| line.starts_with("default-members")).unwrap();
    let manifest = manifest.replace(members, "members = [\"sdk\", \"jose\", \"plugins/*\"]").replace(defaults, "");
    fs::write(to.join("Cargo.toml"), manifest).unwrap();
    for part in ["Cargo.lock", "sdk", "jose", "plugins"] {
        let status = Command::new("cp").arg("-r").arg(repository().join(part)).arg(to).status().unwrap();
        assert!(status.success());
    }
}

fn build(cargo: &Path, root: &Path, preference: Preference) -> Vec<Built> {
    let workspace = discover(cargo, root, None).unwrap();
    let plugins = workspace.select(&[]).unwrap();
    let mut talk = |_: &str| ();
    let toolchain = prepare(&tools(root), preference, &mut Installer { allowed: true, talk: &mut talk }).unwrap();
    compile(cargo, &workspace, &plugins, &toolchain).unwrap()
}

/// A cargo that runs as somebody else would: another home, another registry folder, another time zone and umask.
fn cargo_of_another_user(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or_else(|_| format!("{}/.rustup", std::env::var("HOME").unwrap()));
    let script = folder.join("cargo");
    let body = format!(
        "#!/bin/sh\numask 077\nexport RUSTUP_HOME={rustup} HOME={home} CARGO_HOME={home}/cargo USER=someone TZ=Asia/Tokyo\n\
         export RUSTFLAGS=-Copt-level=0 SOURCE_DATE_EPOCH=1\nexec {cargo} \"$@\"\n",
        home = folder.join("a home").display().to_string().replace(' ', "\\ "),
        cargo = cargo().display(),
    );
    fs::write(&script, body).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn check_same_modules(preference: Preference) {
    let here = tempfile::tempdir().unwrap();
    let there = tempfile::tempdir().unwrap();
    let deep = there.path().join("some/deeper folder");
    copy_plugins(here.path());
    copy_plugins(&deep);
    let first = build(&cargo(), here.path(), preference);
    let second = build(&cargo_of_another_user(there.path()), &deep, preference);
    assert!(first.len() >= 2);
    for (one, two) in first.iter().zip(&second) {
        let (a, b) = (fs::read(&one.module).unwrap(), fs::read(&two.module).unwrap());
        assert!(a == b, "{} differs: {} and {} bytes", one.plugin.name, a.len(), b.len());
        for folder in [here.path().to_str().unwrap(), "/root/", "/home/", "registry/src", "/usr/"] {
            let found = a.windows(folder.len()).any(|window| window == folder.as_bytes());
            assert!(!found, "{} contains `{folder}`", one.plugin.name);
        }
    }
}

#[test]
fn modules_are_the_same_from_another_folder_user_and_home() {
    check_same_modules(Preference::Auto);
}

#[test]
fn modules_with_a_library_from_source_are_the_same_too() {
    check_same_modules(Preference::Distribution);
}

#[test]
fn an_unknown_plugin_lists_the_known_ones() {
    let workspace = discover(&cargo(), repository(), None).unwrap();
    let error = workspace.select(&["basic-oath".to_owned()]).unwrap_err();
    assert!(matches!(&error, DiscoverError::Unknown { known, .. } if known.len() >= 2));
    for name in ["it has ", "basic-auth, ", "header-append"] {
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_table_that_does_not_fit_is_named_with_file_and_key() {
    let check = |library: &str, table: &str, expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let manifest = format!(
            "[package]\nname = \"x\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\n{library}\n\
             [package.metadata.plugin]\n{table}\n"
        );
        fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/lib.rs"), "").unwrap();
        let error = discover(&cargo(), folder.path(), None).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("Cargo.toml"), "{error}");
    };
    let cdylib = "crate-type = [\"cdylib\"]";
    check(cdylib, "phase = \"AUTHX\"", "`package.metadata.plugin.phase`: unknown variant `AUTHX`");
    check(cdylib, "priority = \"high\"", "`package.metadata.plugin.priority`: invalid type");
    check(cdylib, "prio = 1", "unknown field `prio`");
    check(cdylib, "root-ids = [1]", "`package.metadata.plugin.root-ids[0]`");
    check("", "", "crate-type = [\"cdylib\"]");
}
